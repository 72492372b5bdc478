"""The loops that find, cut out and put back zero regions. Elements are seen as bytes, so one loop serves all types."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel, primitive

_MOST = 0xFFFFFFFF


@kernel("i8(u1[r], i8, u4[w])")
def find(filled: Any, least: Any, lengths: Any) -> int:
    """Write alternating lengths of kept and of zero regions, return how many; `lengths` has room for all.

    `filled` is 0 for a zero element; shorter zero regions than `least` are kept. A region that is long enough and
    begins at `start` or later reaches over the element at start + least - 1, so only that one is looked at.
    """
    count = kept = start = 0
    probe = least - 1
    while probe < filled.size:
        first, last = probe, probe + 1
        if not filled[probe]:
            while first > start and not filled[first - 1]:
                first -= 1
            while last < filled.size and not filled[last]:
                last += 1
        length = last - first
        if filled[probe] or length < least:
            kept += last - start
        else:
            kept += first - start
            while length > 0:
                zeros = 0 if kept > _MOST else min(length, _MOST)
                lengths[count] = np.uint32(min(kept, _MOST))
                lengths[count + 1] = np.uint32(zeros)
                count += 2
                kept -= min(kept, _MOST)
                length -= zeros
        start = last
        probe = start + least - 1
    return count


@primitive
def _copy(source: Any, target: Any) -> None:
    for i in range(target.size):
        target[i] = source[i]


@kernel("void(u1[r], u4[r], i8, u1[w])")
def cut(data: Any, lengths: Any, size: Any, kept: Any) -> None:
    """Copy the kept regions of elements of `size` bytes; what follows the last length is kept."""
    position = at = 0
    for k in range(lengths.size):
        step = np.int64(lengths[k]) * size
        if k % 2 == 0:
            _copy(data[position : position + step], kept[at : at + step])
            at += step
        position += step
    _copy(data[position:], kept[at:])


@kernel("void(u1[r], u4[r], i8, u1[w])")
def fill(kept: Any, lengths: Any, size: Any, data: Any) -> None:
    """Undo `cut`; the lengths have been checked against both arrays."""
    position = at = 0
    for k in range(lengths.size):
        step = np.int64(lengths[k]) * size
        target = data[position : position + step]
        if k % 2 == 0:
            _copy(kept[at : at + step], target)
            at += step
        else:
            for i in range(target.size):
                target[i] = np.uint8(0)
        position += step
    _copy(kept[at:], data[position:])

"""3LC as one: ternary, base3 and zero_run in one walk, with what an error buffer adds and keeps.

Strategy: the bytes of base3 are made tile by tile. Five walks, one for each digit, go through a tile of bytes that
stays in the first cache, so that every walk is along neighbours; then the runs of the tile are coded. What the three
codecs make one after the other is what comes out here, byte for byte. Parts that the caches hold are quantized as soon
as their largest magnitude is known, and not fetched again.

The elements of a message are parts of the caller's array, put one after the other: part k is `lengths[k]` elements from
`starts[k]` on. The error buffer has the parts without what lies between them. `cursor` is room for ten numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels.base3 import peel
from featherweight.codecs._kernels.zero_run import SPARE, ends, spread, squeeze
from featherweight.kernel import kernel, primitive

__all__ = ["NEAR", "SPARE", "TILE", "receive", "scales", "send"]

TILE = 4096
"""Bytes in a tile; `tile` has as many again, and SPARE."""

NEAR = 1 << 19
"""The most elements of a part that is likely still in the caches when its largest magnitude is known."""

_FLOATS = 1024
_INFINITE = np.uint32(0x7F800000)
_MOST = np.float32(np.finfo(np.float32).max)
_0, _UNIT = np.float32(0), np.float32(1)
_1 = np.uint8(1)
_3 = np.uint8(3)


@primitive
def _quantize(x: Any, scale: Any, error: Any, digits: Any) -> None:
    for i in range(digits.size):
        t = x[i] + error[i]
        over, under = t + t > scale, t + t < -scale
        error[i] = t - (scale if over else (-scale if under else _0))
        digits[i] = np.uint8(2) if over else (np.uint8(0) if under else _1)


@primitive
def _scale(words: Any, s: Any) -> Any:
    """Return the scale that the codec ternary would find, of the largest magnitude, the bits of which are `words`."""
    most = words.view(np.float32)[0]
    words[0] = np.uint32(0)
    made = words.view(np.float32)
    made[0] = min(np.float32(most * s), _MOST)
    if made[0] >= most + most and most > _0:
        words[0] -= np.uint32(1)
    return made[0]


@kernel("void(f4[r], u8[r], u8[r], f4, i8, u1[w], f4[w], f4[w], f4[w])")
def scales(x: Any, starts: Any, lengths: Any, s: Any, near: Any, digits: Any, error: Any, tile: Any, out: Any) -> None:
    """Find the scale of each part, s times its largest magnitude, error added; -1 where that is not finite.

    Parts of up to `near` elements, all finite, are quantized at once: their digits are left, and what quantizing loses
    in their errors. `tile` is room for 1,024 elements: as integers they are compared many at a time.
    """
    first: Any = 0
    words = tile.view(np.uint32)
    for k in range(lengths.size):
        count, start = np.int64(lengths[k]), np.int64(starts[k])
        most = np.uint32(0)
        for i in range(0, count, _FLOATS):
            size: Any = min(_FLOATS, count - i)
            here, there = x[start + i : start + i + size], error[first + i : first + i + size]
            for j in range(size):
                tile[j] = abs(here[j] + there[j])
            for j in range(size):
                most = max(most, words[j])
        words[0] = most
        out[k] = _scale(words[:1], s) if most < _INFINITE else -_UNIT
        if count <= near and most < _INFINITE:
            _quantize(x[start : start + count], out[k], error[first : first + count], digits[first : first + count])
        first += count


@primitive
def _begin(lengths: Any, size: Any, cursor: Any) -> None:
    """Find the part in which each fifth begins, and where this part begins."""
    part, first = 0, np.int64(0)
    for k in range(5):
        while part < lengths.size and first + np.int64(lengths[part]) <= k * size:
            first += np.int64(lengths[part])
            part += 1
        cursor[2 * k] = part
        cursor[2 * k + 1] = first


@primitive
def _push(digits: Any, tile: Any) -> None:
    for i in range(tile.size):
        tile[i] = np.uint8(_3 * tile[i] + digits[i])


@kernel("i8(f4[r], u8[r], u8[r], f4[r], i8, u1[r], f4[w], u1[w], i8[w], u1[w])")
def send(
    x: Any,
    starts: Any,
    lengths: Any,
    scales: Any,
    near: Any,
    known: Any,
    error: Any,
    tile: Any,
    cursor: Any,
    coded: Any,
) -> Any:
    """Code the parts, error added, keep what that loses, and return the length of what is coded.

    A part of negative scale is coded as zeros and its error stays. The digits of parts of up to `near` elements are
    `known` already. `coded` has SPARE bytes more than ⌈n / 5⌉.
    """
    total = error.size
    size = (total + 4) // 5
    place = run = 0
    _begin(lengths, size, cursor)
    for begin in range(0, size, TILE):
        end = min(size, begin + TILE)
        digits = tile[TILE + SPARE : 2 * TILE + SPARE]
        for i in range(end - begin):
            tile[i] = np.uint8(0)
        for k in range(5):
            at, stop = k * size + begin, min(total, k * size + end)
            part, first = cursor[2 * k], cursor[2 * k + 1]
            done = 0
            while at < stop:
                while first + np.int64(lengths[part]) <= at:
                    first += np.int64(lengths[part])
                    part += 1
                count = min(stop, first + np.int64(lengths[part])) - at
                start, scale = np.int64(starts[part]) + at - first, scales[part]
                if scale < np.float32(0):
                    for i in range(done, done + count):
                        tile[i] = np.uint8(_3 * tile[i] + _1)
                elif np.int64(lengths[part]) <= near:
                    _push(known[at : at + count], tile[done : done + count])
                else:
                    _quantize(x[start : start + count], scale, error[at : at + count], digits[:count])
                    _push(digits, tile[done : done + count])  # apart from the floats, these go 64 at a time
                at += count
                done += count
            for i in range(done, end - begin):
                tile[i] = np.uint8(_3 * tile[i] + _1)
            cursor[2 * k], cursor[2 * k + 1] = part, first
        place, run = squeeze(tile, end - begin, run, coded, place)
    return ends(run, coded, place)


@primitive
def _fill(digits: Any, scale: Any, out: Any) -> None:
    for i in range(digits.size):
        out[i] = scale if digits[i] == np.uint8(2) else (_0 if digits[i] == _1 else -scale)


@primitive
def _add(digits: Any, scale: Any, out: Any) -> None:
    for i in range(digits.size):
        out[i] += scale if digits[i] == np.uint8(2) else (_0 if digits[i] == _1 else -scale)


@kernel("i8(u1[r], u8[r], u8[r], f4[r], i8, u1[w], i8[w], f4[w])")
def receive(coded: Any, starts: Any, lengths: Any, scales: Any, add: Any, tile: Any, cursor: Any, out: Any) -> int:
    """Write the parts where they belong in `out`, or with `add` add them; return -1 for bytes that do not fit them."""
    total: Any = 0
    for k in range(lengths.size):
        total += np.int64(lengths[k])
    size = (total + 4) // 5
    source = place = wrong = 0
    _begin(lengths, size, cursor)
    for begin in range(0, size, TILE):
        end = min(size, begin + TILE)
        source, place = spread(coded, source, tile, place, end - begin)
        if place < end - begin:
            return -1
        digits = tile[TILE + SPARE : TILE + SPARE + end - begin]
        for last in range(5):
            k = 4 - last
            peel(tile, digits)
            at, stop = k * size + begin, min(total, k * size + end)
            part, first = cursor[2 * k], cursor[2 * k + 1]
            done = 0
            while at < stop:
                while first + np.int64(lengths[part]) <= at:
                    first += np.int64(lengths[part])
                    part += 1
                count = min(stop, first + np.int64(lengths[part])) - at
                start = np.int64(starts[part]) + at - first
                if add:
                    _add(digits[done : done + count], scales[part], out[start : start + count])
                else:
                    _fill(digits[done : done + count], scales[part], out[start : start + count])
                at += count
                done += count
            for i in range(done, end - begin):
                if digits[i] != _1:
                    wrong = -1
            cursor[2 * k], cursor[2 * k + 1] = part, first
        for i in range(end - begin, place):  # what a run has written beyond the tile
            tile[i - (end - begin)] = tile[i]
        place -= end - begin
    return -1 if source < coded.size or place > 0 else wrong

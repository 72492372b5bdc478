"""From the bytes of a file to elements and back: byte order, alignment, and elements smaller than a byte.

Files hold elements little-endian in C order. Those of 2, 4 or 6 bits are packed, the first one in the lowest bits of
the first byte, so that four of them make one, two or three bytes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import numpy as np

from featherweight.dtypes import Array, ElementType, bits_view, packed_bytes
from featherweight.formats._io import scratch

__all__ = ["destination", "pack", "read_elements", "unpack", "view"]

_SWAP = sys.byteorder == "big"
_BLOCK = 1 << 18  # elements packed at a time


def pack(elements: Array, bits: int) -> Array:
    """Return elements that take a byte each as packed bytes.

    >>> pack(np.array([1, 2, 3], np.uint8), 4)
    array([33,  3], dtype=uint8)
    """
    groups = np.zeros((-(-elements.size // 4), 4), np.uint8)
    np.bitwise_and(elements.reshape(-1).view(np.uint8), (1 << bits) - 1, out=groups.reshape(-1)[: elements.size])
    words = np.zeros(len(groups), "<u4")
    for place in range(4):
        words |= groups[:, place].astype("<u4") << (bits * place)
    packed = words.view(np.uint8).reshape(-1, 4)[:, : bits // 2]
    return packed.reshape(-1)[: (elements.size * bits + 7) // 8]


def unpack(data: Array, bits: int, count: int) -> Array:
    """Return the first `count` elements of packed bytes, a byte each.

    >>> unpack(np.array([33, 3], np.uint8), 4, 3)
    array([1, 2, 3], dtype=uint8)
    """
    size = bits // 2
    groups = -(-count // 4)
    padded = np.zeros(groups * size, np.uint8)
    padded[: data.size] = data[: padded.size]
    words = np.zeros((groups, 4), np.uint8)
    words[:, :size] = padded.reshape(-1, size)
    elements = np.empty((groups, 4), np.uint8)
    for place in range(4):
        elements[:, place] = (words.reshape(-1).view("<u4") >> (bits * place)) & ((1 << bits) - 1)
    return elements.reshape(-1)[:count]


def view(data: Array, kind: ElementType) -> Array:
    """Return the flat, read-only elements in the bytes of a file: a view where possible, else a copy."""
    if data.ctypes.data % kind.dtype.alignment:
        aligned = scratch(data.size)  # no memory of ours where it is a large tensor: old files have odd headers
        aligned[:] = data
        data = aligned
    elements = data.view(kind.dtype)
    if _SWAP and kind.word.itemsize > 1:
        elements = bits_view(elements).byteswap().view(kind.dtype)
    elements.flags.writeable = False
    return elements


def read_elements(fetch: Callable[[int, int], Array], kind: ElementType, start: int, stop: int) -> Array:
    """Return the elements from `start` to `stop` of a tensor whose bytes ``fetch(offset, length)`` gives."""
    if kind.bits >= 8:
        return view(fetch(start * kind.bits // 8, (stop - start) * kind.bits // 8), kind)
    first = start // 4 * 4
    offset = packed_bytes(kind, first)
    data = fetch(offset, packed_bytes(kind, stop) - offset)
    return view(unpack(data, kind.bits, stop - first)[start - first :], kind)


@contextlib.contextmanager
def destination(data: Array, kind: ElementType, count: int) -> Iterator[Array]:
    """Give a flat array of `count` elements to be filled; at the end of the block `data` holds them as files do.

    The array is a view of `data` itself where the layout in memory is that of the file.
    """
    direct = kind.bits >= 8 and data.ctypes.data % kind.dtype.alignment == 0
    if direct and not (_SWAP and kind.word.itemsize > 1):
        yield data.view(kind.dtype)
        return
    elements = scratch(count * kind.dtype.itemsize).view(kind.dtype)
    yield elements
    for start in range(0, count, _BLOCK):
        block = elements[start : start + _BLOCK]
        if kind.bits < 8:
            raw = pack(block, kind.bits)
        else:
            raw = (bits_view(block).byteswap() if _SWAP else block).view(np.uint8)
        offset = packed_bytes(kind, start)
        data[offset : offset + raw.size] = raw

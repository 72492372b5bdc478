"""From the bytes of a file to elements and back: byte order, alignment, and elements smaller than a byte.

Files hold elements little-endian in C order. Those of 2, 4 or 6 bits are packed, the first one in the lowest bits of
the first byte, so that four of them make one, two or three bytes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import numpy as np

from featherweight.dtypes import Array, ElementType, bits_view, pack, packed_bytes, unpack
from featherweight.formats._io import scratch

__all__ = ["destination", "read_elements", "view"]

_SWAP = sys.byteorder == "big"
_BLOCK = 1 << 18  # elements packed at a time


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

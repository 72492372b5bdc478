"""The loops of bit packing: eight small numbers, or four of 2 bits, are one word, squeezed or spread in a few steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels._primitives import load32le, load64le, store32le, store64le
from featherweight.kernel import kernel

_0 = np.uint64(0)
_4 = np.uint64(4)
_6 = np.uint64(6)
_8 = np.uint64(8)
_12 = np.uint64(12)
_16 = np.uint64(16)
_A = np.uint64(0x00FF00FF00FF00FF)
_B = np.uint64(0x0000FFFF0000FFFF)
_C = np.uint64(0x00000000FFFFFFFF)
_BYTE = np.uint64(255)
_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
_TWO_PAIRS = np.uint64(0x000F000F)
_FOUR_PAIRS = np.uint64(0x03030303)


@kernel("void(u1[r], u1[w])")
def squeeze2(values: Any, packed: Any) -> None:
    for i in range(packed.size):
        word = load32le(values, 4 * i)
        word = (word | (word >> _6)) & _TWO_PAIRS
        packed[i] = np.uint8((word | (word >> _12)) & _BYTE)


@kernel("void(u1[r], u1[w])")
def spread2(packed: Any, values: Any) -> None:
    for i in range(packed.size):
        word = np.uint64(packed[i])
        word = (word | (word << _12)) & _TWO_PAIRS
        store32le(values, 4 * i, (word | (word << _6)) & _FOUR_PAIRS)


@kernel("void(u1[r], u1[w])")
def squeeze4(values: Any, packed: Any) -> None:
    for i in range(values.size // 8):
        word = load64le(values, 8 * i)
        word = (word | (word >> _4)) & _A
        word = (word | (word >> _8)) & _B
        store32le(packed, 4 * i, word | (word >> _16))


@kernel("void(u1[r], u1[w])")
def spread4(packed: Any, values: Any) -> None:
    for i in range(values.size // 8):
        word = load32le(packed, 4 * i)
        word = (word | (word << _16)) & _B
        word = (word | (word << _8)) & _A
        store64le(values, 8 * i, (word | (word << _4)) & _NIBBLES)


@kernel("void(u1[r], i8, u1[w])")
def squeeze(values: Any, width: Any, packed: Any) -> None:
    """Pack every eight numbers into `width` bytes."""
    w = np.uint64(width)
    for i in range(values.size // 8):
        word = load64le(values, 8 * i)
        word = (word & _A) | ((word & ~_A) >> (_8 - w))
        word = (word & _B) | ((word & ~_B) >> (_16 - w - w))
        word = (word & _C) | ((word & ~_C) >> (np.uint64(32) - _4 * w))
        for k in range(width):
            packed[i * width + k] = np.uint8((word >> np.uint64(8 * k)) & _BYTE)


@kernel("void(u1[r], i8, u1[w])")
def spread(packed: Any, width: Any, values: Any) -> None:
    """Undo `squeeze`."""
    w = np.uint64(width)
    pair, four = (np.uint64(1) << (w + w)) - np.uint64(1), (np.uint64(1) << (_4 * w)) - np.uint64(1)
    single = (np.uint64(1) << w) - np.uint64(1)
    pairs = pair | (pair << np.uint64(32))
    singles = single | (single << _16)
    singles |= singles << np.uint64(32)
    for i in range(values.size // 8):
        word = _0
        for k in range(width):
            word |= np.uint64(packed[i * width + k]) << np.uint64(8 * k)
        word = (word & four) | ((word & ~four) << (np.uint64(32) - _4 * w))
        word = (word & pairs) | ((word & ~pairs) << (_16 - w - w))
        store64le(values, 8 * i, (word & singles) | ((word & ~singles) << (_8 - w)))

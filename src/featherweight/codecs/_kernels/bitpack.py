"""Bit packing: number i lies in the bits i · width and so on, the first byte lowest.

Eight small numbers, or four of 2 bits, are one word, squeezed or spread in a few steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels import _vector as v
from featherweight.codecs._kernels._primitives import load32le, load64le, store32le, store64le
from featherweight.dtypes import Array
from featherweight.kernel import kernel, primitive

__all__ = ["bytes_for", "pack", "unpack"]

_0 = np.uint64(0)
_4 = np.uint64(4)
_5 = np.uint64(5)
_6 = np.uint64(6)
_8 = np.uint64(8)
_10 = np.uint64(10)
_12 = np.uint64(12)
_16 = np.uint64(16)
_32 = np.uint64(32)
_A = np.uint64(0x00FF00FF00FF00FF)
_B = np.uint64(0x0000FFFF0000FFFF)
_C = np.uint64(0x00000000FFFFFFFF)
_BYTE = np.uint64(255)
_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
_TWO_PAIRS = np.uint64(0x000F000F)
_SIXES = np.uint64(0x003F003F)
_TWELVE = np.uint64(0x00000FFF)
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
        word = (word & _C) | ((word & ~_C) >> (_32 - _4 * w))
        if i * width + 8 <= packed.size:
            store64le(packed, i * width, word)  # and zeros, where the next ones come
        else:
            for k in range(width):
                packed[i * width + k] = np.uint8((word >> np.uint64(8 * k)) & _BYTE)


@kernel("void(u1[r], i8, u1[w])")
def spread(packed: Any, width: Any, values: Any) -> None:
    """Undo `squeeze`."""
    w = np.uint64(width)
    pair, four = (np.uint64(1) << (w + w)) - np.uint64(1), (np.uint64(1) << (_4 * w)) - np.uint64(1)
    single = (np.uint64(1) << w) - np.uint64(1)
    pairs = pair | (pair << _32)
    singles = single | (single << _16)
    singles |= singles << _32
    for i in range(values.size // 8):
        if i * width + 8 <= packed.size:
            word = load64le(packed, i * width) & (four << (_4 * w) | four)
        else:
            word = _0
            for k in range(width):
                word |= np.uint64(packed[i * width + k]) << np.uint64(8 * k)
        word = (word & four) | ((word & ~four) << (_32 - _4 * w))
        word = (word & pairs) | ((word & ~pairs) << (_16 - w - w))
        store64le(values, 8 * i, (word & singles) | ((word & ~singles) << (_8 - w)))


@primitive
def _twelve(numbers: Any) -> Any:
    """Return the four numbers of 3 bits of each lane side by side."""
    pairs = v.both(v.either(numbers, v.right(numbers, v.splat(_5))), v.splat(_SIXES))
    return v.both(v.either(pairs, v.right(pairs, v.splat(_10))), v.splat(_TWELVE))


@primitive
def many3(values: Any, packed: Any) -> Any:
    """Pack 128 numbers of 3 bits at a time, as long as there is room for 64 bytes; return how many were."""
    at, to = 0, 0
    while at + 128 <= values.size and to + 64 <= packed.size:
        one, other = _twelve(v.load_bytes(values, at)), _twelve(v.load_bytes(values, at + 64))
        v.store_bytes(packed, to, v.either(v.evens(one, other), v.left(v.odds(one, other), v.splat(_12))))
        for lane in range(1, 16):  # three bytes of four, upwards: a store spoils a byte of the next place
            store32le(packed, to + 3 * lane, load32le(packed, to + 4 * lane))
        at += 128
        to += 48
    return at


@primitive
def few3(values: Any, packed: Any) -> None:
    """Pack numbers of 3 bits."""
    for i in range(0, values.size, 8):
        word, count = _0, min(8, values.size - i)
        for j in range(count):
            word |= np.uint64(values[i + j]) << np.uint64(3 * j)
        for k in range((3 * count + 7) // 8):
            packed[3 * (i // 8) + k] = np.uint8((word >> np.uint64(8 * k)) & _BYTE)


@kernel("void(u1[r], u1[w])")
def squeeze3(values: Any, packed: Any) -> None:
    done = many3(values, packed)
    few3(values[done:], packed[done // 8 * 3 :])


_FAST = {2: (squeeze2, spread2), 4: (squeeze4, spread4)}


def bytes_for(count: int, width: int) -> int:
    """Return the bytes that so many numbers take."""
    return (count * width + 7) // 8


def pack(values: Array, width: int) -> Array:
    """Return numbers below 2^width, a byte each, as packed bytes; what is over in the last one is 0."""
    whole = values.size // 8 * 8
    packed = np.empty(-(-values.size // 8) * width, np.uint8)
    _squeeze(values[:whole], width, packed[: whole // 8 * width])
    if whole < values.size:
        last = np.zeros(8, np.uint8)
        last[: values.size - whole] = values[whole:]
        _squeeze(last, width, packed[whole // 8 * width :])
    return packed[: bytes_for(values.size, width)]


def unpack(packed: Array, width: int, values: Array) -> bool:
    """Fill `values` from ``bytes_for(values.size, width)`` bytes; return whether what is over in the last one is 0."""
    whole = values.size // 8 * 8
    _spread(packed[: whole // 8 * width], width, values[:whole])
    if whole < values.size:
        last, spread = np.zeros(width, np.uint8), np.empty(8, np.uint8)
        last[: packed.size - whole // 8 * width] = packed[whole // 8 * width :]
        _spread(last, width, spread)
        values[whole:] = spread[: values.size - whole]
    used = values.size * width % 8
    return not (used and packed[-1] >> used)


def _squeeze(values: Array, width: int, packed: Array) -> None:
    if width == 8:
        packed[:] = values
    elif width in _FAST:
        _FAST[width][0](values, packed)
    elif width == 3 and v.compilable():
        squeeze3(values, packed)
    else:
        squeeze(values, width, packed)


def _spread(packed: Array, width: int, values: Array) -> None:
    if width == 8:
        values[:] = packed
    elif width in _FAST:
        _FAST[width][1](packed, values)
    else:
        spread(packed, width, values)

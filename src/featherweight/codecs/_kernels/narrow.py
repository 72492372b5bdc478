"""The loops that find and convert numbers of a wide type that a narrower one holds, bit for bit.

Strategy: no floating-point arithmetic takes part, so signalling NaNs, payloads and subnormal numbers survive on every
machine. A word can be narrowed when the bits that the narrower type lacks are zero; `lost_*` returns those bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel, primitive

_BLOCK = 128  # words between two looks at whether the row is lost already
_0 = np.uint64(0)
_1 = np.uint64(1)
_10 = np.uint64(10)
_13 = np.uint64(13)
_16 = np.uint64(16)
_23 = np.uint64(23)
_29 = np.uint64(29)
_31 = np.uint64(31)
_52 = np.uint64(52)
_63 = np.uint64(63)
_LOW16 = np.uint64(0xFFFF)


@primitive
def _lost(word: Any, mantissa: Any, exponents: Any, drop: Any, least: Any, most: Any) -> Any:
    """Return zero where a narrower type holds `word`, the bits it would lose elsewhere.

    `mantissa` is the width of the field and `exponents` the mask above it; the narrower mantissa is shorter by
    `drop`; its normal numbers have the exponents `least` to `most` of the wider type.
    """
    exponent = (word >> mantissa) & exponents
    kept = word & ((_1 << mantissa) - _1)
    below = least - min(exponent, least)
    gone = min(drop + below, mantissa + _1)
    lost = (kept | (_1 << mantissa)) & ((_1 << gone) - _1)
    lost = kept if exponent == _0 else lost
    return _1 if (exponent > most) & (exponent < exponents) else lost


@primitive
def _shrunk(word: Any, mantissa: Any, exponents: Any, drop: Any, least: Any, short: Any) -> Any:
    """Return the narrower word, without its sign; `short` is the mask of its exponents."""
    exponent = (word >> mantissa) & exponents
    kept = word & ((_1 << mantissa) - _1)
    below = least - min(exponent, least)
    subnormal = (kept | (_1 << mantissa)) >> min(drop + below, mantissa + _1)
    subnormal = _0 if exponent == _0 else subnormal
    field = short if exponent == exponents else (exponent - min(exponent, least - _1)) & short
    normal = (field << (mantissa - drop)) | (kept >> drop)
    return subnormal if below != _0 else normal


# The two that widen are written out: with constants handed in, LLVM makes no vectors of them. Subnormal numbers are
# integers of so few bits that they are a float64 exactly, on every machine; that finds their highest bit.


@primitive
def _half_grown(word: Any) -> Any:
    """Return the float32 word of a float16 word without its sign."""
    exponent, kept = word >> _10, word & np.uint64(0x3FF)
    normal = ((exponent + np.uint64(112)) << _23) | (kept << _13)
    special = np.uint64(0x7F800000) | (kept << _13)
    subnormal = (np.float64(np.int64(kept)).view(np.uint64) >> _29) - (np.uint64(1023 - 103) << _23)
    subnormal = _0 if kept == _0 else subnormal
    return subnormal if exponent == _0 else (special if exponent == np.uint64(31) else normal)


@primitive
def _single_grown(word: Any) -> Any:
    """Return the float64 word of a float32 word without its sign."""
    exponent, kept = word >> _23, word & np.uint64(0x7FFFFF)
    normal = ((exponent + np.uint64(896)) << _52) | (kept << _29)
    special = np.uint64(0x7FF0000000000000) | (kept << _29)
    subnormal = np.float64(np.int64(kept)).view(np.uint64) - (np.uint64(1023 - 874) << _52)
    subnormal = _0 if kept == _0 else subnormal
    return subnormal if exponent == _0 else (special if exponent == np.uint64(255) else normal)


@primitive
def half_lost(word: Any) -> Any:
    return _lost(word, _23, np.uint64(255), _13, np.uint64(113), np.uint64(142))


@primitive
def single_lost(word: Any) -> Any:
    return _lost(word, _52, np.uint64(2047), _29, np.uint64(897), np.uint64(1150))


@primitive
def _copy(source: Any, target: Any) -> None:
    for i in range(target.size):
        target[i] = source[i]


@kernel("void(u4[r], i8, u1[w])")
def judge32(words: Any, columns: Any, marks: Any) -> None:
    """Mark each row: 1 where bfloat16 holds it, plus 2 where float16 does."""
    for row in range(marks.size):
        first, behind = row * columns, (row + 1) * columns
        brain = half = _0
        if columns:  # nearly always the first number tells
            brain, half = np.uint64(words[first]) & _LOW16, half_lost(np.uint64(words[first]))
        for start in range(first, behind, _BLOCK):
            if (brain != _0) & (half != _0):
                break
            block = words[start : min(start + _BLOCK, behind)]
            if brain == _0:
                for i in range(block.size):
                    brain |= np.uint64(block[i]) & _LOW16
            if half == _0:
                for i in range(block.size):
                    half |= half_lost(np.uint64(block[i]))
        marks[row] = np.uint8((brain == _0) + 2 * (half == _0))


@kernel("void(u8[r], i8, u1[w])")
def judge64(words: Any, columns: Any, marks: Any) -> None:
    """Mark with 1 each row that float32 holds."""
    for row in range(marks.size):
        first, behind = row * columns, (row + 1) * columns
        single = single_lost(words[first]) if columns else _0
        for start in range(first, behind, _BLOCK):
            if single != _0:
                break
            block = words[start : min(start + _BLOCK, behind)]
            for i in range(block.size):
                single |= single_lost(block[i])
        marks[row] = np.uint8(single == _0)


@kernel("void(u4[r], i8, u1[r], u4[w], u2[w], u2[w])")
def sort32(words: Any, columns: Any, flags: Any, wide: Any, brain: Any, half: Any) -> None:
    """Write every row to the type that its flag names: 0 wide, 1 brain, 2 half."""
    at0 = at1 = at2 = 0
    for row in range(flags.size):
        block = words[row * columns : (row + 1) * columns]
        if flags[row] == 0:
            _copy(block, wide[at0 : at0 + columns])
            at0 += columns
        elif flags[row] == 1:
            target = brain[at1 : at1 + columns]
            for i in range(block.size):
                target[i] = np.uint16(np.uint64(block[i]) >> _16)
            at1 += columns
        else:
            target = half[at2 : at2 + columns]
            for i in range(block.size):
                word = np.uint64(block[i])
                short = _shrunk(word, _23, np.uint64(255), _13, np.uint64(113), np.uint64(31))
                target[i] = np.uint16(((word >> _31) << np.uint64(15)) | short)
            at2 += columns


@kernel("void(u4[r], u2[r], u2[r], u1[r], i8, u4[w])")
def merge32(wide: Any, brain: Any, half: Any, flags: Any, columns: Any, words: Any) -> None:
    """Undo `sort32`."""
    at0 = at1 = at2 = 0
    for row in range(flags.size):
        target = words[row * columns : (row + 1) * columns]
        if flags[row] == 0:
            _copy(wide[at0 : at0 + columns], target)
            at0 += columns
        elif flags[row] == 1:
            source = brain[at1 : at1 + columns]
            for i in range(target.size):
                target[i] = np.uint32(np.uint64(source[i]) << _16)
            at1 += columns
        else:
            source = half[at2 : at2 + columns]
            for i in range(target.size):
                word = np.uint64(source[i])
                long = _half_grown(word & np.uint64(0x7FFF))
                target[i] = np.uint32(((word >> np.uint64(15)) << _31) | long)
            at2 += columns


@kernel("void(u8[r], i8, u1[r], u8[w], u4[w])")
def sort64(words: Any, columns: Any, flags: Any, wide: Any, single: Any) -> None:
    """Write every row to the type that its flag names: 0 wide, 3 single."""
    at0 = at3 = 0
    for row in range(flags.size):
        block = words[row * columns : (row + 1) * columns]
        if flags[row] == 0:
            _copy(block, wide[at0 : at0 + columns])
            at0 += columns
        else:
            target = single[at3 : at3 + columns]
            for i in range(block.size):
                short = _shrunk(block[i], _52, np.uint64(2047), _29, np.uint64(897), np.uint64(255))
                target[i] = np.uint32(((block[i] >> _63) << _31) | short)
            at3 += columns


@kernel("void(u8[r], u4[r], u1[r], i8, u8[w])")
def merge64(wide: Any, single: Any, flags: Any, columns: Any, words: Any) -> None:
    """Undo `sort64`."""
    at0 = at3 = 0
    for row in range(flags.size):
        target = words[row * columns : (row + 1) * columns]
        if flags[row] == 0:
            _copy(wide[at0 : at0 + columns], target)
            at0 += columns
        else:
            source = single[at3 : at3 + columns]
            for i in range(target.size):
                word = np.uint64(source[i])
                long = _single_grown(word & np.uint64(0x7FFFFFFF))
                target[i] = ((word >> _31) << _63) | long
            at3 += columns

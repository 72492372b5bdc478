"""The loops of the plane split, one for each common layout so that LLVM can make short vectors of them.

`how` a word is folded says words.py. Where planes have fewer bits than a byte, merging returns what they hold beyond
them, 0 if nothing. Words of 32 and 64 bits are cut two planes at a time in
blocks that stay in the first cache: a loop with more outputs is not vectorised.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels.words import fold, unfold
from featherweight.kernel import kernel, primitive

_BLOCK = 2048
_BYTE = np.uint64(255)
_NIBBLE = np.uint64(15)
_6BITS = np.uint64(63)
_2BITS = np.uint64(3)
_0 = np.uint64(0)
_1 = np.uint64(1)
_4 = np.uint64(4)
_8 = np.uint64(8)
_10 = np.uint64(10)
_15 = np.uint64(15)
_16 = np.uint64(16)
_24 = np.uint64(24)
_31 = np.uint64(31)
_32 = np.uint64(32)
_40 = np.uint64(40)
_48 = np.uint64(48)
_56 = np.uint64(56)
_63 = np.uint64(63)


@kernel("void(u2[r], i8, u1[w], u1[w])")
def split16(words: Any, how: Any, a: Any, b: Any) -> None:
    for i in range(words.size):
        word = fold(np.uint64(words[i]), _15, how)
        a[i] = np.uint8((word >> _8) & _BYTE)
        b[i] = np.uint8(word & _BYTE)


@kernel("void(u1[r], u1[r], i8, u2[w])")
def merge16(a: Any, b: Any, how: Any, words: Any) -> None:
    for i in range(words.size):
        words[i] = np.uint16(unfold((np.uint64(a[i]) << _8) | np.uint64(b[i]), _15, how))


@kernel("void(u2[r], i8, u1[w], u1[w], u1[w])")
def split844(words: Any, how: Any, a: Any, b: Any, c: Any) -> None:
    for i in range(words.size):
        word = fold(np.uint64(words[i]), _15, how)
        a[i] = np.uint8((word >> _8) & _BYTE)
        b[i] = np.uint8((word >> _4) & _NIBBLE)
        c[i] = np.uint8(word & _NIBBLE)


@kernel("u1(u1[r], u1[r], u1[r], i8, u2[w])")
def merge844(a: Any, b: Any, c: Any, how: Any, words: Any) -> Any:
    beyond = np.uint8(0)
    for i in range(words.size):
        word = (np.uint64(a[i]) << _8) | ((np.uint64(b[i]) & _NIBBLE) << _4) | (np.uint64(c[i]) & _NIBBLE)
        words[i] = np.uint16(unfold(word, _15, how))
        beyond |= (b[i] | c[i]) >> np.uint8(4)
    return beyond


@kernel("void(u2[r], i8, u1[w], u1[w], u1[w])")
def split628(words: Any, how: Any, a: Any, b: Any, c: Any) -> None:
    for i in range(words.size):
        word = fold(np.uint64(words[i]), _15, how)
        a[i] = np.uint8((word >> _10) & _6BITS)
        b[i] = np.uint8((word >> _8) & _2BITS)
        c[i] = np.uint8(word & _BYTE)


@kernel("u1(u1[r], u1[r], u1[r], i8, u2[w])")
def merge628(a: Any, b: Any, c: Any, how: Any, words: Any) -> Any:
    beyond = np.uint8(0)
    for i in range(words.size):
        word = (np.uint64(a[i]) << _10) | ((np.uint64(b[i]) & _2BITS) << _8) | np.uint64(c[i])
        words[i] = np.uint16(unfold(word, _15, how))
        beyond |= (a[i] >> np.uint8(6)) | (b[i] >> np.uint8(2))
    return beyond


@primitive
def _cut32(words: Any, shift: Any, how: Any, upper: Any, lower: Any) -> None:
    for i in range(words.size):
        pair = fold(np.uint64(words[i]), _31, how) >> shift
        upper[i] = np.uint8((pair >> _8) & _BYTE)
        lower[i] = np.uint8(pair & _BYTE)


@kernel("void(u4[r], i8, u1[w], u1[w], u1[w], u1[w])")
def split32(words: Any, how: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    for start in range(0, words.size, _BLOCK):
        stop = min(start + _BLOCK, words.size)
        block = words[start:stop]
        _cut32(block, _16, how, a[start:stop], b[start:stop])
        _cut32(block, _0, how, c[start:stop], d[start:stop])


@kernel("void(u1[r], u1[r], u1[r], u1[r], i8, u4[w])")
def merge32(a: Any, b: Any, c: Any, d: Any, how: Any, words: Any) -> None:
    for i in range(words.size):
        high = (np.uint64(a[i]) << _24) | (np.uint64(b[i]) << _16)
        words[i] = np.uint32(unfold(high | (np.uint64(c[i]) << _8) | np.uint64(d[i]), _31, how))


@primitive
def _cut64(words: Any, shift: Any, how: Any, upper: Any, lower: Any) -> None:
    for i in range(words.size):
        pair = fold(words[i], _63, how) >> shift
        upper[i] = np.uint8((pair >> _8) & _BYTE)
        lower[i] = np.uint8(pair & _BYTE)


@kernel("void(u8[r], i8, u1[w], u1[w], u1[w], u1[w], u1[w], u1[w], u1[w], u1[w])")
def split64(words: Any, how: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> None:
    for start in range(0, words.size, _BLOCK):
        stop = min(start + _BLOCK, words.size)
        block = words[start:stop]
        _cut64(block, _48, how, a[start:stop], b[start:stop])
        _cut64(block, _32, how, c[start:stop], d[start:stop])
        _cut64(block, _16, how, e[start:stop], f[start:stop])
        _cut64(block, _0, how, g[start:stop], h[start:stop])


@kernel("void(u1[r], u1[r], u1[r], u1[r], u1[r], u1[r], u1[r], u1[r], i8, u8[w])")
def merge64(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any, how: Any, words: Any) -> None:
    for i in range(words.size):
        high = (np.uint64(a[i]) << _56) | (np.uint64(b[i]) << _48) | (np.uint64(c[i]) << _40)
        high |= (np.uint64(d[i]) << _32) | (np.uint64(e[i]) << _24) | (np.uint64(f[i]) << _16)
        words[i] = unfold(high | (np.uint64(g[i]) << _8) | np.uint64(h[i]), _63, how)


def _split(words: Any, widths: Any, bits: Any, how: Any, planes: Any) -> None:
    top = np.uint64(bits - 1)
    for start in range(0, words.size, _BLOCK):
        block = words[start : min(start + _BLOCK, words.size)]
        left = bits
        for k in range(widths.size):
            left -= np.int64(widths[k])
            shift, mask = np.uint64(left), (_1 << np.uint64(widths[k])) - _1
            at = k * words.size + start
            plane = planes[at : at + block.size]
            for i in range(block.size):
                plane[i] = np.uint8((fold(np.uint64(block[i]), top, how) >> shift) & mask)


def _merge(planes: Any, widths: Any, bits: Any, how: Any, words: Any) -> None:
    top, every = np.uint64(bits - 1), (((_1 << np.uint64(bits - 1)) - _1) << _1) | _1
    for start in range(0, words.size, _BLOCK):
        block = words[start : min(start + _BLOCK, words.size)]
        for i in range(block.size):
            block[i] = 0
        left = bits
        for k in range(widths.size):
            left -= np.int64(widths[k])
            factor = _1 << np.uint64(left)
            at = k * words.size + start
            plane = planes[at : at + block.size]
            for i in range(block.size):
                block[i] |= np.uint64(plane[i]) * factor
        for i in range(block.size):
            block[i] = unfold(np.uint64(block[i]), top, how) & every


# Any other widths, by the size of the word (8 planes of a word of 64 bits can only be bytes): planes lie end to end.
SPLIT = {size: kernel(f"void(u{size}[r], u1[r], i8, i8, u1[w])")(_split) for size in (1, 2, 4)}
MERGE = {size: kernel(f"void(u1[r], u1[r], i8, i8, u{size}[w])")(_merge) for size in (1, 2, 4)}

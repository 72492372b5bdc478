"""The loops of the plane split, one for each common layout so that LLVM can make short vectors of them.

`how` a word is folded says words.py. Where planes have fewer bits than a byte, merging returns what they hold beyond
them, 0 if nothing. Words of 32 and 64 bits are cut two planes at a time in
blocks that stay in the first cache: a loop with more outputs is not vectorised.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels.bitpack import few3, many3
from featherweight.codecs._kernels.words import fold, unfold
from featherweight.kernel import Kernel, kernel, primitive

BLOCK = 2048
_BYTE = np.uint64(255)
_HALF, _NIBBLE = np.uint8(4), np.uint8(15)
_0, _1, _2, _4, _7, _8, _11, _15, _16 = (np.uint64(value) for value in (0, 1, 2, 4, 7, 8, 11, 15, 16))
_20, _24, _31, _32, _40, _48, _56, _63 = (np.uint64(value) for value in (20, 24, 31, 32, 40, 48, 56, 63))


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


def _three(second: int, third: int) -> tuple[Kernel, Kernel]:
    """Make the loops for words of 16 bits in three planes, the others having `second` and `third` bits."""
    first = _16 - np.uint64(second + third)
    up, down = np.uint64(second + third), np.uint64(third)
    top, middle, low = (np.uint64((1 << bits) - 1) for bits in (16 - second - third, second, third))
    over = np.uint64(second)

    @kernel("void(u2[r], i8, u1[w], u1[w], u1[w])")
    def split(words: Any, how: Any, a: Any, b: Any, c: Any) -> None:
        for i in range(words.size):
            word = fold(np.uint64(words[i]), _15, how)
            a[i] = np.uint8((word >> up) & top)
            b[i] = np.uint8((word >> down) & middle)
            c[i] = np.uint8(word & low)

    @kernel("u1(u1[r], u1[r], u1[r], i8, u2[w])")
    def merge(a: Any, b: Any, c: Any, how: Any, words: Any) -> Any:
        beyond = _0
        for i in range(words.size):
            one, two, three = np.uint64(a[i]), np.uint64(b[i]), np.uint64(c[i])
            words[i] = np.uint16(unfold((one << up) | (two << down) | three, _15, how))
            beyond |= (one >> first) | (two >> over) | (three >> down)
        return np.uint8(beyond)

    return split, merge


split844, merge844 = _three(4, 4)
split538, merge538 = _three(3, 8)
split628, merge628 = _three(2, 8)  # of f16 as it was cut before
split547, merge547 = _three(4, 7)


@primitive
def _cut538(words: Any, how: Any, a: Any, b: Any, c: Any) -> None:
    # As `_three` cuts, and apart from it: with shifts that are arguments LLVM makes no short vectors.
    for i in range(words.size):
        word = fold(np.uint64(words[i]), _15, how)
        a[i] = np.uint8((word >> _11) & _31)
        b[i] = np.uint8((word >> _8) & _7)
        c[i] = np.uint8(word & _BYTE)


@kernel("void(u2[r], i8, u1[w], u1[w], u1[w], u1[w])")
def split538_packed(words: Any, how: Any, a: Any, b: Any, c: Any, some: Any) -> None:
    """Cut, and pack the second plane while it is near; `some` (BLOCK) is scratch."""
    for start in range(0, words.size, BLOCK):
        stop = min(start + BLOCK, words.size)
        middle, packed = some[: stop - start], b[start // 8 * 3 :]
        _cut538(words[start:stop], how, a[start:stop], middle, c[start:stop])
        done = many3(middle, packed)
        few3(middle[done:], packed[done // 8 * 3 :])


@primitive
def _cut32(words: Any, shift: Any, how: Any, upper: Any, lower: Any) -> None:
    for i in range(words.size):
        pair = fold(np.uint64(words[i]), _31, how) >> shift
        upper[i] = np.uint8((pair >> _8) & _BYTE)
        lower[i] = np.uint8(pair & _BYTE)


@kernel("void(u4[r], i8, u1[w], u1[w], u1[w], u1[w])")
def split32(words: Any, how: Any, a: Any, b: Any, c: Any, d: Any) -> None:
    for start in range(0, words.size, BLOCK):
        stop = min(start + BLOCK, words.size)
        block = words[start:stop]
        _cut32(block, _16, how, a[start:stop], b[start:stop])
        _cut32(block, _0, how, c[start:stop], d[start:stop])


@kernel("void(u1[r], u1[r], u1[r], u1[r], i8, u4[w])")
def merge32(a: Any, b: Any, c: Any, d: Any, how: Any, words: Any) -> None:
    for i in range(words.size):
        high = (np.uint64(a[i]) << _24) | (np.uint64(b[i]) << _16)
        words[i] = np.uint32(unfold(high | (np.uint64(c[i]) << _8) | np.uint64(d[i]), _31, how))


@kernel("void(u4[r], i8, u1[w], u1[w], u1[w], u1[w], u1[w])")
def split84488(words: Any, how: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> None:
    for start in range(0, words.size, BLOCK):
        stop = min(start + BLOCK, words.size)
        block, upper, lower = words[start:stop], b[start:stop], c[start:stop]
        _cut32(block, _16, how, a[start:stop], upper)
        _cut32(block, _0, how, d[start:stop], e[start:stop])
        for i in range(stop - start):
            both = upper[i]
            upper[i] = both >> _HALF
            lower[i] = both & _NIBBLE


@kernel("u1(u1[r], u1[r], u1[r], u1[r], u1[r], i8, u4[w])")
def merge84488(a: Any, b: Any, c: Any, d: Any, e: Any, how: Any, words: Any) -> Any:
    beyond = _0
    for i in range(words.size):
        upper, lower = np.uint64(b[i]), np.uint64(c[i])
        word = (np.uint64(a[i]) << _24) | (upper << _20) | (lower << _16) | (np.uint64(d[i]) << _8) | np.uint64(e[i])
        words[i] = np.uint32(unfold(word, _31, how))
        beyond |= (upper | lower) >> _4
    return np.uint8(beyond)


@primitive
def _cut64(words: Any, shift: Any, how: Any, upper: Any, lower: Any) -> None:
    for i in range(words.size):
        pair = fold(words[i], _63, how) >> shift
        upper[i] = np.uint8((pair >> _8) & _BYTE)
        lower[i] = np.uint8(pair & _BYTE)


@kernel("void(u8[r], i8, u1[w], u1[w], u1[w], u1[w], u1[w], u1[w], u1[w], u1[w])")
def split64(words: Any, how: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> None:
    for start in range(0, words.size, BLOCK):
        stop = min(start + BLOCK, words.size)
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
    for start in range(0, words.size, BLOCK):
        block = words[start : min(start + BLOCK, words.size)]
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
    for start in range(0, words.size, BLOCK):
        block = words[start : min(start + BLOCK, words.size)]
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

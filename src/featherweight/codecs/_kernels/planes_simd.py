"""The plane codec's loops for results too large for the caches, by vectors whose stores pass them by.

A plain store first fetches the line that it changes: for a whole tensor that is a read of memory for every write.
Merging makes whole lines of 64 bytes from word `first` on, which begins one, and the words before and behind them one
by one; it returns what planes hold beyond their bits, 0 if nothing. Cutting returns where the first word lies that it
has not cut. Words of 16 bits go in pairs.
"""

from __future__ import annotations

from typing import Any

from numpy import int64, uint64

from featherweight.codecs._kernels import _vector as v
from featherweight.codecs._kernels._primitives import load64le
from featherweight.codecs._kernels.words import ROTATE, ZIGZAG, unfold
from featherweight.kernel import kernel, primitive

__all__ = [
    "merge16",
    "merge32",
    "merge538_packed",
    "merge547",
    "merge844",
    "merge84488",
    "split32",
    "split84488",
]

_0, _1, _3, _4, _5, _6, _7, _8, _11 = (uint64(value) for value in (0, 1, 3, 4, 5, 6, 7, 8, 11))
_12, _13, _15, _16, _20, _24 = (uint64(value) for value in (12, 13, 15, 16, 20, 24))
_31, _32, _38, _56, _255 = (uint64(value) for value in (31, 32, 38, 56, 255))
_LOWEST = uint64(0x00010001)
_EVERY2, _EVERY4, _EVERY8, _UPPER = (uint64(mask) for mask in (0xAAAA, 0xCCCC, 0xF0F0, 0xFF00))  # of lanes


@primitive
def _unfolded16(words: Any, how: Any) -> Any:
    upper = v.right16(words, v.splat(_LOWEST))
    if how == ROTATE:
        return v.either(upper, v.left16(words, v.splat(_15 * _LOWEST)))
    if how == ZIGZAG:
        sign = v.both(words, v.splat(_LOWEST))
        return v.differ(upper, v.minus(v.left(sign, v.splat(_16)), sign))
    return words


@primitive
def _unfolded32(words: Any, how: Any) -> Any:
    upper = v.right(words, v.splat(_1))
    if how == ROTATE:
        return v.either(upper, v.left(words, v.splat(_31)))
    if how == ZIGZAG:
        return v.differ(upper, v.minus(v.splat(_0), v.both(words, v.splat(_1))))
    return words


@primitive
def _folded32(words: Any, how: Any) -> Any:
    if how == ROTATE:
        return v.either(v.left(words, v.splat(_1)), v.right(words, v.splat(_31)))
    if how == ZIGZAG:
        return v.differ(v.left(words, v.splat(_1)), v.minus(v.splat(_0), v.right(words, v.splat(_31))))
    return words


@primitive
def _one_by_one(planes: Any, bits: Any, top: Any, how: Any, first: Any, last: Any, words: Any) -> Any:
    """Merge the words from `first` to `last`, whose highest bit is `top`; return what planes hold beyond their bits."""
    beyond = _0
    for i in range(first, last):
        word = _0
        for j in range(len(planes)):
            part = uint64(planes[j][i])
            beyond |= part >> bits[j]
            word = (word << bits[j]) | part
        words[i] = unfold(word, top, how)
    return beyond


@kernel("i8(u4[r], i8, u1[w], u1[w], u1[w], u1[w])")
def split32(words: Any, how: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    at, size = _0, uint64(words.size)
    while at + _16 <= size:
        word = _folded32(v.load(words, at), how)
        v.store8(a, at, v.right(word, v.splat(_24)))
        v.store8(b, at, v.right(word, v.splat(_16)))
        v.store8(c, at, v.right(word, v.splat(_8)))
        v.store8(d, at, word)
        at += _16
    return int64(at)


@kernel("i8(u4[r], i8, u1[w], u1[w], u1[w], u1[w], u1[w])")
def split84488(words: Any, how: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    at, size = _0, uint64(words.size)
    while at + _16 <= size:
        word = _folded32(v.load(words, at), how)
        v.store8(a, at, v.right(word, v.splat(_24)))
        v.store8(b, at, v.both(v.right(word, v.splat(_20)), v.splat(_15)))
        v.store8(c, at, v.both(v.right(word, v.splat(_16)), v.splat(_15)))
        v.store8(d, at, v.right(word, v.splat(_8)))
        v.store8(e, at, word)
        at += _16
    return int64(at)


@kernel("i8(u1[r], u1[r], i8, u8, u2[w])")
def merge16(a: Any, b: Any, how: Any, first: Any, words: Any) -> Any:
    planes, bits, at, size = (a, b), (_8, _8), first, uint64(words.size)
    _one_by_one(planes, bits, _15, how, _0, first, words)
    while at + _32 <= size:
        pairs = v.either(v.left(v.spread8(a, at), v.splat(_8)), v.spread8(b, at))
        v.stream(words, at, _unfolded16(pairs, how))
        at += _32
    v.settle(words)
    return int64(_one_by_one(planes, bits, _15, how, at, size, words))


@primitive
def _beyond(plane: Any, bits: Any) -> Any:
    """Return what words of a plane have above its bits."""
    return v.both(plane, v.splat((_255 >> bits << bits) * _LOWEST))


@primitive
def _merge3(a: Any, b: Any, c: Any, second: Any, third: Any, how: Any, first: Any, words: Any) -> Any:
    """Merge three planes, the others having `second` and `third` bits."""
    planes, bits, at, size = (a, b, c), (_16 - second - third, second, third), first, uint64(words.size)
    beyond = _one_by_one(planes, bits, _15, how, _0, first, words)
    tops, middles, lows = v.splat(_0), v.splat(_0), v.splat(_0)
    while at + _32 <= size:
        top, middle, low = v.spread8(a, at), v.spread8(b, at), v.spread8(c, at)
        tops, middles, lows = v.either(tops, top), v.either(middles, middle), v.either(lows, low)
        pairs = v.either(v.left(top, v.splat(second + third)), v.either(v.left(middle, v.splat(third)), low))
        v.stream(words, at, _unfolded16(pairs, how))
        at += _32
    v.settle(words)
    beyond |= _one_by_one(planes, bits, _15, how, at, size, words)
    wrong = v.either(_beyond(tops, bits[0]), v.either(_beyond(middles, second), _beyond(lows, third)))
    return int64(beyond | v.less(v.splat(_0), wrong))


@primitive
def _three_of(plane: Any, i: Any) -> Any:
    """Return element i of a packed plane of 3 bits."""
    byte, over = i * _3 >> _3, i * _3 & _7
    some = uint64(plane[byte])
    if over > _5:
        some |= uint64(plane[byte + _1]) << _8
    return some >> over & _7


@primitive
def _spread3(plane: Any, at: Any) -> Any:
    """Return 32 elements of a packed plane of 3 bits as words; those of 38 must be there."""
    byte, over = at * _3 >> _3, at * _3 & _7
    low, high = load64le(plane, byte) >> over, load64le(plane, byte + _6) >> over  # 16 elements each
    steps = v.plus(v.choose(_EVERY2, v.splat(_6), v.splat(_0)), v.choose(_EVERY4, v.splat(_12), v.splat(_0)))
    low8, high8 = (
        v.choose(_EVERY8, v.splat(low >> _24), v.splat(low)),
        v.choose(_EVERY8, v.splat(high >> _24), v.splat(high)),
    )
    two = v.right(v.choose(_UPPER, high8, low8), steps)
    return v.either(v.both(two, v.splat(_7)), v.left(v.both(two, v.splat(_56)), v.splat(_13)))


@primitive
def _some538(a: Any, b: Any, c: Any, how: Any, first: Any, last: Any, words: Any) -> Any:
    """Merge the words from `first` to `last` one by one, b being packed; return what planes hold beyond their bits."""
    beyond = _0
    for i in range(first, last):
        top = uint64(a[i])
        beyond |= top >> _5
        words[i] = unfold(top << _11 | _three_of(b, i) << _8 | uint64(c[i]), _15, how)
    return beyond


@kernel("i8(u1[r], u1[r], u1[r], i8, u8, u2[w])")
def merge538_packed(a: Any, b: Any, c: Any, how: Any, first: Any, words: Any) -> Any:
    """Merge planes whose second is packed."""
    at, size = first, uint64(words.size)
    beyond, tops = _some538(a, b, c, how, _0, first, words), v.splat(_0)
    while at + _38 <= size:
        top = v.spread8(a, at)
        tops = v.either(tops, top)
        lower = v.either(v.left(_spread3(b, at), v.splat(_8)), v.spread8(c, at))
        v.stream(words, at, _unfolded16(v.either(v.left(top, v.splat(_11)), lower), how))
        at += _32
    v.settle(words)
    beyond |= _some538(a, b, c, how, at, size, words)
    over = size * _3 & _7
    if over:
        beyond |= uint64(b[size * _3 >> _3]) >> over
    return int64(beyond | v.less(v.splat(_0), _beyond(tops, _5)))


@kernel("i8(u1[r], u1[r], u1[r], i8, u8, u2[w])")
def merge844(a: Any, b: Any, c: Any, how: Any, first: Any, words: Any) -> Any:
    return _merge3(a, b, c, _4, _4, how, first, words)


@kernel("i8(u1[r], u1[r], u1[r], i8, u8, u2[w])")
def merge547(a: Any, b: Any, c: Any, how: Any, first: Any, words: Any) -> Any:
    return _merge3(a, b, c, _4, _7, how, first, words)


@kernel("i8(u1[r], u1[r], u1[r], u1[r], i8, u8, u4[w])")
def merge32(a: Any, b: Any, c: Any, d: Any, how: Any, first: Any, words: Any) -> Any:
    planes, bits, at, size = (a, b, c, d), (_8, _8, _8, _8), first, uint64(words.size)
    _one_by_one(planes, bits, _31, how, _0, first, words)
    while at + _16 <= size:
        high = v.either(v.left(v.load8(a, at), v.splat(_24)), v.left(v.load8(b, at), v.splat(_16)))
        low = v.either(v.left(v.load8(c, at), v.splat(_8)), v.load8(d, at))
        v.stream(words, at, _unfolded32(v.either(high, low), how))
        at += _16
    v.settle(words)
    return int64(_one_by_one(planes, bits, _31, how, at, size, words))


@kernel("i8(u1[r], u1[r], u1[r], u1[r], u1[r], i8, u8, u4[w])")
def merge84488(a: Any, b: Any, c: Any, d: Any, e: Any, how: Any, first: Any, words: Any) -> Any:
    planes, bits, at, size = (a, b, c, d, e), (_8, _4, _4, _8, _8), first, uint64(words.size)
    beyond, both = _one_by_one(planes, bits, _31, how, _0, first, words), v.splat(_0)
    while at + _16 <= size:
        upper, lower = v.load8(b, at), v.load8(c, at)
        both = v.either(both, v.either(upper, lower))
        middle = v.either(v.left(upper, v.splat(_20)), v.left(lower, v.splat(_16)))
        high = v.either(v.left(v.load8(a, at), v.splat(_24)), middle)
        low = v.either(v.left(v.load8(d, at), v.splat(_8)), v.load8(e, at))
        v.stream(words, at, _unfolded32(v.either(high, low), how))
        at += _16
    v.settle(words)
    beyond |= _one_by_one(planes, bits, _31, how, at, size, words)
    return int64(beyond | v.less(v.splat(_15), both))

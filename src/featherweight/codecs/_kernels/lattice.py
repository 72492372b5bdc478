"""The nearest points of the lattices A2, D4, E8 and Leech's, and the words of the dither.

Strategy: points come as rows, one a coordinate, so that every loop runs along a row and is done in vectors. They come
reduced modulo 8, which is a vector of every lattice here in each coordinate, and so single precision is enough.

Leech: with the parity m of the coordinates fixed, x = m + 2 c + 4 k for a word c of Golay's code, Σ k ≡ m (mod 2).
Golay's code is seen as 6 columns of 4 bits (the miracle octad generator of Curtis): the columns spell a word of the
hexacode, one digit each, and all have the same parity p, which is that of the top row as well. A digit and a parity
leave a column two patterns, one for each top bit; its four k have a parity too, and the cheapest way to change that
moves one coordinate. So a column costs one of four numbers, by (top bit, parity of k), and the sums of these pairs
over the columns are given: (p, m). For each m and p, the costs of columns are joined to those of pairs of columns, for
all 16 pairs of digits, and three such pairs to the cost of each of the 64 words of the hexacode: this is the search of
Vardy and Be'ery, "Maximum likelihood decoding of the Leech lattice" (1993), without its branches. Only for the word
that wins are the choices found again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy import float32, int32, int64, uint64

from featherweight.codecs._kernels._random import word
from featherweight.kernel import kernel, primitive

__all__ = ["LANES", "a2", "d4", "dither", "dither_one", "e8", "leech", "scratch"]

LANES = 32  # points that the search in Leech's lattice takes at once
_HALF, _1, _2, _3, _4 = float32(0.5), float32(1), float32(2), float32(3), float32(4)
_QUARTER = float32(0.25)
_ROUND = float32(3 << 22)  # added and taken away, it rounds what is small to nearest
_FAR = float32(1e30)
_24, _8 = uint64(40), uint64(8)
_LOW = uint64(0xFFFFFFFF)
_MIDDLE = int32(1 << 23)
_UNIT = float32(2.0**-24)


@primitive
def nearest_integer(x: Any) -> Any:
    """Round a small number to nearest, ties to even."""
    return float32(float32(x + _ROUND) - _ROUND)


@primitive
def high(w: Any, span: Any) -> Any:
    """Return a dither of the upper half of a word: from -span / 2 on and below span / 2."""
    return float32(float32(int32(w >> _24) - _MIDDLE) * _UNIT) * span


@primitive
def low(w: Any, span: Any) -> Any:
    """Return a dither of the lower half of a word."""
    return float32(float32(int32((w & _LOW) >> _8) - _MIDDLE) * _UNIT) * span


@kernel("void(u8, u8, f4[r], f4[:,w])")
def dither(seed: Any, first: Any, spans: Any, out: Any) -> None:
    """Write the dither of the points from number `first` on; row j of `out` is as wide as `spans` says."""
    pairs = uint64(spans.size >> 1)
    for j in range(spans.size >> 1):
        for i in range(out.shape[1]):
            w = word(seed, (first + uint64(i)) * pairs + uint64(j))
            out[2 * j, i] = low(w, spans[2 * j])
            out[2 * j + 1, i] = high(w, spans[2 * j + 1])


@kernel("void(u8, u8, f4[w])")
def dither_one(seed: Any, first: Any, out: Any) -> None:
    """Write the dither of integers, two a word, from word `first` on; their number is even."""
    for i in range(out.size >> 1):
        w = word(seed, first + uint64(i))
        out[2 * i] = low(w, _1)
        out[2 * i + 1] = high(w, _1)


@kernel("void(f4[:,r], i4[:,w])")
def a2(x: Any, y: Any) -> None:
    """Find the nearest of the points with both coordinates even or both odd; the second is √3 times as long."""
    for i in range(x.shape[1]):
        a, b = x[0, i], x[1, i]
        a0, b0 = nearest_integer(a * _HALF) * _2, nearest_integer(b * _HALF) * _2
        a1, b1 = nearest_integer((a - _1) * _HALF) * _2 + _1, nearest_integer((b - _1) * _HALF) * _2 + _1
        even = (a - a0) * (a - a0) + _3 * (b - b0) * (b - b0)
        odd = (a - a1) * (a - a1) + _3 * (b - b1) * (b - b1)
        y[0, i] = int32(a1 if odd < even else a0)
        y[1, i] = int32(b1 if odd < even else b0)


@kernel("void(f4[:,r], i4[:,w])")
def d4(x: Any, y: Any) -> None:
    """Find the nearest of the points whose four coordinates are all even or all odd."""
    for i in range(x.shape[1]):
        even, odd = float32(0), float32(0)
        for j in range(4):
            e = x[j, i] - nearest_integer(x[j, i] * _HALF) * _2
            o = x[j, i] - _1 - nearest_integer((x[j, i] - _1) * _HALF) * _2
            even += e * e
            odd += o * o
        m = _1 if odd < even else float32(0)
        for j in range(4):
            y[j, i] = int32(nearest_integer((x[j, i] - m) * _HALF) * _2 + m)


@kernel("void(f4[:,r], i4[:,w])")
def e8(x: Any, y: Any) -> None:
    """Find the nearest of the points y = m + 2 z, m all 0 or all 1, Σ z even."""
    for i in range(x.shape[1]):
        best, choice = _FAR, float32(0)
        for m in range(2):
            cost, least, total = float32(0), _1, float32(0)
            for j in range(8):
                t = (x[j, i] - float32(m)) * _HALF
                z = nearest_integer(t)
                d = abs(t - z)
                cost += d * d
                least = min(least, _1 - d - d)
                total += z
            odd = total - nearest_integer(total * _HALF) * _2
            cost += least * abs(odd)
            choice = float32(m) if cost < best else choice
            best = min(cost, best)
        most, total = float32(-1), float32(0)
        for j in range(8):
            t = (x[j, i] - choice) * _HALF
            z = nearest_integer(t)
            most = max(most, abs(t - z))
            total += z
        odd = abs(total - nearest_integer(total * _HALF) * _2)
        for j in range(8):
            t = (x[j, i] - choice) * _HALF
            z = nearest_integer(t)
            d = t - z
            move = odd if abs(d) == most else float32(0)
            odd = odd - move
            z += move if d >= float32(0) else -move
            y[j, i] = int32(z * _2 + choice)


def scratch() -> tuple[Any, Any]:
    """Return room for `leech`: floats and integers."""
    # Lanes that nobody needs are computed all the same: they hold numbers.
    return np.zeros(((24 * 6 + 96 + 192 + 64 + 2) * LANES,), float32), np.zeros((LANES + 64,), int32)


_L, _GO = uint64(LANES), tuple(uint64(LANES * k) for k in range(4))
_DISTANCE, _EXTRA, _PARITY = uint64(0), uint64(48 * LANES), uint64(96 * LANES)
_COLUMN, _PAIR, _WORD, _BEST = uint64(144 * LANES), uint64(240 * LANES), uint64(432 * LANES), uint64(496 * LANES)


@kernel("void(f4[:,r], u1[r], u1[r], f4[w], i4[w], i4[:,w])")
def leech(x: Any, patterns: Any, words: Any, room: Any, ints: Any, y: Any) -> None:
    """Find the nearest points of Leech's lattice; coordinate 4 j + r is that of row r in column j.

    `patterns` holds four bits for each 8 · parity + 2 · digit + top bit; `words` the hexacode, six digits each.
    """
    count = x.shape[1]
    for start in range(0, count, LANES):
        lanes = min(LANES, count - start)
        for each in range(_L):
            room[_BEST + uint64(each)] = _FAR
        for m in range(2):
            _distances(x, start, lanes, float32(m), room)
            for p in range(2):
                _columns(patterns, p, room)
                _pairs(room)
                _all_words(words, 2 * p + m, room)
                for h in range(64):
                    name, at = int32(128 * m + 64 * p + h), _WORD + uint64(h) * _L
                    for each in range(_L):
                        i = uint64(each)
                        cost, best = room[at + i], room[_BEST + i]
                        ints[i] = name if cost < best else ints[i]
                        room[_BEST + i] = min(cost, best)
        for lane in range(lanes):
            _settle(x, start + lane, patterns, words, int64(ints[lane]), ints, y)


@primitive
def _distances(x: Any, start: Any, lanes: Any, m: Any, room: Any) -> None:
    """Find the distances of each coordinate and bit of Golay's word, what the next k costs more, and k's parity."""
    first = uint64(start)
    for j in range(uint64(24)):
        for c in range(uint64(2)):
            at = (uint64(2) * uint64(j) + uint64(c)) * _L
            shift = m + float32(2) * float32(c)
            for each in range(uint64(lanes)):
                i = uint64(each)
                t = (x[j, first + i] - shift) * _QUARTER
                k = nearest_integer(t)
                far = abs(t - k)
                room[_DISTANCE + at + i] = far * far
                room[_EXTRA + at + i] = _1 - far - far
                room[_PARITY + at + i] = abs(k - nearest_integer(k * _HALF) * _2)


@primitive
def _columns(patterns: Any, p: Any, room: Any) -> None:
    """Find the costs of each column, digit, top bit and parity of k."""
    for j in range(6):
        for each in range(8):
            pattern = uint64(patterns[8 * p + each])
            first = uint64(8 * j)
            a = (first + (pattern & uint64(1))) * _L
            b = (first + uint64(2) + (pattern >> uint64(1) & uint64(1))) * _L
            c = (first + uint64(4) + (pattern >> uint64(2) & uint64(1))) * _L
            d = (first + uint64(6) + (pattern >> uint64(3))) * _L
            target = _COLUMN + uint64(16 * j + 2 * each) * _L
            for lane in range(_L):
                i = uint64(lane)
                cost = room[a + i] + room[b + i] + (room[c + i] + room[d + i])
                extra = min(room[_EXTRA + a + i], room[_EXTRA + b + i], room[_EXTRA + c + i], room[_EXTRA + d + i])
                total = room[_PARITY + a + i] + room[_PARITY + b + i] + (room[_PARITY + c + i] + room[_PARITY + d + i])
                odd = abs(total - nearest_integer(total * _HALF) * _2)
                room[target + i] = cost + odd * extra
                room[target + _L + i] = cost + (_1 - odd) * extra


@primitive
def _four(room: Any, at: Any) -> Any:
    """Return four numbers, a row apart."""
    return room[at], room[at + _GO[1]], room[at + _GO[2]], room[at + _GO[3]]


@primitive
def _joined(room: Any, one: Any, other: Any) -> Any:
    """Return the least sums of four numbers and four others whose places have the exclusive or 0, 1, 2, 3."""
    a0, a1, a2, a3 = _four(room, one)
    b0, b1, b2, b3 = _four(room, other)
    return (
        min(a0 + b0, a1 + b1, a2 + b2, a3 + b3),
        min(a0 + b1, a1 + b0, a2 + b3, a3 + b2),
        min(a0 + b2, a2 + b0, a1 + b3, a3 + b1),
        min(a0 + b3, a3 + b0, a1 + b2, a2 + b1),
    )


@primitive
def _pairs(room: Any) -> None:
    """Find the costs of each pair of columns, pair of digits, and sum of (top bit, parity of k)."""
    for q in range(3):
        for one in range(4):
            for other in range(4):
                a, b = _COLUMN + uint64(32 * q + 4 * one) * _L, _COLUMN + uint64(32 * q + 16 + 4 * other) * _L
                target = _PAIR + uint64(64 * q + 16 * one + 4 * other) * _L
                for lane in range(_L):
                    i = uint64(lane)
                    s0, s1, s2, s3 = _joined(room, a + i, b + i)
                    room[target + i] = s0
                    room[target + _GO[1] + i] = s1
                    room[target + _GO[2] + i] = s2
                    room[target + _GO[3] + i] = s3


@primitive
def _all_words(words: Any, goal: Any, room: Any) -> None:
    """Find the cost of each word of the hexacode, its sum of pairs being `goal`."""
    for h in range(64):
        a = _PAIR + uint64(16 * int64(words[6 * h]) + 4 * int64(words[6 * h + 1])) * _L
        b = _PAIR + uint64(64 + 16 * int64(words[6 * h + 2]) + 4 * int64(words[6 * h + 3])) * _L
        c = _PAIR + uint64(128 + 16 * int64(words[6 * h + 4]) + 4 * int64(words[6 * h + 5])) * _L
        g = uint64(goal)
        c0, c1, c2, c3 = c + g * _L, c + (g ^ uint64(1)) * _L, c + (g ^ uint64(2)) * _L, c + (g ^ uint64(3)) * _L
        target = _WORD + uint64(h) * _L
        for lane in range(_L):
            i = uint64(lane)
            s0, s1, s2, s3 = _joined(room, a + i, b + i)
            room[target + i] = min(s0 + room[c0 + i], s1 + room[c1 + i], s2 + room[c2 + i], s3 + room[c3 + i])


@primitive
def _column(x: Any, at: Any, j: Any, pattern: Any, m: Any) -> Any:
    """Return the cost of a column at its nearest k, the parity of these, what changing it costs, and where."""
    cost, least, where, parity = float32(0), _4, int64(0), int64(0)
    for r in range(4):
        t = (x[4 * j + r, at] - float32(m + 2 * (pattern >> r & 1))) * _QUARTER
        k = nearest_integer(t)
        far = abs(t - k)
        cost += far * far
        extra = _1 - far - far
        where = int64(r) if extra < least else where
        least = min(least, extra)
        parity ^= int64(k) & 1
    return cost, parity, least, where


@primitive
def _settle(x: Any, at: Any, patterns: Any, words: Any, found: Any, ints: Any, y: Any) -> None:
    """Find the point once its parities and its word of the hexacode are known: the cheapest path through six columns.

    A state is the sum so far of 2 · top bit + parity of k; `ints` keeps from which choice each state was reached.
    """
    m, p, h = found >> 7, found >> 6 & 1, found & 63
    c0, c1, c2, c3 = float32(0), _FAR, _FAR, _FAR
    for j in range(6):
        row = 8 * p + 2 * int64(words[6 * h + j])
        cost0, parity0, extra0, _ = _column(x, at, j, int64(patterns[row]), m)
        cost1, parity1, extra1, _ = _column(x, at, j, int64(patterns[row + 1]), m)
        e0 = cost0 + (extra0 if parity0 else float32(0))
        e1 = cost0 + (float32(0) if parity0 else extra0)
        e2 = cost1 + (extra1 if parity1 else float32(0))
        e3 = cost1 + (float32(0) if parity1 else extra1)
        c0, c1, c2, c3, from0, from1, from2, from3 = (
            min(c0 + e0, c1 + e1, c2 + e2, c3 + e3),
            min(c1 + e0, c0 + e1, c3 + e2, c2 + e3),
            min(c2 + e0, c3 + e1, c0 + e2, c1 + e3),
            min(c3 + e0, c2 + e1, c1 + e2, c0 + e3),
            _cheapest(c0 + e0, c1 + e1, c2 + e2, c3 + e3),
            _cheapest(c1 + e0, c0 + e1, c3 + e2, c2 + e3),
            _cheapest(c2 + e0, c3 + e1, c0 + e2, c1 + e3),
            _cheapest(c3 + e0, c2 + e1, c1 + e2, c0 + e3),
        )
        ints[LANES + 4 * j] = from0
        ints[LANES + 4 * j + 1] = from1
        ints[LANES + 4 * j + 2] = from2
        ints[LANES + 4 * j + 3] = from3
    state = 2 * p + m
    for back in range(6):
        j = 5 - back
        choice = int64(ints[LANES + 4 * j + state])
        state ^= choice
        pattern = int64(patterns[8 * p + 2 * int64(words[6 * h + j]) + (choice >> 1)])
        _, parity, _, where = _column(x, at, j, pattern, m)
        for r in range(4):
            bit = m + 2 * (pattern >> r & 1)
            t = (x[4 * j + r, at] - float32(bit)) * _QUARTER
            k = nearest_integer(t)
            if r == where and parity != choice & 1:
                k += _1 if t >= k else -_1
            y[4 * j + r, at] = int32(bit + 4 * int64(k))


@primitive
def _cheapest(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return which of four numbers is the least."""
    one, two = (int32(1) if b < a else int32(0)), (int32(3) if d < c else int32(2))
    return two if min(c, d) < min(a, b) else one

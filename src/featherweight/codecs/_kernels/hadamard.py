"""The loops of the randomized rotation.

Strategy: a Walsh-Hadamard transform of 2^k numbers is k stages of sums and differences, in any order. Sixteen vectors
of 16 neighbours stay in registers for four stages and, among neighbours, four more; so 2^12 numbers need two walks
through the first cache, 2^16 one more through the second, and each further four stages one through memory.

A length that is no power of two is cut into powers of two, largest first. Between rounds, turns of coordinate pairs,
from the smallest block up, share the energy out: a block of P and what follows it, of r, are turned in pairs by the
angle whose cosine is √(r / (P + r)), after which either holds its part by length of the energy of both, wherever it was
(as it is spread evenly within them). Ends of fewer than 16, which do not mix by themselves, are first scattered over
the 16 before them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels import _lanes as v
from featherweight.codecs._kernels._random import word
from featherweight.kernel import kernel, primitive

__all__ = ["ROTATE", "UNROTATE"]

_NEAR = 1 << 12
_MIDDLE = 1 << 16


@primitive
def _signs(seed: Any, first: Any, at: Any) -> Any:
    """Return the random bits of the 64 coordinates from the one at which a word begins, the bit of `at` lowest."""
    return word(seed, np.uint64(first) + np.uint64(at >> 6)) >> np.uint64(at & 63)


@primitive
def _few(x: Any, start: Any, size: Any) -> None:
    """Transform fewer than 16."""
    step = 1
    while step < size:
        for i in range(size):
            if not i & step:
                a, b = x[start + i], x[start + i + step]
                x[start + i] = a + b
                x[start + i + step] = a - b
        step *= 2


@primitive
def _vectors(x: Any, start: Any, size: Any, seed: Any, first: Any, at: Any, factor: Any, how: Any) -> None:
    """Transform each 16 neighbours; with `how` 1 signs and factor come first, with 2 they come last."""
    for i in range(0, size, 16):
        a = v.load(x, start + i)
        if how == 1:
            a = v.times(v.flip(a, _signs(seed, first, at + i)), factor)
        a = v.sixteen(a)
        if how == 2:
            a = v.times(v.flip(a, _signs(seed, first, at + i)), factor)
        v.store(x, start + i, a)


@primitive
def _by2(x: Any, start: Any, size: Any, step: Any) -> None:
    """Do one stage, across `step` elements."""
    for i in range(start, start + size, 2 * step):
        for j in range(i, i + step, 16):
            a, b = v.load(x, j), v.load(x, j + step)
            v.store(x, j, v.plus(a, b))
            v.store(x, j + step, v.minus(a, b))


@primitive
def _by4(x: Any, start: Any, size: Any, step: Any) -> None:
    """Do two stages, from `step` on."""
    for i in range(start, start + size, 4 * step):
        for j in range(i, i + step, 16):
            a, b = v.load(x, j), v.load(x, j + step)
            c, d = v.load(x, j + 2 * step), v.load(x, j + 3 * step)
            a, b = v.plus(a, b), v.minus(a, b)
            c, d = v.plus(c, d), v.minus(c, d)
            v.store(x, j, v.plus(a, c))
            v.store(x, j + step, v.plus(b, d))
            v.store(x, j + 2 * step, v.minus(a, c))
            v.store(x, j + 3 * step, v.minus(b, d))


@primitive
def _by16(x: Any, start: Any, size: Any, step: Any) -> None:
    """Do four stages, from `step` on."""
    for i in range(start, start + size, 16 * step):
        for j in range(i, i + step, 16):
            a0, a1, a2, a3 = v.load(x, j), v.load(x, j + step), v.load(x, j + 2 * step), v.load(x, j + 3 * step)
            k = j + 4 * step
            b0, b1, b2, b3 = v.load(x, k), v.load(x, k + step), v.load(x, k + 2 * step), v.load(x, k + 3 * step)
            k = j + 8 * step
            c0, c1, c2, c3 = v.load(x, k), v.load(x, k + step), v.load(x, k + 2 * step), v.load(x, k + 3 * step)
            k = j + 12 * step
            d0, d1, d2, d3 = v.load(x, k), v.load(x, k + step), v.load(x, k + 2 * step), v.load(x, k + 3 * step)
            a0, a1 = v.plus(a0, a1), v.minus(a0, a1)
            a2, a3 = v.plus(a2, a3), v.minus(a2, a3)
            b0, b1 = v.plus(b0, b1), v.minus(b0, b1)
            b2, b3 = v.plus(b2, b3), v.minus(b2, b3)
            c0, c1 = v.plus(c0, c1), v.minus(c0, c1)
            c2, c3 = v.plus(c2, c3), v.minus(c2, c3)
            d0, d1 = v.plus(d0, d1), v.minus(d0, d1)
            d2, d3 = v.plus(d2, d3), v.minus(d2, d3)
            a0, a2 = v.plus(a0, a2), v.minus(a0, a2)
            a1, a3 = v.plus(a1, a3), v.minus(a1, a3)
            b0, b2 = v.plus(b0, b2), v.minus(b0, b2)
            b1, b3 = v.plus(b1, b3), v.minus(b1, b3)
            c0, c2 = v.plus(c0, c2), v.minus(c0, c2)
            c1, c3 = v.plus(c1, c3), v.minus(c1, c3)
            d0, d2 = v.plus(d0, d2), v.minus(d0, d2)
            d1, d3 = v.plus(d1, d3), v.minus(d1, d3)
            a0, b0 = v.plus(a0, b0), v.minus(a0, b0)
            a1, b1 = v.plus(a1, b1), v.minus(a1, b1)
            a2, b2 = v.plus(a2, b2), v.minus(a2, b2)
            a3, b3 = v.plus(a3, b3), v.minus(a3, b3)
            c0, d0 = v.plus(c0, d0), v.minus(c0, d0)
            c1, d1 = v.plus(c1, d1), v.minus(c1, d1)
            c2, d2 = v.plus(c2, d2), v.minus(c2, d2)
            c3, d3 = v.plus(c3, d3), v.minus(c3, d3)
            k = j
            v.store(x, k, v.plus(a0, c0))
            v.store(x, k + step, v.plus(a1, c1))
            v.store(x, k + 2 * step, v.plus(a2, c2))
            v.store(x, k + 3 * step, v.plus(a3, c3))
            k = j + 4 * step
            v.store(x, k, v.plus(b0, d0))
            v.store(x, k + step, v.plus(b1, d1))
            v.store(x, k + 2 * step, v.plus(b2, d2))
            v.store(x, k + 3 * step, v.plus(b3, d3))
            k = j + 8 * step
            v.store(x, k, v.minus(a0, c0))
            v.store(x, k + step, v.minus(a1, c1))
            v.store(x, k + 2 * step, v.minus(a2, c2))
            v.store(x, k + 3 * step, v.minus(a3, c3))
            k = j + 12 * step
            v.store(x, k, v.minus(b0, d0))
            v.store(x, k + step, v.minus(b1, d1))
            v.store(x, k + 2 * step, v.minus(b2, d2))
            v.store(x, k + 3 * step, v.minus(b3, d3))


@primitive
def _stages(x: Any, start: Any, size: Any, step: Any, end: Any) -> None:
    """Do the stages from `step` up to, not including, `end`."""
    while step < end:
        left = end // step
        if left >= 16:
            _by16(x, start, size, step)
            step *= 16
        elif left >= 4:
            _by4(x, start, size, step)
            step *= 4
        else:
            _by2(x, start, size, step)
            step *= 2


@primitive
def _block(x: Any, start: Any, size: Any, seed: Any, first: Any, at: Any, factor: Any, how: Any) -> None:
    """Transform a power of two, signs and factor first or last (`how` 1 or 2); `at` is its place among the signs."""
    if size < 16:
        for way in (1, 2):
            if way == 2:
                _few(x, start, size)
            if way == how:
                for i in range(size):
                    a = x[start + i] * factor
                    x[start + i] = -a if _signs(seed, first, at + i) & np.uint64(1) else a
        return
    near, middle = min(size, _NEAR), min(size, _MIDDLE)
    if how == 2:
        _stages(x, start, size, middle, size)
    for m in range(0, size, middle):
        if how == 2:
            _stages(x, start + m, middle, near, middle)
        for n in range(m, m + middle, near):
            if how == 2:
                _stages(x, start + n, near, 16, near)
            _vectors(x, start + n, near, seed, first, at + n, factor, how)
            if how == 1:
                _stages(x, start + n, near, 16, near)
        if how == 1:
            _stages(x, start + m, middle, near, middle)
    if how == 1:
        _stages(x, start, size, middle, size)


@primitive
def _blocks(x: Any, start: Any, size: Any, seed: Any, first: Any, at: Any, factors: Any, how: Any) -> None:
    """Transform each power of two that any length is made of, largest first."""
    done = 0
    for k in range(62, -1, -1):
        power = 1 << k
        if size & power:
            _block(x, start + done, power, seed, first, at + done, factors[k], how)
            done += power


@primitive
def _turn(x: Any, a: Any, b: Any, count: Any, seed: Any, first: Any, at: Any, cosine: Any, sine: Any) -> None:
    """Turn pairs by an angle of random sign; `at` is the place of `b` among the signs."""
    done = count & ~15
    for i in range(0, done, 16):
        one, other = v.load(x, a + i), v.load(x, b + i)
        signs = _signs(seed, first, at + i)
        v.store(x, a + i, v.minus(v.times(one, cosine), v.flip(v.times(other, sine), signs)))
        v.store(x, b + i, v.plus(v.flip(v.times(one, sine), signs), v.times(other, cosine)))
    for i in range(done, count):
        one, other = x[a + i], x[b + i]
        way = -sine if _signs(seed, first, at + i) & np.uint64(1) else sine
        x[a + i] = cosine * one - way * other
        x[b + i] = way * one + cosine * other


@primitive
def _share(x: Any, start: Any, size: Any, seed: Any, first: Any, at: Any, turns: Any, how: Any) -> None:
    """Turn each block against what follows it; with `how` 2 undo it."""
    for i in range(62):
        k = i if how == 1 else 61 - i
        power = 1 << k
        rest = size & (power - 1)
        if size & power and rest:
            a = size >> (k + 1) << (k + 1)
            b = a + power
            sine = turns[64 + k] if how == 1 else -turns[64 + k]
            _turn(x, start + a, start + b, rest, seed, first, at + b, turns[k], sine)


@primitive
def _scatter(x: Any, start: Any, size: Any, seed: Any, first: Any, at: Any, turns: Any, how: Any) -> None:
    """Turn each of a short end against the 16 before the end; with `how` 2 undo it."""
    rest = size & 15
    if size < 16 or not rest:
        return
    before = size - rest - 16
    cosine, sine = turns[63], turns[127]
    for i in range(rest):
        b = size - rest + i if how == 1 else size - 1 - i
        way = sine if how == 1 else -sine
        if _signs(seed, first, at + b) & np.uint64(1):
            way = -way
        for j in range(16):
            a = before + j if how == 1 else before + 15 - j
            one, other = x[start + a], x[start + b]
            x[start + a] = cosine * one - way * other
            x[start + b] = way * one + cosine * other


@primitive
def _run(x: Any, length: Any, block: Any, rounds: Any, seed: Any, factors: Any, turns: Any, how: Any) -> None:
    words = (length + 63) >> 6
    for start in range(0, x.size, length):
        for at in range(0, length, block):
            size = min(block, length - at)
            own = turns[0:128] if size == block else turns[128:256]
            for i in range(rounds):
                r = i if how == 1 else rounds - 1 - i
                if how == 2:
                    _blocks(x, start + at, size, seed, r * words, at, factors, how)
                if r:
                    _share(x, start + at, size, seed, (rounds + r) * words, at, own, how)
                else:
                    _scatter(x, start + at, size, seed, rounds * words, at, own, how)
                if how == 1:
                    _blocks(x, start + at, size, seed, r * words, at, factors, how)


def _rotate(x: Any, length: Any, block: Any, rounds: Any, seed: Any, factors: Any, turns: Any) -> None:
    _run(x, length, block, rounds, seed, factors, turns, 1)


def _unrotate(x: Any, length: Any, block: Any, rounds: Any, seed: Any, factors: Any, turns: Any) -> None:
    _run(x, length, block, rounds, seed, factors, turns, 2)


_SIGNATURE = "void(f{0}[w], i8, i8, i8, u8, f{0}[r], f{0}[r])"
ROTATE = {size: kernel(_SIGNATURE.format(size))(_rotate) for size in (4, 8)}
"""Rotate each row of `length`, in blocks, in place; a block is a multiple of 64 where it is not the whole row."""
UNROTATE = {size: kernel(_SIGNATURE.format(size))(_unrotate) for size in (4, 8)}
"""Undo it."""

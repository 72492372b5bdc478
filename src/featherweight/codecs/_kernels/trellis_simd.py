"""The trellis codec's search for 16 paths at a time; it finds what the portable loops find."""

from __future__ import annotations

from typing import Any

from numpy import uint64

from featherweight.codecs._kernels import _vector as v
from featherweight.codecs._kernels.trellis import FAR
from featherweight.kernel import kernel, primitive

__all__ = ["backward", "forward"]

_0, _1, _2, _3, _4, _6, _7, _8, _16 = (uint64(each) for each in (0, 1, 2, 3, 4, 6, 7, 8, 16))
_31, _256, _ALL = uint64(31), uint64(256), uint64(0xFFFF)
_FAR = uint64(FAR)


@primitive
def smaller(x: Any, y: Any) -> Any:
    """Return the smaller of each pair."""
    return v.choose(v.less(x, y), x, y)


@primitive
def cost(distance: Any, weight: Any, rates: Any, row: Any, k: Any, top: Any) -> Any:
    """Return the cost of points with the index k."""
    square = v.times(weight, v.times(distance, distance))
    return v.plus(square, v.gather(rates, v.plus(row, smaller(k, top))))


@primitive
def even(a: Any, low: Any, i: Any, weight: Any, rates: Any, row: Any, top: Any) -> Any:
    """Return the smaller cost of the neighbours of `a` with even indices: 2 i and 2 i + 2; `a` if i is 0 lies at 0."""
    lower = v.choose(v.less(i, v.splat(_1)), a, low)
    k = v.plus(i, i)
    x = cost(lower, weight, rates, row, k, top)
    return smaller(x, cost(v.minus(low, v.splat(_256)), weight, rates, row, v.plus(k, v.splat(_2)), top))


@primitive
def odd(low: Any, i: Any, weight: Any, rates: Any, row: Any, top: Any) -> Any:
    """Return the smaller cost of the neighbours with odd indices: |2 i - 1| and 2 i + 1."""
    k = v.plus(v.plus(i, i), v.splat(_1))
    lower = v.choose(v.less(i, v.splat(_1)), k, v.minus(k, v.splat(_2)))
    x = cost(low, weight, rates, row, lower, top)
    return smaller(x, cost(v.minus(low, v.splat(_256)), weight, rates, row, k, top))


@kernel("void(u4[r], u1[r], u1[r], u4[r], u4, u4[r], u4[w], u1[w], u8, u8, u8)")
def forward(
    a_: Any,
    weights: Any,
    classes: Any,
    rates: Any,
    last: Any,
    edges: Any,
    costs: Any,
    decisions: Any,
    lanes: Any,
    group: Any,
    states: Any,
) -> None:
    """Do what the portable loop does for the paths from `group` on; costs and decisions are those of 16 paths."""
    steps, half = uint64(a_.size) // lanes, uint64(last) + _1
    words = (states + _7) >> _3
    top, zero, eight = v.splat(uint64(last)), v.splat(_0), v.splat(_8)
    for s in range(_0, states):
        v.store(costs, s * _16, v.splat(_FAR if s else _0))
    now, then = _0, states * _16
    branch = _2 * then
    for t in range(_0, steps):
        at = t * lanes + group
        a, weight = v.load(a_, at), v.load8(weights, at)
        row = v.times(v.load8(classes, at), v.splat(_2 * half))
        i = v.right(a, eight)
        v.store(costs, branch, even(a, v.minus(a, v.left(i, eight)), i, weight, rates, row, top))
        moved = v.plus(a, v.splat(uint64(128)))
        i = v.right(moved, eight)
        v.store(costs, branch + _16, odd(v.minus(moved, v.left(i, eight)), i, weight, rates, row, top))
        row = v.plus(row, v.splat(half))
        moved = v.plus(a, v.splat(uint64(64)))
        i = v.right(moved, eight)
        v.store(costs, branch + _2 * _16, even(a, v.minus(moved, v.left(i, eight)), i, weight, rates, row, top))
        moved = v.plus(a, v.splat(uint64(192)))
        i = v.right(moved, eight)
        v.store(costs, branch + _3 * _16, odd(v.minus(moved, v.left(i, eight)), i, weight, rates, row, top))
        for word in range(_0, words):
            taken = zero
            for bit in range(_0, min(_8, states)):
                here = word * _8 + bit
                e = _4 * here
                x = v.plus(
                    v.load(costs, now + uint64(edges[e]) * _16), v.load(costs, branch + uint64(edges[e + _1]) * _16)
                )
                y = v.plus(
                    v.load(costs, now + uint64(edges[e + _2]) * _16),
                    v.load(costs, branch + uint64(edges[e + _3]) * _16),
                )
                less = v.less(y, x)
                v.store(costs, then + here * _16, v.choose(less, y, x))
                taken = v.either(taken, v.choose(less, v.splat(_1 << bit), zero))
            v.store8(decisions, (t * words + word) * _16, taken)
        now, then = then, now
        if t & _31 == _31:
            least = v.load(costs, now)
            for s in range(_1, states):
                least = smaller(least, v.load(costs, now + s * _16))
            for s in range(_0, states):
                v.store(costs, now + s * _16, v.minus(v.load(costs, now + s * _16), least))
    if now:
        for s in range(_0, states):
            v.store(costs, s * _16, v.load(costs, now + s * _16))


@kernel("void(u4[r], u1[r], u1[r], u4[r], u4, u4[r], u4[r], u1[r], u8, u8, u8, u4[w])")
def backward(
    a_: Any,
    weights: Any,
    classes: Any,
    rates: Any,
    last: Any,
    paths: Any,
    costs: Any,
    decisions: Any,
    lanes: Any,
    group: Any,
    states: Any,
    out: Any,
) -> None:
    """Do what the portable loop does for the paths from `group` on."""
    steps, half = uint64(a_.size) // lanes, uint64(last) + _1
    words = (states + _7) >> _3
    top, one, two, three, eight = v.splat(uint64(last)), v.splat(_1), v.splat(_2), v.splat(_3), v.splat(_8)
    state, least = v.splat(_0), v.load(costs, _0)
    for s in range(_1, states):
        each = v.load(costs, s * _16)
        less = v.less(each, least)
        state, least = v.choose(less, v.splat(s), state), v.choose(less, each, least)
    for back in range(_0, steps):
        t = steps - _1 - back
        at = t * lanes + group
        bits = v.load8(decisions, t * words * _16)
        for word in range(_1, words):
            earlier = v.less(v.right(state, three), v.splat(word))
            bits = v.choose(earlier, bits, v.load8(decisions, (t * words + word) * _16))
        taken = v.both(v.right(bits, v.both(state, v.splat(_7))), one)
        path = v.gather(paths, v.plus(v.plus(state, state), taken))
        state = v.right(path, two)
        parity, quantizer = v.both(path, one), v.both(v.right(path, one), one)
        a, weight = v.load(a_, at), v.load8(weights, at)
        row = v.plus(v.times(v.load8(classes, at), v.splat(_2 * half)), v.times(quantizer, v.splat(half)))
        moved = v.plus(a, v.plus(v.left(parity, v.splat(_7)), v.left(quantizer, v.splat(_6))))
        i = v.right(moved, eight)
        low = v.minus(moved, v.left(i, eight))
        first, evens = v.less(i, one), v.less(parity, one)
        odds = evens ^ _ALL
        upper = v.plus(v.plus(i, i), v.minus(two, parity))
        lower = v.choose(first & odds, one, v.minus(upper, two))
        x = cost(v.choose(first & evens, a, low), weight, rates, row, lower, top)
        y = cost(v.minus(low, v.splat(_256)), weight, rates, row, upper, top)
        lower = v.choose(first & odds, v.minus(v.splat(_0), one), lower)
        v.store(out, at, v.choose(v.less(y, x), upper, lower))

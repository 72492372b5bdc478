"""The trellis codec's search for 16 paths at a time; it finds what the portable loops find."""

from __future__ import annotations

from typing import Any

from numpy import uint64

from featherweight.codecs._kernels import _vector as v
from featherweight.codecs._kernels.trellis import FAR
from featherweight.kernel import kernel, primitive

__all__ = ["backward", "forward", "look_up"]

_0, _1, _2, _3, _4, _6, _7, _8, _16 = (uint64(each) for each in (0, 1, 2, 3, 4, 6, 7, 8, 16))
_31, _64, _128, _256, _HALF = (uint64(each) for each in (31, 64, 128, 256, 0xFFFF))
_FAR = uint64(FAR)


@primitive
def smaller(x: Any, y: Any) -> Any:
    """Return the smaller of each pair."""
    return v.choose(v.less(x, y), x, y)


@primitive
def pair(low: Any, high: Any, weight: Any, rates: Any, place: Any, shift: Any) -> Any:
    """Return the costs of the lower and the upper neighbour at these distances, whose rates stand in one place."""
    two = v.gather(rates, place)
    x = v.plus(v.times(weight, v.times(low, low)), v.left(v.both(two, v.splat(_HALF)), shift))
    y = v.plus(v.times(weight, v.times(high, high)), v.left(v.right(two, v.splat(_16)), shift))
    return x, y


@primitive
def even(a: Any, moved: Any, weight: Any, rates: Any, row: Any, last: Any, shift: Any) -> Any:
    """Return the smaller cost of the neighbours of `a` with even indices: 2 i and 2 i + 2; `a` if i is 0 lies at 0."""
    i = v.right(moved, v.splat(_8))
    low = v.minus(moved, v.left(i, v.splat(_8)))
    lower = v.choose(v.less(i, v.splat(_1)), a, low)
    place = v.plus(row, smaller(v.plus(v.plus(i, i), v.splat(_1)), last))
    x, y = pair(lower, v.minus(low, v.splat(_256)), weight, rates, place, shift)
    return smaller(x, y)


@primitive
def odd(moved: Any, weight: Any, rates: Any, row: Any, last: Any, shift: Any) -> Any:
    """Return the smaller cost of the neighbours with odd indices: |2 i - 1| and 2 i + 1."""
    i = v.right(moved, v.splat(_8))
    low = v.minus(moved, v.left(i, v.splat(_8)))
    place = v.plus(row, smaller(v.plus(i, i), last))
    x, y = pair(low, v.minus(low, v.splat(_256)), weight, rates, place, shift)
    return smaller(x, y)


@kernel("void(u4[r], u1[r], u1[r], u4[r], u4, u4, u4[r], u4[w], u1[w], u8, u8, u8)")
def forward(
    a_: Any,
    weights: Any,
    classes: Any,
    rates: Any,
    last_: Any,
    shift_: Any,
    edges: Any,
    costs: Any,
    decisions: Any,
    lanes: Any,
    group: Any,
    states: Any,
) -> None:
    """Do what the portable loop does for the paths from `group` on; costs and decisions are those of 16 paths."""
    steps, half = uint64(a_.size) // lanes, uint64(last_) + _1
    words = (states + _7) >> _3
    last, shift, zero = v.splat(uint64(last_)), v.splat(uint64(shift_)), v.splat(_0)
    for s in range(_0, states):
        v.store(costs, s * _16, v.splat(_FAR if s else _0))
    now, then = _0, states * _16
    branch = _2 * then
    for t in range(_0, steps):
        at = t * lanes + group
        a, weight = v.load(a_, at), v.load8(weights, at)
        row = v.times(v.load8(classes, at), v.splat(_2 * half))
        given = weight, rates, row, last, shift
        v.store(costs, branch, even(a, a, *given))
        v.store(costs, branch + _16, odd(v.plus(a, v.splat(_128)), *given))
        given = weight, rates, v.plus(row, v.splat(half)), last, shift
        moved = v.plus(a, v.splat(_64))
        v.store(costs, branch + _2 * _16, even(a, moved, *given))
        v.store(costs, branch + _3 * _16, odd(v.plus(moved, v.splat(_128)), *given))
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


@kernel("void(u4[r], u1[r], u1[r], u4[r], u4, u4, u4[r], u4[r], u1[r], u8, u8, u8, u4[w])")
def backward(
    a_: Any,
    weights: Any,
    classes: Any,
    rates: Any,
    last_: Any,
    shift_: Any,
    paths: Any,
    costs: Any,
    decisions: Any,
    lanes: Any,
    group: Any,
    states: Any,
    out: Any,
) -> None:
    """Do what the portable loop does for the paths from `group` on."""
    steps, half = uint64(a_.size) // lanes, uint64(last_) + _1
    words = (states + _7) >> _3
    last, shift, one, three = v.splat(uint64(last_)), v.splat(uint64(shift_)), v.splat(_1), v.splat(_3)
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
        state = v.right(path, v.splat(_2))
        parity, quantizer = v.both(path, one), v.both(v.right(path, one), one)
        a, weight = v.load(a_, at), v.load8(weights, at)
        row = v.plus(v.times(v.load8(classes, at), v.splat(_2 * half)), v.times(quantizer, v.splat(half)))
        moved = v.plus(a, v.plus(v.left(parity, v.splat(_7)), v.left(quantizer, v.splat(_6))))
        i = v.right(moved, v.splat(_8))
        low = v.minus(moved, v.left(i, v.splat(_8)))
        k = v.plus(i, i)
        place = v.plus(row, smaller(v.minus(v.plus(k, one), parity), last))
        zero = v.less(v.plus(i, parity), one)
        x, y = pair(v.choose(zero, a, low), v.minus(low, v.splat(_256)), weight, rates, place, shift)
        lower = v.minus(k, parity)
        v.store(out, at, v.choose(v.less(y, x), v.plus(lower, v.splat(_2)), lower))


@kernel("u8(u1[r], u4[r], u4[r], u4[w], u4[w])")
def look_up(index: Any, nexts: Any, points: Any, states: Any, out: Any) -> Any:
    """Do what the portable loop does as far as whole rounds of all paths go, and return how far that is."""
    many, few = uint64(states.size), nexts.size <= 16
    whole = uint64(out.size) // many * many
    one, after = v.splat(_1), v.load(nexts, _0)
    for done in range(_0, whole, many):
        for lane in range(_0, many, _16):
            state, byte = v.load(states, lane), v.load8(index, done + lane)
            v.store(out, done + lane, v.gather(points, v.either(v.left(v.both(state, one), v.splat(_8)), byte)))
            place = v.plus(v.plus(state, state), v.both(byte, one))
            v.store(states, lane, v.permute(after, place) if few else v.gather(nexts, place))
    return whole

"""The trellis codec's search for 16 paths at a time; it finds what the portable loops find."""

from __future__ import annotations

from typing import Any

from numpy import uint64

from featherweight.codecs._kernels import _vector as v
from featherweight.codecs._kernels._steps import machine_of, stepped
from featherweight.codecs._kernels.trellis import FAR, WHILE
from featherweight.kernel import kernel, primitive

__all__ = ["PATHS", "backward", "forward", "forward8", "look_up"]

PATHS = 32

_0, _1, _2, _3, _4, _5, _6, _7, _8, _16 = (uint64(each) for each in (0, 1, 2, 3, 4, 5, 6, 7, 8, 16))
_64, _127, _128, _256, _HALF = (uint64(each) for each in (64, 127, 128, 256, 0xFFFF))
_FAR, _PATHS, _WHILE = uint64(FAR), uint64(PATHS), uint64(WHILE)


@primitive
def smaller(x: Any, y: Any) -> Any:
    """Return the smaller of each pair."""
    return v.choose(v.less(x, y), x, y)


@primitive
def _cost(distance: Any, weight: Any, rate: Any, shift: Any) -> Any:
    return v.plus(v.times(weight, v.times(distance, distance)), v.left(rate, shift))


@primitive
def _better(low: Any, high: Any, weight: Any, two: Any, shift: Any) -> Any:
    """Return the smaller cost of two points at these distances, whose rates are `two`, and the mask of the upper."""
    x = _cost(low, weight, v.both(two, v.splat(_HALF)), shift)
    y = _cost(high, weight, v.right(two, v.splat(_16)), shift)
    return smaller(x, y), v.less(y, x)


@primitive
def _quantized(a: Any, moved: Any, weight: Any, rates: Any, row: Any, last: Any, shift: Any) -> Any:
    """Return the costs of the better neighbours with even and with odd indices, and the masks of the upper ones.

    Points lie 128 apart: between those of the sizes j and j + 1 is `moved`, and j - 1 and j + 2 are the other two
    neighbours. Only the size 0 lies elsewhere in quantizer 1: as far from the element as that is large.
    """
    j, rest = v.right(moved, v.splat(_7)), v.both(moved, v.splat(_127))
    place = v.plus(row, smaller(j, last))
    one, other = v.gather2(rates, place), v.gather2(rates, v.turn(place))
    first, below = v.less(j, v.splat(_1)), v.plus(rest, v.splat(_128))
    here = v.choose(first, a, rest)
    below = v.choose(first, below, v.choose(v.less(j, v.splat(_2)), a, below))
    outer, outer_upper = _better(below, v.minus(v.splat(_128), rest), weight, v.evens(one, other), shift)
    inner, inner_upper = _better(here, v.minus(v.splat(_256), rest), weight, v.odds(one, other), shift)
    odd = v.less(v.splat(_0), v.both(j, v.splat(_1)))
    return (
        v.choose(odd, outer, inner),
        v.choose(odd, inner, outer),
        odd & outer_upper | ~odd & inner_upper,
        odd & inner_upper | ~odd & outer_upper,
    )


@primitive
def _branches(a: Any, weight: Any, rates: Any, row: Any, last: Any, shift: Any) -> Any:
    """Return the costs of the better neighbours in the four subsets, and a bit for each that tells if it is the upper.

    A row of rates is that of quantizer 0, and behind it lies that of quantizer 1.
    """
    first, second, upper0, upper1 = _quantized(a, a, weight, rates, row, last, shift)
    row = v.plus(row, v.plus(last, v.splat(_2)))
    third, fourth, upper2, upper3 = _quantized(a, v.plus(a, v.splat(_64)), weight, rates, row, last, shift)
    bits = _noted(_noted(_noted(_noted(v.splat(_0), upper3), upper2), upper1), upper0)
    return first, second, third, fourth, bits


@primitive
def _noted(bits: Any, mask: Any) -> Any:
    """Return bits moved up by one, with the lowest set in the lanes of a mask."""
    moved = v.plus(bits, bits)
    return v.choose(mask, v.either(moved, v.splat(_1)), moved)


@primitive
def _begun(costs: Any, many: Any, states: Any) -> Any:
    """Set the costs of the states before the first step; return how far those of a vector lie from the next one's."""
    room = _2 * states + _4
    for lane in range(_0, many, _16):
        for s in range(_0, states):
            v.store(costs, lane * room + s * _16, v.splat(_FAR if s else _0))
    return room


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
    """Do what the portable loop does for `PATHS` paths from `group` on, or all if these are fewer.

    They go by in turns, a vector of them a while at a time: elements that lie together are read together. `costs`
    has room for 2 · states + 4 costs a path, and those of a vector together.
    """
    steps, half = uint64(a_.size) // lanes, uint64(last_) + _2
    words, many = states + _7 >> _3, min(lanes - group, _PATHS)
    last, shift = v.splat(uint64(last_)), v.splat(uint64(shift_))
    room = _begun(costs, many, states)
    for begin in range(_0, steps, _WHILE):
        for lane in range(_0, many, _16):
            base, end = lane * room, min(begin + _WHILE, steps)
            now, then = base, base + states * _16
            branch = then + states * _16
            for t in range(begin, end):
                at = t * lanes + group + lane
                row = v.times(v.load8(classes, at), v.splat(_2 * half))
                b0, b1, b2, b3, upper = _branches(v.load(a_, at), v.load8(weights, at), rates, row, last, shift)
                v.store(costs, branch, b0)
                v.store(costs, branch + _16, b1)
                v.store(costs, branch + _2 * _16, b2)
                v.store(costs, branch + _3 * _16, b3)
                place = t * (words + _1) * many + lane
                for word in range(_0, words):
                    taken, some = v.splat(_0), min(_8, states)
                    for bit in range(_0, some):
                        here = word * _8 + some - _1 - bit
                        e = _4 * here
                        one, other = now + uint64(edges[e]) * _16, now + uint64(edges[e + _2]) * _16
                        x = v.plus(v.load(costs, one), v.load(costs, branch + uint64(edges[e + _1]) * _16))
                        y = v.plus(v.load(costs, other), v.load(costs, branch + uint64(edges[e + _3]) * _16))
                        v.store(costs, then + here * _16, smaller(x, y))
                        taken = _noted(taken, v.less(y, x))
                    v.store8(decisions, place + word * many, taken)
                v.store8(decisions, place + words * many, upper)
                now, then = then, now
            least = v.load(costs, now)
            for s in range(_1, states):
                least = smaller(least, v.load(costs, now + s * _16))
            for s in range(_0, states):
                v.store(costs, base + s * _16, v.minus(v.load(costs, now + s * _16), least))


@kernel("void(u4[r], u1[r], u1[r], u4[r], u4, u4, u4[w], u1[w], u8, u8)")
def forward8(
    a_: Any,
    weights: Any,
    classes: Any,
    rates: Any,
    last_: Any,
    shift_: Any,
    costs: Any,
    decisions: Any,
    lanes: Any,
    group: Any,
) -> None:
    """Do what `forward` does for eight states, whose costs stay in registers for a while."""
    steps, half = uint64(a_.size) // lanes, uint64(last_) + _2
    many = min(lanes - group, _PATHS)
    last, shift = v.splat(uint64(last_)), v.splat(uint64(shift_))
    room = _begun(costs, many, _8)
    for begin in range(_0, steps, _WHILE):
        for lane in range(_0, many, _16):
            base = lane * room
            s0, s1 = v.load(costs, base), v.load(costs, base + _16)
            s2, s3 = v.load(costs, base + _2 * _16), v.load(costs, base + _3 * _16)
            s4, s5 = v.load(costs, base + _4 * _16), v.load(costs, base + _5 * _16)
            s6, s7 = v.load(costs, base + _6 * _16), v.load(costs, base + _7 * _16)
            for t in range(begin, min(begin + _WHILE, steps)):
                at = t * lanes + group + lane
                row = v.times(v.load8(classes, at), v.splat(_2 * half))
                b0, b1, b2, b3, upper = _branches(v.load(a_, at), v.load8(weights, at), rates, row, last, shift)
                taken = v.splat(_0)
                x, y = v.plus(s1, b2), v.plus(s5, b3)
                n7, taken = smaller(x, y), _noted(taken, v.less(y, x))
                x, y = v.plus(s3, b2), v.plus(s7, b3)
                n6, taken = smaller(x, y), _noted(taken, v.less(y, x))
                x, y = v.plus(s1, b3), v.plus(s5, b2)
                n5, taken = smaller(x, y), _noted(taken, v.less(y, x))
                x, y = v.plus(s3, b3), v.plus(s7, b2)
                n4, taken = smaller(x, y), _noted(taken, v.less(y, x))
                x, y = v.plus(s2, b1), v.plus(s6, b0)
                n3, taken = smaller(x, y), _noted(taken, v.less(y, x))
                x, y = v.plus(s0, b1), v.plus(s4, b0)
                n2, taken = smaller(x, y), _noted(taken, v.less(y, x))
                x, y = v.plus(s2, b0), v.plus(s6, b1)
                n1, taken = smaller(x, y), _noted(taken, v.less(y, x))
                x, y = v.plus(s0, b0), v.plus(s4, b1)
                n0, taken = smaller(x, y), _noted(taken, v.less(y, x))
                v.store8(decisions, t * _2 * many + lane, taken)
                v.store8(decisions, (t * _2 + _1) * many + lane, upper)
                s0, s1, s2, s3, s4, s5, s6, s7 = n0, n1, n2, n3, n4, n5, n6, n7
            least = smaller(smaller(smaller(s0, s1), smaller(s2, s3)), smaller(smaller(s4, s5), smaller(s6, s7)))
            v.store(costs, base, v.minus(s0, least))
            v.store(costs, base + _16, v.minus(s1, least))
            v.store(costs, base + _2 * _16, v.minus(s2, least))
            v.store(costs, base + _3 * _16, v.minus(s3, least))
            v.store(costs, base + _4 * _16, v.minus(s4, least))
            v.store(costs, base + _5 * _16, v.minus(s5, least))
            v.store(costs, base + _6 * _16, v.minus(s6, least))
            v.store(costs, base + _7 * _16, v.minus(s7, least))


@kernel("void(u4[r], u4[r], u4[w], u1[r], u8, u8, u8, u4[w])")
def backward(a: Any, paths: Any, costs: Any, decisions: Any, lanes: Any, group: Any, states: Any, out: Any) -> None:
    """Do what the portable loop does for the paths of `forward`; `costs` are scratch after that."""
    steps, room, few = uint64(a.size) // lanes, _2 * states + _4, paths.size <= 16
    words, many = states + _7 >> _3, min(lanes - group, _PATHS)
    one, three, before = v.splat(_1), v.splat(_3), v.load(paths, _0)
    for lane in range(_0, many, _16):
        state, least = v.splat(_0), v.load(costs, lane * room)
        for s in range(_1, states):
            each = v.load(costs, lane * room + s * _16)
            less = v.less(each, least)
            state, least = v.choose(less, v.splat(s), state), v.choose(less, each, least)
        v.store(costs, lane * room, state)
    end = steps
    while end != _0:
        begin = (end - _1) // _WHILE * _WHILE
        for lane in range(_0, many, _16):
            state = v.load(costs, lane * room)
            for back in range(_0, end - begin):
                t = end - _1 - back
                at, row = t * lanes + group + lane, t * (words + _1) * many + lane
                bits = v.load8(decisions, row)
                for word in range(_1, words):
                    earlier = v.less(v.right(state, three), v.splat(word))
                    bits = v.choose(earlier, bits, v.load8(decisions, row + word * many))
                taken = v.both(v.right(bits, v.both(state, v.splat(_7))), one)
                place = v.plus(v.plus(state, state), taken)
                path = v.permute(before, place) if few else v.gather(paths, place)
                state = v.right(path, v.splat(_2))
                parity, quantizer = v.both(path, one), v.both(v.right(path, one), one)
                upper = v.both(v.right(v.load8(decisions, row + words * many), v.both(path, three)), one)
                moved = v.plus(v.load(a, at), v.plus(v.left(parity, v.splat(_7)), v.left(quantizer, v.splat(_6))))
                i = v.plus(v.right(moved, v.splat(_8)), upper)
                v.store(out, at, v.minus(v.plus(i, i), parity))
            v.store(costs, lane * room, state)
        end = begin


@kernel("u8(u1[r], u4[r], u4[r], u4[w], u4[w])")
def look_up(index: Any, nexts: Any, points: Any, states: Any, out: Any) -> Any:
    """Do what the portable loop does as far as whole rounds of all paths go, and return how far that is."""
    many, one, trellis = uint64(states.size), v.splat(_1), machine_of(nexts)
    whole = uint64(out.size) // many * many
    for done in range(_0, whole, many):
        for lane in range(_0, many, _16):
            state, byte = v.load(states, lane), v.load8(index, done + lane)
            v.store(out, done + lane, v.gather(points, v.either(v.left(v.both(state, one), v.splat(_8)), byte)))
            v.store(states, lane, stepped(trellis, state, v.both(byte, one)))
    return whole

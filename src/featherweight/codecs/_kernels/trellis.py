"""The trellis codec's loops: Viterbi's search over interleaved paths in integers, and the way back from indices.

Strategy: magnitudes are whole parts of a step, 64 to one; costs are squares of those times a weight, 16 being one;
rates are given in the same unit. Path l of 2^lanes goes through the elements l, l + 2^lanes, …, so that neighbouring
elements belong to neighbouring paths and a vector of them moves at once. Of each of the four subsets of the
reconstruction points (quantizer 0 or 1, index even or odd) only the two neighbours of the element count; which of the
two is decided alike in both directions.

`edges` holds, for each state, its two predecessors and the subsets that lead from them here; `paths` the same for the
way back, in one word: predecessor · 4 + subset. A subset is 2 · quantizer + parity.
"""

from __future__ import annotations

from typing import Any

from numpy import float32, int32, int64, uint8, uint32, uint64

from featherweight.kernel import kernel, primitive

__all__ = ["ONE", "UNIT", "backward", "forward", "magnitudes", "offsets", "reconstruct", "signed"]

UNIT, ONE = 64, 16
FAR = uint32(1 << 30)
_0, _1, _2, _3, _6, _7, _8, _256 = (uint32(each) for each in (0, 1, 2, 3, 6, 7, 8, 256))


@kernel("i8(f4[r], f8, u4[w])")
def magnitudes(x: Any, scale: Any, out: Any) -> Any:
    """Write |x| · scale, rounded; return how many are 2^30 or more, and so wrong."""
    wrong = int64(0)
    factor = float32(scale)
    for i in range(x.size):
        value = abs(x[i]) * factor + float32(0.5)
        large = value >= float32(1 << 30)
        wrong += int64(large)
        out[i] = uint32(int32(float32(0) if large else value))
    return wrong


@primitive
def near(a: Any, subset: Any) -> Any:
    """Return the distances to the lower and the upper neighbour in a subset, and the indices of these.

    The lower one of the first odd index is its negative: the index is returned with its sign.
    """
    parity, quantizer = subset & _1, subset >> _1
    moved = a + (parity << _7) + (quantizer << _6)
    i = moved >> _8
    low = moved - (i << _8)
    first = i == _0
    upper = (i << _1) + _2 - parity
    if first and parity == _0:
        return a, low - _256, _0, upper
    if first:
        return low, low - _256, uint32(0xFFFFFFFF), upper
    return low, low - _256, upper - _2, upper


@primitive
def rate(rates: Any, row: Any, k: Any, top: Any) -> Any:
    """Return the rate of an index; what is beyond the table costs what its end costs."""
    k = _1 if k == uint32(0xFFFFFFFF) else k
    return rates[row + uint64(min(k, top))]


@primitive
def pair(a: Any, weight: Any, subset: Any, rates: Any, row: Any, top: Any) -> Any:
    """Return the costs of the two neighbours in a subset and their indices."""
    low, high, k, k2 = near(a, subset)
    row = row + uint64(subset >> _1) * (uint64(top) + uint64(1))
    return (
        uint32(weight * low * low + rate(rates, row, k, top)),
        uint32(weight * high * high + rate(rates, row, k2, top)),
        k,
        k2,
    )


@kernel("void(u4[r], u1[r], u1[r], u4[r], u4, u4[r], u4[w], u1[w], u8, u8)")
def forward(
    a: Any,
    weights: Any,
    classes: Any,
    rates: Any,
    top: Any,
    edges: Any,
    costs: Any,
    decisions: Any,
    lanes: Any,
    states: Any,
) -> None:
    """Find the cost of the best path to every state, and leave which predecessor it came from, a bit a state.

    `costs` has room for 2 · states · lanes + 4 costs; the last ones stand in its first part.
    """
    steps, wide = uint64(a.size) // lanes, states * lanes
    words = (states + uint64(7)) >> uint64(3)
    for each in range(states):
        for j in range(lanes):
            costs[uint64(each) * lanes + uint64(j)] = FAR if each else _0
    decisions[: int64(steps * words * lanes)] = uint8(0)
    branch = uint64(2) * wide
    now, then = uint64(0), wide
    for t in range(steps):
        for j in range(lanes):
            lane = uint64(j)
            at = uint64(t) * lanes + lane
            row = uint64(classes[at]) * uint64(2) * (uint64(top) + uint64(1))
            for subset in range(4):
                x, y, _, _ = pair(a[at], uint32(weights[at]), uint32(subset), rates, row, top)
                costs[branch + uint64(subset)] = min(x, y)
            for each in range(states):
                s = uint64(each)
                e = uint64(4) * s
                x = costs[now + uint64(edges[e]) * lanes + lane] + costs[branch + uint64(edges[e + uint64(1)])]
                y = (
                    costs[now + uint64(edges[e + uint64(2)]) * lanes + lane]
                    + costs[branch + uint64(edges[e + uint64(3)])]
                )
                costs[then + s * lanes + lane] = min(x, y)
                if y < x:
                    place = (uint64(t) * words + (s >> uint64(3))) * lanes + lane
                    decisions[place] = uint8(decisions[place] | uint8(1 << int64(s & uint64(7))))
            if uint64(t) & uint64(31) == uint64(31):
                least = costs[then + lane]
                for each in range(states):
                    least = min(least, costs[then + uint64(each) * lanes + lane])
                for each in range(states):
                    costs[then + uint64(each) * lanes + lane] -= least
        now, then = then, now
    if now:
        for i in range(wide):
            costs[i] = costs[wide + uint64(i)]


@kernel("void(u4[r], u1[r], u1[r], u4[r], u4, u4[r], u4[r], u1[r], u8, u8, u4[w])")
def backward(
    a: Any,
    weights: Any,
    classes: Any,
    rates: Any,
    top: Any,
    paths: Any,
    costs: Any,
    decisions: Any,
    lanes: Any,
    states: Any,
    out: Any,
) -> None:
    """Follow the best paths back and write their indices, of which only -1 has a sign."""
    steps = uint64(a.size) // lanes
    words = (states + uint64(7)) >> uint64(3)
    for j in range(lanes):
        lane = uint64(j)
        state, least = uint64(0), costs[lane]
        for each in range(states):
            cost = costs[uint64(each) * lanes + lane]
            if cost < least:
                state, least = uint64(each), cost
        for back in range(steps):
            t = steps - uint64(1) - uint64(back)
            at = t * lanes + lane
            bits = decisions[(t * words + (state >> uint64(3))) * lanes + lane]
            taken = uint64(bits >> uint8(state & uint64(7))) & uint64(1)
            path = paths[uint64(2) * state + taken]
            state = uint64(path >> _2)
            row = uint64(classes[at]) * uint64(2) * (uint64(top) + uint64(1))
            x, y, k, k2 = pair(a[at], uint32(weights[at]), path & _3, rates, row, top)
            out[at] = k2 if y < x else k


@kernel("void(i4[r], u4[r], f4[r], f4, u8, u4[w], f4[w])")
def reconstruct(index: Any, nexts: Any, shifts: Any, step: Any, lanes: Any, states: Any, out: Any) -> None:
    """Write the points that indices stand for; `states` come as zeros, one for each path.

    `shifts` holds, for each quantizer, how far the points of the first indices from 0 on lie from where they should,
    in steps; those of the last hold for all that follow.
    """
    known = uint32(shifts.size >> 1)
    for start in range(0, out.size, int64(lanes)):
        width = min(int64(lanes), int64(out.size) - int64(start))
        for j in range(width):
            state, k = states[j], index[start + j]
            size = uint32(abs(k))
            quantizer = state & _1
            point = float32(int32(_2 * size - (quantizer if size else _0)))
            point += shifts[uint64(quantizer * known + min(size, known - _1))]
            out[start + j] = step * (point if k >= int32(0) else -point)
            states[j] = nexts[uint64(_2 * state + (size & _1))]


@kernel("void(u4[r], i4[r], u1[r], i8[w], i8[w])")
def offsets(a: Any, index: Any, rows: Any, sums: Any, counts: Any) -> None:
    """Add up how far elements lie beyond the points of their sizes, by quantizer and size below 8, and count them."""
    for i in range(index.size):
        size, quantizer = int64(abs(index[i])), int64(rows[i] & uint8(1))
        distance = int64(a[i]) if index[i] >= int32(0) else -int64(a[i])
        point = int64(2) * size - (quantizer if size else int64(0))
        which = quantizer * int64(8) + min(size, int64(7))
        sums[which] += distance - point * int64(UNIT)
        counts[which] += int64(1)


@kernel("i8(f4[r], i4[w])")
def signed(x: Any, index: Any) -> Any:
    """Give indices the signs of the elements; return the largest size."""
    most = int32(0)
    for i in range(x.size):
        most = max(most, abs(index[i]))
        index[i] = -index[i] if x[i] < float32(0) else index[i]
    return int64(most)

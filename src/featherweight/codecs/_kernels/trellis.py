"""The trellis codec's loops: Viterbi's search over interleaved paths in integers, and the way back from indices.

Strategy: magnitudes are whole parts of a step, 64 to one; costs are squares of those times a weight, 16 being one;
rates are given in the same unit, shifted right so that two fit in a word.

Path l of 2^lanes goes through the elements l, l + 2^lanes, …, so that neighbouring
elements belong to neighbouring paths and a vector of them moves at once. Of each of the four subsets of the
reconstruction points (quantizer 0 or 1, index even or odd) only the two neighbours of the element count.

`edges` holds, for each state, its two predecessors and the subsets that lead from them here; `paths` the same for the
way back, in one word: predecessor · 4 + subset. A subset is 2 · quantizer + parity.
"""

from __future__ import annotations

from typing import Any

from numpy import float32, int32, int64, uint8, uint32, uint64

from featherweight.codecs._kernels._primitives import bit_length
from featherweight.kernel import kernel, primitive

__all__ = [
    "ONE",
    "UNIT",
    "backward",
    "forward",
    "look_up",
    "magnitudes",
    "nearest",
    "offsets",
    "pairs",
    "reconstruct",
    "signed",
]

UNIT, ONE = 64, 16
FAR, WHILE = uint32(1 << 30), 32  # what states cost that nothing leads to; steps after which costs are brought down
_0, _1, _2, _3, _6, _7, _8, _16, _256 = (uint32(each) for each in (0, 1, 2, 3, 6, 7, 8, 16, 256))
_HALF = uint32(0xFFFF)


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


@kernel("void(u4[r], u1[r], u8, u4, i4[w], u1[w])")
def nearest(parts: Any, classes: Any, every: Any, most: Any, index: Any, rows: Any) -> None:
    """Fill `index` with the nearest points of `every` so many elements in either quantizer, `rows` with what they are.

    `most` is the largest index.
    """
    half = uint64(index.size) >> uint64(1)
    for i in range(half):
        a, row = parts[uint64(i) * every], classes[uint64(i) * every] << uint8(1)
        index[i] = int32(min(a + uint32(UNIT) >> _7, most))
        odd = a + uint32(2 * UNIT) >> _7
        index[half + i] = int32(_0 if a < uint32(UNIT // 2) else min(odd, most))
        rows[i], rows[half + i] = row, row | uint8(1)


@kernel("i8(u2[r], u1[r], u4[r], u4[w])", brief=True)
def pairs(table: Any, tokens: Any, costs: Any, out: Any) -> Any:
    """Fill `out` with the rates that `_pair` wants, those of rows of 256 frequencies; return how far they are shifted.

    `tokens` are those of the sizes from 0 on, `costs` what a token of each frequency costs.
    """
    sizes, rows, most = tokens.size, table.size >> 8, _0
    for row in range(rows):
        for k in range(sizes):
            most = max(most, costs[table[row << 8 | int64(tokens[k])]])
    shift = max(int64(bit_length(uint64(most))) - int64(16), int64(0))
    down = uint32(shift)
    for row in range(rows):
        begin, frequencies = row * (sizes + 2), table[row << 8 : row + 1 << 8]
        one = costs[frequencies[tokens[1]]] >> down
        out[begin] = one | one << _16
        for k in range(sizes):
            above = costs[frequencies[tokens[min(k + 2, sizes - 1)]]] >> down
            out[begin + k + 1] = costs[frequencies[tokens[k]]] >> down | above << _16
        out[begin + sizes + 1] = out[begin + sizes]
    return shift


@primitive
def _pair(a: Any, weight: Any, subset: Any, rates: Any, row: Any, last: Any, shift: Any) -> Any:
    """Return the costs of the two neighbours in a subset.

    A row of `rates` holds, at k + 1, the rates of the indices k and k + 2, in the low and the high half; below, those
    of the first odd index and its negative, which are the same; the last one, at `last` and behind it, is for all that
    follow.
    """
    parity, quantizer = subset & _1, subset >> _1
    moved = a + (parity << _7) + (quantizer << _6)
    i = moved >> _8
    low = moved - (i << _8)
    high = low - _256
    low = a if i == _0 and parity == _0 else low
    two = rates[row + uint64(quantizer) * (uint64(last) + uint64(2)) + uint64(min((i << _1) + _1 - parity, last))]
    return (
        uint32(weight * low * low + ((two & _HALF) << shift)),
        uint32(weight * high * high + (two >> _16 << shift)),
    )


@kernel("void(u4[r], u1[r], u1[r], u4[r], u4, u4, u4[r], u4[w], u1[w], u8, u8)")
def forward(
    a: Any,
    weights: Any,
    classes: Any,
    rates: Any,
    last: Any,
    shift: Any,
    edges: Any,
    costs: Any,
    decisions: Any,
    lanes: Any,
    states: Any,
) -> None:
    """Find the cost of the best path to every state, and leave which predecessor it came from, a bit a state.

    In `decisions`, behind the bytes of these bits, goes one whose bits tell of each subset whether the upper neighbour
    is the better. `costs` has room for 2 · states · lanes + 4 costs; the last ones stand in its first part.
    """
    steps, wide = uint64(a.size) // lanes, states * lanes
    words = ((states + uint64(7)) >> uint64(3)) + uint64(1)
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
            row = uint64(classes[at]) * uint64(2) * (uint64(last) + uint64(2))
            upper = uint8(0)
            for subset in range(4):
                x, y = _pair(a[at], uint32(weights[at]), uint32(subset), rates, row, last, shift)
                costs[branch + uint64(subset)] = min(x, y)
                upper |= uint8(uint8(y < x) << uint8(subset))
            decisions[(uint64(t) * words + words - uint64(1)) * lanes + lane] = upper
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
            if t % WHILE == WHILE - 1:
                least = costs[then + lane]
                for each in range(states):
                    least = min(least, costs[then + uint64(each) * lanes + lane])
                for each in range(states):
                    costs[then + uint64(each) * lanes + lane] -= least
        now, then = then, now
    if now:
        for i in range(wide):
            costs[i] = costs[wide + uint64(i)]


@kernel("void(u4[r], u4[r], u4[r], u1[r], u8, u8, u4[w])")
def backward(a: Any, paths: Any, costs: Any, decisions: Any, lanes: Any, states: Any, out: Any) -> None:
    """Follow the best paths back and write their indices, of which only -1 has a sign."""
    steps = uint64(a.size) // lanes
    words = ((states + uint64(7)) >> uint64(3)) + uint64(1)
    for j in range(lanes):
        lane = uint64(j)
        state, least = uint64(0), costs[lane]
        for each in range(states):
            cost = costs[uint64(each) * lanes + lane]
            if cost < least:
                state, least = uint64(each), cost
        for back in range(steps):
            t = steps - uint64(1) - uint64(back)
            bits = decisions[(t * words + (state >> uint64(3))) * lanes + lane]
            taken = uint64(bits >> uint8(state & uint64(7))) & uint64(1)
            path = paths[uint64(2) * state + taken]
            state = uint64(path >> _2)
            parity, quantizer = path & _1, path >> _1 & _1
            upper = uint32(decisions[(t * words + words - uint64(1)) * lanes + lane]) >> (path & _3) & _1
            moved = a[t * lanes + lane] + (parity << _7) + (quantizer << _6)
            out[t * lanes + lane] = uint32((((moved >> _8) + upper) << _1) - parity)


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


@kernel("void(u1[r], u4[r], u4[r], u4[w], u8, u4[w])")
def look_up(index: Any, nexts: Any, points: Any, states: Any, done: Any, out: Any) -> None:
    """Write from `done` on the points, 256 for each quantizer, for indices of one byte."""
    many = uint64(states.size)
    for i in range(done, uint64(out.size)):
        state, byte = uint64(states[i & (many - uint64(1))]), uint64(index[i])
        out[i] = points[(state & uint64(1)) << uint64(8) | byte]
        states[i & (many - uint64(1))] = nexts[uint64(2) * state + (byte & uint64(1))]


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

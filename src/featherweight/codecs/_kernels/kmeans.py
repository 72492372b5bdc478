"""The loops of one-dimensional k-means: histograms, the nearest centroid, and the best partition of sorted values.

Strategy of `partition`: let w(i, j) be the squared error of the values i … j - 1 about their mean. The least of
Σ w + price · segments over all partitions is a shortest path, F[j] = min F[i] + w(i, j) + price. As w is concave in the
sense of Monge, the best i never falls as j rises, and once a later i is better than an earlier one it stays so: a queue
of the candidates that are best from some j on has all of them, and where one takes over is found by bisection. A higher
price gives fewer segments; whoever wants k of them looks for the price.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel, primitive

__all__ = ["COMPARE", "FEW", "HISTOGRAM", "SEARCH", "TALLY", "ZERO", "partition"]

FEW = 15  # thresholds that all are compared with


def _tally(words: Any, counts: Any) -> None:
    for i in range(words.size):
        counts[words[i]] += 1


TALLY = {size: kernel(f"void(u{size}[r], i8[w])")(_tally) for size in (1, 2)}
"""Count the words of 1 or 2 bytes."""


@kernel("void(u4[r], f4[r], i8, u1, i8[w], f8[w])")
def _histogram4(words: Any, values: Any, shift: Any, skip: Any, counts: Any, sums: Any) -> None:
    top, low = np.uint32(0x80000000), np.uint32(shift)
    for i in range(words.size):
        word = words[i]
        if skip and word & ~top == 0:
            continue
        key = (~word if word & top else word | top) >> low
        counts[key] += 1
        sums[key] += np.float64(values[i])


@kernel("void(u8[r], f8[r], i8, u1, i8[w], f8[w])")
def _histogram8(words: Any, values: Any, shift: Any, skip: Any, counts: Any, sums: Any) -> None:
    top, low = np.uint64(0x8000000000000000), np.uint64(shift)
    for i in range(words.size):
        word = words[i]
        if skip and word & ~top == np.uint64(0):
            continue
        key = (~word if word & top else word | top) >> low
        counts[key] += 1
        sums[key] += values[i]


HISTOGRAM = {4: _histogram4, 8: _histogram8}
"""Count and sum floats by the upper bits of their words, put in ascending order; `skip` leaves zeros out."""


def _few(values: Any, thresholds: Any, index: Any) -> None:
    for i in range(values.size):
        value, count = values[i], np.uint32(0)
        for j in range(FEW):
            count += np.uint32(1) if value > thresholds[j] else np.uint32(0)
        index[i] = count


COMPARE = {(f, size): kernel(f"void(f{f}[r], f{f}[r], u{size}[w])")(_few) for f in (4, 8) for size in (1, 2)}
"""Count the thresholds below each value; there are `FEW` of them."""


def _search4(values: Any, words: Any, thresholds: Any, starts: Any, shift: Any, index: Any) -> None:
    top, low = np.uint32(0x80000000), np.uint32(shift)
    for i in range(values.size):
        value, word = values[i], words[i]
        at: Any = np.int64(starts[(~word if word & top else word | top) >> low])
        while value > thresholds[at]:
            at += 1
        index[i] = at


def _search8(values: Any, words: Any, thresholds: Any, starts: Any, shift: Any, index: Any) -> None:
    top, low = np.uint64(0x8000000000000000), np.uint64(shift)
    for i in range(values.size):
        value, word = values[i], words[i]
        at: Any = np.int64(starts[(~word if word & top else word | top) >> low])
        while value > thresholds[at]:
            at += 1
        index[i] = at


SEARCH = {
    (f, size): kernel(f"void(f{f}[r], u{f}[r], f{f}[r], u{size}[r], i8, u{size}[w])")(function)
    for f, function in ((4, _search4), (8, _search8))
    for size in (1, 2)
}
"""Count likewise, from what `starts` says of the upper bits of each word; the thresholds ascend to infinity."""


def _zero(values: Any, index: Any) -> None:
    for i in range(index.size):
        index[i] = index[i] if values[i] != 0 else 0


ZERO = {(floats, size): kernel(f"void(f{floats}[r], u{size}[w])")(_zero) for floats in (4, 8) for size in (1, 2)}
"""Set the index of every zero to 0."""


@primitive
def _cost(sums: Any, i: Any, j: Any) -> Any:
    """Return w(i, j); rows of `sums` are cumulative weights, weighted values, and weighted squares."""
    weight, total = sums[0, j] - sums[0, i], sums[1, j] - sums[1, i]
    error = sums[2, j] - sums[2, i] - total * total / weight
    return max(0.0, error)


@kernel("i8(f8[:,r], f8, f8[w], i4[w], i4[w], i4[w])")
def partition(sums: Any, price: Any, best: Any, previous: Any, queue: Any, begins: Any) -> Any:
    """Find the cheapest partition, `previous` leading back from the last value; return how many segments it has."""
    count = previous.size - 1
    head, tail = 0, 1
    best[0], queue[0], begins[0] = 0.0, 0, 1
    for j in range(1, count + 1):
        while head + 1 < tail and begins[head + 1] <= j:
            head += 1
        i = queue[head]
        cost = best[i] + _cost(sums, i, j) + price
        best[j], previous[j] = cost, i
        if j == count:
            break
        at: Any = np.int64(j + 1)
        while tail > head:
            i = queue[tail - 1]
            at = max(np.int64(begins[tail - 1]), np.int64(j + 1))
            if cost + _cost(sums, j, at) > best[i] + _cost(sums, i, at):
                break
            tail -= 1
        if tail == head:
            queue[tail], begins[tail] = j, j + 1
            tail += 1
            continue
        i = queue[tail - 1]
        worse: Any = at
        better: Any = np.int64(count)
        if cost + _cost(sums, j, better) > best[i] + _cost(sums, i, better):
            continue
        while better - worse > 1:
            middle = (worse + better) >> 1
            if cost + _cost(sums, j, middle) > best[i] + _cost(sums, i, middle):
                worse = middle
            else:
                better = middle
        queue[tail], begins[tail] = j, better
        tail += 1
    segments = 0
    j = count
    while j > 0:
        j = previous[j]
        segments += 1
    return segments

"""Centroids of one-dimensional k-means: by Lloyd's iteration from a start, or the best of all there are."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _floats, _random
from featherweight.codecs._kernels import kmeans as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError

__all__ = ["STARTS", "Optimum", "checked", "fit", "optimum"]

_DISTINCT = 1 << 20  # values that are told apart
_PLAIN = 1 << 16  # elements that are sorted rather than counted in a histogram


def fit(x: Array, k: int, *, init: str = "coarse", iterations: int = 100, zero: bool = False, seed: int = 0) -> Array:
    """Return a codebook for `x`: at most `k` distinct values of its type, ascending but for the first if it is `zero`.

    Where `x` has no more than `k` values, they are the codebook. Raises ArgumentError for what is not finite.
    """
    x, entries = dtypes.native(x), k - zero
    values, counts, exact = _distinct(x, zero=zero, most=_DISTINCT if init == "exact" else _PLAIN, k=entries)
    if values.size <= entries and exact:
        centroids = values
    elif init == "exact":
        centroids = _means(values, counts, _partition(_sums(values, counts), entries))
    else:
        starts = STARTS[init](values, counts, entries, seed)
        centroids = _lloyd(values, counts, starts, iterations)
    rounded = np.empty(centroids.size, x.dtype)
    _floats.round_into(centroids, rounded)
    rounded = rounded[np.unique(rounded.astype(np.float64), return_index=True)[1]]
    if not zero:
        return rounded
    if dtypes.of(x.dtype).name == "F8_E8M0":
        raise ArgumentError("kmeans(zero=true): this type has no zero")
    return np.concatenate((np.zeros(1, x.dtype), rounded))


class Optimum(NamedTuple):
    """The best centroids, f64, and by how much their squared error may exceed the least, relative to what it is."""

    centroids: Array
    excess: float


def optimum(x: Array, k: int) -> Optimum:
    """Solve k-means exactly.

    Beyond 2^20 different values those that share 20 bits of exponent and mantissa stand together. With B the least
    squared error of their means and W that of the values about these, the least of all lies between (√B - √W)² and
    B + W, and what is found is no more than B + W.
    """
    x = dtypes.native(x)
    values, counts, exact = _distinct(x, zero=False, most=_DISTINCT, k=k)
    if values.size <= k:
        centroids, least = values, 0.0
    else:
        sums = _sums(values, counts)
        bounds = _partition(sums, k)
        centroids = _means(values, counts, bounds)
        error = np.diff(sums.table[2][bounds]) - np.diff(sums.table[1][bounds]) ** 2 / np.diff(sums.table[0][bounds])
        least = float(np.maximum(error, 0).sum()) * sums.unit**2
    if exact:
        return Optimum(centroids, 0.0)
    # Means of a bin's values lie in the bin: their squares about it are those of all less those of the means.
    flat, order = _floats.wide(x).astype(np.float64) / _unit(values), values / _unit(values)
    within = (_floats.dot(flat, flat) - float((counts * order * order).sum())) * _unit(values) ** 2
    within = max(within, 0.0)
    found = least + within
    below = max(math.sqrt(least) - math.sqrt(within), 0.0) ** 2
    return Optimum(centroids, (found - below) / found if found else 0.0)


def checked(x: Array) -> Array:
    values = _floats.wide(x)
    if not np.isfinite(_floats.biggest(values)):
        raise ArgumentError("an element is not finite: code this array with lossless")
    return values


def _unit(values: Array) -> float:
    """Return a power of two that brings all values below 1: their squares then neither overflow nor vanish together."""
    return math.ldexp(1.0, min(math.frexp(float(np.abs(values).max(initial=0)) or 1.0)[1], 1023))


def _distinct(x: Array, *, zero: bool, most: int, k: int) -> tuple[Array, Array, bool]:
    """Return the values there are, f64 and ascending, how often each, and whether these are the values themselves.

    Where more than `most` elements of many bits are looked at, bins of a histogram stand for them, by their means.
    """
    if x.itemsize <= 2:
        words = dtypes.bits_view(x)
        counts = np.zeros(1 << 8 * x.itemsize, np.int64)
        kernels.TALLY[x.itemsize](words, counts)
        held = np.flatnonzero(counts)
        values = checked(held.astype(words.dtype).view(x.dtype)).astype(np.float64)
        return *_merged(values, counts[held], zero=zero), True
    flat = checked(x)
    if flat.size <= most or k > 1 << 12:
        return *_sorted(flat, zero=zero), True
    if most == _DISTINCT:
        values, counts = _sorted(flat, zero=zero)
        if values.size <= most:
            return values, counts, True
    bits = 18 if k <= 256 and most < _DISTINCT else 20
    counts, sums = np.zeros(1 << bits, np.int64), np.zeros(1 << bits)
    unit = _unit(flat) if flat.itemsize == 8 else 1.0
    source = flat if unit == 1.0 else flat / unit
    kernels.HISTOGRAM[flat.itemsize](
        source.view(f"u{flat.itemsize}"), source, 8 * flat.itemsize - bits, np.uint8(zero), counts, sums
    )
    held = np.flatnonzero(counts)
    if held.size <= k:  # the values themselves may be that few
        return *_sorted(flat, zero=zero), True
    return *_merged(sums[held] / counts[held] * unit, counts[held], zero=False), False


def _sorted(flat: Array, *, zero: bool) -> tuple[Array, Array]:
    values, counts = np.unique(flat, return_counts=True)
    return _merged(values.astype(np.float64), counts, zero=zero)


def _merged(values: Array, counts: Array, *, zero: bool) -> tuple[Array, Array]:
    """Sort, and let both zeros be one, or none."""
    values, inverse = np.unique(values + 0.0, return_inverse=True)
    counts = np.bincount(inverse, weights=counts, minlength=values.size)
    kept = values != 0 if zero else np.ones(values.size, bool)
    return values[kept], counts[kept]


class _Sums(NamedTuple):
    """Cumulative weights, weighted values and weighted squares, of values as multiples of `unit`.

    They count from the middle outwards: what an outlier adds does not drown what lies inside of it.
    """

    table: Array
    unit: float


def _sums(values: Array, counts: Array) -> _Sums:
    unit = _unit(values)
    scaled = values / unit
    parts = np.stack([counts.astype(np.float64), counts * scaled, counts * scaled * scaled])
    middle = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    table = np.zeros((3, values.size + 1))
    np.cumsum(parts[:, middle:], axis=1, out=table[:, middle + 1 :])
    table[:, :middle] = -np.cumsum(parts[:, :middle][:, ::-1], axis=1)[:, ::-1]
    return _Sums(table, unit)


def _partition(sums: _Sums, k: int) -> Array:
    """Return where the segments of the best partition of more than k values into k begin, and where the last ends."""
    table = np.ascontiguousarray(sums.table)
    count = table.shape[1] - 1
    best, room = np.empty(count + 1), np.zeros((3, count + 1), np.int32)

    def path(price: float) -> tuple[int, Array]:
        segments = int(kernels.partition(table, price, best, *room))
        return segments, room[0].copy()

    total = max(float(table[2, -1] - table[2, 0]), 1e-300)
    guess, low, high = total / k**3, 0.0, math.inf
    # From a price of nothing come as many segments as values, from one above all errors a single one.
    few: tuple[int, Array] | None = None
    many: tuple[int, Array] | None = None
    for turn in range(200):
        found = path(guess)
        if found[0] == k:
            return _back(found[1], k)
        if found[0] > k:
            low, many = guess, found
        else:
            high, few = guess, found
        if many is None or few is None:
            step = (found[0] / k) ** 3
            guess *= max(step, 4.0) if few is None else min(step, 0.25)
            if guess < 1e-300:
                break
            continue
        if high <= low * (1 + 1e-12):
            break
        # Segments go about as price^(-1/3); where that does not narrow things down, halve.
        slope = math.log(high / low) / math.log(many[0] / few[0])
        between = low * (many[0] / k) ** slope
        guess = between if turn % 3 and low < between < high else math.sqrt(low) * math.sqrt(high)
        if not low < guess < high:
            break
    if many is None:
        many = count, np.arange(-1, count, dtype=np.int32)
    if few is None:
        few = 1, np.zeros(count + 1, np.int32)
    return _between(_back(few[1], few[0]), _back(many[1], many[0]), k)


def _back(previous: Array, segments: int) -> Array:
    bounds = np.empty(segments + 1, np.int64)
    bounds[segments] = previous.size - 1
    for i in range(segments, 0, -1):
        bounds[i - 1] = previous[bounds[i]]
    return bounds


def _between(few: Array, many: Array, k: int) -> Array:
    """Join two partitions of the same price into one of k segments, which then has it too.

    Somewhere a segment of one holds a segment of the other, with as many before it as are wanted: the beginning of
    `many`, one segment, and the end of `few` cost no more.
    """
    more = k - (few.size - 1)
    j = np.flatnonzero((few[:-1] <= many[more : more + few.size - 1]) & (many[more + 1 : more + few.size] <= few[1:]))[
        0
    ]
    return np.concatenate((many[: j + more + 1], few[j + 1 :]))


def _means(values: Array, counts: Array, bounds: Array) -> Array:
    """Return the weighted means of the segments between ascending bounds, as multiples of the first value of each."""
    begins = bounds[:-1]
    unit = _unit(values)
    base = np.repeat(values[begins] / unit, np.diff(bounds))
    moved = np.add.reduceat(counts * (values / unit - base), begins) / np.add.reduceat(counts, begins)
    means: Array = (values[begins] / unit + moved) * unit
    return np.clip(means, values[begins], values[bounds[1:] - 1])


def _lloyd(values: Array, counts: Array, centroids: Array, iterations: int) -> Array:
    """Move each centroid to the mean of what is nearest to it until nothing moves; leave out those without any."""
    centroids, old = np.unique(centroids), None
    for _ in range(iterations):
        bounds = _bounds(values, centroids)
        if old is not None and np.array_equal(bounds, old):
            break
        held = np.diff(bounds) > 0
        centroids = centroids.copy()
        centroids[held] = _means(values, counts, np.append(bounds[:-1][held], values.size))
        old = bounds
    return centroids[np.diff(_bounds(values, centroids)) > 0]


def _bounds(values: Array, centroids: Array) -> Array:
    inner = np.searchsorted(values, centroids[:-1] / 2 + centroids[1:] / 2, side="right")
    return np.concatenate(([0], inner, [values.size]))


def _linear(values: Array, counts: Array, k: int, seed: int) -> Array:
    share = np.arange(k) / max(k - 1, 1)
    spread: Array = values[0] * (1 - share) + values[-1] * share
    return spread


def _density(values: Array, counts: Array, k: int, seed: int) -> Array:
    total = np.cumsum(counts)
    chosen: Array = values[np.searchsorted(total, (np.arange(k) + 0.5) / k * total[-1])]
    return chosen


def _drawn(values: Array, counts: Array, k: int, seed: int) -> Array:
    """Draw elements until there are k different values, or that has become unlikely."""
    total = np.cumsum(counts).astype(np.uint64)
    words = np.empty(16 * k, np.uint64)
    _random.fill(np.uint64(seed), np.uint64(0), words)
    places = np.searchsorted(total, words % total[-1], side="right")
    _, first = np.unique(places, return_index=True)
    chosen: Array = values[places[np.sort(first)[:k]]]
    return chosen


def _coarse(values: Array, counts: Array, k: int, seed: int) -> Array:
    """Solve it for groups of neighbouring values, so many and so chosen that little is lost."""
    groups = max(1 << 10, 16 * k)
    if values.size <= groups:
        return values if values.size <= k else _means(values, counts, _partition(_sums(values, counts), k))
    # The best density of centroids is as the cube root of that of the values (Panter and Dite 1951); so for groups.
    gaps = np.diff(values / 2, append=values[-1] / 2) + np.diff(values / 2, prepend=values[0] / 2)
    # Half of them: outliers would take them all, so the others hold equally many values.
    share = np.cumsum(np.cbrt(counts) * np.cbrt(gaps / _unit(values)) ** 2)
    share = share / share[-1] + np.arange(values.size) / values.size
    edges = np.unique((share / 2 * (groups - 1)).astype(np.int64), return_index=True)[1]
    bounds = np.append(edges, values.size)
    means, weights = _means(values, counts, bounds), np.add.reduceat(counts, edges)
    means, weights = _merged(means, weights, zero=False)
    return means if means.size <= k else _means(means, weights, _partition(_sums(means, weights), k))


STARTS: dict[str, Any] = {"coarse": _coarse, "linear": _linear, "density": _density, "random": _drawn}

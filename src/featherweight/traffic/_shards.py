"""Shards: an array of parts, cut for its owners."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from featherweight.errors import ArgumentError


class Shard(NamedTuple):
    """Elements of the whole array, from `start` to `stop`, and the sizes of the parts that these consist of."""

    start: int
    stop: int
    parts: tuple[int, ...]


def shards(parts: Iterable[int], count: int, *, least: int = 256) -> tuple[Shard, ...]:
    """Cut an array of these parts into `count` shards of nearly equal length, some perhaps empty.

    A cut less than `least` elements from the end of a part is moved there, so that no slivers arise.

    >>> shards([1000, 30, 500], 2)
    (Shard(start=0, stop=1000, parts=(1000,)), Shard(start=1000, stop=1530, parts=(30, 500)))
    """
    sizes = tuple(int(n) for n in parts)
    if count < 1 or any(n < 0 for n in sizes):
        raise ArgumentError(f"{count} shards of parts {list(sizes)}")
    ends = [0, *itertools.accumulate(sizes)]
    cuts = [0]
    for k in range(1, count):
        cut = ends[-1] * k // count
        near = min(ends, key=lambda end: (abs(end - cut), end))
        cuts.append(max(cuts[-1], near if abs(near - cut) < least else cut))
    cuts.append(ends[-1])
    found = []
    for start, stop in itertools.pairwise(cuts):
        inside = (min(stop, end) - max(start, end - size) for end, size in zip(ends[1:], sizes, strict=True))
        found.append(Shard(start, stop, tuple(n for n in inside if n > 0)))
    return tuple(found)

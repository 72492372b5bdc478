"""The classes of elements: sums, modulo 256, of levels of rows, columns and places, apart for as long as will do."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np

from featherweight.codecs._kernels import ggd as kernels
from featherweight.codecs._kernels import rans_tables
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Port

__all__ = ["LEVELS", "PORTS", "Classes"]

PORTS = tuple(Port(name, "ui") for name in ("classes", "more classes", "yet more classes"))
LEVELS = tuple(Port(name, "u", bits=8) for name in ("row", "column", "place"))

_SHORT = 16  # elements of a row below which rows are not worth while
_MANY = 1 << 14  # levels from which on our own loop is quicker than NumPy's


class Classes(NamedTuple):
    """Levels, u8, of each block: the class of an element is the sum of that of its row and of its place in the row."""

    rows: Array
    places: Array

    @classmethod
    def of(cls, levels: tuple[Array, ...], shape: tuple[int, ...], error: type[ArgumentError | FrameError]) -> Self:
        """Take integers that broadcast to a shape; raises the error where they do not."""
        short = [np.asarray(each).astype(np.uint8, copy=False) for each in levels]
        for each in short:
            if each.ndim > len(shape) or any(map(_apart, each.shape[::-1], shape[::-1])):
                shapes = " and ".join(str(list(each.shape)) for each in short)
                raise error(f"classes {shapes} do not broadcast to {list(shape)}")
        some = [each for each in short if each.size > 1 or each.any()]
        full = [each.reshape((1,) * (len(shape) - each.ndim) + each.shape) for each in some]
        for blocks in (0, 1):  # dimensions before that of the rows
            tail = shape[blocks + 1 :]
            if math.prod(tail) < _SHORT:
                continue
            rows, places = list[Array](), list[Array]()
            for each in full:
                if each.shape[blocks : blocks + 1] == (1,):
                    places.append(each)
                elif each.size == math.prod(each.shape[: blocks + 1]):
                    rows.append(each)
                else:
                    break
            else:
                head = shape[:blocks]
                number = math.prod(head)
                return cls(
                    _added(rows, (*shape[: blocks + 1], *(1,) * len(tail))).reshape(number, -1),
                    _added(places, (*head, 1, *tail)).reshape(number, -1),
                )
        return cls(np.zeros((1, 1), np.uint8), _added(some, shape).reshape(1, -1))

    def counted(self) -> Array:
        """Return how many elements each class has, i64 (256)."""
        counts = np.zeros(512, np.int64)
        for rows, places in zip(self.rows, self.places, strict=True):
            sums = np.convolve(_counted(rows), _counted(places))
            counts[: sums.size] += sums
        found: Array = counts[:256] + counts[256:]
        return found

    def each(self) -> Array:
        """Return the class of every element, u8, flat."""
        if self.rows.size == 1 and not self.rows[0, 0]:
            return self.places.reshape(-1)
        found = np.empty(self.rows.size * self.places.shape[1], np.uint8)
        self.tables(0, 255, 1, found)
        return found

    def tables(self, low: int, high: int, quantizers: int, out: Array) -> None:
        """Fill `out` with the table of each element: its class from `low` on, at most `high`, times the quantizers."""
        given = np.uint64(len(self.rows)), np.uint64(low), np.uint64(high), np.uint64(quantizers - 1)
        kernels.rows(self.rows.reshape(-1), self.places.reshape(-1), *given, out)


def _apart(length: int, whole: int) -> bool:
    return length not in (1, whole)


def _added(levels: list[Array], shape: tuple[int, ...]) -> Array:
    """Return the sum of levels that broadcast to a shape, flat."""
    if not levels:
        return np.zeros(math.prod(shape), np.uint8)
    total = levels[0]
    for each in levels[1:]:
        total = total + each
    return np.ascontiguousarray(total if total.shape == shape else np.broadcast_to(total, shape)).reshape(-1)


def _counted(levels: Array) -> Array:
    """Return how often each level occurs, up to the highest."""
    if levels.size < _MANY:
        return np.bincount(levels)
    counts = np.zeros(1024, np.uint32)
    rans_tables.count(levels, counts)
    found: Array = counts.reshape(4, 256).sum(0, dtype=np.int64)
    return found

"""Find the level of each row and column, under which exponents are then coded in classes.

The exponents of a weight matrix are those of one distribution, shifted by the scale of their row and their column.
This stage leaves the values as they are and adds the two levels, so that the values can be coded *given* them:
``chain(Scales(), values=chain(Rans(), given=("row", "column")))``.

Wire: nothing.
Streams: `row`, u8 (r, 1, …), `column`, u8 (1, c, …), for values of the shape (r, c, …), and the `values` themselves.
Levels are 0 to 63; the class of an element is row + column. Below two dimensions both have 1 in every dimension.
Decoding: out = values.

>>> import numpy as np
>>> Scales(resolution=1).encode(np.array([[3, 5], [4, 6]], np.uint8)).streams[:2]
(array([[0],
       [1]], dtype=uint8), array([[0, 2]], dtype=uint8))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import scales as kernels
from featherweight.dtypes import Array
from featherweight.errors import FrameError
from featherweight.stage import Codec, Empty, Encoded, Port, check_params, param

__all__ = ["CODEC", "Scales"]

_TOP = 63


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Copy the values; the levels were for others."""
    if len(streams) != 3 or any(stream.dtype != np.uint8 for stream in streams):
        raise FrameError("expected row levels, column levels and values")
    row, column, values = streams
    if (row.shape, column.shape) != _shapes(out.shape) or values.shape != out.shape:
        raise FrameError(f"levels of {row.shape} and {column.shape} and values of {values.shape} for {out.shape}")
    if not dtypes.same_memory(values, out):
        out[...] = values


def _shapes(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if len(shape) < 2:
        return (1,) * len(shape), (1,) * len(shape)
    return (shape[0],) + (1,) * (len(shape) - 1), (1, *shape[1:])


CODEC = Codec(
    "scales",
    Empty,
    Port("values", "u", bits=8),
    (Port("row", "u", bits=8), Port("column", "u", bits=8), Port("values", "u", bits=8)),
    decode,
    same=2,
)


@dataclass(frozen=True)
class Scales:
    """Add row and column levels, in steps of 1 / `resolution`; zeros, which have no scale, are left out of account."""

    codec: ClassVar[Codec] = CODEC
    resolution: int = param(4, lo=1, hi=32, doc="steps of a level for a difference of 1 between values")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Measure the levels; in integers, so every machine finds the same."""
        row_shape, column_shape = _shapes(x.shape)
        if x.ndim < 2 or not x.size:
            return Encoded(Empty(), (np.zeros(row_shape, np.uint8), np.zeros(column_shape, np.uint8), x))
        rows, columns, flat = x.shape[0], x.size // x.shape[0], x.reshape(-1)
        sums, counts = np.zeros(columns, np.int64), np.zeros(columns, np.int64)
        kernels.column_sums(flat, sums, counts)
        column = _mean(self.resolution * sums, counts)
        sums, row_counts = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        kernels.row_sums(flat, self.resolution, column, sums, row_counts)
        levels = _levels(_mean(sums, row_counts), row_counts), _levels(column, counts)
        return Encoded(Empty(), (levels[0].reshape(row_shape), levels[1].reshape(column_shape), x))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0


def _mean(sums: Array, counts: Array) -> Array:
    """Round sums / counts to the nearest integer, halves up."""
    counts = np.maximum(counts, 1)
    means: Array = (2 * sums + counts) // (2 * counts)
    return means


def _levels(means: Array, counts: Array) -> Array:
    """Move the means to 0 … 63, cutting off outliers on either side of the median, where those without elements go."""
    present = np.sort(means[counts > 0])
    if not present.size:
        return np.zeros(means.size, np.uint8)
    middle = present[present.size // 2]
    least = max(present[0], middle - _TOP // 2)
    levels: Array = np.clip(np.where(counts > 0, means, middle) - least, 0, _TOP)
    return levels.astype(np.uint8)

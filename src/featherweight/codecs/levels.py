"""Find the scale of each row and each column of weights, under which their quantized values are then coded.

Weights of a matrix are taken to be those of one distribution, scaled by their row and by their column. This stage
leaves them as they are and adds the two scales as levels, so that what becomes of them can be coded *given* these:
``chain(Levels(), values=chain(Uniform(), index=chain(Ggd(), given=("row", "column"))))``.

Wire: nothing.
Streams: `row`, u8, and `column`, u8, of as many dimensions as the weights, each dimension theirs or 1; `values`, the
weights. A level is a quarter of an octave (at the default resolution); the class of a weight is row + column.
Decoding: out = values.

>>> import numpy as np
>>> x = np.outer([1, 2, 4] * 4, [1, 8] * 64).astype(np.float32)
>>> row, column, values = Levels().encode(x).streams
>>> row[:3, 0].tolist(), column[0, :4].tolist()
([0, 4, 8], [0, 12, 0, 12])
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight.codecs._kernels import _filters
from featherweight.codecs._kernels import levels as kernels
from featherweight.codecs._kernels._primitives import TOGETHER
from featherweight.dtypes import Array
from featherweight.errors import FrameError
from featherweight.stage import Codec, Empty, Encoded, Port, check_params, param

__all__ = ["CODEC", "Levels", "scales"]

_TOP = 127
_LEAST = 8  # weights that share a scale


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Copy the values; the levels were for others."""
    if len(streams) != 3 or streams[2].shape != out.shape or streams[2].dtype != out.dtype:
        raise FrameError("expected row levels, column levels and values")
    for levels in streams[:2]:
        if levels.ndim != out.ndim or any(a not in (1, b) for a, b in zip(levels.shape, out.shape, strict=True)):
            raise FrameError(f"levels of {levels.shape} for values of {out.shape}")
    if streams[2] is not out:
        out[...] = streams[2]


CODEC = Codec(
    "levels",
    Empty,
    Port("values", "f"),
    (Port("row", "u", bits=8), Port("column", "u", bits=8), Port("values", "f")),
    decode,
    same=2,
)


@dataclass(frozen=True)
class Levels:
    """Add the scales of rows and columns, as levels for what follows."""

    resolution: int = param(4, lo=1, hi=16, doc="levels that an octave of scale has")

    codec: ClassVar[Codec] = CODEC

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Measure scales and keep those that spare more than they cost."""
        row, column = scales(x)
        return Encoded(Empty(), (_levels(row, self.resolution), _levels(column, self.resolution), x))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0


def scales(x: Array) -> tuple[Array, Array]:
    """Return the scale of each row and of each column, f64, of as many dimensions as `x`, each its own or 1.

    Scales are mean magnitudes; rows are those of the first dimension. Columns go along the second, along what follows
    it (the places in a filter), or both, whichever spares most; what does not pay has all dimensions 1. Where places
    come first, as Keras has them, rows are those of the last dimension and columns go along the one before it.
    """
    if x.ndim < 3 or _filters.place(x.shape) != "first":
        return _scales(x)
    order = (x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))
    row, column = (found.transpose(np.argsort(order)) for found in _scales(x.transpose(order)))
    return row, column


def _scales(x: Array) -> tuple[Array, Array]:
    none = np.ones((1,) * x.ndim)
    if x.ndim < 2 or x.size < 64:
        return none, none
    values = _finite(x)
    flat, width, some = values.reshape(-1), x.size // x.shape[0], np.empty(TOGETHER, np.float32)
    columns, inverse, row = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(x.shape[0])
    kernels.separate(flat, columns, inverse, some, row)
    means = columns.astype(np.float64).reshape(x.shape[1], -1)
    tail = (1,) * (x.ndim - 2)
    ways = [means.reshape(1, *x.shape[1:])]
    if x.ndim > 2:
        ways += [means.mean(1).reshape(1, x.shape[1], *tail), means.mean(0).reshape(1, 1, *x.shape[2:])]
    spared, which = max((_gain(way, values), -i) for i, way in enumerate(ways))
    column = ways[-which] if spared > 0 else none
    if column is none:  # without columns, rows are what they are alone
        kernels.row_means(flat, np.ones(width, np.float32), some, row)
    shaped = row.reshape(-1, *tail, 1)
    return (shaped if _gain(shaped, values) > 0 else none), column


def _finite(x: Array) -> Array:
    """Return f32 in which nothing makes a sum infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.ascontiguousarray(x, np.float32)
        if np.isfinite(np.dot(values.reshape(-1), values.reshape(-1))):
            return values
    return np.nan_to_num(values, nan=0.0).clip(-1e18, 1e18)


def _gain(scale: Array, x: Array) -> float:
    """Return about how many bits knowing these scales spares, less what they cost.

    Knowing a scale spares the logarithm of it against that of their mean; a level costs its entropy, and fitting it to
    few weights looks better than it is: by half a nat where magnitudes spread as those of a normal distribution do,
    by more in proportion to their variance.
    """
    if x.size < _LEAST * scale.size:
        return 0.0
    shape, steps = (x.shape[0], x.shape[1], math.prod(x.shape[2:])), (scale.shape[0], scale.shape[1], scale[0, 0].size)
    strides = (steps[1] * steps[2] * (steps[0] > 1), steps[2] * (steps[1] > 1), int(steps[2] > 1))
    given = np.array(shape, np.int64), np.array(strides, np.int64), np.empty(kernels.HISTOGRAM, np.int64)
    return float(kernels.gain(x.reshape(-1), scale.reshape(-1), *given))


def _levels(scale: Array, resolution: int) -> Array:
    """Return logarithms as levels from 0 on, at most 127; where there is no scale, 0."""
    levels = np.empty(scale.shape, np.uint8)
    kernels.levels(scale.reshape(-1), np.int64(resolution), np.int64(_TOP), levels.reshape(-1))
    return levels

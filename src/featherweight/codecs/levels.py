"""Find the scales of rows, columns and places of weights, under which their quantized values are then coded.

Weights of a matrix are taken to be those of one distribution, scaled by their row and by their column; those of
filters by the place in the filter, too. This stage leaves them as they are and adds the scales as levels, so that what
becomes of them can be coded *given* these:
``chain(Levels(), values=chain(Uniform(), index=chain(Ggd(), given=("row", "column", "place"))))``.

Matrices or filters that lie one below another, as many `blocks` as there are, have scales each of its own: those of
tensors that are coded together, of fused projections, of experts.

Wire: nothing.
Streams: `row` and `column`, u8, of as many dimensions as `values`, each dimension theirs or 1, or a single level;
`values`, the weights, of their shape, or with its first dimension in two, the blocks and their rows; `place`, u8, as
`row`, or none. A level is a quarter of an octave (at the default resolution); the class of a weight is
row + column + place.
Decoding: out = values, in C order.

>>> x = np.outer([1, 2, 4] * 4, [1, 8] * 64).astype(np.float32)
>>> row, column, values = Levels().encode(x).streams
>>> row[:3, 0].tolist(), column[0, :4].tolist()
([0, 4, 8], [0, 12, 0, 12])
>>> [stream.shape for stream in Levels(blocks=3).encode(x).streams]
[(3, 4, 1), (1,), (3, 4, 128)]
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from featherweight import dtypes
from featherweight.codecs._classes import LEVELS
from featherweight.codecs._kernels import _filters, _floats
from featherweight.codecs._kernels import levels as kernels
from featherweight.codecs._kernels._primitives import TOGETHER
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Empty, Encoded, Port, check_params, param

__all__ = ["CODEC", "Levels", "Scales", "scales"]

_TOP = 127
_LEAST = 8  # weights that share a scale
_SHORT = 64  # weights below which there are no scales
_MOST = 1 << 20  # blocks
_SUMMED = 1e19  # below which sums of 2^64 magnitudes are finite in f32
_NONE = (1,)  # the shape of no scales; of arrays without dimensions, that


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Copy the values; the levels were for others."""
    if len(streams) < 3 or streams[2].dtype != out.dtype or not _same_shape(streams[2].shape, out.shape):
        raise FrameError("expected levels of rows and columns, and values")
    values = streams[2]
    for each in (*streams[:2], *streams[3:]):
        if each.shape != _NONE[: values.ndim] and not _fits(each.shape, values.shape):
            raise FrameError(f"levels of {each.shape} for values of {values.shape}")
    if not dtypes.same_memory(values, out):
        out[...] = values.reshape(out.shape)


def _fits(levels: tuple[int, ...], values: tuple[int, ...]) -> bool:
    return len(levels) == len(values) and all(a in (1, b) for a, b in zip(levels, values, strict=True))


def _same_shape(values: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Return whether values have this shape, or its first dimension in two."""
    return values == shape or (len(shape) > 1 and (math.prod(values[:2]), *values[2:]) == shape)


CODEC = Codec(
    "levels",
    Empty,
    Port("values", "f"),
    (*LEVELS[:2], Port("values", "f"), LEVELS[2]),
    decode,
    same=2,
)


class Scales(NamedTuple):
    """Scales, f64, of as many dimensions as the weights, each theirs or 1; a single one is none."""

    row: Array
    column: Array
    place: Array


@dataclass(frozen=True)
class Levels:
    """Add the scales of rows, columns and places, as levels for what follows."""

    resolution: int = param(4, lo=1, hi=16, doc="levels that an octave of scale has")
    blocks: int = param(1, lo=1, hi=_MOST, doc="equal blocks of rows, each with scales of its own")

    codec: ClassVar[Codec] = CODEC

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Measure scales and keep those that spare more than they cost."""
        if self.blocks > 1 and x.ndim > 1 and x.size:  # a vector has no scales
            if x.shape[0] % self.blocks:
                raise ArgumentError(f"{list(x.shape)} has no {self.blocks} equal blocks of rows")
            x = x.reshape(self.blocks, x.shape[0] // self.blocks, *x.shape[1:])
            found = _scales(x)
        else:
            found = scales(x)
        row, column, place = (_levels(each, self.resolution) for each in found)
        return Encoded(Empty(), (row, column, x, place) if place.size > 1 else (row, column, x))

    def together(self, count: int, shape: tuple[int, ...]) -> Levels | None:
        """Return what codes so many arrays of one shape, one below another, as this one codes each."""
        blocks = self.blocks * count
        return replace(self, blocks=blocks) if blocks <= _MOST else None

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0


def scales(x: Array) -> Scales:
    """Return the scale of each row, each column, and each place.

    Scales are mean magnitudes; rows are those of the first dimension, columns those of the second, places what follows.
    What does not pay is left out. Where places come first, as Keras has them, rows are those of the last
    dimension and columns those of the one before it.
    """
    if x.ndim < 3 or _filters.place(x.shape) != "first":
        return Scales(*(each[0] if each.ndim > x.ndim else each for each in _scales(x[None])))
    order = (x.ndim - 1, x.ndim - 2, *range(x.ndim - 2))
    found = _scales(x.transpose(order)[None])
    return Scales(*(each[0].transpose(np.argsort(order)) if each.ndim > x.ndim else each for each in found))


def _scales(x: Array) -> Scales:
    """Return the scales of blocks, the first dimension of `x`: what one of them has, all have."""
    none, (blocks, *shape) = np.ones(_NONE[: x.ndim - 1]), x.shape
    if x.ndim < 3 or math.prod(shape) < _SHORT:
        return Scales(none, none, none)
    values = _finite(x).reshape(blocks, shape[0], shape[1], -1)
    some, row = np.empty(TOGETHER, np.float32), np.empty((blocks, shape[0], 1, 1))
    means, inverse = np.empty((blocks, *values.shape[2:]), np.float32), np.empty(values[0, 0].size, np.float32)
    kernels.separate(values.reshape(-1), np.int64(blocks), means.reshape(-1), inverse, some, row.reshape(-1))
    column, both = np.empty((2, blocks, shape[1], 1))
    place, alone = np.empty((2, blocks, 1, values.shape[3]))  # alone: were no column larger than another
    parts = (each.reshape(-1) for each in (column, place, alone, both))
    kernels.parted(means.reshape(-1), np.int64(blocks), *parts)
    column_pays, place_pays = (_gain(each[:, None], values) > 0 for each in (column, alone))
    if column_pays and place_pays:  # one of the two says how large the block is
        column = both
    elif not (column_pays or place_pays):  # rows are then what they are alone
        kernels.row_means(values.reshape(-1), np.ones(inverse.size, np.float32), some, row.reshape(-1))
    rows_pay = _gain(row.reshape(1, -1, 1, 1), values.reshape(1, -1, *values.shape[2:])) > 0
    tail = shape[2:], (1,) * (len(shape) - 2)
    return Scales(
        row.reshape(blocks, -1, 1, *tail[1]) if rows_pay else none,
        column.reshape(blocks, 1, -1, *tail[1]) if column_pays else none,
        place.reshape(blocks, 1, 1, *tail[0]) if place_pays else none,
    )


def _finite(x: Array) -> Array:
    """Return f32 in which nothing makes a sum infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.ascontiguousarray(x, np.float32)
        if _floats.biggest(values.reshape(-1)) < _SUMMED:
            return values
    return np.nan_to_num(values, nan=0.0).clip(-1e18, 1e18)


def _gain(scale: Array, x: Array) -> float:
    """Return about how many bits knowing these scales of rows, columns or places spares, less what they cost.

    The first dimension is that of blocks, whose gains are added up.

    Knowing a scale spares the logarithm of it against that of their mean; a level costs its entropy, and fitting it to
    few weights looks better than it is: by half a nat where magnitudes spread as those of a normal distribution do,
    by more in proportion to their variance.
    """
    if x.size < _LEAST * scale.size:
        return 0.0
    blocks, *shape = x.shape
    strides = [math.prod(scale.shape[i + 1 :]) * (scale.shape[i] > 1) for i in range(1, 4)]
    given = np.array(shape, np.int64), np.array(strides, np.int64), np.empty(kernels.HISTOGRAM, np.int64)
    return float(kernels.gain(x.reshape(-1), scale.reshape(-1), np.int64(blocks), *given))


def _levels(scale: Array, resolution: int) -> Array:
    """Return logarithms as levels from 0 on, at most 127; where there is no scale, 0."""
    levels = np.empty(scale.shape, np.uint8)
    kernels.levels(scale.reshape(-1), np.int64(resolution), np.int64(_TOP), levels.reshape(-1))
    return levels

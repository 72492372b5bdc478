"""Transform filters, or blocks of matrices, by the discrete cosine transform.

It is that of Laude, Richter and Ostermann ("Neural network compression using transform coding and clustering",
arXiv:1805.07258). Smooth kernels come down to few large coefficients. The transform is orthonormal: an error in the
coefficients is as large in the weights.

Wire: `form`: 0 for filters along the last dimensions, 1 for filters along the first, 2 for blocks; `edge` of blocks, 1
to 64; `exponent`, from -1,100 to 1,100.
Streams: `coefficients`, f64 if the array is, else f32, of the shape of the array; no magnitude above 2^90.
Decoding: each matrix X of a rows and b columns is 2^exponent · D_aᵀ Y D_b, where Y stands in its place in
`coefficients` and D_n(k, i) = √(c / n) cos(π (2 i + 1) k / 2 n), c = 1 for k = 0, else 2; rounded to the type of the
array, to its largest finite value where beyond.

Matrices of forms 0 and 1 are the filters: two dimensions, or one of a in a three-dimensional array (then b = 1), each
at most 64. Form 2 leaves out dimensions of 1, takes the first of the others as rows and the rest of them as columns
(a single one as columns of one row), and cuts that from its first element into blocks of `edge` by `edge`, less where
it ends.

>>> import numpy as np
>>> x = np.ones((1, 1, 3, 3), np.float32)
>>> np.round(Dct().encode(x).streams[0][0, 0], 5) + 0.0
array([[3., 0., 0.],
       [0., 0., 0.],
       [0., 0., 0.]], dtype=float32)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _filters, _floats, _ranges
from featherweight.codecs._kernels import dct as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Dct", "transform"]

_FORMS = ("last", "first", "blocks")
_MOST = 64  # edge of a filter or block


class DctWire(Wire, frozen=True):
    form: int
    edge: int = 8
    exponent: int = 0


class _Grid(NamedTuple):
    """Where matrices of one size lie: distances of bands, of matrices in a band, of rows and of columns."""

    base: int
    bands: int
    band: int
    items: int
    item: int
    rows: int
    row: int
    columns: int
    column: int


def decode(wire: DctWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Transform back."""
    (coefficients,) = streams
    real = np.dtype(np.float64 if out.dtype == np.float64 else np.float32)
    if coefficients.shape != out.shape or coefficients.dtype != real or out.dtype == dtypes.of("F8_E8M0").dtype:
        raise FrameError(f"{list(out.shape)} of {out.dtype} by {coefficients.dtype}{list(coefficients.shape)}")
    if wire.form not in (0, 1, 2) or not 1 <= wire.edge <= _MOST or abs(wire.exponent) > 1100:
        raise FrameError(f"form {wire.form}, blocks of {wire.edge}, exponent {wire.exponent}")
    if wire.form < 2 and not _has_filters(out.shape, wire.form):
        raise FrameError(f"{list(out.shape)} has no filters in form {wire.form}")
    source = coefficients.reshape(-1)
    if not _floats.biggest(source) <= _ranges.MOST:
        raise FrameError("a coefficient is out of range")
    values = out.reshape(-1) if out.dtype == real else np.empty(out.size, real)
    _run(source, out.shape, wire.form, wire.edge, values, inverse=True)
    _ranges.restore(values, wire.exponent, out)


CODEC = Codec("dct", DctWire, Port("values", "f"), (Port("coefficients", "f"),), decode, exact=False)


@dataclass(frozen=True)
class Dct:
    """Transform filters, or blocks where there are none."""

    codec: ClassVar[Codec] = CODEC
    form: str = param(
        "auto",
        choices=("auto", *_FORMS),
        doc="where filters are: in the last dimensions (PyTorch), in the first (Keras), nowhere; auto: by the shape",
    )
    edge: int = param(8, lo=1, hi=_MOST, doc="edge of a block")
    scaled: bool = param(True, doc="bring magnitudes that sums might not hold nearer to 1: a step then means another")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Transform; raises ArgumentError for what is not finite, or may not be scaled and would have to be."""
        form: str = _filters.place(x.shape) or "blocks" if self.form == "auto" else self.form
        number = _FORMS.index(form)
        if number < 2 and not _has_filters(x.shape, number):
            raise ArgumentError(f"dct(form={form}): {list(x.shape)} has no filters there of at most {_MOST} by {_MOST}")
        if x.dtype == dtypes.of("F8_E8M0").dtype:
            raise ArgumentError("dct takes types with a sign")
        wide = _floats.wide(x)
        most = _floats.biggest(wide)
        if not math.isfinite(most):
            raise ArgumentError("an element is not finite: code this array with lossless")
        exponent = _ranges.exponent(most)
        if exponent and not self.scaled:
            raise ArgumentError(f"magnitudes up to {most:.6g} would have to be scaled: code this array without dct")
        values = (_ranges.scaled(wide, -exponent) if exponent else wide).reshape(x.shape)
        return Encoded(DctWire(number, self.edge, exponent), (transform(values, form, self.edge),))

    def together(self, count: int, shape: tuple[int, ...]) -> Dct | None:
        """Return what transforms so many arrays, one below another; a block may then lie in two of them."""
        return self if not self.scaled and self.form == "auto" else None

    def error_bound(self, x: Array, /) -> None:
        """Nothing is promised: the rounding of sums."""
        return


def transform(x: Array, form: str, edge: int = 8, *, inverse: bool = False) -> Array:
    """Return the DCT of the filters or blocks of a contiguous f32 or f64 array, or its inverse."""
    out = np.empty_like(x)
    _run(x.reshape(-1), x.shape, _FORMS.index(form), edge, out.reshape(-1), inverse=inverse)
    return out


def _has_filters(shape: tuple[int, ...], form: int) -> bool:
    edges = _filters.sides(shape, _FORMS[form])
    return bool(edges) and max(edges) <= _MOST


def _grids(shape: tuple[int, ...], form: int, edge: int) -> Iterator[_Grid]:
    if form < 2:
        rows, columns = (*_filters.sides(shape, _FORMS[form]), 1)[:2]
        count = math.prod(shape) // (rows * columns)
        if form == 0:
            yield _Grid(0, 1, 1, count, rows * columns, rows, columns, columns, 1)
        else:
            yield _Grid(0, 1, 1, count, 1, rows, columns * count, columns, count)
        return
    sides = [side for side in shape if side != 1]
    height, width = (1, math.prod(sides)) if len(sides) < 2 else (sides[0], math.prod(sides[1:]))
    for top, bands, rows in ((0, height // edge, edge), (height // edge * edge, 1, height % edge)):
        for start, items, columns in ((0, width // edge, edge), (width // edge * edge, 1, width % edge)):
            if bands * items * rows * columns:
                yield _Grid(top * width + start, bands, edge * width, items, edge, rows, width, columns, 1)


def _run(x: Array, shape: tuple[int, ...], form: int, edge: int, out: Array, *, inverse: bool) -> None:
    if not x.size:
        return
    for grid in _grids(shape, form, edge):
        tile, spare = np.zeros((2, grid.rows * grid.columns * kernels.SIDE), x.dtype)
        left, right = (_matrix(side, x.dtype, inverse) for side in (grid.rows, grid.columns))
        kernels.TRANSFORM[x.itemsize](x, *grid, left, right, tile, spare, out)


@functools.lru_cache(4 * _MOST)
def _matrix(n: int, dtype: np.dtype[Any], inverse: bool) -> Array:
    """Return the rows of D_n, or of its transpose, in a row."""
    k, i = np.mgrid[:n, :n]
    matrix = np.sqrt(np.where(k, 2, 1) / n) * np.cos(np.pi * (2 * i + 1) * k / (2 * n))
    return np.ascontiguousarray(matrix.T if inverse else matrix).reshape(-1).astype(dtype)

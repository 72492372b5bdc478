"""Approximate by a product of two factors, the best of its rank in squared error (Eckart and Young, 1936).

Wire: `form`: 0 matrix, 1 channel, 2 spatial, 3 depthwise; `first`, whether filters are in the first dimensions;
`exponent`, from -1,100 to 1,100.
Streams: `left` (…, m, r) and `right` (…, r, n), of one type that is not wider than f64 if the array is f64, else f32;
no magnitude above 2^50. `residual`, f64 if the array is, else f32, of the shape of the array, no magnitude above 2^90;
without it, it is 0.
Decoding: out = 2^exponent (left · right + residual), the product unfolded to the shape of the array; rounded to its
type, to its largest finite value where beyond.

Weights (o, i, y, x), which are (y, x, i, o) with `first`, are these matrices:
- channel: row o, column (i, y, x): a convolution to r channels, then one of 1 by 1 (Zhang et al., "Accelerating very
  deep convolutional networks", TPAMI 2016);
- spatial: row (i, y), column (o, x): a convolution with columns, then one with rows (Jaderberg et al., "Speeding up
  convolutional neural networks with low rank expansions", BMVC 2014);
- depthwise: for each i one, row o, column (y, x): a sum of r depthwise convolutions, each followed by one of 1 by 1
  (Guo et al., "Network decoupling: from regular to depthwise separable convolutions", BMVC 2018). Here factors have
  three dimensions, the first for i.
Of any array matrix takes the first dimension that is not 1 as rows and those after it as columns; where there is but
one, that is the columns of one row.

>>> import numpy as np
>>> x = np.outer([1, 2, 4], [8, 4, 2, 1]).astype(np.float32)
>>> wire, (left, right) = LowRank(rank=1).encode(x)
>>> left.shape, right.shape, np.round(left @ right).tolist() == x.tolist()
((3, 1), (1, 4), True)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _filters, _floats, _ranges
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "FORMS", "LowRank", "energies", "errors", "factors", "max_rank", "singular_values"]

FORMS = ("matrix", "channel", "spatial", "depthwise")
_MOST = 2.0**50  # magnitude in a factor: sums of products are finite in f32
_ORDERS = {"channel": (0, 1, 2, 3), "spatial": (1, 2, 0, 3), "depthwise": (1, 0, 2, 3)}


class LowRankWire(Wire, frozen=True):
    form: int = 0
    first: bool = False
    exponent: int = 0


def decode(wire: LowRankWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Multiply the factors, and add what they left."""
    if not 0 <= wire.form < len(FORMS) or (wire.form and out.ndim != 4) or abs(wire.exponent) > 1100:
        raise FrameError(f"form {wire.form} of {out.ndim} dimensions, exponent {wire.exponent}")
    if len(streams) < 2 or streams[0].dtype != streams[1].dtype or out.dtype == dtypes.of("F8_E8M0").dtype:
        raise FrameError(f"expected two factors of one type, for {out.dtype}")
    real = _real(out.dtype)
    if streams[0].dtype == np.float64 != real:
        raise FrameError(f"factors of float64 for {out.dtype}")
    left, right, *residual = streams
    batch, m, n = _sizes(out.shape, FORMS[wire.form], first=wire.first)
    rank = left.shape[-1] if left.ndim else 0
    many = (batch,) if wire.form == 3 else ()
    if left.shape != (*many, m, rank) or right.shape != (*many, rank, n):
        raise FrameError(f"factors of {list(left.shape)} and {list(right.shape)} for {list(out.shape)}")
    if any(each.shape != out.shape or each.dtype != real for each in residual):
        raise FrameError(f"a residual of {residual[0].dtype}{list(residual[0].shape)} for {list(out.shape)}")
    with np.errstate(invalid="ignore"):  # a NaN is out of range, and refused as that
        left, right = left.astype(real, copy=False), right.astype(real, copy=False)
    if not max(_floats.biggest(each.reshape(-1)) for each in (left, right)) <= _MOST:
        raise FrameError("a factor is out of range")
    if residual and not _floats.biggest(residual[0].reshape(-1)) <= _ranges.MOST:
        raise FrameError("the residual is out of range")
    values = out if out.dtype == real else np.empty(out.shape, real)
    _multiply(left, right, FORMS[wire.form], values, first=wire.first)
    if residual:
        values += residual[0]
    _ranges.restore(values.reshape(-1), wire.exponent, out)


CODEC = Codec(
    "lowrank",
    LowRankWire,
    Port("values", "f"),
    (Port("left", "f"), Port("right", "f"), Port("residual", "f")),
    decode,
    exact=False,
)


@dataclass(frozen=True)
class LowRank:
    """Approximate by factors of a rank that is told, or that `fraction`, `energy` or `error` asks for."""

    codec: ClassVar[Codec] = CODEC
    rank: int | None = param(None, lo=0, hi=1 << 40, doc="the rank")
    fraction: float | None = param(
        None, lo=0.0, hi=1.0, doc="the rank as a part of that at which factors are as large as the array; default 0.5"
    )
    energy: float | None = param(None, lo=0.0, hi=1.0, doc="the part of the sum of singular values that is to be kept")
    error: float | None = param(None, lo=0.0, hi=1.0, doc="the largest relative squared error")
    form: str = param(
        "auto", choices=("auto", *FORMS), doc="what the matrices are; auto: spatial where there are filters"
    )
    filters: str = param(
        "auto", choices=("auto", "last", "first"), doc="the dimensions of filters: PyTorch's, Keras's, or by the shape"
    )
    type: str = param("f32", choices=("f32", "f16", "bf16"), doc="the type of factors; of f64 arrays f32 means f64")
    remainder: bool = param(False, doc="add what the factors leave")

    def __post_init__(self) -> None:
        check_params(self)
        told = [name for name in ("rank", "fraction", "energy", "error") if getattr(self, name) is not None]
        if len(told) > 1:
            raise ArgumentError(f"lowrank takes one of {' and '.join(told)}")

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Decompose; raises ArgumentError for what is not finite, and for a form that the dimensions do not have."""
        form, first = self._form(x.shape)
        if x.dtype == dtypes.of("F8_E8M0").dtype:
            raise ArgumentError("lowrank takes types with a sign")
        wide = _floats.wide(x)
        most = _floats.biggest(wide)
        if not math.isfinite(most):
            raise ArgumentError("an element is not finite: code this array with lossless")
        exponent = math.frexp(most)[1] if self.type == "f16" else _ranges.exponent(most)
        values = _ranges.scaled(wide, -exponent).reshape(x.shape)
        left, s, right = _decompose(values, form, first=first)
        rank = self._rank(s, max_rank(x.shape, form, first=first))
        left, right = (self._rounded(each, x.dtype) for each in _balanced(left, s, right, rank, form))
        streams = [left, right]
        if self.remainder:
            real = _real(x.dtype)
            product = np.empty(x.shape, real)
            _multiply(left.astype(real), right.astype(real), form, product, first=first)
            streams.append(values - product)
        return Encoded(LowRankWire(FORMS.index(form), first, exponent), tuple(streams))

    def error_bound(self, x: Array, /) -> None:
        """Nothing is promised of single elements."""
        return

    def _form(self, shape: tuple[int, ...]) -> tuple[str, bool]:
        where = _filters.place(shape) if self.filters == "auto" else self.filters
        if self.form == "matrix" or (self.form == "auto" and (len(shape) != 4 or where is None)):
            return "matrix", False
        if len(shape) != 4:
            raise ArgumentError(f"lowrank(form={self.form}) takes arrays of four dimensions, not {list(shape)}")
        return "spatial" if self.form == "auto" else self.form, where == "first"

    def _rank(self, s: Array, most: float) -> int:
        full = int(s.shape[-1])
        if self.rank is not None:
            return min(self.rank, full)
        if self.energy is not None:
            return min(1 + int(_energies(s, most).searchsorted(self.energy)), full)
        if self.error is not None:
            return int((_errors(s) > self.error).sum())
        fraction = 0.5 if self.fraction is None else self.fraction
        return min(max(1, int(fraction * most)), full) if fraction else 0

    def _rounded(self, factor: Array, dtype: np.dtype[Any]) -> Array:
        target = _real(dtype) if self.type == "f32" else dtypes.of(self.type.upper()).dtype
        rounded = np.empty(factor.shape, target)
        _floats.round_into(factor.reshape(-1), rounded.reshape(-1))
        return rounded


def max_rank(shape: tuple[int, ...], form: str, *, first: bool = False) -> float:
    """Return the rank at which the factors have as many elements as the array: above it nothing is saved."""
    _, m, n = _sizes(shape, form, first=first)
    return m * n / (m + n) if m + n else 0.0


def singular_values(x: Array, form: str, *, first: bool = False) -> Array:
    """Return the singular values of each matrix, the largest first."""
    return _decompose(x, form, first=first)[1]


def energies(x: Array, form: str, *, first: bool = False) -> Array:
    """Return the energy kept at rank 1, 2, … up to the largest that saves anything (Kim, Khan and Kyung, CVPR 2019).

    It is the sum of the singular values so far, scaled to be 0 at rank 1 and 1 at the end.
    """
    return _energies(singular_values(x, form, first=first), max_rank(x.shape, form, first=first))


def errors(x: Array, form: str, *, first: bool = False) -> Array:
    """Return the relative squared error at rank 0, 1, … up to the full one."""
    return _errors(singular_values(x, form, first=first))


def factors(x: Array, form: str, rank: int, *, first: bool = False) -> tuple[Array, Array]:
    """Return the factors of a rank, f64; each component of either has the root of the singular value as its length."""
    return _balanced(*_decompose(x, form, first=first), rank, form)


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _sizes(shape: tuple[int, ...], form: str, *, first: bool) -> tuple[int, int, int]:
    """Return how many matrices there are, of how many rows and columns."""
    if form == "matrix":
        sides = [side for side in shape if side != 1]
        return (1, 1, math.prod(sides)) if len(sides) < 2 else (1, sides[0], math.prod(sides[1:]))
    y, x, i, o = shape if first else (shape[2], shape[3], shape[1], shape[0])
    return {"channel": (1, o, i * y * x), "spatial": (1, i * y, o * x), "depthwise": (i, o, y * x)}[form]


def _arranged(x: Array, form: str, *, first: bool) -> Array:
    """Return a view whose elements, in a row, are those of the matrices."""
    if form == "matrix":
        return x
    return (x.transpose(3, 2, 0, 1) if first else x).transpose(_ORDERS[form])


def _decompose(x: Array, form: str, *, first: bool) -> tuple[Array, Array, Array]:
    sizes = _sizes(x.shape, form, first=first)
    matrices = _arranged(x, form, first=first).reshape(sizes).astype(np.float64)
    if not x.size:
        batch, m, n = sizes
        return np.zeros((batch, m, 0)), np.zeros((batch, 0)), np.zeros((batch, 0, n))
    try:
        left, s, right = np.linalg.svd(matrices, full_matrices=False)
    except np.linalg.LinAlgError as error:
        raise ArgumentError("the singular values do not converge: code this array with lossless") from error
    return left, s, right


def _balanced(left: Array, s: Array, right: Array, rank: int, form: str) -> tuple[Array, Array]:
    root = np.sqrt(s[:, :rank])
    left, right = left[:, :, :rank] * root[:, None, :], right[:, :rank] * root[:, :, None]
    return (left, right) if form == "depthwise" else (left[0], right[0])


def _energies(s: Array, most: float) -> Array:
    sums = np.cumsum(s.sum(0)[: max(1, int(most))])
    span = sums[-1] - sums[0] if sums.size else 0
    result: Array = (sums - sums[0]) / span if span > 0 else np.ones(sums.size)
    return result


def _errors(s: Array) -> Array:
    squares = np.square(s / max(float(s.max(initial=0)), 1e-300)).sum(0)
    left = np.append(np.cumsum(squares[::-1])[::-1], 0.0)
    result: Array = left / left[0] if left[0] > 0 else left
    return result


def _multiply(left: Array, right: Array, form: str, out: Array, *, first: bool) -> None:
    """Fill `out` with the product."""
    view = _arranged(out, form, first=first)
    batch, m, n = _sizes(out.shape, form, first=first)
    shape = (batch, m, n) if form == "depthwise" else (m, n)
    straight = view.reshape(shape)
    with np.errstate(all="ignore"):  # libraries compute with what lies beside the operands, too
        if np.shares_memory(straight, out):
            np.matmul(left, right, out=straight)
        else:
            view[...] = np.matmul(left, right).reshape(view.shape)

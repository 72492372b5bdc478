"""Quantize to small integers: r = S (q - Z), a scale and a zero point for a tensor, each channel or each group.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018.

Wire: `bits`, 1 to 8; `group`, elements of a group, 0 where the whole array is one.
Streams: `index`, u8, of the shape of the array; `scales`, finite floats, one for each group; `zeros`, u8, one for each
group, absent where the quantizer is symmetric. An array of two or more dimensions has a row for each index of the
first, any other has one row; groups follow each other within a row, and the last of a row may be shorter.
Given: `scales`, or `scales` and `zeros`, in place of the streams.
Decoding: out[i] = S · (index[i] - Z) with S and Z of its group, rounded to the type of the array; what is beyond the
largest finite value is that value. Without zeros Z = 2^(bits - 1), and ½ for 1 bit. It is computed in f64 where the
scales or the array are f64, else in f32.

Zero is exact, except with 1 bit and no zeros, where weights become their sign times their mean magnitude (as in
XNOR-Net and BitDelta).

>>> import numpy as np
>>> Affine(4, granularity="tensor").encode(np.array([-0.7, 0.0, 0.26, 0.5], np.float32)).streams
(array([ 1,  8, 11, 13], dtype=uint8), array([[0.1]], dtype=float32))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import ml_dtypes
import msgspec
import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _floats
from featherweight.codecs._kernels import affine as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Affine", "Quantizer", "Sizes", "fit", "quantize"]

_CHUNK = 1 << 17  # elements that are looked at again and again while they are in the cache
_ROUNDS = 6  # of least squares
_COARSE = 2.0 ** (np.arange(-1, 14) / -2)  # scales that are tried, relative to that of the range


class AffineWire(Wire, frozen=True):
    bits: Annotated[int, msgspec.Meta(ge=1, le=8)]
    group: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Sizes(NamedTuple):
    """How an array falls into groups."""

    rows: int
    length: int
    group: int

    @classmethod
    def of(cls, shape: tuple[int, ...], group: int) -> Sizes:
        """Return how many rows of which length an array has; groups are at most as long as a row."""
        size = math.prod(shape)
        if not size:
            return cls(0, 0, 1)
        rows = shape[0] if len(shape) > 1 and group else 1
        return cls(rows, size // rows, min(group or size, size // rows))

    @property
    def groups(self) -> tuple[int, int]:
        """Return in how many rows of how many groups the scales stand."""
        return self.rows, -(-self.length // self.group)


class Quantizer(NamedTuple):
    """Scales and zero points of all groups; no zero points where it is symmetric."""

    scales: Array
    zeros: Array | None


def decode(wire: AffineWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Scale the integers."""
    index, *rest = streams
    if rest and given:
        raise FrameError("scales are given twice")
    scales, zeros = [*(rest or given), None, None][:2]
    sizes = Sizes.of(out.shape, wire.group)
    count = math.prod(sizes.groups)
    counts = {0 if scales is None else scales.size, count if zeros is None else zeros.size}
    if index.shape != out.shape or scales is None or counts != {count}:
        raise FrameError(f"an index of {list(index.shape)} and scales that are not {count} for {list(out.shape)}")
    if out.dtype == dtypes.of("F8_E8M0").dtype or not _floats.is_finite(scales):
        raise FrameError(f"scales that are not finite, or {out.dtype}")
    real = np.float64 if np.float64 in (out.dtype, scales.dtype) else np.float32
    flat = out.reshape(-1)
    values = flat if flat.dtype == real else np.empty(flat.size, real)
    zeros = np.full(count, _middle(wire.bits), real) if zeros is None else zeros.reshape(-1).astype(real)
    kernels.DEQUANTIZE[values.itemsize](index.reshape(-1), scales.reshape(-1).astype(real), zeros, *sizes, values)
    if values is not flat:
        _floats.round_into(values, flat)


CODEC = Codec(
    "affine",
    AffineWire,
    Port("values", "f"),
    (Port("index", "u", bits=8), Port("scales", "f"), Port("zeros", "u", bits=8)),
    decode,
    (Port("scales", "f"), Port("zeros", "u", bits=8)),
)


@dataclass(frozen=True)
class Affine:
    """Quantize to integers of `bits` bits."""

    codec: ClassVar[Codec] = CODEC
    bits: int = param(8, lo=1, hi=8, doc="bits of an integer")
    granularity: str = param("channel", choices=("tensor", "channel", "group"), doc="what has a scale of its own")
    group: int = param(128, lo=1, hi=1 << 40, doc="elements of a row that make a group, if groups have scales")
    symmetric: bool = param(True, doc="without zero points")
    by: str = param(
        "range",
        choices=("range", "least-squares", "search", "given"),
        doc="the scale: that of the largest magnitude, of least squares from there, the best of many, or one given",
    )
    scale: str = param("f32", choices=("f32", "f16", "bf16"), doc="type of the scales, if it holds them all")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Fit scales and zero points unless they are given, and round."""
        wire = AffineWire(self.bits, self._group(x))
        if self.by == "given":
            if len(given) != 2 - self.symmetric:
                raise ArgumentError(f"affine(by=given) needs {'scales' if self.symmetric else 'scales and zeros'}")
            quantizer = Quantizer(given[0], given[1] if len(given) > 1 else None)
            return Encoded(wire, (quantize(x, quantizer, self.bits, self._group(x)),))
        if given:
            raise ArgumentError("affine takes scales where it says by=given")
        quantizer = self._fit(x)
        index = quantize(x, quantizer, self.bits, self._group(x), narrow=self.by == "range")
        return Encoded(wire, (index, *(each for each in quantizer if each is not None)))

    def together(self, count: int, shape: tuple[int, ...]) -> Affine | None:
        """Return what codes so many arrays, one below another, as this codes each: rows must have their own scales."""
        return self if len(shape) > 1 and self.granularity == "channel" and self.by != "given" else None

    def error_bound(self, x: Array, /) -> float | None:
        """Half a step, or what the rounding of scale and zero point cuts off; None unless `by` is range."""
        if self.by != "range":
            return None
        sizes, (scales, zeros) = Sizes.of(x.shape, self._group(x)), self._fit(x)
        if not x.size:
            return 0.0
        low, high = (each.astype(np.float64) for each in _extremes(_floats.wide(x), sizes))
        scale = scales.reshape(-1).astype(np.float64)
        zero = _middle(self.bits) if zeros is None else zeros.reshape(-1).astype(np.float64)
        bottom, top = _levels(self.bits, narrow=zeros is None)
        with np.errstate(over="ignore"):
            error = float(
                np.maximum(scale / 2, np.maximum(high - scale * (top - zero), scale * (bottom - zero) - low)).max()
            )
        row = dtypes.of(x.dtype)
        # Dividing, multiplying and rounding to the type of the array, each in turn.
        most = float(np.maximum(-low, high).max()) + error
        inexact = 2.0 ** -(row.mantissa + 1) + (2.0**-22 if row.mantissa < 24 else 2.0**-51)
        return float(error * (1 + 2.0**-12) + most * inexact + float(ml_dtypes.finfo(x.dtype).smallest_subnormal))

    def _group(self, x: Array) -> int:
        sizes = {"tensor": 0, "channel": Sizes.of(x.shape, 1 << 62).length or 1, "group": self.group}
        return sizes[self.granularity]

    def _fit(self, x: Array) -> Quantizer:
        return fit(x, self.bits, self._group(x), symmetric=self.symmetric, by=self.by, scale=self.scale)


def fit(
    x: Array, bits: int, group: int = 0, *, symmetric: bool = True, by: str = "range", scale: str = "f32"
) -> Quantizer:
    """Return a quantizer of `bits` bits for `x`, with a scale for each `group` elements of a row, 0 for one in all.

    Scales are of the type `scale`, or a wider one where it does not hold them all. Raises ArgumentError for what is not
    finite.
    """
    x = dtypes.native(x)
    if x.dtype == dtypes.of("F8_E8M0").dtype:
        raise ArgumentError("affine takes types with a sign")
    sizes, values = Sizes.of(x.shape, group), _floats.wide(x)
    low, high = _extremes(values, sizes)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ArgumentError("an element is not finite: code this array with lossless")
    low, high = low.astype(np.float64), high.astype(np.float64)
    unit = math.ldexp(1.0, min(-math.frexp(float(np.maximum(high, -low).max(initial=0)) or 1.0)[1], 1000))
    low, high = low * unit, high * unit
    zeros = None
    if symmetric and bits == 1:
        scales = np.empty(low.size)
        kernels.MAGNITUDES[values.itemsize](values, *sizes, unit, scales)
        scales *= 2
    elif symmetric:
        scales = np.maximum(-low, high) / (2 ** (bits - 1) - 1)
        if by != "range":  # all integers are used, and the larger side has one more
            scales = np.where(high > -low, -high, -low) / 2 ** (bits - 1)
    else:
        scales = (high - low) / (2**bits - 1)
        zeros = np.clip(np.rint(-low / np.where(scales > 0, scales, 1)), 0, 2**bits - 1)
    if by != "range" and not (symmetric and bits == 1):
        scales = _improved(values, sizes, scales, zeros, bits, unit, search=by == "search")
    stored = _stored(scales / unit, scale).reshape(sizes.groups)
    return Quantizer(stored, None if zeros is None else zeros.astype(np.uint8).reshape(sizes.groups))


def quantize(x: Array, quantizer: Quantizer, bits: int, group: int = 0, *, narrow: bool = False) -> Array:
    """Return the nearest integer of each element, u8; `narrow` leaves out the least of a symmetric quantizer.

    Raises ArgumentError for what is not finite, and for scales and zero points that are not of all groups.
    """
    x, (scales, zeros) = dtypes.native(x), quantizer
    sizes, scales = Sizes.of(x.shape, group), dtypes.native(scales)
    count = math.prod(sizes.groups)
    if scales.size != count or (zeros is not None and zeros.size != count):
        raise ArgumentError(f"affine: {count} groups of {list(x.shape)}, and scales or zeros of another number")
    if x.dtype == dtypes.of("F8_E8M0").dtype:
        raise ArgumentError("affine takes types with a sign")
    values = _floats.wide(x)
    if not (math.isfinite(_floats.biggest(values)) and _floats.is_finite(scales)):
        raise ArgumentError("an element or a scale is not finite: code this array with lossless")
    if zeros is not None and int(zeros.max(initial=0)) >= 2**bits:
        raise ArgumentError(f"affine({bits}): a zero point of {int(zeros.max())}")
    if scales.dtype == np.float64:
        values = values.astype(np.float64, copy=False)
    real = values.dtype
    index = np.empty(x.shape, np.uint8)
    if bits == 1 and zeros is None:
        negative = scales.reshape(-1) < 0
        np.greater_equal(values, 0, out=index.reshape(-1).view(bool))
        if negative.any():
            index ^= np.repeat(negative, _members(sizes)).reshape(x.shape)
        return index
    bottom, top = _levels(bits, narrow=narrow and zeros is None)
    divisors = scales.reshape(-1).astype(real)
    divisors[divisors == 0] = 1
    zeros = np.full(count, _middle(bits), real) if zeros is None else zeros.reshape(-1).astype(real)
    with np.errstate(over="ignore"):
        kernels.QUANTIZE[real.itemsize](
            values, divisors, zeros, real.type(bottom), real.type(top), *sizes, index.reshape(-1)
        )
    return index


def _middle(bits: int) -> float:
    """Return the zero point of a symmetric quantizer."""
    return float(2 ** (bits - 1)) if bits > 1 else 0.5


def _levels(bits: int, *, narrow: bool) -> tuple[int, int]:
    """Return the least and the largest index."""
    return int(narrow and bits > 1), 2**bits - 1


def _members(sizes: Sizes) -> Array:
    """Return how many elements each group has."""
    full, rest = divmod(sizes.length, sizes.group)
    return np.tile(np.array([sizes.group] * full + [rest] * (rest > 0), np.int64), sizes.rows)


def _extremes(values: Array, sizes: Sizes) -> tuple[Array, Array]:
    """Return the least and the largest of each group and of 0."""
    signed = np.dtype(f"i{values.itemsize}")
    low, high = np.empty((2, math.prod(sizes.groups)), signed)
    kernels.EXTREMES[values.itemsize](values.view(signed), *sizes, low, high)
    low ^= (low >> signed.type(8 * values.itemsize - 1)) & np.iinfo(signed).max
    return low.view(values.dtype), high.view(values.dtype)


def _stored(scales: Array, wanted: str) -> Array:
    """Return scales as the first of the wanted type, f32 and f64 that holds them all with all its precision."""
    sizes = np.abs(scales[scales != 0])
    for name in (wanted, "f32"):
        kind = dtypes.of(name.upper()).dtype
        limits = ml_dtypes.finfo(kind)
        if not sizes.size or (sizes.min() >= float(limits.smallest_normal) and sizes.max() <= float(limits.max)):
            stored = np.empty(scales.size, kind)
            _floats.round_into(scales, stored)
            return stored
    with np.errstate(under="ignore"):
        return np.where(scales != 0, np.copysign(np.maximum(np.abs(scales), 5e-324), scales), 0)


def _improved(
    values: Array, sizes: Sizes, scales: Array, zeros: Array | None, bits: int, unit: float, *, search: bool
) -> Array:
    """Return scales with less squared error than those of the range."""
    per = sizes.groups[1]
    rows = max(1, _CHUNK // max(1, sizes.length))
    offsets = np.full(scales.size, _middle(bits)) if zeros is None else zeros
    best = scales.copy()
    for first in range(0, sizes.rows, rows):
        last = min(first + rows, sizes.rows)
        part = Sizes(last - first, sizes.length, sizes.group)
        block, groups = values[first * sizes.length : last * sizes.length], slice(first * per, last * per)
        best[groups] = _best(block, part, best[groups], offsets[groups], bits, unit, search=search)
    return best


def _best(values: Array, sizes: Sizes, scales: Array, zeros: Array, bits: int, unit: float, *, search: bool) -> Array:
    lanes, (errors, crosses, squares) = np.empty(48), np.empty((3, scales.size))
    least, best, fitted = np.full(scales.size, np.inf), scales.copy(), scales.copy()

    def attempt(tried: Array) -> None:
        divisors = np.where(tried == 0, 1.0, tried)
        kernels.SCORE[values.itemsize](
            values, divisors, zeros, 0.0, float(2**bits - 1), unit, *sizes, lanes, errors, crosses, squares
        )
        better = errors < least
        least[better], best[better] = errors[better], tried[better]
        fitted[:] = np.where(squares > 0, crosses / np.where(squares > 0, squares, 1), tried)

    attempt(scales)
    if search:
        for ratio in _COARSE:
            attempt(scales * ratio)
        for step in (2.0**0.25, 2.0**0.125, 2.0**0.0625):
            middle = best.copy()
            attempt(middle * step)
            attempt(middle / step)
        attempt(best.copy())
    for _ in range(_ROUNDS):
        attempt(fitted.copy())
    return best

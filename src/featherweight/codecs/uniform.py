"""Quantize to multiples of one step, with a dead zone, and reconstruct at centroids.

Entropy-coded, this is the scalar quantizer that comes within a quarter of a bit of the bound for any source (Gish and
Pierce, "Asymptotically efficient quantizing", 1968); below one bit a dead zone and centroids keep it near
(Sullivan, "Efficient scalar quantization of exponential and Laplacian random variables", 1996).

Wire: `step` Δ, finite and above 0.

Streams: `index`, signed integers of the shape of out; `shifts`, i8 (n), n at least 1: reconstruction offsets in 64ths
of Δ for the sizes 0 … n - 1, the last for all above, too; without it all are 0.

Decoding: out = sign(k) · (|k| + shift) · Δ for an index k, in f32, of f64 in f64; then rounded to the type of out, to
its largest finite value where it lies beyond.

>>> import numpy as np
>>> x = np.array([-1.0, 0.2, 0.6, 2.2], np.float32)
>>> wire, (index, *_) = Uniform(step=0.5, centroids=False).encode(x)
>>> index.tolist()
[-2, 0, 1, 4]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _floats
from featherweight.codecs._kernels import uniform as kernels
from featherweight.codecs._kernels._lookup import GATHER
from featherweight.codecs._kernels._primitives import TOGETHER
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Uniform", "UniformWire", "decode", "step_for"]

_PARTS = 64
_LARGEST = {kind: float(np.finfo(kind).max) for kind in (np.float32, np.float64)}
_NARROW = 126.0  # steps up to which an index is sure to be a byte
_BYTES = np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int32)  # every index of a byte
_FEW = 1 << 10  # elements below which centroids cost more than they spare


class UniformWire(Wire, frozen=True):
    """What the decoder must know."""

    step: float


def decode(wire: UniformWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Fill `out` with the points that the indices stand for."""
    index, shifts = streams[0], streams[1] if len(streams) > 1 else np.zeros(1, np.int8)
    if not 0 < wire.step < math.inf:
        raise FrameError(f"{wire.step} is no step")
    if index.shape != out.shape or not shifts.size:
        raise FrameError(f"indices of {list(index.shape)} and {shifts.size} shifts for {list(out.shape)}")
    _points(wire.step, index.reshape(-1), shifts, out.reshape(-1))


def _points(step: float, index: Array, shifts: Array, out: Array) -> None:
    kind: Any = np.float64 if out.dtype == np.float64 else np.float32
    values = out if out.dtype == kind else np.empty(out.size, kind)
    points = np.arange(shifts.size, dtype=kind) + shifts.astype(kind) / kind(_PARTS)
    many = index.dtype == np.int8 and index.size > _BYTES.size  # of few points
    table = np.empty(_BYTES.size, kind) if many else values
    numbers = _BYTES if many else index.astype(np.int32)
    kernels.RECONSTRUCT[table.itemsize](numbers, points, min(step, _LARGEST[kind]), table)
    _floats.bound(table)  # multiples of a step may be infinite
    if many:
        GATHER[1, table.itemsize](index.view(np.uint8), dtypes.bits_view(table), dtypes.bits_view(values))
    if values is not out:
        _floats.round_into(values, out)


CODEC = Codec(
    "uniform",
    UniformWire,
    Port("values", "f"),
    (Port("index", "i"), Port("shifts", "i", 1, 8)),
    decode,
)


@dataclass(frozen=True, slots=True)
class Uniform:
    """Quantize to multiples of one step: the smaller the step, the finer and the larger.

    The step is `step`, or else what keeps errors to `max_error`, or else what makes the squared error `nmse`.
    """

    step: float = param(0.0, lo=0.0, hi=1e300, doc="Δ, the distance of neighbouring points; 0 to fit it")
    max_error: float = param(0.0, lo=0.0, hi=1e300, doc="the largest error to fit the step to; 0 for nmse instead")
    nmse: float = param(1e-3, lo=1e-12, hi=1.0, doc="the squared error, over that of zeros, to fit the step to")
    rounding: float = param(0.45, lo=0.05, hi=0.5, doc="what of a step is rounded up, from the top; 0.5 is to nearest")
    centroids: bool = param(True, doc="reconstruct small sizes at their mean")

    codec: ClassVar[Codec] = CODEC
    blind: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Round; raises ArgumentError for what is not finite, and where the step is too small for the largest."""
        values = _floats.wide(x)
        most = _floats.biggest(values)
        if not math.isfinite(most):
            raise ArgumentError("an element is not finite: code this array with lossless, or say weights(uniform(…))")
        if x.dtype == ml_dtypes.float8_e8m0fnu:
            raise ArgumentError("powers of two without a sign cannot be rounded to multiples: code them with lossless")
        step, index, shifts = self._quantized(x.reshape(-1), values, most)
        found = index.reshape(x.shape)
        return Encoded(UniformWire(step), (found, shifts) if shifts is not None else (found,))

    def _quantized(self, x: Array, values: Array, most: float) -> tuple[float, Array, Array | None]:
        if self.step:
            return self.step, *self._indices(values, most, self.step, self.rounding, self.centroids)
        if not self.max_error:
            step = step_for(values, self.nmse, self.rounding)
            return step, *self._indices(values, most, step, self.rounding, self.centroids)
        # Where the type of the result is coarse beside the step, rounding to it can double an error.
        for share in (2.0, 1.99999, 1.999, 1.0, 0.5):
            step = self.max_error * share
            index, _ = self._indices(values, most, step, 0.5, centroids=False)
            decoded = np.empty_like(x)
            _points(step, index, np.zeros(1, np.int8), decoded)
            if _largest(x, decoded) <= self.max_error:
                return step, index, None
        raise ArgumentError(f"max_error={self.max_error:.6g} is too small for {x.dtype}: code this array with lossless")

    def _indices(
        self, values: Array, most: float, step: float, rounding: float, centroids: bool
    ) -> tuple[Array, Array | None]:
        inverse = 1 / max(step, 1e-300)
        if most * inverse > 1 << 20:  # f32 would not tell neighbouring indices apart
            values = values.astype(np.float64)
        if inverse > 1e37 or most * inverse >= kernels.LIMIT:
            raise ArgumentError(f"a step of {step:.6g} is too small for weights up to {most:.6g}: take a larger one")
        index = np.empty(values.size, np.int8 if most * inverse < _NARROW else np.int32)
        top = int(kernels.QUANTIZE[values.itemsize, index.itemsize](values, inverse, rounding, index))
        shifts = None
        if centroids and values.size >= _FEW:
            if values.dtype == np.float64:  # f32 may not hold the weights, but steps
                values, inverse = (values * inverse).astype(np.float32), 1.0
            found = _shifts(values, inverse, index, min(top, kernels.KNOWN - 1))
            shifts = found if found.any() else None
        if index.dtype == np.int32 and top < 1 << 15:
            index = index.astype(np.int8 if top < 1 << 7 else np.int16)
        return index, shifts

    def together(self, count: int, shape: tuple[int, ...]) -> Uniform | None:
        """Return what codes so many arrays as this codes each; None where the step is fitted to each."""
        return self if self.step or self.max_error else None

    def error_bound(self, x: Array, /) -> float | None:
        """Return a step or a share of it, and what floating point and the type of the result add."""
        most = _floats.biggest(_floats.wide(x))
        if self.max_error and not self.step:
            return self.max_error
        if not self.step:
            return None
        share = 1.05 if self.centroids else max(self.rounding, 1 - self.rounding)
        wide = x.dtype == np.float64
        unit = 2.0**-50 if wide else 2.0**-21
        coarse = 0.0 if x.dtype.itemsize >= 4 else 1.0  # no more than the distance again: x is a value of its type
        return share * self.step * (1 + coarse) + (most + self.step) * unit


def _shifts(values: Array, inverse: float, index: Array, top: int) -> Array:
    """Return how far the elements of each size lie beyond its point at their mean, in 64ths, i8."""
    known, lanes = kernels.KNOWN, kernels.KNOWN * TOGETHER
    numbers, sums = np.zeros(lanes, np.int32), np.zeros(known)
    room = np.empty(TOGETHER, np.int32), np.empty(TOGETHER, np.float32), np.empty(lanes, np.float32)
    kernels.OFFSETS[index.itemsize](values, index, inverse, top, *room, numbers, sums)
    counts = numbers.reshape(known, -1).sum(1)
    found: Array = np.rint(sums / np.maximum(counts, 1) * _PARTS).clip(-_PARTS, _PARTS).astype(np.int8)
    return found[: top + 1]


def _largest(x: Array, decoded: Array) -> float:
    return float(np.abs(x.astype(np.float64) - decoded.astype(np.float64)).max(initial=0.0))


def step_for(values: Array, nmse: float, rounding: float = 0.5) -> float:
    """Return the step whose squared error is `nmse` times that of zeros, within a percent where it can be.

    `values` are flat and f32 or f64.
    """
    most = _floats.biggest(values)
    energy = float(np.square(values, dtype=np.float64).sum()) if most < 1e150 else math.inf
    if not 0 < energy < math.inf:
        return most or 1.0
    wanted, step = nmse * energy, math.sqrt(12 * nmse * energy / values.size)
    index, decoded = np.empty(values.size, np.int32), np.empty_like(values)
    for _ in range(8):
        step = max(step, _floats.biggest(values) / (1 << 29), 1e-37)
        kernels.QUANTIZE[values.itemsize, 4](values, 1 / step, rounding, index)
        kernels.RECONSTRUCT[values.itemsize](index, np.zeros(1, values.dtype), step, decoded)
        noise = float(np.square(decoded - values, dtype=np.float64).sum())
        ratio = math.sqrt(wanted / noise) if noise else 4.0
        if abs(ratio - 1) < 0.003:
            break
        step *= min(max(ratio, 0.25), 4.0)
    return float(f"{step:.6g}")

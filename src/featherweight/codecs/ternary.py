"""Quantize to three values, minus the scale, zero and plus the scale (3LC: Lim, Andersen and Kaminsky, 2018).

The scale is the largest magnitude times a sparsity multiplier s: arXiv:1802.07389, section 3. The larger s, the fewer
elements are sent, and the larger; what that distorts is added to the next array of a channel.

Wire: `block`, the elements that share a scale; 0 where a whole part does.
Streams: `scales`, one-dimensional, f64 if the array is, else f32, finite and not negative; `values`, u8, 0 to 2, of the
shape of the array.
Given: nothing, or the lengths of the parts that the array consists of, in memory order; their sum is its number of
elements. Without, the array is one part.
Decoding: each part, in memory order, is cut into blocks (the last perhaps shorter; none where the part is empty), and
each block has the next of the scales: out = (value - 1) · scale, rounded to the type of the array, to its largest
finite value where beyond.

Encoding, as the paper has it: M = s · max |x|, and x goes to the value 1 + round(x / M), where ±M / 2 goes to 1, zero.

>>> import numpy as np
>>> scales, values = Ternary(1.5).encode(np.array([0.1, -0.8, 0.75, 1.0], np.float32)).streams
>>> scales.tolist(), values.tolist()
([1.5], [1, 0, 1, 2])
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from featherweight import dtypes
from featherweight.codecs import _parts
from featherweight.codecs._kernels import _floats
from featherweight.codecs._kernels import ternary as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Ternary"]


class TernaryWire(Wire, frozen=True):
    block: int = 0


def decode(wire: TernaryWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Multiply the values by their scales."""
    if len(streams) != 2:
        raise FrameError("expected scales and values")
    scales, values = streams
    real = _real(out.dtype)
    if not 0 <= wire.block < 1 << 60 or scales.dtype != real or values.shape != out.shape or _unsigned(out.dtype):
        raise FrameError(f"{scales.dtype} scales of {wire.block}, {list(values.shape)} values for {list(out.shape)}")
    lengths = _parts.blocks(given, out.size, wire.block, FrameError)
    if lengths.size != scales.size:
        raise FrameError(f"{scales.size} scales for {lengths.size} blocks")
    bits = scales.view(_word(real))
    if scales.size and not bits.max() < np.array(np.inf, real).view(bits.dtype):
        raise FrameError("a scale is negative or not finite")
    flat = out.reshape(-1)
    target = flat if out.dtype == real else np.empty(out.size, real)
    if kernels.SPREAD[real.itemsize](values.reshape(-1), lengths, scales, target) < 0:
        raise FrameError("a value is above 2")
    if target is not flat:
        _floats.round_into(target, flat)


CODEC = Codec(
    "ternary",
    TernaryWire,
    Port("values", "f"),
    (Port("scales", "f", 1), Port("values", "u", bits=8)),
    decode,
    given=(Port("parts", "ui", 1),),
)


@dataclass(frozen=True)
class Ternary:
    """Quantize to -M, 0 and M, where M is s times the largest magnitude."""

    codec: ClassVar[Codec] = CODEC
    s: float = param(1.0, lo=1.0, hi=1.9999, doc="sparsity multiplier: the larger, the fewer elements are not zero")
    block: int = param(0, lo=0, hi=1 << 40, doc="elements that share a scale; 0: all of the array, or of a part")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Find the scales and compare; raises ArgumentError for what is not finite."""
        lengths, flat, scales = self._fit(x, given, self.block)
        values = np.empty(x.shape, np.uint8)
        kernels.CUT[flat.itemsize](flat, lengths, scales, values.reshape(-1))
        return Encoded(TernaryWire(self.block), (scales, values))

    def error_bound(self, x: Array, /) -> float | None:
        """Half the scale of all elements, and what rounding it to the type of the array may change."""
        _, flat, scales = self._fit(x, (), 0)
        if not x.size:
            return 0.0
        scale = float(scales[0])
        change = 0.0
        if x.dtype != flat.dtype:
            limits = ml_dtypes.finfo(x.dtype)
            _, exponent = math.frexp(max(min(scale, float(limits.max)), float(limits.smallest_normal)))
            change = max(math.ldexp(1.0, exponent - 2 - limits.nmant), scale - float(limits.max))
        return max(scale / 2 + change, 5e-324)  # a zero may lose its sign

    def _fit(self, x: Array, given: tuple[Array, ...], block: int) -> tuple[Array, Array, Array]:
        if _unsigned(x.dtype):
            raise ArgumentError("ternary takes types with a sign")
        lengths, flat = _parts.blocks(given, x.size, block, ArgumentError), _floats.wide(x)
        maxima = _maxima(flat, lengths)
        if not np.isfinite(maxima).all():
            raise ArgumentError("an element is not finite: code this array with lossless")
        return lengths, flat, _scales_of(maxima, self.s)


def _scales_of(maxima: Array, s: float) -> Array:
    """Return s times each of these magnitudes, finite, and below twice the magnitude where that is not 0."""
    real = maxima.dtype.type
    with np.errstate(over="ignore", under="ignore"):
        scales: Array = np.minimum(maxima * real(s), real(np.finfo(real).max))
        twice = scales >= maxima + maxima  # of the least numbers that there are
    twice &= maxima > 0
    scales[twice] = np.nextafter(scales[twice], real(0))
    return scales


def _maxima(flat: Array, lengths: Array) -> Array:
    maxima = np.empty(lengths.size, flat.dtype)
    kernels.MAXIMA[flat.itemsize](flat.view(_word(flat.dtype)), lengths, maxima.view(_word(flat.dtype)))
    return maxima


def _word(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _unsigned(dtype: np.dtype[Any]) -> bool:
    return bool(dtype == dtypes.of("F8_E8M0").dtype)

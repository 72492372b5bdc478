"""Round to a narrower floating-point type, to nearest and ties to even.

Wire: nothing.
Streams: `values`, of the shape of the array, of a floating-point type with fewer bits and with neither more exponent
nor more mantissa bits.
Decoding: out = values; all of them are exact in the wider type.

What lies beyond the largest finite value of the narrow type becomes that value, so nothing finite becomes infinite.

>>> import numpy as np
>>> Cast("f8_e4m3").encode(np.array([0.1, 1.0, 1e9], np.float32)).streams[0].astype(float).tolist()
[0.1015625, 1.0, 448.0]
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _floats
from featherweight.codecs._kernels._lookup import GATHER
from featherweight.dtypes import Array, ElementType
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Empty, Encoded, Port, check_params, param

__all__ = ["CODEC", "Cast"]

_TARGETS = (
    "f32",
    "f16",
    "bf16",
    "f8_e4m3",
    "f8_e5m2",
    "f8_e4m3fnuz",
    "f8_e5m2fnuz",
    "f6_e2m3",
    "f6_e3m2",
    "f4",
)


def _holds(wide: ElementType, narrow: ElementType) -> bool:
    """Return whether a type is wider than another and has all its values."""
    return (
        wide.bits > narrow.bits
        and wide.exponent >= narrow.exponent
        and wide.mantissa >= narrow.mantissa
        and wide.name != "F8_E8M0"
    )


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Widen the values."""
    (values,) = streams
    if values.shape != out.shape or not _holds(dtypes.of(out.dtype), dtypes.of(values.dtype)):
        raise FrameError(f"{values.dtype}{list(values.shape)} does not widen to {out.dtype}{list(out.shape)}")
    words = dtypes.bits_view(values)
    if values.itemsize > 2 or values.size < 1 << 12:
        with np.errstate(invalid="ignore"):
            out[...] = values.astype(out.dtype)
        return
    bits = dtypes.of(values.dtype).bits
    if bits < 8 and int(words.max()) >> bits:
        raise FrameError(f"bits are set beyond the {bits} of {values.dtype}")
    GATHER[words.itemsize, out.itemsize](words, _widened(values.dtype, out.dtype), dtypes.bits_view(out))


@functools.lru_cache(32)
def _widened(narrow: np.dtype[Any], wide: np.dtype[Any]) -> Array:
    """Return the words of a type for every word of a narrower one."""
    row = dtypes.of(narrow)
    with np.errstate(invalid="ignore"):
        every = np.arange(1 << row.bits).astype(row.word).view(narrow).astype(wide)
    return dtypes.bits_view(every)


CODEC = Codec("cast", Empty, Port("values", "f"), (Port("values", "f"),), decode)


@dataclass(frozen=True)
class Cast:
    """Round to a narrower type."""

    codec: ClassVar[Codec] = CODEC
    to: str = param("bf16", choices=_TARGETS, doc="the narrower type")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Round; raises ArgumentError for what is not finite, and for a type that is not narrower in all respects."""
        target = self._target(x)
        source = _floats.wide(x)
        if not math.isfinite(_floats.biggest(source)):
            raise ArgumentError("an element is not finite: code this array with lossless")
        values = np.empty(x.shape, target.dtype)
        _floats.round_into(source, values.reshape(-1))
        return Encoded(Empty(), (values,))

    def together(self, count: int, shape: tuple[int, ...]) -> Cast:
        """Return what rounds so many arrays as this one does each."""
        return self

    def error_bound(self, x: Array, /) -> float:
        """Half the distance of neighbours at the largest magnitude, and what lies beyond the largest finite value."""
        limits = ml_dtypes.finfo(self._target(x).dtype)
        most, top = _floats.biggest(_floats.wide(x)), float(limits.max)
        _, exponent = math.frexp(max(min(most, top), float(limits.smallest_normal)))
        return max(math.ldexp(1.0, exponent - 2 - self._target(x).mantissa), most - top)

    def _target(self, x: Array) -> ElementType:
        target, source = dtypes.of(self.to.upper()), dtypes.of(x.dtype)
        if not _holds(source, target):
            raise ArgumentError(f"cast({self.to}) takes wider types, not {source.name.lower()}")
        return target

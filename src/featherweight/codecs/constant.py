"""Store an array whose elements are all the same, bit for bit, as one of them.

Wire: nothing.
Streams: `value`, of the type of the array: its one value, or nothing where the array is empty.
Decoding: out[i] = value[0].

>>> import numpy as np
>>> Constant().encode(np.ones((3, 4), np.float16)).streams
(array([1.], dtype=float16),)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from featherweight import dtypes
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Empty, Encoded, Port

__all__ = ["CODEC", "Constant", "is_constant"]


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Fill `out` with the value."""
    (value,) = streams
    if value.dtype != out.dtype or value.size != min(out.size, 1):
        raise FrameError(f"{value.size} values of {value.dtype} for {out.size} of {out.dtype}")
    _rows(out)[...] = _rows(value)


def _rows(x: Array) -> Array:
    """Return the words of each element: floating-point copies might quieten a NaN."""
    return dtypes.bits_view(x).reshape(x.size, -1 if x.size else 1)


def is_constant(x: Array) -> bool:
    """Return whether all elements have the same bits; an early difference is found at once."""
    rows = _rows(x)
    return bool((rows[:256] == rows[:1]).all() and (rows == rows[:1]).all())


CODEC = Codec("constant", Empty, Port("values"), (Port("value", ndim=1),), decode)


@dataclass(frozen=True)
class Constant:
    """Store an array of equal elements as one of them."""

    codec: ClassVar[Codec] = CODEC

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Take the first element; raises ArgumentError where another differs."""
        if not is_constant(x):
            raise ArgumentError("constant takes arrays whose elements are all the same")
        return Encoded(Empty(), (x.reshape(-1)[:1].copy(),))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

"""Store an array as it is.

Wire: nothing.
Streams: `values`, the elements in C order, one-dimensional.
Decoding: out = values.

>>> import numpy as np
>>> Raw().encode(np.arange(3)).streams
(array([0, 1, 2]),)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from featherweight.dtypes import Array
from featherweight.errors import FrameError
from featherweight.stage import Codec, Empty, Encoded, Port

__all__ = ["CODEC", "Raw"]


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Copy the one stream into `out`."""
    (values,) = streams
    if values.dtype != out.dtype or values.size != out.size:
        raise FrameError(f"{values.size} stored values of {values.dtype} for {out.size} of {out.dtype}")
    out[...] = values.reshape(out.shape)


CODEC = Codec("raw", Empty, Port("values"), (Port("values"),), decode)


@dataclass(frozen=True)
class Raw:
    """Store the array as it is."""

    codec: ClassVar[Codec] = CODEC

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Hand the array on."""
        return Encoded(Empty(), (x.reshape(-1),))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

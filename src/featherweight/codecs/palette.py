"""Few different elements: each is told once, and then by its number, as of weights that were clustered before.

Wire: nothing.
Streams: `index`, u8, of the shape of the array; `values`, one-dimensional and of the type of the array, at most 256.
Decoding: out[i] = values[index[i]].

Elements are different where their bits are. The one whose bits are all zero, if it occurs, has the number 0; all else
is numbered as it comes.

>>> import numpy as np
>>> [stream.tolist() for stream in Palette().encode(np.array([2.5, 2.5, 0, -1], np.float32)).streams]
[[1, 1, 0, 2], [0.0, 2.5, -1.0]]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import palette as kernels
from featherweight.codecs._kernels._lookup import GATHER
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Edge, Empty, Encoded, Port, Spec

__all__ = ["CODEC", "Palette"]


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Look the elements up."""
    if len(streams) != 2:
        raise FrameError("an index and values are needed")
    index, values = streams
    if index.shape != out.shape or values.dtype != out.dtype:
        raise FrameError(
            f"an index of {list(index.shape)} and values of {values.dtype} for {out.dtype}{list(out.shape)}"
        )
    if index.size and int(index.max()) >= values.size:
        raise FrameError(f"number {int(index.max())} of {values.size} values")
    words = dtypes.bits_view(values)
    GATHER[1, words.itemsize](index.reshape(-1), words, dtypes.bits_view(out))


def at(wire: Empty, streams: tuple[Edge, ...], given: tuple[Edge, ...], spec: Spec, positions: Array) -> Array:
    """Look some elements up."""
    if len(streams) != 2 or streams[0].spec.shape != spec.shape:
        raise FrameError("an index and values are needed")
    found = np.empty(positions.size, spec.dtype)
    decode(wire, (streams[0].at(positions), streams[1].whole()), (), found)
    return found


CODEC = Codec(
    "palette", Empty, Port("elements", "buif"), (Port("index", "u", bits=8), Port("values", "buif", 1)), decode, at=at
)


@dataclass(frozen=True)
class Palette:
    """Tell each of up to 256 different elements once."""

    codec: ClassVar[Codec] = CODEC

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Give each element its number; raises ArgumentError where there are more than 256 different ones."""
        values, index = kernels.numbered(dtypes.bits_view(x))
        if values.size > kernels.MOST:
            raise ArgumentError(f"there are more than {kernels.MOST} different elements: code this array with lossless")
        return Encoded(Empty(), (index.reshape(x.shape), values.view(x.dtype)))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

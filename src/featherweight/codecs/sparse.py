"""Part positions and values: a mask of what is not zero, and what is not zero.

The mask codes well as a bitmap (``bitpack``) and better under the densities of its rows and columns (``scales``, then
``rans`` given those). Zero is the element whose bits are all zero; -0.0 is kept.

Wire: nothing.
Streams: `mask`, u8 0 or 1, of the shape of the array, and `values`, one-dimensional and of the type of the array.
Decoding: in memory order, an element is the next value where the mask is 1 and zero elsewhere; there must be as many
values as ones.

>>> import numpy as np
>>> Sparse().encode(np.array([[0, 0.5], [-2, 0]], np.float32)).streams
(array([[0, 1],
       [1, 0]], dtype=uint8), array([ 0.5, -2. ], dtype=float32))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight.codecs._kernels import sparse as kernels
from featherweight.dtypes import Array
from featherweight.errors import FrameError
from featherweight.stage import Codec, Empty, Encoded, Port

__all__ = ["CODEC", "Sparse"]


def _words(x: Array) -> Array:
    """Return elements as words of their size; of 16 bytes, as pairs of words."""
    flat = x.reshape(-1)
    return flat.view(f"u{flat.itemsize}") if flat.itemsize <= 8 else flat.view(np.uint64).reshape(-1, 2)


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Deal the values out to where the mask is 1."""
    if len(streams) != 2 or streams[0].shape != out.shape or streams[1].dtype != out.dtype:
        raise FrameError(f"expected a mask of {list(out.shape)} and values of {out.dtype}")
    mask, values, words = streams[0].reshape(-1), _words(streams[1]), _words(out)
    if mask.size and mask.max() > 1:
        raise FrameError(f"a mask of 0 and 1 holds {mask.max()}")
    ones = int(np.count_nonzero(mask.view(np.bool_)))
    if ones != len(values):
        raise FrameError(f"{len(values)} values for a mask of {ones}")
    words[...] = 0
    if words.ndim == 1:
        kernels.JOIN[words.itemsize](mask, values, words)
    else:
        words[mask.view(np.bool_)] = values


CODEC = Codec("sparse", Empty, Port("values"), (Port("mask", "u", bits=8), Port("values", ndim=1)), decode)


@dataclass(frozen=True)
class Sparse:
    """Part what is not zero from where it is."""

    codec: ClassVar[Codec] = CODEC

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Mark and copy what is not zero."""
        words = _words(x)
        if words.ndim == 1:
            mask, values = np.empty(x.shape, np.uint8), np.empty(int(np.count_nonzero(words)) + 1, words.dtype)
            kernels.PART[words.itemsize](words, mask.reshape(-1), values)
            return Encoded(Empty(), (mask, values[:-1].view(x.dtype)))
        there = (words != 0).any(axis=1)
        return Encoded(Empty(), (there.view(np.uint8).reshape(x.shape), x.reshape(-1)[there]))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

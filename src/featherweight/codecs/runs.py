"""Cut out regions of zeros: padding, pruned blocks, embeddings of tokens that never came up.

Zero is the element whose bits are all zero; -0.0 is kept.

Wire: nothing.
Streams: `kept`, the elements that were not cut out, one-dimensional and of the type of the array; `lengths`, u32,
alternately of regions kept and regions cut, in elements, beginning with one that is kept and may have length 0.
Decoding: walk through the lengths in memory order, copying from `kept` and filling with zeros in turn; what the
lengths do not reach is copied. The even lengths must not sum to more than there is in `kept`, and `kept` and the odd
lengths must together have as many elements as the array. Without `lengths` nothing was cut.

>>> import numpy as np
>>> Runs(least=2).encode(np.array([7, 0, 0, 0, 0, 8, 0, 9], np.int8)).streams
(array([7, 8, 0, 9], dtype=int8), array([1, 4], dtype=uint32))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import runs as kernels
from featherweight.dtypes import Array
from featherweight.errors import FrameError
from featherweight.stage import Codec, Empty, Encoded, Port, check_params, param

__all__ = ["CODEC", "Runs"]


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Spread the kept elements and fill the gaps with zeros."""
    if not streams:
        raise FrameError("runs without elements")
    kept, lengths = streams[0], streams[1] if len(streams) > 1 else np.empty(0, np.uint32)
    if lengths.dtype != np.uint32 or lengths.ndim != 1 or kept.dtype != out.dtype:
        raise FrameError(f"{kept.dtype} with lengths of {lengths.dtype} for {out.dtype}")
    # Fewer than 2^32 numbers below 2^32: the sums fit.
    copied, zeros = (int(lengths[odd::2].sum(dtype=np.uint64)) for odd in (0, 1))
    if copied > kept.size or kept.size + zeros != out.size:
        raise FrameError(f"{kept.size} elements and regions of {copied} and {zeros} for {out.size}")
    kernels.fill(_bytes(kept), lengths, out.dtype.itemsize, _bytes(out))


def _bytes(x: Array) -> Array:
    return x.reshape(-1).view(np.uint8)


CODEC = Codec("runs", Empty, Port("values"), (Port("kept", ndim=1), Port("lengths", "u", 1, 32)), decode)


@dataclass(frozen=True)
class Runs:
    """Cut out regions of at least `least` zeros."""

    codec: ClassVar[Codec] = CODEC
    least: int = param(64, lo=1, hi=1 << 31, doc="the shortest region that is cut out, in elements")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Separate the zeros from the rest; without zeros to cut, `lengths` is absent."""
        lengths = self._lengths(x)
        if not lengths.size:
            return Encoded(Empty(), (x.reshape(-1),))
        kept = np.empty(x.size - int(lengths[1::2].sum(dtype=np.uint64)), x.dtype)
        kernels.cut(_bytes(x), lengths, x.dtype.itemsize, _bytes(kept))
        return Encoded(Empty(), (kept, lengths))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

    def pays(self, x: Array, /) -> bool:
        """Return whether a sixteenth of the elements or more would be cut out."""
        return bool(16 * self._lengths(x)[1::2].sum(dtype=np.uint64) >= max(x.size, 1))

    def _lengths(self, x: Array) -> Array:
        filled = dtypes.bits_view(x) != 0
        if x.dtype.kind == "c":
            filled = filled.reshape(-1, 2).any(axis=1)
        # A pair for each region cut and its neighbour, and one more wherever a length passes 32 bits.
        room = 2 * (x.size // (self.least + 1) + 1 + x.size // 0xFFFFFFFF)
        lengths = np.empty(room, np.uint32)
        return lengths[: kernels.find(filled.view(np.uint8), self.least, lengths)].copy()

"""Keep the elements that are not zero, each with the number of zeros before it.

The relative index of Han, Mao and Dally, "Deep Compression" (arXiv:1510.00149, section 2): where a gap does not fit
its field, a zero is kept as a filler. Zero is the element whose bits are all zero; -0.0 is kept.

Wire: nothing.
Streams: `gaps`, u8, and `values` of the type of the array, both one-dimensional and equally long.
Decoding: value k goes to position Σ_{j ≤ k} (gaps[j] + 1) - 1, in memory order, which must lie inside the array; all
other elements are zero.

Fields of 4 bits are what the paper measures on AlexNet, 5 on LeNet and VGG-16, 8 and 5 what its text names. The default
of 8 comes out smallest where gaps are entropy-coded, for it needs the fewest fillers.

>>> import numpy as np
>>> x = np.zeros(20, np.float32)
>>> x[[1, 4, 15]] = 3.4, 0.9, 1.7
>>> Gaps(width=3).encode(x).streams
(array([1, 2, 7, 2], dtype=uint8), array([3.4, 0.9, 0. , 1.7], dtype=float32))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight.codecs._kernels import gaps as kernels
from featherweight.dtypes import Array
from featherweight.errors import FrameError
from featherweight.stage import Codec, Empty, Encoded, Port, check_params, param

__all__ = ["CODEC", "Gaps"]


def _words(x: Array) -> Array:
    """Return elements as words of their size; of 16 bytes, as pairs of words."""
    flat = x.reshape(-1)
    return flat.view(f"u{flat.itemsize}") if flat.itemsize <= 8 else flat.view(np.uint64).reshape(-1, 2)


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Fill with zeros and put the values in their places."""
    if len(streams) != 2 or streams[0].size != streams[1].size or streams[1].dtype != out.dtype:
        raise FrameError(f"expected gaps and as many values of {out.dtype}")
    gaps, values, words = streams[0], _words(streams[1]), _words(out)
    words[...] = 0
    if words.ndim == 1:
        reached = kernels.PLACE[words.itemsize](gaps, values, words)
    else:
        places = np.cumsum(gaps.astype(np.int64) + 1) - 1
        reached = -1 if places.size and places[-1] >= len(words) else 0
        if not reached:
            words[places] = values
    if reached < 0:
        raise FrameError(f"a gap leads beyond the {len(words)} elements")


CODEC = Codec("gaps", Empty, Port("values"), (Port("gaps", "u", 1, 8), Port("values", ndim=1)), decode)


@dataclass(frozen=True)
class Gaps:
    """Keep what is not zero, with the zeros before it counted in `width` bits."""

    codec: ClassVar[Codec] = CODEC
    width: int = param(8, lo=1, hi=8, doc="bits of a gap; longer gaps take fillers, zeros kept like values")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Count and keep; zeros after the last value need nothing."""
        words = _words(x)
        seen = words if words.ndim == 1 else (words != 0).any(axis=1).view(np.uint8)
        room = int(np.count_nonzero(seen)) + (seen.size >> self.width) + 1
        gaps, values = np.empty(room, np.uint8), np.empty(room, seen.dtype)
        count = kernels.FIND[seen.itemsize](seen, (1 << self.width) - 1, gaps, values)
        gaps = gaps[:count].copy()
        if words.ndim == 1:
            return Encoded(Empty(), (gaps, values[:count].copy().view(x.dtype)))
        return Encoded(Empty(), (gaps, x.reshape(-1)[np.cumsum(gaps.astype(np.int64) + 1) - 1]))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

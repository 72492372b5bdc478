"""Pack five values of three into a byte (3LC's quartic encoding: Lim, Andersen and Kaminsky, 2018).

The five come from five equal parts of the array, not from neighbours, so that loops work on vectors:
arXiv:1802.07389, section 3.2.

Wire: nothing.
Streams: `bytes`, u8, one-dimensional: P = ⌈n / 5⌉ for n values; each at most 242.
Decoding: value i is digit ⌊i / P⌋ of byte i mod P, in memory order, digits of base 3 counted from the highest (that of
81) on. The digits that stand for no value are 1.

>>> import numpy as np
>>> Base3().encode(np.array([1, 2, 0, 1, 2, 1], np.uint8)).streams[0].tolist()
[103, 202]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight.codecs._kernels import base3 as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Empty, Encoded, Port, check_params

__all__ = ["CODEC", "Base3"]


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Take the digits apart."""
    data, values = streams[0], out.reshape(-1)
    if data.size != -(-values.size // 5):
        raise FrameError(f"{data.size} bytes for {values.size} values")
    left = data.copy()
    if kernels.unpack(left, np.empty_like(left), values) < 0:
        raise FrameError("a byte is above 242, or a digit that stands for no value is not 1")


CODEC = Codec("base3", Empty, Port("values", "u", bits=8), (Port("bytes", "u", 1, 8),), decode)


@dataclass(frozen=True)
class Base3:
    """Pack values below 3."""

    codec: ClassVar[Codec] = CODEC

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Put digits together; raises ArgumentError for a value above 2."""
        data = np.empty(-(-x.size // 5), np.uint8)
        if kernels.pack(x.reshape(-1), data) < 0:
            raise ArgumentError("base3 takes values below 3, such as those of ternary")
        return Encoded(Empty(), (data,))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

"""Code runs of the byte 121 in the bytes that base3 leaves free (3LC: Lim, Andersen and Kaminsky, 2018).

121 is five zeros: arXiv:1802.07389, section 3.3.

Wire: nothing.
Streams: `coded`, u8, one-dimensional.
Decoding: in order, a byte c below 243 stands for itself, and one from 243 on for c - 241 times 121.

A single 121 stays as it is; of a longer run each 14 go into a 255, and what is left of it is a run again.

>>> import numpy as np
>>> x = np.array([7] + [121] * 17 + [8, 121, 9, 121, 121], np.uint8)
>>> ZeroRun().encode(x).streams[0].tolist()
[7, 255, 244, 8, 121, 9, 243]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight.codecs._kernels import zero_run as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Empty, Encoded, Port, check_params

__all__ = ["CODEC", "ZeroRun"]


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Spread the runs."""
    data = out.reshape(-1)
    # Two bytes of whatever the runs are make 28 at most: what would not fit is seen before it is written.
    if kernels.expand(streams[0], data) != data.size:
        raise FrameError(f"the runs do not make {data.size} bytes")


CODEC = Codec("zero_run", Empty, Port("bytes", "u", bits=8), (Port("coded", "u", 1, 8),), decode)


@dataclass(frozen=True)
class ZeroRun:
    """Shorten runs of 121 in bytes below 243."""

    codec: ClassVar[Codec] = CODEC

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Find the runs; raises ArgumentError for a byte above 242."""
        coded = np.empty(x.size + kernels.SPARE, np.uint8)
        size = kernels.shorten(x.reshape(-1), coded)
        if size < 0:
            raise ArgumentError("zero_run takes bytes below 243, such as those of base3")
        return Encoded(Empty(), (coded[:size].copy(),))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

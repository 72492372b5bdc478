"""Pack small unsigned numbers at 1 to 8 bits each.

Wire: `width`, bits of a number, 1 to 8.
Streams: `packed`, u8, one-dimensional, of ⌈n · width / 8⌉ bytes for n numbers.
Decoding: read the bytes as one number, the first byte lowest; out[i] is its bits i · width to i · width + width - 1,
in memory order. The bits beyond the last number are zero.

>>> import numpy as np
>>> Bitpack().encode(np.array([1, 2, 3], np.uint8))
Encoded(wire=BitpackWire(width=2), streams=(array([57], dtype=uint8),))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight.codecs._kernels import bitpack as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Bitpack"]


class BitpackWire(Wire, frozen=True):
    width: int


def decode(wire: BitpackWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Unpack into `out`."""
    packed, width, values = streams[0].reshape(-1), wire.width, out.reshape(-1)
    if not 1 <= width <= 8 or packed.dtype != np.uint8 or packed.size != kernels.bytes_for(values.size, width):
        raise FrameError(f"{packed.size} packed bytes for {values.size} numbers of {width} bits")
    if not kernels.unpack(packed, width, values):
        raise FrameError("bits are set beyond the last packed number")


CODEC = Codec("bitpack", BitpackWire, Port("values", "u", bits=8), (Port("packed", "u", 1, 8),), decode)


@dataclass(frozen=True)
class Bitpack:
    """Pack numbers below 2^width."""

    codec: ClassVar[Codec] = CODEC
    blind: ClassVar[bool] = True
    width: int = param(0, lo=0, hi=8, doc="bits of a number; 0 for as many as the largest needs")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Pack the bits; raises ArgumentError for a number that does not fit."""
        values = x.reshape(-1)
        needed = max(1, int(values.max()).bit_length()) if values.size else 1
        width = self.width or needed
        if needed > width:
            raise ArgumentError(f"bitpack({width}): {int(values.max())} does not fit")
        return Encoded(BitpackWire(width), (kernels.pack(values, width),))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

"""Compress the bytes of an array with bzip2: Burrows and Wheeler's transform and Huffman codes.

Wire: nothing.
Streams: `payload`, bytes: one bzip2 stream, and nothing behind it; empty where there are no bytes.
Decoding: out = what the payload unpacks to: the elements, each least significant byte first, in C order.

Arrays of all types are taken. Bytes are seen as they lie, so integers of one byte fare best.

>>> import numpy as np
>>> _, (payload,) = Bzip2().encode(np.zeros((100, 100), np.int16))
>>> payload.size
47
"""

from __future__ import annotations

import bz2
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight.codecs import _bytes
from featherweight.dtypes import Array
from featherweight.errors import FrameError, TruncatedError
from featherweight.stage import Codec, Empty, Encoded, Port, check_params, param

__all__ = ["CODEC", "Bzip2"]


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Unpack, never more than `out` holds."""
    payload = streams[0]
    if not out.size:
        if payload.size:
            raise FrameError("a payload for no bytes")
        return
    coder = bz2.BZ2Decompressor()
    try:
        data = coder.decompress(payload.data, out.nbytes)
        more = b"" if coder.eof else coder.decompress(b"", 1)
    except (OSError, EOFError) as error:
        raise FrameError(f"the payload is no bzip2 stream: {error}") from None
    if more or coder.unused_data:
        raise FrameError("the payload goes on behind the last byte")
    if not coder.eof:
        raise TruncatedError("the payload ends early")
    _bytes.fill(data, out)


CODEC = Codec("bzip2", Empty, Port("bytes"), (Port("payload", "u", 1, 8),), decode)


@dataclass(frozen=True)
class Bzip2:
    """Compress with bzip2."""

    codec: ClassVar[Codec] = CODEC
    blind: ClassVar[bool] = True
    level: int = param(9, lo=1, hi=9, doc="blocks of so many 100,000 bytes")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Compress."""
        data = bz2.compress(_bytes.seen(x).data, self.level) if x.size else b""
        return Encoded(Empty(), (np.frombuffer(data, np.uint8),))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

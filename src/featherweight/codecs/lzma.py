"""Compress the bytes of an array with LZMA: a dictionary coder with a context-mixing range coder behind it.

Wire: `dictionary`, 12 to 30: the dictionary has 2^dictionary bytes; `lc`, `lp`, `pb`: bits of the byte before that are
context of a literal, bits of the position that are context of a literal, and of other symbols; lc + lp are at most 4.
Streams: `payload`, bytes: one raw LZMA2 stream as xz holds it, end marker included; empty where there are no bytes.
Decoding: out = what the payload unpacks to: the elements, each least significant byte first, in C order. A dictionary
above 4096 bytes is less than twice as large as that.

Arrays of all types are taken; the position within an element is context.

>>> import numpy as np
>>> wire, (payload,) = Lzma().encode(np.arange(10_000, dtype=np.int32) // 2500)
>>> wire, payload.size < 150
(LzmaWire(dictionary=16, lc=0, lp=2, pb=2), True)
"""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from featherweight.codecs import _bytes
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError, TruncatedError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Lzma", "LzmaWire"]

_Bits = Annotated[int, msgspec.Meta(ge=0, le=4)]


class LzmaWire(Wire, frozen=True):
    """The filter's properties."""

    dictionary: Annotated[int, msgspec.Meta(ge=12, le=30)]
    lc: _Bits
    lp: _Bits
    pb: _Bits


def decode(wire: LzmaWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Unpack, never more than `out` holds."""
    payload = streams[0]
    if not out.size:
        if payload.size:
            raise FrameError("a payload for no bytes")
        return
    if wire.lc + wire.lp > 4 or 1 << wire.dictionary >= max(2 * out.nbytes, 4097):
        raise FrameError(f"{wire} does not fit {out.nbytes} bytes")
    try:
        coder = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[_filter(wire)])
        data = coder.decompress(payload.data, out.nbytes)
        more = b"" if coder.eof else coder.decompress(b"", 1)
    except (lzma.LZMAError, EOFError) as error:
        raise FrameError(f"the payload is no LZMA2 stream: {error}") from None
    if more or coder.unused_data:
        raise FrameError("the payload goes on behind the last byte")
    if not coder.eof:
        raise TruncatedError("the payload ends early")
    _bytes.fill(data, out)


def _filter(wire: LzmaWire, **more: Any) -> dict[str, Any]:
    return {
        "id": lzma.FILTER_LZMA2,
        "dict_size": 1 << wire.dictionary,
        "lc": wire.lc,
        "lp": wire.lp,
        "pb": wire.pb,
        **more,
    }


CODEC = Codec("lzma", LzmaWire, Port("bytes"), (Port("payload", "u", 1, 8),), decode)


@dataclass(frozen=True)
class Lzma:
    """Compress with LZMA."""

    codec: ClassVar[Codec] = CODEC
    blind: ClassVar[bool] = True
    level: int = param(6, lo=0, hi=9, doc="preset of xz, by which it searches")
    lc: int = param(0, lo=0, hi=4, doc="bits of the byte before that are context: 0 for noise, 3 for text")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Compress."""
        place = min(max(x.itemsize.bit_length() - 1, 0), 4 - self.lc)
        wire = LzmaWire(min(max((2 * x.nbytes - 1).bit_length() - 1, 12), 26) if x.size else 12, self.lc, place, place)
        if not x.size:
            return Encoded(wire, (np.empty(0, np.uint8),))
        try:
            filters = [_filter(wire, preset=self.level)]
            data = lzma.compress(_bytes.seen(x).data, lzma.FORMAT_RAW, filters=filters)
        except lzma.LZMAError as error:
            raise ArgumentError(f"lzma refuses: {error}") from None
        return Encoded(wire, (np.frombuffer(data, np.uint8),))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

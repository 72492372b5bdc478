"""Compress the bytes of an array with Zstandard (RFC 8878).

Needs the package zstandard (``pip install 'featherweight[zstd]'``), or Python 3.14.

Wire: nothing.
Streams: `payload`, bytes: one Zstandard frame that says how large its contents are, without a dictionary, and nothing
behind it; empty where there are no bytes.
Decoding: out = what the payload unpacks to: the elements, each least significant byte first, in C order.

Arrays of all types are taken. Bytes are seen as they lie.

>>> import numpy as np
>>> _, (payload,) = Zstd().encode(np.zeros((100, 100), np.int16))
>>> payload.size < 25
True
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featherweight.codecs import _bytes
from featherweight.dtypes import Array
from featherweight.errors import FrameError, MissingDependencyError, TruncatedError
from featherweight.stage import Codec, Empty, Encoded, Port, check_params, param

__all__ = ["CODEC", "Zstd"]


def _library() -> Any:
    """Return zstandard, or the standard library's module."""
    for name in ("zstandard", "compression.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingDependencyError("zstandard is needed: pip install 'featherweight[zstd]'")


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Unpack, never more than `out` holds."""
    payload = streams[0]
    if not out.size:
        if payload.size:
            raise FrameError("a payload for no bytes")
        return
    _check_size(payload, out.nbytes)
    library = _library()
    unpack = _unpack_package if library.__name__ == "zstandard" else _unpack_standard
    _bytes.fill(unpack(library, payload.tobytes(), out.nbytes), out)


def _check_size(payload: Array, size: int) -> None:
    """Demand a frame of so many bytes by its header, since libraries allocate what that says."""
    head = payload[:18].tobytes()
    if head[:4] != b"\x28\xb5\x2f\xfd":
        raise FrameError("the payload is no Zstandard frame")
    if len(head) < 6:
        raise TruncatedError("the payload ends early")
    flags = head[4]
    single, width = flags >> 5 & 1, (flags >> 5 & 1, 2, 4, 8)[flags >> 6]
    place = 6 - single
    if flags & 11 or not width:
        raise FrameError("the Zstandard frame asks for a dictionary or does not say its size")
    found = int.from_bytes(head[place : place + width], "little") + 256 * (width == 2)
    if found != size:
        raise FrameError(f"{found} bytes for {size}")


def _unpack_package(library: Any, payload: bytes, size: int) -> bytes:
    try:
        data: bytes = library.ZstdDecompressor().decompress(payload, max_output_size=size, allow_extra_data=False)
    except library.ZstdError as error:
        raise FrameError(f"the payload is no Zstandard frame: {error}") from None
    return data


def _unpack_standard(library: Any, payload: bytes, size: int) -> bytes:
    try:
        coder = library.ZstdDecompressor()
        data: bytes = coder.decompress(payload, size)
        more = b"" if coder.eof else coder.decompress(b"", 1)
    except (library.ZstdError, EOFError) as error:
        raise FrameError(f"the payload is no Zstandard frame: {error}") from None
    if more or coder.unused_data:
        raise FrameError("the payload goes on behind the last byte")
    if not coder.eof:
        raise TruncatedError("the payload ends early")
    return data


CODEC = Codec("zstd", Empty, Port("bytes"), (Port("payload", "u", 1, 8),), decode)


@dataclass(frozen=True)
class Zstd:
    """Compress with Zstandard."""

    codec: ClassVar[Codec] = CODEC
    blind: ClassVar[bool] = True
    level: int = param(19, lo=1, hi=22, doc="how hard to search; above 19 it takes much memory")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Compress; raises MissingDependencyError without the package."""
        if not x.size:
            return Encoded(Empty(), (np.empty(0, np.uint8),))
        library, data = _library(), _bytes.seen(x)
        if library.__name__ == "zstandard":
            coder = library.ZstdCompressor(level=self.level, write_checksum=False, write_content_size=True)
            packed = coder.compress(data.data)
        else:
            packed = library.compress(data.data, self.level)
        return Encoded(Empty(), (np.frombuffer(packed, np.uint8),))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

"""The index of a `.fw` file: its records, and how they are packed; FORMAT.md is the norm."""

from __future__ import annotations

import bz2
import math
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from featherweight.errors import FrameError, TruncatedError, UnsupportedError
from featherweight.formats._io import Source
from featherweight.frame import Frame, Positional, checksum
from featherweight.losses import Error, decibels

__all__ = [
    "ALIGNED_FROM",
    "ALIGNMENT",
    "MAGIC",
    "Index",
    "Loss",
    "Part",
    "Row",
    "Said",
    "loss_of",
    "pack",
    "said",
    "unpack",
]

MAGIC = b"\x89FWF\r\n\x1a\n"
VERSION = 1
ALIGNMENT, ALIGNED_FROM = 64, 1 << 16
MAX_INDEX = 1 << 26
_TAIL = struct.Struct("<QIBBH8s")  # length of the index, its checksum, version, coding (0 plain, 1 bzip2), zero, magic
_PLAIN, _BZIP2 = 0, 1
_PREFETCH = 1 << 16
_NONE, _ENDLESS = -(1 << 15), 1 << 15  # in place of the logarithms of 0 and of infinity

Said = tuple[int, int]
"""An error as the index says it: NMSE in hundredths of its decimal logarithm, largest error in 16ths of its binary."""


class Part(Positional, frozen=True):
    """A tensor of a bundle; they lie in the frame one after another."""

    name: str
    shape: tuple[int, ...]
    loss: Said | None = None


class Row(Positional, frozen=True):
    """A body: the tensor in it, or a bundle of several, and its frame's head."""

    name: str | tuple[Part, ...]
    padding: int
    frame: Frame
    loss: Said | None = None


class Index(Positional, frozen=True):
    """What a file says of its bodies, and of the file that they came from.

    `order` has for each tensor, as the source had them, the number of the body that it is the next one of: [0, 1, 0]
    where the second lies alone between two of a bundle. There is none where they are as bodies have them.
    """

    bodies: tuple[Row, ...]
    metadata: dict[str, str]
    layout: bytes
    origin: str
    order: tuple[int, ...] = ()


class Loss(NamedTuple):
    """What lossy coding cost a tensor, as the file records it, rounded up: relative squared and largest error."""

    nmse: float
    largest: float

    @property
    def snr(self) -> float:
        """Signal over noise in decibels."""
        return decibels(self.nmse)


def loss_of(found: Said | None) -> Loss | None:
    """Return what the index says of an error."""
    if found is None:
        return None
    return Loss(_power(10.0, found[0], 100), _power(2.0, found[1], 16))


def said(error: Error | None) -> Said | None:
    """Return an error as the index says it, rounded up."""
    if error is None:
        return None
    return _level(error.nmse, math.log10, 100), _level(error.largest, math.log2, 16)


def _power(base: float, level: int, unit: int) -> float:
    if abs(level) >= _ENDLESS:
        return math.inf if level > 0 else 0.0
    try:
        return float(base ** (level / unit))
    except OverflowError:  # rounded up
        return math.inf


def _level(value: float, logarithm: Callable[[float], float], unit: int) -> int:
    if not 0 < value < math.inf:
        return _NONE if value == 0 else _ENDLESS
    return math.ceil(logarithm(value) * unit)


def pack(index: Index) -> Sequence[bytes]:
    """Return what a file ends with: the index and the tail."""
    plain = msgspec.msgpack.encode(index.trimmed())
    coding, stored = _PLAIN, plain
    # bzip2's own implementation is the only one there is, so its bytes are the same everywhere.
    if len(plain) < 1 << 22 and len(packed := bz2.compress(plain)) < len(plain):
        coding, stored = _BZIP2, packed
    return stored, _TAIL.pack(len(stored), checksum(stored), VERSION, coding, 0, MAGIC[::-1])


def unpack(source: Source) -> tuple[Index, int]:
    """Read the index of a file and where it begins; raises FrameError, TruncatedError or UnsupportedError."""
    size = source.size
    if size < len(MAGIC) + _TAIL.size:
        raise TruncatedError(f"{size} bytes are no featherweight file")
    ahead = min(_PREFETCH, size)
    end = bytes(source.read(size - ahead, ahead))  # with luck the whole index, and of a small file everything
    begin = end[:8] if ahead == size else bytes(source.read(0, 8))
    if begin != MAGIC:
        raise FrameError("not a featherweight file: it begins otherwise")
    length, expected, version, coding, zero, magic = _TAIL.unpack(end[-_TAIL.size :])
    if magic != MAGIC[::-1]:
        raise TruncatedError("the end of the file is missing: it was not written or copied completely")
    if version != VERSION or coding > _BZIP2 or zero:
        raise UnsupportedError(f"version {version}, coding {coding} is not known here: upgrade featherweight")
    place = size - _TAIL.size - length
    if not 0 < length <= MAX_INDEX or place < len(MAGIC):
        raise FrameError(f"an index of {length} bytes is announced in a file of {size}")
    if length + _TAIL.size <= ahead:
        stored = end[-_TAIL.size - length : -_TAIL.size]
    else:
        stored = bytes(source.read(place, length))
    if checksum(stored) != expected:
        raise FrameError("the index does not match its checksum: the file is damaged")
    return _parse(_expand(stored) if coding == _BZIP2 else stored), place


def _expand(stored: bytes) -> bytes:
    unpacker = bz2.BZ2Decompressor()
    try:
        index = unpacker.decompress(stored, MAX_INDEX)
    except (OSError, ValueError) as error:
        raise FrameError(f"the index cannot be unpacked: {error}") from None
    if not unpacker.eof or unpacker.unused_data:
        raise FrameError("the index cannot be unpacked: it is cut short, too long, or something follows it")
    return index


def _parse(data: bytes) -> Index:
    try:
        return msgspec.msgpack.decode(data, type=Index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"the index is not well-formed: {error}") from None

"""Messages: a head that says who sent what, and three frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from featherweight.errors import FrameError, TruncatedError, UnsupportedError
from featherweight.frame import checksum

MAGIC = b"\xfem\x01"
_BEGIN = len(MAGIC) + 8


class Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a message says of itself: who sent it, at which step, for which parts."""

    sender: int
    step: int
    layout: int
    sizes: tuple[int, int, int]
    plain: tuple[int, ...] = ()


def head_of(message: Any) -> Head:
    """Return what a message says of itself; raises FrameError, TruncatedError or UnsupportedError."""
    return unpack(message)[0]


def pack(head: Head, frames: Sequence[bytes]) -> bytes:
    packed = msgspec.msgpack.encode(head)
    start = MAGIC + len(packed).to_bytes(4, "little")
    return b"".join((start, checksum(start, packed).to_bytes(4, "little"), packed, *frames))


def unpack(message: Any) -> tuple[Head, list[memoryview]]:
    view = memoryview(message).cast("B")
    begin = bytes(view[:3])
    if begin[:2] != MAGIC[:2][: len(begin)]:
        raise FrameError("not a message: it begins otherwise")
    if len(begin) == 3 and begin[2] != MAGIC[2]:
        raise UnsupportedError(f"message version {begin[2]} is not known here: upgrade featherweight")
    begins = _BEGIN
    size = int.from_bytes(view[3:7], "little")
    if len(view) < begins or len(view) - begins < size:
        raise TruncatedError(f"{len(view)} bytes end in the head of the message")
    packed = view[begins : begins + size]
    if checksum(view[:7], packed) != int.from_bytes(view[7:begins], "little"):
        raise FrameError("the head of the message does not match its checksum")
    try:
        head = msgspec.msgpack.decode(packed, type=Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"the head of the message is not well-formed: {error}") from None
    if min(head.sender, head.step, head.layout, *head.sizes) < 0:
        raise FrameError("a number in the head of the message is negative")
    frames, place = [], begins + size
    for length in head.sizes:
        frames.append(view[place : place + length])
        place += length
    if len(view) != place:
        error_kind = TruncatedError if len(view) < place else FrameError
        raise error_kind(f"the message has {len(view)} of {place} bytes")
    return head, frames

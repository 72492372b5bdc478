"""Messages of varying length between ranks, over gloo; whoever fails says so to the others.

An exchange is the same for all ranks and counted by them. To each peer goes the length of the message, 8 bytes, and
with it the message, or of one above `TOGETHER` bytes so many of them, and the others next: each message that travels
wakes several threads, which costs more than its bytes. (gloo takes the size of a receiver's memory as the most that it
may be sent.) A length below zero announces instead why the sender has failed, so that nobody waits for it until the
time-out.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from featherweight.errors import ArgumentError, FeatherweightError

__all__ = ["HEAD", "TOGETHER", "PeerError", "Peers", "own_group", "seconds"]

HEAD = 8
"""Bytes that go before each message."""

TOGETHER = 1 << 16
_TAGS = 1 << 20
_TEXT = 2000


class PeerError(FeatherweightError, ConnectionError):
    """Another rank is gone, silent, or has failed; the path names it."""


class Peers:
    """The ranks of a process group of gloo, of which nobody else makes use. `timeout` is in seconds."""

    def __init__(self, group: Any, rank: int, world: int, timeout: float) -> None:
        self.group, self.rank, self.world, self.timeout = group, rank, world, timeout
        self._count = 0
        self._kept: list[Any] = []

    def exchange(self, messages: Sequence[Any], most: int) -> list[Any]:
        """Send each rank its message and return theirs, by rank; the own one is returned as it is.

        Raises PeerError with ``rank N`` in its path: for one that is gone, silent, has failed, or announces more than
        `most` bytes.
        """
        tag = self._next()
        others = [peer for peer in range(self.world) if peer != self.rank]
        received: list[Any] = [None] * self.world
        received[self.rank] = messages[self.rank]
        deadline = time.monotonic() + self.timeout
        # Room for whatever may come, also from a rank that goes astray: what is too long for it takes gloo down.
        firsts = {peer: torch.empty(HEAD + TOGETHER, dtype=torch.uint8) for peer in others}
        waiting: dict[int, Any] = {}
        sending: list[tuple[int, _Sending]] = []
        rests: dict[int, tuple[torch.Tensor, Any]] = {}
        self._kept = [firsts, waiting, sending, rests]  # gloo writes into these until it is done, even if we fail first
        for peer in others:
            waiting[peer] = self._receive(peer, firsts[peer], tag)
        for peer in others:
            sending += [(peer, work) for work in self._send(peer, tag, len(messages[peer]), messages[peer])]
        for peer in others:
            self._wait(peer, waiting[peer], deadline)
            first = firsts[peer].numpy()
            length = int(first[:HEAD].view("<i8")[0])
            if max(length, -length) > max(most, _TEXT):
                raise PeerError(f"announces a message of {length} bytes", path=f"rank {peer}")
            if length < 0:
                said = first[HEAD : HEAD - length].tobytes().decode(errors="replace")
                raise PeerError(f"has failed: {said}", path=f"rank {peer}")
            received[peer] = first[HEAD : HEAD + length]
            if length > TOGETHER:
                whole = torch.empty(length, dtype=torch.uint8)
                whole[:TOGETHER] = firsts[peer][HEAD:]
                received[peer] = whole.numpy()
                rests[peer] = whole, self._receive(peer, whole[TOGETHER:], tag + 1)
        deadline = time.monotonic() + self.timeout
        for peer, (_, work) in rests.items():
            self._wait(peer, work, deadline)
        for peer, work in sending:
            self._wait(peer, work, deadline)
        self._kept = []
        return received

    def fail(self, error: BaseException) -> None:
        """Tell all others why this rank takes no part in the next exchange, without waiting for them."""
        text = f"{type(error).__name__}: {error}".encode()[:_TEXT]
        tag = self._next()
        for peer in range(self.world):
            if peer != self.rank:
                try:
                    self._kept += self._send(peer, tag, -len(text), text)
                except PeerError:
                    continue

    def _next(self) -> int:
        self._count += 1
        return 2 * (self._count % _TAGS)

    def _send(self, peer: int, tag: int, length: int, message: Any) -> list[Any]:
        first = bytearray(length.to_bytes(HEAD, "little", signed=True)) + bytes(message[:TOGETHER])
        parts = [(first, tag)]
        if len(message) > TOGETHER:
            parts.append((bytearray(message[TOGETHER:]), tag + 1))
        made = [(torch.frombuffer(part, dtype=torch.uint8), each) for part, each in parts]
        return [_Sending(part, self._begin(self.group.send, part, peer, each)) for part, each in made]

    def _receive(self, peer: int, body: Any, tag: int) -> Any:
        return self._begin(self.group.recv, body, peer, tag)

    def _begin(self, start: Callable[..., Any], body: Any, peer: int, tag: int) -> Any:
        try:
            return start([body], peer, tag)
        except RuntimeError as error:
            raise self._of(peer, error) from error

    def _wait(self, peer: int, work: Any, deadline: float) -> None:
        left = max(deadline - time.monotonic(), 0.001)
        try:
            work.wait(dt.timedelta(seconds=left))
        except RuntimeError as error:
            raise self._of(peer, error) from error

    def _of(self, peer: int, error: RuntimeError) -> PeerError:
        said = str(error).rpartition("] ")[2] or str(error)
        if "Timed out" in said or "timeout" in said.lower():
            return PeerError(f"has not answered within {self.timeout:g} s", path=f"rank {peer}")
        return PeerError(f"is gone: {said}", path=f"rank {peer}")


class _Sending:
    """A message on its way, and its memory."""

    def __init__(self, message: Any, work: Any) -> None:
        self.message, self.work = message, work

    def wait(self, timeout: dt.timedelta) -> None:
        self.work.wait(timeout)


def seconds(timeout: float | dt.timedelta | None, group: Any) -> float:
    """Return a time-out in seconds, that of the group if it is None; raises ArgumentError unless it is above 0."""
    if timeout is None:
        backends = [group._get_backend(torch.device(kind)) for kind in _devices(group)]  # noqa: SLF001  # no public way
        timeout = min(backend.options._timeout for backend in backends)  # noqa: SLF001
    found = timeout.total_seconds() if isinstance(timeout, dt.timedelta) else float(timeout)
    if not found > 0:
        raise ArgumentError(f"timeout={timeout!r}: expected seconds above 0")
    return found


def _devices(group: Any) -> list[str]:
    return [device.type for device in group._device_types]  # noqa: SLF001


def own_group(group: Any, timeout: float) -> Any:
    """Make a group of gloo of the same ranks."""
    ranks = dist.get_process_group_ranks(group)
    limit = dt.timedelta(seconds=timeout)
    return dist.new_group(ranks, timeout=limit, backend="gloo", use_local_synchronization=True)

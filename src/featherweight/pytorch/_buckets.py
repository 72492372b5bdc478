"""Which parameters travel together, and which error belongs to which parameter when that changes.

Nothing here knows PyTorch: a parameter is a number and a size.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from featherweight.dtypes import Array
from featherweight.errors import ArgumentError
from featherweight.traffic import Channel, Reducer, shards

__all__ = ["Bucket", "Ledger", "Settings"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all buckets share."""

    recipe: Any
    rank: int
    world: int
    least: int = 256
    feedback: bool = True
    seed: int = 0


class Bucket:
    """Parameters that travel together, cut into one shard for each rank.

    Every rank pushes each shard to the rank that owns it; the owner answers all with the mean. `flat` is memory that
    the owner of a bucket may keep here.
    """

    def __init__(self, numbers: Sequence[int], sizes: Sequence[int], settings: Settings) -> None:
        self.numbers, self.sizes, self.settings = tuple(numbers), tuple(sizes), settings
        self.size = sum(self.sizes)
        self.shards = shards(self.sizes, settings.world, least=settings.least)
        self.own = self.shards[settings.rank]
        self.flat: Any = None
        options: dict[str, Any] = {"sender": settings.rank, "least": settings.least, "feedback": settings.feedback}
        # A reducer that rotated its sum as the pushes were rotated would meet the errors that it must average out.
        push, pull = 2 * settings.seed, 2 * settings.seed + 1
        self.channels = [Channel(settings.recipe, shard.parts, seed=push, **options) for shard in self.shards]
        self.reducer = Reducer(settings.recipe, self.own.parts, mean=True, seed=pull, **options)

    def encode(self, flat: Array, step: int) -> list[bytes]:
        """Return what each rank is sent of `flat` (f32, of the size of all parameters)."""
        messages = []
        for shard, channel in zip(self.shards, self.channels, strict=True):
            channel.step = step
            messages.append(channel.send(flat[shard.start : shard.stop]))
        return messages

    def reduce(self, messages: Sequence[Any], step: int) -> bytes:
        """Return what all ranks are sent for the own shard, from the messages of all of them."""
        self.reducer.channel.step = step
        return self.reducer.reduce(messages)

    def decode(self, messages: Sequence[Any], flat: Array) -> None:
        """Fill `flat` with the means, from the answers of all ranks."""
        for rank, (shard, message) in enumerate(zip(self.shards, messages, strict=True)):
            self.channels[rank].receive(message, flat[shard.start : shard.stop], sender=rank)

    def errors(self) -> tuple[Array, Array]:
        """Return what the pushes and what the own answers lack so far, each of the size of all parameters."""
        push = np.concatenate([channel.state_dict()["error"] for channel in self.channels])
        pull = np.zeros(self.size, np.float32)
        pull[self.own.start : self.own.stop] = self.reducer.state_dict()["error"]
        return push, pull

    def take_errors(self, push: Array, pull: Array) -> None:
        """Go on from these errors.

        What the answers of this rank lack outside its shard is owed by its pushes: of a mean, as many times as there
        are ranks.
        """
        mine, owed = slice(self.own.start, self.own.stop), pull.copy()
        owed[mine] = 0
        push = push + np.float32(self.settings.world) * owed
        for shard, channel in zip(self.shards, self.channels, strict=True):
            _load(channel, push[shard.start : shard.stop])
        _load(self.reducer.channel, pull[mine])


def _load(channel: Channel, error: Array) -> None:
    channel.load_state_dict({"parts": channel.parts, "error": error, "step": 0})


class Ledger:
    """The errors of all parameters, whichever buckets these travel in."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._buckets: dict[tuple[int, ...], Bucket] = {}
        self._home: dict[int, Bucket] = {}
        self._push: dict[int, Array] = {}  # of parameters that have no bucket
        self._pull: dict[int, Array] = {}

    def bucket(self, numbers: Sequence[int], sizes: Sequence[int]) -> Bucket:
        """Return the bucket of these parameters; those that were together with others leave them."""
        found = self._buckets.get(tuple(numbers))
        if found is not None and found.sizes == tuple(sizes):
            return found
        for number in numbers:
            if number in self._home:
                self._break_up(self._home[number])
        bucket = Bucket(numbers, sizes, self.settings)
        if self.settings.feedback:
            parts = list(zip(numbers, sizes, strict=True))
            push = [self._kept(self._push, number, size) for number, size in parts]
            pull = [self._kept(self._pull, number, size) for number, size in parts]
            bucket.take_errors(np.concatenate([*push, _none(0)]), np.concatenate([*pull, _none(0)]))
        for number in numbers:
            self._push.pop(number, None)
            self._pull.pop(number, None)
            self._home[number] = bucket
        self._buckets[bucket.numbers] = bucket
        return bucket

    def errors(self) -> tuple[dict[int, Array], dict[int, Array]]:
        """Return by parameter what the pushes and what the own answers lack; of the latter those that lack any."""
        push, pull = dict(self._push), dict(self._pull)
        for bucket in self._buckets.values():
            _into(push, pull, bucket)
        return push, {number: error for number, error in pull.items() if error.any()}

    def load(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Go on from what ranks have saved, each as ``rank, world, push, pull``; see `CompressionState`."""
        found = {int(state["rank"]): state for state in states}
        worlds = {int(state["world"]) for state in found.values()}
        if len(worlds) != 1 or not all(0 <= rank < max(worlds) for rank in found):
            raise ArgumentError(f"states of ranks {sorted(found)} in worlds of {sorted(worlds)}: they are of one run")
        self._buckets.clear()
        self._home.clear()
        self._push, self._pull = {}, {}
        world, rank = worlds.pop(), self.settings.rank
        if world == self.settings.world:
            if rank in found:
                self._push = {int(n): _finite(error) for n, error in found[rank]["push"].items()}
                self._pull = {int(n): _finite(error) for n, error in found[rank]["pull"].items()}
            return
        # The mean over the new ranks of what these owe is what the old ones owed.
        share = np.float32(self.settings.world / world)
        for state in (found[old] for old in sorted(found) if old % self.settings.world == rank):
            for key, weight in (("push", share), ("pull", share * np.float32(world))):
                for n, error in state[key].items():
                    self._push[int(n)] = self._push.get(int(n), np.float32(0)) + weight * _finite(error)

    def _break_up(self, bucket: Bucket) -> None:
        if self.settings.feedback:
            _into(self._push, self._pull, bucket)
        for number in bucket.numbers:
            del self._home[number]
        del self._buckets[bucket.numbers]

    def _kept(self, errors: Mapping[int, Array], number: int, size: int) -> Array:
        found = errors.get(number)
        if found is not None and found.size != size:
            raise ArgumentError(
                f"parameter {number} has {size} values, the checkpoint's {found.size}: name `parameters` where the "
                "order changes"
            )
        return _none(size) if found is None else found


def _none(size: int) -> Array:
    return np.zeros(size, np.float32)


def _finite(error: Any) -> Array:
    found = np.array(error, np.float32).reshape(-1)
    if not np.isfinite(found).all():
        raise ArgumentError("an error in this state is not finite")
    return found


def _into(push: dict[int, Array], pull: dict[int, Array], bucket: Bucket) -> None:
    ends = itertools.accumulate(bucket.sizes)
    pushed, pulled = bucket.errors()
    for number, size, end in zip(bucket.numbers, bucket.sizes, ends, strict=True):
        push[number], pull[number] = pushed[end - size : end].copy(), pulled[end - size : end].copy()

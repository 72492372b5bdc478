"""Parts that travel in one frame, and memory that is kept from message to message."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from featherweight.codecs._parts import blocks
from featherweight.dtypes import Array
from featherweight.encoder import encode_into
from featherweight.errors import ArgumentError
from featherweight.frame import Frame, pack_head, parse_head
from featherweight.stage import AnyRecipe
from featherweight.traffic._recipes import PARTS, is_three, three


class Group:
    """Parts that one frame holds: numbers of the parts, and where these begin in the whole array.

    Each part has `scaled`, the elements that share a scale of 3LC, from `scaled_starts` of the whole array on; `owners`
    are the parts that these belong to. But for a recipe with blocks they are the parts themselves.
    """

    def __init__(self, numbers: Array, parts: Array, starts: Array, recipe: AnyRecipe) -> None:
        self.numbers = numbers
        self.lengths, self.starts = parts[numbers], starts[numbers]
        self.size = int(self.lengths.sum(dtype=np.uint64))
        self.recipe = recipe
        self.three = is_three(recipe)
        self.refs = {PARTS: self.lengths}
        self.own_starts = np.cumsum(self.lengths, dtype=np.uint64) - self.lengths
        self.runs = _runs(self.lengths, self.starts, self.own_starts)
        block = np.uint64(self.three.block if self.three else 0)
        self.scaled = blocks((self.lengths,), self.size, int(block), ArgumentError)
        counts = (self.lengths + block - np.uint64(1)) // block if block else np.ones(numbers.size, np.uint64)
        self.owners = np.repeat(np.arange(numbers.size), counts.astype(np.int64))
        within = np.cumsum(self.scaled, dtype=np.uint64) - self.scaled - self.own_starts[self.owners]
        self.scaled_starts = self.starts[self.owners] + within
        self._template: Frame | None = None

    def place(self, k: Any) -> slice:
        """Return where part `k` of this group lies in it."""
        start = int(self.own_starts[k])
        return slice(start, start + int(self.lengths[k]))

    def template(self) -> Frame:
        """Return the head of 3LC for these parts; of it only the record differs from message to message."""
        if self._template is None:
            recipe = three(block=self.three.block if self.three else 0)
            zeros = np.zeros(self.size, np.float32)
            made = encode_into(lambda _: None, zeros, recipe, refs=self.refs).frame
            self._template = parse_head(pack_head(made))  # what is read is compared with it
        return self._template


class Room:
    """Memory that one direction of a channel works in, made when it is first needed and kept."""

    def __init__(self) -> None:
        self._made: dict[str, Array] = {}
        self.lock = threading.Lock()

    def __call__(self, name: str, size: int, dtype: Any = np.float32) -> Array:
        found = self._made.get(name)
        if found is None or found.size < size:
            found = self._made[name] = np.empty(size, dtype)
        return found[:size]


def _runs(lengths: Array, starts: Array, own: Array) -> tuple[tuple[int, int, int], ...]:
    """Return (where, where in the group, how many) of elements that lie side by side in both."""
    runs: list[tuple[int, int, int]] = []
    for start, mine, count in zip(starts.tolist(), own.tolist(), lengths.tolist(), strict=True):
        if runs and runs[-1][0] + runs[-1][2] == start:
            runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + count)
        else:
            runs.append((start, mine, count))
    return tuple(runs)

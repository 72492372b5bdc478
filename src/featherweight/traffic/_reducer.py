"""Sums of many senders' arrays, coded once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import AnyRecipe
from featherweight.traffic._channel import Channel
from featherweight.traffic._message import Head


class Reducer:
    """Add up what many senders sent and code the sum, or the mean, once for all of them.

    What coding the sum loses is added to the next sum. The arguments are those of `Channel`.
    """

    def __init__(self, recipe: AnyRecipe | str, parts: Iterable[int], *, mean: bool = False, **options: Any) -> None:
        self.channel = Channel(recipe, parts, **options)
        self.mean = mean
        self.total = np.zeros(sum(self.channel.parts or ()), np.float32)
        """The sum, or the mean, as it was before it was coded."""

    def reduce(self, messages: Mapping[int, Any] | Sequence[Any], /) -> bytes:
        """Return the message for all; `messages` are by sender, or that of sender 0, 1, ….

        Raises FrameError with ``rank N`` in its path for a message that is damaged, from another sender, or of another
        step than the first one; nothing is sent then and no error kept.
        """
        found = messages if isinstance(messages, Mapping) else dict(enumerate(messages))
        if not found:
            raise ArgumentError("there is no message to reduce")
        step = None
        for rank in sorted(found):  # sums depend on the order, which is therefore always the same
            head = self.channel.receive(found[rank], self.total, add=step is not None, sender=rank)
            step = head.step if step is None else step
            if head.step != step:
                raise FrameError(f"a message of step {head.step} among those of step {step}", path=f"rank {rank}")
        if self.mean:
            self.total /= np.float32(len(found))
        return self.channel.send(self.total)

    def receive(self, message: Any, out: Array | Sequence[Array], /, *, sender: int | None = None) -> Head:
        """Decode what a reducer of the same parts has sent."""
        return self.channel.receive(message, out, sender=sender)

    def state_dict(self) -> dict[str, Any]:
        """Return what must be saved; see `Channel.state_dict`."""
        return self.channel.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.channel.load_state_dict(state)

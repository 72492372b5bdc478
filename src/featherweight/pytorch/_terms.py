"""What ranks must agree on before they send each other anything."""

import msgspec

from featherweight.errors import ArgumentError, UnsupportedError

__all__ = ["PROTOCOL", "Terms"]

PROTOCOL = 1
"""Version of what ranks say to each other; that of messages is their own."""


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """What ranks must agree on; the recipe as given is what an error shows."""

    protocol: int
    recipe: str
    world: int
    step: int
    least: int
    feedback: bool
    seed: int
    warm_up: int
    given: str

    def check(self, answer: bytes, own: int, rank: int) -> None:
        """Compare the terms of this rank with the answer of another.

        Raises ArgumentError with ``rank N`` in its path where they differ, UnsupportedError for what speaks otherwise.
        """
        try:
            theirs = msgspec.msgpack.decode(answer, type=Terms)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UnsupportedError("speaks of no recipe: is its featherweight another?", path=f"rank {rank}") from None
        if theirs.protocol != PROTOCOL:
            raise UnsupportedError(f"speaks version {theirs.protocol}, this rank {PROTOCOL}", path=f"rank {rank}")
        if theirs.recipe != self.recipe:
            found = f"has the recipe {theirs.given}, rank {own} has {self.given}: give all ranks the same"
            raise ArgumentError(found, path=f"rank {rank}")
        for field in ("world", "step", "least", "feedback", "seed", "warm_up"):
            if getattr(theirs, field) != getattr(self, field):
                found = f"has {field}={getattr(theirs, field)}, rank {own} {field}={getattr(self, field)}"
                raise ArgumentError(f"{found}: give all ranks the same", path=f"rank {rank}")

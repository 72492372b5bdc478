"""Where an array of convolution weights has its filters, as far as its shape tells."""

from __future__ import annotations

import math

__all__ = ["place", "sides"]

_SMALL = 11  # edge of what is taken for a filter


def sides(shape: tuple[int, ...], where: str) -> tuple[int, ...]:
    """Return the dimensions of the filters in the `first` or `last` dimensions; of two at least, two are not of them.

    Below three dimensions there are none.
    """
    count = max(0, min(2, len(shape) - 2))
    return shape[:count] if where == "first" else shape[len(shape) - count :]


def place(shape: tuple[int, ...]) -> str | None:
    """Return whether filters are in the `first` or the `last` dimensions (Keras, PyTorch); None where there are none.

    Filters are at most 11 by 11, and more than one element. Where both ends could be, they are where they are square,
    of odd edges, smaller, last, in this order.
    """
    best, found = None, None
    for where in ("last", "first"):
        edges = sides(shape, where)
        if edges and max(edges) <= _SMALL and math.prod(edges) > 1:
            rank = (len(set(edges)) > 1, not all(edge % 2 for edge in edges), math.prod(edges))
            if best is None or rank < best:
                best, found = rank, where
    return found

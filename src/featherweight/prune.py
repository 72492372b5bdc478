"""Pruning: a rewrite that sets the least of the weights to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight.dtypes import Array
from featherweight.stage import Port, check_params, param

__all__ = ["Prune"]


@dataclass(frozen=True)
class Prune:
    """Set the smallest weights to zero."""

    name: ClassVar[str] = "prune"
    given: ClassVar[tuple[Port, ...]] = (Port("mask", "bui"),)
    sparsity: float = param(0.9, lo=0.0, hi=1.0, doc="the share of the weights that is set to zero")

    def __post_init__(self) -> None:
        check_params(self)

    def rewrite(self, x: Array, /, *given: Array) -> Array:
        """Return the pruned array."""
        result = x.copy()
        flat = result.reshape(-1)
        order = np.argsort(np.abs(flat.astype(np.float64)), kind="stable")
        flat[order[: round(self.sparsity * flat.size)]] = 0
        return result

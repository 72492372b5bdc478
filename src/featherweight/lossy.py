"""`lossy`: the selector that takes a lossy recipe only where it spares something."""

from __future__ import annotations

from dataclasses import dataclass

from featherweight.auto import Auto, few
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError
from featherweight.stage import AnyRecipe, Smallest, check_params, param

__all__ = ["Lossy"]


@dataclass(frozen=True)
class Lossy:
    """Code with `recipe`, but exactly where that is no larger, or where the recipe does not take the array.

    Exact coding is tried where `recipe` takes more than the share `enough` of the array's bytes, and where there are
    few different elements: those of weights that were clustered before, or that take one of three values.
    """

    recipe: AnyRecipe = param(None, doc="what is smaller, mostly", recipe=True)  # noqa: RUF009
    exact: AnyRecipe = param(Auto("small"), doc="what loses nothing", recipe=True)  # noqa: RUF009
    enough: float = param(0.3, lo=0.0, hi=1.0, doc="share of the bytes below which exact coding is not tried")

    def __post_init__(self) -> None:
        check_params(self)
        if self.recipe is None:
            raise ArgumentError("lossy needs a recipe: lossy(uniform)")

    def choose(self, x: Array, /) -> AnyRecipe:
        """Return the recipe for this array."""
        return Smallest((self.recipe, self.exact), 0.0 if few(x) else self.enough)

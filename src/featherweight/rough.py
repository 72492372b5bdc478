"""Recipes that lose what others lose and leave the coding out: enough where only errors are asked for.

What comes out smallest then says little, so that of several recipes the first one is taken.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from featherweight.auto import Auto
from featherweight.errors import ArgumentError
from featherweight.lossy import Lossy
from featherweight.smooth import Smooth
from featherweight.stage import AnyRecipe, Recipe, Smallest, Split, is_bare, mentioned
from featherweight.weights import Weights

__all__ = ["exact", "rough"]

_PROBE = np.array([1.0, -0.3], np.float32)


def exact(stage: Any) -> bool:
    """Return whether a stage loses nothing, as far as can be told without an array."""
    try:
        return hasattr(stage, "codec") and stage.error_bound(_PROBE) == 0
    except ArgumentError:  # it would not take the probe
        return False


def rough(recipe: AnyRecipe) -> AnyRecipe:
    """Return what makes the same error of an array, or nearly, and leaves what comes of it uncoded.

    Where a recipe loses nothing, or that cannot be told, it stays as it is.

    >>> from featherweight.recipes import parse, text
    >>> text(rough(parse("split(levels(row=auto(small), values=uniform(0.1, index=ggd(given=[row, column]))))")))
    'split(uniform(step=0.1))'
    >>> text(rough(parse("split(auto)")))
    'split(auto)'
    """
    return _quantizing(recipe) or recipe


def _quantizing(recipe: AnyRecipe | None) -> AnyRecipe | None:
    """Return what is left of a recipe; None where that is nothing."""
    if recipe is None or isinstance(recipe, Auto):
        return None
    if isinstance(recipe, Split):
        inner = _quantizing(recipe.recipe)
        return None if inner is None else replace(recipe, recipe=inner)  # type: ignore[arg-type]  # it had none in it
    if isinstance(recipe, Smallest):
        made = tuple([_quantizing(each) or each for each in recipe.recipes])
        return None if all(map(_is_exact, recipe.recipes)) else Smallest(made, 1.0)
    if isinstance(recipe, Weights):
        return replace(recipe, recipe=_quantizing(recipe.recipe) or recipe.recipe)
    if isinstance(recipe, Lossy):
        return replace(recipe, recipe=_quantizing(recipe.recipe) or recipe.recipe, enough=1.0)
    if isinstance(recipe, Smooth):
        found = _quantizing(recipe.recipe), _quantizing(recipe.transformed)
        return replace(recipe, recipe=found[0] or recipe.recipe, transformed=found[1] or recipe.transformed)
    if isinstance(recipe, Recipe):
        return _left(recipe)
    return None if is_bare(recipe) and exact(recipe) else recipe


def _is_exact(recipe: AnyRecipe) -> bool:
    return _quantizing(recipe) is None


def _left(recipe: Recipe) -> AnyRecipe | None:
    """Return what is left of a stage and what follows it."""
    then = tuple([(name, node) for name, each in recipe.then if (node := _quantizing(each)) is not None])
    if not exact(recipe.stage):
        return replace(recipe, then=then)
    if not then:
        return None
    names = [port.name for port in recipe.stage.codec.streams]  # type: ignore[union-attr]  # rewrites are not exact
    (name, node), *others = then
    same = recipe.stage.codec.same  # type: ignore[union-attr]
    if not others and same is not None and names[same] == name and mentioned(node).isdisjoint(names):
        return node
    return replace(recipe, then=then)

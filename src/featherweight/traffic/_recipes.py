"""What becomes of a recipe that a channel is given: it codes parts, with seeds of its own for every message."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from featherweight.codecs._kernels._random import word
from featherweight.codecs.base3 import Base3
from featherweight.codecs.ternary import Ternary
from featherweight.codecs.zero_run import ZeroRun
from featherweight.stage import AnyRecipe, Recipe, Rewrite, Smallest, Split, Stage, chain, params

PARTS = "parts"


def plain(recipe: AnyRecipe) -> AnyRecipe:
    """Take off what spares tensors from a lossy recipe: a channel spares what must be spared by itself."""
    while not isinstance(recipe, (Recipe, Split, Smallest)):
        inner = [getattr(recipe, f.name) for f in params(recipe) if f.metadata["recipe"] and f.name == "recipe"]
        if not inner:
            break
        recipe = inner[0]
    return recipe


def with_parts(recipe: AnyRecipe) -> AnyRecipe:
    """Give the parts to the outermost stages that can be given them and are not given anything."""
    return _visited(recipe, _given_parts, deep=False)


def _given_parts(recipe: Recipe) -> Recipe:
    ports = getattr(getattr(recipe.stage, "codec", None), "given", ())
    if ports and ports[0].name == PARTS and not recipe.given:
        return dataclasses.replace(recipe, given=(f"@{PARTS}",))
    return recipe


def seeded(recipe: AnyRecipe, *numbers: int) -> AnyRecipe:
    """Return the recipe with other seeds, which depend on these numbers and on what they were."""

    def reseed(found: Recipe) -> Recipe:
        stage: Any = found.stage
        most = next((f.metadata["hi"] for f in params(stage) if f.name == "seed"), None)
        if most is None:
            return found
        seed = np.uint64(stage.seed)
        with np.errstate(over="ignore"):
            for number in numbers:
                seed = word(seed, np.uint64(number))
        return dataclasses.replace(found, stage=dataclasses.replace(stage, seed=int(seed) % most))

    return _visited(recipe, reseed)


def _visited(recipe: AnyRecipe, change: Any, *, deep: bool = True) -> AnyRecipe:
    """Return the recipe with `change` made to every stage of it, or without `deep` to those for the array itself."""
    if isinstance(recipe, Split):
        inner: Any = _visited(recipe.recipe, change, deep=deep)
        return Split(inner, recipe.size)
    if isinstance(recipe, Smallest):
        return dataclasses.replace(recipe, recipes=tuple(_visited(each, change, deep=deep) for each in recipe.recipes))
    if not isinstance(recipe, Recipe):
        if not isinstance(recipe, Stage | Rewrite):
            return recipe
        recipe = Recipe(recipe)
    then = recipe.then
    if deep or isinstance(recipe.stage, Rewrite):
        then = tuple((name, _visited(each, change, deep=deep)) for name, each in then)
    found: AnyRecipe = change(dataclasses.replace(recipe, then=then))
    return found


def three(s: float = 1.0, block: int = 0) -> Recipe:
    """Return 3LC's recipe for arrays of parts."""
    coded = chain(Base3(), bytes=Recipe(ZeroRun()))
    return chain(Ternary(s, block), given=(f"@{PARTS}",), values=coded)


def is_three(recipe: AnyRecipe) -> Ternary | None:
    """Return the first stage if the recipe is 3LC's."""
    if isinstance(recipe, Recipe) and isinstance(recipe.stage, Ternary):
        return recipe.stage if recipe == three(recipe.stage.s, recipe.stage.block) else None
    return None

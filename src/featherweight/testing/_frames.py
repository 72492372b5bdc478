"""Strategies of recipes across all stages, and of frames, well-formed and hostile."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import hypothesis
from hypothesis import strategies as st

from featherweight import codecs as codec_table
from featherweight import dtypes, engine
from featherweight.auto import Auto
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError
from featherweight.stage import AnyRecipe, Recipe, Selector, Split
from featherweight.testing._arrays import arrays
from featherweight.testing._mutation import Sealed, mutated
from featherweight.testing._stages import alike, fits, stages, takes


class Case(NamedTuple):
    """An array, a recipe for it, and the references that the recipe names."""

    x: Array
    recipe: AnyRecipe
    refs: Mapping[str, Array]


@st.composite
def recipes(
    draw: st.DrawFn,
    x: Array,
    refs: Mapping[str, Array] = {},
    *,
    pool: Sequence[Any] | None = None,
    selectors: Sequence[Selector] = (Auto("fast"), Auto("small")),
    depth: int = 3,
) -> AnyRecipe:
    """Draw a recipe for `x` across all stages (or those of `pool`), by following the ports from stream to stream.

    Streams are stored, coded further, given to later siblings, split into pieces, or left to a selector.
    """
    scope = {f"@{name}": dtypes.native(array) for name, array in refs.items()}
    classes = tuple(map(codec_table.stage_class, codec_table.names())) if pool is None else tuple(pool)
    drawn = _recipe(draw, dtypes.native(x), scope, classes, tuple(selectors), depth=depth, whole=True)
    return drawn if drawn is not None else Recipe(codec_table.stage_class("raw")())


def _recipe(
    draw: st.DrawFn,
    x: Array,
    scope: Mapping[str, Array],
    pool: tuple[Any, ...],
    selectors: tuple[Selector, ...],
    *,
    depth: int,
    whole: bool,
) -> AnyRecipe | None:
    kind = draw(st.sampled_from(["stage"] * 6 + ["stored"] + ["split"] * whole + ["selector"] * bool(selectors)))
    if kind == "selector":
        return draw(st.sampled_from(selectors))
    if kind == "split":
        inner = _recipe(draw, x, scope, pool, selectors, depth=depth, whole=False)
        size = draw(st.integers(max(1, x.size // 20), max(1, x.size)))
        return None if inner is None or isinstance(inner, Split) else Split(inner, size)
    fitting = [cls for cls in pool if fits(cls.codec.out, x)] if kind == "stage" and depth else []
    if not fitting:
        return None
    stage = draw(st.sampled_from(fitting).flatmap(stages))
    names: list[str] = []
    for port in stage.codec.given:
        known = [name for name, array in scope.items() if fits(port, array)]
        if not known or draw(st.integers(0, 3)) == 0:
            break
        names.append(draw(st.sampled_from(known)))
    if not takes(stage, x, [scope[name] for name in names]):
        names = next(([name] for name, array in scope.items() if takes(stage, x, [array])), [])
    if not names and not takes(stage, x):
        plain = [each for each in (cls() for cls in fitting) if takes(each, x)]
        if not plain:
            return None
        stage = draw(st.sampled_from(plain))
    encoded = stage.encode(x, *(scope[name] for name in names))
    then: list[tuple[str, AnyRecipe]] = []
    siblings = dict(scope)
    for port, stream in zip(stage.codec.streams, map(dtypes.native, encoded.streams), strict=False):
        node = _recipe(draw, stream, siblings, pool, selectors, depth=depth - 1, whole=whole)
        then += [] if node is None else [(port.name, node)]
        siblings[port.name] = stream
    return Recipe(stage, tuple(then), tuple(names))


@st.composite
def cases(draw: st.DrawFn, /, x: st.SearchStrategy[Array] | None = None, **options: Any) -> Case:
    """Draw an array, a recipe that codes it, and its references; `options` are those of `recipes`."""
    array = draw(arrays() if x is None else x)
    refs = draw(st.one_of(st.just({}), alike(array).map(lambda base: {"base": base})))
    case = Case(array, draw(recipes(array, refs, **options)), refs)
    try:
        engine.encode(array, case.recipe, refs=refs, threads=1)
    except ArgumentError:  # a piece may be refused where the whole is taken
        hypothesis.reject()
    return case


@st.composite
def frames(draw: st.DrawFn, case: st.SearchStrategy[Case] | None = None) -> Sealed:
    """Draw a well-formed frame."""
    x, recipe, refs = draw(cases() if case is None else case)
    return Sealed(engine.encode(x, recipe, refs=refs, threads=1), refs, _codecs(recipe))


@st.composite
def hostile_frames(draw: st.DrawFn, frame: st.SearchStrategy[Sealed] | None = None) -> Sealed:
    """Draw a frame of which one field, or one stored byte, was replaced, and whose checksums are right."""
    good = draw(frames() if frame is None else frame)
    return good._replace(data=mutated(good, draw(st.randoms(use_true_random=True))))


def _codecs(recipe: Any) -> dict[str, Any]:
    """Return the codecs of a recipe that are not ours, by name."""
    if isinstance(recipe, Split):
        return _codecs(recipe.recipe)
    if isinstance(recipe, Recipe):
        nodes = [_codecs(node) for _, node in recipe.then]
        return functools.reduce(dict.__or__, nodes, _codecs(recipe.stage))
    codec = getattr(recipe, "codec", None)
    return {codec.name: codec} if codec is not None and codec_table.key(codec) == codec.name else {}

"""Bundles: small tensors of a kind that are coded together, as one array, in one frame.

They share a head, a model and the calls that code them, which a small tensor alone does not repay. In a bundle tensors
lie one below another along the first dimension, so that rows stay rows; or one after another, of any shapes, if none of
the stages looks at shapes. A lossy stage that may code so many tensors at once has a method ``together(count, shape)``
that returns what does so, or None; one of ours that loses nothing needs none.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from featherweight import codecs as codec_table
from featherweight import dtypes
from featherweight.auto import constant, few
from featherweight.codecs._kernels import _filters, _floats
from featherweight.dtypes import Array
from featherweight.encoder import Coded, encode_into
from featherweight.errors import ArgumentError, within
from featherweight.formats import TensorInfo
from featherweight.formats.fw_writing import Told
from featherweight.losses import measured
from featherweight.lossy import Lossy
from featherweight.rough import exact
from featherweight.smooth import pruned
from featherweight.stage import AnyRecipe, Recipe, Smallest, Split, is_bare, params
from featherweight.weights import Weights

__all__ = ["LARGE", "MOST", "ROOM", "Body", "blind", "candidates", "code", "together"]

LARGE = 1 << 20  # elements from which on a tensor is coded piece by piece
ROOM, MOST = 1 << 16, 1 << 18  # bytes and elements of a bundle: who reads one tensor of it fetches and decodes all
_SAMPLE, _OCTAVES = 1 << 10, 4  # integers that tell how large all are, and how much larger some may be
_PARTS = re.compile(r"\W")
_LIKELY = 0.5  # bytes that an element takes under a lossy recipe
_MARGIN = 1.03  # by which they may be more than they were


class Body(NamedTuple):
    """What is coded: tensors in the order in which they lie there, with what recipe, and to what."""

    tensors: tuple[Told, ...]
    recipe: AnyRecipe
    coded: Coded
    parts: list[Array]

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the tensors."""
        return tuple([told.name for told in self.tensors])


def candidates(tensors: Iterable[tuple[TensorInfo, Hashable, bool]]) -> Iterator[list[TensorInfo]]:
    """Group tensors that might go together, each with a key that must be equal; None for those that stay alone.

    With each comes whether its recipe is blind. Groups come in the order of their first tensors, and have few enough
    elements to be decoded for one of them.
    """
    groups: dict[Hashable, list[TensorInfo]] = {}
    found: list[list[TensorInfo]] = []
    counts: dict[Hashable, int] = {}
    for info, key, any_shape in tensors:
        kind = None if key is None else _kind(info, any_shape)
        whole = key, kind
        if kind is None:
            found.append([info])
        elif counts.get(whole, MOST) + info.count <= MOST:
            groups[whole].append(info)
            counts[whole] += info.count
        else:
            groups[whole], counts[whole] = [info], info.count
            found.append(groups[whole])
    yield from found


def _kind(info: TensorInfo, any_shape: bool) -> Hashable:
    """Return what tensors have in common that may go together, vectors whatever their lengths; None for loners.

    The last part of a name tells weights, means and variances apart.
    """
    dimensions = min(len(info.shape), 2)
    if not 0 < info.count <= MOST // 2:
        return None
    if dimensions == 2 and not any_shape:
        if _filters.place(info.shape) == "first":
            return None
        return info.kind.name, _PARTS.split(info.name)[-1], info.shape
    return info.kind.name, _PARTS.split(info.name)[-1], dimensions


def character(x: Array) -> Hashable:
    """Return what arrays of a kind must have in common if a model is to fit them all, as a sample tells; None: alone.

    That is whether they were pruned, and about how large they are. One of a single value takes next to nothing.
    """
    if x.size > 1 and constant(x):
        return None
    kind = dtypes.of(x.dtype).kind
    if kind not in "uifc" or not x.size:
        return 0
    if kind == "f":
        _, mean = _floats.glance(x)
    else:
        some = x.reshape(-1)[:: max(1, x.size // _SAMPLE)]
        mean = float(np.abs(some if kind == "c" else some.astype(np.float64)).mean())
    return pruned(x), math.frexp(mean)[1] // _OCTAVES if math.isfinite(mean) else 0


def code(
    names: Sequence[str],
    arrays: Sequence[Array],
    recipe: AnyRecipe,
    refs: Mapping[str, Array] = {},
    known: float | None = None,
) -> Iterator[Body]:
    """Code arrays of one kind, as many together as there is room for; each alone where that cannot be.

    References are for one alone. `known` are the bytes that an element takes, about, where others were coded before;
    else the first one tells.
    """
    groups: dict[Hashable, list[int]] = {}
    sociable, spoils = len(arrays) > 1 and together(recipe, 2, arrays[0].shape) is not None, _spoils(recipe)
    flat = blind(recipe)
    for i, x in enumerate(arrays):
        # What has few different elements a lossy recipe may have to keep exactly, others not.
        found = None if not sociable or (spoils and few(x)) else character(x)
        if found is None:
            yield _alone(names[i], x, recipe, refs)
        else:
            groups.setdefault((found, () if flat else x.shape[1:]), []).append(i)
    for group in groups.values():
        yield from _in_bundles([names[i] for i in group], [arrays[i] for i in group], recipe, known)


def _in_bundles(
    names: Sequence[str], arrays: Sequence[Array], recipe: AnyRecipe, known: float | None
) -> Iterator[Body]:
    """Code arrays in bundles of as many as there is likely room for."""
    sizes = [x.size for x in arrays]
    most = count = sum(sizes)
    likely = known or (_LIKELY if _spoils(recipe) else arrays[0].itemsize)
    if likely * count > ROOM and len(arrays) > 1:
        likely *= _MARGIN
        if known is None:
            first = _alone(names[0], arrays[0], recipe)
            likely = _size(first) / arrays[0].size
        most = int(ROOM / max(likely, 1e-3))
        if most < 2 * count // len(arrays) and known is None:  # the first was coded for good
            yield first
            names, arrays, sizes = names[1:], arrays[1:], sizes[1:]
    for some in _evenly(sizes, most):
        yield from _as_one(names[some], arrays[some], recipe)


def _evenly(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Cut a row of arrays into parts that are about as large, of so many elements at most where single ones allow it.

    >>> [(some.start, some.stop) for some in _evenly([1] * 17, 7)]
    [(0, 6), (6, 12), (12, 17)]
    """
    parts = len(list(_cut(sizes, most)))
    return _cut(sizes, min(most, math.ceil(sum(sizes) / max(parts, 1) + max(sizes, default=0)) - 1))


def _cut(sizes: Sequence[int], most: int) -> Iterator[slice]:
    start, total = 0, 0
    for i, size in enumerate(sizes):
        if i > start and total + size > most:
            yield slice(start, i)
            start, total = i, 0
        total += size
    if sizes:
        yield slice(start, len(sizes))


def _as_one(names: Sequence[str], arrays: Sequence[Array], recipe: AnyRecipe) -> Iterator[Body]:
    """Code a bundle, or its halves where it has become too large, or is kept exactly for some who need that.

    What does not take all of them is told of each alone.
    """
    body = _bundle(names, arrays, recipe) if len(names) > 1 else None
    if body is None:
        for name, x in zip(names, arrays, strict=True):
            yield _alone(name, x, recipe)
    elif _size(body) <= ROOM and (not (body.coded.exact and _spoils(recipe)) or _exact(names[0], arrays[0], recipe)):
        yield body
    else:
        half = -(-len(names) // 2)
        for some in (slice(half), slice(half, None)):
            yield from _as_one(names[some], arrays[some], recipe)


def _exact(name: str, x: Array, recipe: AnyRecipe) -> bool:
    return _alone(name, x, recipe).coded.exact


def _alone(name: str, x: Array, recipe: AnyRecipe, refs: Mapping[str, Array] = {}) -> Body:
    parts: list[Array] = []
    with within(name, ": "):
        coded = encode_into(parts.append, x, recipe, refs=refs, measure=True)
    return Body((Told(name, x.shape, coded.error),), recipe, coded, parts)


def _bundle(names: Sequence[str], arrays: Sequence[Array], recipe: AnyRecipe) -> Body | None:
    """Code arrays together; None where the recipe does not take them."""
    parts: list[Array] = []
    laid = [each.reshape(-1) if blind(recipe) else np.atleast_1d(each) for each in arrays]
    x = np.concatenate(laid)
    try:
        coded = encode_into(parts.append, x, together(recipe, len(names), laid[0].shape), refs={}, keep=True)
    except ArgumentError:
        return None
    decoded = None if coded.exact or coded.value is None else coded.value()
    told, start = [], 0
    for name, each, part in zip(names, arrays, laid, strict=True):
        rows = slice(start, start + len(part))
        told.append(Told(name, each.shape, None if decoded is None else measured(x[rows], decoded[rows])))
        start = rows.stop
    return Body(tuple(told), recipe, coded._replace(value=None), parts)


def _size(body: Body) -> int:
    return sum(map(len, body.parts))


@functools.lru_cache(256)  # a plan's few recipes, for as many of few shapes
def _known_together(recipe: AnyRecipe, count: int, shape: tuple[int, ...]) -> Any:
    return _together(recipe, count, shape)


def together(recipe: AnyRecipe, count: int, shape: tuple[int, ...]) -> Any:
    """Return the recipe for so many arrays of a shape along the first dimension; None where each must be coded alone.

    Of vectors the shape is that of the first, and their lengths may differ.

    >>> from featherweight.recipes import parse, text
    >>> text(together(parse("split(levels(values=uniform(0.1, index=ggd(given=[row, column]))))"), 9, (4, 4)))
    'split(levels(blocks=9, values=uniform(step=0.1, index=ggd(given=[row, column]))))'
    >>> together(parse("prune(0.9, values=raw)"), 9, (4, 4))
    """
    try:
        hash(recipe)
    except TypeError:  # a stage of somebody's own
        return _together(recipe, count, shape)
    return _known_together(recipe, count, shape)  # type: ignore[arg-type]  # protocols do not say that it is hashable


def _together(recipe: AnyRecipe, count: int, shape: tuple[int, ...]) -> Any:
    if isinstance(recipe, Split):
        inner = _together(recipe.recipe, count, shape)
        return None if inner is None else dataclasses.replace(recipe, recipe=inner)
    if isinstance(recipe, Smallest):
        every = [_together(each, count, shape) for each in recipe.recipes]
        return None if None in every else dataclasses.replace(recipe, recipes=tuple(every))
    if isinstance(recipe, Recipe):
        then = [(name, _together(node, count, shape)) for name, node in recipe.then]
        stage = _stage(recipe.stage, count, shape)
        outside = any(name.startswith("@") for name in recipe.given)
        if stage is None or outside or any(node is None for _, node in then):
            return None
        return dataclasses.replace(recipe, stage=stage, then=tuple(then))
    if is_bare(recipe):
        return _stage(recipe, count, shape)
    selected = {f.name: getattr(recipe, f.name) for f in params(recipe) if f.metadata["recipe"]}
    changed = {name: _together(node, count, shape) for name, node in selected.items()}
    return None if None in changed.values() else dataclasses.replace(recipe, **changed) if changed else recipe  # type: ignore[type-var]


def blind(recipe: AnyRecipe | None) -> bool:
    """Return whether a recipe does the same to the weights of an array whatever its shape is.

    >>> from featherweight.recipes import parse
    >>> blind(parse("ecsq(plain=true)")), blind(parse("ecsq")), blind(parse("lossless"))
    (True, False, False)
    """
    if isinstance(recipe, Split):
        return blind(recipe.recipe)
    if isinstance(recipe, Weights | Lossy):  # their vectors have one dimension, and what is exact need not be any
        return blind(recipe.recipe)
    if isinstance(recipe, Recipe):
        return not recipe.given and blind(recipe.stage) and all(blind(node) for _, node in recipe.then)
    return bool(getattr(recipe, "blind", False))


def _stage(stage: Any, count: int, shape: tuple[int, ...]) -> Any:
    if hasattr(stage, "rewrite"):
        return None
    if hasattr(stage, "together"):
        return stage.together(count, shape)
    return stage if exact(stage) and isinstance(codec_table.key(stage.codec), int) else None


def _spoils(recipe: AnyRecipe) -> bool:
    """Return whether a recipe is lossy where it can be."""
    return isinstance(recipe.recipe if isinstance(recipe, Split) else recipe, Lossy)

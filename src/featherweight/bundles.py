"""Bundles: small tensors of a kind that are coded together, as one array, in one frame.

They share a head, a model and the calls that code them, which a small tensor alone does not repay. In a bundle tensors
lie one below another along the first dimension, so that rows stay rows. A lossy stage that may code so many tensors at
once has a method ``together(count)`` that returns what does so, or None; one of ours that loses nothing needs none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from featherweight import codecs as codec_table
from featherweight.auto import few
from featherweight.codecs._kernels import _filters
from featherweight.dtypes import Array
from featherweight.encoder import Coded, encode_into
from featherweight.errors import ArgumentError, within
from featherweight.formats import TensorInfo
from featherweight.formats.fw_writing import Told
from featherweight.losses import measured
from featherweight.lossy import Lossy
from featherweight.stage import AnyRecipe, Recipe, Smallest, Split, is_bare, params

__all__ = ["LARGE", "Body", "candidates", "code", "together"]

LARGE = 1 << 20  # elements from which on a tensor is coded piece by piece, and that no bundle has
ROOM = 1 << 16  # bytes of a bundle's body, at most: who reads one tensor of it fetches all
_LIKELY = 0.5  # bytes that an element takes under a lossy recipe
_MARGIN = 1.03  # by which they may be more than they were
_PROBE = np.array([1.0, -0.3], np.float32)


class Body(NamedTuple):
    """What is coded: tensors in the order in which they lie there, with what recipe, and to what."""

    tensors: tuple[Told, ...]
    recipe: AnyRecipe
    coded: Coded
    parts: list[Array]


def candidates(tensors: Iterable[tuple[TensorInfo, Hashable]]) -> Iterator[list[TensorInfo]]:
    """Group tensors that might go together, each with a key that must be equal; None for those that stay alone.

    Groups come in the order of their first tensors, and have fewer elements than make a tensor large.
    """
    groups: dict[Hashable, list[TensorInfo]] = {}
    found: list[list[TensorInfo]] = []
    counts: dict[Hashable, int] = {}
    for info, key in tensors:
        alike = None if key is None else (_kind(info), key)
        if alike is None or alike[0] is None:
            found.append([info])
        elif counts.get(alike, LARGE) + info.count < LARGE:
            groups[alike].append(info)
            counts[alike] += info.count
        else:
            groups[alike], counts[alike] = [info], info.count
            found.append(groups[alike])
    yield from found


def _kind(info: TensorInfo) -> Hashable:
    """Return what tensors have in common that may go together, vectors whatever their lengths; None for loners.

    The last part of a name tells weights, means and variances apart.
    """
    if not 0 < info.count < LARGE // 2 or _filters.place(info.shape) == "first":
        return None
    last = info.name.replace("/", ".").rpartition(".")[2]
    return info.kind.name, last, info.shape if len(info.shape) > 1 else len(info.shape)


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
    sociable, spoils = len(arrays) > 1 and together(recipe, 2) is not None, _spoils(recipe)
    # What has few different elements, a lossy recipe may have to keep exactly, others not.
    alone = [i for i, x in enumerate(arrays) if not sociable or (spoils and few(x))]
    for i in alone:
        yield _alone(names[i], arrays[i], recipe, refs)
    others = [i for i in range(len(arrays)) if i not in set(alone)]
    if not others:
        return
    count, most = sum(arrays[i].size for i in others), len(others)
    likely = known or (_LIKELY if spoils else arrays[0].itemsize)
    if likely * count > ROOM:
        first = None if known else _alone(names[others[0]], arrays[others[0]], recipe)
        likely = _size(first) / arrays[others[0]].size if first else likely * _MARGIN
        most = int(ROOM / max(likely * count / len(others), 1))
        if first and most < 2:
            yield first
            others = others[1:]
    for some in _evenly(others, max(1, most)):
        yield from _as_one([names[i] for i in some], [arrays[i] for i in some], recipe)


def _evenly(items: Sequence[Any], most: int) -> Iterator[Sequence[Any]]:
    """Cut into parts that are about as long, of so many items at most."""
    step = -(-len(items) // max(1, -(-len(items) // most)))
    return (items[start : start + step] for start in range(0, len(items), max(1, step)))


def _as_one(names: Sequence[str], arrays: Sequence[Array], recipe: AnyRecipe) -> Iterator[Body]:
    """Code a bundle; in halves where it has become too large, and alone what a lossy recipe does not take together."""
    if len(names) == 1:
        yield _alone(names[0], arrays[0], recipe)
        return
    body = _bundle(names, arrays, recipe)
    if _size(body) <= ROOM and not (body.coded.exact and _spoils(recipe)):
        yield body
        return
    most = -(-len(names) // 2) if _size(body) > ROOM else 1
    for some in _evenly(range(len(names)), most):
        yield from _as_one([names[i] for i in some], [arrays[i] for i in some], recipe)


def _alone(name: str, x: Array, recipe: AnyRecipe, refs: Mapping[str, Array] = {}) -> Body:
    parts: list[Array] = []
    with within(name, ": "):
        coded = encode_into(parts.append, x, recipe, refs=refs, measure=True)
    return Body((Told(name, x.shape, coded.error),), recipe, coded, parts)


def _bundle(names: Sequence[str], arrays: Sequence[Array], recipe: AnyRecipe) -> Body:
    parts: list[Array] = []
    x = np.concatenate([np.atleast_1d(each) for each in arrays])
    with within(f"{names[0]} and {len(names) - 1} more", ": "):
        coded = encode_into(parts.append, x, together(recipe, len(names)), refs={}, keep=True)
        decoded = None if coded.exact or coded.value is None else coded.value()
    told, start = [], 0
    for name, each in zip(names, arrays, strict=True):
        rows = slice(start, start + len(np.atleast_1d(each)))
        told.append(Told(name, each.shape, None if decoded is None else measured(x[rows], decoded[rows])))
        start = rows.stop
    return Body(tuple(told), recipe, coded._replace(value=None), parts)


def _size(body: Body) -> int:
    return sum(map(len, body.parts))


def together(recipe: AnyRecipe, count: int) -> Any:
    """Return the recipe for so many arrays of a kind along the first dimension; None where each must be coded alone.

    >>> from featherweight.recipes import parse, text
    >>> text(together(parse("split(levels(values=uniform(0.1, index=ggd(given=[row, column]))))"), 9))
    'split(levels(blocks=9, values=uniform(step=0.1, index=ggd(given=[row, column]))))'
    >>> together(parse("prune(0.9, values=raw)"), 9)
    """
    if isinstance(recipe, Split):
        inner = together(recipe.recipe, count)
        return None if inner is None else dataclasses.replace(recipe, recipe=inner)
    if isinstance(recipe, Smallest):
        every = [together(each, count) for each in recipe.recipes]
        return None if None in every else dataclasses.replace(recipe, recipes=tuple(every))
    if isinstance(recipe, Recipe):
        then = [(name, together(node, count)) for name, node in recipe.then]
        stage = _stage(recipe.stage, count)
        outside = any(name.startswith("@") for name in recipe.given)
        if stage is None or outside or any(node is None for _, node in then):
            return None
        return dataclasses.replace(recipe, stage=stage, then=tuple(then))
    if is_bare(recipe):
        return _stage(recipe, count)
    selected = {f.name: getattr(recipe, f.name) for f in params(recipe) if f.metadata["recipe"]}
    changed = {name: together(node, count) for name, node in selected.items()}
    return None if None in changed.values() else dataclasses.replace(recipe, **changed) if changed else recipe  # type: ignore[type-var]


def _stage(stage: Any, count: int) -> Any:
    if hasattr(stage, "rewrite"):
        return None
    if hasattr(stage, "together"):
        return stage.together(count)
    try:
        exact = stage.error_bound(_PROBE) == 0
    except ArgumentError:  # it would not take the probe
        return None
    return stage if exact and isinstance(codec_table.key(stage.codec), int) else None


def _spoils(recipe: AnyRecipe) -> bool:
    """Return whether a recipe is lossy where it can be."""
    return isinstance(recipe.recipe if isinstance(recipe, Split) else recipe, Lossy)

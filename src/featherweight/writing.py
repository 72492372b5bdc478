"""Compose `.fw` files: large tensors piece by piece, small ones whole, several together where they are of a kind.

Which are which depends on the tensors and the plan alone, so that the bytes are the same for any pool.
"""

from __future__ import annotations

import collections
import functools
import io
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

from featherweight import dtypes
from featherweight.bundles import LARGE, Body, blind, candidates, code
from featherweight.codecs._kernels import _floats
from featherweight.dtypes import Array
from featherweight.encoder import Mapper
from featherweight.errors import within
from featherweight.formats import Checkpoint, TensorInfo, open_checkpoint
from featherweight.formats._io import Where, create_target
from featherweight.formats.fw import FwFile
from featherweight.formats.fw_writing import FwWriter
from featherweight.plan import Plan
from featherweight.stage import AnyRecipe

__all__ = [
    "Draft",
    "Progress",
    "Work",
    "energies",
    "kept",
    "light",
    "local",
    "no_base",
    "rms",
    "typical",
    "write",
]

_LIGHT = 1 << 12  # elements up to which handing a tensor over costs more than coding it
_WINDOW = 1 << 24  # elements that are measured at a time

Progress = Callable[[str, int], object]
"""Called with a tensor's name and the bytes of it that are done."""


class _Slice(NamedTuple):
    """Elements of a tensor in a file, for other processes to load."""

    where: str
    name: str
    start: int
    stop: int

    def load(self) -> Array:
        return _reopened(self.where).read(self.name, self.start, self.stop)


class _Unit(NamedTuple):
    """Small tensors to code: one, with the base that it may have, or some of a kind; no elements if none need it."""

    infos: tuple[TensorInfo, ...]
    elements: tuple[Array | _Slice, ...]
    base: Array | None
    before: tuple[_Kept, ...]


class _Kept(NamedTuple):
    """A body that a draft has already: its tensors' names, the recipe that was asked for and what it led to, bytes."""

    names: tuple[str, ...]
    asked: AnyRecipe
    recipe: AnyRecipe
    size: int


@functools.lru_cache(4)
def _reopened(where: str) -> Checkpoint:
    return open_checkpoint(where)


class Work(NamedTuple):
    """What is to be encoded, and with what means; `apart` where workers load elements themselves.

    `mapper` is for the pieces of large tensors, `whole` for small tensors.
    """

    checkpoint: Checkpoint
    lookup: Callable[[TensorInfo], Array | None]
    mapper: Mapper
    whole: Mapper
    codecs: Mapping[str, Any]
    apart: bool

    @property
    def weights(self) -> int:
        """The elements of all tensors."""
        return sum(info.count for info in self.checkpoint.tensors.values())


def kept(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what a `.fw` file keeps of its source besides the tensors."""
    origin = checkpoint.container.origin if isinstance(checkpoint.container, FwFile) else checkpoint.format
    kept = {"metadata": checkpoint.metadata, "layout": checkpoint.layout, "origin": origin}
    return {**kept, "order": tuple(checkpoint.tensors)}


def energies(checkpoint: Checkpoint) -> dict[str, float]:
    """Return the sum of the squares of all floats of two dimensions or more, where that is a number."""
    found = {}
    for info in checkpoint.tensors.values():
        if info.kind.kind == "f" and len(info.shape) >= 2:
            total = 0.0
            for start in range(0, info.count, _WINDOW):
                part = _floats.wide(checkpoint.read(info.name, start, min(start + _WINDOW, info.count)))
                total += _floats.dot(part, part)
            if math.isfinite(total):
                found[info.name] = total
    return found


def rms(checkpoint: Checkpoint, energies: Mapping[str, float]) -> float:
    """Return the root mean square of what there are energies of: where a step for an error is looked for."""
    total, number = sum(energies.values()), sum(checkpoint.tensors[name].count for name in energies)
    return math.sqrt(total / number) if total > 0 else 1.0


def typical(checkpoint: Checkpoint, energies: Mapping[str, float]) -> float:
    """Return the geometric mean of what weights' tensors have as root mean squares: where a step for a size is.

    It is logarithms of scales that bits follow, and one weight however large is one of many.
    """
    counts = {name: checkpoint.tensors[name].count for name, energy in energies.items() if energy > 0}
    total = sum(count * math.log2(energies[name] / count) / 2 for name, count in counts.items())
    return 2.0 ** (total / sum(counts.values())) if counts else 1.0


def write(
    work: Work, writer: FwWriter, plan: Plan, done: Progress, before: Draft | None = None
) -> dict[tuple[str, ...], AnyRecipe]:
    """Encode all tensors by a plan, tell `done` of what is, and return the recipes that selectors left, by body.

    What the recipe of a draft from `before` has made is taken from there.
    """
    checkpoint, where = work.checkpoint, work.checkpoint.name if work.apart else None
    bodies = {name: each for each in (before.kept() if before else ()) for name in each.names}
    found = dict[tuple[str, ...], AnyRecipe]()
    for large, groups in itertools.groupby(_together(work, plan), lambda infos: infos[0].count >= LARGE):
        if not large:
            units = (_unit(work, where, plan, infos, bodies) for infos in groups)
            for infos, made in work.whole(functools.partial(_encode_small, plan), units):
                for body in made:
                    if isinstance(body, _Kept):
                        assert before is not None
                        writer.take(body.names, before.writer, before.file)
                    else:
                        writer.put(body.tensors, body.coded, body.parts)
                    found[body.names] = body.recipe
                for info in infos:
                    done(info.name, info.packed)
            continue
        for (info,) in groups:
            old, kept = work.lookup(info), bodies.get(info.name)
            if kept and old is None and _same(kept.asked, plan.recipe_for(info.name)):
                recipe = kept.recipe
            else:
                x = checkpoint.read(info.name).reshape(info.shape)
                with within(info.name, ": "):
                    recipe = _chosen(plan.against(old, x, info.name), x)
            found[info.name,] = recipe
            if kept and recipe == kept.recipe:
                assert before is not None
                writer.take((info.name,), before.writer, before.file)
                done(info.name, info.packed)
                continue
            writer.encode(
                info.name,
                x,
                recipe,
                refs={} if old is None else {"base": old},
                mapper=_reporting(work.mapper, done, info),
                locate=functools.partial(_Slice, where, info.name) if where else None,
            )
    return found


def _together(work: Work, plan: Plan) -> Iterator[list[TensorInfo]]:
    """Group tensors that may be coded together: of a kind, with one recipe, and without a base."""
    recipes, numbers = list[AnyRecipe](), dict[int, tuple[int, bool]]()

    def number(info: TensorInfo) -> tuple[int | None, bool]:
        if work.lookup is not no_base:
            return None, False
        recipe = plan.recipe_for(info.name)
        if id(recipe) not in numbers:  # which spares comparing the one that all have
            numbers[id(recipe)] = recipes.index(recipe) if recipe in recipes else len(recipes), blind(recipe)
            recipes.append(recipe)
        return numbers[id(recipe)]

    return candidates((info, *number(info)) for info in work.checkpoint.tensors.values())


def _unit(
    work: Work,
    where: str | None,
    plan: Plan,
    infos: list[TensorInfo],
    bodies: Mapping[str, _Kept],
) -> _Unit:
    """Describe what is to be coded; elements that workers load are left where they are."""
    before = tuple({bodies[i.name].names: bodies[i.name] for i in infos if i.name in bodies}.values())
    base = work.lookup(infos[0]) if len(infos) == 1 else None
    asked, told = plan.recipe_for(infos[0].name), {name for each in before for name in each.names}
    # A sample has bodies of its own, of some of these tensors and of others.
    if base is None and told == {info.name for info in infos} and all(_same(each.asked, asked) for each in before):
        return _Unit(tuple(infos), (), None, before)
    elements = tuple([_Slice(where, i.name, 0, i.count) if where else work.checkpoint.read(i.name) for i in infos])
    return _Unit(tuple(infos), elements, base, before)


def _same(recipe: AnyRecipe, other: AnyRecipe) -> bool:
    return recipe is other or recipe == other


def light(item: _Unit | Sequence[TensorInfo]) -> bool:
    """Return whether small tensors are so small that threads would rather wait for each other than share them."""
    return sum(info.count for info in (item.infos if isinstance(item, _Unit) else item)) <= _LIGHT


def _chosen(recipe: AnyRecipe, x: Array) -> AnyRecipe:
    """Return what a selector names: for vectors, integers and the like it is the same whatever step a plan has."""
    choose = getattr(recipe, "choose", None)
    return recipe if choose is None else choose(x) or recipe


def _reporting(mapper: Mapper, done: Progress, info: TensorInfo) -> Mapper:
    """Tell the progress of a large tensor as its pieces come back."""

    def mapped(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        sizes: collections.deque[int] = collections.deque()

        def counted() -> Iterator[Any]:
            for unit in items:
                sizes.append(dtypes.packed_bytes(info.kind, math.prod(unit.shape)))
                yield unit

        for result in mapper(function, counted()):
            yield result
            done(info.name, sizes.popleft())

    return mapped


def local(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint is a file that other processes can open."""
    return checkpoint.source is not None and checkpoint.source.local is not None


def _encode_small(plan: Plan, unit: _Unit) -> tuple[tuple[TensorInfo, ...], list[Body | _Kept]]:
    """Code small tensors, those that selectors want to be coded alike together."""
    if not unit.elements:
        return unit.infos, list(unit.before)
    arrays = {}
    for info, elements in zip(unit.infos, unit.elements, strict=True):
        arrays[info.name] = (elements.load() if isinstance(elements, _Slice) else elements).reshape(info.shape)
    cohorts: list[tuple[AnyRecipe, list[str]]] = []
    for name, x in arrays.items():
        with within(name, ": "):
            recipe = _chosen(plan.against(unit.base, x, name), x)
        alike = next((names for other, names in cohorts if other == recipe), None)
        if alike is None:
            cohorts.append((recipe, [name]))
        else:
            alike.append(name)
    made = list[Body | _Kept]()
    for recipe, names in cohorts:
        kept = [each for each in unit.before if each.recipe == recipe and set(each.names) <= set(names)]
        if sorted(name for each in kept for name in each.names) == sorted(names):
            made += kept
        else:
            refs = {} if unit.base is None else {"base": unit.base}
            made += code(names, [arrays[name] for name in names], recipe, refs, _known(unit, set(names)))
    return unit.infos, made


def _known(unit: _Unit, names: set[str]) -> float | None:
    """Return the bytes that an element took in the bodies of a draft that are of these tensors; None if none are."""
    bodies = [each for each in unit.before if names.issuperset(each.names)]
    counts = {info.name: info.count for info in unit.infos}
    count = sum(counts[name] for each in bodies for name in each.names)
    return sum(each.size for each in bodies) / count if count else None


class Draft:
    """A `.fw` file that a search has made, to be kept or thrown away; its index may be wanting.

    `writer` knows what it came to, `plan` and `recipes` what was asked for and what each body was coded with. `sizes`
    are the bytes that bodies are likely to take, where they are not those in the file.
    """

    def __init__(
        self,
        file: BinaryIO,
        writer: FwWriter,
        plan: Plan,
        recipes: Mapping[tuple[str, ...], AnyRecipe],
        sizes: Mapping[tuple[str, ...], int] | None = None,
    ) -> None:
        self.file, self.writer, self.plan, self.recipes, self.wanted = file, writer, plan, recipes, True
        self._sizes = sizes

    def kept(self) -> Iterator[_Kept]:
        """Tell what there is."""
        sizes, asked = self._sizes, self.plan.recipe_for
        if sizes is None:
            sizes = {names: size for names, (size, _) in self.writer.bodies.items()}
        return (_Kept(names, asked(names[0]), recipe, sizes[names]) for names, recipe in self.recipes.items())

    def publish(self, target: Where) -> None:
        """Make it the target, which appears when all of it is there."""
        self.file.seek(0, io.SEEK_END)  # another draft may have taken something from the midst
        self.writer.finish()
        self.file.seek(0)
        with create_target(target) as place:
            while block := self.file.read(1 << 20):
                place.write(block)
        self.file.close()


def no_base(info: TensorInfo) -> Array | None:
    """Find nothing: there is no base."""
    return None

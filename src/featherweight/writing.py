"""Compose `.fw` files: tensor by tensor, in pieces, and as drafts where a goal is sought.

Small tensors go through the pool whole, large ones piece by piece; which is which depends on their size alone, so that
the bytes are the same for any pool.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from featherweight import dtypes
from featherweight.dtypes import Array
from featherweight.encoder import Coded, Mapper, encode_into
from featherweight.errors import within
from featherweight.formats import Checkpoint, TensorInfo, open_checkpoint
from featherweight.formats._io import Where, create_target, is_stream
from featherweight.formats.fw import FwFile, FwWriter
from featherweight.formats.memory import from_arrays
from featherweight.goals import Outcome
from featherweight.losses import Error, joined
from featherweight.plan import Plan
from featherweight.stage import AnyRecipe

__all__ = [
    "LARGE",
    "Draft",
    "Drafts",
    "Progress",
    "Work",
    "energies",
    "kept",
    "light",
    "local",
    "no_base",
    "outcome",
    "rms",
    "sampled",
    "write",
]

LARGE = 1 << 20  # elements from which on a tensor is coded piece by piece
_LIGHT = 1 << 12  # elements up to which handing a tensor over costs more than coding it
_WINDOW = 1 << 24  # elements that are measured at a time
_SAMPLE = 1 << 21  # elements, about, that a search starts with
_RUN = 16  # rows, at most, that it takes together
_ALIKE = 6  # small tensors of one shape, at most, of which it takes one
_HELD = 1 << 26  # bytes of a draft that memory holds

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
    """One small tensor to code."""

    info: TensorInfo
    elements: Array | _Slice
    base: Array | None
    before: AnyRecipe | None  # what it was coded with in a draft that is there


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
    return {"metadata": checkpoint.metadata, "layout": checkpoint.layout, "origin": origin}


def energies(checkpoint: Checkpoint) -> dict[str, float]:
    """Return the sum of the squares of all floats of two dimensions or more, where that is a number."""
    found = {}
    for info in checkpoint.tensors.values():
        if info.kind.kind == "f" and len(info.shape) >= 2:
            total = 0.0
            for start in range(0, info.count, _WINDOW):
                part = checkpoint.read(info.name, start, min(start + _WINDOW, info.count))
                with np.errstate(all="ignore"):
                    part = part.astype(np.result_type(np.float32, part), copy=False)
                    power = float(np.dot(part, part))
                    if not np.finfo(np.float32).tiny < power < math.inf:  # squares that f32 does not hold
                        power = float(np.square(part, dtype=np.float64).sum())
                    total += power
            if math.isfinite(total):
                found[info.name] = total
    return found


def rms(checkpoint: Checkpoint, energies: Mapping[str, float]) -> float:
    """Return the root mean square of what there are energies of, a starting point for steps."""
    total, number = sum(energies.values()), sum(checkpoint.tensors[name].count for name in energies)
    return math.sqrt(total / number) if total > 0 else 1.0


def write(
    work: Work, writer: FwWriter, plan: Plan, done: Progress, before: Draft | None = None
) -> dict[str, AnyRecipe]:
    """Encode all tensors by a plan, tell `done` of what is, and return the recipes that selectors left.

    What the recipe of a draft from `before` has made is taken from there.
    """
    checkpoint, where = work.checkpoint, work.checkpoint.name if work.apart else None
    known, found = before.recipes if before else {}, dict[str, AnyRecipe]()
    for large, infos in itertools.groupby(checkpoint.tensors.values(), lambda info: info.count >= LARGE):
        if not large:
            units = (
                _Unit(
                    i,
                    _Slice(where, i.name, 0, i.count) if where else checkpoint.read(i.name),
                    work.lookup(i),
                    known.get(i.name),
                )
                for i in infos
            )
            for info, recipe, coded, body in work.whole(functools.partial(_encode_small, plan), units):
                found[info.name] = recipe
                if coded is None:
                    assert before is not None
                    writer.take(info.name, before.writer, before.file)
                else:
                    writer.put(info.name, coded, body)
                done(info.name, info.packed)
            continue
        for info in infos:
            x = checkpoint.read(info.name).reshape(info.shape)
            old = work.lookup(info)
            with within(info.name, ": "):
                recipe = found[info.name] = _chosen(plan.against(old, x, info.name), x)
            if before is not None and recipe == known.get(info.name):
                writer.take(info.name, before.writer, before.file)
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


def light(item: _Unit | TensorInfo) -> bool:
    """Return whether a small tensor is so small that threads would rather wait for each other than share it."""
    return (item.info if isinstance(item, _Unit) else item).count <= _LIGHT


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


def _encode_small(plan: Plan, unit: _Unit) -> tuple[TensorInfo, AnyRecipe, Coded | None, list[Array]]:
    elements = unit.elements.load() if isinstance(unit.elements, _Slice) else unit.elements
    x = elements.reshape(unit.info.shape)
    body: list[Array] = []
    refs = {} if unit.base is None else {"base": unit.base}
    with within(unit.info.name, ": "):
        recipe = _chosen(plan.against(unit.base, x, unit.info.name), x)
        if recipe == unit.before:
            return unit.info, recipe, None, body
        return unit.info, recipe, encode_into(body.append, x, recipe, refs=refs, measure=True), body


class Draft:
    """A `.fw` file that a search has made, to be kept or thrown away.

    `writer` knows what it came to, `recipes` what each tensor was coded with.
    """

    def __init__(self, file: BinaryIO, writer: FwWriter, recipes: Mapping[str, AnyRecipe]) -> None:
        self.file, self.writer, self.recipes, self.wanted = file, writer, recipes, True

    def publish(self, target: Where) -> None:
        """Make it the target, which appears when all of it is there."""
        self.file.seek(0)
        with create_target(target) as place:
            while block := self.file.read(1 << 20):
                place.write(block)
        self.file.close()


class Drafts:
    """Makes drafts, in memory where they are small, else beside the target, or where temporary files go.

    The last one stays until there is another, which takes from it what has not changed.
    """

    def __init__(self, work: Work, target: Where | None) -> None:
        self._work, self._open = work, list[Draft]()
        self.first: Draft | None = None  # what the first one takes from
        streaming = target is None or is_stream(target) or "://" in str(target)
        self._beside = None if streaming else str(Path(str(target)).parent)

    def make(self, plan: Plan) -> Draft:
        """Write a draft."""
        before = self._open[-1] if self._open else self.first
        file = tempfile.SpooledTemporaryFile(_HELD, dir=self._beside)  # noqa: SIM115  (closed when it is not wanted)
        try:
            writer = FwWriter(file, **kept(self._work.checkpoint))
            recipes = write(self._work, writer, plan, _quiet, before)
            writer.finish()
        except BaseException:
            file.close()
            raise
        for draft in self._open:
            if not draft.wanted:
                draft.file.close()
        made = Draft(cast("BinaryIO", file), writer, recipes)
        self._open = [*(draft for draft in self._open if draft.wanted), made]
        return made

    def close(self) -> None:
        """Throw all of them away."""
        for draft in self._open:
            draft.file.close()


def outcome(work: Work, draft: Draft, score: float | None = None) -> Outcome:
    """Return what a draft came to."""
    return Outcome(draft.writer.size, work.weights, draft.writer.error, draft.writer.tensors, score, draft)


def sampled(
    work: Work, energies: Mapping[str, float], stack: contextlib.ExitStack, whole: Drafts
) -> Callable[[Plan], Outcome] | None:
    """Return what tells about how a plan would do, from some of many small tensors, or some rows of large ones.

    None where there are few of either. Rows come in runs, since neighbours are often alike, and coded with less error
    for it. Energies need no estimate. What is held meanwhile goes with the stack; drafts of the `whole` take from it
    what the sample has wholly.
    """
    infos, weights = work.checkpoint.tensors, work.weights
    every = min(weights // _SAMPLE, 64)
    groups = [] if every > 1 else _alike(work.checkpoint, energies)
    if (every < 2 and not groups) or work.lookup is not no_base:
        return None
    factors, signals, arrays = dict.fromkeys(infos, 1.0), dict(energies), {}
    left_out, parts = set[str](), set[str]()
    for first, *others in groups:
        factors[first] = sum(infos[name].count for name in (first, *others)) / infos[first].count
        signals[first] = sum(energies[name] for name in (first, *others))
        left_out.update(others)
    for name, info in infos.items():
        if name in left_out:
            continue
        x = work.checkpoint.read(name).reshape(info.shape)
        if every > 1 and len(info.shape) > 1 and info.shape[0] >= 4 * every and info.count >= 1 << 16:
            run = min(_RUN, info.shape[0] // (4 * every))
            x = x[np.arange(info.shape[0]) // run % every == every // 2]
            factors[name] = info.count / x.size
            parts.add(name)
        arrays[name] = x
    drafts = Drafts(work._replace(checkpoint=from_arrays(arrays), apart=False), None)
    stack.callback(drafts.close)

    def tell(plan: Plan) -> Outcome:
        draft = drafts.make(plan)
        draft.wanted, writer = False, draft.writer
        recipes = {name: recipe for name, recipe in draft.recipes.items() if name not in parts}
        whole.first = Draft(draft.file, writer, recipes)
        size, tensors = writer.size, dict[str, tuple[int, Error | None]]()
        for name, (coded, lost) in writer.tensors.items():
            times = factors[name]
            size += round((times - 1) * coded)
            scaled = lost and Error(lost.noise * times, signals.get(name, lost.signal * times), lost.largest)
            tensors[name] = round(times * coded), scaled
        error = joined((len(infos[name].shape), scaled) for name, (_, scaled) in tensors.items())
        return Outcome(size, weights, error, tensors)

    return tell


def _alike(checkpoint: Checkpoint, energies: Mapping[str, float]) -> list[list[str]]:
    """Group tensors of the same shape, whose weights are about as large; what stands for a group goes first.

    Nothing is grouped where that leaves a quarter or more: a sample must cost far less than what it spares.
    """
    shapes: dict[tuple[int, ...], list[str]] = {}
    for name in energies:
        shapes.setdefault(checkpoint.tensors[name].shape, []).append(name)
    groups = []
    for names in shapes.values():
        names.sort(key=lambda name: energies[name])
        for i in range(0, len(names), _ALIKE):
            group = names[i : i + _ALIKE]
            middle = group.pop(len(group) // 2)
            groups.append([middle, *group])
    return groups if 4 * len(groups) < len(energies) else []


def _quiet(name: str, size: int) -> None:
    """Tell nobody."""


def no_base(info: TensorInfo) -> Array | None:
    """Find nothing: there is no base."""
    return None

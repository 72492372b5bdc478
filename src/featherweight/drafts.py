"""Drafts: the files that the search for a goal makes, of all of a checkpoint or of some of it."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from featherweight.formats import Checkpoint
from featherweight.formats._io import Where, is_stream
from featherweight.formats.fw_writing import FwWriter
from featherweight.formats.memory import from_arrays
from featherweight.goals import Outcome
from featherweight.losses import Error, joined
from featherweight.plan import Plan
from featherweight.stage import AnyRecipe
from featherweight.writing import Draft, Work, kept, no_base, write

__all__ = ["Drafts", "outcome", "sampled"]

_SAMPLE = 1 << 21  # elements, about, that a search starts with
_RUN = 16  # rows, at most, that it takes together
_ALIKE = 6  # small tensors of one shape, at most, of which it takes one
_FEW = 0.03  # share of the weights, at most, in small groups that go with the largest
_HELD = 1 << 26  # bytes of a draft that memory holds


class Drafts:
    """Makes drafts, in memory where they are small, else beside the target, or where temporary files go.

    The last one stays until there is another, which takes from it what has not changed. Unless they are
    `sized`, they lack their index, which takes long, until they are published, and samples are not coded.
    """

    def __init__(self, work: Work, target: Where | None, *, sized: bool) -> None:
        self._work, self._open, self.sized = work, list[Draft](), sized
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
            if self.sized:
                writer.finish()
        except BaseException:
            file.close()
            raise
        for draft in self._open:
            if not draft.wanted:
                draft.file.close()
        made = Draft(cast("BinaryIO", file), writer, plan, recipes)
        self._open = [*(draft for draft in self._open if draft.wanted), made]
        return made

    def close(self) -> None:
        """Throw all of them away."""
        for draft in self._open:
            draft.file.close()


def outcome(work: Work, draft: Draft, score: float | None = None) -> Outcome:
    """Return what a draft came to."""
    return Outcome(draft.writer.size, work.weights, draft.writer.error, draft.writer.bodies, score, draft)


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
    groups = [] if every > 1 else _groups(work.checkpoint, energies)
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
    drafts = Drafts(work._replace(checkpoint=from_arrays(arrays), apart=False), None, sized=whole.sized)
    stack.callback(drafts.close)

    def tell(plan: Plan) -> Outcome:
        draft = drafts.make(plan if whole.sized else plan.rough())
        draft.wanted, writer = False, draft.writer
        size, bodies = writer.size, dict[tuple[str, ...], tuple[int, Error | None]]()
        recipes, sizes = dict[tuple[str, ...], AnyRecipe](), dict[tuple[str, ...], int]()
        for names, (stored, lost) in writer.bodies.items():
            # What loses something is coded only where sizes matter.
            count = sum(arrays[name].size for name in names)
            coded = stored if lost is None or whole.sized else _likely(lost, count)
            if parts.isdisjoint(names):
                recipes[names], sizes[names] = draft.recipes[names], coded
            times = sum(factors[name] * arrays[name].size for name in names) / max(count, 1)
            size += round((times - 1) * coded)
            noise = sum(factors[told.name] * told.error.noise for told in writer.told(names) if told.error)
            signal = sum(signals.get(name, 0.0) for name in names)
            scaled = lost and Error(noise, signal or lost.signal * times, lost.largest)
            bodies[names] = round(times * coded), scaled
        whole.first = Draft(draft.file, writer, draft.plan, recipes, sizes)
        error = joined((len(infos[names[0]].shape), scaled) for names, (_, scaled) in bodies.items())
        return Outcome(size, weights, error, bodies)

    return tell


def _likely(lost: Error, count: int) -> int:
    """Return about how many bytes weights take that lose so much: those of a Gaussian, and a quarter of a bit more."""
    bits = 0.25 + max(0.0, -0.5 * math.log2(min(max(lost.nmse, 1e-12), 1.0)))
    return round(count * bits / 8)


def _groups(checkpoint: Checkpoint, energies: Mapping[str, float]) -> list[list[str]]:
    """Group tensors of the same shape, whose weights are about as large; what stands for a group goes first.

    Nothing is grouped where that leaves a quarter or more: a sample must cost far less than what it spares. The
    smallest groups, which take as many calls as others, join the largest.
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
    if 4 * len(groups) >= len(energies):
        return []
    counts = {group[0]: sum(checkpoint.tensors[name].count for name in group) for group in groups}
    groups.sort(key=lambda group: counts[group[0]])
    room = _FEW * sum(counts.values())
    while len(groups) > 1 and (room := room - counts[groups[0][0]]) >= 0:
        groups[-1].extend(groups.pop(0))
    return groups


def _quiet(name: str, size: int) -> None:
    """Tell nobody."""

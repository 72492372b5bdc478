"""Whole checkpoints into `.fw` files and back: `save_file`, `encode_file`, `decode_file`.

Tensors are coded one after another and in pieces, so that memory stays bounded whatever their size: what is under way
at once is a few pieces per thread. Small tensors go through the pool whole, large ones piece by piece; which is which
depends on their size alone, so that the bytes are the same for any pool.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from featherweight.drafts import Drafts, outcome, sampled
from featherweight.dtypes import Array
from featherweight.engine import MAX_BYTES
from featherweight.errors import ArgumentError
from featherweight.formats import Checkpoint, open_checkpoint, write_checkpoint
from featherweight.formats._io import Where, file_name, is_stream
from featherweight.formats.fw_writing import FwWriter, create
from featherweight.formats.memory import from_arrays
from featherweight.goals import Goal, Outcome, reach
from featherweight.losses import Error
from featherweight.plan import Plan
from featherweight.reading import Base, base_of, load_file, open
from featherweight.stage import AnyRecipe, Codec
from featherweight.threads import ordered_map, thread_pool
from featherweight.writing import Draft, Progress, Work, energies, kept, light, local, rms, typical, write

__all__ = ["Encoded", "decode_file", "encode_file", "save_file"]


class Encoded(NamedTuple):
    """What encoding came to: the plan with what a goal found, the file's bytes, and the error of lossy tensors."""

    plan: Plan
    size: int
    error: Error | None


def save_file(
    tensors: Mapping[str, Any],
    path: Where,
    plan: Plan | AnyRecipe | str | None = None,
    *,
    goal: Goal | None = None,
    base: Base | None = None,
    metadata: Mapping[str, str] | None = None,
    codecs: Mapping[str, Any] = {},
    executor: Executor | None = None,
    threads: int | None = None,
) -> Encoded:
    """Encode arrays into a `.fw` file, which appears when all has gone well.

    `tensors` map names to arrays (anything `numpy.asarray` takes without a copy is not copied). `plan` is a recipe for
    all or a `Plan`, by default ``"lossless"``; of a lossy one, by default ``"tcq"``, the step may be left to a `goal`:
    ``plan="ecsq", goal=Goal(bits=3)``. `base` is a
    checkpoint that the decoder will have: tensors with a namesake of the same dtype and shape in it are coded as
    changes where that is smaller. `codecs` are stage classes of the caller's own. `executor` is any
    ``concurrent.futures.Executor``; by default `threads` threads, as many as there are processors.

    Returns what was done. Raises ArgumentError for arrays, names, recipes and goals that do not fit and OSError for
    what the system refuses; the file is then as it was.
    """
    for name in tensors:
        if not isinstance(name, str):
            raise ArgumentError(f"tensor names are strings, not {type(name).__name__}")
    source = from_arrays({name: np.asarray(value) for name, value in tensors.items()}, metadata)
    return _encode(source, path, plan, goal, base, codecs, executor, threads, None)


def encode_file(
    source: Where,
    target: Where,
    plan: Plan | AnyRecipe | str | None = None,
    *,
    goal: Goal | None = None,
    base: Base | None = None,
    codecs: Mapping[str, Any] = {},
    executor: Executor | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Encoded:
    """Encode a checkpoint file (safetensors, its sharded index, npz, .fw) into a `.fw` file; see `save_file`.

    What is needed to write the same file again is kept: names, order, metadata, and the header's bytes where they
    are not those that anybody would write.
    """
    with open_checkpoint(source) as checkpoint:
        return _encode(checkpoint, target, plan, goal, base, codecs, executor, threads, progress)


def decode_file(
    source: Where,
    target: Where,
    *,
    format: str | None = None,
    base: Base | None = None,
    codecs: Mapping[str, Codec] = {},
    max_bytes: int = MAX_BYTES,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Decode a `.fw` file into a checkpoint of another format, by the end of the target's name or by `format`.

    Tensors are decoded straight into the mapped target, which appears when all has gone well.
    """
    with open(source, base=base, codecs=codecs, max_bytes=max_bytes, threads=threads) as file:
        _check_target(target, source, base)
        kind = format or file.origin or "safetensors"
        infos = list(file.infos.values())
        with write_checkpoint(target, infos, metadata=file.metadata(), layout=file.layout, format=kind) as out:
            file.decode_into(out.tensor, progress)


def _encode(
    checkpoint: Checkpoint,
    target: Where,
    wanted: Plan | AnyRecipe | str | None,
    goal: Goal | None,
    base: Base | None,
    codecs: Mapping[str, Any],
    executor: Executor | None,
    threads: int | None,
    progress: Progress | None,
) -> Encoded:
    plan = Plan.of(("tcq" if goal else "lossless") if wanted is None else wanted, codecs=codecs)
    _check_target(target, checkpoint.source.where if checkpoint.source else None, base)
    if not is_stream(target) and file_name(target).lower().endswith((".safetensors", ".index.json", ".npz")):
        raise ArgumentError("what is encoded is a .fw file: let its name end in .fw", path=file_name(target))
    if goal is not None and not isinstance(goal, Goal):
        raise ArgumentError(f"goal={goal!r}: expected a Goal, such as Goal(bits=3)")
    if goal is None and plan.open:
        raise ArgumentError("sensitivities say how a goal is met: name one, such as goal=Goal(bits=3)")
    with contextlib.ExitStack() as stack:
        lookup = base_of(base, stack, checkpoint.tensors.values())
        pool = executor or stack.enter_context(thread_pool(threads))
        mapper, whole = ordered_map(pool), ordered_map(pool, light=light)
        work = Work(checkpoint, lookup, mapper, whole, codecs, executor is not None and local(checkpoint))
        tell = progress or (lambda name, size: None)
        if goal is None:
            with create(target, **kept(checkpoint)) as writer:
                write(work, writer, plan, tell)
        else:
            plan, writer = _reach(work, goal, plan, target)
            for info in checkpoint.tensors.values():
                tell(info.name, info.packed)
    return Encoded(plan, writer.size, None if writer.exact else writer.error)


def _reach(work: Work, goal: Goal, plan: Plan, target: Where) -> tuple[Plan, FwWriter]:
    """Search for the goal, and make the draft that meets it the target."""
    with contextlib.ExitStack() as stack:
        drafts = stack.enter_context(contextlib.closing(Drafts(work, target, sized=goal.kind != "error")))

        def rehearse(plan: Plan) -> Outcome:
            draft = drafts.make(plan)
            score = None if goal.score is None else _score(work, goal.score, draft)
            return outcome(work, draft, score)

        powers = energies(work.checkpoint)
        scale = (rms if goal.kind == "error" else typical)(work.checkpoint, powers)
        plan, found = reach(goal, plan, rehearse, scale, sampled(work, powers, stack, drafts))
        found.draft.publish(target)
        return plan, found.draft.writer


def _score(work: Work, score: Callable[[Mapping[str, Array]], float], draft: Draft) -> float:
    arrays = {info.name: work.lookup(info) for info in work.checkpoint.tensors.values()}
    base = {name: array for name, array in arrays.items() if array is not None}
    found: Any = score(load_file(draft.file, base=base or None, codecs=work.codecs))
    try:
        return float(found)
    except (TypeError, ValueError):
        raise ArgumentError(f"score returned {found!r}: expected a number") from None


def _check_target(target: Where, *others: Any) -> None:
    """Raise ArgumentError where the target is a file that is being read, or will be needed again."""
    for other in others:
        if isinstance(target, str | os.PathLike) and isinstance(other, str | os.PathLike):
            with contextlib.suppress(OSError):
                if Path(target).samefile(other):
                    raise ArgumentError("the target is the source or the base itself: name another", path=str(target))

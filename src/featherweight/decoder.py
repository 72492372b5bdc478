"""Run a parsed frame into an array.

Everything that can be refused is refused by `prepare`, before anything is allocated or run: unknown codecs, wire
records, ports, references, the caller's limit. What is left to a codec is the contents of its streams.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from featherweight import dtypes
from featherweight.dtypes import Array
from featherweight.errors import (
    BaseMismatchError,
    FeatherweightError,
    FrameError,
    LimitError,
)
from featherweight.frame import (
    FLAT,
    GIVEN,
    REFERENCE,
    SHAPED,
    SPLIT,
    Frame,
    checksum,
    piece_shape,
    whole_rows,
)
from featherweight.linking import Ready, edges_of, link, nbytes
from featherweight.stage import Codec, Spec
from featherweight.threads import ordered_map

__all__ = [
    "Fetch",
    "Part",
    "Plan",
    "digest",
    "leaves_of",
    "parts_between",
    "prepare",
    "reference_part",
    "run",
    "run_range",
    "verify",
]

Fetch = Callable[[int, int], Any]
"""(offset, length) of the body to bytes."""

_BYTES = FLAT, dtypes.of("U8").id


@dataclass(frozen=True, slots=True)
class Part:
    """Where a piece lies: elements of its edge, bytes of the body."""

    branch: int
    start: int
    count: int
    offset: int
    size: int
    record: tuple[int, ...]


class _Cut(NamedTuple):
    """A split leaf made ready."""

    spec: Spec
    step: int
    branches: Mapping[int, Ready]
    parts: tuple[Part, ...]


class Plan(NamedTuple):
    """A frame made ready to run."""

    spec: Spec
    root: Ready
    record: tuple[int, ...]
    offset: int  # of what the root program itself stores
    size: int
    cuts: tuple[_Cut, ...]
    refs: tuple[tuple[str, Array], ...]

    @property
    def sliceable(self) -> bool:
        """Whether the result is made of pieces that can be decoded one by one."""
        return not self.root.steps and len(self.cuts) == 1


def digest(part: Array) -> int:
    """Return what a frame remembers of the part of a reference that it was made against."""
    flat = np.ascontiguousarray(part).reshape(-1)
    return checksum(flat.view(np.uint8), seed=dtypes.of(part.dtype).id)


def reference_part(whole: Array, shape: Sequence[int], step: int, start: int) -> Array:
    """Return what a piece sees of an array from outside its program: its own elements, its own rows, or all."""
    piece = piece_shape(shape, step, start)
    if whole.shape == tuple(shape):
        return whole.reshape(-1)[start : start + math.prod(piece)].reshape(piece)
    if whole_rows(shape, step) and whole.ndim == len(shape) and whole.shape[0] == shape[0] > 1:
        row = math.prod(shape[1:])
        return whole[start // row : start // row + piece[0]]
    return whole


def prepare(frame: Frame, refs: Mapping[str, Array], codecs: Mapping[str, Codec], max_bytes: int, workers: int) -> Plan:
    """Resolve codecs and references, check ports and limits.

    Raises LimitError, BaseMismatchError, UnsupportedError or FrameError.
    """
    missing = [name for name in frame.refs if name not in refs]
    if missing:
        needed = ", ".join(map(repr, missing))
        raise BaseMismatchError(f"this was encoded against {needed}: it is needed again (--base, base= or refs=)")
    arrays = tuple(dtypes.native(refs[name]) for name in frame.refs)
    edges = edges_of(frame.root, frame.spec, [Spec(a.dtype, a.shape) for a in arrays], ())
    root = link(frame.root, edges, codecs)
    cuts, offset, branch_need = [], 0, 0
    leaves = [i for i, leaf in enumerate(frame.root.leaves) if leaf[0] == SPLIT]
    for leaf, split in zip(leaves, frame.splits, strict=True):
        whole = edges[leaf]
        parts, ready, largest = [], {}, 0
        total = math.prod(whole.shape)
        for number, (branch, *record) in enumerate(split.pieces):
            start = number * split.step
            if branch not in ready:
                program = frame.branches[branch]
                piece = Spec(whole.dtype, piece_shape(whole.shape, split.step, start))
                outside = [
                    [Spec(e.dtype, _part_shape(e.shape, whole.shape, piece.shape)) for e in group]
                    for group in ([Spec(a.dtype, a.shape) for a in arrays], edges)
                ]
                ready[branch] = link(program, edges_of(program, piece, *outside), codecs)
            size = sum(record[1 : 1 + ready[branch].stored])
            parts.append(Part(branch, start, min(split.step, total - start), offset, size, tuple(record)))
            offset += size
            largest = max(largest, size)
        cuts.append(_Cut(whole, split.step, ready, tuple(parts)))
        branch_need = max([branch_need, *(r.scratch + largest for r in ready.values())])
    size = sum(frame.record[1 : 1 + root.stored])
    need = frame.nbytes + root.scratch + size + workers * branch_need
    need += sum(nbytes(cut.spec) for cut in cuts) if root.steps else 0
    if need > max_bytes:
        raise LimitError(f"decoding needs {need} bytes, max_bytes allows {max_bytes}: raise it if you trust the source")
    return Plan(frame.spec, root, frame.record, offset, size, tuple(cuts), tuple(zip(frame.refs, arrays, strict=True)))


def run(plan: Plan, fetch: Fetch, out: Array, pool: Executor | None = None) -> None:
    """Fill `out` (contiguous, native, of the plan's dtype and shape); its contents are undefined after an error."""
    made: dict[int, Array | None] = {}
    refs = [array for _, array in plan.refs]

    def split_edge(number: int, edges: list[Array | None]) -> Array:
        cut = plan.cuts[number]
        if number in made:
            ready = made[number]
            if ready is None:
                raise FrameError("a split edge is given to its own pieces")
            return ready
        made[number] = None
        whole = out if plan.sliceable else np.empty(cut.spec.shape, cut.spec.dtype)
        _run_parts(plan, cut, cut.parts, fetch, whole.reshape(-1), 0, edges, pool)
        made[number] = whole
        return whole

    body = fetch(plan.offset, plan.size)
    verify(body, plan.record[0])
    _run_program(plan.root, body, plan.record, out, refs, (), np.empty, split_edge, plan)


def run_range(plan: Plan, fetch: Fetch, start: int, stop: int, out: Array, pool: Executor | None = None) -> None:
    """Fill flat `out` with the elements [start, stop) of a sliceable plan, decoding just the pieces they lie in."""
    (cut,) = plan.cuts
    parts = parts_between(plan, start, stop)
    inner = [p for p in parts if start <= p.start and p.start + p.count <= stop]
    _run_parts(plan, cut, inner, fetch, out, start, [], pool)
    for part in parts:
        low, high = max(start, part.start), min(stop, part.start + part.count)
        if high - low < part.count:
            whole = np.empty(part.count, out.dtype)
            _run_parts(plan, cut, [part], fetch, whole, part.start, [], None)
            out[low - start : high - start] = whole[low - part.start : high - part.start]


def parts_between(plan: Plan, start: int, stop: int) -> tuple[Part, ...]:
    """Return the pieces of a sliceable plan that the elements [start, stop) lie in."""
    (cut,) = plan.cuts
    return cut.parts[start // cut.step : -(-stop // cut.step)] if stop > start else ()


def _run_parts(
    plan: Plan,
    cut: _Cut,
    parts: Sequence[Part],
    fetch: Fetch,
    flat: Array,
    first: int,
    edges: list[Array | None],
    pool: Executor | None,
) -> None:
    """Decode pieces into `flat`, whose element 0 is element `first` of the edge."""
    local = threading.local()
    shape = cut.spec.shape

    def scratch(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        # One buffer per intermediate, thread and call: fresh memory costs more than decoding into it.
        count = math.prod(shape) * dtype.itemsize
        buffer = local.buffers[local.used] if local.used < len(local.buffers) else None
        if buffer is None or buffer.size < count:
            buffer = np.empty(count, np.uint8)
            local.buffers[local.used : local.used + 1] = [buffer]
        local.used += 1
        return buffer[:count].view(dtype).reshape(shape)

    def one(part: Part) -> None:
        if not hasattr(local, "buffers"):
            local.buffers = []
        local.used = 0
        body = fetch(part.offset, part.size)
        out = flat[part.start - first : part.start - first + part.count]
        out = out.reshape(piece_shape(shape, cut.step, part.start))
        refs = [reference_part(array, shape, cut.step, part.start) for _, array in plan.refs]
        given = [None if e is None else reference_part(e, shape, cut.step, part.start) for e in edges]
        try:
            _run_program(cut.branches[part.branch], body, part.record, out, refs, given, scratch, None, plan)
        except Exception:
            verify(body, part.record[0])
            raise
        # What has just been decoded is near the processor: to read all of it before would take longer.
        verify(body, part.record[0])

    for _ in ordered_map(pool if len(parts) > 1 else None)(one, parts):
        pass


def verify(body: Any, expected: int) -> None:
    """Raise FrameError unless the checksum is right."""
    if checksum(body) != expected:
        raise FrameError("stored bytes do not match their checksum: the data is damaged")


def _run_program(
    ready: Ready,
    body: Any,
    record: Sequence[int],
    out: Array,
    refs: Sequence[Array],
    given: Sequence[Array | None],
    empty: Callable[..., Array],
    split_edge: Callable[[int, list[Array | None]], Array] | None,
    plan: Plan,
) -> None:
    edges: list[Any] = leaves_of(ready, body, record, refs, given, plan)  # None: a split one, not made yet

    def split(index: int) -> Array:
        assert split_edge is not None
        before = sum(leaf[0] == SPLIT for leaf in ready.program.leaves[:index])
        return split_edge(before, edges + [None] * len(ready.steps))

    name, targets = "", list[Array | None]([*[None] * (len(ready.steps) - 1), out])
    try:
        for decode, wire, streams, givens, spec, name, _, into in ready.steps:  # noqa: B007
            target = targets[into]
            if target is None:
                assert spec is not None
                target = targets[into] = empty(spec.shape, spec.dtype)
            elif spec is not None and target.shape != spec.shape:
                target = _shaped(target, spec.shape)
            if split_edge is not None:
                for i in (*streams, *givens):
                    if edges[i] is None:
                        edges[i] = split(i)
            decode(wire, tuple([edges[i] for i in streams]), tuple([edges[i] for i in givens]), target)
            edges.append(target)
    except FeatherweightError as error:
        error.path = f"{name}/{error.path}" if error.path else name
        raise
    if not ready.steps:
        result = split(len(edges) - 1) if edges[-1] is None else edges[-1]
        if result is not out:
            if result.size != out.size or result.dtype != out.dtype:
                raise FrameError(f"{result.size} stored elements of {result.dtype} for {out.size} of {out.dtype}")
            out[...] = result.reshape(out.shape)


def _shaped(array: Array, shape: tuple[int, ...]) -> Array:
    """Return the memory of a result in the shape of what hands it on."""
    if array.size != math.prod(shape):  # of a piece that is not as large as the first one
        raise FrameError(f"{list(shape)} is handed on for {list(array.shape)}")
    return array.reshape(shape)


def leaves_of(
    ready: Ready,
    body: Any,
    record: Sequence[int],
    refs: Sequence[Array],
    given: Sequence[Array | None],
    plan: Plan,
) -> list[Array | None]:
    """Return the edges that no node makes; None for a split one, which is not made yet."""
    edges: list[Array | None] = []
    place, number, digests = 0, 1, 1 + ready.stored
    data = np.frombuffer(body, np.uint8)
    for leaf in ready.program.leaves:
        kind = leaf[0]
        if kind in (FLAT, SHAPED):
            size = record[number]
            edges.append(_stored(leaf, data[place : place + size]))
            place += size
            number += 1
        elif kind == REFERENCE:
            part = refs[leaf[1]]
            if digest(part) != record[digests]:
                raise BaseMismatchError(f"{plan.refs[leaf[1]][0]!r} is not the array that this was encoded against")
            edges.append(part)
            digests += 1
        elif kind == GIVEN:
            if given[leaf[1]] is None:
                raise FrameError("a piece is given an edge that is made after it")
            edges.append(given[leaf[1]])
        else:
            edges.append(None)
    return edges


def _stored(leaf: tuple[int, ...], data: Array) -> Array:
    """Return stored bytes as the array that they are."""
    if leaf == _BYTES:
        return data
    row = dtypes.of(leaf[1])
    if row.bits < 8:
        return _unpack(leaf, data)
    if data.size % row.dtype.itemsize:
        raise FrameError(f"{data.size} stored bytes are no whole number of {row.name}")
    if row.dtype.itemsize > 1:
        data = data.copy().view(row.dtype)
    elif row.dtype != np.uint8:
        data = data.view(row.dtype)
    if leaf[0] == FLAT:
        return data
    if data.size != math.prod(leaf[2:]):
        raise FrameError(f"{data.size} stored elements for the shape {list(leaf[2:])}")
    return data.reshape(leaf[2:])


def _unpack(leaf: tuple[int, ...], data: Array) -> Array:
    row = dtypes.of(leaf[1])
    count = math.prod(leaf[2:]) if leaf[0] == SHAPED else data.size * 8 // row.bits
    if data.size != dtypes.packed_bytes(row, count):
        raise FrameError(f"{data.size} stored bytes for {count} elements of {row.bits} bits")
    array = dtypes.unpack(data, row.bits, count).view(row.dtype)
    return array.reshape(leaf[2:]) if leaf[0] == SHAPED else array


def _part_shape(shape: tuple[int, ...], whole: tuple[int, ...], piece: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that `reference_part` gives, as far as ports care: dimensions."""
    return piece if shape == whole else shape

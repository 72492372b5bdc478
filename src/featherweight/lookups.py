"""Read single elements of a frame without decoding the array.

What stands between the stored bytes and the elements is run only as far as it must be: codecs that can say what lies at
a position are asked for the positions (`bloomier`, `ribbon`, and tables like `kmeans` above them), of a split edge the
pieces are run in which positions lie, and the rest is decoded. What comes is always what decoding gives.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from featherweight.decoder import Fetch, Part, Plan, leaves_of, prepare, reference_part, run, verify
from featherweight.dtypes import Array
from featherweight.engine import MAX_BYTES
from featherweight.errors import ArgumentError, FeatherweightError, FrameError
from featherweight.frame import GIVEN, SPLIT, parse, piece_shape
from featherweight.linking import Ready
from featherweight.stage import Codec, Spec

__all__ = ["Lookup", "lookup"]

_Result = TypeVar("_Result")
_DEPTH = 16  # codecs asked one through another; what lies deeper is decoded


def lookup(
    frame: Any,
    positions: Any,
    /,
    *,
    refs: Mapping[str, Array] = {},
    codecs: Mapping[str, Codec] = {},
    max_bytes: int = MAX_BYTES,
) -> Array:
    """Return the elements of an encoded array at flat positions (C order), or at a tuple of indices, one a dimension.

    Positions and indices below 0 count from the end. The result has the shape of `positions`. To look up again and
    again, keep a ``Lookup.of(frame)``.

    Raises ArgumentError for positions outside of the array, and what `decode` raises.

    >>> from featherweight import encode
    >>> x = np.zeros((300, 784), np.float32)
    >>> x[7, 5] = 0.5
    >>> lookup(encode(x, "kmeans(zero=true, index=ribbon)"), (7, 5))
    array(0.5, dtype=float32)
    """
    return Lookup.of(frame, refs=refs, codecs=codecs, max_bytes=max_bytes).at(positions)


class Lookup:
    """An encoded array made ready for look-ups: `at` what is asked, and of `dtype` and `shape`.

    What has been decoded for one look-up is kept for the next, within `max_bytes`.
    """

    def __init__(
        self, plan: Plan, fetch: Fetch, max_bytes: int = MAX_BYTES, part: tuple[int, tuple[int, ...]] | None = None
    ) -> None:
        """Read from a frame, or from a `part` of it: the elements from the first number on that make this shape."""
        self.dtype = plan.spec.dtype
        self._start, self.shape = part or (0, plan.spec.shape)
        self._plan, self._fetch, self._room = plan, fetch, max_bytes
        self._root: _Program | None = None

    @classmethod
    def of(
        cls,
        frame: Any,
        /,
        *,
        refs: Mapping[str, Array] = {},
        codecs: Mapping[str, Codec] = {},
        max_bytes: int = MAX_BYTES,
    ) -> Lookup:
        """Make a frame ready; raises what `decode` raises."""
        head, body = parse(frame)
        plan = prepare(head, refs, codecs, max_bytes, 1)
        return cls(plan, lambda offset, length: body[offset : offset + length], max_bytes)

    def at(self, positions: Any, /) -> Array:
        """Return the elements at flat positions, or at a tuple of indices, one a dimension; below 0 from the end."""
        flat, shape = _flat(positions, self.shape)
        if self._root is None:
            self._root = self._load()
        root = self._root
        return root.at(root.last, flat + np.uint64(self._start), 0).reshape(shape)

    def _load(self) -> _Program:
        plan = self._plan
        branches = [ready for cut in plan.cuts for ready in cut.branches.values()]
        if any(leaf[0] == GIVEN for ready in branches for leaf in ready.program.leaves):
            # Its pieces need what the root program makes, in its order.
            whole = np.empty(*plan.spec[::-1])
            run(plan, self._fetch, whole)
            return _Program(plan.root._replace(steps=()), [whole], plan.spec, {})
        body = self._fetch(plan.offset, plan.size)
        verify(body, plan.record[0])
        refs = [array for _, array in plan.refs]
        leaves = leaves_of(plan.root, body, plan.record, refs, (), plan)
        cuts = [i for i, leaf in enumerate(plan.root.program.leaves) if leaf[0] == SPLIT]
        pieces = {leaf: _Pieces(plan, n, self._fetch, self._room) for n, leaf in enumerate(cuts)}
        return _Program(plan.root, leaves, plan.spec, pieces)


class _Pieces:
    """A split edge. Pieces that were needed are kept, the last ones as far as there is room."""

    def __init__(self, plan: Plan, number: int, fetch: Fetch, room: int) -> None:
        self.cut, self.plan, self.fetch, self.room = plan.cuts[number], plan, fetch, room
        self.kept: collections.OrderedDict[int, _Program] = collections.OrderedDict()

    def at(self, positions: Array) -> Array:
        numbers = positions // np.uint64(self.cut.step)
        out = np.empty(positions.size, self.cut.spec.dtype)
        order = np.argsort(numbers, kind="stable")
        held, starts = np.unique(numbers[order], return_index=True)
        ends = [*starts[1:], order.size]
        for number, start, end in zip(held.tolist(), starts, ends[: held.size], strict=True):
            chosen = order[start:end]
            program = self.piece(number)
            out[chosen] = program.at(program.last, positions[chosen] - np.uint64(number * self.cut.step), 0)
        return out

    def whole(self) -> Array:
        out = np.empty(math.prod(self.cut.spec.shape), self.cut.spec.dtype)
        for number, part in enumerate(self.cut.parts):
            program = self.piece(number, keep=False)
            out[part.start : part.start + part.count] = program.whole(program.last).reshape(-1)
        return out.reshape(self.cut.spec.shape)

    def piece(self, number: int, *, keep: bool = True) -> _Program:
        if number in self.kept:
            self.kept.move_to_end(number)
            return self.kept[number]
        part = self.cut.parts[number]
        program = self.load(part)
        if keep:
            self.kept[number] = program
            while len(self.kept) > 1 and sum(map(self.size, self.kept)) > self.room:
                self.kept.popitem(last=False)
        return program

    def size(self, number: int) -> int:
        part = self.cut.parts[number]
        return part.size + self.cut.branches[part.branch].scratch + part.count * self.cut.spec.dtype.itemsize

    def load(self, part: Part) -> _Program:
        ready, shape = self.cut.branches[part.branch], self.cut.spec.shape
        body = self.fetch(part.offset, part.size)
        verify(body, part.record[0])
        refs = [reference_part(array, shape, self.cut.step, part.start) for _, array in self.plan.refs]
        leaves = leaves_of(ready, body, part.record, refs, (), self.plan)
        return _Program(ready, leaves, Spec(self.cut.spec.dtype, piece_shape(shape, self.cut.step, part.start)), {})


class _Program:
    """The edges of a program, decoded as far as they were needed."""

    def __init__(self, ready: Ready, leaves: Sequence[Array | None], out: Spec, pieces: Mapping[int, _Pieces]) -> None:
        self.steps, self.out, self.pieces = ready.steps, out, pieces
        self.first, self.last = len(leaves), len(leaves) + len(ready.steps) - 1
        self.edges: list[Array | None] = [*leaves, *[None] * len(ready.steps)]

    def spec(self, index: int) -> Spec:
        found = self.edges[index]
        if found is not None:
            return Spec(found.dtype, found.shape)
        return self.pieces[index].cut.spec if index < self.first else self.steps[index - self.first].spec or self.out

    def at(self, index: int, positions: Array, depth: int) -> Array:
        """Return some elements of an edge."""
        if positions.size and int(positions.max()) >= math.prod(self.spec(index).shape):
            raise FrameError("an edge has too few elements")
        found = self.edges[index]
        if found is None and index < self.first:
            return self.pieces[index].at(positions)
        if found is None:
            step = self.steps[index - self.first]
            ask = step.at
            if ask is not None and depth < _DEPTH:
                streams, given = (tuple(_Edge(self, i, depth + 1) for i in way) for way in (step.streams, step.given))
                return _blame(step.name, lambda: ask(step.wire, streams, given, self.spec(index), positions))
            found = self.whole(index)
        return found.reshape(-1)[positions]

    def whole(self, index: int) -> Array:
        """Return all of an edge, for which those below it are made in their order."""
        needed, open_ = set[int](), [index]
        while open_:
            at = open_.pop()
            if at not in needed and self.edges[at] is None:
                needed.add(at)
                if at >= self.first:
                    open_ += [*self.steps[at - self.first].streams, *self.steps[at - self.first].given]
        for at in sorted(needed):
            self.edges[at] = self.pieces[at].whole() if at < self.first else self._run(at)
        made = self.edges[index]
        assert made is not None
        return made

    def _run(self, index: int) -> Array:
        step, (dtype, shape) = self.steps[index - self.first], self.spec(index)
        out = np.empty(shape, dtype)
        streams, given = (tuple(self.edges[i] for i in way) for way in (step.streams, step.given))
        _blame(step.name, lambda: step.decode(step.wire, streams, given, out))
        return out


def _blame(name: str, work: Callable[[], _Result]) -> _Result:
    try:
        return work()
    except FeatherweightError as error:
        error.path = f"{name}/{error.path}" if error.path else name
        raise


class _Edge:
    """What a codec sees of an edge."""

    def __init__(self, program: _Program, index: int, depth: int) -> None:
        self.program, self.index, self.depth = program, index, depth

    @property
    def spec(self) -> Spec:
        return self.program.spec(self.index)

    def whole(self) -> Array:
        return self.program.whole(self.index)

    def at(self, positions: Array, /) -> Array:
        return self.program.at(self.index, positions, self.depth)


def _flat(positions: Any, shape: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """Return flat positions, u64, and the shape that they had."""
    if not isinstance(positions, tuple):
        return _within(positions, math.prod(shape), shape).reshape(-1), np.shape(positions)
    if len(positions) != len(shape):
        raise ArgumentError(f"{len(positions)} indices for {len(shape)} dimensions")
    try:
        indices = np.broadcast_arrays(*[_within(p, size, shape) for p, size in zip(positions, shape, strict=True)])
    except ValueError as error:
        if isinstance(error, ArgumentError):
            raise
        raise ArgumentError(f"the indices do not go together: {error}") from None
    flat = np.zeros(indices[0].shape if indices else (), np.uint64)
    for index, size in zip(indices, shape, strict=True):
        flat = flat * np.uint64(size) + index
    return flat.reshape(-1), flat.shape


def _within(positions: Any, size: int, shape: tuple[int, ...]) -> Array:
    found = np.asarray(positions)
    if not found.size:
        return found.astype(np.uint64)
    if found.dtype.kind not in "ui":
        raise ArgumentError(f"positions are integers, not {found.dtype}")
    if int(found.min()) < -size or int(found.max()) >= size:
        wrong = int(found.min()) if int(found.min()) < -size else int(found.max())
        raise ArgumentError(f"position {wrong} lies outside of {list(shape)}: expected {-size} to {size - 1}")
    if found.dtype.kind == "i" and int(found.min()) < 0:
        found = np.where(found < 0, found.astype(np.int64) + size, found)
    return found.astype(np.uint64)

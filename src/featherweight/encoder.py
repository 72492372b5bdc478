"""Run a recipe on an array, into the parts of a frame.

Streams are followed depth first, in the order in which the codec declares them, one that is given a later one after
that, so that whatever a stage is given has been coded before it; what a stage leaves out nobody is given. Selectors are
asked and vanish. A `Split` turns an edge of the root program into pieces, each coded by a program of its own; equal
programs are kept once.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
import numpy as np

from featherweight import codecs as codec_table
from featherweight import dtypes
from featherweight.decoder import digest, reference_part
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError, within
from featherweight.frame import (
    BLOCK,
    FLAT,
    GIVEN,
    REFERENCE,
    SHAPED,
    SPLIT,
    Frame,
    Node,
    Pieces,
    Program,
    checksum,
    piece_shape,
)
from featherweight.losses import Error, measured
from featherweight.stage import (
    AnyRecipe,
    Codec,
    Recipe,
    Rewrite,
    Smallest,
    Spec,
    Split,
    Stage,
    hints_of,
    is_bare,
    mentioned,
)

__all__ = ["Coded", "Loadable", "Mapper", "Piece", "encode_into", "step_of"]

Mapper = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Like `map`, in order, perhaps with some of it under way at once."""


class Coded(NamedTuple):
    """A head whose body was written; whether all of it is lossless; and, if it is not and that was asked, its error.

    `value`, where it was asked for, gives what decoding will, and costs less: entropy coders need not be undone.
    """

    frame: Frame
    exact: bool
    error: Error | None
    value: Callable[[], Array] | None = None


class Piece(NamedTuple):
    """A coded piece: program, record, the stored bytes in order, and, of a lossy one, what was asked for."""

    program: Program
    record: tuple[int, ...]
    body: tuple[Array, ...]
    exact: bool
    error: Error | None = None
    decoded: Array | None = None


class _Outside(NamedTuple):
    """An array that a piece may be given: where it comes from, and the part of it that the piece sees."""

    leaf: tuple[int, ...]
    array: Array


class Loadable(Protocol):
    """A small, picklable description of elements that are somewhere else."""

    def load(self) -> Array:
        """Return the elements, flat."""
        ...


class _Unit(NamedTuple):
    """One piece to code."""

    elements: Array | Loadable
    shape: tuple[int, ...]
    outside: Mapping[str, _Outside]


class _Made(NamedTuple):
    """An edge while programs are built: leaves count up from 0, nodes down from -1."""

    number: int
    spec: Spec
    exact: bool
    value: Callable[[], Array]  # what the decoder will have


Scope = Mapping[str, "_Made | _Outside"]
_ZERO = np.zeros((), np.uint8)
_LEFT_OUT = _Made(0, Spec(_ZERO.dtype, _ZERO.shape), True, lambda: _ZERO)  # for a stream that a stage sends none of
_WIRE = msgspec.msgpack.Decoder(tuple[Any, ...])


def step_of(shape: Sequence[int], size: int) -> int:
    """Return the elements per piece: whole rows where a row fits into `size`, pieces as equal as can be."""
    total, row = math.prod(shape), math.prod(shape[1:])
    unit = row if len(shape) > 1 and 0 < row <= size else BLOCK if size >= BLOCK else 1
    units = -(-total // unit)
    pieces = -(-units // max(1, size // unit))
    return -(-units // max(1, pieces)) * unit


def encode_into(
    write: Callable[[Array], object],
    x: Array,
    recipe: AnyRecipe,
    *,
    refs: Mapping[str, Array],
    mapper: Mapper = map,
    locate: Callable[[int, int], Loadable] | None = None,
    measure: bool = False,
    keep: bool = False,
) -> Coded:
    """Code `x`, pass the body to `write` part by part, and return the head.

    Parts are u8 arrays, which may be views of `x` itself. `measure` asks for the error of what is lossy, which costs
    decoding it; `keep` for the result's `value`, which holds on to `x` and does not travel to other processes.

    `locate` says where the elements from one number to another can be loaded again: pieces that travel to other
    processes then carry a place and no elements.
    """
    x = dtypes.native(x)
    arrays = {name: dtypes.native(array) for name, array in refs.items()}
    program = _Builder(
        write, mapper, {f"@{name}": _Outside((REFERENCE, i), a) for i, (name, a) in enumerate(arrays.items())}
    )
    program.located, program.measure = (x, locate) if locate else None, measure
    made = program.add(x, recipe, {}, 0)
    error = None
    if measure and not made.exact:
        whole = made.number < 0 or program.leaves[made.number][0] != SPLIT
        error = measured(x, made.value()) if whole else program.error
    piece = program.finish(made)
    for data in piece.body:
        write(data)
    programs = [piece.program, *(branch for _, branch in program.branches.values())]
    # A reference that nobody used is not asked for again, and only now the numbers of the root's edges are known.
    used = sorted({leaf[1] for p in programs for leaf in p.leaves if leaf[0] == REFERENCE})
    root, *branches = (_renumber(p, used, len(piece.program.leaves)) for p in programs)
    out = (dtypes.of(x.dtype).id, *x.shape)
    names = tuple(arrays)
    refs_used = tuple(names[i] for i in used)
    frame = Frame(out, root, piece.record, tuple(program.splits), tuple(branches), refs_used)
    return Coded(frame, made.exact, error, made.value if keep else None)


def _renumber(program: Program, used: list[int], leaves: int) -> Program:
    if not any(leaf[0] in (REFERENCE, GIVEN) for leaf in program.leaves):
        return program

    def renumber(leaf: tuple[int, ...]) -> tuple[int, ...]:
        if leaf[0] == REFERENCE:
            return (REFERENCE, used.index(leaf[1]))
        if leaf[0] == GIVEN:
            return (GIVEN, _number(leaf[1], leaves))
        return leaf

    return msgspec.structs.replace(program, leaves=tuple(map(renumber, program.leaves)))


def _number(made: int, leaves: int) -> int:
    """Turn the number of an edge under construction into the frame's: nodes come after the leaves."""
    return made if made >= 0 else leaves - 1 - made


class _Builder:
    """A program under construction; only the root's has `write` and may be split."""

    def __init__(
        self, write: Callable[[Array], object] | None, mapper: Mapper, outside: Mapping[str, _Outside]
    ) -> None:
        self.write = write
        self.mapper = mapper
        self.outside = outside
        self.leaves: list[tuple[int, ...]] = []
        self.nodes: list[tuple[Codec, Any, list[int], list[int]]] = []
        self.specs: list[tuple[int, ...]] = []
        self.stored: list[Array] = []
        self.digests: list[int] = []
        self.references: dict[tuple[int, ...], _Made] = {}
        self.splits: list[Pieces] = []
        self.located: tuple[Array, Callable[[int, int], Loadable]] | None = None
        self.measure, self.depth, self.error = False, 0, Error()
        self.branches: dict[bytes, tuple[int, Program]] = {}

    def add(self, x: Array, recipe: AnyRecipe | None, scope: Scope, depth: int) -> _Made:
        """Code `x` and return the edge that decoding will make of it."""
        while (choose := getattr(recipe, "choose", None)) is not None:
            recipe, depth = choose(x), depth + 1
            if depth > 32:
                raise ArgumentError("a selector keeps choosing selectors")
        if recipe is None:
            return self._store(x)
        if isinstance(recipe, Split):
            return self._split(x, recipe, scope, depth)
        if isinstance(recipe, Smallest):
            return self._smallest(x, recipe, scope, depth)
        if not isinstance(recipe, Recipe):
            if not is_bare(recipe):
                raise ArgumentError(f"{recipe!r} is no recipe, stage or selector")
            recipe = Recipe(recipe)
        stage: Any = recipe.stage
        if not hasattr(stage, "codec"):  # as `isinstance` would say, and slowly
            return self._rewrite(x, stage, recipe, scope, depth)
        codec = stage.codec
        with within(codec.name):
            spec = Spec(x.dtype, x.shape)
            codec.out.check(spec, ArgumentError)
            given, hints = self._given_to(stage, recipe.given, scope) if recipe.given else ([], [])
            encoded = stage.encode(x, *[edge.value() for edge in given], *hints)
            then, siblings, count = dict(recipe.then), dict(scope), len(encoded.streams)
            if count > len(codec.streams):
                raise ArgumentError(f"it made {count} streams, its codec has {len(codec.streams)}")
            siblings.update((port.name, _LEFT_OUT) for port in codec.streams[count:])
            made: list[Any] = [None] * count
            self.depth += 1
            for number in recipe.order if then else range(count):
                if number < count:
                    port, stream = codec.streams[number], dtypes.native(encoded.streams[number])
                    port.check(Spec(stream.dtype, stream.shape), ArgumentError)
                    with within(port.name):
                        edge = self.add(stream, then.get(port.name), siblings, depth + 1)
                    made[number] = siblings[port.name] = edge
            self.depth -= 1
        return self._node(x, spec, stage, encoded.wire, made, given)

    def _given_to(self, stage: Stage, names: Sequence[str], scope: Scope) -> tuple[list[_Made], list[Array]]:
        """Return what a stage is given, and what its encoder alone is."""
        codec = stage.codec
        known = len(codec.given)
        given = [edge for name in names[:known] if (edge := self._given(name, scope)) is not _LEFT_OUT]
        hints = [self._peek(name, scope) for name in names[known:]]
        for port, edge in zip(codec.given, given, strict=False):
            port.check(edge.spec, ArgumentError)
        for port, hint in zip(hints_of(stage), hints, strict=False):
            port.check(Spec(hint.dtype, hint.shape), ArgumentError)
        return given, hints

    def finish(self, result: _Made) -> Piece:
        """Give the edges their numbers in the frame and return the program with what it stores."""
        count = len(self.leaves)
        nodes = tuple(
            [
                Node(
                    codec_table.key(codec),
                    tuple([_number(made, count) for made in streams]),
                    _WIRE.decode(msgspec.msgpack.encode(wire)),
                    tuple([_number(made, count) for made in given]),
                )
                for codec, wire, streams, given in self.nodes
            ]
        )
        leaf = self.leaves[-1]
        if not nodes and leaf[0] == SHAPED and dtypes.of(leaf[1]).bits >= 8:
            self.leaves[-1] = (FLAT, leaf[1])  # the result's shape is written once
        program = Program(tuple(self.leaves), nodes, tuple(self.specs[:-1] if nodes else ()))
        body = tuple(self.stored)
        record = (checksum(*body), *map(len, body), *self.digests)
        return Piece(program, record, body, result.exact)

    def _rewrite(self, x: Array, rewrite: Rewrite, recipe: Recipe, scope: Scope, depth: int) -> _Made:
        with within(rewrite.name):
            given = [self._peek(name, scope) for name in recipe.given]
            for port, array in zip(rewrite.given, given, strict=False):
                port.check(Spec(array.dtype, array.shape), ArgumentError)
            changed = dtypes.native(rewrite.rewrite(x, *given))
            if (changed.dtype, changed.shape) != (x.dtype, x.shape):
                made = f"{changed.dtype}{list(changed.shape)}"
                raise ArgumentError(f"{rewrite!r} made {made} of {x.dtype}{list(x.shape)}")
            same = bool((dtypes.bits_view(changed) == dtypes.bits_view(x)).all())
            edge = self.add(changed, dict(recipe.then).get("values"), scope, depth + 1)
            return edge._replace(exact=edge.exact and same)

    def _smallest(self, x: Array, smallest: Smallest, scope: Scope, depth: int) -> _Made:
        """Try every recipe on a builder of its own and go on as the one that stores least of those that take `x`."""
        best: tuple[int, _Builder, _Made, list[Array]] | None = None
        refusal: ArgumentError | None = None
        enough = smallest.enough * dtypes.packed_bytes(dtypes.of(x.dtype), x.size)
        for recipe in smallest.recipes:
            trial, written = copy.copy(self), list[Array]()
            for name in ("leaves", "nodes", "specs", "stored", "digests", "references", "splits", "branches"):
                setattr(trial, name, copy.copy(getattr(self, name)))
            trial.write = None if self.write is None else written.append
            try:
                made = trial.add(x, recipe, scope, depth + 1)
            except ArgumentError as error:
                refusal = refusal or error
                continue
            size = sum(map(len, (*written, *trial.stored)))
            # A node's record and what an edge says of itself take some bytes of the head.
            size += 12 * (len(trial.nodes) + len(trial.splits)) + 4 * len(trial.stored)
            if best is None or size < best[0]:
                best = size, trial, made, written
            if size <= enough:
                break
        if best is None:
            assert refusal is not None  # there is one recipe at least
            raise refusal
        _, trial, made, written = best
        trial.write = self.write
        vars(self).update(vars(trial))
        for data in written:
            self.write(data)  # type: ignore[misc]  # only where there is a write can anything be written
        return made

    def _peek(self, name: str, scope: Scope) -> Array:
        """Return a given array for the encoder alone: the frame need not name it."""
        found = scope.get(name) or self.outside.get(name)
        return found.array if isinstance(found, _Outside) else self._given(name, scope).value()

    def _given(self, name: str, scope: Scope) -> _Made:
        found = scope.get(name) or self.outside.get(name)
        if found is None:
            if name.startswith("@"):
                raise ArgumentError(f"it needs the reference {name[1:]!r}: pass --base, base= or refs=")
            known = (
                ", ".join(n for n, each in (*scope.items(), *self.outside.items()) if each is not _LEFT_OUT) or "none"
            )
            raise ArgumentError(f"given={name} names no earlier stream; there are: {known}")
        if isinstance(found, _Made):
            return found
        if not found.leaf:
            return _LEFT_OUT
        if found.leaf not in self.references:
            if found.leaf[0] == REFERENCE:
                self.digests.append(digest(found.array))
            self.references[found.leaf] = self._leaf(found.leaf, found.array)
        return self.references[found.leaf]

    def _leaf(self, leaf: tuple[int, ...], array: Array) -> _Made:
        self.leaves.append(leaf)
        return _Made(len(self.leaves) - 1, Spec(array.dtype, array.shape), True, lambda: array)

    def _store(self, x: Array) -> _Made:
        row = dtypes.of(x.dtype)
        data = x.reshape(-1).view(np.uint8)
        self.stored.append(data if row.bits >= 8 else dtypes.pack(data, row.bits))
        flat = x.ndim == 1 and (row.bits >= 8 or x.size * row.bits % 8 == 0)
        return self._leaf((FLAT, row.id) if flat else (SHAPED, row.id, *x.shape), x)

    def _node(self, x: Array, spec: Spec, stage: Stage, wire: Any, streams: list[_Made], given: list[_Made]) -> _Made:
        self.nodes.append((stage.codec, wire, [e.number for e in streams], [e.number for e in given]))
        self.specs.append((dtypes.of(x.dtype).id, *x.shape))

        exact = all(edge.exact for edge in streams) and stage.error_bound(x) == 0

        decoded: list[Array] = []

        def value() -> Array:
            if exact or decoded:
                return decoded[0] if decoded else x
            inputs = tuple(edge.value() for edge in streams)
            handed_on = inputs[stage.codec.same :][:1] if stage.codec.same is not None else ()
            fits = [each for each in handed_on if (each.dtype, each.size) == (x.dtype, x.size)]
            out = fits[0].reshape(x.shape) if fits else np.empty(x.shape, x.dtype)
            try:
                stage.codec.decode(wire, inputs, tuple(edge.value() for edge in given), out)
            except FrameError as error:
                why = "what its streams go into is lossy, and what it loses is needed"
                raise ArgumentError(f"{stage.codec.name}: {why}: {error}") from error
            decoded.append(out)
            return out

        if any(not edge.exact and dtypes.of(edge.spec.dtype).kind in "bui" for edge in streams):
            value()  # numbers may be approximate; of positions, symbols and bytes not every loss can be decoded
        return _Made(-len(self.nodes), spec, exact, value)

    def _split(self, x: Array, split: Split, scope: Scope, depth: int) -> _Made:
        if self.write is None:
            raise ArgumentError("a recipe splits an edge once: this one lies in a piece already")
        step = step_of(x.shape, split.size)
        count = -(-x.size // step) if step else 0
        if count <= 1:
            return self.add(x, split.recipe, scope, depth)
        given = {name: self._given(name, scope) for name in mentioned(split.recipe) & scope.keys()}
        left_out = {name: _Outside((), _ZERO) for name, edge in given.items() if edge is _LEFT_OUT}
        given = {name: edge for name, edge in given.items() if name not in left_out}
        flat = x.reshape(-1)

        def units() -> Iterator[_Unit]:
            for start in range(0, x.size, step):
                part = functools.partial(reference_part, shape=x.shape, step=step, start=start)
                outside = {name: _Outside(found.leaf, part(found.array)) for name, found in self.outside.items()}
                outside |= {name: _Outside((GIVEN, edge.number), part(edge.value())) for name, edge in given.items()}
                outside |= left_out
                shape = piece_shape(x.shape, step, start)
                stop = start + math.prod(shape)
                place = self.located[1](start, stop) if self.located and self.located[0] is x else None
                yield _Unit(flat[start:stop] if place is None else place, shape, outside)

        pieces, exact, decoded = [], True, list[Array]()
        # What a stage above or beside this one will see must be kept; of a result it is enough to know the error.
        keep, measure = self.depth > 0, self.measure and self.depth == 0
        self.error, lossless = Error(), []
        for piece in self.mapper(functools.partial(_encode_unit, split.recipe, keep, measure), units()):
            key = msgspec.msgpack.encode(piece.program)
            branch, _ = self.branches.setdefault(key, (len(self.branches), piece.program))
            pieces.append((branch, *piece.record))
            exact &= piece.exact
            if keep:
                decoded.append(piece.decoded)
            if piece.exact:
                lossless.append(len(pieces) - 1)
            self.error += piece.error or Error()
            for data in piece.body:
                self.write(data)
        self.splits.append(Pieces(step, tuple(pieces)))
        if measure and not exact:
            for part in (flat[i * step : (i + 1) * step] for i in lossless):
                self.error += measured(part, part)

        def value() -> Array:
            return x if exact else np.concatenate([part.reshape(-1) for part in decoded]).reshape(x.shape)

        self.leaves.append((SPLIT, dtypes.of(x.dtype).id, *x.shape))
        return _Made(len(self.leaves) - 1, Spec(x.dtype, x.shape), exact, value)


def _encode_unit(recipe: AnyRecipe, keep: bool, measure: bool, unit: _Unit) -> Piece:
    """Code one piece; picklable, for executors of any kind."""
    elements = unit.elements if isinstance(unit.elements, np.ndarray) else unit.elements.load()
    builder, x = _Builder(None, map, unit.outside), dtypes.native(elements.reshape(unit.shape))
    made = builder.add(x, recipe, {}, 0)
    piece = builder.finish(made)
    if made.exact:
        return piece._replace(decoded=x if keep else None)
    decoded = made.value()
    return piece._replace(error=measured(x, decoded) if measure else None, decoded=decoded if keep else None)

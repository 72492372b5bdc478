"""Link a program: its codecs checked against their ports, its wire records, and where each result goes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from featherweight import codecs as codec_table
from featherweight import dtypes
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError, UnsupportedError
from featherweight.frame import FLAT, REFERENCE, SHAPED, SPLIT, Program, spec_of, stored_and_digests
from featherweight.stage import Codec, Spec

__all__ = ["Ready", "Step", "edges_of", "link", "nbytes"]

_Link = tuple[int | str, tuple[int, ...], tuple[int, ...]]
"""A node without its wire: codec, streams, given."""


class Step(NamedTuple):
    """A node made ready to run."""

    decode: Callable[..., None]
    wire: Any
    streams: tuple[int, ...]
    given: tuple[int, ...]
    spec: Spec | None  # None: that of the program's result, which pieces have each of its own
    name: str
    at: Callable[..., Array] | None
    into: int  # where it is made: the number of this step, or of one that hands it on


class Ready(NamedTuple):
    """A program with its codecs at hand; `scratch` is the bytes of its intermediates, `stored` counts stored leaves."""

    program: Program
    steps: tuple[Step, ...]
    scratch: int
    stored: int


def nbytes(spec: Spec) -> int:
    """Return the bytes of an edge."""
    return math.prod(spec.shape) * spec.dtype.itemsize


def edges_of(program: Program, out: Spec, refs: Sequence[Spec], given: Sequence[Spec]) -> list[Spec]:
    """Return the spec of every edge; a stored leaf of unknown length counts as empty."""
    edges = []
    for leaf in program.leaves:
        if leaf[0] == FLAT:
            edges.append(Spec(dtypes.of(leaf[1]).dtype, (0,)))
        elif leaf[0] in (SHAPED, SPLIT):
            edges.append(spec_of(leaf[1:]))
        else:
            edges.append((refs if leaf[0] == REFERENCE else given)[leaf[1]])
    edges += [spec_of(spec) for spec in program.specs]
    return [*edges, out] if program.nodes else edges


def link(program: Program, edges: Sequence[Spec], codecs: Mapping[str, Codec]) -> Ready:
    """Make a program ready to run on edges of these specs; raises FrameError, UnsupportedError or ArgumentError."""
    links = tuple([(node.codec, node.streams, node.given) for node in program.nodes])
    place = len(program.leaves), tuple(edges)
    own = any(isinstance(node.codec, str) for node in program.nodes)
    steps, scratch = _linked(links, *place, codecs) if own else _linked_before(links, *place)
    made = []
    for node, step in zip(program.nodes, steps, strict=True):
        try:
            wire = msgspec.convert(node.wire, step.wire)
        except FrameError as error:
            error.path = step.name
            raise
        except (msgspec.ValidationError, RecursionError, OverflowError) as error:
            if isinstance(node.wire, list) and len(node.wire) > len(step.wire.__struct_fields__):
                raise UnsupportedError(
                    f"its record is longer than known here: upgrade ({error})", path=step.name
                ) from None
            raise FrameError(f"its record is not well-formed: {error}", path=step.name) from None
        made.append(Step(step.decode, wire, *step[2:]))
    return Ready(program, tuple(made), scratch, stored_and_digests(program)[0])


def _linked(
    links: tuple[_Link, ...], leaves: int, edges: tuple[Spec, ...], codecs: Mapping[str, Codec] = {}
) -> tuple[tuple[Step, ...], int]:
    """Check nodes against the ports of their codecs; return steps, with the type of their wire, and their scratch."""
    steps, sames = [], []
    for i, (which, streams, given) in enumerate(links):
        codec = _resolve(which, codecs)
        few = len(codec.streams) > 0 and not streams
        if few or len(streams) > len(codec.streams) or len(given) > len(codec.given):
            raise FrameError(f"{len(streams)} streams and {len(given)} given", path=codec.name)
        try:
            codec.out.check(edges[leaves + i], FrameError)
            for port, edge in (*zip(codec.streams, streams, strict=False), *zip(codec.given, given, strict=False)):
                port.check(edges[edge], FrameError)
        except FrameError as error:
            error.path = codec.name
            raise
        steps.append(Step(codec.decode, codec.wire, streams, given, edges[leaves + i], codec.name, codec.at, i))
        sames.append(codec.same)
    for i in range(len(steps) - 1, -1, -1):
        maker = _made_by(steps, i, sames[i], leaves)
        if maker >= 0 and _alike(steps[maker].spec, steps[i].spec):
            steps[maker] = steps[maker]._replace(into=steps[i].into)
    scratch = sum(nbytes(step.spec) for i, step in enumerate(steps[:-1]) if step.into == i and step.spec is not None)
    last = len(steps) - 1
    for i, step in enumerate(steps):
        if step.into == last and step.spec == edges[-1]:  # pieces share a program, and their results need not be alike
            steps[i] = step._replace(spec=None)
    return tuple(steps), scratch


_linked_before = functools.lru_cache(256)(_linked)  # the tensors of a file are coded alike, but for their wires


def _alike(one: Spec | None, other: Spec | None) -> bool:
    """Return whether two edges can lie in the same memory."""
    assert one is not None
    assert other is not None
    return one.dtype == other.dtype and math.prod(one.shape) == math.prod(other.shape)


def _made_by(steps: Sequence[Step], place: int, same: int | None, leaves: int) -> int:
    """Return the step that makes what another returns as it is, -1 if that is none, or others need it, too."""
    streams = steps[place].streams
    if same is None or same >= len(streams):
        return -1
    uses = sum((*step.streams, *step.given).count(streams[same]) for step in steps)
    return streams[same] - leaves if uses == 1 else -1


def _resolve(which: int | str, codecs: Mapping[str, Codec]) -> Codec:
    if isinstance(which, str):
        if not isinstance(codecs, Mapping):
            raise ArgumentError(f"codecs is a mapping from names to codecs, not {type(codecs).__name__}")
        if which not in codecs:
            raise UnsupportedError(f"codec {which!r} is unknown here: pass it in codecs= or upgrade")
        found: Any = codecs[which]
        codec = getattr(found, "codec", found)  # a stage or its class will do
        if not isinstance(codec, Codec):
            raise ArgumentError(f"codecs[{which!r}] must be a Codec or a stage's class, not {found!r}")
        return codec
    return codec_table.codec(which)

"""Hostile frames: one field of a parsed frame is another, and all checksums are right."""

from __future__ import annotations

import copy
import functools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from featherweight import dtypes
from featherweight.decoder import digest, reference_part
from featherweight.dtypes import Array
from featherweight.errors import FeatherweightError
from featherweight.frame import (
    FLAT,
    REFERENCE,
    SHAPED,
    SPLIT,
    Frame,
    Program,
    checksum,
    pack_head,
    parse,
    parse_head,
    seal,
)


class Sealed(NamedTuple):
    """A frame, and what decodes it."""

    data: bytes
    refs: Mapping[str, Array]
    codecs: Mapping[str, Any]


def mutated(good: Sealed, choose: random.Random) -> bytes:
    """Replace one field of a frame, anywhere in the parsed structure, or stored bytes; then make the checksums right.

    A head that still parses gets a body as long as it asks for, so that the change reaches the codecs.
    """
    try:
        frame, body = parse(good.data)
    except FeatherweightError:  # hostile already, and refused
        return good.data
    stored = bytearray(body)
    head = msgspec.msgpack.decode(pack_head(frame))
    if stored and choose.random() < 0.25:
        for _ in range(choose.choice([1, 1, 1, 8])):
            stored[choose.randrange(len(stored))] = choose.choice([0, 1, 127, 128, 255, choose.randrange(256)])
    else:
        _replace_one(head, choose)
    try:
        changed = parse_head(msgspec.msgpack.encode(head))
        fitted = _fit(changed, bytes(stored), good.refs)
    except (FeatherweightError, OverflowError):
        return seal(msgspec.msgpack.encode(head) if _encodable(head) else b"\xc1", bytes(stored))
    return fitted


def _encodable(head: Any) -> bool:
    try:
        msgspec.msgpack.encode(head)
    except OverflowError:
        return False
    return True


def _places(node: Any) -> Iterator[tuple[list[Any], int]]:
    """Yield every field of nested lists, as a list and an index."""
    for i, item in enumerate(node):
        yield node, i
        if isinstance(item, list):
            yield from _places(item)


def _replace_one(head: list[Any], choose: random.Random) -> None:
    places = list(_places(head))
    where, index = choose.choice(places)
    old, others = where[index], [copy.deepcopy(a[i]) for a, i in places if type(a[i]) is type(where[index])]
    if isinstance(old, list) and choose.random() < 0.9:
        at = choose.randrange(len(old) + 1)
        item = choose.choice([choose.choice(others), old[at - 1] if old else 0, choose.randrange(30), [], "raw"])
        edits: list[Callable[[], Any]] = [
            lambda: [*old[:at], item, *old[at:]],
            lambda: [*old[:at], *old[at + 1 :]],
            lambda: [*old, *old],
            lambda: old[::-1],
            list,
            lambda: choose.choice(others),
        ]
        where[index] = choose.choice(edits)()
    elif isinstance(old, int) and not isinstance(old, bool) and choose.random() < 0.9:
        near = [old + 1, max(0, old - 1), old * 2, old ^ 1, choose.choice(others), choose.randrange(30)]
        far = [0, 1, 1 << choose.randrange(64), (1 << 64) - 1, -1, 1 << 60, 256, choose.randrange(1 << 16)]
        where[index] = choose.choice(choose.choice([near, near, far]))
    else:
        where[index] = choose.choice(_ALIEN)


_ALIEN: list[Any] = [0, -1, 0.5, math.nan, math.inf, None, True, "", "raw", "no such codec", b"x", [], [[]], [0, 0], {}]


def _fit(frame: Frame, body: bytes, refs: Mapping[str, Array]) -> bytes:
    """Return the frame with a body of the length that it announces and records that say so."""
    arrays = [dtypes.native(refs[name]) if name in refs else np.zeros(1, np.uint8) for name in frame.refs]
    splits = [leaf[2:] for leaf in frame.root.leaves if leaf[0] == SPLIT]
    data = _Source(body)
    chunks: list[bytes] = []

    def record(program: Program, old: Sequence[int], part: Callable[[Array], Array]) -> tuple[int, ...]:
        stored = sum(leaf[0] in (FLAT, SHAPED) for leaf in program.leaves)
        taken = b"".join(data.take(size) for size in old[1 : 1 + stored])
        chunks.append(taken)
        used = [part(arrays[leaf[1]]) for leaf in program.leaves if leaf[0] == REFERENCE]
        return (checksum(taken), *old[1 : 1 + stored], *map(digest, used))

    pieces = []
    for shape, split in zip(splits, frame.splits, strict=True):
        made = []
        for i, (branch, *old) in enumerate(split.pieces):
            part = functools.partial(reference_part, shape=shape, step=split.step, start=i * split.step)
            made.append((branch, *record(frame.branches[branch], old, part)))
        pieces.append(msgspec.structs.replace(split, pieces=tuple(made)))
    root = record(frame.root, frame.record, lambda whole: whole)
    fitted = msgspec.structs.replace(frame, record=root, splits=tuple(pieces))
    return seal(msgspec.msgpack.encode(fitted.trimmed()), b"".join(chunks))


class _Source:
    """The stored bytes, over and over."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data or b"\0", 0

    def take(self, size: int) -> bytes:
        if size > 1 << 20:
            raise OverflowError("a body of this size is not worth its while")
        start = self.place % len(self.data)
        self.place += size
        return (self.data * ((start + size) // len(self.data) + 1))[start : start + size]

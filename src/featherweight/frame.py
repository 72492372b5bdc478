"""Bytes to Frame and back. Parses and checks; runs no codec, allocates nothing that the bytes do not hold.

A frame is a *head* (what to run) and a *body* (what is stored). FORMAT.md is the norm; in short::

    magic version | length of head | checksum of all that so far and of head | head | body

A head holds programs. A program is a flat list: *leaves* (stored arrays, references, …), then *nodes* (a codec, its
wire record, the edges it reads). Leaves and nodes are numbered in one row, a node reads lower numbers only, and the
last edge is the result. A leaf of the root program may be *split*: its pieces are made by branch programs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import xxhash

from featherweight import dtypes
from featherweight.errors import ArgumentError, FrameError, TruncatedError, UnsupportedError
from featherweight.stage import Spec

__all__ = [
    "BLOCK",
    "FLAT",
    "GIVEN",
    "MAGIC",
    "MAX_NODES",
    "REFERENCE",
    "SHAPED",
    "SPLIT",
    "Frame",
    "Node",
    "Pieces",
    "Positional",
    "Program",
    "Record",
    "body_size",
    "checksum",
    "join",
    "pack_head",
    "parse",
    "parse_head",
    "piece_shape",
    "seal",
    "sizes_and_digests",
    "spec_of",
    "stored_and_digests",
    "whole_rows",
]

MAGIC = b"\xfew"
_FILE = b"\x89FWF"  # how .fw files begin
VERSION = 1
MAX_NODES = 1024
MAX_DIMS = 32
BLOCK = 256  # elements in a row of pieces that have no rows of their own
MAX_HEAD = 1 << 24  # parsed, it takes some ten times that

# Kinds of leaves: (kind, argument, dims…)
FLAT = 0  # (0, dtype): stored, one-dimensional, as long as its bytes say
SHAPED = 1  # (1, dtype, dims…): stored
SPLIT = 2  # (2, dtype, dims…): made of pieces; root program only, the n-th such leaf has the n-th entry of `splits`
REFERENCE = 3  # (3, n): the n-th name in `refs`, of which a piece sees its part
GIVEN = 4  # (4, edge): an edge of the root program, of which a piece sees its part; branch programs only

Integers = tuple[int, ...]
Record = tuple[int, ...]
"""Checksum, the byte sizes of the stored leaves in order, the digests of the references in order."""


class Positional(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Records whose trailing fields are left out where they hold their defaults."""

    def trimmed(self) -> list[Any]:
        """Return what goes on the wire."""
        values = list(msgspec.structs.astuple(self))
        defaults = self.__struct_defaults__
        least = len(values) - len(defaults)
        while len(values) > least and values[-1] == defaults[len(values) - 1 - least]:
            values.pop()
        return [_plain(value) for value in values]


def _plain(value: Any) -> Any:
    if isinstance(value, Positional):
        return value.trimmed()
    if isinstance(value, tuple) and value and isinstance(value[0], Positional):
        return [record.trimmed() for record in value]
    return value


class Node(Positional, frozen=True):
    """One codec at work: `codec` by number, or by name where it is the caller's own."""

    codec: int | str
    streams: Integers
    wire: Any = ()
    given: Integers = ()


class Program(Positional, frozen=True):
    """Leaves, nodes, and (dtype, dims…) of every node but the last, whose result is the program's."""

    leaves: tuple[Integers, ...]
    nodes: tuple[Node, ...] = ()
    specs: tuple[Integers, ...] = ()


class Pieces(Positional, frozen=True):
    """How a split leaf is cut: elements per piece, and per piece its branch and its record."""

    step: int
    pieces: tuple[Integers, ...]


class Frame(Positional, frozen=True):
    """A parsed head: `out` is (dtype, dims…), `record` belongs to the root program."""

    out: Integers
    root: Program
    record: Record
    splits: tuple[Pieces, ...] = ()
    branches: tuple[Program, ...] = ()
    refs: tuple[str, ...] = ()

    @property
    def spec(self) -> Spec:
        """The dtype and shape of the decoded array."""
        return spec_of(self.out)

    @property
    def nbytes(self) -> int:
        """The bytes of the decoded array."""
        spec = self.spec
        return math.prod(spec.shape) * spec.dtype.itemsize


class Parsed(NamedTuple):
    """A frame and the bytes behind it."""

    frame: Frame
    body: memoryview


def checksum(*parts: Any, seed: int = 0) -> int:
    """Return the low 32 bits of xxh3-64; 0 for no bytes at all, so that programs which store nothing pay one byte."""
    if len(parts) == 1:
        return xxhash.xxh3_64_intdigest(parts[0], seed) & 0xFFFFFFFF if len(parts[0]) else 0
    if not any(map(len, parts)):
        return 0
    digest = xxhash.xxh3_64(seed=seed)
    for part in parts:
        digest.update(part)
    return digest.intdigest() & 0xFFFFFFFF


@functools.lru_cache(1024)  # a head names the same few again and again, and each is asked for from many sides
def spec_of(record: Integers) -> Spec:
    """Turn (dtype, dims…) into a Spec; raises FrameError."""
    # NumPy multiplies the lengths that are not 0 and refuses what does not fit 63 bits, of empty arrays too.
    if not record or min(record) < 0 or len(record) > MAX_DIMS + 1 or math.prod(filter(None, record[1:])) >= 1 << 59:
        raise FrameError(f"{list(record)} is no dtype and shape")
    return Spec(dtypes.of(record[0]).dtype, record[1:])


def whole_rows(shape: Sequence[int], step: int) -> bool:
    """Return whether pieces of `step` elements are whole rows, a row being all that shares a first index."""
    row = math.prod(shape[1:])
    return len(shape) > 1 and row > 0 and step % row == 0


def piece_shape(shape: Sequence[int], step: int, start: int) -> tuple[int, ...]:
    """Return the shape of the piece at flat element `start`: whole rows, or blocks that stand in for rows."""
    count = min(step, math.prod(shape) - start)
    if whole_rows(shape, step):
        return (count // math.prod(shape[1:]), *shape[1:])
    return (count // BLOCK, BLOCK) if count % BLOCK == 0 else (count,)


def sizes_and_digests(program: Program, record: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    """Cut a record, which was checked, behind its checksum."""
    stored, _ = stored_and_digests(program)
    return record[1 : 1 + stored], record[1 + stored :]


def stored_and_digests(program: Program) -> tuple[int, int]:
    """Return how many sizes and how many digests follow the checksum in a record of the program."""
    kinds = [leaf[0] for leaf in program.leaves]
    return kinds.count(FLAT) + kinds.count(SHAPED), kinds.count(REFERENCE)


def body_size(frame: Frame) -> int:
    """Return the bytes that the body must have."""
    ends = [2 + stored_and_digests(branch)[0] for branch in frame.branches]  # behind a piece's branch and checksum
    pieces = sum([sum(piece[2 : ends[piece[0]]]) for split in frame.splits for piece in split.pieces])
    return sum(sizes_and_digests(frame.root, frame.record)[0]) + pieces


def pack_head(frame: Frame) -> bytes:
    """Return the head as bytes."""
    return msgspec.msgpack.encode(frame.trimmed())


def parse_head(data: Any) -> Frame:
    """Read a head and check all that can be checked without codecs; raises FrameError or UnsupportedError."""
    try:
        frame = msgspec.msgpack.decode(data, type=Frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"the head is not well-formed: {error}") from None
    check(frame)
    return frame


def join(frame: Frame, body: Iterable[Any]) -> bytes:
    """Put a frame together from its parts."""
    return seal(pack_head(frame), *body)


def seal(head: bytes, *body: Any) -> bytes:
    """Put the bytes of a head, whatever they say, before a body."""
    start = MAGIC + bytes([VERSION]) + _varint(len(head))
    return b"".join([start, checksum(start, head).to_bytes(4, "little"), head, *body])


def parse(data: Any) -> Parsed:
    """Take a frame apart and check the head's checksum.

    Raises TruncatedError, FrameError or UnsupportedError for the bytes, ArgumentError for what is none.
    """
    try:
        view = memoryview(data).cast("B")
    except TypeError:
        raise ArgumentError(f"expected the bytes of a frame, not {type(data).__name__}; open() reads files") from None
    begin = bytes(view[:3])
    if begin[:2] != MAGIC[: len(begin)]:
        file = "; this is a .fw file: open() reads it" if bytes(view[:4]) == _FILE else ""
        raise FrameError(f"not a featherweight frame: it begins otherwise{file}")
    if len(begin) == 3 and begin[2] != VERSION:
        raise UnsupportedError(f"frame version {begin[2]} is not known here: upgrade featherweight")
    length, place = _read_varint(view, 3)
    if length > MAX_HEAD:
        raise FrameError(f"a head of {length} bytes is announced, {MAX_HEAD} are allowed")
    if len(view) < place + 4 + length:
        raise TruncatedError(f"{len(view)} bytes end in the head, which needs {place + 4 + length}")
    head = view[place + 4 : place + 4 + length]
    if checksum(view[:place], head) != int.from_bytes(view[place : place + 4], "little"):
        raise FrameError("the head does not match its checksum")
    frame = parse_head(head)
    body = view[place + 4 + length :]
    expected = body_size(frame)
    if len(body) < expected:
        raise TruncatedError(f"the body has {len(body)} of {expected} bytes")
    if len(body) > expected:
        raise FrameError(f"{len(body) - expected} bytes follow the body")
    return Parsed(frame, body)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(view: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 35:
        if place >= len(view):
            raise TruncatedError(f"{len(view)} bytes end before the head")
        byte = view[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise FrameError("the length of the head is not well-formed")


def check(frame: Frame) -> None:
    """Raise FrameError where the parts of a head contradict each other."""
    spec = frame.spec
    if not frame.root.leaves or sum(leaf[:1] == (SPLIT,) for leaf in frame.root.leaves) != len(frame.splits):
        raise FrameError("the split leaves of the root program are not those that are described")
    _check_program(frame.root, frame, root=True)
    _check_record(frame.record, *stored_and_digests(frame.root))
    if not frame.root.nodes:
        last = frame.root.leaves[-1]
        if last[0] in (SHAPED, SPLIT) and spec_of(last[1:]) != spec:
            raise FrameError("the result has not the shape that the frame announces")
    for branch in frame.branches:
        _check_program(branch, frame, root=False)
    split_leaves = [leaf for leaf in frame.root.leaves if leaf[0] == SPLIT]
    counts = [stored_and_digests(branch) for branch in frame.branches]
    for leaf, split in zip(split_leaves, frame.splits, strict=True):
        count = math.prod(leaf[2:])
        if split.step < 1 or len(split.pieces) != -(-count // split.step):
            raise FrameError(f"{len(split.pieces)} pieces of {split.step} do not make {count} elements")
        for piece in split.pieces:
            if len(piece) < 2 or not 0 <= piece[0] < len(frame.branches):
                raise FrameError("a piece names a branch that is not there")
            _check_record(piece[1:], *counts[piece[0]])


def _check_record(record: Record, stored: int, digests: int) -> None:
    if len(record) != 1 + stored + digests or min(record) < 0:
        found = f"{len(record)} numbers, the least {min(record, default=0)},"
        raise FrameError(f"a record of {found} for {stored} stored leaves and {digests} references")


def _check_program(program: Program, frame: Frame, *, root: bool) -> None:
    leaves, nodes = program.leaves, program.nodes
    if len(nodes) > MAX_NODES or len(leaves) > 8 * MAX_NODES:
        raise FrameError(f"a program of {len(nodes)} nodes and {len(leaves)} leaves; {MAX_NODES} nodes are allowed")
    if not leaves or len(program.specs) != max(0, len(nodes) - 1):
        raise FrameError(f"{len(program.specs)} specs for {len(nodes)} nodes, {len(leaves)} leaves")
    for leaf in leaves:
        _check_leaf(leaf, frame, root=root)
    for spec in program.specs:
        spec_of(spec)
    for i, node in enumerate(nodes):
        inputs = (*node.streams, *node.given)
        if inputs and not (min(inputs) >= 0 and max(inputs) < len(leaves) + i):
            raise FrameError(f"node {i} reads an edge that is not made before it")


def _check_leaf(leaf: Integers, frame: Frame, *, root: bool) -> None:
    kind = leaf[0] if len(leaf) > 1 else -1
    if kind == FLAT and len(leaf) == 2:
        dtypes.of(leaf[1])
    elif kind == SHAPED or (kind == SPLIT and root):
        spec_of(leaf[1:])
    elif kind == REFERENCE and len(leaf) == 2 and 0 <= leaf[1] < len(frame.refs):
        pass
    elif kind == GIVEN and not root and len(leaf) == 2 and leaf[1] >= 0:
        # A split leaf is itself an edge of the root program: branches see what the root has before it runs.
        if leaf[1] >= len(frame.root.leaves) + len(frame.root.nodes):
            raise FrameError("a branch is given an edge that the root program does not have")
    else:
        raise FrameError(f"leaf {list(leaf)} is not understood")

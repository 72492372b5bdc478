"""`.fw`, our container: the bodies of frames one after another, then an index that holds their heads.

Reading one tensor of an open file is one read of just its bytes: the index, read when the file is opened, says what to
run and where every piece lies. Positions are not written but summed up, so that entries can neither overlap nor point
outside. FORMAT.md is the norm; in short::

    magic | padding, body | padding, body | … | index | tail: length and checksum of the index, version, magic
"""

from __future__ import annotations

import bz2
import contextlib
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

import msgspec
import numpy as np

from featherweight import dtypes
from featherweight.decoder import Plan, parts_between, prepare, run, run_range
from featherweight.dtypes import Array
from featherweight.encoder import Coded, Loadable, Mapper, encode_into
from featherweight.engine import MAX_BYTES, check_out, workers
from featherweight.errors import ArgumentError, FrameError, TruncatedError, UnsupportedError, within
from featherweight.formats import Checkpoint, Place, TensorInfo, tensor_info
from featherweight.formats._io import Source, Where, create_target
from featherweight.frame import Frame, body_size, check, checksum
from featherweight.lookups import Lookup
from featherweight.losses import Error, decibels, joined
from featherweight.stage import AnyRecipe, Codec

__all__ = ["MAGIC", "Entry", "FwFile", "FwWriter", "Loss", "create", "read", "write"]

MAGIC = b"\x89FWF\r\n\x1a\n"
VERSION = 1
ALIGNMENT, ALIGNED_FROM = 64, 1 << 16
MAX_INDEX = 1 << 26
_TAIL = struct.Struct("<QIBBH8s")  # length of the index, its checksum, version, coding (0 plain, 1 bzip2), zero, magic
_PLAIN, _BZIP2 = 0, 1
_PREFETCH = 1 << 16


class Loss(NamedTuple):
    """What lossy coding cost a tensor, as the file records it, rounded up: relative squared and largest error."""

    nmse: float
    largest: float

    @property
    def snr(self) -> float:
        """Signal over noise in decibels."""
        return decibels(self.nmse)


class Entry(NamedTuple):
    """A tensor in the file: its frame, where padding and body begin, and what it lost if it is not exact."""

    info: TensorInfo
    frame: Frame
    padding: int
    offset: int
    size: int
    loss: Loss | None = None

    @property
    def stored(self) -> int:
        """The bytes of the file that belong to this tensor, its part of the index aside."""
        return self.padding + self.size


class _Row(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    name: str
    padding: int
    frame: Frame
    loss: tuple[int, int] | None = None


class _Index(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    tensors: tuple[_Row, ...]
    metadata: dict[str, str]
    layout: bytes
    origin: str


@dataclass(frozen=True, eq=False)
class FwFile:
    """An open `.fw` file; reads may run in several threads at once.

    `origin` names the format that the tensors came from ("safetensors", …; "" for arrays); `index_bytes` is what
    index and framing take.
    """

    source: Source
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    layout: bytes
    origin: str
    index_bytes: int

    def plan(
        self, name: str, refs: Mapping[str, Array], codecs: Mapping[str, Codec], max_bytes: int, threads: int
    ) -> Plan:
        """Make a tensor ready to be decoded."""
        with within(name, ": "):
            return prepare(self.entries[name].frame, refs, codecs, max_bytes, threads)

    def read(
        self,
        name: str,
        start: int = 0,
        stop: int | None = None,
        *,
        out: Array | None = None,
        refs: Mapping[str, Array] = {},
        codecs: Mapping[str, Codec] = {},
        max_bytes: int = MAX_BYTES,
        pool: Executor | None = None,
    ) -> Array:
        """Decode the elements [start, stop) in C order, flat, fetching just the pieces they lie in, in one request."""
        entry = self.entries[name]
        stop = entry.info.count if stop is None else stop
        plan = self.plan(name, refs, codecs, max_bytes, workers(None) if pool else 1)
        whole = (start, stop) == (0, entry.info.count)
        with within(name, ": "):
            if out is None:
                out = np.empty(stop - start, plan.spec.dtype)
            else:
                check_out(out, plan.spec.dtype, (stop - start,), [array for _, array in plan.refs])
            if whole:
                run(plan, self._fetch(entry, 0, entry.size), out.reshape(plan.spec.shape), pool)
            elif plan.sliceable:
                parts = parts_between(plan, start, stop)
                if parts:
                    first, last = parts[0].offset, parts[-1].offset + parts[-1].size
                    run_range(plan, self._fetch(entry, first, last), start, stop, out, pool)
            else:
                every = np.empty(plan.spec.shape, plan.spec.dtype)
                run(plan, self._fetch(entry, 0, entry.size), every, pool)
                out[:] = every.reshape(-1)[start:stop]
        return out

    def lookup(
        self, name: str, *, refs: Mapping[str, Array] = {}, codecs: Mapping[str, Codec] = {}, max_bytes: int = MAX_BYTES
    ) -> Lookup:
        """Make a tensor ready for look-ups, which fetch what they need and no sooner."""
        entry = self.entries[name]

        def fetch(offset: int, length: int) -> memoryview:
            return self.source.read(entry.offset + offset, length).data

        return Lookup(self.plan(name, refs, codecs, max_bytes, 1), fetch, max_bytes)

    def sliceable(self, name: str) -> bool:
        """Return whether a part of the tensor costs just that part."""
        frame = self.entries[name].frame
        return not frame.root.nodes and len(frame.splits) == 1

    def _fetch(self, entry: Entry, first: int, last: int) -> Callable[[int, int], Any]:
        """Read the bytes [first, last) of a body at once, padding before them included, and give parts of them."""
        padding = entry.padding if first == 0 else 0
        data = self.source.read(entry.offset + first - padding, last - first + padding)
        if padding and data[:padding].any():
            raise FrameError("the padding before the tensor is not zero: the file is damaged")
        view = data.data

        def fetch(offset: int, length: int) -> memoryview:
            begin = offset - first + padding
            return view[begin : begin + length]

        return fetch


def open_fw(source: Source) -> FwFile:
    """Read the index; raises FrameError, TruncatedError or UnsupportedError for what is no intact `.fw` file."""
    with within(source.name, ": "):
        return _open(source)


def _open(source: Source) -> FwFile:
    size = source.size
    if size < len(MAGIC) + _TAIL.size:
        raise TruncatedError(f"{size} bytes are no featherweight file")
    ahead = min(_PREFETCH, size)
    end = bytes(source.read(size - ahead, ahead))  # with luck the whole index, and of a small file everything
    begin = end[:8] if ahead == size else bytes(source.read(0, 8))
    if begin != MAGIC:
        raise FrameError("not a featherweight file: it begins otherwise")
    length, expected, version, coding, zero, magic = _TAIL.unpack(end[-_TAIL.size :])
    if magic != MAGIC[::-1]:
        raise TruncatedError("the end of the file is missing: it was not written or copied completely")
    if version != VERSION or coding > _BZIP2 or zero:
        raise UnsupportedError(f"version {version}, coding {coding} is not known here: upgrade featherweight")
    place = size - _TAIL.size - length
    if not 0 < length <= MAX_INDEX or place < len(MAGIC):
        raise FrameError(f"an index of {length} bytes is announced in a file of {size}")
    if length + _TAIL.size <= ahead:
        stored = end[-_TAIL.size - length : -_TAIL.size]
    else:
        stored = bytes(source.read(place, length))
    if checksum(stored) != expected:
        raise FrameError("the index does not match its checksum: the file is damaged")
    index = _parse_index(_expand(stored) if coding == _BZIP2 else stored)
    return FwFile(source, _entries(index, place), index.metadata, index.layout, index.origin, size - place + len(MAGIC))


def _expand(stored: bytes) -> bytes:
    unpacker = bz2.BZ2Decompressor()
    try:
        index = unpacker.decompress(stored, MAX_INDEX)
    except (OSError, ValueError) as error:
        raise FrameError(f"the index cannot be unpacked: {error}") from None
    if not unpacker.eof or unpacker.unused_data:
        raise FrameError("the index cannot be unpacked: it is cut short, too long, or something follows it")
    return index


def _parse_index(data: bytes) -> _Index:
    try:
        return msgspec.msgpack.decode(data, type=_Index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"the index is not well-formed: {error}") from None


def _entries(index: _Index, end: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    place = len(MAGIC)
    for row in index.tensors:
        with within(row.name, ": "):
            if row.name in entries:
                raise FrameError("the name occurs twice")
            check(row.frame)
            size = body_size(row.frame)
            if not 0 <= row.padding < ALIGNMENT or place + row.padding + size > end:
                raise FrameError(f"{row.padding} and {size} bytes do not lie in the file")
            info = tensor_info(row.name, dtypes.of(row.frame.out[0]), row.frame.out[1:])
            entries[row.name] = Entry(info, row.frame, row.padding, place + row.padding, size, _loss(row.loss))
            place += row.padding + size
    if place != end:
        raise FrameError(f"{end - place} bytes between the tensors and the index belong to nothing")
    return entries


_NONE, _ENDLESS = -(1 << 15), 1 << 15  # in place of the logarithms of 0 and of infinity


def _loss(row: tuple[int, int] | None) -> Loss | None:
    """Read an error record: NMSE in hundredths of its decimal logarithm, largest error in sixteenths of its binary."""
    if row is None:
        return None
    scales = ((10.0, 100), (2.0, 16))
    return Loss(*(_power(base, level, unit) for (base, unit), level in zip(scales, row, strict=True)))


def _power(base: float, level: int, unit: int) -> float:
    if abs(level) >= _ENDLESS:
        return math.inf if level > 0 else 0.0
    return float(base ** (level / unit))


def _level(value: float, logarithm: Callable[[float], float], unit: int) -> int:
    if not 0 < value < math.inf:
        return _NONE if value == 0 else _ENDLESS
    return math.ceil(logarithm(value) * unit)


def _loss_row(error: Error | None) -> tuple[int, int] | None:
    if error is None:
        return None
    return _level(error.nmse, math.log10, 100), _level(error.largest, math.log2, 16)


class _Written(NamedTuple):
    """A tensor of a file that is being written: where its body lies, and what the index will say of it."""

    place: int
    size: int
    padding: int
    aligned: bool
    dimensions: int
    error: Error | None
    said: list[Any]


class FwWriter:
    """Writes tensors one after another; see `create`.

    `size` is the file's in the end.
    """

    def __init__(self, target: _Writable, metadata: Mapping[str, str], layout: bytes, origin: str) -> None:
        self._target = target
        self._index = _Index((), dict(metadata), layout, origin)
        self._written: dict[str, _Written] = {}
        self.size = 0
        target.write(MAGIC)

    def encode(
        self,
        name: str,
        x: Array,
        recipe: AnyRecipe,
        *,
        refs: Mapping[str, Array] = {},
        mapper: Mapper = map,
        locate: Callable[[int, int], Loadable] | None = None,
    ) -> None:
        """Code a tensor and write its body as it is made."""
        # How long the body gets, and so whether it is worth aligning, is known only afterwards: ask the input.
        padding = self._begin(name, aligned := x.nbytes >= ALIGNED_FROM)
        with within(name, ": "):
            coded = encode_into(self._target.write, x, recipe, refs=refs, mapper=mapper, locate=locate, measure=True)
        self._add(name, padding, aligned, coded)

    def put(self, name: str, coded: Coded, body: Sequence[Array]) -> None:
        """Write a tensor that has been coded already."""
        padding = self._begin(name, aligned := sum(map(len, body)) >= ALIGNED_FROM)
        for data in body:
            self._target.write(data)
        self._add(name, padding, aligned, coded)

    def take(self, name: str, other: FwWriter, file: BinaryIO) -> None:
        """Write a tensor as another writer has written it into a file."""
        found = other._written[name]
        padding, place = self._begin(name, found.aligned), self._target.tell()
        file.seek(found.place)
        for start in range(0, found.size, 1 << 20):
            self._target.write(file.read(min(found.size - start, 1 << 20)))
        self._written[name] = found._replace(place=place, padding=padding)

    def _add(self, name: str, padding: int, aligned: bool, coded: Coded) -> None:
        size, loss = body_size(coded.frame), _loss_row(coded.error)
        said = [coded.frame.trimmed(), *([] if loss is None else [loss])]
        place, dimensions = self._target.tell() - size, len(coded.frame.out) - 1
        self._written[name] = _Written(place, size, padding, aligned, dimensions, coded.error, said)

    @property
    def tensors(self) -> dict[str, tuple[int, Error | None]]:
        """The bytes and the error of each."""
        return {name: (each.padding + each.size, each.error) for name, each in self._written.items()}

    @property
    def error(self) -> Error:
        """That of the lossy tensors so far."""
        return joined((each.dimensions, each.error) for each in self._written.values())

    def _begin(self, name: str, aligned: bool) -> int:
        if name in self._written:
            raise ArgumentError("the name is given twice", path=name)
        padding = -self._target.tell() % ALIGNMENT if aligned else 0
        self._target.write(bytes(padding))
        return padding

    def finish(self) -> None:
        """Write index and tail."""
        rows = [[name, each.padding, *each.said] for name, each in self._written.items()]
        index = msgspec.msgpack.encode([rows, self._index.metadata, self._index.layout, self._index.origin])
        coding, stored = _PLAIN, index
        # bzip2's own implementation is the only one there is, so its bytes are the same everywhere.
        if len(index) < 1 << 22 and len(packed := bz2.compress(index)) < len(index):
            coding, stored = _BZIP2, packed
        self._target.write(stored)
        self._target.write(_TAIL.pack(len(stored), checksum(stored), VERSION, coding, 0, MAGIC[::-1]))
        self.size = self._target.tell()


class _Writable(Protocol):
    def write(self, data: Any, /) -> object: ...

    def tell(self) -> int: ...


@contextlib.contextmanager
def create(
    where: Where, *, metadata: Mapping[str, str] = {}, layout: bytes = b"", origin: str = ""
) -> Iterator[FwWriter]:
    """Write a `.fw` file; it appears when the block ends, and nothing has changed when it raises."""
    with create_target(where) as target:
        writer = FwWriter(target, metadata, layout, origin)
        yield writer
        writer.finish()


def read(source: Source) -> Checkpoint:
    """Present a `.fw` file as any other checkpoint; raises BaseMismatchError later where a tensor needs a base."""
    file = open_fw(source)
    tensors = {name: entry.info for name, entry in file.entries.items()}

    def fetch(info: TensorInfo, start: int, stop: int) -> Array:
        array = file.read(info.name, start, stop)
        array.flags.writeable = False
        return array

    return Checkpoint("fw", tensors, file.metadata, file.layout, False, fetch, source, source.close, file)


@contextlib.contextmanager
def write(where: Where, infos: Sequence[TensorInfo], metadata: Mapping[str, str], layout: bytes) -> Iterator[Place]:
    """Refuse: a `.fw` file is encoded, with a recipe."""
    raise ArgumentError("a .fw file is made by encoding: `featherweight encode`, or save_file")
    yield  # type: ignore[unreachable]

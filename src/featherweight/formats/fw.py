"""`.fw`, our container: the bodies of frames one after another, then an index that holds their heads.

Reading one tensor of an open file is one read of just its bytes: the index, read when the file is opened, says what to
run and where every piece lies. Positions are not written but summed up, so that entries can neither overlap nor point
outside. FORMAT.md is the norm; in short::

    magic | padding, body | padding, body | … | index | tail: length and checksum of the index, version, magic
"""

from __future__ import annotations

import collections
import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from featherweight import dtypes
from featherweight.decoder import Plan, parts_between, prepare, run, run_range
from featherweight.dtypes import Array
from featherweight.engine import MAX_BYTES, check_out
from featherweight.errors import ArgumentError, FrameError, within
from featherweight.formats import Checkpoint, Place, TensorInfo, tensor_info
from featherweight.formats._index import ALIGNMENT, MAGIC, Index, Loss, Part, Row, Said, loss_of, unpack
from featherweight.formats._io import Source, Where
from featherweight.frame import Frame, body_size, check
from featherweight.lookups import Lookup
from featherweight.stage import Codec
from featherweight.threads import workers

__all__ = ["Entry", "FwFile", "read", "write"]

_HELD = 1 << 26  # bytes of decoded bundles that an open file holds
_MOST = 1 << 20  # tensors of a file


class Entry(NamedTuple):
    """A tensor in the file: its frame, where padding and body begin, and what is said of its error if it is not exact.

    Where its frame holds a `bundle` of tensors, it is the elements from `start` on.
    """

    info: TensorInfo
    frame: Frame
    padding: int
    offset: int
    size: int
    said: Said | None = None
    start: int = 0
    bundle: tuple[str, ...] = ()

    @property
    def loss(self) -> Loss | None:
        """The error that the file records."""
        return loss_of(self.said)

    @property
    def stored(self) -> int:
        """The bytes of the file that belong to this tensor, its part of the index aside; of a bundle's its share."""
        stored = self.padding + self.size
        if not self.bundle:
            return stored
        total = max(1, math.prod(self.frame.out[1:]))
        return stored * (self.start + self.info.count) // total - stored * self.start // total


class _Bundles:
    """Decoded bundles, the last ones as far as there is room."""

    def __init__(self) -> None:
        self._lock, self._found = threading.Lock(), collections.OrderedDict[int, Array]()

    def get(self, offset: int) -> Array | None:
        """Return the elements of the bundle whose body lies there."""
        with self._lock:
            if offset in self._found:
                self._found.move_to_end(offset)
            return self._found.get(offset)

    def put(self, offset: int, elements: Array) -> None:
        """Hold elements."""
        with self._lock:
            self._found[offset] = elements
            while sum(each.nbytes for each in self._found.values()) > _HELD:
                self._found.popitem(last=False)


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
    _bundles: _Bundles = field(default_factory=_Bundles)

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
        if entry.bundle:
            found = self.bundle(name, codecs, max_bytes)[entry.start + start : entry.start + stop]
            if out is None:
                return found.copy()
            check_out(out, found.dtype, found.shape, [])
            out[:] = found
            return out
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

    def whole(self, name: str, codecs: Mapping[str, Codec], max_bytes: int) -> Array:
        """Decode the elements of all tensors of the bundle that a tensor is in, flat, one tensor behind another."""
        entry, plan = self.entries[name], self.plan(name, {}, codecs, max_bytes, 1)
        elements = np.empty(plan.spec.shape, plan.spec.dtype)
        with within(name, ": "):
            run(plan, self._fetch(entry, 0, entry.size), elements)
        return elements.reshape(-1)

    def bundle(self, name: str, codecs: Mapping[str, Codec], max_bytes: int) -> Array:
        """Return these elements, which are kept and must stay as they are."""
        offset = self.entries[name].offset
        elements = self._bundles.get(offset)
        if elements is None:
            elements = self.whole(name, codecs, max_bytes)
            self._bundles.put(offset, elements)
        return elements

    def lookup(
        self, name: str, *, refs: Mapping[str, Array] = {}, codecs: Mapping[str, Codec] = {}, max_bytes: int = MAX_BYTES
    ) -> Lookup:
        """Make a tensor ready for look-ups, which fetch what they need and no sooner."""
        entry = self.entries[name]

        def fetch(offset: int, length: int) -> memoryview:
            return self.source.read(entry.offset + offset, length).data

        part = (entry.start, entry.info.shape) if entry.bundle else None
        return Lookup(self.plan(name, refs, codecs, max_bytes, 1), fetch, max_bytes, part)

    def sliceable(self, name: str) -> bool:
        """Return whether a part of the tensor costs just that part."""
        frame, bundle = self.entries[name].frame, self.entries[name].bundle
        return not bundle and not frame.root.nodes and len(frame.splits) == 1

    def bodies(self) -> Iterator[tuple[str, ...]]:
        """Name the tensors, those of each body together."""
        told = set[str]()
        for name, entry in self.entries.items():
            if name not in told:
                told.update(entry.bundle)
                yield entry.bundle or (name,)

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
    index, place = unpack(source)
    entries = _in_order(index, _entries(index.bodies, place))
    return FwFile(source, entries, index.metadata, index.layout, index.origin, source.size - place + len(MAGIC))


def _entries(rows: Sequence[Row], end: int) -> list[list[Entry]]:
    """Check what the rows say, and return the tensors of each."""
    found, names, place = list[list[Entry]](), set[str](), len(MAGIC)
    for row in rows:
        parts = _parts(row)
        with within(parts[0].name, ": "):
            check(row.frame)
            size = body_size(row.frame)
            if not 0 <= row.padding < ALIGNMENT or place + row.padding + size > end:
                raise FrameError(f"{row.padding} and {size} bytes do not lie in the file")
            if len(names) + len(parts) > _MOST:
                raise FrameError(f"a file of more than {_MOST} tensors")
            found.append(_tensors(row, parts, place + row.padding, size))
            for part in parts:
                if part.name in names:
                    raise FrameError(f"the name {part.name!r} occurs twice")
                names.add(part.name)
        place += row.padding + size
    if place != end:
        raise FrameError(f"{end - place} bytes between the tensors and the index belong to nothing")
    return found


def _parts(row: Row) -> tuple[Part, ...]:
    """Return the tensors of a row, one or a bundle."""
    if isinstance(row.name, str):
        return (Part(row.name, row.frame.out[1:], row.loss),)
    if len(row.name) < 2 or row.loss or row.frame.refs:
        raise FrameError("a bundle is of two tensors or more, which have errors each of its own and no references")
    return row.name


def _tensors(row: Row, parts: tuple[Part, ...], offset: int, size: int) -> list[Entry]:
    kind, start, found = dtypes.of(row.frame.out[0]), 0, list[Entry]()
    bundle = tuple([part.name for part in parts]) if len(parts) > 1 else ()
    for part in parts:
        info = tensor_info(part.name, kind, part.shape)
        found.append(Entry(info, row.frame, row.padding, offset, size, part.loss, start, bundle))
        start += info.count
    if bundle and start != math.prod(row.frame.out[1:]):
        raise FrameError(f"a bundle of {start} elements in a frame of {list(row.frame.out[1:])}")
    return found


def _in_order(index: Index, rows: list[list[Entry]]) -> dict[str, Entry]:
    """Return entries by name, in the order in which the source had the tensors."""
    if not index.order:
        return {entry.info.name: entry for entries in rows for entry in entries}
    turns, found = [iter(entries) for entries in rows], dict[str, Entry]()
    for number in index.order:
        entry = next(turns[number], None) if 0 <= number < len(turns) else None
        if entry is None:
            raise FrameError(f"the order names row {number} too often, or there is none")
        found[entry.info.name] = entry
    if len(found) != sum(map(len, rows)):
        raise FrameError("the order leaves tensors out")
    return found


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

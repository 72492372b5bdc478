"""Checkpoint formats: one interface to read tensors from a file, and one to write them.

>>> import io
>>> file = io.BytesIO()
>>> infos = [tensor_info("w", dtypes.of("F32"), (2, 3))]
>>> with write_checkpoint(file, infos, format="safetensors") as out, out.tensor("w") as flat:
...     flat[:] = range(6)
>>> with open_checkpoint(file) as checkpoint:
...     checkpoint.read("w", 2, 4)
array([2., 3.], dtype=float32)

A format is a module here with ``read(source) -> Checkpoint`` and ``write(where, infos, metadata, layout)``, a context
manager that gives a `Place`, and a line in `FORMATS`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar, cast

import msgspec

from featherweight import dtypes
from featherweight.dtypes import Array, ElementType
from featherweight.errors import ArgumentError, FrameError, UnsupportedError
from featherweight.formats._io import Source, Where, file_name, is_stream, open_source

__all__ = [
    "FORMATS",
    "Checkpoint",
    "Place",
    "TensorInfo",
    "Writer",
    "open_checkpoint",
    "pack_layout",
    "read_layout",
    "tensor_info",
    "write_checkpoint",
]

_Layout = TypeVar("_Layout", bound=msgspec.Struct)

# By the end of the name; the longest that fits is taken.
FORMATS = {
    ".safetensors": "safetensors",
    ".safetensors.index.json": "sharded",
    ".npz": "npz",
    ".fw": "fw",
}

# By the first bytes, where the name says nothing; safetensors begins with a length and then a brace.
MAGICS = {
    b"PK\x03\x04": "npz",
    b"PK\x05\x06": "npz",
    b"\x89FWF": "fw",
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a checkpoint says of a tensor before its elements are read."""

    name: str
    kind: ElementType
    shape: tuple[int, ...]
    count: int  # of elements

    @property
    def packed(self) -> int:
        """The bytes that the elements take in a file."""
        return dtypes.packed_bytes(self.kind, self.count)


def tensor_info(name: str, kind: ElementType, shape: Sequence[int]) -> TensorInfo:
    """Return the description of a tensor, or raise FrameError for a shape that no array can have."""
    if len(shape) > 64:
        raise UnsupportedError(f"{len(shape)} dimensions: arrays have 64 at most", path=name)
    count = _count(tuple(shape), kind.dtype.itemsize)
    if count is None:
        raise FrameError(f"no array has the shape {list(shape)}", path=name)
    return TensorInfo(name, kind, tuple(shape), count)


@functools.lru_cache(1024)  # many tensors have one of few shapes
def _count(shape: tuple[int, ...], size: int) -> int | None:
    """Return the number of elements of so many bytes; None where no array is of this shape."""
    for dimension in shape:
        size *= dimension or 1
        if dimension < 0 or size >= 1 << 63:
            return None
    return math.prod(shape)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Something that can be read tensor by tensor, from several threads at once.

    `tensors` are in the order of the file. `layout` is what, beside tensors and metadata, is needed to write the
    file again, b"" where nothing is; `canonical` says that writing it again with them gives the same bytes.
    """

    format: str
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    layout: bytes
    canonical: bool
    fetch: Callable[[TensorInfo, int, int], Array]
    source: Source | None = None
    on_close: Callable[[], None] = lambda: None
    container: object = None  # what the format itself calls the open file, for who knows it
    shards: tuple[Source, ...] = ()  # the files that hold the tensors, where `source` does not

    @property
    def name(self) -> str:
        """What messages call this checkpoint."""
        return self.source.name if self.source else self.format

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(source.size for source in (self.source, *self.shards) if source)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Return the elements from `start` to `stop` in C order, as a flat read-only array.

        A view of the file where that is local and holds them as memory does, else a copy.
        """
        info = self.tensors.get(name)
        if info is None:
            raise ArgumentError(f"there is no tensor {name!r}")
        stop = info.count if stop is None else stop
        if not 0 <= start <= stop <= info.count:
            raise ArgumentError(f"elements {start} to {stop} of {info.count} do not exist", path=name)
        return self.fetch(info, start, stop)

    def close(self) -> None:
        """Let go of the file; arrays that were read stay valid."""
        self.on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Place = Callable[[TensorInfo], AbstractContextManager[Array]]


class Writer:
    """The tensors of a checkpoint that is being written, to be filled in any order and by several threads."""

    def __init__(self, infos: Iterable[TensorInfo], place: Place) -> None:
        self._missing = {info.name: info for info in infos}
        self._infos = dict(self._missing)
        self._place = place

    @contextlib.contextmanager
    def tensor(self, name: str) -> Iterator[Array]:
        """Give the flat array to be filled, which belongs to the file when the block ends without an exception.

        It is the mapped file itself where that is laid out as memory is.
        """
        if name not in self._infos:
            raise ArgumentError(f"there is no tensor {name!r} in this file")
        with self._place(self._infos[name]) as flat:
            yield flat
        self._missing.pop(name, None)

    def put(self, name: str, array: Array) -> None:
        """Write an array that is at hand."""
        with self.tensor(name) as flat:
            if array.size != flat.size or array.dtype != flat.dtype:
                raise ArgumentError(f"{array.dtype}[{array.size}] given for {flat.dtype}[{flat.size}]", path=name)
            flat[:] = array.reshape(-1)

    def check_complete(self) -> None:
        """Raise ArgumentError unless every tensor has been written."""
        if self._missing:
            raise ArgumentError("the tensor was never written", path=next(iter(self._missing)))


class _Format(Protocol):
    def read(self, source: Source) -> Checkpoint: ...

    def write(
        self, where: Where, infos: Sequence[TensorInfo], metadata: Mapping[str, str], layout: bytes
    ) -> AbstractContextManager[Place]: ...


def open_checkpoint(where: Where) -> Checkpoint:
    """Open a local path, an fsspec URL or a seekable binary file object.

    The first bytes say the format where they can; where they cannot, the end of the name does.
    """
    source = open_source(where)
    try:
        return _module(_by_content(source) or _by_name(source.where) or _unknown(source)).read(source)
    except BaseException:
        source.close()
        raise


@contextlib.contextmanager
def write_checkpoint(
    where: Where,
    infos: Sequence[TensorInfo],
    *,
    metadata: Mapping[str, str] | None = None,
    layout: bytes = b"",
    format: str | None = None,  # the word that people know
) -> Iterator[Writer]:
    """Write a checkpoint; the file appears when the block ends, and does not when it raises.

    `format` is needed where the end of the name does not say it. `layout` is that of the checkpoint that is
    written again; one of another format is ignored. Raises ArgumentError for what the format cannot hold.
    """
    kind = _by_name(where) or format
    if kind is None:
        known = ", ".join(FORMATS)
        raise ArgumentError(f"name a format, or let the file end in one of {known}", path=file_name(where))
    names = set()
    for info in infos:
        if info.name in names:
            raise ArgumentError("the name is given twice", path=info.name)
        names.add(info.name)
    with _module(kind).write(where, infos, metadata or {}, layout) as place:
        writer = Writer(infos, place)
        yield writer
        writer.check_complete()


def pack_layout(kind: str, layout: msgspec.Struct) -> bytes:
    """Return a layout as bytes that say whose they are."""
    return msgspec.msgpack.encode((kind, layout))


def read_layout(kind: str, record: type[_Layout], layout: bytes) -> _Layout | None:
    """Return a layout, or None where there is none or it is of another kind; raise FrameError for other bytes."""
    if not layout:
        return None
    try:
        found, body = msgspec.msgpack.decode(layout, type=tuple[str, msgspec.Raw])
        return msgspec.msgpack.decode(body, type=record) if found == kind else None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise FrameError(f"the layout cannot be read: {error}") from error


def _by_name(where: Where) -> str | None:
    if is_stream(where):
        return None
    name = file_name(where).lower()
    fitting = [suffix for suffix in FORMATS if name.endswith(suffix)]
    return FORMATS[max(fitting, key=len)] if fitting else None


def _by_content(source: Source) -> str | None:
    start = bytes(source.read(0, min(9, source.size)))
    kind = next((kind for magic, kind in MAGICS.items() if start.startswith(magic)), None)
    # A .fw file may go on with any byte; a length that began like one would be past every limit.
    return "safetensors" if start[8:] == b"{" and kind != "fw" else kind


def _unknown(source: Source) -> str:
    hint = "; pickles (.pt, .bin) must be saved as safetensors first" if source.name.endswith((".pt", ".bin")) else ""
    raise UnsupportedError(f"neither safetensors nor npz nor fw{hint}", path=source.name)


def _module(kind: str) -> _Format:
    if kind not in FORMATS.values():
        raise ArgumentError(f"unknown format {kind!r}: expected one of {', '.join(FORMATS.values())}")
    return cast("_Format", importlib.import_module(f"featherweight.formats.{kind}"))

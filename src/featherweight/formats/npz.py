"""npz: a zip file of ``.npy`` members, as `numpy.savez` and `numpy.savez_compressed` write it.

Nothing is ever unpickled. A member that is stored as it is stays in the file until it is read; a compressed one, and
one in Fortran order, is kept in scratch space while it is the latest to be read. The *layout* says which members
were compressed. Values, names, order, dtypes and shapes come back; a big-endian or Fortran-ordered member comes back
native and in C order, and the bytes of the file are promised to nobody, so `Checkpoint.canonical` is False.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import threading
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from featherweight import dtypes
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FeatherweightError, FrameError, TruncatedError, UnsupportedError, within
from featherweight.formats import Checkpoint, Place, TensorInfo, pack_layout, read_layout, tensor_info
from featherweight.formats._elements import view
from featherweight.formats._io import Source, Where, create_target, file_name, naming, scratch

__all__ = ["Layout", "read", "write"]

_MAX_RATIO = 1032  # deflate cannot do better
_MAX_HEADER = 1 << 16


class _BadSeekError(OSError):
    """A place before the file's beginning; zipfile expects an OSError where there is no directory."""


# All that zipfile, zlib and numpy.lib.format are known to raise on bad bytes.
_BAD_BYTES = (
    _BadSeekError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    MemoryError,
)


class Layout(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The names of the members that were compressed."""

    compressed: tuple[str, ...]


class _Member(NamedTuple):
    entry: zipfile.ZipInfo
    info: TensorInfo
    dtype: np.dtype[Any]  # as the file has it, byte order included
    fortran: bool
    start: int  # of the elements, in the member


class _SourceFile(io.RawIOBase):
    """A source as a file object, for zipfile."""

    def __init__(self, source: Source) -> None:
        self._source, self._place = source, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = 0) -> int:
        place = offset + (0, self._place, self._source.size)[whence]
        if place < 0:
            raise _BadSeekError("an offset before the file's beginning")
        self._place = place
        return place

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self._source.size - self._place))
        buffer[:count] = self._source.read(self._place, count).data
        self._place += count
        return count


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except FeatherweightError:
        raise
    except NotImplementedError as error:
        raise UnsupportedError(f"a kind of zip file that is not read here: {error}") from error
    except _BAD_BYTES as error:
        raise FrameError(f"damaged, or no npz file: {error}") from error


def read(source: Source) -> Checkpoint:
    """Open a file and read the headers of its members."""
    members: dict[str, _Member] = {}
    with within(source.name, ": "), _refusing():
        try:
            archive = zipfile.ZipFile(io.BufferedReader(_SourceFile(source)))
        except zipfile.BadZipFile as error:
            if source.size < 4 or source.read(0, 4).tobytes() == b"PK\x03\x04":
                raise TruncatedError(f"the zip directory at the end is missing or damaged: {error}") from error
            raise
        for entry in archive.infolist():
            member = _member(archive, entry, source)
            if member.info.name in members:
                raise FrameError("the name is there twice", path=member.info.name)
            members[member.info.name] = member
    compressed = tuple(name for name, member in members.items() if member.entry.compress_type != zipfile.ZIP_STORED)
    return Checkpoint(
        format="npz",
        tensors={name: member.info for name, member in members.items()},
        metadata={},
        layout=pack_layout("npz", Layout(compressed)) if compressed else b"",
        canonical=False,
        fetch=_Reader(source, archive, members).fetch,
        source=source,
        on_close=source.close,
    )


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, source: Source) -> _Member:
    name = entry.filename.removesuffix(".npy")
    with within(name), _refusing():
        if name == entry.filename or entry.flag_bits & 1:
            raise UnsupportedError("not an .npy member, or an encrypted one")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsupportedError(f"zip compression method {entry.compress_type}: save it with numpy.savez")
        largest = entry.compress_size * (_MAX_RATIO if entry.compress_type else 1)
        if entry.compress_size > source.size or entry.file_size > largest:
            raise FrameError(f"{entry.file_size} bytes cannot be in {entry.compress_size} of {source.size}")
        with archive.open(entry) as file:
            shape, fortran, dtype = _npy_header(file)
            start = file.tell()
        info = dataclasses.replace(tensor_info("", _kind(dtype), shape), name=name)
        if start + info.count * dtype.itemsize != entry.file_size:
            raise FrameError(f"{entry.file_size - start} bytes for {dtype}{list(shape)}")
        return _Member(entry, info, dtype, fortran and len(shape) > 1, start)


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file, max_header_size=_MAX_HEADER)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file, max_header_size=_MAX_HEADER)
    raise UnsupportedError(f"npy version {version[0]}.{version[1]} is for structured arrays, which are not supported")


def _kind(dtype: np.dtype[Any]) -> dtypes.ElementType:
    if dtype.hasobject:
        raise UnsupportedError("Python objects, which only unpickling could read: never done here, save plain arrays")
    if dtype.kind == "V":
        raise UnsupportedError(
            f"{dtype.itemsize}-byte elements without a type: npz loses bfloat16 and its like, save as safetensors"
        )
    try:
        return dtypes.of(dtype)
    except ArgumentError as error:
        raise UnsupportedError(error.message) from error


class _Reader:
    """Reads elements; the bytes of a member are checked against its checksum when it is first read."""

    def __init__(self, source: Source, archive: zipfile.ZipFile, members: Mapping[str, _Member]) -> None:
        self._source, self._archive, self._members = source, archive, members
        self._lock = threading.Lock()
        self._mapped: dict[str, Array] = {}
        self._latest: tuple[str, Array] = ("", np.empty(0, np.uint8))

    def fetch(self, info: TensorInfo, start: int, stop: int) -> Array:
        member = self._members[info.name]
        self._source.read(0, 0)  # refuses once the file is closed
        with self._lock, within(self._source.name, ": "), within(info.name), _refusing():
            data = self._data(member)
        size = member.dtype.itemsize
        part = data[start * size : stop * size]
        return view(part, info.kind) if member.dtype.byteorder != ">" else _native(part, member.dtype)

    def _data(self, member: _Member) -> Array:
        name = member.info.name
        if name in self._mapped:
            return self._mapped[name]
        if name != self._latest[0]:
            simple = member.entry.compress_type == zipfile.ZIP_STORED
            data = self._stored(member) if simple else self._inflated(member)
            if simple and not member.fortran and self._source.local:
                self._mapped[name] = data
                return data
            self._latest = (name, _in_c_order(data, member) if member.fortran else data)
        return self._latest[1]

    def _stored(self, member: _Member) -> Array:
        entry = member.entry
        head = self._source.read(entry.header_offset, 30)
        begin = entry.header_offset + 30 + int(head[26:28].view("<u2")[0]) + int(head[28:30].view("<u2")[0])
        data = self._source.read(begin, entry.file_size)
        if zlib.crc32(data.data) != entry.CRC:
            raise FrameError("the checksum is wrong")
        return data[member.start :]

    def _inflated(self, member: _Member) -> Array:
        data = scratch(member.entry.file_size)
        with self._archive.open(member.entry) as file:
            place = 0
            while block := file.read(1 << 20):  # checks the checksum at the end
                data[place : place + len(block)] = np.frombuffer(block, np.uint8)
                place += len(block)
        if place != data.size:
            raise TruncatedError(f"{place} bytes where {data.size} are announced")
        return data[member.start :]


def _in_c_order(data: Array, member: _Member) -> Array:
    ordered = scratch(data.size)
    source = data.view(np.dtype((np.void, member.dtype.itemsize))).reshape(member.info.shape, order="F")
    ordered.view(source.dtype).reshape(member.info.shape)[...] = source
    return ordered


def _native(part: Array, dtype: np.dtype[Any]) -> Array:
    elements = part.view(dtype).astype(dtype.newbyteorder("="))
    elements.flags.writeable = False
    return elements


@contextlib.contextmanager
def write(where: Where, infos: Sequence[TensorInfo], metadata: Mapping[str, str], layout: bytes) -> Iterator[Place]:
    """Write a file as `numpy.savez` does; members whose turn has not come wait in scratch space.

    Raises ArgumentError for metadata and for element types that npz cannot hold.
    """
    with within(file_name(where), ": "):
        own = read_layout("npz", Layout, layout)
        if metadata:
            raise ArgumentError("npz holds no metadata: drop it, or write safetensors")
        for info in infos:
            if info.kind.dtype.type.__module__ != "numpy":
                raise ArgumentError(f"npz cannot hold {info.kind.name}: write safetensors", path=info.name)
            if "\0" in info.name or not info.name.isprintable():
                raise ArgumentError("npz allows no tensor of this name", path=ascii(info.name))
    compressed = frozenset(own.compressed if own else ())
    waiting: dict[str, Array] = {}
    queue = [info.name for info in reversed(infos)]
    lock = threading.Lock()
    with create_target(where) as target:
        archive = zipfile.ZipFile(target.file, "w")

        @contextlib.contextmanager
        def place(info: TensorInfo) -> Iterator[Array]:
            flat = scratch(info.count * info.kind.dtype.itemsize).view(info.kind.dtype)
            yield flat
            with lock:
                waiting[info.name] = flat.reshape(info.shape)
                while queue and queue[-1] in waiting:
                    name = queue.pop()
                    with naming(target.name):
                        _write_member(archive, name, waiting.pop(name), name in compressed)

        try:
            yield place
        except BaseException:
            with contextlib.suppress(Exception):
                archive.close()
            raise
        with naming(target.name):
            archive.close()


def _write_member(archive: zipfile.ZipFile, name: str, array: Array, compressed: bool) -> None:
    entry = zipfile.ZipInfo(f"{name}.npy")
    entry.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with archive.open(entry, "w", force_zip64=True) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)

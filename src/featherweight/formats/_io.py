"""Where the bytes of a checkpoint come from and where they go: local files, fsspec URLs and file objects.

Strategy: a source answers reads at any offset from any thread; a local one is mapped, so that reading is free.
A target is composed in a temporary file and *published* when everything has gone well: renamed into place, sent to
its store, or copied into the file object. Nobody ever sees half of one, and every target can be mapped.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeGuard

import numpy as np

from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, MissingDependencyError, TruncatedError

__all__ = [
    "Source",
    "Target",
    "Where",
    "create_target",
    "exists",
    "file_name",
    "is_stream",
    "naming",
    "open_source",
    "scratch",
    "sibling",
]

Where = str | os.PathLike[str] | BinaryIO

_IN_MEMORY = 1 << 26  # scratch space up to this many bytes is ordinary memory


class Source:
    """Bytes to be read at any offset, from several threads at once.

    `local` is the path of a mapped file, whose arrays are views of the map: they stay valid after `close`, but a
    file that somebody cuts short while it is mapped takes the process down, as with every map.
    """

    def __init__(
        self, where: Where, name: str, size: int, fetch: Callable[[int, int], Any], local: Path | None = None
    ) -> None:
        self.where, self.name, self.size, self.local = where, name, size, local
        self._fetch: Callable[[int, int], Any] | None = fetch

    def read(self, offset: int, length: int) -> Array:
        """Return `length` bytes as a read-only u8 array, in one request where the source is remote.

        Raises TruncatedError where the file ends before them.
        """
        if self._fetch is None:
            raise ArgumentError("the file is closed", path=self.name)
        if offset < 0 or length < 0 or offset + length > self.size:
            needed = f"bytes {offset} to {offset + length} are needed"
            raise TruncatedError(f"the file ends at byte {self.size}, {needed}", path=self.name)
        data = np.frombuffer(self._fetch(offset, length) if length else b"", np.uint8)
        if data.size > length:
            raise OSError(errno.EIO, f"asked for {length} bytes and got {data.size}: no byte ranges here", self.name)
        if data.size < length:
            raise TruncatedError(f"the file ends at byte {offset + data.size} of {self.size}", path=self.name)
        data.flags.writeable = False
        return data

    def close(self) -> None:
        """Let go of the file; arrays that were read stay valid."""
        self._fetch = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(where: Where) -> Source:
    """Open a local path, an fsspec URL or a seekable binary file object (which stays open) for reading."""
    if is_stream(where):
        return _stream_source(where)
    path = _path(where)
    if "://" not in path:
        return _mapped(where, Path(path))
    store, inside = _store(path)
    if store is None:
        return _mapped(where, Path(inside))
    size = store.size(inside)
    if size is None:
        raise ArgumentError("the store does not tell the size of the file: copy it to a local one", path=path)
    return Source(where, path, int(size), lambda start, n: store.cat_file(inside, start=start, end=start + n))


def _mapped(where: Where, path: Path) -> Source:
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # opening a pipe would wait for its writer
        raise ArgumentError("not a regular file: copy it to one, or read it into io.BytesIO", path=str(path))
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        data: Any = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) if size else b""
    whole = np.frombuffer(data, np.uint8)
    return Source(where, str(path), size, lambda start, length: whole[start : start + length], local=path)


def _stream_source(file: BinaryIO) -> Source:
    lock = threading.Lock()

    def fetch(offset: int, length: int) -> bytes:
        parts = []
        with lock:
            file.seek(offset)
            while length and (part := file.read(length)):
                parts.append(part)
                length -= len(part)
        return b"".join(parts)

    try:
        size = file.seek(0, os.SEEK_END)
        binary = isinstance(file.read(0), bytes)
    except (OSError, AttributeError) as error:
        raise ArgumentError("expected a seekable file object", path=file_name(file)) from error
    if not binary:
        raise ArgumentError('expected a binary file object: open it with "rb"', path=file_name(file))
    return Source(file, file_name(file), size, fetch)


class Target:
    """A file that is being composed: written once from front to back, or mapped.

    `file` is the temporary file itself, for who must seek in it.
    """

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name, self.file = name, file
        self._mapping: mmap.mmap | None = None

    def write(self, data: Any) -> None:
        """Append the bytes of an array or of any other contiguous buffer."""
        raw = data.reshape(-1).view(np.uint8).data if isinstance(data, np.ndarray) else memoryview(data).cast("B")
        with naming(self.name):
            self.file.write(raw)

    def tell(self) -> int:
        """Return how many bytes have been written."""
        return self.file.tell()

    def map(self, size: int) -> Array:
        """Make the file `size` bytes long and return it as a writable u8 array.

        The space is allocated first, where the system can: a full disk is an OSError here and not a signal later.
        """
        with naming(self.name):
            self.file.flush()
            self._mapping = _map_writable(self.file, size)
        return np.frombuffer(self._mapping or b"", np.uint8)

    def sync(self) -> None:
        """Bring everything that was written to the disk."""
        with naming(self.name):
            if self._mapping is not None:
                self._mapping.flush()
            self.file.flush()
            os.fsync(self.file.fileno())

    def release(self) -> None:
        """Close the temporary file, whatever it still had to say."""
        if self._mapping is not None:
            with contextlib.suppress(BufferError):  # somebody still holds a view: the map goes when the view goes
                self._mapping.close()
        with contextlib.suppress(OSError):
            self.file.close()


def _map_writable(file: BinaryIO, size: int) -> mmap.mmap | None:
    descriptor = file.fileno()
    os.ftruncate(descriptor, size)
    if size == 0:
        return None
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):  # the file system cannot allocate
                raise
    return mmap.mmap(descriptor, size)


@contextlib.contextmanager
def create_target(where: Where) -> Iterator[Target]:
    """Compose a file and publish it at the end of the block; after any exception nothing has changed.

    * A local path is written beside its place and renamed into it, with the permissions of the file it replaces;
      a symbolic link stays, and the file it points to is replaced. Devices and pipes are written to at the end.
    * An fsspec URL is composed in the temporary directory and sent with the store's own ``put_file`` at the end:
      whether a transfer that breaks leaves something is up to the store (S3 and Hugging Face: nothing).
    * A file object is written to at the end, from its present position on; it is neither cut nor closed.

    Raises OSError, naming the target, for what the system refuses; a killed process can leave a hidden
    ``.featherweight-*.tmp`` beside the old file.
    """
    if is_stream(where):
        with _elsewhere(file_name(where)) as target:
            yield target
            _copy_to(target, where)
        return
    path = _path(where)
    store, inside = _store(path) if "://" in path else (None, path)
    if store is not None:
        with _elsewhere(path) as target:
            yield target
            target.file.flush()
            store.put_file(target.file.name, inside)
    elif Path(inside).exists() and not (Path(inside).is_file() or Path(inside).is_dir()):
        with _elsewhere(inside) as target:
            yield target
            with naming(inside), Path(inside).open("wb", buffering=0) as device:
                _copy_to(target, device)
    else:
        with _beside(inside) as target:
            yield target


@contextlib.contextmanager
def _beside(path: str) -> Iterator[Target]:
    place = Path(os.path.realpath(path))
    temporary = place.with_name(f".featherweight-{secrets.token_hex(8)}.tmp")
    with naming(path):
        mode = _replaceable(place)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        target = Target(path, os.fdopen(os.open(temporary, flags, 0o666), "w+b"))
    try:
        if mode is not None:
            temporary.chmod(mode)
        yield target
        target.sync()
        target.release()
        with naming(path):
            temporary.replace(place)
    except BaseException:
        target.release()
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    with contextlib.suppress(OSError):  # the rename is done: a system that cannot sync directories is no failure
        directory = os.open(place.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _replaceable(place: Path) -> int | None:
    """Return the permissions of the file to be replaced, None where there is none; refuse what must not be."""
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(place, os.W_OK):  # a rename would get past the protection
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return mode & 0o777


@contextlib.contextmanager
def _elsewhere(name: str) -> Iterator[Target]:
    with tempfile.NamedTemporaryFile("w+b", prefix="featherweight-") as file:
        target = Target(name, file)  # type: ignore[arg-type]  # a wrapper that behaves as one
        try:
            yield target
        finally:
            target.release()


def _copy_to(target: Target, file: BinaryIO) -> None:
    target.file.seek(0)
    with naming(target.name):
        while block := target.file.read(1 << 20):
            view = memoryview(block)
            while view:  # an unbuffered file may take less than it was given
                view = view[file.write(view) or len(view) :]


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """Make an OSError that names no file, or the temporary one, name the target."""
    try:
        yield
    except OSError as error:
        if error.errno is None or ".featherweight-" not in str(error.filename or ".featherweight-"):
            raise
        raise OSError(error.errno, error.strerror, name) from error


def scratch(size: int) -> Array:
    """Return `size` bytes to work in, in an unnamed temporary file where they are many: memory stays free."""
    if size <= _IN_MEMORY:
        return np.empty(size, np.uint8)
    with tempfile.TemporaryFile() as file, naming(tempfile.gettempdir()):
        return np.frombuffer(_map_writable(file, size) or b"", np.uint8)


def exists(where: Where) -> bool:
    """Return whether writing there would replace a file; devices, pipes and file objects are not replaced."""
    if is_stream(where):
        return False
    path = _path(where)
    store, inside = _store(path) if "://" in path else (None, path)
    return bool(store.exists(inside)) if store is not None else Path(inside).is_file()


def sibling(where: Where, name: str) -> str | Path:
    """Return the place of the file `name` beside `where`."""
    if is_stream(where):
        raise ArgumentError("a file object has no neighbours: give a path or a URL", path=file_name(where))
    path = _path(where)
    return f"{path.rpartition('/')[0]}/{name}" if "://" in path else Path(path).with_name(name)


def file_name(where: Where) -> str:
    """Return what messages call this place."""
    if is_stream(where):
        name = getattr(where, "name", None)
        return name if isinstance(name, str) else type(where).__name__
    return _path(where)


def is_stream(where: object) -> TypeGuard[BinaryIO]:
    """Return whether this is a file object."""
    return hasattr(where, "read") or hasattr(where, "write")


def _path(where: Any) -> str:
    try:
        path = os.fsdecode(os.fspath(where))
    except TypeError:
        raise ArgumentError(f"expected a path, a URL or a file object, not {type(where).__name__}") from None
    if not path or "\0" in path:
        raise ArgumentError(f"{path!r} is no path")
    return path


def _store(url: str) -> tuple[Any, str]:
    """Return the fsspec store of a URL and the path in it; no store for ``file://``."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError("URLs need fsspec: pip install 'featherweight[remote]'", path=url) from error
    try:
        store, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise MissingDependencyError(str(error), path=url) from error
    except ValueError as error:
        raise ArgumentError(str(error), path=url) from error
    protocols = (store.protocol,) if isinstance(store.protocol, str) else store.protocol
    return (None if "file" in protocols else store), path

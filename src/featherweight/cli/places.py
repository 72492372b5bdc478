"""Where commands read and write: paths, URLs, stdin and stdout."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from featherweight.errors import ArgumentError
from featherweight.formats import FORMATS, Checkpoint, open_checkpoint
from featherweight.formats._io import exists, is_stream, sibling

__all__ = ["Stream", "called", "default_target", "files_of", "guard", "place", "readable", "size_of", "spare"]


def readable(path: str) -> Any:
    """Return what to read from; stdin is kept, since checkpoints are not read from front to back."""
    if path != "-":
        return path
    kept = tempfile.TemporaryFile(prefix="featherweight-")  # noqa: SIM115  (it lives as long as the process)
    shutil.copyfileobj(sys.stdin.buffer, kept)
    return _Stdin(kept)


class _Stdin:
    """Stdin as a file that can be read anywhere."""

    name = "stdin"

    def __init__(self, file: Any) -> None:
        self.read, self.seek = file.read, file.seek


def called(path: str) -> str:
    """Return what messages call this place."""
    return "stdin" if path == "-" else path


class Stream:
    """Stdout, a device or a pipe as a target that counts."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name, self.size = name, 0
        self._file = file
        if file.isatty():
            raise ArgumentError("a terminal takes no checkpoints: redirect it, or name a target", path=name)

    def __str__(self) -> str:
        return self.name

    def write(self, data: Any) -> int:
        """Write some of the data."""
        written = self._file.write(data)
        self.size += written
        return written


def default_target(path: str, ending: str) -> str:
    """Return the name of a file with the ending of another format."""
    if path == "-":
        return path
    known = max((end for end in FORMATS if path.lower().endswith(end)), key=len, default="")
    return path[: len(path) - len(known)] + ending


@contextlib.contextmanager
def place(path: str, default: str) -> Iterator[Any]:
    """Give what to write to: in a directory, a file of the default's name."""
    if path == "-":
        yield Stream("stdout", sys.stdout.buffer)
    elif Path(path).is_dir() or path.endswith(("/", os.sep)):
        if default == "-":
            raise ArgumentError("what stdin brings has no name: name a file", path=path)
        name = Path(default).name
        if "://" in path:
            yield path + name
        else:
            Path(path).mkdir(exist_ok=True)
            yield str(Path(path, name))
    elif "://" in path or Path(path).is_file() or not Path(path).exists():
        yield path
    else:
        with Path(path).open("wb", buffering=0) as device:
            yield Stream(path, device)


def files_of(checkpoint: Checkpoint) -> list[str]:
    """Return the paths and URLs of the files that a checkpoint is read from."""
    sources = [source for source in (checkpoint.source, *checkpoint.shards) if source]
    return [str(source.local or source.where) for source in sources if not is_stream(source.where)]


def spare(target: Any, files: Sequence[str], base: str | None, *, also: Sequence[str] = ()) -> None:
    """Refuse a target that is one of the files to be read: with --force, too."""
    if isinstance(target, Stream):
        return
    for each in map(str, (target, *(sibling(target, name) for name in also))):
        if not exists(each):
            continue
        if any(_same(each, file) for file in files):
            raise ArgumentError("the target is the source itself: name another", path=each)
        if base is not None:
            with open_checkpoint(base) as checkpoint:
                if any(_same(each, file) for file in files_of(checkpoint)):
                    raise ArgumentError("the target is the base itself: name another", path=each)


def _same(one: str, other: str) -> bool:
    one, other = (path.removeprefix("file://") for path in (one, other))
    try:
        return one == other or Path(one).samefile(other)
    except OSError:
        return False


def guard(target: Any, *, force: bool, also: Sequence[str] = ()) -> None:
    """Refuse to overwrite; `also` are names of further files that are written beside the target."""
    for each in (target, *(sibling(target, name) for name in also)):
        if not force and exists(each):
            raise ArgumentError("it exists already: name another target, or overwrite it with --force", path=str(each))


def size_of(target: Any) -> int:
    """Return the bytes of what was written."""
    if isinstance(target, Stream):
        return target.size
    with open_checkpoint(target) as written:
        return written.size

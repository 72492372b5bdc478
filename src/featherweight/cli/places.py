"""Where commands read and write: paths, URLs, stdin and stdout."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from featherweight.errors import ArgumentError
from featherweight.formats import FORMATS, open_checkpoint
from featherweight.formats._io import exists, sibling

__all__ = ["Stream", "default_target", "guard", "place", "readable", "size_of"]


def readable(path: str) -> Any:
    """Return what to read from; stdin is kept, since checkpoints are not read from front to back."""
    if path != "-":
        return path
    kept = tempfile.TemporaryFile(prefix="featherweight-")  # noqa: SIM115  (it lives as long as the process)
    shutil.copyfileobj(sys.stdin.buffer, kept)
    return kept


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
    elif "://" in path or Path(path).is_file() or not Path(path).exists():
        yield path
    elif Path(path).is_dir():
        yield str(Path(path, Path(default).name))
    else:
        with Path(path).open("wb", buffering=0) as device:
            yield Stream(path, device)


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

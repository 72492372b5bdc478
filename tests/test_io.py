"""Where bytes come from and where they go: what is published, what is left alone, and what the system refuses."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest

from featherweight.errors import ArgumentError, MissingDependencyError, TruncatedError
from featherweight.formats import _io
from featherweight.formats._io import create_target, open_source, scratch, sibling

BYTES = bytes(range(256)) * 5


def make_source(kind: str, folder: Path, data: bytes = BYTES):
    if kind == "object":
        return io.BytesIO(data)
    (folder / "in").write_bytes(data)
    if kind == "local":
        return folder / "in"
    if kind == "file://":
        return f"file://{folder}/in"
    fsspec = pytest.importorskip("fsspec")
    url = f"memory://{uuid.uuid4()}/in"
    fsspec.filesystem("memory").pipe_file(url, data)
    return url


@pytest.mark.parametrize("kind", ["local", "file://", "memory://", "object"])
@pytest.mark.parametrize("data", [BYTES, b""], ids=["bytes", "empty"])
def test_source_reads_what_is_there(kind, data, tmp_path):
    with open_source(make_source(kind, tmp_path, data)) as source:
        assert source.size == len(data)
        assert source.read(0, len(data)).tobytes() == data
        assert source.read(len(data), 0).size == 0
        assert not source.read(0, len(data)).flags.writeable
        assert (source.local is not None) == (kind in ("local", "file://"))
        for offset, length in [(0, len(data) + 1), (len(data) + 1, 0), (1 << 62, 1), (-1, 1), (0, -1)]:
            with pytest.raises(TruncatedError, match=r"in|BytesIO"):
                source.read(offset, length)


@pytest.mark.parametrize("kind", ["local", "memory://", "object"])
def test_source_is_read_by_many_threads(kind, tmp_path):
    data = np.random.default_rng(1).bytes(1 << 16)
    wrong = []
    with open_source(make_source(kind, tmp_path, data)) as source:

        def read(seed):
            starts = np.random.default_rng(seed).integers(0, 1 << 15, 200).tolist()
            wrong.extend(at for at in starts if source.read(at, 999).tobytes() != data[at : at + 999])

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_arrays_outlive_the_source_and_closed_means_closed(tmp_path):
    source = open_source(make_source("local", tmp_path))
    array = source.read(0, 10)
    source.close()
    (tmp_path / "in").unlink()
    assert array.tobytes() == BYTES[:10]
    with pytest.raises(ArgumentError, match="closed"):
        source.read(0, 1)


def test_local_reads_are_views_of_one_map(tmp_path):
    source = open_source(make_source("local", tmp_path))
    assert np.shares_memory(source.read(0, 100), source.read(50, 100))


def test_a_remote_read_is_one_request(tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    url = make_source("memory://", tmp_path)
    store = type(fsspec.filesystem("memory"))
    requests = []
    inner = store.cat_file
    monkeypatch.setattr(store, "cat_file", lambda *a, **k: requests.append(k) or inner(*a, **k))
    with open_source(url) as source:
        source.read(7, 11)
    assert requests == [{"start": 7, "end": 18}]
    monkeypatch.setattr(store, "cat_file", lambda *_, **__: BYTES)
    with pytest.raises(OSError, match="no byte ranges"):
        source_of(url).read(0, 3)
    monkeypatch.setattr(store, "cat_file", lambda *_, **__: b"ab")
    with pytest.raises(TruncatedError):
        source_of(url).read(0, 3)


def source_of(url):
    return open_source(url)


class Trickle(io.BytesIO):
    """A file object that gives and takes a few bytes at a time, as raw ones may."""

    def read(self, size=-1):
        return super().read(min(size, 3) if size > 0 else size)

    def write(self, data):
        return super().write(bytes(data)[:3])


def test_file_objects_may_be_slow():
    assert open_source(Trickle(BYTES)).read(1, 100).tobytes() == BYTES[1:101]
    file = Trickle()
    with create_target(file) as target:
        target.write(BYTES)
    assert file.getvalue() == BYTES


@pytest.mark.parametrize("where", [3, None, "", b"", "a\0b", io.StringIO("text"), "nosuchthing://x"])
def test_what_is_no_source_is_the_callers_fault(where):
    with pytest.raises(ArgumentError):
        open_source(where)


def test_system_refusals_pass(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_source(tmp_path / "absent")
    with pytest.raises(IsADirectoryError):
        open_source(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_source("memory://absent/absent")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArgumentError, match="regular"):
        open_source(tmp_path / "pipe")


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r"featherweight\[remote\]"):
        open_source("memory://x")


def test_siblings(tmp_path):
    assert sibling(tmp_path / "a", "b") == tmp_path / "b"
    assert sibling("s3://bucket/dir/a", "b") == "s3://bucket/dir/b"
    with pytest.raises(ArgumentError):
        sibling(io.BytesIO(), "b")


def fill(target, mapped):
    if mapped:
        target.map(len(BYTES))[:] = np.frombuffer(BYTES, np.uint8)
    else:
        target.write(BYTES[:3])
        target.write(np.frombuffer(BYTES[3:7], "<u2"))
        assert target.tell() == 7
        target.write(memoryview(BYTES)[7:])


def fill_and_raise(where, mapped, error):
    with create_target(where) as target:
        fill(target, mapped)
        raise error


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "written"])
@pytest.mark.parametrize("kind", ["local", "file://", "memory://", "object"])
def test_target_appears_at_the_end_or_not_at_all(kind, mapped, tmp_path):
    where = make_source(kind, tmp_path, b"old")

    def content():
        return open_source(where).read(0, open_source(where).size).tobytes()

    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            fill_and_raise(where, mapped, error)
        assert content() == b"old"
    with create_target(where) as target:
        fill(target, mapped)
        assert content() == b"old"
        if kind == "object":
            where.seek(0)
    assert content() == BYTES
    assert sorted(path.name for path in tmp_path.iterdir()) == ([] if kind == "object" else ["in"])


def test_empty_targets(tmp_path):
    with create_target(tmp_path / "a") as target:
        assert target.map(0).size == 0
    with create_target(tmp_path / "b"):
        pass
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == b""


def test_views_of_a_map_may_outlive_it(tmp_path):
    with create_target(tmp_path / "a") as target:
        view = target.map(10)[2:4]
        view[:] = 7
    view[:] = 8
    assert (tmp_path / "a").read_bytes()[:5] in (b"\0\0\x07\x07\0", b"\0\0\x08\x08\0")


def test_permissions_are_those_of_the_old_file_or_the_usual_ones(tmp_path):
    (tmp_path / "old").write_bytes(b"")
    (tmp_path / "old").chmod(0o640)
    (tmp_path / "usual").write_bytes(b"")
    for name in ("old", "new"):
        with create_target(tmp_path / name) as target:
            target.write(b"x")
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("there/file")
    with create_target(tmp_path / "link") as target:
        target.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_bytes() == b"new"


def test_devices_are_written_to_and_not_replaced():
    before = Path("/dev/null").stat().st_rdev
    with create_target("/dev/null") as target:
        target.write(b"x")
    assert Path("/dev/null").stat().st_rdev == before != 0
    with pytest.raises(OSError, match="/dev/full") as caught, create_target("/dev/full") as target:
        target.write(b"x")
    assert caught.value.errno == errno.ENOSPC


def test_targets_that_the_system_refuses(tmp_path):
    with pytest.raises(IsADirectoryError, match=tmp_path.name), create_target(tmp_path):
        pass
    with pytest.raises(FileNotFoundError) as caught, create_target(tmp_path / "absent" / "x"):
        pass
    assert caught.value.filename == str(tmp_path / "absent" / "x")


def test_a_full_disk_is_an_error_before_anything_is_decoded(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "x").write_bytes(b"old")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="x") as caught, create_target(tmp_path / "x") as target:
        target.map(10)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == b"old"


def test_a_file_system_that_cannot_allocate_is_mapped_all_the_same(tmp_path, monkeypatch):
    def unable(*_):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", unable)
    with create_target(tmp_path / "x") as target:
        target.map(10)[:] = 1
    assert (tmp_path / "x").read_bytes() == b"\1" * 10


def run(code: str, *args: object, **options) -> subprocess.CompletedProcess:
    """Run a script that knows this package, as a process of its own."""
    path = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", f"import sys; sys.path[:] = {path!r}.split({os.pathsep!r})\n{code}"]
    return subprocess.run([*command, *map(str, args)], capture_output=True, text=True, check=False, **options)


REFUSED = """
from featherweight.formats._io import create_target
{limit}
try:
    with create_target(sys.argv[1]) as target:
        for _ in range(100):
            {act}
except OSError as error:
    print(type(error).__name__, error.filename)
"""


@pytest.mark.parametrize("act", ["target.write(bytes(10000))", "target.map(1000000)"])
def test_a_limit_on_the_size_of_files_leaves_nothing_behind(act, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))"
    done = run(REFUSED.format(limit=limit, act=act), tmp_path / "x")
    assert done.stdout == f"OSError {tmp_path / 'x'}\n", done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("protected", ["directory", "file"])
def test_protected_targets_stay(protected):
    with tempfile.TemporaryDirectory() as name:  # in a place that another user can reach
        check_protected(protected, Path(name))


def check_protected(protected: str, folder: Path) -> None:
    place = folder / "x"
    place.write_bytes(b"old")
    folder.chmod(0o555 if protected == "directory" else 0o777)
    place.chmod(0o444 if protected == "file" else 0o666)
    limit = "import os; os.getuid() or os.setuid(65534)"  # root may do everything
    done = run(REFUSED.format(limit=limit, act="target.write(b'new')"), place)
    folder.chmod(0o755)
    assert done.stdout == f"PermissionError {place}\n", done.stderr
    assert place.read_bytes() == b"old"
    assert list(folder.iterdir()) == [place]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    code = """
import os, signal
from featherweight.formats._io import create_target
with create_target(sys.argv[1]) as target:
    target.map(1 << 20)[:] = 1
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run(code, tmp_path / "x").returncode == -signal.SIGKILL
    assert (tmp_path / "x").read_bytes() == b"old"


def test_scratch_is_writable_in_memory_and_in_a_file(monkeypatch):
    monkeypatch.setattr(_io, "_IN_MEMORY", 100)
    for size in (0, 100, 5000):
        space = scratch(size)
        space[:] = 3
        assert space.sum() == 3 * size


def test_an_error_while_closing_does_not_hide_the_first_one(tmp_path):
    class Broken(io.BytesIO):
        def write(self, data):
            raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="Broken"), create_target(Broken()) as target:
        target.write(b"x")
    with contextlib.suppress(ZeroDivisionError), create_target(tmp_path / "x") as target:
        target.file.close()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []

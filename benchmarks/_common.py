"""What the benchmarks share: data, processes of their own, and results as JSON."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import importlib
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from featherweight.codecs._kernels import _emit
from featherweight.kernel import features

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "benchmarks" / ".work"
# Freed memory is kept: with the default allocator every result of megabytes is fresh memory, and page faults halve the
# fast codecs, ours least (it decodes into the caller's buffer). The variables are the C library's; others ignore them.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000000"}
PACKAGES = (
    *("numpy", "numba", "zipnn", "openzl", "blosc2", "zstandard", "pcodec", "z4ai", "constriction"),
    *("gguf", "ggml-py", "pysz", "zfpy"),
)


class AbsentError(Exception):
    """Data or a package is not here; says what would bring it."""


class FailedError(Exception):
    """A process of its own did not end well."""


def all_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


class Child:
    """A process of its own that calls ``module:function(**arguments)``, pinned to some cores.

    `prefix` is a command that runs the process, in another network namespace, say.
    """

    def __init__(
        self,
        target: str,
        cores: Iterable[int],
        folder: str | Path,
        arguments: Mapping[str, Any],
        environment: Mapping[str, str] = {},
        prefix: Sequence[str] = (),
    ) -> None:
        self.target, self._answer = target, Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks", "_child", target, json.dumps(arguments), str(self._answer)]
        paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
        environ = {**os.environ, **ALLOCATOR, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment}
        with pinned(cores):
            self.process = subprocess.Popen([*prefix, *command], cwd=ROOT, env=environ, stdout=sys.stderr)

    def result(self) -> Any:
        """Wait, and return what the function returned; raises FailedError after a crash, AbsentError as it did."""
        code = self.process.wait()
        if code or not self._answer.exists():
            raise FailedError(f"{self.target} ended with code {code}")
        answer = json.loads(self._answer.read_text())
        if isinstance(answer, dict) and "absent" in answer:
            raise AbsentError(answer["absent"])
        return answer


def isolated(target: str, cores: int, /, environment: Mapping[str, str] = {}, **arguments: Any) -> Any:
    """Call ``module:function(**arguments)`` in a process of its own, pinned to so many cores, and return its result.

    A crash of somebody's native code ends the child only: it raises FailedError here.
    """
    with tempfile.TemporaryDirectory() as folder:
        return Child(target, all_cores()[-cores:], folder, arguments, environment).result()


@contextlib.contextmanager
def pinned(cores: Iterable[int]) -> Iterator[None]:
    """Pin this process; children that start meanwhile inherit it."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def serve(target: str, arguments: str, result: str) -> NoReturn:
    """Be the child of `isolated`."""
    module, _, function = target.partition(":")
    try:
        answer = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    except AbsentError as error:
        answer = {"absent": str(error)}
    Path(result).write_text(json.dumps(answer))
    sys.stderr.flush()
    os._exit(0)  # what is said is said: native threads that still run may take an interpreter down that ends in order


def attempt(skipped: list[dict[str, str]], what: str, function: Callable[[], Any]) -> Any:
    """Call `function`; where something is absent or fails, note it in `skipped` and return None."""
    print(f"{what} …", file=sys.stderr, flush=True)
    try:
        return function()
    except (AbsentError, FailedError) as error:
        kind = "failed" if isinstance(error, FailedError) else "skipped"
        print(f"{what}: {kind}, {error}", file=sys.stderr)
        skipped.append({"what": what, "why": str(error), "kind": kind})
        return None


def exit_code(skipped: Iterable[Mapping[str, str]]) -> int:
    """Return 1 where something failed, 0 where things were merely absent."""
    return int(any(entry["kind"] == "failed" for entry in skipped))


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder in memory, where a file costs what a copy costs, if there is one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


def seconds(run: Callable[[], Any], repetitions: int) -> tuple[float, float]:
    """Return the median and the least time."""
    run()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times)


def beside(samples: int, times: tuple[float, float], copy: tuple[float, float]) -> dict[str, float]:
    """Return millions of weights a second, and how many copies take as long."""
    return {"median": samples / 1e6 / times[0], "best": samples / 1e6 / times[1], "copies": times[0] / copy[0]}


def options(doc: str | None, **more: Any) -> argparse.ArgumentParser:
    """Return a parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {more.pop('name')}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="tiny data and two rounds: does it work?")
    parser.add_argument("--out", type=Path, help="where the JSON goes (default: benchmarks/results, --quick: nowhere)")
    return parser


def machine() -> dict[str, Any]:
    """Describe this machine and what is installed on it."""
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "cpu": cpu,
        "cores": len(all_cores()),
        "vectors": _vectors(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": versions,
    }


def _vectors() -> str:
    """Say how wide the vectors are that the kernels find here."""
    widths = (("512 bits", _emit.AVX512), ("256 bits", _emit.AVX2))
    return next((width for width, wanted in widths if features() >= wanted), "none")


def save(name: str, arguments: argparse.Namespace, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, with where and when it was measured."""
    date = dt.datetime.now(dt.UTC).date().isoformat()
    settings = {key: value for key, value in vars(arguments).items() if key not in ("out", "dir")}
    head = {"benchmark": name, "date": date, "machine": machine(), "settings": settings, "allocator": ALLOCATOR}
    path = arguments.out or (None if arguments.quick else RESULTS / f"{name}.json")
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**head, **result}, indent=1) + "\n")
    print(f"written: {path}", file=sys.stderr)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table: the first column to the left, the others to the right."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)

"""How long until something happens: `featherweight inspect` of a small file, and the first encode ever.

The first encode compiles what it needs into an empty FEATHERWEIGHT_CACHE_DIR. Figures are the least of several runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import featherweight
from benchmarks import _data
from benchmarks._common import ROOT, AbsentError, FailedError, attempt, exit_code, options, save, table

TARGETS = {"inspect, second run": 0.6, "first encode ever, with compilation": 15.0}


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="start")
    parser.add_argument("--repetitions", type=int, default=5, help="runs (of the first encode at most 3)")
    chosen = parser.parse_args(arguments)
    skipped: list[dict[str, str]] = []
    found = attempt(skipped, "start", lambda: measure(1 if chosen.quick else chosen.repetitions, quick=chosen.quick))
    if found:
        print(show(found))
    save("start", chosen, {"rows": found or [], "skipped": skipped})
    return exit_code(skipped)


def measure(repetitions: int, *, quick: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tensors = _tensors(quick)
        source, coded = folder / "source.npz", folder / "coded.fw"
        np.savez(source, **tensors)
        seconds: dict[str, list[float]] = {}

        def run(title: str, cache: Path, *command: str) -> None:
            seconds.setdefault(title, []).append(_timed(cache, *command))

        encode = ("encode", "--force", str(source), str(coded))
        for count in range(min(repetitions, 3)):
            run("first encode ever, with compilation", folder / f"cache{count}", *encode)
        cache = folder / "cache0"
        back = folder / "back.npz"
        _timed(cache, "decode", str(coded), str(back))
        for _ in range(repetitions):
            run("encode, second run", cache, *encode)
            run("decode, second run", cache, "decode", "--force", str(coded), str(back))
        _timed(cache, "inspect", str(coded))
        for _ in range(repetitions):
            run("inspect, second run", cache, "inspect", str(coded))
            seconds.setdefault("python -c pass", []).append(_command("-c", "pass"))
    return [{"what": what, "least": min(times), "seconds": times} for what, times in seconds.items()]


def _tensors(quick: bool) -> dict[str, Any]:
    """Return LeNet-300-100 or, where the data are not here, an array of its size."""
    if not quick:
        try:
            with featherweight.open(_data.folder() / "weights" / "mnist_lenet_300_100.safetensors") as file:
                return {name.replace("/", "."): file[name] for name in file}
        except AbsentError:
            pass
    return {"weight": _data.normal(266_610 if not quick else 4096, 1, 0).astype(np.float32)}


def _timed(cache: Path, *command: str) -> float:
    return _command("-m", "featherweight", *command, cache=cache)


def _command(*arguments: str, cache: Path | None = None) -> float:
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": paths, **({"FEATHERWEIGHT_CACHE_DIR": str(cache)} if cache else {})}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise FailedError(f"{' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    return seconds


def show(rows: list[dict[str, Any]]) -> str:
    """Return the figures as a Markdown table."""
    lines = [[row["what"], f"{row['least']:.2f}", TARGETS.get(row["what"], "")] for row in rows]
    return table(["", "seconds", "target"], lines)

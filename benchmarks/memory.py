"""Peak memory: a 10 GiB checkpoint with a 4 GiB tensor in it is encoded, read in part and decoded.

The file is of pseudo-random bf16 weights. Each step is a process of its own; RssAnon (memory that is not a file's) is
read from /proc every 50 ms. The decoded file, written through a memory map, is compared with the source byte for byte.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _data
from benchmarks._common import ROOT, WORK, AbsentError, FailedError, attempt, exit_code, options, save, table

ROW = 4096
READ_ONE = """
import sys, featherweight
with featherweight.open(sys.argv[1]) as file:
    print(file[sys.argv[2]].shape)
"""


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="memory")
    parser.add_argument("--gib", type=float, default=10, help="size of the checkpoint; needs 2.8 times as much disk")
    parser.add_argument("--dir", type=Path, default=WORK, help="where the files go meanwhile")
    parser.add_argument("--recipe", default="lossless")
    chosen = parser.parse_args(arguments)
    skipped: list[dict[str, str]] = []
    gib = 1 / 256 if chosen.quick else chosen.gib
    result = attempt(skipped, f"memory, {gib:g} GiB", lambda: measure(gib, chosen.dir, chosen.recipe))
    if result:
        print(show(result))
    save("memory", chosen, {**(result or {}), "skipped": skipped})
    return exit_code(skipped)


def measure(gib: float, where: Path, recipe: str) -> dict[str, Any]:
    """Write, encode, read one tensor, decode, compare; remove everything."""
    where.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(where).free < 2.8 * gib * 2**30:
        raise AbsentError(f"{where} has no room for {2.8 * gib:.0f} GiB: pass --dir")
    if not Path("/proc/self/status").exists():
        raise AbsentError("peaks are read from /proc")
    with tempfile.TemporaryDirectory(dir=where) as name:
        source, coded, back = (Path(name) / file for file in ("source.safetensors", "coded.fw", "back.safetensors"))
        shapes = layout(gib)
        write_checkpoint(source, shapes)
        package = ["-m", "featherweight"]
        one = min(shapes, key=lambda key: shapes[key][0])
        steps = {
            "encode": [*package, "encode", str(source), str(coded), "--recipe", recipe],
            "inspect": [*package, "inspect", str(coded)],
            "read one tensor": ["-c", READ_ONE, str(coded), one],
            "decode": [*package, "decode", str(coded), str(back)],
        }
        rows = [{"step": step, **sampled(command)} for step, command in steps.items()]
        same = equal(source, back)
        if not same:
            raise FailedError("the decoded file is another one")
        sizes = {"source": source.stat().st_size, "coded": coded.stat().st_size}
    largest = max(2 * ROW * shape[0] for shape in shapes.values())
    return {"tensors": len(shapes), "largest": largest, "one": 2 * ROW * shapes[one][0], **sizes, "rows": rows}


def layout(gib: float) -> dict[str, tuple[int, int]]:
    """Return tensors by name: one of four tenths of the whole, the others smaller, the least 1/160."""
    rows = int(gib * 2**30) // (2 * ROW)
    layers = (16, 16, 16, 16, 8, 8, 8, 4, 2, 1, 1)
    shares = {"embedding.weight": 64, **{f"layers.{i}.weight": size for i, size in enumerate(layers)}}
    return {name: (rows * share // 160, ROW) for name, share in shares.items()}


def write_checkpoint(path: Path, shapes: dict[str, tuple[int, int]]) -> None:
    """Write a safetensors file piece by piece."""
    header, end = {}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + 2 * shape[0] * shape[1]]}
        end += 2 * shape[0] * shape[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for number, count in enumerate(_blocks(end // 2)):
            file.write(_data.normal(count, 3, number).view(np.uint8))


def _blocks(count: int) -> Iterator[int]:
    for start in range(0, count, _data.BLOCK):
        yield min(_data.BLOCK, count - start)


def sampled(command: list[str]) -> dict[str, float]:
    """Run Python with these arguments and return seconds and the peak of RssAnon in bytes."""
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    start, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.05)
        if process.returncode:
            errors.seek(0)
            raise FailedError(f"{' '.join(command)}: {errors.read()[-500:].decode(errors='replace')}")
    return {"seconds": time.perf_counter() - start, "peak": peak}


def resident(process: int) -> int:
    """Return RssAnon in bytes, 0 for a process that has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon")), 0)


def equal(left: Path, right: Path, step: int = 1 << 26) -> bool:
    """Compare two files."""
    if left.stat().st_size != right.stat().st_size:
        return False
    with left.open("rb") as one, right.open("rb") as other:
        while part := one.read(step):
            if part != other.read(step):
                return False
    return True


def show(result: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    mib = 2.0**20
    title = f"{result['source'] / 2**30:.1f} GiB, largest tensor {result['largest'] / 2**30:.1f} GiB"
    lines = [[row["step"], f"{row['peak'] / mib:,.0f}", f"{row['seconds']:,.1f}"] for row in result["rows"]]
    return table([title, "peak RssAnon, MiB", "seconds"], lines)

"""What more cores bring: weights coded and decoded by 1, 2, 4, … threads, beside a copy and zipnn.

Synthetic bf16 weights: as one array, as a file of tensors of 384 x 384, and as a file of tensors of 2048 x 2048; and a
matrix of f32 by tcq at one step. Every number of threads has a process of its own with as many cores, contenders
interleaved round by round, every decode verified.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import numpy as np
import xxhash

import featherweight
from benchmarks import _data
from benchmarks._common import FailedError, all_cores, attempt, exit_code, isolated, options, save, scratch, table
from featherweight import rivals
from featherweight.recipes import parse

WAYS = ("encode", "decode")
ZIPNN = next(rival for rival in rivals.RIVALS if rival.name == "zipnn")
LOSSY = "tcq(step=0.01)"
SIDES = (384, 2048)


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="cores")
    parser.add_argument("--repetitions", type=int, default=7, help="rounds")
    chosen = parser.parse_args(arguments)
    skipped: list[dict[str, str]] = []
    elements = 1 << 20 if chosen.quick else 1 << 26
    cases = []
    for cores in [n for n in (1, 2, 4, 8, 16, 32, 64) if n < len(all_cores())] + [len(all_cores())]:
        run = functools.partial(
            isolated,
            "benchmarks.cores:measure",
            cores,
            elements=elements,
            threads=cores,
            repetitions=2 if chosen.quick else chosen.repetitions,
        )
        case = attempt(skipped, f"{cores} core{'s' * (cores > 1)}", run)
        if case:
            cases.append(case)
    print(show({"cases": cases}))
    if not ZIPNN.installed:
        skipped.append({"what": "zipnn", "why": "not installed", "kind": "skipped"})
    save("cores", chosen, {"cases": cases, "skipped": skipped})
    return exit_code(skipped)


def measure(elements: int, threads: int, repetitions: int) -> dict[str, Any]:
    """Measure one number of threads in this process."""
    flat = _data.synthetic(elements)
    with scratch() as folder:
        contenders = [rivals.COPY, *[ZIPNN] * ZIPNN.installed, rivals.ours("lossless")]
        for side in SIDES:
            title = f"featherweight lossless, file of {side} x {side}"
            path = folder / f"{side}.fw"
            contenders.append(rivals.ours_as_file("lossless", squares(elements, side), path, title))
        rows = rivals.measure(flat, contenders, repetitions=repetitions, threads=threads)
    found = [
        {"name": row.name, "bytes": row.source, "coded": row.coded, "encode": row.encode, "decode": row.decode}
        for row in rows
    ]
    matrix = flat[: elements // 4].astype(np.float32).reshape(-1, 4096)
    return {"threads": threads, "rows": [*found, lossy(matrix, threads, repetitions)]}


def squares(elements: int, side: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of so many elements as squares of one side, and one vector of what is left."""
    count, left = divmod(elements, side * side)
    shapes: dict[str, tuple[int, ...]] = {f"layers.{i}.weight": (side, side) for i in range(count)}
    return {**shapes, "rest": (left,)} if left else shapes


def lossy(matrix: np.ndarray[Any, Any], threads: int, repetitions: int) -> dict[str, Any]:
    """Code a matrix by a trellis; what is decoded must be what one thread decodes from what one thread has coded."""
    recipe, out = parse(LOSSY), np.empty_like(matrix)
    single = featherweight.encode(matrix, recipe, threads=1)
    expected = xxhash.xxh3_64_intdigest(featherweight.decode(single, threads=1))
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for count in range(repetitions + 1):
        start = time.perf_counter()
        frame = featherweight.encode(matrix, recipe, threads=threads)
        middle = time.perf_counter()
        featherweight.decode(frame, out=out, threads=threads)
        end = time.perf_counter()
        if frame != single or xxhash.xxh3_64_intdigest(out) != expected:
            raise FailedError(f"{LOSSY} made something else of it with {threads} threads")
        if count:
            times["encode"].append(middle - start)
            times["decode"].append(end - middle)
    return {"name": f"featherweight {LOSSY}, f32", "bytes": matrix.nbytes, "coded": len(single), **times}


def show(result: dict[str, Any]) -> str:
    """Return a table: GB/s by the number of cores, beside what one does."""
    cases = result["cases"]
    if not cases:
        return ""
    lines = []
    for way in WAYS:
        for row in cases[0]["rows"]:
            speeds = []
            for case in cases:
                found = next((each for each in case["rows"] if each["name"] == row["name"]), None)
                speeds.append(row["bytes"] / float(np.median(found[way])) / 1e9 if found else 0.0)
            name = f"**{row['name']}**" if row["name"].startswith("featherweight") else row["name"]
            shown = [f"{speed:.2f} ({speed / speeds[0]:.1f} x)" if speed else "" for speed in speeds[1:]]
            lines.append([f"{name}, {way}", f"{speeds[0]:.2f}", *shown])
    heads = [f"{case['threads']} core{'s' * (case['threads'] > 1)}" for case in cases]
    return table(["GB/s", *heads], lines)

"""K-means by its starts: squared error beside the least there is, and the speed of fitting and assigning, on one core.

Weights are those of MiniLM's matrices, as f32, and as many samples of a normal distribution. `fit` finds a codebook,
`assign` the nearest entry of every weight, `decode` looks them up. Speeds stand beside a copy of the same array in the
same process.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from benchmarks import _data
from benchmarks._common import AbsentError, attempt, beside, exit_code, isolated, options, save, seconds, table
from featherweight.codecs.kmeans import CODEC, assign, fit, optimum
from featherweight.stage import Empty

STARTS = ("coarse", "exact", "linear", "density", "random")
SIZES = (4, 16, 64, 256)
SAMPLES = 1 << 22


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="kmeans")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--repetitions", type=int, default=3)
    chosen = parser.parse_args(arguments)
    samples, rounds = (1 << 14, 1) if chosen.quick else (chosen.samples, chosen.repetitions)
    skipped: list[dict[str, str]] = []
    cases = []
    for name in ("normal",) if chosen.quick else ("MiniLM", "normal"):
        run = functools.partial(isolated, "benchmarks.kmeans:measure", 1, name=name, samples=samples, rounds=rounds)
        found = attempt(skipped, name, run)
        if found:
            cases.append(found)
            print(show({"cases": [found]}), "\n", flush=True)
    save("kmeans", chosen, {"cases": cases, "skipped": skipped})
    return exit_code(skipped)


def weights(name: str, samples: int) -> _data.Array:
    """Return f32 weights; raises AbsentError."""
    if name == "normal":
        return np.random.default_rng(1).standard_normal(samples).astype(np.float32)
    flat = _data.load("minilm:f32").flat.view(np.float32)
    if flat.size < samples:
        raise AbsentError(f"{name} has {flat.size} weights, {samples} are asked for")
    return flat[:: flat.size // samples][:samples].copy()


def measure(name: str, samples: int, rounds: int) -> dict[str, Any]:
    """Measure every start at every size in this process."""
    x = weights(name, samples)
    out = np.empty_like(x)
    copy = seconds(lambda: np.copyto(out, x), 4 * rounds + 1)
    signal, rows = float(np.square(x, dtype=np.float64).sum()), []
    for k in SIZES:
        least = _noise(x, optimum(x, k).centroids.astype(np.float32))
        for start in STARTS:
            codebook = fit(x, k, init=start)
            index, noise = assign(x, codebook), _noise(x, codebook)
            ways = {
                "fit": (functools.partial(fit, x, k, init=start), rounds),
                "assign": (functools.partial(assign, x, codebook), 2 * rounds + 1),
                "decode": (functools.partial(CODEC.decode, Empty(), (index, codebook), (), out), 4 * rounds + 1),
            }
            timed = {way: beside(samples, seconds(run, times), copy) for way, (run, times) in ways.items()}
            rows.append({"k": k, "start": start, "nmse": noise / signal, "over the least": noise / least - 1, **timed})
    return {"weights": name, "samples": samples, "copy": samples / 1e6 / copy[0], "rows": rows}


def _noise(x: _data.Array, codebook: _data.Array) -> float:
    return float(np.square(codebook[assign(x, codebook)] - x, dtype=np.float64).sum())


def show(result: dict[str, Any]) -> str:
    """Return the result as a Markdown table, speeds in millions of weights a second."""
    ways = ("fit", "assign", "decode")
    head = ["weights", "k", "start", "squared error", "over the least, %", *(f"{way} M/s (copies)" for way in ways)]
    rows = []
    for case in result["cases"]:
        for row in case["rows"]:
            speeds = (f"{row[way]['median']:,.0f} ({row[way]['copies']:,.1f})" for way in ways)
            over = f"{100 * row['over the least']:.3f}"
            rows.append([case["weights"], row["k"], row["start"], f"{row['nmse']:.3e}", over, *speeds])
    return table(head, rows)

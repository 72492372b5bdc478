"""Gradients: bytes a step of every codec on recorded ones, the error, and speed beside a plain copy, on one core.

The gradients are those of a ResNet-20 at nine steps of its training, three of them in a row at a time. Each row is a
channel that gets them in their order. `first` is what it sends for the nine, errors being kept from step to step but
none at first; `later` is for the same after its three steps came 20 times: buffers are then as full as in training.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import featherweight
from benchmarks import _data
from benchmarks._common import AbsentError, attempt, exit_code, isolated, options, save, table
from featherweight.traffic import Channel

Array = _data.Array
FILE = "resnet20_cifar10_gradients_9steps.safetensors"
STEPS = ((0, 1, 2), (100, 101, 102), (299, 300, 301))
THREE = "ternary({}, values=base3(bytes=zero_run))"
SMALLER = "ternary({}, values=smallest([density(288, density=rans, values=rans(given=density)), base3(bytes=rans)]))"
EDEN = "hadamard(block=4096, rotated=lloydmax({0}, block=4096, index=bitpack({0})))"
TOP = "prune({}, values=gaps(gaps=rans, values=cast(bf16)))"
RECIPES = {
    **{f"3lc({s})": THREE.format(s) for s in (1.0, 1.5, 1.75, 1.9)},
    **{f"3lc-small({s})": SMALLER.format(s) for s in (1.0, 1.5, 1.75, 1.9)},
    **{f"eden({bits})": EDEN.format(bits) for bits in (1, 2, 3, 4)},
    "topk(0.01)": TOP.format(0.99),
    "topk(0.05)": TOP.format(0.95),
    "bf16": "cast(bf16)",
    "f8": "cast(f8_e4m3)",
    "int8": "affine(8)",
}


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="gradients")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--elements", type=int, default=1 << 24, help="of the array that speeds are measured on")
    chosen = parser.parse_args(arguments)
    skipped: list[dict[str, str]] = []
    rounds, elements = (2, 1 << 16) if chosen.quick else (chosen.repetitions, chosen.elements)
    repeats = 1 if chosen.quick else 20
    sizes = attempt(
        skipped, "recorded gradients", functools.partial(isolated, "benchmarks.gradients:sizes", 1, repeats=repeats)
    )
    speeds = []
    for name, count in (("16M", elements), ("ResNet-20", 1 << 18)):
        run = functools.partial(isolated, "benchmarks.gradients:speeds", 1, count=count, rounds=rounds)
        found = attempt(skipped, f"speed, {name}", run)
        if found:
            speeds.append(found)
    for found in [sizes] if sizes else []:
        print(show_sizes(found), "\n")
    for found in speeds:
        print(show_speeds(found), "\n", flush=True)
    save("gradients", chosen, {"sizes": sizes, "speeds": speeds, "skipped": skipped})
    return exit_code(skipped)


def recorded() -> tuple[list[int], dict[int, Array]]:
    """Return the sizes of the tensors, and for each step all of them as one array."""
    path = _data.folder() / "gradients" / FILE
    if not path.exists():
        raise AbsentError(f"{path} is not there")
    with featherweight.open(path) as file:
        names = [key.partition(".")[2] for key in file if key.startswith("step0.")]
        steps = {
            step: np.concatenate([np.asarray(file[f"step{step}.{name}"]).reshape(-1) for name in names])
            for step in (step for steps in STEPS for step in steps)
        }
        return [int(np.asarray(file[f"step0.{name}"]).size) for name in names], steps


def sizes(repeats: int) -> dict[str, Any]:
    """Measure bytes and errors in this process."""
    parts, steps = recorded()
    rows = []
    for name, recipe in RECIPES.items():
        first, later, errors, sums = [], [], [], []
        for group in STEPS:
            channel, out = Channel(recipe, parts), np.empty(sum(parts), np.float32)
            received, true = np.zeros(out.size), np.zeros(out.size)
            for number in range(repeats + 1):
                for step in group:
                    message = channel.send(steps[step])
                    channel.receive(message, out)
                    received += out
                    true += steps[step]
                    if number == 0:
                        first.append(len(message))
                        plain = Channel(recipe, parts, feedback=False)
                        channel.receive(plain.send(steps[step]), out)
                        errors.append(relative(out, steps[step]))
                    if number == repeats:
                        later.append(len(message))
            sums.append(relative(received, true))
        rows.append(
            {
                "name": name,
                "recipe": recipe,
                "first": statistics.mean(first),
                "later": statistics.mean(later),
                "error": statistics.mean(errors),
                "error of the sum": statistics.mean(sums),
                "limit": limit(name, parts, steps, repeats),
            }
        )
    return {"values": sum(parts), "tensors": len(parts), "repeats": repeats, "rows": rows}


def limit(name: str, parts: list[int], steps: dict[int, Array], repeats: int) -> float | None:
    """Return the bytes of 3LC's values at their entropy given the tensor, and of the scales, for `later`."""
    if not name.startswith("3lc-small"):
        return None
    found = []
    for group in STEPS:
        channel, out = Channel(RECIPES[name], parts), np.empty(sum(parts), np.float32)
        for number in range(repeats + 1):
            for step in group:
                channel.receive(channel.send(steps[step]), out)
                if number == repeats:
                    tensors = np.split(out, np.cumsum(parts)[:-1])
                    found.append(sum(4 + entropy(part) / 8 for part in tensors if part.size >= channel.least))
    return statistics.mean(found)


def entropy(values: Array) -> float:
    """Return the bits of the signs of these values at their order-0 entropy."""
    _, counts = np.unique(np.sign(values), return_counts=True)
    shares = counts / values.size
    return float(-(counts * np.log2(shares)).sum())


def relative(found: Array, true: Array) -> float:
    """Return the squared error over the square."""
    error = found.astype(np.float64) - true
    return float(error.dot(error) / np.square(true, dtype=np.float64).sum())


def speeds(count: int, rounds: int) -> dict[str, Any]:
    """Measure bytes of f32 a second in this process, each beside a copy in the same round."""
    rng = np.random.Generator(np.random.SFC64(3))
    x, out = rng.standard_t(5, count).astype(np.float32), np.empty(count, np.float32)
    parts = [count // 32] * 31 + [count - count // 32 * 31]
    rows = []
    for name, recipe in RECIPES.items():
        channel = Channel(recipe, parts)
        for _ in range(8 if name.startswith("3lc") else 2):
            message = channel.send(x)
            channel.receive(message, out)
        times: dict[str, list[float]] = {"copy": [], "encode": [], "decode": []}
        for _ in range(rounds):
            times["copy"].append(timed(lambda: np.copyto(out, x)))
            times["encode"].append(timed(lambda channel=channel: channel.send(x)))
            times["decode"].append(timed(lambda channel=channel, message=message: channel.receive(message, out)))
        row: dict[str, Any] = {"name": name, "bits": 8 * len(channel.send(x)) / count}
        for way, each in times.items():
            row[way] = x.nbytes / statistics.median(each) / 1e9
            row[f"{way} / copy"] = statistics.median(copy / own for copy, own in zip(times["copy"], each, strict=True))
        rows.append(row)
    return {"elements": count, "rounds": rounds, "rows": rows}


def timed(run: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def show_sizes(found: dict[str, Any]) -> str:
    plain = 4 * found["values"]
    head = ["recorded gradients", "bytes, first", "times less", "bytes, later", "times less", "limit", "error"]
    rows = [
        [
            row["name"],
            f"{row['first']:,.0f}",
            f"{plain / row['first']:.1f}",
            f"{row['later']:,.0f}",
            f"{plain / row['later']:.1f}",
            "" if row["limit"] is None else f"{row['limit']:,.0f}",
            f"{row['error']:.3g}",
        ]
        for row in found["rows"]
    ]
    return table(head, rows)


def show_speeds(found: dict[str, Any]) -> str:
    rows = [
        [
            row["name"],
            f"{row['bits']:.3f}",
            *(f"{row[way]:.2f} ({row[f'{way} / copy']:.2f})" for way in ("encode", "decode")),
        ]
        for row in found["rows"]
    ]
    return table([f"{found['elements']:,} values", "bits", "encode GB/s (/ copy)", "decode GB/s (/ copy)"], rows)

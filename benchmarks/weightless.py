"""Bloomier filters and ribbons (Reagen et al. 2018): zeros lost and bytes against theory, speeds, accuracy; one core.

Synthetic indices (5 % of 2^22 not zero, 15 codes) and the large fully connected layers of the LeNets, pruned to their
largest 8 % and shared among 15 values and zero. `rate` is the share of zeros that came back as codes, `sigmas` how far
that is from theory in standard deviations of a binomial. `bits a key` counts the whole frame of the index, cells
packed, `coded` the same with rANS over them. Accuracy is of the network on its test set with only this layer coded,
without retraining.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import _data, _networks
from benchmarks._common import attempt, exit_code, isolated, options, save, table
from featherweight import codecs, engine
from featherweight.lookups import Lookup

Array = _data.Array
BITS = range(6, 15)
CODES, SHARE = 15, 0.08
CELLS = 1.222  # cells a key that three hashes need (Molloy 2005)
LAYERS = {"LeNet-300-100": "ip1.weight", "LeNet-5": "ip1.weight"}
RECIPES = {
    "bloomier": ("bloomier({}, table=bitpack, high=bitpack)", "bloomier({}, table=rans, high=rans(given=table))"),
    "ribbon": ("ribbon({})", "ribbon({})"),
}


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="weightless")
    parser.add_argument("--repetitions", type=int, default=7)
    chosen = parser.parse_args(arguments)
    skipped: list[dict[str, str]] = []
    cases = []
    for name in ["synthetic"] if chosen.quick else ["synthetic", *LAYERS]:
        settings = {
            "name": name,
            "elements": 1 << (16 if chosen.quick else 22),
            "repetitions": 1 if chosen.quick else chosen.repetitions,
            "bits": [8, 11] if chosen.quick else list(BITS),
        }
        case = attempt(
            skipped, name, lambda settings=settings: isolated("benchmarks.weightless:measure", 1, **settings)
        )
        if case:
            cases.append(case)
            print(show(case), flush=True)
    save("weightless", chosen, {"cases": cases, "skipped": skipped})
    return exit_code(skipped)


def measure(name: str, elements: int, repetitions: int, bits: list[int]) -> dict[str, Any]:
    """Measure in this process."""
    if name == "synthetic":
        rng = np.random.Generator(np.random.PCG64(5))
        index = np.where(rng.random(elements) < 0.05, rng.integers(1, CODES + 1, elements), 0).astype(np.uint8)
        score = None
    else:
        index, score = _layer(name)
    case = {
        "case": name,
        "elements": index.size,
        "keys": int(np.count_nonzero(index)),
        "codes": int(index.max()),
        "accuracy": score(index) if score else None,
        "rows": [_row(codec, each, index, repetitions, score) for each in bits for codec in RECIPES],
    }
    if name != "synthetic":
        case["accuracy before"] = _networks.score(name, _networks.NETWORKS[name].load())
    return case


def _layer(name: str) -> tuple[Array, Callable[[Array], float]]:
    """Return the index of a pruned and clustered layer, and what the network scores with a decoded index."""
    tensors = _networks.NETWORKS[name].load()
    kmeans = codecs.stage_class("kmeans")(CODES + 1, zero=True)
    pruned = tensors[LAYERS[name]].copy()
    pruned[np.abs(pruned) < np.quantile(np.abs(pruned), 1 - SHARE)] = 0
    index, codebook = kmeans.encode(pruned).streams
    _networks.score(name, tensors, limit=1)  # raises where torch or the data are not here

    def score(decoded: Array) -> float:
        return _networks.score(name, {**tensors, LAYERS[name]: codebook[decoded]})

    return index, score


def _row(
    codec: str, bits: int, index: Array, repetitions: int, score: Callable[[Array], float] | None
) -> dict[str, Any]:
    plain, coded = (recipe.format(bits) for recipe in RECIPES[codec])
    frame, out = engine.encode(index, plain, threads=1), np.empty_like(index)
    keys, zeros = int(np.count_nonzero(index)), int(np.count_nonzero(index == 0))
    stage = codecs.stage_class(codec)
    positions, values = np.flatnonzero(index), index[index > 0].astype(np.uint16) - np.uint16(1)
    module = __import__(stage.__module__, fromlist=["build"])
    build = _times(repetitions, lambda: module.build(positions, values, bits))
    encode = _times(repetitions, lambda: engine.encode(index, plain, threads=1))
    decode = _times(repetitions, lambda: engine.decode(frame, out=out, threads=1))
    copy = _times(repetitions, lambda: np.copyto(out, index))
    engine.decode(frame, out=out, threads=1)
    if (out[index > 0] != index[index > 0]).any():
        raise AssertionError(f"{plain} did not give back what is not zero")
    reader, asked = Lookup.of(frame), np.random.Generator(np.random.PCG64(3)).integers(0, index.size, 10_000)
    look = _times(repetitions, lambda: reader.at(asked))
    one = _times(repetitions, lambda: reader.at(7))
    if (reader.at(asked) != out.reshape(-1)[asked]).any():
        raise AssertionError(f"{plain}: a look-up differs from what decoding gives")
    false, rate = int(np.count_nonzero(out[index == 0])), int(index.max()) / 2**bits
    return {
        "codec": codec,
        "bits": bits,
        "zeros": zeros,
        "false": false,
        "rate": false / zeros,
        "theory": rate,
        "paper": 2.0 ** (int(index.max() - 1).bit_length() - bits),
        "sigmas": (false - rate * zeros) / math.sqrt(rate * (1 - rate) * zeros) if rate < 1 else 0.0,
        "bits a key": 8 * len(frame) / keys,
        "coded": 8 * len(engine.encode(index, coded, threads=1)) / keys,
        "least": bits * (CELLS if codec == "bloomier" else 1),
        "build, keys/s": keys / statistics.median(build),
        "encode, weights/s": index.size / statistics.median(encode),
        "decode, weights/s": index.size / statistics.median(decode),
        "of a copy": statistics.median(copy) / statistics.median(decode),
        "look-ups/s": asked.size / statistics.median(look),
        "one look-up, s": statistics.median(one),
        "accuracy": score(out) if score else None,
        "seconds": {"build": build, "encode": encode, "decode": decode},
    }


def _times(repetitions: int, work: Callable[[], object]) -> list[float]:
    """Return the seconds of each round; one before is not counted."""
    found = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found[1:]


def show(case: dict[str, Any]) -> str:
    """Return a case as a table."""
    head = [
        f"{case['case']}, t",
        "codec",
        "zeros lost",
        "theory",
        "sigmas",
        "bits a key",
        "least",
        "coded",
        "M keys built/s",
        "M weights decoded/s",
        "M look-ups/s",
        "accuracy",
    ]
    lines = [
        [
            row["bits"],
            row["codec"],
            f"{row['rate']:.4%}",
            f"{row['theory']:.4%}",
            f"{row['sigmas']:+.1f}",
            f"{row['bits a key']:.2f}",
            f"{row['least']:.2f}",
            f"{row['coded']:.2f}",
            f"{row['build, keys/s'] / 1e6:.1f}",
            f"{row['decode, weights/s'] / 1e6:.0f}",
            f"{row['look-ups/s'] / 1e6:.0f}",
            "" if row["accuracy"] is None else f"{row['accuracy']:.2f} of {case['accuracy']:.2f}",
        ]
        for row in case["rows"]
    ]
    return table(head, lines)

"""The lattices: second moments, rates against what a normal distribution needs, and speed on one core.

The rate is that of `rans` over every stream (cosets and their classes included) for normal samples of a standard
deviation of 8 steps; the limit is h - log2(V) / n with the differential entropy h. Speeds stand beside a copy of the
same array in the same process.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from benchmarks import _data
from benchmarks._common import attempt, beside, exit_code, isolated, options, save, seconds, table
from featherweight.codecs.lattice import CODEC, LATTICES, Lattice
from featherweight.codecs.rans import Rans

MOMENTS = dict(zip(LATTICES, (0.083333, 0.080188, 0.076603, 0.071682, 0.065771), strict=True))
"""Normalised second moments: Conway and Sloane, Sphere Packings, Lattices and Groups, table 2.3."""
DEVIATION = 8.0  # in steps


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="lattice")
    parser.add_argument("--samples", type=int, default=1 << 22)
    parser.add_argument("--repetitions", type=int, default=9)
    chosen = parser.parse_args(arguments)
    samples, rounds = (1 << 16, 2) if chosen.quick else (chosen.samples, chosen.repetitions)
    skipped: list[dict[str, str]] = []
    run = functools.partial(isolated, "benchmarks.lattice:measure", 1, samples=samples, repetitions=rounds)
    found = attempt(skipped, "lattices", run)
    if found:
        print(show(found))
    save("lattice", chosen, {**(found or {}), "skipped": skipped})
    return exit_code(skipped)


def measure(samples: int, repetitions: int) -> dict[str, Any]:
    """Measure every lattice in this process, with and without dither."""
    x = (np.random.default_rng(1).standard_normal(samples) * DEVIATION).astype(np.float32)
    out = np.empty_like(x)
    copy = seconds(lambda: np.copyto(out, x), repetitions)
    limit = 0.5 * math.log2(2 * math.pi * math.e * DEVIATION**2)
    rows = []
    for name in LATTICES:
        for dither in (False, True):
            stage = Lattice(name, 1.0, dither)
            wire, streams = stage.encode(x)
            CODEC.decode(wire, streams, (), out)
            error = out.astype(np.float64) - x
            ways = {
                "encode": functools.partial(stage.encode, x),
                "decode": functools.partial(CODEC.decode, wire, streams, (), out),
            }
            rows.append(
                {
                    "lattice": name,
                    "dither": dither,
                    "moment": float(np.square(error).mean()),
                    "known moment": MOMENTS[name],
                    "largest error": float(np.abs(error).max()),
                    "bound": stage.error_bound(x),
                    "bits": sum(map(coded_bits, streams)) / samples,
                    "limit": limit,
                    **{way: beside(samples, seconds(run, repetitions), copy) for way, run in ways.items()},
                }
            )
    return {"samples": samples, "repetitions": repetitions, "copy": samples / 1e6 / copy[0], "rows": rows}


def coded_bits(stream: _data.Array) -> int:
    """Return the bits that rans needs for integers, byte by byte where they are wider."""
    planes = stream.reshape(-1).view(np.uint8).reshape(-1, stream.itemsize).T
    return 8 * sum(Rans().encode(np.ascontiguousarray(plane)).streams[0].size for plane in planes)


def show(found: dict[str, Any]) -> str:
    """Return the result as a Markdown table."""
    head = ["lattice", "moment", "known", "bits over the limit", "encode M/s (copies)", "decode M/s (copies)"]
    rows = [
        [
            f"{row['lattice']}{', dither' * row['dither']}",
            f"{row['moment']:.6f}",
            f"{row['known moment']:.6f}",
            f"{row['bits'] - row['limit']:.4f}",
            *(f"{row[way]['median']:,.0f} ({row[way]['copies']:.1f})" for way in ("encode", "decode")),
        ]
        for row in found["rows"]
    ]
    return table(head, rows)

"""What `bench` reports: recipes and rivals on the tensors of a file."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import featherweight
from featherweight import rivals
from featherweight.cli.text import Column, count
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError
from featherweight.formats import TensorInfo
from featherweight.reading import TensorFile
from featherweight.rivals import Rival, Row

__all__ = ["BENCH", "bench_report", "bench_rows", "bench_summary"]

MOST_BYTES = 1 << 24  # of a tensor

Report = dict[str, Any]

BENCH = (
    Column("codec", fold=True),
    Column("bits", right=True),
    Column("ratio", right=True),
    Column("encode MB/s", right=True),
    Column("decode MB/s", right=True),
)


def _bench_row(rows: Sequence[Row]) -> Report:
    """Sum up what one contender did with several arrays."""
    coded, source, weights = (sum(getattr(row, key) for row in rows) for key in ("coded", "source", "elements"))
    encoding, decoding = (sum(statistics.median(getattr(row, key)) for row in rows) for key in ("encode", "decode"))
    return {
        "name": rows[0].name,
        "version": rows[0].version,
        "settings": rows[0].settings,
        "bits_per_weight": 8 * coded / weights,
        "ratio": source / coded,
        "encode_mb_s": source / encoding / 1e6,
        "decode_mb_s": source / decoding / 1e6,
    }


def bench_rows(rows: Sequence[Report]) -> list[list[str]]:
    """Return the rows of the table."""
    return [
        [
            row["name"],
            f"{row['bits_per_weight']:.3f}",
            f"{row['ratio']:.3f}",
            f"{row['encode_mb_s']:,.0f}",
            f"{row['decode_mb_s']:,.0f}",
        ]
        for row in rows
    ]


def bench_report(
    file: TensorFile,
    chosen: Sequence[Rival],
    *,
    threads: int,
    budget: float,
    rounds: int,
    tick: Callable[[str], object],
) -> Report:
    """Measure element type by element type, the largest tensors first, each cut to a few megabytes."""
    kinds: dict[str, list[TensorInfo]] = {}
    for info in sorted(file.infos.values(), key=lambda info: -info.packed):
        if info.count:
            kinds.setdefault(info.kind.name, []).append(info)
    total = sum(info.packed for infos in kinds.values() for info in infos)
    if not total:
        raise ArgumentError("there are no weights in it", path=file.name)
    groups = []
    for kind, infos in sorted(kinds.items(), key=lambda item: -sum(info.packed for info in item[1])):
        nbytes = sum(info.packed for info in infos)
        if nbytes >= 0.01 * total:
            end = time.monotonic() + budget * nbytes / total
            rows, measured = _bench_kind(file, infos, chosen, end, repetitions=rounds, threads=threads, tick=tick)
            groups.append({"dtype": kind, "bytes": nbytes, "measured_bytes": measured, "rows": rows})
    return {
        "file": file.name,
        "featherweight": featherweight.__version__,
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "threads": threads,
        "groups": groups,
        "not_installed": sorted({rival.package or rival.module for rival in rivals.RIVALS if not rival.installed}),
    }


def _bench_kind(
    file: TensorFile, infos: Sequence[TensorInfo], chosen: Sequence[Rival], end: float, **how: Any
) -> tuple[list[Report], int]:
    """Measure tensor after tensor until the time is over, at least one; return a row for each, and the bytes."""
    done: dict[str, list[Row]] = {}
    measured = 0
    for info in infos:
        array = _beginning(file, info)
        for row in rivals.measure(array, [*chosen, *rivals.installed(array)], **how):
            done.setdefault(row.name, []).append(row)
        measured += array.nbytes
        if time.monotonic() > end:
            break
    return [_bench_row(rows) for rows in done.values()], measured


def _beginning(file: TensorFile, info: TensorInfo) -> Array:
    """Return as many rows of a tensor as make a few megabytes."""
    if info.packed <= MOST_BYTES or not info.shape:
        return file[info.name]
    if len(info.shape) == 1 or info.packed // info.shape[0] > MOST_BYTES:
        block = next(iter(file.blocks(info.name, MOST_BYTES * 8 // info.kind.bits)))
        return np.ascontiguousarray(block)
    return np.ascontiguousarray(file.get_slice(info.name)[: MOST_BYTES // (info.packed // info.shape[0])])


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def bench_summary(report: Report) -> Iterator[str]:
    """Return the lines below the tables."""
    machine = report["machine"]
    yield f"{machine['processor']}, {count(machine['cores'], 'core')}; featherweight {report['featherweight']}"
    yield "Every result was decoded and checked."
    if report["not_installed"]:
        yield f"Not installed: {', '.join(report['not_installed'])} (pip install 'featherweight[bench]')."

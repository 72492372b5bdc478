"""Rewrite the tables of README.md and docs/measured.md from the committed results; --check fails where they differ.

A table stands between ``<!-- benchmark:NAME -->`` and ``<!-- /benchmark -->``; NAME is a key of TABLES.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import cores, kmeans, lattice, memory, sensitivity, sparse, start, transforms, weightless
from benchmarks import frontier as size_frontier
from benchmarks import gradients as of_gradients
from benchmarks import traffic as of_traffic
from benchmarks._common import RESULTS, ROOT, table

MARK = re.compile(r"(<!-- benchmark:([\w-]+) -->\n)(.*?)(<!-- /benchmark -->)", re.DOTALL)
FILES = (ROOT / "README.md", ROOT / "docs" / "measured.md")
OURS = "featherweight"
KINDS = ("bf16", "f16", "f32")

Result = dict[str, Any]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a table is out of date")
    parser.add_argument("--file", type=Path, action="append", help="only this one; may be repeated")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args(arguments)
    wrong = 0
    for file in chosen.file or FILES:
        old = file.read_text()
        new = fill(old, chosen.results)
        if new != old and chosen.check:
            print(f"{file} shows other figures than {chosen.results}: python -m benchmarks report", file=sys.stderr)
            wrong = 1
        elif new != old:
            file.write_text(new)
    return wrong


def fill(text: str, results: Path) -> str:
    """Return `text` with its tables made anew; those without results stay empty."""

    def one(found: re.Match[str]) -> str:
        if found[2] not in TABLES:
            raise SystemExit(f"benchmark:{found[2]} is not known; there are {', '.join(TABLES)}")
        shown = TABLES[found[2]](results)
        return f"{found[1]}{shown}\n{found[4]}" if shown else found[1] + found[4]

    return MARK.sub(one, text)


def read(results: Path, name: str) -> Result | None:
    """Return a result, None where there is none."""
    path = results / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def in_short(results: Path) -> str:
    """Return bf16 weights on one core: ours, and the rivals that are as small."""
    result = read(results, "lossless")
    found = [c for c in result["cases"] if (c["case"], c["cores"]) == ("minilm:bf16", 1)] if result else []
    if not result or not found:
        return ""
    rows = sorted(found[0]["rows"], key=lambda row: row["bits"])
    lines = [
        [_name(row["name"]), f"{row['bits']:.3f}", *(f"{row[way]['median'] / 1000:.2f}" for way in WAYS)]
        for row in rows
        if row["name"] != "copy" and not row["name"].endswith(", file")
    ]
    head = ["MiniLM bf16, one core", "bits a weight", "encode, GB/s", "decode, GB/s"]
    return f"{_machine(result)}\n\n{table(head, lines)}"


def lossless(results: Path) -> str:
    """Return MiniLM, one table an element type: sizes, one core and all cores."""
    result = read(results, "lossless")
    if result is None:
        return ""
    cases = {(case["case"], case["cores"]): case for case in result["cases"]}
    most = max(cores for _, cores in cases)
    parts = [_where(result)]
    for name in dict.fromkeys(name for name, _ in cases if ":" in name):
        one, several = cases[name, 1], cases.get((name, most), cases[name, 1])
        wide = {row["name"]: row for row in several["rows"]}
        rows = [
            [
                _name(row["name"]),
                f"{row['bits']:.3f}",
                _above(row, one["limits"], "whole, order 0", "whole, given all of that"),
                *(_cell(row, way) for way in WAYS),
                *(_cell(wide[row["name"]], way) if row["name"] in wide else "" for way in WAYS),
                _of_copy(row, one["rows"]),
            ]
            for row in sorted(one["rows"], key=lambda row: row["bits"])
        ]
        head = [_title(name), "bits a weight", "above the entropies"]
        head += [f"{way}, {cores}" for cores in ("1 core", f"{most} cores") for way in WAYS]
        head.append("of a copy's speed")
        parts += [table(head, rows), _limits(one["limits"])]
    return "\n\n".join(filter(None, parts))


def networks(results: Path) -> str:
    """Return the small networks: bits a weight of our files and of the smallest rival."""
    result = read(results, "lossless")
    lines = []
    for case in result["cases"] if result else []:
        if ":" in case["case"] or case["cores"] != 1:
            continue
        rows = {row["name"]: row for row in case["rows"]}
        theirs = [row for row in case["rows"] if not row["name"].startswith(OURS)]
        best = min(theirs, key=lambda row: row["bits"])
        files = (rows.get(f"{OURS} {recipe}, file") for recipe in ("lossless", "lossless-small"))
        bits = [f"{row['bits']:.3f}" if row else "" for row in files]
        name = case["case"].removesuffix(".safetensors")
        lines.append([name, f"{case['elements']:,}", *bits, f"{best['bits']:.3f} ({best['name']})"])
    return table(["bits a weight", "weights", "lossless", "lossless-small", "smallest rival"], lines) if lines else ""


def coders(results: Path) -> str:
    """Return entropy coders alone."""
    result = read(results, "coders")
    parts = []
    for found in result["streams"] if result else []:
        rows = [
            [
                _name(row["name"]),
                f"{row['bits']:.3f}",
                _above(row, found["limits"], "order 0"),
                *(f"{row[way]['median']:,.0f}" for way in WAYS),
                _of_copy(row, found["rows"]),
            ]
            for row in found["rows"]
        ]
        title = found["stream"] + (", without SIMD" if found["portable"] else "")
        parts += [table([title, *CODER_COLUMNS], rows), _limits(found["limits"])]
    return "\n\n".join([_where(result), *parts]) if result else ""


def delta(results: Path) -> str:
    """Return what a checkpoint against its base takes."""
    result = read(results, "delta")
    parts = []
    for case in result["cases"] if result else []:
        rows = [[_name(row["name"]), f"{row['bits']:.3f}", *(_gbps(row[w]) for w in WAYS)] for row in case["rows"]]
        parts += [table([_title(case["case"]), "bits a weight", *WAYS], rows), _limits(case["limits"])]
    return "\n\n".join(parts)


def papers(results: Path) -> str:
    """Return the recipes of the papers: a table of ratios a fall, and one of bytes and errors."""
    result = read(results, "papers")
    cases = [case for case in result["cases"] if case["chosen"]] if result else []
    parts = []
    for network in dict.fromkeys(case["network"] for case in cases):
        rows = [case for case in cases if case["network"] == network]
        scored = "fall" in rows[0]["chosen"][0] if rows[0]["chosen"] else False
        goals = sorted({point["fall" if scored else "error"] for case in rows for point in case["chosen"]})
        lines = []
        for case in rows:
            found = {point["fall" if scored else "error"]: point for point in case["chosen"]}
            cells = [_fallen(found.get(goal)) for goal in goals]
            last = found.get(0.2 if scored else 1e-2) or case["chosen"][-1]
            lines.append([case["recipe"], *cells, _shares(last)])
        title = f"{network}, {rows[0]['bytes']:,} bytes" + (f", {rows[0]['before']:g}" if scored else "")
        falls = [f"-{goal:g}" if scored else f"nmse {goal:g}" for goal in goals]
        parts.append(table([title, *falls, "bytes of it"], lines))
    return "\n\n".join(parts)


def papers_in_short(results: Path) -> str:
    """Return how many times smaller each recipe makes each network at a fall of half a point."""
    result = read(results, "papers")
    cases = {(case["network"], case["recipe"]): case for case in result["cases"]} if result else {}
    networks = [n for n in dict.fromkeys(n for n, _ in cases) if any("fall" in p for p in _chosen(cases, n))]
    lines = []
    for recipe in dict.fromkeys(recipe for _, recipe in cases):
        cells = []
        for network in networks:
            points = cases.get((network, recipe), {"chosen": []})["chosen"]
            cells.append(_fallen(next((point for point in points if point.get("fall") == 0.5), None)))
        if any(cells):
            lines.append([recipe, *cells])
    return table(["", *networks], lines) if lines else ""


def _chosen(cases: dict[tuple[str, str], Any], network: str) -> list[dict[str, Any]]:
    return [point for (name, _), case in cases.items() if name == network for point in case["chosen"]]


def frontier_in_short(results: Path) -> str:
    """Return what the rivals' files take beside ours at their errors, and the plot."""
    result = read(results, "frontier")
    if result is None:
        return ""
    image = "![bits above R(D) against bits a weight, of each coder](benchmarks/results/frontier.svg)"
    points = {
        part: [p for p in result["points"] if p["part"] == part]
        for part in ("minilm", "resnet", "sparse", "networks", "formats")
    }
    # A line each: of whole networks a fine and a coarse setting, of formats those of GGUF.
    some = [p for p in points["networks"] if p["setting"].endswith(("-24", "-16"))]
    kinds = [p for p in points["formats"] if (p["case"], p["rival"]) == ("MiniLM", "GGUF")]
    ahead = size_frontier.in_lines(points["minilm"]), size_frontier.speeds([*points["minilm"], *points["resnet"]])
    shown = [*ahead, *map(size_frontier.show, (points["sparse"], some, kinds))]
    return "\n\n".join(filter(None, (_machine(result), image, *shown)))


def frontier(results: Path) -> str:
    """Return what trellis-coded quantization comes to beside its rivals, at their errors, and the plot of it."""
    result = read(results, "frontier")
    if result is None:
        return ""
    return f"{_machine(result)}\n\n{size_frontier.show(result['points'])}"


def _fallen(point: dict[str, Any] | None) -> str:
    """Return a ratio and, in brackets, by how much the test set says the accuracy moved."""
    if point is None:
        return ""
    return f"{point['ratio']:.2f} x" + (f" ({-point['down']:+.2f})" if "down" in point else "")


def _shares(point: dict[str, Any]) -> str:
    """Return the parts of a file that take bytes."""
    return ", ".join(f"{part} {size:,}" for part, size in point["parts"].items() if size)


def _rows_of(name: str, show: Callable[[Any], str], key: str | None) -> Callable[[Path], str]:
    def made(results: Path) -> str:
        result = read(results, name)
        return show(result[key] if key else result) if result and result.get("rows") else ""

    return made


def _tables(name: str, show: Callable[[Any], str], key: str | None = None) -> Callable[[Path], str]:
    """Return what shows a result, or each of a list in it, under the machine that measured it."""

    def made(results: Path) -> str:
        result = read(results, name)
        if result is None:
            return ""
        return "\n\n".join([_machine(result), *map(show, [result] if key is None else result[key])])

    return made


def gradients(results: Path) -> str:
    """Return bytes a step, errors and speeds of gradient codecs."""
    result = read(results, "gradients")
    if result is None:
        return ""
    shown = [
        *([of_gradients.show_sizes(result["sizes"])] if result["sizes"] else []),
        *(of_gradients.show_speeds(found) for found in result["speeds"]),
    ]
    return "\n\n".join([_machine(result), *shown])


def traffic_in_short(results: Path) -> str:
    """Return training over slow links: some ways, and the plot."""
    result = read(results, "traffic")
    if result is None:
        return ""
    image = "![accuracy against time, a panel a network and link](benchmarks/results/traffic.svg)"
    return "\n\n".join([_machine(result), image, of_traffic.in_short(result["cases"])])


def others(results: Path) -> str:
    """Return delta, memory and start together."""
    return "\n\n".join(filter(None, (TABLES[name](results) for name in ("delta", "memory", "start"))))


WAYS = ("encode", "decode")
CODER_COLUMNS = ("bits a symbol", "above the entropy", "encode, M/s", "decode, M/s", "of a copy's speed")
TABLES: dict[str, Callable[[Path], str]] = {
    "lossless": lossless,
    "networks": networks,
    "coders": coders,
    "delta": delta,
    "cores": _tables("cores", cores.show),
    "memory": _rows_of("memory", memory.show, None),
    "start": _rows_of("start", start.show, "rows"),
    "others": others,
    "lossless-in-short": in_short,
    "papers": papers,
    "papers-in-short": papers_in_short,
    "frontier": frontier,
    "frontier-in-short": frontier_in_short,
    "transforms": _tables("transforms", transforms.show),
    "sensitivity": _tables("sensitivity", sensitivity.show),
    "sparse": _tables("sparse", sparse.show, "tables"),
    "kmeans": _tables("kmeans", kmeans.show),
    "lattice": _tables("lattice", lattice.show),
    "weightless": _tables("weightless", weightless.show, "cases"),
    "gradients": gradients,
    "traffic": _tables("traffic", of_traffic.show),
    "traffic-in-short": traffic_in_short,
}


def _where(result: Result) -> str:
    speeds = "Speeds are medians, in brackets the ratio to zipnn in the same rounds with its quartiles."
    if result["benchmark"] == "coders":
        speeds = "Speeds are medians."
    return f"{_machine(result)} {speeds}"


def _machine(result: Result) -> str:
    machine = result["machine"]
    cores = f"{machine['cores']} core{'s' * (machine['cores'] > 1)}"
    vectors = f", vectors of {machine['vectors']}" if machine.get("vectors", "none") != "none" else ""
    return f"{machine['cpu']}, {cores}{vectors}, {machine['system']}, {result['date']}."


def _name(name: str) -> str:
    return f"**{name}**" if name.startswith(OURS) else name


def _title(name: str) -> str:
    kind, _, rest = name.partition(":")
    if kind == "synthetic" and rest.isdigit():
        return f"synthetic bf16, {int(rest) / 2**29:g} GiB"
    return {"minilm": "MiniLM"}.get(kind, kind) + f" {rest}"


def _cell(row: dict[str, Any], way: str, reference: str = "zipnn") -> str:
    """Return a speed in GB/s and, of ours, how it compares with the reference."""
    against = row["against"].get(reference)
    found = f"{row[way]['median'] / 1000:.2f}"
    return f"{found} ({_ratio(against[way])})" if against else found


def _above(row: dict[str, Any], limits: dict[str, float], *names: str) -> str:
    """Return how many bits more than each of these limits."""
    return " / ".join(f"{row['bits'] - limits[name]:+.3f}" for name in names if name in limits)


def _of_copy(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return encoding and decoding speed in percent of a copy's in the same case."""
    copy = next(other for other in rows if other["name"] == "copy")
    return " / ".join(f"{row[way]['median'] / copy[way]['median']:.0%}" for way in WAYS)


def _ratio(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} x, {found['low']:.2f} to {found['high']:.2f}"


def _gbps(way: dict[str, Any]) -> str:
    return f"{way['median'] / 1000:.2f} GB/s"


def _limits(limits: dict[str, float]) -> str:
    return f"Entropies: {', '.join(f'{name} {bits:.3f}' for name, bits in limits.items())}." if limits else ""

"""Whole checkpoints without loss, against every rival: bits a weight, and MB/s on one core and on all.

MiniLM as f32, bf16 and f16, the networks of ../shared/data/weights (or FEATHERWEIGHT_DATA), and with --large 1 GiB of
synthetic bf16. Every case runs in a process of its own, contenders interleaved round by round, every decode verified.
"""

from __future__ import annotations

import functools
from typing import Any

from benchmarks import _data, _limits
from benchmarks._common import all_cores, attempt, exit_code, isolated, options, save, scratch, table
from featherweight import rivals

RECIPES = ("lossless", "lossless-small")
# What is left to run on a gigabyte: the others take minutes a round.
QUICKEST = ("copy", "zipnn", "openzl huffman", "featherweight lossless", "featherweight lossless-small")


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="lossless")
    parser.add_argument("--large", action="store_true", help="also 1 GiB of synthetic bf16, the quickest rivals only")
    parser.add_argument("--repetitions", type=int, default=0, help="rounds (default: 9; small networks 15, 1 GiB 5)")
    parser.add_argument("--recipe", action="append", help=f"ours (default: {' and '.join(RECIPES)}); may be repeated")
    parser.add_argument("--case", action="append", help="only this one, such as minilm:bf16; may be repeated")
    chosen = parser.parse_args(arguments)
    skipped: list[dict[str, str]] = []
    cases = []
    for name in chosen.case or _names(chosen.quick, chosen.large, skipped):
        network = ":" not in name
        large = name.startswith("synthetic:") and not chosen.quick
        rounds = chosen.repetitions or (2 if chosen.quick else 15 if network else 5 if large else 9)
        recipes = chosen.recipe or list(RECIPES)
        for cores in sorted({1, len(all_cores())} if not network else {1}):
            run = functools.partial(
                isolated,
                "benchmarks.lossless:measure",
                cores,
                name=name,
                threads=cores,
                repetitions=rounds,
                recipes=recipes,
                only=QUICKEST if large else None,
            )
            case = attempt(skipped, f"{name}, {cores} core{'s' * (cores > 1)}, {rounds} rounds", run)
            if case:
                cases.append(case)
                print(show(case), "\n", flush=True)
    absent = [{"what": r.name, "why": "not installed", "kind": "skipped"} for r in rivals.RIVALS if not r.installed]
    save("lossless", chosen, {"cases": cases, "skipped": skipped + absent})
    return exit_code(skipped)


def _names(quick: bool, large: bool, skipped: list[dict[str, str]]) -> list[str]:
    if quick:
        return ["synthetic:32768"]
    names = [f"minilm:{kind}" for kind in ("bf16", "f16", "f32")]
    names += attempt(skipped, "networks", _data.networks) or []
    return [*names, f"synthetic:{1 << 29}"] if large else names


def measure(
    name: str, threads: int, repetitions: int, recipes: list[str], only: list[str] | None = None
) -> dict[str, Any]:
    """Measure one case in this process."""
    case = _data.load(name)
    with scratch() as folder:
        contenders = [rivals.COPY, *rivals.installed(case.flat)]
        contenders += [rivals.ours(recipe) for recipe in recipes]
        contenders += [rivals.ours_as_file(recipe, case.shapes, folder / "file.fw") for recipe in recipes]
        if only is not None:
            contenders = [rival for rival in contenders if rival.name in only]
        rows = rivals.measure(case.flat, contenders, repetitions=repetitions, threads=threads)
    return {
        "case": name,
        "dtype": str(case.flat.dtype),
        "tensors": len(case.shapes),
        "elements": case.flat.size,
        "bytes": case.flat.nbytes,
        "cores": threads,
        "repetitions": repetitions,
        "limits": _limits.limits(case) if threads == 1 and not name.startswith("synthetic") else {},
        "rows": [as_json(row, rows) for row in rows],
    }


def as_json(row: rivals.Row, rows: list[rivals.Row]) -> dict[str, Any]:
    """Return a row with its speeds and, for one of ours, how it compares with each of the others round by round."""
    theirs = [other for other in rows if other.name.startswith("featherweight") is False]
    ours = row.name.startswith("featherweight")
    return {
        "name": row.name,
        "version": row.version,
        "settings": row.settings,
        "coded": row.coded,
        "bits": row.bits,
        "ratio": row.ratio,
        "encode": {**row.encode_speed._asdict(), "seconds": row.encode},
        "decode": {**row.decode_speed._asdict(), "seconds": row.decode},
        "against": {
            other.name: {
                "size": row.coded / other.coded,
                "encode": rivals.paired(row.encode, other.encode)._asdict(),
                "decode": rivals.paired(row.decode, other.decode)._asdict(),
            }
            for other in theirs
            if ours
        },
    }


def show(case: dict[str, Any], reference: str = "zipnn") -> str:
    """Return a case as a Markdown table, speeds as `median (best)`."""
    rows = []
    for row in case["rows"]:
        against = row["against"].get(reference)
        rows.append(
            [
                row["name"],
                f"{row['bits']:.3f}",
                *(f"{row[way]['median']:,.0f} ({row[way]['best']:,.0f})" for way in ("encode", "decode")),
                *(f"{against[way]['median']:.2f}" if against else "" for way in ("encode", "decode")),
            ]
        )
    cores = f"{case['cores']} core{'s' * (case['cores'] > 1)}"
    ways = ("encode", "decode")
    title = f"{case['case']}, {cores}"
    return table([title, "bits", *(f"{way} MB/s" for way in ways), *(f"{way} / {reference}" for way in ways)], rows)

"""Gradient traffic: networks trained on several processes that are joined by slow links; accuracy, bytes and time.

Each way to exchange gradients trains each network once without limits (`training`). Steps are then timed on hosts of
their own, network namespaces, whose links carry 10, 100 and 1,000 Mbit/s (`links`; needs root, and is skipped without).
Accuracy by step and seconds by step make the time to an accuracy; `check` trains over a link of 100 Mbit/s to see
whether that is so. Results are kept as they are made: a run that is broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _hosts
from benchmarks._common import RESULTS, AbsentError, attempt, exit_code, options, save, table

Case = dict[str, Any]
PARTS = ("training", "links", "check")
NETWORKS = {"LeNet-5": 2000, "ResNet-20": 800}
"""Steps of a run."""
THREE = ("3lc(1.0)", "3lc(1.5)", "3lc(1.75)", "3lc(1.9)")
WAYS = (
    *("none", "fp16", "powersgd(1)", "powersgd(2)", "powersgd(4)"),
    *(*THREE, "3lc(1.75, block=1024)", "3lc-small(1.0)", "eden(1)", "eden(2)", "eden(3)", "eden(4)"),
)
SHOWN = ("none", "fp16", "powersgd(2)", *THREE[::2], "3lc(1.75, block=1024)", "3lc-small(1.0)", "eden(1)")
"""In the README and in the plot."""
SEEDS = {"none": 3, "3lc(1.0)": 3}
OVERLAPPED = ("none", "3lc(1.0)", "eden(4)")
"""Also timed with nothing sent before the backward pass has ended: what overlapping gains."""
LATE = ", late"
ALONE = "nothing"
RATES = (10.0, 100.0, 1000.0)
FOUR = ("none", "fp16", "powersgd(2)", "3lc(1.0)", "3lc(1.75)")
"""Also timed among four hosts, at CHECKED_RATE: does what a rank sends grow with their number?"""
CHECKED_RATE = 100.0
CHECKED_WAY = "3lc(1.0)"
ROUNDS, STEPS = 5, 10
UNDER = 2  # points: runs that differ by their seeds alone end up to one apart


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="traffic")
    parser.add_argument("--network", action="append", choices=list(NETWORKS), help="only this one; may be repeated")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be repeated")
    parser.add_argument("--again", action="store_true", help="measure anew what results are there of")
    chosen = parser.parse_args(arguments)
    cases = _kept(chosen)
    skipped: list[dict[str, str]] = []
    for key, what, measure in _plan(chosen):
        if key in cases and not chosen.again:
            continue
        begun = time.perf_counter()
        found = attempt(skipped, what, measure)
        if found is not None:
            took = round(time.perf_counter() - begun, 1)
            cases[key] = {"part": key[0], "network": key[1], "setting": key[2], "took": took, **found}
            save("traffic", chosen, {"cases": _sorted(cases), "skipped": skipped})
    save("traffic", chosen, {"cases": _sorted(cases), "skipped": skipped})
    print(show({"cases": _sorted(cases)}))
    path = chosen.out or (None if chosen.quick else RESULTS / "traffic.json")
    if path is not None:
        attempt(skipped, "plot", lambda: plot(_sorted(cases), path.with_suffix(".svg")))
    return exit_code(skipped)


Key = tuple[str, str, str]


def _plan(chosen: argparse.Namespace) -> Iterator[tuple[Key, str, Callable[[], Case]]]:
    """Yield what there is to measure: what names it, in words, and how."""
    networks = chosen.network or (["LeNet-5"] if chosen.quick else list(NETWORKS))
    for part in chosen.part or PARTS:
        for network in networks:
            yield from {"training": _training, "links": _links, "check": _check}[part](network, quick=chosen.quick)


Planned = Iterator[tuple[Key, str, Callable[[], Case]]]


def _training(network: str, *, quick: bool) -> Planned:
    ways, steps = (("none", "3lc(1.0)"), 48) if quick else (WAYS, NETWORKS[network])
    runs = [(way, seed) for seed in range(max(SEEDS.values())) for way in ways if seed < SEEDS.get(way, 1)]
    for way, seed in runs[: len(ways)] if quick else runs:
        measure = functools.partial(trained, network, way, seed, steps)
        yield ("training", network, f"{way}, seed {seed}"), f"training {network}, {way}, seed {seed}", measure


def _links(network: str, *, quick: bool) -> Planned:
    ways = [*WAYS, *(way + LATE for way in OVERLAPPED), ALONE]
    settings = [(2, rate, ways) for rate in RATES] + [(4, CHECKED_RATE, [*FOUR])]
    if quick:
        settings = [(2, CHECKED_RATE, ["none", "3lc(1.0)", ALONE])]
    for hosts, rate, each in settings:
        measure = functools.partial(timed, network, hosts, rate, each, 1 if quick else ROUNDS, 2 if quick else STEPS)
        setting = f"{hosts} hosts, {rate:g} Mbit/s"
        yield ("links", network, setting), f"steps of {network}, {setting}", measure


def _check(network: str, *, quick: bool) -> Planned:
    measure = functools.partial(trained, network, CHECKED_WAY, 0, 48 if quick else NETWORKS[network], CHECKED_RATE)
    setting = f"{CHECKED_WAY}, {CHECKED_RATE:g} Mbit/s"
    yield ("check", network, setting), f"training {network} over a link, {setting}", measure


def trained(network: str, way: str, seed: int, steps: int, rate: float | None = None) -> Case:
    """Train a network on two processes, on hosts of their own where a rate says how fast their links are."""
    run = functools.partial(
        *(_hosts.together, "benchmarks._training:train"), task=network, way=way, seed=seed, steps=steps
    )
    if rate is None:
        found = run([_hosts.HERE] * 2)
    else:
        with _hosts.joined(2, rate) as hosts:
            found = run(hosts)
    return {"way": way, "seed": seed, "steps": steps, "mbit": rate, **found}


def timed(network: str, count: int, rate: float, ways: Sequence[str], rounds: int, steps: int) -> Case:
    """Time steps of all ways by turns over limited links."""
    with _hosts.joined(count, rate) as hosts:
        found = _hosts.together(
            *("benchmarks._training:time_steps", hosts),
            task=network,
            ways=list(ways),
            rounds=rounds,
            steps=steps,
            interface=_hosts.INTERFACE,
        )
    return {"hosts": count, "mbit": rate, "rounds": rounds, "steps": steps, "ways": found}


def _kept(chosen: argparse.Namespace) -> dict[Key, Case]:
    """Return the cases of an earlier run."""
    path = chosen.out or (None if chosen.quick else RESULTS / "traffic.json")
    if path is None or not path.exists():
        return {}
    return {(c["part"], c["network"], c["setting"]): c for c in json.loads(path.read_text())["cases"]}


def _sorted(cases: dict[Key, Case]) -> list[Case]:
    order = {(network, part): n for n, (network, part) in enumerate((n, p) for n in NETWORKS for p in PARTS)}
    return [cases[key] for key in sorted(cases, key=lambda key: order[key[1], key[0]])]


def runs(cases: Sequence[Case], network: str, way: str | None = None) -> list[Case]:
    """Return the training runs without limits, of one way or of all."""
    own = [case for case in cases if (case["part"], case["network"]) == ("training", network)]
    return [case for case in own if way in (None, case["way"])]


def links(cases: Sequence[Case], network: str, hosts: int = 2) -> dict[float, Case]:
    """Return what was timed, by rate."""
    own = [case for case in cases if (case["part"], case["network"]) == ("links", network)]
    return {case["mbit"]: case for case in sorted(own, key=lambda case: case["mbit"]) if case["hosts"] == hosts}


def aim(cases: Sequence[Case], network: str) -> float | None:
    """Return the accuracy to which times are told: `UNDER` points below what the worst uncompressed run came to."""
    plain = [case["accuracy"] for case in runs(cases, network, "none")]
    return min(plain) - UNDER if plain else None


def steps_to(run: Case, accuracy: float) -> float | None:
    """Return after how many steps a run came to an accuracy, by straight lines between the points of its curve."""
    before = (0.0, 0.0)
    for step, right, _ in run["curve"]:
        if right >= accuracy:
            return before[0] + (step - before[0]) * (accuracy - before[1]) / (right - before[1])
        before = (step, right)
    return None


def seconds_to(cases: Sequence[Case], network: str, way: str, link: Case) -> float | None:
    """Return the seconds to the accuracy that is aimed at, a mean over seeds; None where one did not get there."""
    wanted = aim(cases, network)
    found = [steps_to(run, wanted) for run in runs(cases, network, way)] if wanted is not None else []
    if not found or None in found or way not in link["ways"]:
        return None
    return statistics.fmean(step for step in found if step) * statistics.median(link["ways"][way]["seconds"])


def show(result: dict[str, Any]) -> str:
    """Return all tables."""
    cases = result["cases"]
    return "\n\n".join(filter(None, (part(cases, network) for network in NETWORKS for part in (_main, _rest))))


def in_short(cases: Sequence[Case], ways: Sequence[str] = SHOWN) -> str:
    """Return a table a network of some ways."""
    return "\n\n".join(filter(None, (_main(cases, network, ways) for network in NETWORKS)))


def _main(cases: Sequence[Case], network: str, ways: Sequence[str] = WAYS) -> str:
    wanted, timings = aim(cases, network), links(cases, network)
    if wanted is None:
        return ""
    head = [network, "bytes a step", "times fewer", "accuracy, %"]
    head += [f"ms a step at {rate:g} Mbit/s" for rate in timings]
    head += [f"s to {wanted:.1f} % at {rate:g} Mbit/s" for rate in timings]
    rows = []
    for way in ways:
        own = runs(cases, network, way)
        if not own:
            continue
        sent, plain = (sum(run["payload"][key] for run in own) for key in ("bytes", "plain"))
        steps = plain / _plain(cases, network)
        rights = [run["accuracy"] for run in own]
        spread = f" ({min(rights):.2f} to {max(rights):.2f})" if len(rights) > 1 else ""
        row = [way, f"{sent / steps:,.0f}", f"{plain / sent:.1f}", f"{statistics.fmean(rights):.2f}{spread}"]
        row += [_milliseconds(link["ways"].get(way)) for link in timings.values()]
        times = [seconds_to(cases, network, way, link) for link in timings.values()]
        row += ["never" if needed is None else f"{needed:.3g}" for needed in times]
        rows.append(row)
    return table(head, rows)


def _plain(cases: Sequence[Case], network: str) -> float:
    """Return the bytes of one step in f32."""
    run = runs(cases, network, "none")[0]
    return float(run["payload"]["plain"]) / int(run["steps"])


def _milliseconds(found: Case | None) -> str:
    if found is None:
        return ""
    times = [1000 * each for each in found["seconds"]]
    return f"{statistics.median(times):.0f} ({min(times):.0f} to {max(times):.0f})"


def _rest(cases: Sequence[Case], network: str) -> str:
    """Return what overlapping gains, what a hook spends, bytes on the wire, and how well a time was foretold."""
    parts = []
    rows = []
    for rate, link in links(cases, network).items():
        for way in OVERLAPPED:
            found = [link["ways"].get(name) for name in (way, way + LATE, ALONE)]
            if None in found:
                continue
            pairs = zip(found[0]["seconds"], found[1]["seconds"], strict=True)
            ratios = [own / late for own, late in pairs]
            share = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            rows.append([way, f"{rate:g}", *map(_milliseconds, found), share])
    if rows:
        head = [network, "Mbit/s", "ms a step", "all sent after the backward pass", "nothing sent", "ratio"]
        parts.append(table(head, rows))
    two, four = links(cases, network).get(CHECKED_RATE), links(cases, network, 4).get(CHECKED_RATE)
    busy = {way: found["busy"] for way in WAYS if two and (found := two["ways"].get(way)) and found.get("busy")}
    if busy:
        names = list(next(iter(busy.values())))
        head = [f"{network}, {CHECKED_RATE:g} Mbit/s: ms a step of the hook", *names]
        parts.append(
            table(head, [[way, *(f"{1000 * spent[name]:.1f}" for name in names)] for way, spent in busy.items()])
        )
    if two and four:
        rows = [
            [way, *(f"{link['ways'][way]['wire']:,.0f}" for link in (two, four)), _milliseconds(four["ways"][way])]
            for way in FOUR
            if way in two["ways"] and way in four["ways"]
        ]
        head = [network, "bytes on the wire a step, 2 hosts", "4 hosts", f"ms a step, 4 hosts, {CHECKED_RATE:g} Mbit/s"]
        parts.append(table(head, rows))
    wanted = aim(cases, network)
    for run in (case for case in cases if (case["part"], case["network"]) == ("check", network)):
        foretold = seconds_to(cases, network, run["way"], two) if two else None
        if wanted is None or foretold is None:
            continue
        reached = steps_to(run, wanted)
        took = f"in {reached * run['seconds'] / run['steps']:.1f} s" if reached is not None else "never"
        parts.append(
            f"Over a link of {run['mbit']:g} Mbit/s, {run['way']} trained {network} to {wanted:.1f} % {took} "
            f"(foretold: {foretold:.1f} s), and to {run['accuracy']:.2f} % in {run['seconds']:.1f} s."
        )
    return "\n\n".join(parts)


def plot(cases: Sequence[Case], path: Path) -> None:
    """Draw accuracy against time, a panel a network and rate; raises AbsentError without matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise AbsentError("matplotlib is not installed: pip install -e '.[bench]'") from None
    shown = [network for network in NETWORKS if links(cases, network)]
    if not shown:
        raise AbsentError("no steps were timed over links yet")
    with mpl.rc_context({"svg.hashsalt": "traffic", "font.size": 8}):
        figure = Figure(figsize=(9, 3 * len(shown)), layout="constrained")
        grid = figure.subplots(len(shown), len(RATES), squeeze=False)
        for across, network in zip(grid, shown, strict=True):
            wanted = aim(cases, network) or 0.0
            for axes, (rate, link) in zip(across, links(cases, network).items(), strict=False):
                for index, way in enumerate(SHOWN):
                    for run in runs(cases, network, way)[:1]:
                        second = statistics.median(link["ways"][way]["seconds"])
                        points = [(step * second, right) for step, right, _ in run["curve"]]
                        axes.plot(*zip(*points, strict=True), color=f"C{index}", label=way, linewidth=1)
                axes.axhline(wanted, color="black", linewidth=0.6, linestyle=":")
                axes.set(title=f"{network}, {rate:g} Mbit/s", xscale="log", xlabel="seconds", ylabel="accuracy, %")
                axes.grid(alpha=0.3)
                if network == "LeNet-5":
                    axes.set_ylim(85, 100)
        handles, labels = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    print(f"written: {path}", file=sys.stderr)

"""The recipes of the papers on real networks: bytes, and what is left of the accuracy, without retraining.

Each recipe has a knob. It is turned until, on training images, the network falls by a tenth of a point, by 0.2, 0.5, 1
and 2; what the network then does on the whole test set is what is shown. Of networks without a test set, bytes and
errors at fixed settings. Results are kept as they are made: a run that is broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

import featherweight
from benchmarks import _limits, _networks
from benchmarks._common import RESULTS, AbsentError, FailedError, attempt, exit_code, options, save, table
from benchmarks._data import nmse
from benchmarks._nncodec_process import NNCODEC, NNCodec, add_option, interpreter
from featherweight import ArgumentError, Plan, recipes
from featherweight.codecs import codec
from featherweight.frame import FLAT, SHAPED, SPLIT, Frame, Program, sizes_and_digests
from featherweight.reading import TensorFile

Array = _networks.Array
Case = dict[str, Any]
FALLS = (0.1, 0.2, 0.5, 1.0, 2.0)
ERRORS = (1e-4, 1e-3, 1e-2, 1e-1)  # of the networks without a test set
HALVINGS = 3  # of the gaps between doubled steps
FINER, NEAR = 4, 0.015  # more of them where the cost passes what is asked for, while sizes differ by so much
PARTS = ("values", "positions", "codebooks", "1-D tensors", "headers")


@dataclass(frozen=True)
class Way:
    """A way to code a network, with a knob.

    `recipe` holds braces where the knob goes, or leaves it to a plan. It is a step, or one of `settings`; a way with
    neither is one point. `unit` is the step of a uniform quantizer that is about as fine as a knob of 1. With `powers`,
    errors count by Fisher's information to each of them in turn, and the knob is a power and a step. Of a `rival` that
    is coded by a process of its own the knob is a setting.
    """

    name: str
    recipe: str
    settings: tuple[str, ...] = ()
    unit: float = 1.0
    powers: tuple[float, ...] = ()
    rival: bool = False

    @property
    def scored(self) -> bool:
        """Whether there is no point in it but where networks are scored: other benchmarks have errors."""
        return bool(self.powers) or self.rival


def _grid(**knobs: Sequence[object]) -> tuple[str, ...]:
    rows = itertools.product(*knobs.values())
    return tuple(", ".join(f"{key}={value}" for key, value in zip(knobs, row, strict=True)) for row in rows)


BASELINE = "order-0 entropy"
FISHER = (
    Way("tcq, Fisher", "tcq(states=64, vectors=bf16)", unit=1.76, powers=(0.5, 1.0)),
    Way("ecsq, Fisher", "ecsq(vectors=bf16)", unit=1.08, powers=(0.5, 1.0)),
)
QPS = range(-44, -3)  # NNCodec's settings, from fine to coarse
INPUTS = 300  # training images that tell of Fisher's information
IMAGES = 2500  # training images that choose
WAYS = (
    Way(BASELINE, "uniform step {}, entropies of all tensors together, no file"),
    Way(NNCODEC, "trellis, qp {}", rival=True),
    Way("tcq", "tcq(step={}, vectors=bf16)", unit=1.76),
    Way("tcq(states=64)", "tcq(states=64, step={}, vectors=bf16)", unit=1.76),
    Way("ecsq", "ecsq(step={}, vectors=bf16)", unit=1.08),
    *FISHER,
    Way(
        "deep-compression",
        "deep-compression({})",
        _grid(sparsity=(0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.95), bits=(2, 3, 4, 5, 6, 8)),
    ),
    Way("transform-clustering", "transform-clustering(step={})"),
    Way("universal", "universal(step={})"),
    Way(
        "weightless",
        "weightless({})",
        _grid(sparsity=(0.5, 0.6, 0.7, 0.8, 0.9, 0.95), bits=(2, 3, 4), extra=(4, 7)),
    ),
    Way("int8", "int8"),
    Way("int4", "int4"),
    Way("low-rank", "low-rank(error={})"),
    Way("near-lossless", "near-lossless(max_error={})", unit=2.0),
)


class Coded(NamedTuple):
    """What a network came to: bytes with their parts, relative squared error of what is lossy, decoded tensors."""

    recipe: str
    size: int
    parts: dict[str, int]
    nmse: float
    tensors: dict[str, Array]


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="papers")
    parser.add_argument("--network", action="append", help="only this one; may be repeated")
    parser.add_argument(
        "--recipe", action="append", help="only this one, by name, or any other, {} for its step; may be repeated"
    )
    parser.add_argument("--images", type=int, default=IMAGES, help="training images that choose (default: %(default)s)")
    parser.add_argument("--again", action="store_true", help="measure anew what results are there of")
    add_option(parser)
    chosen = parser.parse_args(arguments)
    names = chosen.network or ([QUICK] if chosen.quick else [*_networks.NETWORKS, *_networks.SILENT])
    unknown = [name for name in names if name not in {*_networks.NETWORKS, *_networks.SILENT}]
    known = {way.name: way for way in WAYS}
    unknown += [name for name in chosen.recipe or () if name not in known and "(" not in name]
    if unknown:
        parser.error(
            f"{', '.join(unknown)}: there are {', '.join([*_networks.NETWORKS, *_networks.SILENT])}; "
            f"{', '.join(way.name for way in WAYS)}"
        )
    ways = [known.get(name) or Way(name, name) for name in chosen.recipe or known]
    cases = _kept(chosen)
    skipped: list[dict[str, str]] = []
    settings = argparse.Namespace(**{**vars(chosen), "nncodec": bool(chosen.nncodec)})
    for name, way in itertools.product(names, ways):
        if ((name, way.name) in cases and not chosen.again) or (way.scored and name not in _networks.NETWORKS):
            continue
        print(f"{name}, {way.name} …", file=sys.stderr, flush=True)
        begin = time.perf_counter()
        try:
            with coder(name, way, chosen.nncodec) as bench:
                case = (by_fall if name in _networks.NETWORKS else by_error)(bench, name, chosen.images)
        except (AbsentError, ArgumentError, FailedError) as error:
            refused = isinstance(error, ArgumentError) and way.name not in recipes.NAMED
            kind = "skipped" if refused or isinstance(error, AbsentError) else "failed"
            print(f"{name}, {way.name}: {kind}, {error}", file=sys.stderr)
            skipped.append({"what": f"{name}, {way.name}", "why": str(error), "kind": kind})
            continue
        cases[name, way.name] = {**case, "seconds": round(time.perf_counter() - begin, 1)}
        print(show([cases[name, way.name]]), "\n", flush=True)
        save("papers", settings, {"cases": _sorted(cases), "skipped": skipped})
    save("papers", settings, {"cases": _sorted(cases), "skipped": skipped})
    path = chosen.out or (None if chosen.quick else RESULTS / "papers.json")
    if path is not None:
        attempt(skipped, "plot", lambda: plot(_sorted(cases), path.with_suffix(".svg")))
    return exit_code(skipped)


QUICK = "LeNet-300-100"


def _kept(chosen: argparse.Namespace) -> dict[tuple[str, str], Case]:
    """Return the cases of an earlier run."""
    path = chosen.out or (None if chosen.quick else RESULTS / "papers.json")
    if path is None or not path.exists():
        return {}
    return {(case["network"], case["recipe"]): case for case in json.loads(path.read_text())["cases"]}


def _sorted(cases: Mapping[tuple[str, str], Case]) -> list[Case]:
    """Return cases as they are shown, whenever they were measured: those of other recipes last."""
    networks, ways = [*_networks.NETWORKS, *_networks.SILENT], [way.name for way in WAYS]

    def place(key: tuple[str, str]) -> tuple[int, int]:
        return networks.index(key[0]), ways.index(key[1]) if key[1] in ways else len(ways)

    return [cases[key] for key in sorted(cases, key=place)]


def coder(name: str, way: Way, nncodec: str | None) -> Bench:
    """Return what codes a network in this way; raises AbsentError."""
    path = _networks.NETWORKS[name].path() if name in _networks.NETWORKS else _networks.weights(_networks.SILENT[name])
    return Rival(path, way, interpreter(nncodec)) if way.rival else Bench(path, way, name)


def by_fall(bench: Bench, name: str, images: int) -> Case:
    """Turn a way's knob until the accuracy falls by so much."""
    before, line, reached = falls(bench, name, images)
    chosen = [{**point, **bench.figures(coded)} for point, coded in reached]
    return {
        "network": name,
        "recipe": bench.way.name,
        "bytes": bench.source,
        "before": before,
        "images": images,
        "line": line,
        "chosen": chosen,
    }


def falls(bench: Bench, name: str, images: int) -> tuple[float, list[Case], list[tuple[Case, Coded]]]:
    """Choose on training images, and score on the test set: the score before, what was tried, and what was chosen."""
    network = _networks.NETWORKS[name]
    line = bench.line(_falling(name, _networks.telling(name, images)), FALLS)
    before, reached = _networks.score(name, bench.original), []
    falling = _falling(name, _networks.first(name), scored=True)
    lost = functools.cache(lambda knob: falling(bench.code(knob)))
    for fall in FALLS:
        knob = bench.reached(line, fall)
        if knob is not None:
            down = round(lost(knob), 4)
            accuracy = round(before - down * network.point, 4)
            point = {"fall": fall, "knob": knob, "accuracy": accuracy, "down": down}
            reached.append((point, bench.code(knob)))
    return before, line, reached


def by_error(bench: Bench, name: str, _: int) -> Case:
    """Turn a way's knob until the relative squared error is so large."""
    line = bench.line(lambda coded: coded.nmse, ERRORS)
    chosen = []
    for error in ERRORS:
        knob = bench.reached(line, error)
        if knob is not None:
            chosen.append({"error": error, "knob": knob, **bench.figures(bench.code(knob))})
    return {"network": name, "recipe": bench.way.name, "bytes": bench.source, "line": line, "chosen": chosen}


def _falling(name: str, sample: _networks.Sample, *, scored: bool = False) -> Callable[[Coded], float]:
    """Return a function that says by how many points a network falls: how much less sure it is, or in its scores."""
    network = _networks.NETWORKS[name]
    before = _networks.measure(name, network.load(), sample)

    def fall(coded: Coded) -> float:
        found = _networks.measure(name, coded.tensors, sample, before.lead)
        if network.data == "text":
            return (found.loss - before.loss) / network.point
        return before.accuracy - found.accuracy if scored else before.sure - found.sure

    return fall


class Bench:
    """One network and one way to code it; a context, for it has a folder of its own. Fisher wants its `name`."""

    def __init__(self, path: str, way: Way, name: str = "") -> None:
        self.path, self.way, self.source = path, way, Path(path).stat().st_size
        self.original = featherweight.load_file(path)
        self.done: dict[Any, Coded] = {}
        self.fisher = _networks.fisher(name, self.original, INPUTS) if way.powers else {}
        if way.name != BASELINE and not way.rival:
            recipes.parse(way.recipe.format(way.settings[0] if way.settings else 0.01))

    def __enter__(self) -> Self:
        self.folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_: object) -> None:
        self.folder.cleanup()

    def code(self, knob: float | str) -> Coded:
        """Return what the network comes to with the knob there."""
        if knob not in self.done:
            if len(self.done) > 64:
                self.done.clear()
            self.done[knob] = self._order_0(float(knob)) if self.way.name == BASELINE else self._file(knob)
        return self.done[knob]

    def _file(self, knob: float | str) -> Coded:
        target, (recipe, plan) = Path(self.folder.name) / "coded.fw", self._plan(knob)
        encoded = featherweight.encode_file(self.path, target, plan)
        with featherweight.open(target) as file:
            parts, tensors = split_up(file), dict(file)
        error = encoded.error
        return Coded(
            recipe, encoded.size, parts, error.noise / error.signal if error and error.signal else 0.0, tensors
        )

    def _plan(self, knob: float | str) -> tuple[str, Plan]:
        """Return the plan with the knob there, and what to call it."""
        if not self.way.powers:
            recipe = self.way.recipe.format(knob)
            return recipe, Plan.of(recipe)
        power, step = map(float, str(knob).split(" at "))
        plan = Plan.of(self.way.recipe, sensitivities={name: value**power for name, value in self.fisher.items()})
        plan = plan.tuned(plan.family(), step)
        return f"{plan.named}, Fisher^{power:g}", plan

    def _order_0(self, step: float) -> Coded:
        """Round to a step, and take the entropy of all that comes of it together; nothing is written."""
        tensors, levels, noise, signal = {}, [], 0.0, 0.0
        for name, x in self.original.items():
            tensors[name] = x
            if x.ndim >= 2:
                values = x.astype(np.float64)
                index = np.rint(values / step)
                tensors[name] = (index * step).astype(x.dtype)
                levels.append(index.reshape(-1).astype(np.int64))
                noise += float(((tensors[name].astype(np.float64) - values) ** 2).sum())
                signal += float((values**2).sum())
        all_levels = np.concatenate(levels)
        parts = dict.fromkeys(PARTS, 0)
        parts["values"] = math.ceil(_limits.entropy(np.bincount(all_levels - all_levels.min())) / 8)
        parts["1-D tensors"] = sum(x.nbytes for x in self.original.values() if x.ndim < 2)
        return Coded(self.way.recipe.format(step), sum(parts.values()), parts, noise / signal, tensors)

    def figures(self, coded: Coded) -> dict[str, Any]:
        """Return what is told of a coded network."""
        ratio = round(self.source / coded.size, 3)
        return {"recipe": coded.recipe, "coded": coded.size, "ratio": ratio, "nmse": coded.nmse, "parts": coded.parts}

    def measured(self, knob: float | str, cost: Callable[[Coded], float]) -> Case:
        """Return what is told of a knob that was tried."""
        coded = self.code(knob)
        return {"knob": knob, "coded": coded.size, "nmse": coded.nmse, "cost": round(cost(coded), 6)}

    def line(self, cost: Callable[[Coded], float], goals: Sequence[float]) -> list[Case]:
        """Measure `cost` from fine to coarse, where it is between the goals."""

        def measured(knob: float | str) -> Case:
            return self.measured(knob, cost)

        if self.way.powers:
            return [point for power in self.way.powers for point in self._turn(measured, goals, f"{power:g} at ")]
        if not self.way.settings and "{}" in self.way.recipe:
            return self._turn(measured, goals)
        return self._walk(self._front() if self.way.settings else [""], measured, goals[-1])

    def _front(self) -> list[str]:
        """Return the settings that none beats in both bytes and error, the largest first."""
        found = sorted((self.code(knob).size, self.code(knob).nmse, knob) for knob in self.way.settings)
        front: list[str] = []
        least = math.inf
        for _, error, knob in found:
            if error < least:
                front.append(knob)
                least = error
        return front[::-1]

    def _walk(self, knobs: Sequence[str], measured: Callable[[str], Case], most: float) -> list[Case]:
        """Go from fine to coarse till the cost is too much twice in a row."""
        points: list[Case] = []
        for knob in knobs:
            points.append(measured(knob))
            if len(points) > 1 and min(points[-1]["cost"], points[-2]["cost"]) > most:
                break
        return points

    def _turn(self, measured: Callable[[float | str], Case], goals: Sequence[float], before: str = "") -> list[Case]:
        """Double the step from the finest that matters till the cost is too much; fill gaps where it passes goals."""
        weights = [x.astype(np.float64) for x in self.original.values() if x.ndim >= 2]
        rms = math.sqrt(sum(float((x**2).sum()) for x in weights) / sum(x.size for x in weights))
        points: dict[float, Case] = {}

        def at(place: float) -> float:
            if place not in points:
                points[place] = measured(f"{before}{_knob(place)}" if before else _knob(place))
            return float(points[place]["cost"])

        place = round(math.log2(rms / self.way.unit)) - 1.0
        while at(place) > goals[0] and place > -30:
            place -= 1
        while at(place) <= goals[-1] and place < 20:
            place += 1
        for halving in range(HALVINGS + FINER):
            for low, high in itertools.pairwise(sorted(points)):
                apart = points[high]["coded"] < (1 - NEAR) * points[low]["coded"]
                passed = apart and any(at(low) <= goal < at(high) for goal in goals)
                if passed or (halving < HALVINGS and at(low) <= goals[-1] and at(high) > goals[0]):
                    at((low + high) / 2)
        return [points[place] for place in sorted(points)]

    @staticmethod
    def reached(line: Iterable[Case], most: float) -> float | str | None:
        """Return the knob of the smallest that costs no more, None where there is none."""
        good = [point for point in line if point["cost"] <= most]
        return min(good, key=lambda point: point["coded"])["knob"] if good else None


class Rival(Bench):
    """A network coded by NNCodec."""

    def __init__(self, path: str, way: Way, python: str) -> None:
        super().__init__(path, way)
        self.python = python

    def __enter__(self) -> Self:
        super().__enter__()
        folder = Path(self.folder.name)
        self.archive = folder / "decoded.npz"
        self.process = NNCodec(self.python, self.original, folder).__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.process.__exit__(*error)
        super().__exit__(*error)

    def code(self, knob: float | str) -> Coded:
        """Return what the network comes to at a setting."""
        if knob not in self.done:
            setting = self.way.recipe.format(knob)
            coded = self.process.code(setting, self.archive)["coded"]
            with np.load(self.archive) as file:
                tensors = dict(file)
            self.done[knob] = Coded(setting, coded, {}, nmse(self.original, tensors), tensors)
        return self.done[knob]

    def line(self, cost: Callable[[Coded], float], goals: Sequence[float]) -> list[Case]:
        """Go from fine to coarse: by four where nothing is lost yet."""
        found: dict[int, Case] = {}

        def at(qp: int) -> float:
            if qp not in found:
                found[qp] = self.measured(qp, cost)
            return float(found[qp]["cost"])

        for qp in QPS[::4]:
            if at(qp) > goals[-1] and qp - 4 in found and at(qp - 4) > goals[-1]:
                break
        for low, high in itertools.pairwise(sorted(found)):
            if at(low) <= goals[-1] and at(high) > goals[0]:
                for qp in range(low + 1, high):
                    at(qp)
        return [found[qp] for qp in sorted(found)]


def _knob(place: float) -> float:
    return float(f"{2.0**place:.4g}")


PORTS = {  # what is not values; of the streams that lead to some bytes the outermost says
    **dict.fromkeys(("mask", "gaps", "lengths"), "positions"),
    **dict.fromkeys(("codebook", "scale", "zero", "shifts", "row", "column", "place"), "codebooks"),
}


def split_up(file: TensorFile) -> dict[str, int]:
    """Return the bytes of a `.fw` file by what they are for; tables of entropy coders count with what they code."""
    parts = dict.fromkeys(PARTS, 0)
    assert file.fw is not None
    for name, *_ in file.fw.bodies():
        entry = file.fw.entries[name]
        for ports, size in stored(entry.frame):
            kind = next((PORTS[port] for port in ports if port in PORTS), "values")
            parts["1-D tensors" if len(entry.info.shape) < 2 else kind] += size
    parts["headers"] = file.size - sum(parts.values())
    return parts


def stored(frame: Frame) -> Iterator[tuple[tuple[str, ...], int]]:
    """Go through what a frame stores: the streams that lead to it, the outermost first, and its bytes."""
    yield from _leaves(frame.root, frame.record, ())
    splits = [i for i, leaf in enumerate(frame.root.leaves) if leaf[0] == SPLIT]
    for leaf, split in zip(splits, frame.splits, strict=True):
        for branch, *record in split.pieces:
            yield from _leaves(frame.branches[branch], record, _ports(frame.root, leaf))


def _leaves(program: Program, record: Sequence[int], before: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    held = [i for i, leaf in enumerate(program.leaves) if leaf[0] in (FLAT, SHAPED)]
    for leaf, size in zip(held, sizes_and_digests(program, record)[0], strict=True):
        yield (*before, *_ports(program, leaf)), size


def _ports(program: Program, edge: int) -> tuple[str, ...]:
    for number, node in enumerate(program.nodes):
        if edge in node.streams:
            port = codec(node.codec).streams[node.streams.index(edge)].name if isinstance(node.codec, int) else ""
            return (*_ports(program, len(program.leaves) + number), port)
    return ()


def show(cases: Sequence[Case]) -> str:
    """Return cases as a table."""
    return table(HEAD, [row for case in cases for row in rows(case)])


HEAD = ("network", "recipe", "chosen for", "bytes", "ratio", "accuracy", *PARTS)


def rows(case: Case) -> Iterator[list[str]]:
    """Return the lines of a table for a case."""
    for point in case["chosen"]:
        goal = f"-{point['fall']:g}" if "fall" in point else f"nmse {point['error']:.0e}"
        score = f"{point['accuracy']:.4g} ({-point['down']:+.2f})" if "fall" in point else f"nmse {point['nmse']:.2e}"
        sizes = (f"{point['parts'][part]:,}" if point["parts"] else "" for part in PARTS)
        yield [case["network"], case["recipe"], goal, f"{point['coded']:,}", f"{point['ratio']:.2f} x", score, *sizes]


def plot(cases: Sequence[Case], path: Path) -> None:
    """Draw ratios against what was lost, a panel for each network; raises AbsentError without matplotlib."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter
    except ImportError:
        raise AbsentError("matplotlib is not installed: pip install -e '.[bench]'") from None
    names = [
        name
        for name in (*_networks.NETWORKS, *_networks.SILENT)
        if any(case["network"] == name and case["chosen"] for case in cases)
    ]
    ways = list(dict.fromkeys(case["recipe"] for case in cases))
    with mpl.rc_context({"svg.hashsalt": "papers", "font.size": 8}):
        columns = min(5, max(1, len(names)))
        figure = Figure(figsize=(3.2 * columns, 2.8 * -(-max(1, len(names)) // columns)), layout="constrained")
        for panel, name in enumerate(names, 1):
            axes = figure.add_subplot(-(-len(names) // columns), columns, panel, title=name, xscale="log")
            silent = name in _networks.SILENT
            for way in ways:
                points = [
                    p for case in cases if (case["network"], case["recipe"]) == (name, way) for p in case["chosen"]
                ]
                lost = [point["nmse"] if silent else -point["down"] for point in points]
                number = ways.index(way)
                style = f"C{number % 10}.{'-' if number < 10 else '--'}"  # matplotlib has ten colours
                axes.plot([p["ratio"] for p in points], lost, style, label=way, linewidth=1)
            axes.set(xlabel="ratio", ylabel="squared error" if silent else "points")
            if silent:
                axes.set_yscale("log")
                axes.invert_yaxis()
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g} x")
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.grid(alpha=0.3)
            axes.tick_params(axis="x", which="both", labelsize=6)
        if names:
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=5)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    print(f"written: {path}", file=sys.stderr)

"""Rate against error: trellis-coded quantization beside NNCodec, GGUF kinds, SZ3 and zfp, always at the same error.

A rival codes at a setting, and what comes of it is measured; ours are then asked for that very error
(`Goal(nmse=...)`), so that their time holds the search for the step. Error is Σ(w - ŵ)² / Σw² over floats of two
dimensions or more, from decoded weights. Sizes are bytes on disk, of NNCodec and of ours; of the others, of blobs.

Parts: `minilm` and `resnet` (2-D tensors, against NNCodec), `sparse` (MiniLM after pruning each tensor by magnitude,
or sharing values in it), `networks` (whole, with 1-D tensors, which both round; and accuracy), `formats` (fixed-rate
formats and error-bounded coders on these two), `bounds`, and `growth` (speed and memory as tensors grow). Sizes where
networks fall by so many points are in `papers`.

Results are kept as they are made: a run that is broken off goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import featherweight
from benchmarks import _data, _networks, memory, papers
from benchmarks._common import (
    RESULTS,
    WORK,
    AbsentError,
    all_cores,
    attempt,
    exit_code,
    isolated,
    options,
    pinned,
    save,
    scratch,
    table,
)
from benchmarks._data import nmse, weighty
from benchmarks._formats import FORMATS
from benchmarks._nncodec_process import NNCODEC, NNCodec, add_option, interpreter
from featherweight import Goal

Array = _data.Array
Tensors = Mapping[str, Array]
Point = dict[str, Any]

PARTS = ("bounds", "minilm", "resnet", "sparse", "networks", "formats", "growth")
DEFAULT, BEST, SCALAR, PLAIN = "tcq", "tcq(states=64)", "ecsq", "ecsq(plain=true)"
RECIPES = (DEFAULT, BEST, SCALAR, PLAIN)
BF16 = "vectors=bf16"
QPS = (-32, -28, -24, -20, -16, -12)
SCALAR_QPS = (-24,)
WHOLE_QPS = (-28, -24, -20, -16)
SPARSE_QPS = (-28, -20)
SPARSE = {
    "half pruned": "prune(0.5)",
    "0.8 pruned": "prune(0.8)",
    "0.9 pruned": "prune(0.9)",
    "16 values": "kmeans(16)",
}
RESNET = "ResNet-56"
QUICK = "synthetic"
SCALES = 64  # of the histogram of scales, an octave
SIZES = (1 << 22, 1 << 24, 1 << 26, 1 << 28)
HUGE = 1 << 30
STEP = 0.01  # of `growth`: about 3 bits a weight


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="frontier")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument("--network", action="append", help="of `networks` only this; may be repeated")
    parser.add_argument("--qp", action="append", type=int, help="NNCodec's setting, only this; may be repeated")
    parser.add_argument("--recipe", action="append", help=f"of ours only this (default: {', '.join(RECIPES)})")
    parser.add_argument("--rounds", type=int, default=2, help="how often all is coded (default: %(default)s)")
    parser.add_argument("--huge", action="store_true", help="`growth` up to 1 Gi weights; 6 GiB of disk")
    parser.add_argument("--dir", type=Path, default=WORK, help="where the files of `growth` go meanwhile")
    parser.add_argument("--again", action="store_true", help="measure anew what results are there of")
    add_option(parser)
    chosen = parser.parse_args(arguments)
    chosen.nncodec = chosen.nncodec and str(Path(chosen.nncodec).absolute())
    if unknown := set(chosen.network or ()) - set(known()):
        parser.error(f"{', '.join(unknown)}: there are {', '.join(known())}")
    path = chosen.out or (None if chosen.quick else RESULTS / "frontier.json")
    points = _kept(path)
    skipped: list[dict[str, str]] = []
    settings = argparse.Namespace(**{**vars(chosen), "nncodec": bool(chosen.nncodec)})
    for what, keys, measure in _work(chosen):
        missing = [key for key in keys if chosen.again or key not in points]
        if not missing:
            continue
        found = attempt(skipped, what, functools.partial(measure, missing))
        for point in found or ():
            points[_key(point)] = point
        if found:
            print(show(found), "\n", flush=True)
            save("frontier", settings, {"points": sorted(points.values(), key=_place), "skipped": skipped})
    if path is not None:
        attempt(skipped, "plot", lambda: plot(sorted(points.values(), key=_place), path.with_suffix(".svg")))
    save("frontier", settings, {"points": sorted(points.values(), key=_place), "skipped": skipped})
    return exit_code(skipped)


Key = tuple[str, str, str, str]
Work = tuple[str, list[Key], Callable[[list[Key]], list[Point]]]


def _key(point: Point) -> Key:
    return point["part"], point["case"], point["rival"], point["setting"]


def _place(point: Point) -> tuple[int | str, ...]:
    """Order points as they are shown, whenever they were measured."""
    part, case, rival, setting = _key(point)
    cases = ["MiniLM", *(f"MiniLM, {what}" for what in SPARSE), *known()]
    ways = [NNCODEC, *dict.fromkeys(rival.name for rival in FORMATS), *RECIPES, *_rounded(RECIPES)]
    ways += [way.name for way in papers.FISHER]
    settings = [rival.setting for rival in FORMATS]
    place = settings.index(setting) if setting in settings else int(setting.rpartition(" ")[2] or 0)
    found = [
        names.index(name) if name in names else -1 for names, name in ((PARTS, part), (cases, case), (ways, rival))
    ]
    return (*found, setting.startswith("scalar"), place, setting)


def _kept(path: Path | None) -> dict[Key, Point]:
    """Return the points of an earlier run."""
    if path is None or not path.exists():
        return {}
    return {_key(point): point for point in json.loads(path.read_text())["points"]}


def _work(chosen: argparse.Namespace) -> Iterator[Work]:
    """Name what there is to measure: keys, and a function of those that are missing."""
    parts = chosen.only or (("bounds", "networks", "formats", "growth") if chosen.quick else PARTS)
    rounds, recipes = 1 if chosen.quick else chosen.rounds, chosen.recipe or list(RECIPES)
    small = [recipe for recipe in recipes if recipe != PLAIN]
    python = chosen.nncodec
    if "bounds" in parts:
        for case in (QUICK,) if chosen.quick else ("MiniLM", RESNET):
            yield f"bounds, {case}", [("bounds", case, "", "")], functools.partial(_bounds, case)
    for part, case in (("minilm", "MiniLM"), ("resnet", RESNET)):
        if part in parts:
            for setting in _settings(chosen.qp or QPS, SCALAR_QPS if part == "minilm" and not chosen.qp else ()):
                keys = [(part, case, NNCODEC, setting)]
                yield f"{case}, {NNCODEC} {setting}", keys, _against(python, case, recipes, rounds)
    if "sparse" in parts:
        for what in SPARSE:
            keys = [("sparse", f"MiniLM, {what}", NNCODEC, setting) for setting in _settings(chosen.qp or SPARSE_QPS)]
            yield f"MiniLM, {what}, {NNCODEC}", keys, _against(python, f"MiniLM, {what}", small, rounds)
    names = chosen.network or ([QUICK] if chosen.quick else known())
    if "networks" in parts:
        for name in names:
            keys = [("networks", name, NNCODEC, setting) for setting in _settings(chosen.qp or WHOLE_QPS)]
            yield f"{name} whole, {NNCODEC}", keys, _against(python, name, _rounded(small), rounds)
    if "formats" in parts:
        for case in (QUICK,) if chosen.quick else ("MiniLM", RESNET):
            for number, rival in list(enumerate(FORMATS))[:: 6 if chosen.quick else 1]:
                run = functools.partial(
                    _isolated, "beside_format", case=case, number=number, recipes=recipes, rounds=rounds
                )
                yield f"{case}, {rival.name} {rival.setting}", [("formats", case, rival.name, rival.setting)], run
    if "growth" in parts:
        for size in (1 << 18,) if chosen.quick else (*SIZES, *([HUGE] if chosen.huge else [])):
            run = functools.partial(_growth, size, chosen.dir)
            yield f"growth, {size:,} weights", [("growth", "synthetic", DEFAULT, f"{size}")], run


def _settings(qps: Iterable[int], scalar: Iterable[int] = ()) -> list[str]:
    return [*(f"trellis, qp {qp}" for qp in qps), *(f"scalar, qp {qp}" for qp in scalar)]


def _rounded(recipes: Iterable[str]) -> list[str]:
    """Return recipes that round biases and norms, as NNCodec does, to bf16."""
    return [f"{recipe[:-1]}, {BF16})" if recipe.endswith(")") else f"{recipe}({BF16})" for recipe in recipes]


def _isolated(function: str, missing: list[Key], **arguments: Any) -> list[Point]:
    return isolated(f"benchmarks.frontier:{function}", 1, **arguments)


# Against NNCodec


def _against(python: str | None, case: str, recipes: list[str], rounds: int) -> Callable[[list[Key]], list[Point]]:
    """Return a function that measures settings of NNCodec on one core, and scores networks on all."""

    def measure(missing: list[Key]) -> list[Point]:
        part = missing[0][0]
        score = part == "networks" and case in _networks.NETWORKS
        with scratch() as folder:
            points = isolated(
                "benchmarks.frontier:beside_nncodec",
                1,
                python=interpreter(python),
                part=part,
                case=case,
                settings=[key[3] for key in missing],
                recipes=recipes,
                rounds=rounds,
                keep=str(folder) if score else None,
            )
            if score:
                before = _networks.score(case, _networks.NETWORKS[case].load())
                for number, point in enumerate(points):
                    point["before"] = round(before, 4)
                    for coder, entry in (("", point), *((entry["recipe"], entry) for entry in point["ours"])):
                        with np.load(_archive(folder, number, coder)) as file:
                            entry["accuracy"] = round(_networks.score(case, dict(file)), 4)
        return points

    return measure


def _archive(folder: Path | str, number: int, coder: str) -> Path:
    return Path(folder) / f"decoded {number} {coder}.npz"


def beside_nncodec(
    python: str, part: str, case: str, settings: list[str], recipes: list[str], rounds: int, keep: str | None
) -> list[Point]:
    """Measure NNCodec and ours, in turn, in this process and its child; `keep` is where decoded tensors go."""
    tensors = load(case, whole=part == "networks")
    points = []
    with scratch() as folder, NNCodec(python, tensors, folder) as rival:
        _warm(tensors, recipes, folder)
        for number, setting in enumerate(settings):
            archive = _archive(keep or folder, number, "")
            point: Point = {}
            for _ in range(rounds):
                found = rival.code(setting, archive)
                if not point:
                    with np.load(archive) as file:
                        error = nmse(tensors, dict(file))
                    point = {"part": part, "case": case, "rival": NNCODEC, "setting": setting}
                    point |= {"versions": rival.versions, **_figures(tensors, found["coded"], error)}
                    point |= {"encode": [], "decode": [], "ours": [{"recipe": recipe} for recipe in recipes]}
                for way in ("encode", "decode"):
                    point[way] += found[way]
                for entry in point["ours"]:
                    decoded = ours(tensors, entry, error, folder)
                    if keep and "decode" in entry and len(entry["decode"]) == 1:
                        exact = {name: x.astype(np.float32) for name, x in decoded.items()}
                        np.savez(_archive(keep, number, entry["recipe"]), **exact)
            points.append(point)
    return points


def load(case: str, *, whole: bool = False) -> dict[str, Array]:
    """Return tensors of MiniLM, perhaps made sparse, or of a network: floats of two dimensions or more, or all."""
    if case == QUICK:
        tensors = _synthetic()
    else:
        minilm = case.startswith("MiniLM")
        tensors = featherweight.load_file(_data.minilm() if minilm else _networks.weights(known()[case]))
    found = {name: x for name, x in tensors.items() if whole or weighty(x)}
    made = SPARSE.get(case.partition(", ")[2])
    if made is None:
        return found
    return {name: featherweight.decode(featherweight.encode(x, made)) for name, x in found.items()}


def known() -> dict[str, str]:
    """Return the files of networks by name."""
    return {name: network.file for name, network in _networks.NETWORKS.items()} | _networks.SILENT


def _synthetic() -> dict[str, Array]:
    """Return a little of everything: a matrix whose rows and columns differ, filters, and a vector."""
    random = np.random.default_rng(11)
    matrix = random.standard_normal((128, 256)) * np.exp2(random.standard_normal((128, 1)))
    filters, bias = random.standard_normal((32, 16, 3, 3)) / 4, random.standard_normal(32)
    arrays = {"matrix": matrix * np.exp2(random.standard_normal(256)), "filters": filters, "bias": bias}
    return {name: (array / 20).astype(np.float32) for name, array in arrays.items()}


def _figures(tensors: Tensors, coded: int, error: float) -> dict[str, Any]:
    """Return bytes, bits a weight, error, and how far the bits are above what a normal distribution needs."""
    weights = sum(x.size for x in tensors.values())
    bits = 8 * coded / weights
    return {"weights": weights, "coded": coded, "bits": bits, "nmse": error, "gap": bits + 0.5 * math.log2(error)}


def ours(tensors: Tensors, entry: dict[str, Any], error: float, folder: Path) -> dict[str, Array]:
    """Code once by the entry's recipe to this error, add what was measured to the entry, return what is decoded."""
    path = folder / "coded.fw"
    begin = time.perf_counter()
    featherweight.save_file(tensors, path, entry["recipe"], goal=Goal(nmse=error), threads=1)
    middle = time.perf_counter()
    decoded = featherweight.load_file(path, threads=1)
    end = time.perf_counter()
    entry.setdefault("encode", []).append(middle - begin)
    entry.setdefault("decode", []).append(end - middle)
    if "coded" in entry:
        assert path.stat().st_size == entry["coded"], "the same weights gave other bytes"
        return decoded
    found = nmse(tensors, decoded)
    if found > error * (1 + 1e-6):
        raise ValueError(f"{entry['recipe']} promised an error of {error:.4g}, and it is {found:.4g}")
    for name, x in tensors.items():
        assert decoded[name].shape == x.shape
        assert decoded[name].dtype == x.dtype
        rounded = BF16 in entry["recipe"] and x.ndim == 1 and x.dtype.kind == "f"
        kept = np.allclose(decoded[name], x, 2.0**-8) if rounded else decoded[name].tobytes() == x.tobytes()
        assert weighty(x) or kept, f"{name} is not what it was"
    entry |= _figures(tensors, path.stat().st_size, found)
    return decoded


def _warm(tensors: Tensors, recipes: Iterable[str], folder: Path) -> None:
    """Have everything compiled and loaded: code a small network, or some of each kind of tensor of a large one."""
    little = dict(tensors)
    if sum(x.size for x in tensors.values()) > 1 << 22:
        kinds = {(x.ndim, x.dtype): name for name, x in tensors.items()}
        little = {name: tensors[name][:4096] for name in kinds.values()}
    for recipe in recipes:
        featherweight.save_file(little, folder / "warm.fw", recipe, goal=Goal(nmse=1e-2), threads=1)
        featherweight.load_file(folder / "warm.fw", threads=1)


# Against fixed-rate formats and error-bounded coders


def beside_format(case: str, number: int, recipes: list[str], rounds: int) -> list[Point]:
    """Measure one of FORMATS and ours, in turn, in this process."""
    rival, tensors = FORMATS[number], load(case)
    tensors = {name: x.astype(np.float32) for name, x in tensors.items()}
    weights = sum(x.size for x in tensors.values())
    scale = math.sqrt(sum(float(np.square(x.astype(np.float64)).sum()) for x in tensors.values()) / weights)
    point: Point = {}
    with scratch() as folder:
        _warm(tensors, recipes, folder)
        rival.encode(np.ones((32, 256), np.float32), scale).decode()
        for _ in range(rounds):
            size, spent, decoded, fast = 0, [0.0, 0.0], {}, True
            for name, x in tensors.items():
                begin = time.perf_counter()
                blob = rival.encode(x.reshape(len(x), -1), scale)
                middle = time.perf_counter()
                decoded[name] = blob.decode().reshape(x.shape)
                spent[1] += time.perf_counter() - middle
                spent[0] += middle - begin
                size, fast = size + blob.size, fast and blob.fast
            if not point:
                error = nmse(tensors, decoded)
                point = {"part": "formats", "case": case, "rival": rival.name, "setting": rival.setting}
                point |= {**_figures(tensors, size, error), "encode": [], "decode": []}
                point["ours"] = [{"recipe": recipe} for recipe in recipes]
            point["encode"].append(spent[0])
            if fast:
                point["decode"].append(spent[1])
            del decoded
            for entry in point["ours"]:
                ours(tensors, entry, error, folder)
    return [point]


# Bounds


def _bounds(case: str, missing: list[Key]) -> list[Point]:
    """Return rate against error of normal weights whose variances are known: Shannon's, by reverse water-filling.

    It binds what knows no more of the weights than that: transforms of filters, and tails that are heavier than those
    of a normal distribution, can lead below it.
    """
    counts: dict[int, int] = {}
    for x in load(case).values():
        classes = np.rint(SCALES * np.log2(variances(x))).astype(np.int64).reshape(-1)
        lowest = int(classes.min())
        for number, count in enumerate(np.bincount(classes - lowest).tolist(), lowest):
            if count:
                counts[number] = counts.get(number, 0) + count
    variance = np.exp2(np.array(list(counts), np.float64) / SCALES)
    share = np.array(list(counts.values()), np.float64)
    share /= share.sum()
    signal = float((share * variance).sum())
    line = []
    for level in np.exp2(np.linspace(-20, 6, 105)) * signal:
        error = float((share * np.minimum(variance, level)).sum()) / signal
        bits = float((share * np.maximum(0.0, np.log2(variance / level) / 2)).sum())
        if bits > 0.02 and error > 1e-6:
            line.append({"bits": bits, "nmse": error, "gap": bits + 0.5 * math.log2(error)})
    return [{"part": "bounds", "case": case, "rival": "", "setting": "", "line": line}]


def variances(x: Array, rounds: int = 8) -> Array:
    """Return the variance of every weight of a matrix, were it normal: the likeliest product of a row's and a column's.

    Likelihood is largest where each row, divided by its columns' scales, has a mean square of its own scale, and the
    other way round; going back and forth gets there. Zeros get the least variance there is.
    """
    squares = np.square(x.reshape(len(x), -1).astype(np.float64))
    least = max(float(squares.mean()), 1e-300) * 2.0**-40
    row, column = np.ones((len(squares), 1)), np.ones((1, squares.shape[1]))
    for _ in range(rounds):
        row = np.maximum((squares / column).mean(1, keepdims=True), least)
        column = np.maximum((squares / row).mean(0, keepdims=True), 2.0**-40)
    return np.maximum(row * column, least)


# Growth

GROW = """
import json, pathlib, sys, time
import numpy as np
import featherweight
source, coded, back, result, recipe = sys.argv[1:]
little = {"weight": np.random.default_rng(1).normal(size=(64, 4096)).astype("f4")}
featherweight.save_file(little, coded, recipe, threads=1)
featherweight.decode_file(coded, back, threads=1)
times = [time.perf_counter()]
featherweight.encode_file(source, coded, recipe, threads=1)
times.append(time.perf_counter())
pathlib.Path(result).write_text(json.dumps(times))
"""


def _growth(count: int, where: Path, missing: list[Key]) -> list[Point]:
    """Encode one tensor of so many weights on one core, with a step that is given; sample its memory."""
    where.mkdir(parents=True, exist_ok=True)
    recipe = f"{DEFAULT}(step={STEP})"
    with tempfile.TemporaryDirectory(dir=where) as name:
        source, coded, back, result = (Path(name) / file for file in ("a.safetensors", "b.fw", "c.safetensors", "d"))
        memory.write_checkpoint(source, {"weight": (count // memory.ROW, memory.ROW)})
        with pinned(all_cores()[-1:]):
            found = memory.sampled(["-c", GROW, *map(str, (source, coded, back, result)), recipe])
            decoding = memory.sampled(["-m", "featherweight", "decode", str(coded), str(back), "--force"])
        begin, end = json.loads(result.read_text())
        error = _streamed(source, back)
        size = coded.stat().st_size
    point = {"part": "growth", "case": "synthetic", "rival": DEFAULT, "setting": f"{count}", "weights": count}
    point |= {"recipe": recipe, "bits": 8 * size / count, "nmse": error, "encode": [end - begin]}
    return [{**point, "peak": found["peak"], "decode peak": decoding["peak"]}]


def _streamed(source: Path, back: Path) -> float:
    """Return the relative squared error between two files, in bounded memory."""
    noise = signal = 0.0
    with featherweight.open(source) as one, featherweight.open(back) as other:
        for x, y in zip(one.blocks("weight"), other.blocks("weight"), strict=True):
            values = x.astype(np.float32)
            signal += float(np.square(values, dtype=np.float64).sum())
            noise += float(np.square(values - y.astype(np.float32), dtype=np.float64).sum())
    return noise / signal


# What is shown


def rate(point: Point, way: str) -> float | None:
    """Return the median speed in M weights/s."""
    return point["weights"] / 1e6 / statistics.median(point[way]) if point.get(way) else None


def show(points: Sequence[Point]) -> str:
    """Return points as tables, one for each part and case that there is."""
    shown = []
    for part in PARTS:
        rows = [point for point in points if point["part"] == part]
        if rows:
            shown.append(SHOWN[part](rows))
    return "\n\n".join(filter(None, shown))


def _pairs(points: Sequence[Point]) -> str:
    """Show each rival's point, and ours at its error."""
    parts = []
    for case in dict.fromkeys(point["case"] for point in points):
        lines: list[list[str]] = []
        for point in (point for point in points if point["case"] == case):
            name = f"{point['rival']} {point['setting']}"
            lines.append([name, *_cells(point)])
            lines += [[f"**{entry['recipe']}**", *_cells(entry, point)] for entry in point["ours"]]
        parts.append(table([f"{case}, 2-D tensors", *PAIR_COLUMNS], lines))
    return "\n\n".join(parts)


def in_lines(points: Sequence[Point]) -> str:
    """Show each rival's point in a line: what ours take at its error, and speeds beside the first of ours."""
    parts = []
    for case in dict.fromkeys(point["case"] for point in points):
        own = [point for point in points if point["case"] == case]
        recipes = list(dict.fromkeys(entry["recipe"] for point in own for entry in point["ours"]))
        lines = []
        for point in own:
            sizes = {entry["recipe"]: entry for entry in point["ours"]}
            name, bits, _, error, gap, *speeds = (f"{point['rival']} {point['setting']}", *_cells(point))
            shown = [
                f"{sizes[recipe]['bits']:.3f} ({sizes[recipe]['coded'] / point['coded'] - 1:+.1%})"
                if recipe in sizes
                else ""
                for recipe in recipes
            ]
            ours_of_it = _cells(point["ours"][0], point)[4:]
            pairs = [f"{theirs or '-'}; {mine}" for theirs, mine in zip(speeds, ours_of_it, strict=True)]
            lines.append([name, bits, error, gap, *shown, *pairs])
        head = [f"{case}, 2-D tensors", "bits a weight", "squared error", "above R(D)", *recipes]
        parts.append(table([*head, *(f"{way}, M/s; {recipes[0]}" for way in ("encode", "decode"))], lines))
    return "\n\n".join(parts)


PAIR_COLUMNS = ("bits a weight", "size", "squared error", "above R(D)", "encode, M/s", "decode, M/s")


def _cells(point: Point, rival: Point | None = None) -> list[str]:
    size = f"{point['coded'] / rival['coded'] - 1:+.1%}" if rival else ""
    speeds = []
    for way in ("encode", "decode"):
        found = rate(point, way)
        theirs = rate(rival, way) if rival else None
        times = f" ({found / theirs:.1f} x)" if found and theirs else ""
        speeds.append(f"{found:.3g}{times}" if found else "")
    return [f"{point['bits']:.3f}", size, f"{point['nmse']:.2e}", f"{point['gap']:+.3f}", *speeds]


def speeds(points: Sequence[Point]) -> str:
    """Show how many times as fast ours are at each of the rival's points."""
    recipes = list(dict.fromkeys(entry["recipe"] for point in points for entry in point["ours"]))
    lines = []
    for point in points:
        found = {
            entry["recipe"]: [_times(entry, point, way) for way in ("encode", "decode")] for entry in point["ours"]
        }
        cells = [" / ".join(found[recipe]) if recipe in found else "" for recipe in recipes]
        lines.append([f"{point['case']}, {point['rival']} {point['setting']}", f"{point['bits']:.3f}", *cells])
    return table(["times as fast, encoding / decoding", "bits a weight", *recipes], lines)


def _times(entry: Point, rival: Point, way: str) -> str:
    return f"{statistics.median(rival[way]) / statistics.median(entry[way]):.1f} x"


def _wholes(points: Sequence[Point]) -> str:
    """Show whole networks: bytes, how much smaller ours are, and accuracies where there are any."""
    lines = []
    recipes = list(dict.fromkeys(entry["recipe"] for point in points for entry in point["ours"]))
    for point in points:
        sizes = {entry["recipe"]: entry for entry in point["ours"]}
        cells = [f"{sizes[r]['coded'] / point['coded'] - 1:+.1%}" if r in sizes else "" for r in recipes]
        scores = ""
        if "before" in point:
            scored = [point, *(sizes[r] for r in recipes if r in sizes)]
            scores = f"{point['before']:.4g}: " + ", ".join(f"{entry['accuracy']:.4g}" for entry in scored)
        name = f"{point['case']}, qp {point['setting'].rpartition(' ')[2]}"
        lines.append([name, f"{point['nmse']:.1e}", f"{point['coded']:,}", *cells, scores])
    return table(["whole network", "squared error", "NNCodec, bytes", *recipes, "accuracy: before: of each"], lines)


def _sparse(points: Sequence[Point]) -> str:
    """Show bits a weight, and how much smaller ours are; of their gap a bound of normal weights says nothing."""
    lines = []
    recipes = list(dict.fromkeys(entry["recipe"] for point in points for entry in point["ours"]))
    for point in points:
        sizes = {entry["recipe"]: entry for entry in point["ours"]}
        cells = [
            f"{sizes[r]['bits']:.3f} ({sizes[r]['coded'] / point['coded'] - 1:+.1%})" if r in sizes else ""
            for r in recipes
        ]
        name = f"{point['case']}, qp {point['setting'].rpartition(' ')[2]}"
        lines.append([name, f"{point['nmse']:.1e}", f"{point['bits']:.3f}", *cells])
    return table(["2-D tensors", "squared error", "NNCodec, bits a weight", *recipes], lines)


def _grown(points: Sequence[Point]) -> str:
    lines = [
        [
            f"{point['weights']:,}",
            f"{point['bits']:.3f}",
            f"{rate(point, 'encode'):.3g}",
            f"{point['peak'] / 2**20:,.0f}",
            f"{point['peak'] / point['weights']:.2f}",
            f"{point['decode peak'] / 2**20:,.0f}",
        ]
        for point in sorted(points, key=lambda point: point["weights"])
    ]
    head = ["weights", "bits a weight", "encode, M/s", "peak RssAnon, MiB", "bytes a weight", "decoding, MiB"]
    return table(head, lines)


def _bound_lines(points: Sequence[Point]) -> str:
    """Show the bound at a few errors."""
    lines = []
    for point in points:
        at = {error: _at(point["line"], error) for error in (1e-3, 1e-2, 1e-1)}
        lines.append([point["case"], *(f"{gap:+.3f}" for gap in at.values())])
    return table(["row and column scales known: above R(D) at", "1e-3", "1e-2", "0.1"], lines)


def _at(line: Sequence[Point], error: float) -> float:
    errors = [math.log(point["nmse"]) for point in line]
    return float(np.interp(math.log(error), errors, [point["gap"] for point in line]))


SHOWN: dict[str, Callable[[Sequence[Point]], str]] = {
    "bounds": _bound_lines,
    "minilm": _pairs,
    "resnet": _pairs,
    "sparse": _sparse,
    "networks": _wholes,
    "formats": in_lines,
    "growth": _grown,
}


def plot(points: Sequence[Point], path: Path) -> None:
    """Draw bits above a normal distribution's R(D) against bits, a panel a case; raises AbsentError."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise AbsentError("matplotlib is not installed: pip install -e '.[bench]'") from None
    cases = [
        ("MiniLM", ("minilm", "formats"), (0, 9.7), (-0.25, 2)),
        (RESNET, ("resnet", "formats"), (0, 9.7), (-0.8, 1.7)),
    ]
    drawn = [curves(points, case, parts) for case, parts, *_ in cases]
    names = list(dict.fromkeys(name for each in drawn for name in each))
    colors = dict(zip(names, mpl.color_sequences["tab20"][::2] + mpl.color_sequences["tab20"][1::2], strict=False))
    with mpl.rc_context({"svg.hashsalt": "frontier", "font.size": 8}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        for number, ((case, _, bits, gaps), lines) in enumerate(zip(cases, drawn, strict=True), 1):
            axes = figure.add_subplot(1, 2, number, title=f"{case}, 2-D tensors")
            axes.axhline(0, color="black", linewidth=0.8, label="R(D) of a normal distribution")
            for point in points:
                if point["part"] == "bounds" and point["case"] == case:
                    xs, ys = ([entry[key] for entry in point["line"]] for key in ("bits", "gap"))
                    axes.plot(xs, ys, "k--", linewidth=0.8, label="R(D), row and column scales known")
            for name, found in lines.items():
                line = "-" if len(found) > 1 and name != "GGUF" else ""
                axes.plot(*zip(*found, strict=True), f".{line}", color=colors[name], label=name, linewidth=1)
            axes.set(xlabel="bits a weight", ylabel="bits above R(D)", xlim=bits, ylim=gaps)
            for point in points:
                if point["case"] == case and point["rival"] == "GGUF":
                    place = point["bits"], point["gap"]
                    axes.annotate(point["setting"], place, (3, 3), textcoords="offset points", fontsize=6, clip_on=True)
            axes.grid(alpha=0.3)
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=5)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    print(f"written: {path}", file=sys.stderr)


def curves(points: Sequence[Point], case: str, parts: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """Return bits and gaps by what coded; ours join the points of all parts."""
    found: dict[str, set[tuple[float, float]]] = {recipe: set() for recipe in RECIPES}
    for point in points:
        if point["part"] in parts and point["case"] == case:
            kind = f" {point['setting'].partition(',')[0]}" if point["rival"] in (NNCODEC, "SZ3") else ""
            found.setdefault(point["rival"] + kind, set()).add((point["bits"], point["gap"]))
            for entry in point["ours"]:
                found.setdefault(entry["recipe"], set()).add((entry["bits"], entry["gap"]))
    return {name: sorted(values) for name, values in found.items() if values}

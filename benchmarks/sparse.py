"""A pruned and quantized network: Deep Compression's relative index, and what row and column scales make of it.

MiniLM pruned to a tenth and quantized to 15 values and 0, the stream `km4p90` of `coders`. Rows of the first table code
all indices as one stream, the last of them under classes of rows and columns that cost it nothing. Those of the second
code the tensors one by one, in frames, with one codebook for all, and all bytes of the frames and the codebook count.
All on one core; every decode is verified.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import featherweight
from benchmarks import _data, _limits
from benchmarks._common import attempt, exit_code, isolated, options, save, table
from benchmarks.coders import pruned_and_quantized
from benchmarks.lossless import as_json
from featherweight import engine, recipes, rivals
from featherweight.codecs.gaps import Gaps
from featherweight.codecs.kmeans import assign
from featherweight.codecs.levels import Levels
from featherweight.prune import threshold_for
from featherweight.rivals import Rival

Array = _data.Array
WAYS = ("encode", "decode")
STREAMS = (
    "gaps(4, gaps=huffman, values=huffman)",
    "gaps(8, gaps=huffman, values=huffman)",
    "gaps(8, gaps=rans, values=rans)",
    "sparse(mask=bitpack, values=huffman)",
    "sparse(mask=rans, values=rans)",
    "huffman",
    "rans",
)
LEVELS = "row=smallest([rans, split(rans, 1024)]), column=rans"
VALUES = "kmeans(16, zero=true, given=@codebook, index={})"
# What is done to the pruned and quantized weights, and to the weights before.
QUANTIZED = {
    "relative index": VALUES.format("gaps(8, gaps=huffman, values=huffman)"),
    "rANS": VALUES.format("rans"),
    "mask under classes": f"smallest([levels(2, {LEVELS}, values=sparse(mask=rans(given=[row, column]), "
    f"values={VALUES.format('rans')})), {VALUES.format('rans')}])",
    "indices under classes": f"smallest([levels(2, {LEVELS}, values={VALUES.format('rans(given=[row, column])')}), "
    f"{VALUES.format('rans')}])",
}
PRUNE = "prune(threshold={threshold!r}, values=" + VALUES + ")"
ORIGINAL = {
    "indices under classes of the weights before": f"smallest([levels(4, {LEVELS}, "
    f"values={PRUNE.replace('index={}', 'index=rans(given=[row, column])')}), {PRUNE.replace('={}', '=rans')}])",
}


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="sparse")
    parser.add_argument("--repetitions", type=int, default=5)
    chosen = parser.parse_args(arguments)
    name, rounds = ("synthetic:65536", 2) if chosen.quick else ("minilm:f32", chosen.repetitions)
    skipped: list[dict[str, str]] = []
    tables = []
    for what in ("stream", "tensors"):
        run = functools.partial(isolated, f"benchmarks.sparse:{what}", 1, name=name, repetitions=rounds)
        found = attempt(skipped, f"{name}, {what}", run)
        if found:
            tables.append(found)
            print(show(found), "\n", flush=True)
    save("sparse", chosen, {"tables": tables, "skipped": skipped})
    return exit_code(skipped)


def stream(name: str, repetitions: int) -> dict[str, Any]:
    """Measure one stream of all indices in this process."""
    case = _data.load(name)
    index = pruned_and_quantized(case.flat.astype(np.float32))
    contenders = [rivals.COPY, *map(rivals.ours, STREAMS), _given(_classes(case))]
    rows = rivals.measure(index, contenders, repetitions=repetitions)
    counts = np.bincount(index)
    limits = {"order 0": _limits.entropy(counts) / index.size, "best Huffman": _limits.huffman(counts) / index.size}
    for width in (4, 8):
        # As the paper codes: one Huffman code for all gaps, one for all values.
        parts = [_limits.huffman(np.bincount(part)) for part in Gaps(width).encode(index).streams]
        limits[f"{width}-bit gaps, one code for gaps and one for values"] = sum(parts) / index.size
    return _found("one stream", index, limits, rows)


def _classes(case: _data.Case) -> Array:
    """Return the classes of rows and columns of all weights, in half octaves, u8."""
    found = []
    for _, x in case.tensors():
        row, column, *_ = Levels(2).encode(x.astype(np.float32)).streams
        found.append(np.broadcast_to(row + column, x.shape).reshape(-1))
    return np.concatenate(found)


def _given(classes: Array) -> Rival:
    """Return the coder alone under classes that both sides have: what codes them is in the second table."""
    recipe, refs = recipes.parse("rans(given=@classes)"), {"classes": classes}

    def compress(array: Array, threads: int) -> bytes:
        return engine.encode(array, recipe, refs=refs, threads=threads)

    def decompress(blob: bytes, out: Array, threads: int) -> Array:
        return engine.decode(blob, out=out, refs=refs, threads=threads)

    return Rival("featherweight rans, classes given", featherweight.__name__, "rans", compress, decompress)


def tensors(name: str, repetitions: int) -> dict[str, Any]:
    """Measure tensor by tensor in this process."""
    case = _data.load(name)
    weights = case.flat.astype(np.float32)
    index = pruned_and_quantized(weights)
    codebook = _means(weights, index)
    quantized = codebook[index]
    # Weights midway between two values may round to either: those are given as what they are to become.
    threshold = threshold_for({"": weights}, 0.9)
    again = assign(np.where(np.abs(weights) <= threshold, np.float32(0), weights), codebook, zero=True)
    source = np.where(again == index, weights, quantized)
    contenders = [
        rivals.COPY,
        *(_ours(what, text, codebook, case.shapes) for what, text in QUANTIZED.items()),
        *(
            _ours(what, text.format(threshold=threshold), codebook, case.shapes, source)
            for what, text in ORIGINAL.items()
        ),
    ]
    rows = rivals.measure(quantized, contenders, repetitions=repetitions)
    parts = [np.bincount(part.reshape(-1)) for _, part in _data.Case("", index, case.shapes).tensors()]
    limits = {"order 0 of each tensor": sum(map(_limits.entropy, parts)) / index.size}
    return _found(f"{len(case.shapes)} tensors", quantized, limits, rows)


def _means(weights: Array, index: Array) -> Array:
    """Return 0 and the mean of the weights of each index from 1 on, ascending."""
    sums = np.bincount(index, weights.astype(np.float64), minlength=16)
    means = sums / np.maximum(np.bincount(index, minlength=16), 1)
    means[0] = 0
    return means.astype(np.float32)


def _ours(
    what: str, text: str, codebook: Array, shapes: dict[str, tuple[int, ...]], source: Array | None = None
) -> Rival:
    recipe, refs = recipes.parse(text), {"codebook": codebook}

    def compress(array: Array, threads: int) -> list[Any]:
        parts = _data.Case("", array if source is None else source, shapes).tensors()
        return [codebook, *(engine.encode(part, recipe, refs=refs, threads=threads) for _, part in parts)]

    def decompress(blob: list[Any], out: Array, threads: int) -> Array:
        for frame, (_, part) in zip(blob[1:], _data.Case("", out, shapes).tensors(), strict=True):
            engine.decode(frame, out=part, refs=refs, threads=threads)
        return out

    return Rival(f"featherweight {what}", featherweight.__name__, text, compress, decompress)


def _found(what: str, array: Array, limits: dict[str, float], rows: list[rivals.Row]) -> dict[str, Any]:
    made = [as_json(row, rows) for row in rows]
    return {"what": what, "elements": array.size, "itemsize": array.itemsize, "limits": limits, "rows": made}


def show(found: dict[str, Any]) -> str:
    """Return a table in Markdown, speeds in millions of weights a second."""
    rows = []
    for row in found["rows"]:
        speeds = [f"{row[way]['median'] / found['itemsize']:,.0f}" for way in WAYS]
        rows.append([row["name"], f"{row['bits']:.4f}", *speeds])
    limits = ", ".join(f"{name} {bits:.3f}" for name, bits in found["limits"].items())
    return table([f"{found['what']} ({limits})", "bits", *(f"{way} M/s" for way in WAYS)], rows)

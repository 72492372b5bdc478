"""Entropy coders alone, on one core: bits a symbol and millions of symbols a second, ours and others.

Two streams of MiniLM: `exp`, the exponent bytes of its bf16 weights, and `km4p90`, the indices of a network that was
pruned to a tenth and quantized to 15 values. Ours run as codecs, in frames (pieces, tables and checksums included), and
in a second process without SIMD (NUMBA_CPU_NAME=generic).
"""

from __future__ import annotations

import functools
import importlib
import zlib
from typing import Any

import msgspec
import numpy as np

from benchmarks import _data, _limits
from benchmarks._common import attempt, exit_code, isolated, options, save, table
from benchmarks.lossless import as_json
from featherweight import rivals
from featherweight.codecs import stage_class
from featherweight.rivals import Rival

Array = _data.Array
CODECS = ("huffman", "rans")
BYTES = ("U8",)
WAYS = ("encode", "decode")


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="coders")
    parser.add_argument("--repetitions", type=int, default=9)
    chosen = parser.parse_args(arguments)
    rounds = 2 if chosen.quick else chosen.repetitions
    skipped: list[dict[str, str]] = []
    streams = []
    for name in ("geometric",) if chosen.quick else ("exp", "km4p90"):
        for portable in (False, True):
            what = f"{name}{', portable' * portable}"
            environment = {"NUMBA_CPU_NAME": "generic"} if portable else {}
            run = functools.partial(
                isolated, "benchmarks.coders:measure", 1, environment, name=name, portable=portable, repetitions=rounds
            )
            found = attempt(skipped, what, run)
            if found:
                streams.append(found)
                print(show(found), "\n", flush=True)
    save("coders", chosen, {"streams": streams, "skipped": skipped})
    return exit_code(skipped)


def measure(name: str, portable: bool, repetitions: int) -> dict[str, Any]:
    """Measure one stream in this process; the portable one beside the two rivals that matter."""
    symbols = stream(name)
    contenders = [rivals.COPY, *(coder for coder in CODERS[: 2 if portable else None] if coder.installed)]
    for codec in CODECS:
        contenders += [direct(codec), rivals.ours(f"split({codec})")]
    rows = rivals.measure(symbols, contenders, repetitions=repetitions)
    counts = np.bincount(symbols)
    return {
        "stream": name,
        "portable": portable,
        "symbols": symbols.size,
        "repetitions": repetitions,
        "limits": {
            "order 0": _limits.entropy(counts) / symbols.size,
            "best Huffman": _limits.huffman(counts) / symbols.size,
        },
        "rows": [as_json(row, rows) for row in rows],
    }


def stream(name: str) -> Array:
    """Return symbols as bytes."""
    if name == "exp":
        return _limits.exponents(_data.load("minilm:bf16").flat)
    if name == "km4p90":
        return pruned_and_quantized(_data.load("minilm:f32").flat)
    return (np.random.default_rng(1).geometric(0.4, 1 << 16) % 32).astype(np.uint8)


def pruned_and_quantized(weights: Array) -> Array:
    """Return 0 for the nine tenths of smallest magnitude, 1 + the index of the nearest of 15 centroids for the others.

    The centroids are Lloyd's on a histogram of 200,000 bins, from the 15 mid-quantiles until none moves by 1e-9.
    """
    magnitude = np.abs(weights)
    kept = magnitude > np.quantile(magnitude, 0.9)
    values = weights[kept].astype(np.float64)
    counts, edges = np.histogram(values, 200_000)
    middles = (edges[1:] + edges[:-1]) / 2
    weight, moment = np.cumsum(np.r_[0, counts]), np.cumsum(np.r_[0.0, counts * middles])
    centroids = np.quantile(values, (np.arange(15) + 0.5) / 15)
    moved = np.inf
    while moved >= 1e-9:
        cuts = np.r_[0, np.searchsorted(middles, (centroids[1:] + centroids[:-1]) / 2), counts.size]
        mass = np.diff(weight[cuts])
        new = np.where(mass > 0, np.diff(moment[cuts]) / np.maximum(mass, 1), centroids)
        moved, centroids = float(np.abs(new - centroids).max()), new
    symbols = np.zeros(weights.size, np.uint8)
    symbols[kept] = 1 + np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)
    return symbols


def direct(name: str) -> Rival:
    """Return a codec of ours without a frame: one record and its streams for all symbols."""
    stage = stage_class(name)()

    def compress(array: Array, threads: int) -> list[Any]:
        encoded = stage.encode(array)
        return [msgspec.msgpack.encode(encoded.wire), *encoded.streams]

    def decompress(blob: list[Any], out: Array, threads: int) -> Array:
        wire, *streams = blob
        stage.codec.decode(msgspec.msgpack.decode(wire, type=stage.codec.wire), tuple(streams), (), out)
        return out

    return Rival(f"featherweight {name}, no frame", "featherweight", name, compress, decompress)


def _zlib_compress(array: Array, threads: int) -> bytes:
    coder = zlib.compressobj(strategy=zlib.Z_HUFFMAN_ONLY)
    return coder.compress(array.data) + coder.flush()


def _zlib_decompress(blob: bytes, out: Array, threads: int) -> bytes:
    return zlib.decompress(blob, bufsize=out.nbytes)


def _constriction_compress(array: Array, threads: int) -> Any:
    stream = importlib.import_module("constriction").stream
    counts = np.bincount(array, minlength=int(array.max()) + 1)
    model = stream.model.Categorical(counts / array.size, perfect=False)
    coder = stream.stack.AnsCoder()
    coder.encode_reverse(array.astype(np.int32), model)
    return [coder.get_compressed(), counts.astype(np.uint32)]


def _constriction_decompress(blob: Any, out: Array, threads: int) -> Array:
    stream = importlib.import_module("constriction").stream
    words, counts = blob
    model = stream.model.Categorical(counts / out.size, perfect=False)
    np.copyto(out, stream.stack.AnsCoder(words).decode(model, out.size), casting="unsafe")
    return out


CODERS = (
    rivals.openzl("huff0", "openzl, huffman", "Huffman", BYTES),
    rivals.openzl("FSE", "openzl, fse", "Fse", BYTES),
    Rival(
        "constriction",
        "constriction",
        "ANS, categorical",
        _constriction_compress,
        _constriction_decompress,
        types=BYTES,
        threaded=False,
    ),
    Rival("zlib", "zlib", "Huffman only", _zlib_compress, _zlib_decompress, types=BYTES, threaded=False),
)
"""Entropy coders alone; they take bytes."""


def show(found: dict[str, Any]) -> str:
    """Return a stream as a Markdown table; a symbol is a byte, so MB/s are millions of symbols a second."""
    rows = []
    for row in found["rows"]:
        against = row["against"].get("huff0")
        rows.append(
            [
                row["name"],
                f"{row['bits']:.3f}",
                *(f"{row[way]['median']:,.0f} ({row[way]['best']:,.0f})" for way in WAYS),
                *(f"{against[way]['median']:.2f}" if against else "" for way in WAYS),
            ]
        )
    limits = ", ".join(f"{name} {bits:.3f}" for name, bits in found["limits"].items())
    title = f"{found['stream']}{', portable' * found['portable']} ({limits})"
    return table([title, "bits", *(f"{way} M/s" for way in WAYS), *(f"{way} / huff0" for way in WAYS)], rows)

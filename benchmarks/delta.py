"""A checkpoint against its base: MiniLM in bf16 with 1.5 % of its weights moved by one unit in the last place.

Which weights move and which way is drawn from a seed. One core; every decode is given the base again and verified.
"""

from __future__ import annotations

import contextlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import _data
from benchmarks._common import attempt, exit_code, isolated, options, save, scratch
from benchmarks.lossless import as_json, show
from featherweight import checkpoint, engine, reading, rivals
from featherweight.rivals import Rival

Array = _data.Array
SHARE = 0.015
SEED = 11
RECIPE = "lossless-delta"


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="delta")
    parser.add_argument("--repetitions", type=int, default=9)
    chosen = parser.parse_args(arguments)
    skipped: list[dict[str, str]] = []
    name, rounds = ("synthetic:65536", 2) if chosen.quick else ("minilm:bf16", chosen.repetitions)

    def run() -> Any:
        return isolated("benchmarks.delta:measure", 1, name=name, repetitions=rounds)

    case = attempt(skipped, f"{name}, {SHARE:.1%} moved", run)
    if case:
        print(show(case, "zstd of xor"), flush=True)
    save("delta", chosen, {"cases": [case] if case else [], "skipped": skipped})
    return exit_code(skipped)


def measure(name: str, repetitions: int) -> dict[str, Any]:
    """Measure in this process."""
    case = _data.load(name)
    base, new = case.flat, moved(case.flat)
    with scratch() as folder:
        contenders = [rivals.COPY, _zstd(base), _zipnn(base), _z4ai(base), _ours(base), _as_file(case, folder)]
        contenders = [rival for rival in contenders if rival.installed]
        rows = rivals.measure(new, contenders, repetitions=repetitions)
    share = np.count_nonzero(base.view(np.uint16) != new.view(np.uint16)) / base.size
    which = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    return {
        "case": f"{name}, {share:.1%} moved",
        "elements": new.size,
        "cores": 1,
        "limits": {"which moved, and which way": float(which + share)},
        "rows": [as_json(row, rows) for row in rows],
    }


def moved(base: Array) -> Array:
    """Return a copy with SHARE of the weights one unit up or down in the last place; zeros and what is next stay."""
    generator = np.random.Generator(np.random.PCG64(SEED))
    words = base.view(np.uint16).copy()
    places = generator.choice(words.size, round(SHARE * words.size), replace=False)
    places = places[(words[places] & 0x7FFF) > 1]
    words[places] += np.where(generator.integers(0, 2, places.size), 1, 0xFFFF).astype(np.uint16)
    return words.view(base.dtype)


def _ours(base: Array) -> Rival:
    refs = {"base": base}

    def compress(array: Array, threads: int) -> bytes:
        return engine.encode(array, RECIPE, refs=refs, threads=threads)

    def decompress(blob: bytes, out: Array, threads: int) -> Array:
        return engine.decode(blob, out=out, refs=refs, threads=threads)

    return Rival(f"featherweight {RECIPE}", "featherweight", RECIPE, compress, decompress)


def _as_file(case: _data.Case, folder: Path) -> Rival:
    base = dict(case.tensors())

    def cut(array: Array) -> dict[str, Array]:
        return dict(_data.Case("", array, case.shapes).tensors())

    def compress(tensors: dict[str, Array], threads: int) -> Path:
        checkpoint.save_file(tensors, folder / "new.fw", base=base, threads=threads)
        return folder / "new.fw"

    def decompress(blob: Path, out: Array, threads: int) -> Array:
        places = cut(out)
        with reading.open(blob, base=base, threads=threads) as file:
            file.decode_into(lambda name: contextlib.nullcontext(places[name].reshape(-1)))
        return out

    return Rival("featherweight --base, file", "featherweight", "lossless, base", compress, decompress, cut)


def _zstd(base: Array) -> Rival:
    words = base.view(np.uint16)

    def compress(array: Array, threads: int) -> Any:
        return importlib.import_module("zstandard").ZstdCompressor(level=3).compress(array.view(np.uint16) ^ words)

    def decompress(blob: bytes, out: Array, threads: int) -> Array:
        data = importlib.import_module("zstandard").ZstdDecompressor().decompress(blob)
        np.bitwise_xor(np.frombuffer(data, np.uint16), words, out=out.view(np.uint16))
        return out

    return Rival("zstd of xor", "zstandard", "level 3", compress, decompress)


def _zipnn(base: Array) -> Rival:
    second = base.tobytes()

    def coder(threads: int) -> Any:
        module = importlib.import_module("zipnn")
        return module.ZipNN(bytearray_dtype="bfloat16", delta_compressed_type="byte", threads=threads)

    def compress(data: bytearray, threads: int) -> Any:
        return coder(threads).compress(data, delta_second_data=second)

    def decompress(blob: bytes, out: Array, threads: int) -> Any:
        return coder(threads).decompress(blob, delta_second_data=second)

    settings = "delta_compressed_type='byte'"
    return Rival("zipnn delta", "zipnn", settings, compress, decompress, lambda array: bytearray(array.tobytes()))


def _z4ai(base: Array) -> Rival:
    second = base.tobytes()

    def compress(data: bytes, threads: int) -> Any:
        return importlib.import_module("z4ai").compress_delta(data, second, dtype="bf16", threads=threads)

    def decompress(blob: bytes, out: Array, threads: int) -> Any:
        return importlib.import_module("z4ai").decompress_delta(blob, second)

    return Rival("z4ai delta", "z4ai", "compress_delta", compress, decompress, lambda array: array.tobytes())

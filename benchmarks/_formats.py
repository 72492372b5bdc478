"""Fixed-rate formats and error-bounded coders: bytes a tensor takes, and what comes of it, at one setting each.

Every one is offered what suits it: GGUF kinds rows of whole blocks whatever the shape (llama.cpp would fall back to a
larger kind), the last one filled with zeros; SZ3 and zfp one absolute bound for all tensors (equal slope). GGUF bytes
are those of the blocks alone.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks._common import AbsentError
from benchmarks._data import Array


class Blob(NamedTuple):
    """A coded array: its bytes, and a function that decodes it; `fast` says that the function is the format's own."""

    size: int
    decode: Callable[[], Array]
    fast: bool = True


class Format(NamedTuple):
    """A format at one setting: codes a matrix of f32, given the root mean square of all weights."""

    name: str
    setting: str
    encode: Callable[[Array, float], Blob]


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise AbsentError(f"{name} is not installed: pip install -e '.[frontier]'") from None


def _blocks(x: Array, size: int) -> Array:
    return np.pad(x.reshape(-1), (0, -x.size % size)).reshape(-1, size)


def _unblocked(blocks: Array, like: Array) -> Array:
    return blocks.reshape(-1)[: like.size].reshape(like.shape)


def _gguf(kind: str) -> Format:
    def encode(x: Array, scale: float) -> Blob:
        ggml, gguf = _package("ggml"), _package("gguf")
        number = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[number]
        rows = _blocks(x, block)
        out = np.empty((len(rows), size), np.uint8)
        source = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        done = ggml.ggml_quantize_chunk(
            int(number), source, out.ctypes.data_as(ctypes.c_void_p), 0, len(rows), block, None
        )
        assert done == out.nbytes
        # The package's decoder is NumPy: right, and no measure of what llama.cpp does.
        return Blob(out.nbytes, lambda: _unblocked(gguf.quants.dequantize(out, number), x), fast=False)

    return Format("GGUF", kind, encode)


def _sz3(algorithm: str, bound: float) -> Format:
    def encode(x: Array, scale: float) -> Blob:
        pysz = _package("pysz")
        config = pysz.szConfig()
        config.errorBoundMode = pysz.szErrorBoundMode.ABS
        config.absErrorBound = bound * scale
        config.cmprAlgo = getattr(pysz.szAlgorithm, algorithm)
        blob, _ = pysz.sz.compress(x, config)
        return Blob(blob.nbytes, lambda: pysz.sz.decompress(blob, np.float32, x.shape)[0])

    return Format("SZ3", f"{algorithm.lower()}, bound {bound:g} rms", encode)


def _zfp(tolerance: float) -> Format:
    def encode(x: Array, scale: float) -> Blob:
        zfpy = _package("zfpy")
        blob = zfpy.compress_numpy(x, tolerance=tolerance * scale)
        return Blob(len(blob), lambda: zfpy.decompress_numpy(blob))

    return Format("zfp", f"tolerance {tolerance:g} rms", encode)


def _integers(bits: int, group: int) -> Format:
    """Integers with an f16 scale for each group, by its largest: 0 for one group a row."""

    def encode(x: Array, scale: float) -> Blob:
        groups = _blocks(x, group or x.shape[-1])
        most = 2 ** (bits - 1) - 1
        scales = (np.abs(groups).max(1, keepdims=True) / most).astype(np.float16)
        levels = np.clip(np.rint(groups / np.maximum(scales, 1e-7, dtype=np.float32)), -most, most).astype(np.int8)
        size = -(-levels.size * bits // 8) + scales.nbytes
        return Blob(size, lambda: _unblocked(levels * scales.astype(np.float32), x))

    return Format(f"int{bits}", f"groups of {group}" if group else "per row", encode)


# Dettmers et al., "QLoRA: Efficient finetuning of quantized LLMs", 2023, appendix E.
NF4 = np.array(
    [
        -1.0,
        -0.6961928009986877,
        -0.5250730514526367,
        -0.39491748809814453,
        -0.28444138169288635,
        -0.18477343022823334,
        -0.09105003625154495,
        0.0,
        0.07958029955625534,
        0.16093020141124725,
        0.24611230194568634,
        0.33791524171829224,
        0.44070982933044434,
        0.5626170039176941,
        0.7229568362236023,
        1.0,
    ],
    np.float32,
)


def _nf4(block: int = 64) -> Format:
    def encode(x: Array, scale: float) -> Blob:
        blocks = _blocks(x, block)
        scales = np.abs(blocks).max(1, keepdims=True).astype(np.float16).astype(np.float32)
        between = (NF4[1:] + NF4[:-1]) / 2
        levels = np.searchsorted(between, blocks / np.maximum(scales, 1e-7)).astype(np.uint8)
        return Blob(levels.size // 2 + 2 * len(blocks), lambda: _unblocked(NF4[levels] * scales, x))

    return Format("NF4", f"blocks of {block}", encode)


FORMATS = (
    *map(_gguf, ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "IQ4_XS", "Q3_K", "Q2_K")),
    *(_sz3("NOPRED", bound) for bound in (0.05, 0.2, 0.6)),
    _sz3("INTERP_LORENZO", 0.2),
    *map(_zfp, (0.2, 0.8, 3.2)),
    _integers(8, 0),
    _integers(4, 128),
    _nf4(),
)

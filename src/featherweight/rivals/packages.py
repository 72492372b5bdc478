"""The other packages, each with the settings; none is imported before it is used."""

from __future__ import annotations

import functools
import importlib
import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from featherweight import dtypes
from featherweight.dtypes import Array
from featherweight.rivals.measuring import Rival, bytes_of

__all__ = ["COPY", "RIVALS", "installed", "openzl"]

FLOATS = ("F32", "F16", "BF16")
OPENZL_PART = 1 << 25


# A plain copy


def _copy(target: Array, source: Array, threads: int) -> Array:
    if threads == 1 or source.nbytes < 1 << 20:
        np.copyto(target, source)
        return target
    flat_target, flat_source = target.reshape(-1), source.reshape(-1)
    cuts = [source.size * i // threads for i in range(threads + 1)]
    parts = [slice(*cut) for cut in itertools.pairwise(cuts)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda part: np.copyto(flat_target[part], flat_source[part]), parts))
    return target


COPY = Rival(
    "copy",
    "numpy",
    "np.copyto",
    lambda pair, threads: _copy(pair[1], pair[0], threads),
    lambda blob, out, threads: _copy(out, blob, threads),
    lambda array: (array, array.copy()),
)


# Zipnn


def _zipnn(array_type: str, threads: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import of torch
        module = importlib.import_module("zipnn")
    return module.ZipNN(input_format="byte", bytearray_dtype=array_type, threads=threads)


_ZIPNN_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

ZIPNN = Rival(
    "zipnn",
    "zipnn",
    "ZipNN(input_format='byte', bytearray_dtype=…, threads=…)",
    lambda prepared, threads: _zipnn(prepared[0], threads).compress(prepared[1]),
    lambda blob, out, threads: _zipnn(_ZIPNN_TYPES[dtypes.of(out.dtype).name], threads).decompress(blob),
    # It reorders the bits of its input in place.
    lambda array: (_ZIPNN_TYPES[dtypes.of(array.dtype).name], bytearray(bytes_of(array))),
    types=FLOATS,
)


# Zstandard, blosc2, pcodec


def _zstd_compress(array: Array, threads: int) -> bytes:
    module = importlib.import_module("zstandard")
    coded: bytes = module.ZstdCompressor(level=3, threads=0 if threads == 1 else threads).compress(bytes_of(array))
    return coded


def _zstd_decompress(blob: bytes, out: Array, threads: int) -> bytes:
    data: bytes = importlib.import_module("zstandard").ZstdDecompressor().decompress(blob)
    return data


ZSTD = Rival("zstd -3", "zstandard", "level 3", _zstd_compress, _zstd_decompress)


def _blosc2_compress(array: Array, threads: int) -> Any:
    blosc2 = importlib.import_module("blosc2")
    return blosc2.compress2(
        bytes_of(array),
        typesize=array.dtype.itemsize,
        codec=blosc2.Codec.ZSTD,
        clevel=1,
        filters=[blosc2.Filter.NOFILTER] * 5 + [blosc2.Filter.SHUFFLE],
        nthreads=threads,
    )


def _blosc2_decompress(blob: Any, out: Array, threads: int) -> Array:
    importlib.import_module("blosc2").decompress2(blob, dst=bytes_of(out), nthreads=threads)
    return out


BLOSC2 = Rival("blosc2", "blosc2", "byte shuffle + zstd 1", _blosc2_compress, _blosc2_decompress)

# bfloat16 is no type of pcodec's: as unsigned integers it finds the same bins.
_PCODEC_TYPES = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "u2",
    "U16": "u2",
    "I16": "i2",
    "U32": "u4",
    "I32": "i4",
}


def _pcodec_view(array: Array) -> Array:
    return array.reshape(-1).view(_PCODEC_TYPES[dtypes.of(array.dtype).name])


def _pcodec_compress(array: Array, threads: int) -> Any:
    pcodec = importlib.import_module("pcodec")
    return pcodec.standalone.simple_compress(array, pcodec.ChunkConfig(compression_level=8))


def _pcodec_decompress(blob: Any, out: Array, threads: int) -> Array:
    importlib.import_module("pcodec").standalone.simple_decompress_into(blob, _pcodec_view(out))
    return out


PCODEC = Rival(
    "pcodec",
    "pcodec",
    "level 8",
    _pcodec_compress,
    _pcodec_decompress,
    _pcodec_view,
    tuple(_PCODEC_TYPES),
    threaded=False,
)


# Openzl

# Its Float16Deconstruct is left out: what it stores are 11 bits in two bytes, and nothing gets smaller.
_OPENZL_NODES = {"F32": "Float32Deconstruct", "BF16": "BFloat16Deconstruct"}


@functools.cache
def _openzl_context(row_name: str, coder: str) -> Any:
    """Return a context and the compressor it refers to, for an element type or, without one, for bytes."""
    zl = importlib.import_module("openzl.ext")
    compressor, context = zl.Compressor(), zl.CCtx()
    if coder == "Transpose":
        graph = zl.nodes.TransposeSplit()(compressor, zl.graphs.Fse())
    elif row_name:
        graph = getattr(zl.nodes, _OPENZL_NODES[row_name])()(compressor, zl.graphs.Store(), getattr(zl.graphs, coder)())
    else:
        graph = getattr(zl.graphs, coder)()(compressor)
    compressor.select_starting_graph(graph)
    context.ref_compressor(compressor)
    context.set_parameter(zl.CParam.StickyParameters, 1)
    context.set_parameter(zl.CParam.FormatVersion, zl.MAX_FORMAT_VERSION)
    return context, compressor


def _openzl_compress(coder: str, array: Array, threads: int) -> list[Any]:
    zl = importlib.import_module("openzl.ext")
    row = dtypes.of(array.dtype)
    context, _ = _openzl_context(row.name if row.kind == "f" else "", coder)
    kind = zl.Type.Numeric if row.kind == "f" else zl.Type.Serial
    words = array.reshape(-1).view(row.word)
    # A gigabyte at once is more than its graphs hold ("temporary library limitation").
    parts = (words[start : start + OPENZL_PART] for start in range(0, words.size, OPENZL_PART))
    return [context.compress([zl.Input(kind, part)]) for part in parts]


def _openzl_decompress(blob: list[Any], out: Array, threads: int) -> list[Any]:
    zl = importlib.import_module("openzl.ext")
    return [zl.DCtx().decompress(part)[0].content.as_nparray() for part in blob]


def openzl(name: str, settings: str, coder: str, types: tuple[str, ...]) -> Rival:
    """Return openzl with an entropy coder behind its split of floats, or on bytes as they are."""
    compress = functools.partial(_openzl_compress, coder)
    return Rival(name, "openzl", settings, compress, _openzl_decompress, types=types, threaded=False)


# Z4ai

_Z4AI_TYPES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "U8": "uint8", "U16": "uint16"}


def _z4ai_compress(prepared: tuple[str, bytes], threads: int) -> Any:
    return importlib.import_module("z4ai").compress(prepared[1], dtype=prepared[0], threads=threads)


def _z4ai_decompress(blob: bytes, out: Array, threads: int) -> Any:
    return importlib.import_module("z4ai").decompress(blob)


Z4AI = Rival(
    "z4ai",
    "z4ai",
    "defaults",
    _z4ai_compress,
    _z4ai_decompress,
    lambda array: (_Z4AI_TYPES[dtypes.of(array.dtype).name], array.tobytes()),
    tuple(_Z4AI_TYPES),
)


RIVALS = (
    ZIPNN,
    openzl("openzl huffman", "deconstruct, store + huffman", "Huffman", ("F32", "BF16")),
    openzl("openzl fse", "deconstruct, store + fse", "Fse", ("F32", "BF16")),
    openzl("openzl transpose", "transpose, fse", "Transpose", ("F32", "F16")),
    BLOSC2,
    ZSTD,
    PCODEC,
    Z4AI,
)
"""Every rival for whole arrays, installed or not."""


def installed(array: Array | None = None) -> list[Rival]:
    """Return the rivals that are installed and, where an array is given, take it."""
    return [rival for rival in RIVALS if rival.installed and (array is None or rival.takes(array))]

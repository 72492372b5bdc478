"""Transforms in front of trellis-coded quantization: what each does to the bits of every tensor, at equal error.

Every float tensor of two dimensions or more is coded as it is, behind a cosine transform, behind a randomized Hadamard
rotation of its rows, and as a part of low rank (a 32nd of the smaller side, factors in bf16) with what is left of it.
Frames are whole, errors are those of decoded tensors; where they differ a little, half the logarithm of their ratio
makes up for it. Columns in another order are not tried: under levels of rows and columns only the order would cost.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

import featherweight
from benchmarks import _data, _networks
from benchmarks._common import attempt, exit_code, options, save, table

Array = _networks.Array
Row = dict[str, Any]
ERRORS = (1e-3, 1e-2, 1e-1)
INDEX = "ggd(states=8, given=[row, column, place])"
PLAIN = (
    "levels(row=auto(small), column=auto(small), place=auto(small), "
    f"values=trellis(nmse={{nmse}}, given=[row, column, place], index={INDEX}))"
)
FORMS = ("dct", "hadamard", "low rank")
LEAST = 1 << 10  # weights of a tensor: of smaller ones the frame is most


def main(arguments: list[str]) -> int:
    parser = options(__doc__, name="transforms")
    parser.add_argument("--network", action="append", help="only this one; may be repeated")
    chosen = parser.parse_args(arguments)
    known = {**{name: network.file for name, network in _networks.NETWORKS.items()}, **_networks.SILENT}
    names = chosen.network or (["LeNet-5"] if chosen.quick else [*known, "MiniLM"])
    skipped: list[dict[str, str]] = []
    rows: list[Row] = []
    errors = ERRORS[1:2] if chosen.quick else ERRORS
    for name in names:
        rows += attempt(skipped, name, functools.partial(network_rows, name, known.get(name), errors)) or []
    save("transforms", chosen, {"rows": rows, "skipped": skipped})
    print(show({"rows": rows}))
    return exit_code(skipped)


def network_rows(name: str, file: str | None, errors: Iterable[float]) -> list[Row]:
    """Measure the tensors of a network; MiniLM is that of the package."""
    if file is not None:
        tensors: Mapping[str, Array] = featherweight.load_file(_networks.weights(file))
    else:
        tensors = dict(_data.load("minilm:f32").tensors())
    rows = []
    for tensor, x in tensors.items():
        if x.ndim < 2 or x.size < LEAST or x.dtype.kind == "i":
            continue
        values = x.astype(np.float32)
        for nmse in errors:
            plain = cost(values, nmse, coded(PLAIN))
            found = {form: cost(values, nmse, ways[form]) - plain for form in FORMS}
            rows.append(
                {"network": name, "tensor": tensor, "shape": list(x.shape), "nmse": nmse, "plain": plain, **found}
            )
    return rows


Way = Callable[[Array, float], tuple[int, Array]]
"""Codes an array with about so large a relative squared error: bytes, and what is decoded."""


def coded(recipe: str) -> Way:
    """Return the way that a recipe is."""

    def way(x: Array, nmse: float) -> tuple[int, Array]:
        frame = featherweight.encode(x, recipe.format(nmse=nmse), threads=1)
        return len(frame), featherweight.decode(frame, threads=1)

    return way


def low_rank(x: Array, nmse: float) -> tuple[int, Array]:
    """Take off a part of low rank, its factors in bf16, and code the rest."""
    flat = x.reshape(x.shape[0], -1).astype(np.float64)
    rank = max(1, min(flat.shape) // 32)
    u, s, v = np.linalg.svd(flat, full_matrices=False)
    left, right = ((part).astype(ml_dtypes.bfloat16) for part in (u[:, :rank] * s[:rank], v[:rank]))
    part = left.astype(np.float64) @ right.astype(np.float64)
    rest = (flat - part).astype(np.float32).reshape(x.shape)
    energy = float(np.square(flat).sum() / np.square(rest, dtype=np.float64).sum())
    size, decoded = coded(PLAIN)(rest, min(1.0, nmse * energy))
    return size + left.nbytes + right.nbytes, (decoded + part.reshape(x.shape)).astype(np.float32)


ways: dict[str, Way] = {
    "dct": coded(f"dct(coefficients={PLAIN})"),
    "hadamard": coded(f"hadamard(rotated={PLAIN})"),
    "low rank": low_rank,
}


def cost(x: Array, nmse: float, way: Way) -> float:
    """Return bits a weight, as if the error were `nmse`."""
    size, decoded = way(x, nmse)
    noise = float(np.square(decoded.astype(np.float64) - x).sum() / np.square(x, dtype=np.float64).sum())
    return round(8 * size / x.size + 0.5 * math.log2(noise / nmse), 4)


def show(result: Mapping[str, Any]) -> str:
    """Return, for each network and error, how many bits each transform adds to all tensors, and where it pays."""
    lines = []
    rows: list[Row] = result["rows"]
    for name, nmse in dict.fromkeys((row["network"], row["nmse"]) for row in rows):
        here = [row for row in rows if (row["network"], row["nmse"]) == (name, nmse)]
        sizes = np.array([math.prod(row["shape"]) for row in here])
        plain = np.array([row["plain"] for row in here])
        cells = []
        for form in FORMS:
            more = np.array([row[form] for row in here])
            pays = more < -0.005
            best = np.minimum(more, 0)
            cells.append(
                f"{sizes @ more / sizes.sum():+.3f}; {pays.sum()} of {pays.size}, {sizes @ best / sizes.sum():+.3f}"
            )
        lines.append([name, f"{nmse:g}", f"{sizes @ plain / sizes.sum():.3f}", *cells])
    return table(["network", "nmse", "bits", *FORMS], lines)

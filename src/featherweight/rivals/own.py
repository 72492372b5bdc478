"""Featherweight as a contender."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import featherweight
from featherweight import checkpoint, engine, reading
from featherweight.dtypes import Array
from featherweight.rivals.measuring import Rival
from featherweight.stage import AnyRecipe

__all__ = ["ours", "ours_as_file"]


def ours(recipe: AnyRecipe | str = "lossless", name: str = "") -> Rival:
    """Return featherweight itself with a recipe, decoding into the caller's buffer."""
    return Rival(
        name or f"featherweight {recipe}",
        featherweight.__name__,
        str(recipe),
        lambda array, threads: engine.encode(array, recipe, threads=threads),
        lambda blob, out, threads: engine.decode(blob, out=out, threads=threads),
    )


def ours_as_file(recipe: AnyRecipe | str, shapes: Mapping[str, tuple[int, ...]], path: Path, name: str = "") -> Rival:
    """Return featherweight with a `.fw` file of the tensors that make up the array in order."""

    def cut(array: Array) -> dict[str, Array]:
        ends = list(itertools.accumulate(math.prod(shape) for shape in shapes.values()))
        flats = np.split(array.reshape(-1), ends[:-1])
        return {name: flat.reshape(shape) for (name, shape), flat in zip(shapes.items(), flats, strict=True)}

    def compress(tensors: dict[str, Array], threads: int) -> Path:
        checkpoint.save_file(tensors, path, recipe, threads=threads)
        return path

    def decompress(blob: Path, out: Array, threads: int) -> Array:
        places = cut(out)
        with reading.open(blob, threads=threads) as file:
            file.decode_into(lambda name: contextlib.nullcontext(places[name].reshape(-1)))
        return out

    title = name or f"featherweight {recipe}, file"
    return Rival(title, featherweight.__name__, f"{recipe}, {len(shapes)} tensors", compress, decompress, cut)

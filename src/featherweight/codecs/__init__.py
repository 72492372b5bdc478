"""The codecs, one a file, and the only list of them.

A number is on the wire for ever; a retired codec keeps its line. Modules are imported one by one, when a frame or a
recipe names them.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

from featherweight.errors import UnsupportedError
from featherweight.stage import Codec

__all__ = ["CODECS", "codec", "names", "stage_class"]

CODECS = {
    1: "raw",
    2: "huffman",
    3: "rans",
    4: "planes",
    5: "narrow",
    6: "constant",
    7: "runs",
    8: "delta",
    9: "bitpack",
    10: "scales",
    11: "gaps",
    12: "sparse",
    13: "kmeans",
    14: "uniform",
    15: "affine",
    16: "cast",
    17: "palette",
    18: "lattice",
    19: "dct",
    20: "hadamard",
    21: "lowrank",
    22: "bloomier",
    23: "ribbon",
    24: "bzip2",
    25: "lzma",
    26: "zstd",
    27: "ggd",
    28: "ternary",
    29: "base3",
    30: "zero_run",
    31: "lloydmax",
    32: "levels",
    33: "trellis",
    34: "density",
}
_NUMBERS = {name: number for number, name in CODECS.items()}


def names() -> tuple[str, ...]:
    """Return the names of all codecs, by number."""
    return tuple(CODECS.values())


def key(found: Codec) -> int | str:
    """Return what a frame calls a codec: its number if it is ours, its name if it is the caller's own."""
    known = _NUMBERS.get(found.name)
    return found.name if known is None or codec(known) is not found else known


@functools.cache
def codec(key: int | str) -> Codec:
    """Import a codec by number or name; raises UnsupportedError for one not known here."""
    name = CODECS.get(key) if isinstance(key, int) else key
    if name not in _NUMBERS:
        raise UnsupportedError(f"codec {key!r} is unknown here: upgrade featherweight, or pass it in codecs=")
    found: Codec = importlib.import_module(f"{__name__}.{name}").CODEC
    return found


@functools.cache
def stage_class(name: str) -> Any:
    """Import the stage of a codec by the codec's name: the one dataclass of its module that has this codec."""
    found = codec(name)
    module = importlib.import_module(f"{__name__}.{name}")
    return next(
        value for value in vars(module).values() if isinstance(value, type) and vars(value).get("codec") is found
    )

"""Codec stages for weight tensors that compose into a small, self-describing byte stream.

>>> import numpy as np
>>> from featherweight import decode, encode
>>> frame = encode(np.zeros((64, 64), np.float32))
>>> decode(frame).shape
(64, 64)

`save_file`, `load_file` and `open` do for whole checkpoints what those of safetensors do. Everything is imported when
it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featherweight.checkpoint import decode_file, encode_file, save_file
    from featherweight.engine import decode, encode, inspect
    from featherweight.errors import (
        ArgumentError,
        BaseMismatchError,
        FeatherweightError,
        FrameError,
        LimitError,
        MissingDependencyError,
        TruncatedError,
        UnsupportedError,
    )
    from featherweight.goals import Goal
    from featherweight.lookups import Lookup, lookup
    from featherweight.plan import Plan
    from featherweight.reading import TensorFile, load_file, open
    from featherweight.stage import Recipe, Split, chain
    from featherweight.traffic import Channel, Reducer

__version__ = "0.1.0"

_HOMES = {
    "checkpoint": ("decode_file", "encode_file", "save_file"),
    "engine": ("decode", "encode", "inspect"),
    "errors": (
        "ArgumentError",
        "BaseMismatchError",
        "FeatherweightError",
        "FrameError",
        "LimitError",
        "MissingDependencyError",
        "TruncatedError",
        "UnsupportedError",
    ),
    "goals": ("Goal",),
    "lookups": ("Lookup", "lookup"),
    "plan": ("Plan",),
    "reading": ("TensorFile", "load_file", "open"),
    "stage": ("Recipe", "Split", "chain"),
    "traffic": ("Channel", "Reducer"),
}
_WHERE = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "ArgumentError",
    "BaseMismatchError",
    "Channel",
    "FeatherweightError",
    "FrameError",
    "Goal",
    "LimitError",
    "Lookup",
    "MissingDependencyError",
    "Plan",
    "Recipe",
    "Reducer",
    "Split",
    "TensorFile",
    "TruncatedError",
    "UnsupportedError",
    "chain",
    "decode",
    "decode_file",
    "encode",
    "encode_file",
    "inspect",
    "load_file",
    "lookup",
    "open",
    "save_file",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

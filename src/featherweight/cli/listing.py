"""What `recipes` tells: recipes, stages, their parameters."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Mapping
from typing import Any

from featherweight import codecs as codec_table
from featherweight.auto import Auto
from featherweight.errors import ArgumentError
from featherweight.recipes import NAMED, parse, text
from featherweight.stage import params

__all__ = ["everything", "one"]

Section = tuple[str, list[str]]


def everything() -> list[Section]:
    """Return the recipes, the stages, and how they are written."""
    named = {"auto": _first_line(Auto), **{name: recipe.doc for name, recipe in NAMED.items()}}
    width = max(map(len, named))
    stages: list[str] = []
    for name in sorted(codec_table.names()):
        stage = codec_table.stage_class(name)
        stages += ["", f"{name}  {_first_line(stage)}", *(f"    {line}" for line in _stage_lines(stage))]
    written = """
        planes(exponent=huffman, mantissa=rans(given=exponent))
        A stage, its parameters and what its streams go into; a stream that is not named is stored as it is.
        Around it, split(…, size=…) codes in pieces, in parallel."""
    return [
        ("Recipes", [f"{name.ljust(width)}  {doc}" for name, doc in sorted(named.items())]),
        ("Stages", stages[1:]),
        ("Recipes of your own", inspect.cleandoc(written).splitlines()),
    ]


def one(name: str) -> Section:
    """Describe one recipe or stage in full."""
    if name in NAMED:
        return name, [NAMED[name].doc, "", f"= {text(parse(name))}"]
    if name == "auto":
        return name, [*_docstring(Auto), "", *_parameters(Auto)]
    if name not in codec_table.names():
        known = ", ".join(sorted({*NAMED, "auto", *codec_table.names()}))
        raise ArgumentError(f"no recipe or stage is called {name!r}; there are {known}")
    stage = codec_table.stage_class(name)
    return name, [*_docstring(sys.modules[stage.__module__]), "", *_stage_lines(stage)]


def _docstring(thing: Any) -> list[str]:
    return inspect.cleandoc(thing.__doc__ or "").splitlines()


def _first_line(thing: Any) -> str:
    return next(iter(_docstring(thing)), "")


def _stage_lines(stage: Any) -> list[str]:
    """Describe parameters, streams, and what a stage is given."""
    lines = _parameters(stage)
    lines.append(f"streams: {', '.join(port.name for port in stage.codec.streams) or 'none'}")
    if stage.codec.given:
        lines.append(f"given: {', '.join(port.name for port in stage.codec.given)}")
    return lines


def _parameters(stage: Any) -> list[str]:
    return [f"{field.name}={_value(field.default)}: {field.metadata['doc']}{_bounds(field)}" for field in params(stage)]


def _bounds(field: dataclasses.Field[Any]) -> str:
    meta: Mapping[str, Any] = field.metadata
    if meta["choices"]:
        return f" ({' | '.join(meta['choices'])})"
    low, high = meta["lo"], meta["hi"]
    if low is None and high is None:
        return ""
    return f" (at least {low})" if high is None else f" (at most {high})" if low is None else f" ({low} … {high})"


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)

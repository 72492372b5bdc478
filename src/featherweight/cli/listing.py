"""What `recipes` tells: recipes, stages, their parameters."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from featherweight import codecs as codec_table
from featherweight.named import KNOBS, NAMED, Named
from featherweight.recipes import ENCODING, parse, text
from featherweight.stage import AnyRecipe, Recipe, Selector, Smallest, Split, params

__all__ = ["everything", "one"]

Section = tuple[str, list[str]]

_SPLIT = f"""
    Code what another recipe codes in pieces, in parallel: split(planes(exponent=huffman), size=65536)

    A piece is whole rows, of `size` elements or a little less; the pieces are coded apart, and can be read one by one.
    Smaller pieces spare more when a part of a tensor is read, and cost a few bytes each.

    size={Split.size:,}: elements of a piece
    """


_SMALLEST = """
    Code with whichever of several recipes comes out smallest: smallest([planes(exponent=rans), huffman])

    One that does not take the array is left out. Errors are not compared, so that lossy ones should be as fine as each
    other.

    enough=0.0: the share of the array's bytes at which those that follow are no longer tried (0 … 1)
    """


_TEXTS = {"split": _SPLIT, "smallest": _SMALLEST}


def everything() -> list[Section]:
    """Return the recipes, the stages, and how they are written."""
    named = {name: recipe.doc for name, recipe in NAMED.items()}
    width = max(map(len, [*named, *_TEXTS, *ENCODING]))
    around = {name: _first_line(thing) for name, thing in ENCODING.items()}
    around |= {name: inspect.cleandoc(lines).splitlines()[0].partition(":")[0] + "." for name, lines in _TEXTS.items()}
    stages: list[str] = []
    for name in sorted(codec_table.names()):
        stage = codec_table.stage_class(name)
        stages += ["", f"{name}  {_first_line(stage)}", *(f"    {line}" for line in _stage_lines(stage))]
    written = """
        planes(exponent=huffman, mantissa=rans(given=exponent))
        A stage, its parameters and what its streams go into; a stream that is not named is stored as it is.
        A lossy stage alone is for arrays that may be spoilt: of a whole checkpoint, say weights(uniform(0.01))."""
    return [
        ("Recipes", [f"{name.ljust(width)}  {doc}" for name, doc in sorted(named.items())]),
        ("Around stages", [f"{name.ljust(width)}  {doc}" for name, doc in sorted(around.items())]),
        ("Stages", stages[1:]),
        ("Recipes of your own", inspect.cleandoc(written).splitlines()),
    ]


def one(name: str) -> Section:
    """Describe one recipe or stage in full."""
    if name in NAMED:
        return name, [NAMED[name].doc, *_knobs(NAMED[name]), "", f"= {text(parse(name))}"]
    if name in ENCODING:
        return name, [*_docstring(ENCODING[name]), "", *_parameters(ENCODING[name])]
    if name in _TEXTS:
        return name, inspect.cleandoc(_TEXTS[name]).splitlines()
    if "(" in name:
        return _own(name)
    if name not in codec_table.names():
        parse(name)  # says what is meant, and what there is
    stage = codec_table.stage_class(name)
    return name, [*_docstring(sys.modules[stage.__module__]), "", *_stage_lines(stage)]


def _knobs(named: Named) -> list[str]:
    """Describe the knobs of a recipe; a goal turns one of them."""
    lines = []
    for each in inspect.signature(named.text).parameters.values():
        turned = "" if each.name != named.knob else "; goals turn it"
        turned += f" among {named.choices[0]} … {named.choices[-1]}" if turned and named.choices else ""
        lines.append(f"{each.name}={_value(each.default)}: {KNOBS[each.name]}{turned}")
    return ["", *lines] if lines else []


def _own(source: str) -> Section:
    """Describe a recipe that is written out: how it is read, and what it is made of."""
    recipe = parse(source)
    parts = {name: _first_line(part) for name, part in _parts(recipe)}
    width = max(map(len, parts))
    return source, [f"= {text(recipe)}", "", *(f"{name.ljust(width)}  {line}" for name, line in parts.items())]


def _parts(recipe: AnyRecipe) -> Iterator[tuple[str, AnyRecipe]]:
    """Yield what a recipe is made of, from the outside in."""
    if isinstance(recipe, Recipe):
        yield from _parts(recipe.stage)
        for _, inner in recipe.then:
            yield from _parts(inner)
        return
    yield text(recipe).partition("(")[0], recipe
    for each in _inside(recipe):
        yield from _parts(each)


def _inside(recipe: AnyRecipe) -> Iterable[AnyRecipe]:
    if isinstance(recipe, Split):
        return [recipe.recipe]
    if isinstance(recipe, Smallest):
        return recipe.recipes
    if isinstance(recipe, Selector):
        held = [getattr(recipe, field.name) for field in params(recipe) if field.metadata["recipe"]]
        return [each for each in held if each is not None]
    return []


def _docstring(thing: Any) -> list[str]:
    return inspect.cleandoc(thing.__doc__ or "").replace("``", "").splitlines()


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
    if isinstance(value, AnyRecipe):
        return text(value)
    return str(value).lower() if isinstance(value, bool) else "none" if value is None else str(value)

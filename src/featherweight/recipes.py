"""Recipes by name, and their text form.

::

    recipe = name | name(argument, …)
    argument = value | key=value
    value = number | string | true | false | name | @name | recipe | [value, …]
    name = [a-z0-9][a-z0-9_-]*

Arguments are the parameters of the stage, in order or by key; a key that is a stream of the stage says what that stream
goes into; ``given`` lists the arrays that the stage is given:
``planes(exponent=huffman, mantissa=rans(given=exponent))``. ``split(recipe, size=…)`` codes in pieces,
``smallest([recipe, …], enough=…)`` with whichever comes out smallest, ``weights(recipe, other=recipe)`` spares what a
lossy recipe must not spoil.

>>> text(parse("split(planes([8, 4, 4], exponent=rans))"))
'split(planes(widths=[8, 4, 4], exponent=rans))'
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from featherweight import codecs as codec_table
from featherweight.auto import Auto
from featherweight.errors import ArgumentError, UnsupportedError
from featherweight.lossy import Lossy
from featherweight.named import NAMED
from featherweight.prune import Prune
from featherweight.smooth import Smooth
from featherweight.stage import (
    AnyRecipe,
    Port,
    Recipe,
    Selector,
    Smallest,
    Split,
    chain,
    hints_of,
    name_of,
    params,
    streams_of,
)
from featherweight.weights import Weights

__all__ = ["ENCODING", "NAMED", "Family", "family", "named", "parse", "text"]

MAX_DEPTH = 32
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w-]))|(?P<name>@?[A-Za-z0-9_][\w.\-/]*)"""
    r"""|'(?P<single>[^']*)'|"(?P<double>[^"]*)"|(?P<mark>[()\[\],=]))"""
)


@dataclass(frozen=True)
class Family:
    """A named recipe without the value of its knob; called with one, it is the recipe."""

    name: str
    knob: str
    choices: tuple[Any, ...]
    unit: float
    positional: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]

    def __call__(self, value: Any) -> AnyRecipe:
        """Return the recipe with its knob at a value."""
        return named(self.name, *self.positional, **dict(self.named), **{self.knob: value})

    def text(self, value: Any) -> str:
        """Return the same as text."""
        known = [*map(_show, self.positional), *(f"{key}={_show(each)}" for key, each in self.named)]
        return f"{self.name}({', '.join([*known, f'{self.knob}={_show(value)}'])})"


_Made = TypeVar("_Made")
_SELECTORS = {"auto": Auto, "lossy": Lossy, "smooth": Smooth, "weights": Weights}
_REWRITES = {"prune": Prune}
_GOALS = ("bits", "size", "nmse", "snr", "max_error")  # what people ask of a recipe that a search can meet
ENCODING: Mapping[str, type[Any]] = {**_SELECTORS, **_REWRITES}
"""What stands in recipes and vanishes in encoding: choices by the array, and changes of it."""


def named(name: str, /, *positional: Any, **knobs: Any) -> AnyRecipe:
    """Return the recipe of this name with these knobs; raises TypeError for such that it does not have."""
    return parse(_called(NAMED[name].text, positional, knobs))


def parse(source: str, codecs: Mapping[str, Any] = {}) -> AnyRecipe:
    """Read a recipe; `codecs` are further stage classes by name.

    Raises ArgumentError that shows the place.
    """
    return _parse(source, codecs) if codecs else _known(source)


@functools.lru_cache(256)
def _known(source: str) -> AnyRecipe:
    return _parse(source, {})


def _parse(source: str, codecs: Mapping[str, Any]) -> AnyRecipe:
    reader = _Reader(source, codecs)
    node = reader.recipe(0)
    reader.expect("")
    return node


def family(source: str, codecs: Mapping[str, Any] = {}) -> Family:
    """Read a named recipe whose knob is left to a goal; raises ArgumentError where it has none, or it is set."""
    reader = _Reader(source, codecs)
    name = reader.tokens[0][1]
    reader.place = 1
    positional, keyed = reader.arguments(0)
    reader.expect("")
    found = NAMED.get(name)
    if found is None or found.knob is None:
        able = ", ".join(sorted(name for name, each in NAMED.items() if each.knob))
        raise ArgumentError(f"recipe {source!r} has nothing that a goal could steer: take one of {able}")
    order = list(_signature(found.text).parameters)
    if found.knob in keyed or found.knob in order[: len(positional)]:
        raise ArgumentError(f"recipe {source!r} says {found.knob} itself, which the goal is to find: leave one out")
    if found.instead in keyed or found.instead in order[: len(positional)]:
        raise ArgumentError(f"recipe {source!r} says {found.instead}, which {found.knob} goes before: leave it out")
    plain = {key: _plain(value) for key, value in keyed.items()}
    return Family(name, found.knob, found.choices, found.unit, tuple(map(_plain, positional)), tuple(plain.items()))


def text(recipe: AnyRecipe) -> str:
    """Write a recipe so that `parse` reads the same recipe."""
    if isinstance(recipe, Split):
        size = "" if recipe.size == Split.size else f", size={recipe.size}"
        return f"split({text(recipe.recipe)}{size})"
    if isinstance(recipe, Smallest):
        enough = f", enough={recipe.enough}" if recipe.enough else ""
        return f"smallest({_show(recipe.recipes)}{enough})"
    stage, then, given = (recipe.stage, recipe.then, recipe.given) if isinstance(recipe, Recipe) else (recipe, (), ())
    name = type(stage).__name__.lower() if isinstance(stage, Selector) else name_of(stage)
    arguments = [f"{f.name}={_show(v)}" for f in params(stage) if (v := getattr(stage, f.name)) != f.default]
    if given:
        arguments.append(f"given={given[0] if len(given) == 1 else _show(given)}")
    arguments += [f"{stream}={text(node)}" for stream, node in then]
    return f"{name}({', '.join(arguments)})" if arguments else name


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_show, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, (str, int, float)):
        return text(value)
    bare = isinstance(value, str) and value not in ("true", "false") and re.fullmatch(r"@?[a-z][\w.\-/]*", value)
    if isinstance(value, str) and not bare:
        return f'"{value}"' if "'" in value else f"'{value}'"
    return str(value)


class _Reader:
    """A recursive-descent parser; a name with parentheses is a recipe, without it may be either."""

    def __init__(self, source: str, codecs: Mapping[str, Any]) -> None:
        if not isinstance(codecs, Mapping):
            raise ArgumentError(f"codecs is a mapping from names to stage classes, not {type(codecs).__name__}")
        self.source = source
        self.codecs = codecs
        self.tokens = list(self._scan())
        self.place = 0

    def _scan(self) -> Iterator[tuple[str, str, int]]:
        place = 0
        while place < len(self.source.rstrip()):
            found = _TOKEN.match(self.source, place)
            if not found:
                raise ArgumentError(f"recipe {self.source!r}: {self.source[place:].strip()!r} is not understood")
            kind = found.lastgroup or ""
            yield ("string" if kind in ("single", "double") else kind), found[kind], found.start(kind)
            place = found.end()
        yield "mark", "", len(self.source)

    def fail(self, message: str) -> ArgumentError:
        return ArgumentError(f"recipe {self.source!r}, at character {self.tokens[self.place][2]}: {message}")

    def take(self, mark: str) -> bool:
        if self.tokens[self.place][:2] == ("mark", mark):
            self.place += 1
            return True
        return False

    def expect(self, mark: str) -> None:
        if not self.take(mark):
            found = self.tokens[self.place][1]
            raise self.fail(
                f"expected {mark!r} before {found!r}"
                if mark and found
                else f"expected {mark!r}"
                if mark
                else f"{found!r} follows the recipe"
            )

    def recipe(self, depth: int) -> AnyRecipe:
        kind, name, _ = self.tokens[self.place]
        start, number = self.place, kind == "number" and name.isdigit()
        if kind != "name" and not number:
            raise self.fail("expected the name of a recipe")
        self.place += 1
        positional, named = self.arguments(depth)
        try:
            return self.build(name, positional, named)
        except UnsupportedError:
            self.place = start
            known = sorted({*NAMED, *ENCODING, "split", "smallest", *codec_table.names(), *self.codecs})
            close = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise self.fail(f"no recipe or stage is called {name!r}; {meant}") from None
        except TypeError as error:
            self.place = start
            raise self.fail(f"{name}: {error}{_goal_meant(name, named)}") from None

    def arguments(self, depth: int) -> tuple[list[Any], dict[str, Any]]:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        if depth > MAX_DEPTH:
            raise self.fail(f"recipes nest more than {MAX_DEPTH} deep")
        if not self.take("("):
            return positional, named
        while not self.take(")"):
            if positional or named:
                self.expect(",")
            key = self.tokens[self.place][1]
            if self.tokens[self.place][0] == "name" and self.tokens[self.place + 1][:2] == ("mark", "="):
                self.place += 2
                if key in named:
                    raise self.fail(f"{key} is given twice")
                named[key] = self.value(depth + 1)
            elif named:
                raise self.fail("an argument without a key follows one with a key")
            else:
                positional.append(self.value(depth + 1))
        return positional, named

    def value(self, depth: int) -> Any:
        kind, token, _ = self.tokens[self.place]
        if kind == "number":
            self.place += 1
            return float(token) if re.search(r"[.eE]", token) else int(token)
        if kind == "string":
            self.place += 1
            return token
        if self.take("["):
            items: list[Any] = []
            while not self.take("]"):
                if items:
                    self.expect(",")
                items.append(self.value(depth + 1))
            return tuple(items)
        if token in ("true", "false"):
            self.place += 1
            return token == "true"
        if kind == "name" and self.tokens[self.place + 1][:2] != ("mark", "("):
            self.place += 1
            return _Word(token, self, self.place - 1, depth)
        return self.recipe(depth)

    def build(self, name: str, positional: list[Any], keyed: dict[str, Any]) -> AnyRecipe:
        if name == "split":
            return _called(_split, positional, keyed)
        if name == "smallest":
            return _called(_smallest, positional, keyed)
        if name in NAMED:
            return named(name, *map(_plain, positional), **{key: _plain(v) for key, v in keyed.items()})
        if name in _SELECTORS:
            return self.selector(_SELECTORS[name], positional, keyed)
        return self.stage(name, positional, keyed)

    def selector(self, cls: Any, positional: list[Any], named: dict[str, Any]) -> AnyRecipe:
        fields = {f.name: f.metadata["recipe"] for f in params(cls)}
        values = {**dict(zip(fields, positional, strict=False)), **named}
        if len(positional) > len(fields) or values.keys() - fields.keys():
            raise TypeError(f"it has {', '.join(fields)}")
        made: AnyRecipe = cls(**{key: _recipe(v) if fields[key] else _plain(v) for key, v in values.items()})
        return made

    def stage(self, name: str, positional: list[Any], named: dict[str, Any]) -> Recipe:
        found: Any = self.codecs[name] if name in self.codecs else _REWRITES.get(name) or codec_table.stage_class(name)
        if not isinstance(found, type) or not (hasattr(found, "codec") or hasattr(found, "rewrite")):
            raise ArgumentError(f"codecs[{name!r}] must be the stage's class, not {found!r}")
        cls: Any = found
        fields, streams = [f.name for f in params(cls)], streams_of(cls)
        ports: tuple[Port, ...] = getattr(cls, "codec", cls).given + hints_of(cls)
        if len(positional) > len(fields):
            raise self.fail(f"{name} takes {len(fields)} arguments without a key: {', '.join(fields) or 'none'}")
        values = {**dict(zip(fields, positional, strict=False))}
        given: tuple[str, ...] = ()
        then: dict[str, AnyRecipe] = {}
        for key, value in named.items():
            if key == "given":
                given = tuple(str(_plain(v)) for v in (value if isinstance(value, tuple) else (value,)))
            elif key in fields and key not in values:
                values[key] = value
            elif key in streams:
                then[key] = _recipe(value)
            else:
                known = ", ".join([*fields, *sorted(streams), *(["given"] if ports else [])])
                raise self.fail(f"before here, {name} is given {key!r}, which it does not have: it has {known}")
        return chain(cls(**{key: _plain(v) for key, v in values.items()}), given=given, **then)


def _goal_meant(name: str, keyed: Mapping[str, Any]) -> str:
    """Say what to do where somebody asks of a recipe what only a search over the whole file can find."""
    goal = next((key for key in keyed if key in _GOALS and name in NAMED and NAMED[name].knob), "")
    return f"; for the whole file there is --{goal.replace('_', '-')}, in Python goal=Goal({goal}=…)" if goal else ""


class _Word(str):
    """A bare name: a string where a parameter wants one, a recipe where a stream does."""

    def __new__(cls, token: str, reader: _Reader, place: int, depth: int) -> Self:
        word = super().__new__(cls, token)
        word.reader, word.place, word.depth = reader, place, depth
        return word

    reader: _Reader
    place: int
    depth: int

    def recipe(self) -> AnyRecipe:
        """Read the name again, as a recipe."""
        after, self.reader.place = self.reader.place, self.place
        found = self.reader.recipe(self.depth)
        self.reader.place = after
        return found


def _recipe(value: Any) -> AnyRecipe:
    if isinstance(value, _Word):
        return value.recipe()
    if isinstance(value, (str, int, float, tuple)):
        raise ArgumentError(f"{value!r} is no recipe")
    return value  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, tuple) else str(value) if isinstance(value, _Word) else value


@functools.lru_cache(256)
def _signature(make: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(make)


def _called(make: Callable[..., _Made], positional: Sequence[Any], keyed: Mapping[str, Any]) -> _Made:
    """Call what makes recipes; of arguments that it does not take the error tells what it has, not what it is."""
    signature = _signature(make)
    try:
        signature.bind(*positional, **keyed)
    except TypeError as error:
        raise TypeError(f"{error}: it has {', '.join(signature.parameters) or 'no parameters'}") from None
    return make(*positional, **keyed)


def _split(recipe: Any = None, size: Any = Split.size) -> Split:
    inner = None if recipe is None else _recipe(recipe)
    if inner is None or isinstance(inner, Split):
        raise ArgumentError("split needs a recipe that is not split itself: split(huffman)")
    return Split(inner, size)


def _smallest(recipes: Any = (), enough: Any = 0.0) -> Smallest:
    return Smallest(tuple(map(_recipe, recipes)) if isinstance(recipes, tuple) else recipes, enough)

"""The contract between codecs and the engine.

A *stage* is the encoder's side: a frozen dataclass whose fields are what the user may choose. Its `codec` is the
decoder's side: a value that says which arrays may pass and how they turn back into one. Neither knows of frames.

Three things are never on the wire: what the encoder was told, what it tried, and the shapes of its streams (the
engine writes those).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeGuard, runtime_checkable

import msgspec
import numpy as np

from featherweight import dtypes
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError

__all__ = [
    "AnyRecipe",
    "Codec",
    "Edge",
    "Empty",
    "Encoded",
    "Port",
    "Recipe",
    "Rewrite",
    "Selector",
    "Smallest",
    "Spec",
    "Split",
    "Stage",
    "Wire",
    "chain",
    "check_params",
    "hints_of",
    "name_of",
    "param",
    "params",
    "streams_of",
]


_KINDS = {"b": "booleans", "u": "unsigned integers", "i": "integers", "f": "floats", "c": "complex numbers"}


class Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of wire records: positional msgpack, strict about types and about extra fields."""


class Empty(Wire, frozen=True):
    """The wire record of a codec that needs none."""


class Spec(NamedTuple):
    """What an edge carries; written by the engine, never by a codec."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Port(NamedTuple):
    """What an edge may carry; the engine checks it on both sides.

    `kinds` are letters of ``dtypes``; `ndim` (dimensions) and `bits` (of an element) are given where they matter.
    """

    name: str
    kinds: str = "buifc"
    ndim: int | None = None
    bits: int | None = None

    def accepts(self, spec: Spec) -> bool:
        """Return whether an edge of this spec may pass."""
        row = dtypes.of(spec.dtype)
        return row.kind in self.kinds and self.ndim in (None, len(spec.shape)) and self.bits in (None, row.bits)

    def check(self, spec: Spec, error: type[ArgumentError | FrameError]) -> None:
        """Raise `error` where the edge may not pass."""
        if not self.accepts(spec):
            kinds = " or ".join(_KINDS[letter] for letter in self.kinds)
            wanted = f"{kinds}" + ("" if self.bits is None else f" of {self.bits} bits")
            wanted += "" if self.ndim is None else f" in {self.ndim} dimensions"
            raise error(f"its {self.name} can be {wanted}, not {spec.dtype}{list(spec.shape)}")


class Edge(Protocol):
    """An edge of which perhaps only some elements are needed; see ``Codec.at``."""

    @property
    def spec(self) -> Spec:
        """Its dtype and shape."""
        ...

    def whole(self) -> Array:
        """Return all of it."""
        ...

    def at(self, positions: Array, /) -> Array:
        """Return the elements at flat positions (u64, in bounds), one-dimensional."""
        ...


class Encoded(NamedTuple):
    """What `Stage.encode` returns; `streams` are in the order of ``codec.streams``, trailing ones may be absent."""

    wire: msgspec.Struct
    streams: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class Codec:
    """The decoder's side of a stage: a value, not a base class.

    ``decode(wire, streams, given, out)`` fills `out`, a C-contiguous array that the engine allocated, and raises
    FrameError for whatever the ports did not rule out. A codec with several streams may be sent without the
    trailing ones but never without the first, and without `given`, if its decode says what that means. `exact` is
    False where float arithmetic makes the last bits depend on the machine.

    A codec whose elements can be had one by one may say how: ``at(wire, streams, given, spec, positions)`` returns, in
    one dimension, what decoding puts at these flat positions (u64, in bounds) of an array of that spec.

    A codec whose result is one of its streams, element for element, may give its number as `same`: `decode` may then
    find that stream in the memory of `out`, perhaps in another shape.
    """

    name: str
    wire: type[msgspec.Struct]
    out: Port
    streams: tuple[Port, ...]
    decode: Callable[[Any, tuple[Array, ...], tuple[Array, ...], Array], None]
    given: tuple[Port, ...] = ()
    exact: bool = True
    at: Callable[[Any, tuple[Edge, ...], tuple[Edge, ...], Spec, Array], Array] | None = None
    same: int | None = None


@runtime_checkable
class Stage(Protocol):
    """The encoder's side: any frozen dataclass with these members, whose fields are plain values, never arrays.

    A stage may also have ``hints: ClassVar[tuple[Port, ...]]``: arrays that the encoder looks at and the decoder does
    without; they come after those of ``codec.given``. And it may have ``together(count, shape)``,
    which returns the stage that codes so many arrays of a shape, one below another along the first dimension, as this
    one codes each, or None: see `bundles`. Where ``blind: ClassVar[bool]`` is true, it does the same to elements
    whatever shape they come in, and arrays of any shapes go together as one of one dimension.
    """

    codec: ClassVar[Codec]

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Split a C-contiguous native array into a wire record and streams; leave `x` untouched."""
        ...

    def error_bound(self, x: Array, /) -> float | None:
        """Return the largest absolute error decoding can make, 0 for lossless, None where nothing is promised."""
        ...


@runtime_checkable
class Selector(Protocol):
    """A choice made while encoding: looks at the array and names a recipe; never on the wire."""

    def choose(self, x: Array, /) -> AnyRecipe | None:
        """Return what this array is to be coded with; None stores it as it is."""
        ...


@runtime_checkable
class Rewrite(Protocol):
    """A change made while encoding that decoders do not know of, such as pruning; never on the wire.

    In a recipe it stands like a stage with one stream, `values`: the changed array.
    """

    name: ClassVar[str]
    given: ClassVar[tuple[Port, ...]]

    def rewrite(self, x: Array, /, *given: Array) -> Array:
        """Return another array of the same dtype and shape; leave `x` untouched."""
        ...


@dataclass(frozen=True)
class Recipe:
    """A stage or rewrite, what its streams go into, and the names of the arrays it is given.

    A stream that `then` does not name is stored as it is. A given name is an earlier stream of a stage further up
    (the nearest wins), or ``@name`` for a reference from outside the frame.
    """

    stage: Stage | Rewrite
    then: tuple[tuple[str, AnyRecipe], ...] = ()
    given: tuple[str, ...] = ()

    @functools.cached_property
    def mentioned(self) -> frozenset[str]:
        """The given names that it and what is under it mention."""
        return frozenset(self.given).union(*(mentioned(node) for _, node in self.then))

    @functools.cached_property
    def order(self) -> tuple[int, ...]:
        """The numbers of the streams as they are coded: one whose recipe is given a later one comes after that."""
        names, then = streams_of(self.stage), dict(self.then)
        order = list(range(len(names)))
        for number, name in enumerate(names):
            wanted = mentioned(then.get(name))
            later = [other for other in order if other > number and names[other] in wanted]
            if later:
                order.remove(number)
                order.insert(order.index(max(later)) + 1, number)
        return tuple(order)

    def __repr__(self) -> str:
        given = [f"given={self.given!r}"] if self.given else []
        return f"chain({', '.join([repr(self.stage), *given, *(f'{name}={node!r}' for name, node in self.then)])})"


@dataclass(frozen=True)
class Split:
    """Code an edge in pieces of whole rows, `size` elements or a little less each, in parallel and apart."""

    recipe: Recipe | Stage | Rewrite | Selector | Smallest
    size: int = 1 << 20

    def __post_init__(self) -> None:
        """Check the fields."""
        if isinstance(self.recipe, Split):
            raise ArgumentError("split(split(…)): an edge is split once")
        if type(self.size) is not int or self.size < 1:
            raise ArgumentError(f"split(size={self.size!r}): expected a positive integer")


@dataclass(frozen=True)
class Smallest:
    """Code with that of the recipes whose streams come out smallest; of equals the first. Errors are not compared.

    A recipe that does not take the array is left out; where none does, what the first one says is raised. Once one
    takes no more than the share `enough` of the array's bytes, those after it are not tried.
    """

    recipes: tuple[AnyRecipe, ...]
    enough: float = 0.0

    def __post_init__(self) -> None:
        """Check that there is something to choose from."""
        if isinstance(self.enough, bool) or not isinstance(self.enough, (int, float)) or not 0 <= self.enough <= 1:
            raise ArgumentError(f"smallest(enough={self.enough!r}): expected a share of the bytes, 0 to 1")
        if not isinstance(self.recipes, tuple) or not self.recipes:
            raise ArgumentError(f"smallest({self.recipes!r}): expected a list of recipes")


AnyRecipe: TypeAlias = Recipe | Stage | Rewrite | Selector | Split | Smallest
"""What an array can be coded with."""


def name_of(stage: Stage | Rewrite) -> str:
    """Return what recipes call a stage or a rewrite."""
    return stage.name if isinstance(stage, Rewrite) else stage.codec.name


def streams_of(stage: Stage | Rewrite | type[Any]) -> tuple[str, ...]:
    """Return the names of the streams of a stage or of its class; a rewrite has one, its `values`."""
    return ("values",) if not hasattr(stage, "codec") else tuple(port.name for port in stage.codec.streams)


def hints_of(stage: Any) -> tuple[Port, ...]:
    """Return what the encoder of a stage, or of its class, may be given beyond what the decoder is."""
    hints: tuple[Port, ...] = getattr(stage, "hints", ())
    return hints


def mentioned(recipe: AnyRecipe | None) -> frozenset[str]:
    """Return the given names that a recipe mentions, or that a selector's recipes do."""
    if isinstance(recipe, Recipe):
        return recipe.mentioned
    if isinstance(recipe, Split):
        return mentioned(recipe.recipe)
    under: tuple[AnyRecipe | None, ...] = ()
    if isinstance(recipe, Smallest):
        under = recipe.recipes
    elif recipe is not None and hasattr(recipe, "choose"):
        under = tuple([getattr(recipe, f.name) for f in params(recipe) if f.metadata["recipe"]])
    return frozenset[str]().union(*map(mentioned, under))


def chain(stage: Stage | Rewrite, /, *, given: tuple[str, ...] = (), **then: AnyRecipe) -> Recipe:
    """Send the streams of `stage` on, by name, into further recipes.

    Raises ArgumentError for a stream that the stage does not have, or for more given arrays than it takes.
    """
    name, names = name_of(stage), streams_of(stage)
    ports = stage.given if isinstance(stage, Rewrite) else stage.codec.given + hints_of(stage)
    for stream in then:
        if stream not in names:
            raise ArgumentError(f"{name} has no stream {stream!r}: it has {', '.join(names)}")
    if len(given) > len(ports):
        raise ArgumentError(f"{name} takes {len(ports)} given arrays, not {len(given)}")
    ordered = sorted(then.items(), key=lambda item: names.index(item[0]))
    return Recipe(
        stage, tuple((stream, Recipe(node) if is_bare(node) else node) for stream, node in ordered), tuple(given)
    )


def is_bare(node: Any) -> TypeGuard[Stage | Rewrite]:
    """Return whether a node of a recipe is a stage or a rewrite by itself, told by what it has: protocols are slow."""
    return not isinstance(node, Recipe) and (hasattr(node, "codec") or hasattr(node, "rewrite"))


def _is_recipe(node: Any) -> bool:
    return isinstance(node, (Recipe, Split, Smallest)) or hasattr(node, "choose") or is_bare(node)


def param(
    default: Any, *, lo: Any = None, hi: Any = None, choices: tuple[str, ...] = (), doc: str, recipe: bool = False
) -> Any:
    """Declare a field of a stage once: validation, recipe text, command line, strategies and docs read it.

    A field with `recipe` holds a recipe, or None.
    """
    meta = {"lo": lo, "hi": hi, "choices": choices, "doc": doc, "recipe": recipe}
    return dataclasses.field(default=default, metadata=meta)


def params(stage: Any) -> tuple[dataclasses.Field[Any], ...]:
    """Return the declared parameters of a stage or of its class."""
    return _params(stage if isinstance(stage, type) else type(stage))


@functools.cache
def _params(stage: type[Any]) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(f for f in dataclasses.fields(stage) if "doc" in f.metadata)


def check_params(stage: Any) -> None:
    """Raise ArgumentError unless every parameter has its declared type and lies in its bounds.

    For ``__post_init__``. An integer passes for a float, and becomes one; a tuple is checked element by element.
    """
    name = type(stage).codec.name if hasattr(type(stage), "codec") else _class_name(type(stage))
    for f in params(stage):
        value, meta = getattr(stage, f.name), f.metadata
        if meta["recipe"]:
            if not _is_recipe(value) and not (value is None and f.default is None):
                raise ArgumentError(f"{name}({f.name}={value!r}): expected a recipe")
            continue
        default: Any = f.default
        many = isinstance(default, tuple)
        if many and not isinstance(value, tuple):
            raise ArgumentError(f"{name}({f.name}={value!r}): expected a list")
        example = next(iter(default), meta["lo"]) if many else meta["lo"] if default is None else default
        for item in value if many else (value,):
            if item is not None or default is not None:
                kind = None if example is None else type(example)
                _check_value(f"{name}({f.name}={value!r})", item, kind, meta)
        if type(example) is float and not many and type(value) is int:  # equal recipes write equal bytes
            object.__setattr__(stage, f.name, float(value))


def _class_name(cls: type) -> str:
    return str(getattr(cls, "name", cls.__name__.lower()))


def _check_value(place: str, value: Any, kind: type | None, meta: Any) -> None:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        kind = int
    if kind is not None and type(value) is not kind:
        raise ArgumentError(f"{place}: expected {kind.__name__}")
    lo, hi, choices = meta["lo"], meta["hi"], meta["choices"]
    if choices and value not in choices:
        raise ArgumentError(f"{place}: expected one of {', '.join(choices)}")
    if value is not None and ((lo is not None and not value >= lo) or (hi is not None and not value <= hi)):
        raise ArgumentError(
            f"{place}: expected {'' if lo is None else f'at least {lo}'}"
            f"{' and ' if None not in (lo, hi) else ''}{'' if hi is None else f'at most {hi}'}"
        )

"""Hypothesis strategies and laws: what every codec must keep, ours and yours.

A codec of your own is tested in two lines::

    def test_my_stage():
        check_stage(MyStage)

`check_stage` searches parameters in their bounds and arrays that the stage takes, as its ports and its ArgumentErrors
tell, and puts each to every one of `LAWS`. The strategies below make what they make from the declarations alone:
nothing here knows any codec by name.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from featherweight import codecs as codec_table
from featherweight import dtypes, engine
from featherweight import recipes as recipe_texts
from featherweight.auto import Auto
from featherweight.decoder import digest, reference_part
from featherweight.dtypes import Array, ElementType
from featherweight.errors import ArgumentError, FeatherweightError, MissingDependencyError
from featherweight.frame import FLAT, REFERENCE, SHAPED, SPLIT, Frame, Program, checksum, parse, parse_head, seal
from featherweight.stage import AnyRecipe, Port, Recipe, Selector, Spec, Split, Stage, params

try:
    import hypothesis
    from hypothesis import strategies as st
except ImportError as error:
    raise MissingDependencyError("hypothesis is needed: pip install 'featherweight[testing]'") from error

__all__ = [
    "LAWS",
    "Case",
    "Sample",
    "Sealed",
    "arrays",
    "arrays_for",
    "cases",
    "check_stage",
    "frames",
    "hostile_frames",
    "layouts",
    "mutated",
    "only_our_errors",
    "recipes",
    "same",
    "shapes",
    "stages",
    "takes",
]

_LIMIT = 1 << 26  # max_bytes where frames are hostile


class Sample(NamedTuple):
    """An array that a stage takes, and the arrays that it is given."""

    x: Array
    given: tuple[Array, ...] = ()


class Case(NamedTuple):
    """An array, a recipe for it, and the references that the recipe names."""

    x: Array
    recipe: AnyRecipe
    refs: Mapping[str, Array]


class Sealed(NamedTuple):
    """A frame, and what decodes it."""

    data: bytes
    refs: Mapping[str, Array]
    codecs: Mapping[str, Any]


# Strategies: arrays


def shapes(ndim: int | None = None, most: int = 1 << 10) -> st.SearchStrategy[tuple[int, ...]]:
    """Draw a shape of at most about `most` elements: scalar, empty, of a few rows, long."""
    dims = st.integers(0, 4) if ndim is None else st.just(ndim)

    @st.composite
    def shape(draw: st.DrawFn) -> tuple[int, ...]:
        result, left = [], most
        for _ in range(draw(dims)):
            length = draw(st.one_of(st.integers(0, 5), st.integers(0, max(1, left))))
            result.append(length)
            left //= max(1, length)
        return tuple(result)

    return shape()


@st.composite
def arrays(
    draw: st.DrawFn,
    types: Sequence[ElementType] | None = None,
    shape: st.SearchStrategy[tuple[int, ...]] | None = None,
    *,
    anyhow: bool = True,
) -> Array:
    """Draw an array of any element type, shape and contents, and with `anyhow` of any strides and byte order.

    Contents are bits of any kind (payloads of NaNs, -0.0, denormals), a few values, one value, or like the weights of
    networks: Gaussian, sparse, smooth.
    """
    row = draw(st.sampled_from(types or dtypes.all_types()))
    x = _fill(draw, row, draw(shapes() if shape is None else shape))
    return draw(layouts(x)) if anyhow else x


def _fill(draw: st.DrawFn, row: ElementType, shape: tuple[int, ...]) -> Array:
    count, size = math.prod(shape), row.dtype.itemsize
    kind = draw(st.sampled_from(["bits", "weights", "few", "constant", "sparse", "smooth"]))
    if count * size <= 64 and kind == "bits":
        words = np.frombuffer(draw(st.binary(min_size=count * size, max_size=count * size)), np.uint8)
    else:
        words = _words(np.random.Generator(np.random.Philox(draw(st.integers(0, 1 << 32)))), kind, row, count)
    return _valid(row, words).reshape(shape)


def _words(rng: np.random.Generator, kind: str, row: ElementType, count: int) -> Array:
    """Return the bytes of `count` elements."""
    size = row.dtype.itemsize
    if kind == "bits":
        return rng.integers(0, 256, count * size, np.uint8)
    if kind in ("few", "constant"):
        few = rng.integers(0, 256, (1 if kind == "constant" else int(rng.integers(1, 9)), size), np.uint8)
        return few[(rng.geometric(0.4, count) - 1) % len(few)].reshape(-1)
    values = rng.standard_normal(count) * 0.05
    if kind == "smooth":
        values = np.cumsum(values)
    if kind == "sparse":
        values[rng.random(count) < rng.choice([0.5, 0.9, 0.999])] = 0
    if row.kind in "ui":
        top = float(min(127, 2 ** (row.bits - 1) - 1))
        values = np.clip(np.rint(values * 8 * top), -top * (row.kind == "i"), top)
    with np.errstate(invalid="ignore", over="ignore"):
        return values.astype(row.dtype).view(np.uint8)


def _valid(row: ElementType, words: Array) -> Array:
    """Turn any bytes into elements that there are: no stray bits in a byte of 4 bits, no boolean but 0 and 1."""
    mask = 1 if row.kind == "b" else (1 << row.bits) - 1 if row.bits < 8 else 255
    return (words & np.uint8(mask)).view(row.dtype)


@st.composite
def layouts(draw: st.DrawFn, x: Array) -> Array:
    """Draw an array equal to `x` that lies otherwise in memory."""
    kind = draw(st.sampled_from(["C", "C", "F", "strided", "reversed", "swapped", "unaligned", "read-only"]))
    if kind == "F":
        return np.asfortranarray(x) if x.ndim else x
    if kind == "strided" and x.ndim:
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1] + 1), x.dtype)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    if kind == "reversed" and x.ndim:
        turn = (slice(None, None, -1),) * x.ndim
        return np.array(x[turn], order="C")[turn]
    if kind == "swapped" and x.dtype.kind in "iufc":
        return x.byteswap().view(x.dtype.newbyteorder())
    if kind == "unaligned":
        room = np.zeros(x.nbytes + 1, np.uint8)
        room[1:] = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        return room[1:].view(x.dtype).reshape(x.shape)
    if kind == "read-only":
        x = x.copy()
        x.flags.writeable = False
    return x


# Strategies: stages, and what they take


def stages(stage: Any = None, /, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw a stage: of a codec by name, of a class, or any of ours; `fields` replace what `param` declares."""
    if stage is None:
        return st.sampled_from(codec_table.names()).flatmap(lambda name: stages(name, **fields))
    cls = codec_table.stage_class(stage) if isinstance(stage, str) else stage
    drawn = {f.name: fields[f.name] if f.name in fields else _field(f) for f in params(cls)}

    @st.composite
    def stage_of(draw: st.DrawFn) -> Any:
        try:
            return cls(**draw(st.fixed_dictionaries({}, optional=drawn)))
        except ArgumentError:  # parameters that do not go together
            return cls()

    return stage_of()


def _field(field: dataclasses.Field[Any]) -> st.SearchStrategy[Any]:
    lo, hi, choices = (field.metadata[key] for key in ("lo", "hi", "choices"))
    if choices:
        return st.sampled_from(choices)
    if isinstance(field.default, bool):
        return st.booleans()
    if isinstance(field.default, int):
        near = [st.integers(lo, min(hi, lo + 64))] if None not in (lo, hi) else []
        return st.one_of(*near, st.integers(lo, hi))
    if isinstance(field.default, float):
        return st.floats(lo, hi, allow_nan=False, allow_infinity=False)
    if isinstance(field.default, tuple) and None not in (lo, hi):
        return st.sampled_from([2, 4, 6, 8, 16, 32, 64]).flatmap(lambda total: _parts(total, lo, hi))
    return st.just(field.default)


@st.composite
def _parts(draw: st.DrawFn, total: int, lo: int, hi: int) -> tuple[int, ...]:
    """Draw integers in bounds whose sum is `total`, if it can be: lists of numbers mostly share something out."""
    parts: list[int] = []
    while total >= lo and len(parts) < 16:
        most = min(hi, total)
        parts.append(draw(st.one_of(st.just(most), st.integers(lo, most))))
        total -= parts[-1]
    return tuple(parts)


def takes(stage: Stage, x: Array, given: Sequence[Array] = ()) -> bool:
    """Return whether the ports let `x` and `given` pass and `encode` raises no ArgumentError."""
    ports = [stage.codec.out, *stage.codec.given]
    if len(given) >= len(ports) or not all(map(_fits, ports, (x, *given))):
        return False
    try:
        stage.encode(dtypes.native(x), *map(dtypes.native, given))
    except ArgumentError:
        return False
    return True


def _fits(port: Port, x: Array) -> bool:
    return port.accepts(Spec(x.dtype, x.shape))


@functools.lru_cache(1024)
def _types(stage: Any) -> tuple[ElementType, ...]:
    """Return the element types that a stage takes, found by asking it."""

    def asked(row: ElementType) -> bool:
        x = np.zeros((1,) * (1 if stage.codec.out.ndim is None else stage.codec.out.ndim), row.dtype)
        return any(takes(stage, x, (x,) * k) for k in range(len(stage.codec.given) + 1))

    return tuple(row for row in dtypes.all_types() if asked(row))


@st.composite
def arrays_for(draw: st.DrawFn, stage: Any, *, most: int = 1 << 10) -> Sample:
    """Draw an array that the stage takes, with what it is given; what it refuses is replaced by something plainer."""
    types = _types(stage)
    if not types:
        hypothesis.reject()
    x = draw(arrays(types, shapes(stage.codec.out.ndim, most)))
    plain = np.full(x.shape, x.reshape(-1)[:1].copy() if x.size else 0, x.dtype)
    for array in (x, plain, np.zeros(x.shape, x.dtype)):
        wanted = draw(st.integers(0, len(stage.codec.given)))
        inputs = tuple(draw(_given_for(port, array)) for port in stage.codec.given[:wanted])
        alike = tuple(draw(_alike(array)) for port in stage.codec.given)
        for given in (inputs, alike, alike[:1], ()):
            if takes(stage, array, given):
                return Sample(array, given)
    return hypothesis.reject()


@st.composite
def _given_for(draw: st.DrawFn, port: Port, x: Array) -> Array:
    """Draw what may stand beside `x`: an array like it, or one that says something of its elements, rows or columns."""
    if draw(st.booleans()) and _fits(port, x):
        return draw(_alike(x))
    types = [t for t in dtypes.all_types() if t.kind in port.kinds and port.bits in (None, t.bits)]
    rows = (*x.shape[:1], *(1,) * (x.ndim - 1))
    shape = st.sampled_from([x.shape, rows, x.shape[1:], (1,) * x.ndim])
    return draw(arrays(types, shape if port.ndim is None else shapes(port.ndim)))


@st.composite
def _alike(draw: st.DrawFn, x: Array) -> Array:
    """Draw an array that differs from `x` in few elements, or in all."""
    y = dtypes.native(x).copy()
    rng = np.random.Generator(np.random.Philox(draw(st.integers(0, 1 << 32))))
    rate = draw(st.sampled_from([0.0, 0.02, 1.0]))
    words = y.reshape(-1).view(np.uint8)
    words ^= np.where(rng.random(words.size) < rate, rng.integers(0, 256, words.size, np.uint8), np.uint8(0))
    return _valid(dtypes.of(y.dtype), words).reshape(y.shape)


# Strategies: recipes and frames


@st.composite
def recipes(
    draw: st.DrawFn,
    x: Array,
    refs: Mapping[str, Array] = {},
    *,
    pool: Sequence[Any] | None = None,
    selectors: Sequence[Selector] = (Auto("fast"), Auto("small")),
    depth: int = 3,
) -> AnyRecipe:
    """Draw a recipe for `x` across all stages (or those of `pool`), by following the ports from stream to stream.

    Streams are stored, coded further, given to later siblings, split into pieces, or left to a selector.
    """
    scope = {f"@{name}": dtypes.native(array) for name, array in refs.items()}
    classes = tuple(map(codec_table.stage_class, codec_table.names())) if pool is None else tuple(pool)
    drawn = _recipe(draw, dtypes.native(x), scope, classes, tuple(selectors), depth=depth, whole=True)
    return drawn if drawn is not None else Recipe(codec_table.stage_class("raw")())


def _recipe(
    draw: st.DrawFn,
    x: Array,
    scope: Mapping[str, Array],
    pool: tuple[Any, ...],
    selectors: tuple[Selector, ...],
    *,
    depth: int,
    whole: bool,
) -> AnyRecipe | None:
    kind = draw(st.sampled_from(["stage"] * 6 + ["stored"] + ["split"] * whole + ["selector"] * bool(selectors)))
    if kind == "selector":
        return draw(st.sampled_from(selectors))
    if kind == "split":
        inner = _recipe(draw, x, scope, pool, selectors, depth=depth, whole=False)
        size = draw(st.integers(max(1, x.size // 20), max(1, x.size)))
        return None if inner is None or isinstance(inner, Split) else Split(inner, size)
    fitting = [cls for cls in pool if _fits(cls.codec.out, x)] if kind == "stage" and depth else []
    if not fitting:
        return None
    stage = draw(st.sampled_from(fitting).flatmap(stages))
    names: list[str] = []
    for port in stage.codec.given:
        known = [name for name, array in scope.items() if _fits(port, array)]
        if not known or draw(st.integers(0, 3)) == 0:
            break
        names.append(draw(st.sampled_from(known)))
    if not takes(stage, x, [scope[name] for name in names]):
        names = next(([name] for name, array in scope.items() if takes(stage, x, [array])), [])
    if not names and not takes(stage, x):
        plain = [each for each in (cls() for cls in fitting) if takes(each, x)]
        if not plain:
            return None
        stage = draw(st.sampled_from(plain))
    encoded = stage.encode(x, *(scope[name] for name in names))
    then: list[tuple[str, AnyRecipe]] = []
    siblings = dict(scope)
    for port, stream in zip(stage.codec.streams, map(dtypes.native, encoded.streams), strict=False):
        node = _recipe(draw, stream, siblings, pool, selectors, depth=depth - 1, whole=whole)
        then += [] if node is None else [(port.name, node)]
        siblings[port.name] = stream
    return Recipe(stage, tuple(then), tuple(names))


@st.composite
def cases(draw: st.DrawFn, /, x: st.SearchStrategy[Array] | None = None, **options: Any) -> Case:
    """Draw an array, a recipe that codes it, and its references; `options` are those of `recipes`."""
    array = draw(arrays() if x is None else x)
    refs = draw(st.one_of(st.just({}), _alike(array).map(lambda base: {"base": base})))
    case = Case(array, draw(recipes(array, refs, **options)), refs)
    try:
        engine.encode(array, case.recipe, refs=refs, threads=1)
    except ArgumentError:  # a piece may be refused where the whole is taken
        hypothesis.reject()
    return case


@st.composite
def frames(draw: st.DrawFn, case: st.SearchStrategy[Case] | None = None) -> Sealed:
    """Draw a well-formed frame."""
    x, recipe, refs = draw(cases() if case is None else case)
    return Sealed(engine.encode(x, recipe, refs=refs, threads=1), refs, _codecs(recipe))


@st.composite
def hostile_frames(draw: st.DrawFn, frame: st.SearchStrategy[Sealed] | None = None) -> Sealed:
    """Draw a frame of which one field, or one stored byte, was replaced, and whose checksums are right."""
    good = draw(frames() if frame is None else frame)
    return good._replace(data=mutated(good, draw(st.randoms(use_true_random=True))))


def _codecs(recipe: Any) -> dict[str, Any]:
    """Return the codecs of a recipe that are not ours, by name."""
    if isinstance(recipe, Split):
        return _codecs(recipe.recipe)
    if isinstance(recipe, Recipe):
        nodes = [_codecs(node) for _, node in recipe.then]
        return functools.reduce(dict.__or__, nodes, _codecs(recipe.stage))
    codec = getattr(recipe, "codec", None)
    return {codec.name: codec} if codec is not None and codec_table.key(codec) == codec.name else {}


# Mutation


def mutated(good: Sealed, choose: random.Random) -> bytes:
    """Replace one field of a frame, anywhere in the parsed structure, or stored bytes; then make the checksums right.

    A head that still parses gets a body as long as it asks for, so that the change reaches the codecs.
    """
    try:
        frame, body = parse(good.data)
    except FeatherweightError:  # hostile already, and refused
        return good.data
    stored = bytearray(body)
    head = frame.trimmed()
    if stored and choose.random() < 0.25:
        for _ in range(choose.choice([1, 1, 1, 8])):
            stored[choose.randrange(len(stored))] = choose.choice([0, 1, 127, 128, 255, choose.randrange(256)])
    else:
        _replace_one(head, choose)
    try:
        changed = parse_head(msgspec.msgpack.encode(head))
        fitted = _fit(changed, bytes(stored), good.refs)
    except (FeatherweightError, OverflowError):
        return seal(msgspec.msgpack.encode(head) if _encodable(head) else b"\xc1", bytes(stored))
    return fitted


def _encodable(head: Any) -> bool:
    try:
        msgspec.msgpack.encode(head)
    except OverflowError:
        return False
    return True


def _places(node: Any) -> Iterator[tuple[list[Any], int]]:
    """Yield every field of nested lists, as a list and an index."""
    for i, item in enumerate(node):
        yield node, i
        if isinstance(item, list):
            yield from _places(item)


def _replace_one(head: list[Any], choose: random.Random) -> None:
    places = list(_places(head))
    where, index = choose.choice(places)
    old, others = where[index], [copy.deepcopy(a[i]) for a, i in places if type(a[i]) is type(where[index])]
    if isinstance(old, list) and choose.random() < 0.9:
        at = choose.randrange(len(old) + 1)
        item = choose.choice([choose.choice(others), old[at - 1] if old else 0, choose.randrange(30), [], "raw"])
        edits: list[Callable[[], Any]] = [
            lambda: [*old[:at], item, *old[at:]],
            lambda: [*old[:at], *old[at + 1 :]],
            lambda: [*old, *old],
            lambda: old[::-1],
            list,
            lambda: choose.choice(others),
        ]
        where[index] = choose.choice(edits)()
    elif isinstance(old, int) and not isinstance(old, bool) and choose.random() < 0.9:
        near = [old + 1, max(0, old - 1), old * 2, old ^ 1, choose.choice(others), choose.randrange(30)]
        far = [0, 1, 1 << choose.randrange(64), (1 << 64) - 1, -1, 1 << 60, 256, choose.randrange(1 << 16)]
        where[index] = choose.choice(choose.choice([near, near, far]))
    else:
        where[index] = choose.choice(_ALIEN)


_ALIEN: list[Any] = [0, -1, 0.5, math.nan, math.inf, None, True, "", "raw", "no such codec", b"x", [], [[]], [0, 0], {}]


def _fit(frame: Frame, body: bytes, refs: Mapping[str, Array]) -> bytes:
    """Return the frame with a body of the length that it announces and records that say so."""
    arrays = [dtypes.native(refs[name]) if name in refs else np.zeros(1, np.uint8) for name in frame.refs]
    splits = [leaf[2:] for leaf in frame.root.leaves if leaf[0] == SPLIT]
    data = _Source(body)
    chunks: list[bytes] = []

    def record(program: Program, old: Sequence[int], part: Callable[[Array], Array]) -> tuple[int, ...]:
        stored = sum(leaf[0] in (FLAT, SHAPED) for leaf in program.leaves)
        taken = b"".join(data.take(size) for size in old[1 : 1 + stored])
        chunks.append(taken)
        used = [part(arrays[leaf[1]]) for leaf in program.leaves if leaf[0] == REFERENCE]
        return (checksum(taken), *old[1 : 1 + stored], *map(digest, used))

    pieces = []
    for shape, split in zip(splits, frame.splits, strict=True):
        made = []
        for i, (branch, *old) in enumerate(split.pieces):
            part = functools.partial(reference_part, shape=shape, step=split.step, start=i * split.step)
            made.append((branch, *record(frame.branches[branch], old, part)))
        pieces.append(msgspec.structs.replace(split, pieces=tuple(made)))
    root = record(frame.root, frame.record, lambda whole: whole)
    fitted = msgspec.structs.replace(frame, record=root, splits=tuple(pieces))
    return seal(msgspec.msgpack.encode(fitted.trimmed()), b"".join(chunks))


class _Source:
    """The stored bytes, over and over."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data or b"\0", 0

    def take(self, size: int) -> bytes:
        if size > 1 << 20:
            raise OverflowError("a body of this size is not worth its while")
        start = self.place % len(self.data)
        self.place += size
        return (self.data * ((start + size) // len(self.data) + 1))[start : start + size]


# Laws


def same(x: Array, y: Array) -> bool:
    """Return whether two arrays have the same dtype, shape and bits."""
    x, y = dtypes.native(x), dtypes.native(y)
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def round_trip(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that decoding gives the array back, bit for bit or within `error_bound`."""
    x, given = dtypes.native(x), tuple(map(dtypes.native, given))
    wire, streams = stage.encode(x, *given)
    out = np.empty(x.shape, x.dtype)
    stage.codec.decode(wire, tuple(map(dtypes.native, streams)), given, out)
    _check_bound(stage.error_bound(x), x, out)


def _check_bound(bound: float | None, x: Array, y: Array) -> None:
    if bound == 0:
        assert same(x, y), f"a lossless stage changed {_difference(x, y)}"
    elif bound is not None:
        exact, made = (a.astype(np.complex128 if a.dtype.kind == "c" else np.float64) for a in (x, y))
        finite = np.isfinite(exact)
        error = float(np.abs(exact - made)[finite].max(initial=0))
        assert error <= bound, f"an error of {error} where {bound} is promised"


def _difference(x: Array, y: Array) -> str:
    words, others = dtypes.bits_view(x), dtypes.bits_view(y)
    (at,) = np.nonzero(words != others)
    return f"{len(at)} of {len(words)} words, first word {at[0]}: {words[at[0]]:#x} became {others[at[0]]:#x}"


def deterministic(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that the same array gives the same bytes, twice in a row."""
    assert _flat(stage, x, given) == _flat(stage, x, given), "the same array gave other bytes"


def _flat(stage: Stage, x: Array, given: Sequence[Array]) -> tuple[bytes, ...]:
    wire, streams = stage.encode(dtypes.native(x), *map(dtypes.native, given))
    return (msgspec.msgpack.encode(wire), *(f"{s.dtype}{s.shape}".encode() + s.tobytes() for s in streams))


def leaves_no_trace(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that encoding takes read-only arrays, leaves them as they were, and does not touch ``np.random``."""
    inputs = [dtypes.native(array).copy() for array in (x, *given)]
    for array in inputs:
        array.flags.writeable = False
    before, state = [array.tobytes() for array in inputs], _random_state()
    stage.encode(*inputs)
    assert before == [array.tobytes() for array in inputs], "encoding changed its input"
    assert state == _random_state(), "encoding used np.random"


def _random_state() -> str:
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - what others may have seeded
    return repr((name, np.asarray(keys).tobytes(), rest))


def fits_ports(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that what `encode` returns passes the ports of the codec, streams and wire record both."""
    codec = stage.codec
    wire, streams = stage.encode(dtypes.native(x), *map(dtypes.native, given))
    assert isinstance(wire, codec.wire), f"the record is {type(wire).__name__}, not {codec.wire.__name__}"
    assert len(streams) <= len(codec.streams), f"{len(streams)} streams for {len(codec.streams)} ports"
    for port, stream in zip(codec.streams, streams, strict=False):
        port.check(Spec(stream.dtype, stream.shape), ArgumentError)


def wire_survives(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that the wire record survives msgpack, and one field too many is refused."""
    wire, _ = stage.encode(dtypes.native(x), *map(dtypes.native, given))
    data = msgspec.msgpack.encode(wire)
    assert wire == msgspec.msgpack.decode(data, type=type(wire))
    fields = msgspec.msgpack.decode(data)
    assert isinstance(fields, list), "wire records are positional: array_like=True"
    try:
        msgspec.convert([*fields, 0], type(wire))
    except msgspec.ValidationError:
        return
    raise AssertionError("wire records refuse what they do not know: forbid_unknown_fields=True")


def fills_out(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that decoding fills all of `out`, whatever it held before, and leaves its inputs as they were."""
    x, given = dtypes.native(x), tuple(map(dtypes.native, given))
    wire, streams = stage.encode(x, *given)
    inputs = [dtypes.native(array).copy() for array in (*streams, *given)]
    for array in inputs:
        array.flags.writeable = False
    before, results = [array.tobytes() for array in inputs], []
    for poison in (0x55, 0x2A):
        out = _valid(dtypes.of(x.dtype), np.full(x.nbytes, poison, np.uint8)).reshape(x.shape)
        stage.codec.decode(wire, tuple(inputs[: len(streams)]), tuple(inputs[len(streams) :]), out)
        results.append(out)
    assert same(*results), "decoding left a part of out as it was"
    assert before == [array.tobytes() for array in inputs], "decoding changed its input"


def ignores_layout(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that memory order, strides and byte order change nothing."""
    expected = _frame(stage, x, given).data
    x = dtypes.native(x)
    others = [np.asfortranarray(x) if x.ndim else x, np.repeat(x[..., None], 2, -1)[..., 1]]
    if x.dtype.kind in "iufc":
        others.append(x.byteswap().view(x.dtype.newbyteorder()))
    for other in others:
        assert expected == _frame(stage, other, given).data, f"{other.strides}, {other.dtype.str} gave other bytes"


def _frame(stage: Stage, x: Array, given: Sequence[Array]) -> Sealed:
    refs = {f"given{i}": array for i, array in enumerate(given)}
    recipe = Recipe(stage, (), tuple(f"@{name}" for name in refs))
    return Sealed(engine.encode(x, recipe, refs=refs, threads=1), refs, {stage.codec.name: stage.codec})


def frame_round_trip(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that the array comes back through a frame, given references, and into an `out` too."""
    data, refs, codecs = _frame(stage, x, given)
    x = dtypes.native(x)
    decoded = engine.decode(data, refs=refs, codecs=codecs, threads=1)
    _check_bound(stage.error_bound(x), x, decoded)
    out = np.empty(x.shape, x.dtype)
    assert out is engine.decode(data, out=out, refs=refs, codecs=codecs, threads=1)
    assert same(decoded, out), "decoding into out gave something else"


def survives_hostility(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that frames with a field or bytes replaced, checksums right, decode or raise our errors."""
    good = _frame(stage, x, given)
    choose = random.Random(len(good.data))
    for _ in range(8):
        only_our_errors(good._replace(data=mutated(good, choose)))


def only_our_errors(frame: Sealed, max_bytes: int = _LIMIT) -> Array | None:
    """Decode a frame that may be hostile: return the array, or None where an error of ours refused it."""
    try:
        return engine.decode(frame.data, refs=frame.refs, codecs=frame.codecs, max_bytes=max_bytes, threads=1)
    except ArgumentError as error:
        raise AssertionError(f"the caller is blamed for the bytes: {error}") from error
    except FeatherweightError:
        return None


def repr_evaluates(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that the repr of a stage evaluates to an equal stage."""
    assert stage == eval(repr(stage), {type(stage).__qualname__.rpartition(".")[2]: type(stage)})


def text_round_trip(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that the recipe text of a stage reads as an equal stage."""
    recipe = Recipe(stage)
    assert recipe == recipe_texts.parse(recipe_texts.text(recipe), {stage.codec.name: type(stage)})


LAWS: Mapping[str, Callable[[Stage, Array, Sequence[Array]], None]] = MappingProxyType(
    {
        law.__name__: law
        for law in (
            round_trip,
            deterministic,
            leaves_no_trace,
            fits_ports,
            wire_survives,
            fills_out,
            ignores_layout,
            frame_round_trip,
            survives_hostility,
            repr_evaluates,
            text_round_trip,
        )
    }
)
"""Every law by name; each takes a stage, an array that it takes, and what it is given."""


def _demand(law: str, stage: Stage, x: Array, given: Sequence[Array]) -> None:
    try:
        LAWS[law](stage, x, given)
    except Exception as error:
        error.add_note(f"This breaks the law {law}: {LAWS[law].__doc__}")
        raise


def check_stage(
    stage: Any,
    x: Array | None = None,
    /,
    *,
    given: Sequence[Array] = (),
    laws: Iterable[str] = tuple(LAWS),
    most: int = 1 << 10,
) -> None:
    """Put a stage, or every stage of a class, to the laws, on one array or on whatever hypothesis finds.

    Raises AssertionError, or what the stage raises.

    >>> from featherweight.codecs.raw import Raw
    >>> check_stage(Raw(), np.arange(6.0).reshape(2, 3))
    """
    if x is not None:
        for law in laws:
            _demand(law, stage, x, given)
        return
    drawn = stages(stage) if isinstance(stage, type) else st.just(stage)

    @hypothesis.settings(deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(drawn.flatmap(lambda each: st.tuples(st.just(each), arrays_for(each, most=most))))
    def search(found: tuple[Any, Sample]) -> None:
        for law in laws:
            _demand(law, found[0], found[1].x, found[1].given)

    search()

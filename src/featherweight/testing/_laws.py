"""The laws that every stage keeps, and what searches for where one does not."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import hypothesis
import msgspec
import numpy as np
from hypothesis import strategies as st

from featherweight import dtypes, engine
from featherweight import recipes as recipe_texts
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FeatherweightError
from featherweight.stage import Recipe, Spec, Stage
from featherweight.testing._arrays import valid
from featherweight.testing._mutation import Sealed, mutated
from featherweight.testing._stages import Sample, arrays_for, stages

_LIMIT = 1 << 26  # max_bytes where frames are hostile


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
        out = valid(dtypes.of(x.dtype), np.full(x.nbytes, poison, np.uint8)).reshape(x.shape)
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


def codes_together(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that the stage that ``together`` returns codes two arrays, one below another, as well as each alone."""
    x = dtypes.native(x)
    joined = stage.together(2, x.shape) if hasattr(stage, "together") else None
    if joined is None or given or not x.ndim:
        return
    with np.errstate(all="ignore"):
        small = (x.astype(np.float64) / 1024).astype(x.dtype) if x.dtype.kind in "fV" else x[::-1].copy()
    both = np.concatenate([x, small])
    out = np.empty_like(both)
    wire, streams = joined.encode(both)
    joined.codec.decode(wire, tuple(map(dtypes.native, streams)), (), out)
    for one, part in ((x, out[: len(x)]), (small, out[len(x) :])):
        alone = np.empty_like(one)
        wire, streams = stage.encode(one)
        stage.codec.decode(wire, tuple(map(dtypes.native, streams)), (), alone)
        lost, least = _distance(one, part), _distance(one, alone)
        assert lost <= 2 * least + 1e-3 * _distance(one, np.zeros_like(one)), f"{lost} is lost where alone {least} is"


def sees_no_shape(stage: Stage, x: Array, given: Sequence[Array] = ()) -> None:
    """Demand that a stage that says it is blind makes the same of elements whatever shape they come in."""
    if given or not getattr(stage, "blind", False):
        return
    x = dtypes.native(x)
    (wire, streams), (other, flat) = stage.encode(x), stage.encode(x.reshape(-1))
    assert wire == other
    assert [(s.dtype, s.tobytes()) for s in streams] == [(s.dtype, s.tobytes()) for s in flat]


def _distance(x: Array, y: Array) -> float:
    """Return the root mean square of what lies between: single elements a quantizer may give up for fewer bits."""
    with np.errstate(all="ignore"):
        apart = np.abs(x.astype(np.complex128) - y.astype(np.complex128))
    apart = apart[np.isfinite(apart)]
    most = float(apart.max(initial=0))
    return most * math.sqrt(float(np.square(apart / most).mean())) if most else 0.0


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
            codes_together,
            sees_no_shape,
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

    Raises AssertionError, or what the stage raises; ArgumentError for what is no stage.

    >>> from featherweight.codecs.raw import Raw
    >>> check_stage(Raw(), np.arange(6.0).reshape(2, 3))
    """
    if not hasattr(stage, "codec") or not hasattr(stage, "encode"):
        raise ArgumentError(f"{stage!r} is no stage: it needs what featherweight.stage.Stage lists")
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

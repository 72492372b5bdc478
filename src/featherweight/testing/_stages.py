"""Strategies of stages, and of what they take: made from what stages declare, and by asking them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import hypothesis
import numpy as np
from hypothesis import strategies as st

from featherweight import codecs as codec_table
from featherweight import dtypes
from featherweight.dtypes import Array, ElementType
from featherweight.errors import ArgumentError
from featherweight.stage import Port, Spec, Stage, params
from featherweight.testing._arrays import arrays, shapes, valid


class Sample(NamedTuple):
    """An array that a stage takes, and the arrays that it is given."""

    x: Array
    given: tuple[Array, ...] = ()


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
    if len(given) >= len(ports) or not all(map(fits, ports, (x, *given))):
        return False
    try:
        stage.encode(dtypes.native(x), *map(dtypes.native, given))
    except ArgumentError:
        return False
    return True


def fits(port: Port, x: Array) -> bool:
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
        copies = tuple(draw(alike(array)) for port in stage.codec.given)
        for given in (inputs, copies, copies[:1], ()):
            if takes(stage, array, given):
                return Sample(array, given)
    return hypothesis.reject()


@st.composite
def _given_for(draw: st.DrawFn, port: Port, x: Array) -> Array:
    """Draw what may stand beside `x`: an array like it, or one that says something of its elements, rows or columns."""
    if draw(st.booleans()) and fits(port, x):
        return draw(alike(x))
    types = [t for t in dtypes.all_types() if t.kind in port.kinds and port.bits in (None, t.bits)]
    rows = (*x.shape[:1], *(1,) * (x.ndim - 1))
    shape = st.sampled_from([x.shape, rows, x.shape[1:], (1,) * x.ndim])
    return draw(arrays(types, shape if port.ndim is None else shapes(port.ndim)))


@st.composite
def alike(draw: st.DrawFn, x: Array) -> Array:
    """Draw an array that differs from `x` in few elements, or in all."""
    y = dtypes.native(x).copy()
    rng = np.random.Generator(np.random.Philox(draw(st.integers(0, 1 << 32))))
    rate = draw(st.sampled_from([0.0, 0.02, 1.0]))
    words = y.reshape(-1).view(np.uint8)
    words ^= np.where(rng.random(words.size) < rate, rng.integers(0, 256, words.size, np.uint8), np.uint8(0))
    return valid(dtypes.of(y.dtype), words).reshape(y.shape)

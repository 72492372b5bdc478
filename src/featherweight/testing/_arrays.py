"""Strategies of arrays, and of how they lie in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from featherweight import dtypes
from featherweight.dtypes import Array, ElementType


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
    return valid(row, words).reshape(shape)


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


def valid(row: ElementType, words: Array) -> Array:
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

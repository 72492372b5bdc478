"""`gaps` and `sparse`: positions and values apart, bit for bit."""

from __future__ import annotations

import doctest
import importlib
from typing import Any

import numpy as np
import pytest
from bitarray import bitarray
from bitarray.util import ba2int
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array

from featherweight import dtypes, engine
from featherweight.codecs import gaps, sparse
from featherweight.codecs._kernels import gaps as gaps_kernels
from featherweight.codecs._kernels import sparse as sparse_kernels
from featherweight.codecs.gaps import Gaps
from featherweight.codecs.sparse import Sparse
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Empty

Array = np.ndarray[Any, np.dtype[Any]]
TYPES = dtypes.all_types()
SIZES = (1, 2, 4, 8)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """Draw any bits of a type with a share of zeros, in stretches or not."""
    row = draw(st.sampled_from(TYPES))
    shape = draw(st.lists(st.integers(0, 30), max_size=3).map(tuple))
    count = int(np.prod(shape, dtype=np.int64))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    data = rng.integers(0, 256, (count, row.dtype.itemsize), dtype=np.uint8)
    data &= 1 if row.kind == "b" else (1 << min(row.bits, 8)) - 1
    share, stretch = draw(st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0])), draw(st.sampled_from([1, 7, 300]))
    data[np.repeat(rng.random(count // stretch + 1) < share, stretch)[:count]] = 0
    return data.view(row.dtype).reshape(shape)


def decoded(module: Any, encoded: Any, x: Array) -> Array:
    out = np.full(x.size * x.dtype.itemsize, 0xA5, np.uint8).view(x.dtype).reshape(x.shape)
    module.CODEC.decode(encoded.wire, encoded.streams, (), out)
    return out


def filled(x: Array) -> Array:
    """Return the positions of elements with a bit set."""
    return np.flatnonzero(x.reshape(-1).view(np.uint8).reshape(x.size, x.dtype.itemsize).any(axis=1))


@pytest.mark.parametrize("module", [gaps, sparse])
def test_docstring_is_a_specification_and_runs(module: Any) -> None:
    for word in ("Wire:", "Streams:", "Decoding:"):
        assert word in module.__doc__
    assert doctest.testmod(importlib.import_module(module.__name__)).attempted > 0
    assert doctest.testmod(module).failed == 0


# gaps


def entries(positions: Array, width: int) -> list[tuple[int, int]]:
    """Write the paper's relative index in the plainest way: (gap, position or -1 for a filler)."""
    result, last, most = [], -1, (1 << width) - 1
    for position in positions.tolist():
        gap = position - last - 1
        while gap > most:
            result.append((most, -1))
            gap -= most + 1
        result.append((gap, position))
        last = position
    return result


@given(arrays(), st.integers(1, 8))
def test_gaps_are_the_relative_index_of_the_paper(x: Array, width: int) -> None:
    x.flags.writeable = False
    encoded = Gaps(width).encode(x)
    found, values = encoded.streams
    plain = entries(filled(x), width)
    flat = x.reshape(-1)
    assert [gap for gap, _ in plain] == found.tolist()
    expected = [np.zeros((), x.dtype) if place < 0 else flat[place] for _, place in plain]
    assert b"".join(np.asarray(value).tobytes() for value in expected) == values.tobytes()
    assert decoded(gaps, encoded, x).tobytes() == x.tobytes()


def test_the_example_of_the_paper() -> None:
    """Section 2, figure 2: gaps 1, 3 and 11 in fields of 3 bits, the last with a filler of 8."""
    x = np.zeros(16, np.float32)
    x[[1, 4, 15]] = [3.4, 0.9, 1.7]
    found, values = Gaps(3).encode(x).streams
    # The figure counts steps between positions, of which the gap is one less.
    assert (found + 1).tolist() == [2, 3, 8, 3]
    assert values.tolist() == [np.float32(3.4), np.float32(0.9), 0, np.float32(1.7)]


def test_gaps_agree_with_a_sparse_array_of_scipy() -> None:
    x = np.random.default_rng(3).standard_normal((200, 300)).astype(np.float32)
    x[np.abs(x) < 1.6] = 0
    found, values = Gaps().encode(x).streams
    there = coo_array(x)
    places = np.ravel_multi_index(there.coords, x.shape)
    assert np.array_equal(np.cumsum(found.astype(np.int64) + 1) - 1, places)
    assert np.array_equal(values, there.data)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 300])
@pytest.mark.parametrize("width", [1, 4, 8])
def test_gaps_at_the_edges_of_blocks(count: int, width: int) -> None:
    for places in ([], [0], [count], [0, count], range(count + 1), range(0, count + 1, 16)):
        x = np.zeros(count + 1, np.uint16)
        x[list(places)] = 7
        assert decoded(gaps, Gaps(width).encode(x), x).tobytes() == x.tobytes()


def test_zeros_at_the_end_need_no_entry() -> None:
    assert [len(stream) for stream in Gaps(2).encode(np.zeros(100, np.int8)).streams] == [0, 0]
    assert [len(stream) for stream in Gaps(2).encode(np.arange(100) == 2).streams] == [1, 1]


@pytest.mark.parametrize(
    ("found", "values", "dtype"),
    [
        ([0, 0, 2], [1, 2, 3], np.float32),
        ([255] * 9, [0] * 9, np.float32),
        ([4], [1], np.float32),
        ([0, 0, 0, 0, 0], [1] * 5, np.complex128),
        ([3, 0], [1, 1], np.complex128),
    ],
)
def test_gaps_that_lead_beyond_the_end_are_refused(found: list[int], values: list[int], dtype: Any) -> None:
    streams = np.array(found, np.uint8), np.array(values, dtype)
    with pytest.raises(FrameError, match="beyond"):
        gaps.decode(Empty(), streams, (), np.empty(4, dtype))


def test_gaps_that_do_not_match_are_refused() -> None:
    found, values = np.zeros(2, np.uint8), np.zeros(2, np.float32)
    for streams in ((found[:1], values), (found, values.astype(np.float64)), (found,)):
        with pytest.raises(FrameError, match="as many"):
            gaps.decode(Empty(), streams, (), np.empty(4, np.float32))
    with pytest.raises(ArgumentError):
        Gaps(9)


# sparse


@given(arrays())
def test_sparse_parts_positions_and_values(x: Array) -> None:
    x.flags.writeable = False
    encoded = Sparse().encode(x)
    mask, values = encoded.streams
    assert np.array_equal(np.flatnonzero(mask), filled(x))
    assert mask.shape == x.shape
    assert values.tobytes() == x.reshape(-1)[filled(x)].tobytes()
    assert decoded(sparse, encoded, x).tobytes() == x.tobytes()


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65])
def test_sparse_at_the_edges_of_words(count: int) -> None:
    for places in ([], [0], [count - 1], range(count)):
        x = np.zeros(count, np.float64)
        x[list(places)] = -0.0  # has a bit set
        assert decoded(sparse, Sparse().encode(x), x).tobytes() == x.tobytes()


def test_a_mask_becomes_a_bitmap() -> None:
    x = np.random.default_rng(4).integers(0, 3, (7, 9), np.int8)
    frame = engine.encode(x, "sparse(mask=bitpack)")
    bits = bitarray((x != 0).reshape(-1).tolist(), endian="little")
    assert ba2int(bits).to_bytes(8, "little") in frame
    assert np.array_equal(x, engine.decode(frame))


@pytest.mark.parametrize(
    ("mask", "values", "message"),
    [
        ([0, 1, 2, 1], 3, "of 0 and 1"),
        ([0, 1, 1, 1], 2, "2 values"),
        ([0, 1, 1, 1], 4, "4 values"),
        ([0, 1, 1], 2, "expected a mask"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_masks_and_values_that_do_not_match_are_refused(mask: list[int], values: int, message: str, dtype: Any) -> None:
    streams = np.array(mask, np.uint8), np.ones(values, dtype)
    with pytest.raises(FrameError, match=message):
        sparse.decode(Empty(), streams, (), np.empty(4, dtype))


# Kernels


@pytest.mark.parametrize("size", SIZES)
def test_kernels_compiled_and_as_python(size: int) -> None:
    rng = np.random.default_rng(size)
    words = (rng.integers(0, 200, 150) * (rng.random(150) < 0.2)).astype(f"u{size}")
    results = []
    for run in (lambda k: k, lambda k: k.python):
        found, values = np.zeros(151, np.uint8), np.zeros(151, words.dtype)
        count = run(gaps_kernels.FIND[size])(words, 3, found, values)
        out = np.zeros(150, words.dtype)
        assert run(gaps_kernels.PLACE[size])(found[:count], values[:count], out) >= 0
        assert np.array_equal(words, out)
        assert run(gaps_kernels.PLACE[size])(found[:count], values[:count], out[:60]) == -1
        mask, kept, again = np.zeros(150, np.uint8), np.zeros(151, words.dtype), np.zeros(150, words.dtype)
        run(sparse_kernels.PART[size])(words, mask, kept)
        run(sparse_kernels.JOIN[size])(mask, kept[: int(mask.sum())], again)
        assert np.array_equal(words, again)
        results.append((count, found[:count].tobytes(), values[:count].tobytes(), mask.tobytes()))
    assert results[0] == results[1]


# Compositions


@pytest.mark.parametrize(
    "text",
    [
        "gaps",
        "gaps(4, gaps=bitpack(4), values=bitpack)",
        "gaps(5, gaps=rans, values=rans)",
        "sparse(mask=bitpack, values=bitpack)",
        "sparse(mask=scales(row=rans, column=rans, values=rans(given=[row, column])), values=rans)",
    ],
)
def test_indices_of_a_pruned_matrix_come_back(text: str) -> None:
    rng = np.random.default_rng(9)
    x = rng.integers(1, 16, (60, 70), np.uint8) * (rng.random((60, 70)) < rng.random((60, 1)) / 4)
    x = x.astype(np.uint8)
    assert np.array_equal(x, engine.decode(engine.encode(x, text)))

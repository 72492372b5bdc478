"""Quantizing for rate: uniform, trellis, levels and ggd, alone and together."""

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import featherweight
from featherweight import codecs, kernel
from featherweight.codecs import _interleaved
from featherweight.codecs import ggd as ggd_module
from featherweight.codecs import levels as levels_module
from featherweight.codecs import trellis as trellis_module
from featherweight.codecs._kernels import _machines, _models, _tokens, ggd_models
from featherweight.codecs._kernels import trellis as portable
from featherweight.codecs.uniform import step_for
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import chain

Ggd, Levels, Trellis, Uniform = (codecs.stage_class(name) for name in ("ggd", "levels", "trellis", "uniform"))


def gaussian(*shape: int, seed: int = 1) -> Array:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape).astype(np.float32)


def scaled(rows: int, columns: int) -> Array:
    """Return weights whose rows and columns have scales from 1/8 to 8."""
    x = gaussian(rows, columns)
    return x * np.exp2(gaussian(rows, 1, seed=2)) * np.exp2(gaussian(1, columns, seed=3))


def error(x: Array, decoded: Array) -> float:
    return float(np.square(x.astype("f8") - decoded).sum() / np.square(x.astype("f8")).sum())


def gap(x: Array, recipe: Any) -> float:
    """Return the bits a weight above a Gaussian's bound at the same error."""
    frame = featherweight.encode(x, recipe)
    return 8 * len(frame) / x.size + math.log2(error(x, featherweight.decode(frame))) / 2


def recipe(step: float, states: int = 8) -> Any:
    index = chain(Ggd(states), given=("row", "column", "place"))
    return chain(Levels(), values=chain(Trellis(step, states), given=("row", "column", "place"), index=index))


# The trellis


def brute(parts: Array, rates: Array, states: int) -> int:
    """Return the least cost of any sequence of indices, by trying all there are."""
    nexts, half = _machines.nexts(states), rates.size // 2
    best = {0: 0}
    for a in parts.astype(int):
        found: dict[int, int] = {}
        for state, cost in best.items():
            for k in range(-3, 12):
                size, quantizer = abs(k), state & 1
                point = (2 * size - quantizer if size else 0) * (1 if k >= 0 else -1)
                total = cost + 16 * (a - 64 * point) ** 2 + int(rates[quantizer * half + min(size, half - 1)])
                after = int(nexts[2 * state + (size & 1)])
                found[after] = min(found.get(after, total), total)
        best = found
    return min(best.values())


@pytest.mark.parametrize("states", _machines.STATES)
def test_the_search_finds_the_best_path(states: int) -> None:
    rng = np.random.Generator(np.random.Philox(4))
    rates = np.sort(rng.integers(0, 1 << 16, (2, 64)), axis=1).astype(np.uint32).reshape(-1)
    parts = np.abs(rng.standard_normal(40) * 100).astype(np.uint32)
    weights, classes = np.full(40, 16, np.uint8), np.zeros(40, np.uint8)
    costs, decisions = np.empty(2 * states + 4, np.uint32), np.empty(40 * ((states + 7 >> 3) + 1), np.uint8)
    table, pairs = np.zeros((2, 256), np.uint16), np.empty(2 * 66, np.uint32)
    table[:, :64] = np.arange(128).reshape(2, 64)
    shift = portable.pairs(table.reshape(-1), np.arange(64, dtype=np.uint8), rates, pairs)
    index, shared = np.empty(40, np.uint32), (parts, weights, classes, pairs, np.uint32(64), np.uint32(shift))
    one, many = np.uint64(1), np.uint64(states)
    portable.forward(*shared, _machines.edges(states), costs, decisions, one, many)
    portable.backward(parts, _machines.paths(states), costs, decisions, one, many, index)
    state, spent = 0, 0
    for a, k in zip(parts.astype(int), index.view(np.int32).astype(int), strict=True):
        size, quantizer = abs(k), state & 1
        point = (2 * size - quantizer if size else 0) * (1 if k >= 0 else -1)
        spent += 16 * (a - 64 * point) ** 2 + int(rates[64 * quantizer + min(size, 63)])
        state = int(_machines.nexts(states)[2 * state + (size & 1)])
    assert brute(parts, rates, states) == spent


@pytest.mark.skipif(not kernel.features() >= trellis_module.AVX2, reason="needs vectors of 256 bits")
@pytest.mark.parametrize("states", _machines.STATES)
@pytest.mark.parametrize("rows", [40, 300])  # 16 paths, one vector; 128 paths, vectors by turns and group after group
def test_vectors_find_what_the_portable_loops_find(rows: int, states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = scaled(rows, 61)
    assert 1 << _machines.path_bits(x.size) == (16 if rows == 40 else 128)
    x[3, 5] = 1000
    fast = featherweight.encode(x, recipe(0.3, states))
    decoded = featherweight.decode(fast)
    for module in (trellis_module, ggd_module, _interleaved, _machines):
        monkeypatch.setattr(module, "features", frozenset)
    assert fast == featherweight.encode(x, recipe(0.3, states))
    assert (decoded == featherweight.decode(fast)).all()


@pytest.mark.parametrize("states", [4, 8, 16])
def test_vector_loops_uncompiled(states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vector loops are Python as well: run them so, whatever the processor."""
    x = scaled(12, 60)
    for module in (trellis_module, _machines):
        monkeypatch.setattr(module, "features", frozenset)
    expected = featherweight.encode(x, recipe(0.3, states))
    decoded = featherweight.decode(expected)
    for name in ("forward", "forward8", "backward", "look_up"):
        monkeypatch.setattr(trellis_module.simd, name, getattr(trellis_module.simd, name).python)
    monkeypatch.setattr(_machines.simd, "walk", _machines.simd.walk.python)
    for module in (trellis_module, _machines):
        monkeypatch.setattr(module, "features", lambda: trellis_module.AVX2)
    assert featherweight.encode(x, recipe(0.3, states)) == expected
    assert (featherweight.decode(expected) == decoded).all()


def test_a_trellis_lies_below_what_any_scalar_quantizer_can_do() -> None:
    x = gaussian(256, 512)
    scalar = min(gap(x, chain(Uniform(step), index=Ggd())) for step in (0.5, 1.0))
    assert 0.24 < scalar < 0.28
    gaps = [gap(x, chain(Trellis(0.3, states), index=Ggd(states))) for states in (4, 8, 32)]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[1] < 0.15 < scalar


def test_knowing_scales_spares_bits() -> None:
    x = scaled(256, 512)
    blind = gap(x, chain(Trellis(0.3), index=Ggd(8)))
    assert gap(x, recipe(0.3)) < blind - 0.3


@pytest.mark.parametrize("states", [4, 8, 64])
@pytest.mark.parametrize("step", [0.05, 0.3, 1.2])
def test_pruned_weights_stay_pruned_and_take_what_their_entropy_says(step: float, states: int) -> None:
    x = gaussian(200, 300)
    x[np.abs(x) < 1.2] = 0  # a gap that no Gaussian has
    wire, (index, *_) = Trellis(step, states).encode(x)
    frame = featherweight.encode(x, chain(Trellis(step, states), index=Ggd(states)))
    assert not featherweight.decode(frame)[x == 0].any()
    assert wire.states == states
    shares = np.unique(index, return_counts=True)[1] / index.size
    assert 8 * len(frame) / x.size < 1.05 * -(shares * np.log2(shares)).sum() + 0.01


def test_more_important_weights_come_out_nearer() -> None:
    x = gaussian(128, 256)
    importance = np.ones((128, 1), np.float32)
    importance[::2] = 8
    stage = chain(Trellis(1.0), given=("@row", "@column", "@place", "@importance"), index=Ggd(8))
    none = np.zeros((1, 1), np.uint8)
    refs = {"row": none, "column": none, "place": none, "importance": importance}
    frame = featherweight.encode(x, stage, refs=refs)
    decoded = featherweight.decode(frame)  # the decoder needs none of them
    assert error(x[::2], decoded[::2]) < 0.8 * error(x[1::2], decoded[1::2])


@pytest.mark.parametrize("name", ["uniform", "trellis"])
@pytest.mark.parametrize("nmse", [1e-4, 1e-2, 0.1])
def test_a_step_is_fitted_to_an_error(name: str, nmse: float) -> None:
    x = gaussian(200, 300)
    stage = codecs.stage_class(name)(nmse=nmse)
    found = error(x, featherweight.decode(featherweight.encode(x, stage)))
    assert 0.8 * nmse < found < 1.1 * nmse


@pytest.mark.parametrize("stage", [Uniform(1e-3), Trellis(1e-3)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_cannot_be_quantized_is_refused_with_a_remedy(stage: Any, bad: float) -> None:
    x = gaussian(10)
    x[3] = bad
    with pytest.raises(ArgumentError, match="lossless" if not np.isfinite(bad) else "larger"):
        featherweight.encode(x, stage)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_the_largest_error_can_be_bounded(kind: str) -> None:
    x = (gaussian(100, 30) * 100).astype(kind)
    for most in (0.5, 1e-2, 1e-4):
        decoded = featherweight.decode(featherweight.encode(x, Uniform(max_error=most)))
        assert np.abs(x.astype("f8") - decoded).max() <= most


def test_step_for_finds_the_step_of_an_error() -> None:
    x = gaussian(100_000)
    step = step_for(x, 1e-3)
    assert abs(step - math.sqrt(12e-3)) < 1e-3
    assert step_for(np.zeros(5, np.float32), 1e-3) > 0


# Levels


def test_levels_find_the_scales_of_rows_and_columns() -> None:
    rows, columns = np.exp2(gaussian(64, 1, seed=8) * 2), np.exp2(gaussian(1, 200, seed=9) * 2)
    row, column, _ = Levels().encode(gaussian(64, 200) * rows * columns).streams
    for levels, scales in ((row, rows), (column, columns)):
        known = 4 * np.log2(scales)
        assert np.abs((levels - levels.mean()) - (known - known.mean())).max() < 2.5


def test_filters_have_the_same_levels_whether_their_places_come_first_or_last() -> None:
    x = gaussian(64, 32, 3, 3) * np.exp2(gaussian(64, 1, 1, 1, seed=2)) * np.exp2(gaussian(1, 32, 1, 1, seed=3))
    x *= np.exp2(gaussian(1, 1, 3, 3, seed=4))
    torch = levels_module.scales(x)
    assert [each.shape for each in torch] == [(64, 1, 1, 1), (1, 32, 1, 1), (1, 1, 3, 3)]
    keras = levels_module.scales(np.ascontiguousarray(x.transpose(2, 3, 1, 0)))
    for found, known in zip(keras, torch, strict=True):
        assert (found == known.transpose(2, 3, 1, 0)).all()


@pytest.mark.parametrize("shape", [(1, 64, 64), (1, 1, 64, 64), (1, 4096), (512, 2)])
def test_weights_with_heavy_tails_are_not_taken_for_many_scales(shape: tuple[int, ...]) -> None:
    x = gaussian(*shape) ** 5
    assert max(found.size for found in levels_module.scales(x)) <= 64


def test_levels_that_do_not_pay_are_left_out() -> None:
    row, column, _ = Levels().encode(gaussian(30, 40)).streams
    assert (row.shape, column.shape) == ((1,), (1,))


def test_filters_get_levels_along_the_dimension_that_pays() -> None:
    x = gaussian(64, 32, 3, 3)
    places = np.exp2(gaussian(1, 1, 3, 3, seed=5) * 2)
    assert [each.shape for each in Levels().encode(x * places).streams] == [(1,), (1,), x.shape, (1, 1, 3, 3)]
    inputs = np.exp2(gaussian(1, 32, 1, 1, seed=5) * 2)
    assert [each.shape for each in Levels().encode(x * inputs).streams] == [(1,), (1, 32, 1, 1), x.shape]


def test_blocks_of_rows_have_scales_each_of_its_own() -> None:
    blocks = [gaussian(64, 32, 3, 3, seed=i) * np.exp2(gaussian(1, 32, 1, 1, seed=9 + i) * 2) for i in range(5)]
    x = np.concatenate([block * np.float32(2**i) for i, block in enumerate(blocks)])
    row, column, values = Levels(blocks=5).encode(x).streams
    assert (row.shape, column.shape) == ((1,), (5, 1, 32, 1, 1))
    for i, (block, levels) in enumerate(zip(blocks, column, strict=True)):
        alone = Levels().encode(block).streams[1].astype(int)
        off = levels - alone - 4 * i  # an octave has four
        assert off.max() - off.min() <= 1
    out = np.empty_like(x)
    levels_module.decode(None, (row, column, values), (), out)  # type: ignore[arg-type]
    assert (out == x).all()


def test_blocks_that_rows_cannot_be_cut_into_are_refused() -> None:
    with pytest.raises(ArgumentError, match=r"\[7, 4\] has no 2 equal blocks"):
        Levels(blocks=2).encode(np.ones((7, 4), np.float32))
    assert Levels(blocks=2).encode(np.ones(7, np.float32)).streams[2].shape == (7,)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (0, 4), (1, 1), (3, 0, 2), (200, 1), (1, 200)])
def test_levels_take_any_shape(shape: tuple[int, ...]) -> None:
    streams = Levels().encode(np.ones(shape, np.float32)).streams
    assert [each.size for each in streams[:2]] == [1, 1]
    levels_module.decode(None, streams, (), np.empty(shape, np.float32))  # type: ignore[arg-type]


# The models


@given(
    st.tuples(
        st.integers(-8192, 8192),
        st.integers(-8192, 8192),
        st.integers(-8192, 8192),
        st.integers(-8192, 8192),
        st.integers(-8192, 8192),
        st.integers(-8192, 8192),
    ),
    st.integers(0, 255),
    st.integers(1, 2),
)
def test_any_model_makes_tables_that_fill_their_slots(model: tuple[int, ...], low: int, quantizers: int) -> None:
    tables = _models.tables(model, low, 3, quantizers).reshape(-1, 256).astype(int)
    assert (tables.sum(1) == 1 << ggd_models.BITS).all()
    assert (tables[:, _tokens.ESCAPE :] == 1).all()


@given(st.data(), st.integers(1, 2), st.integers(1, 5), st.integers(0, 250))
def test_any_counts_have_a_model_and_always_the_same(
    data: st.DataObject, quantizers: int, classes: int, low: int
) -> None:
    counts = np.zeros((classes * quantizers, 256), np.uint32)
    for row in counts:
        tokens = data.draw(st.lists(st.integers(0, 255), max_size=12))
        row[tokens] = data.draw(st.lists(st.integers(0, 1 << 24), min_size=len(tokens), max_size=len(tokens)))
    spoilt = [np.full(1 << size, -(1 << 60)) for size in range(1, 12)]  # what memory may hold that is used again
    first = _models.fit(counts.reshape(-1), low, quantizers, 16)
    del spoilt
    assert first == _models.fit(counts.reshape(-1), low, quantizers, 16)
    wire = ggd_module.GgdWire(0, 0, 8 if quantizers == 2 else 0, low, classes, first)  # type: ignore[arg-type]  # it has six
    assert msgspec.convert(msgspec.to_builtins(wire), ggd_module.GgdWire) == wire
    if quantizers == 1:
        assert first[5] == 0

    def cost(model: tuple[int, ...]) -> int:
        table = _models.tables(model, low, classes, quantizers)
        return int(ggd_models.cost(counts.reshape(-1), table, _models.logs()))

    start = (_models.START[0], *first[1:])
    found = _models.fit(counts.reshape(-1), low, quantizers, 16, start, rounds=2)
    assert cost(found) <= cost(start)


@given(st.data(), st.integers(1, 2))
def test_any_shares_make_tables_that_fill_their_slots(data: st.DataObject, quantizers: int) -> None:
    model = tuple(data.draw(st.lists(st.integers(-8192, 8192), min_size=6, max_size=6)))
    shares = np.array(data.draw(st.lists(st.integers(-128, 127), max_size=ggd_models.SIZES)), np.int8)
    tables = _models.tables(model, 7, 3, quantizers, shares).reshape(-1, 256).astype(int)
    assert (tables.sum(1) == 1 << ggd_models.BITS).all()


@given(st.data(), st.integers(1, 2), st.integers(1, 4))
def test_shares_are_sent_where_they_spare_more_than_they_take(
    data: st.DataObject, quantizers: int, classes: int
) -> None:
    counts = np.zeros((classes * quantizers, 256), np.uint32)
    for _ in range(data.draw(st.integers(1, 30))):
        row, token = data.draw(st.integers(0, len(counts) - 1)), data.draw(st.integers(0, _tokens.LARGEST))
        counts[row, token] += data.draw(st.sampled_from((1, 100, 10**5, (1 << 27) - 1)))
    flat = counts.reshape(-1)
    plain = _models.tables(_models.fit(flat, 9, quantizers, 16), 9, classes, quantizers)
    model, shares, table = _models.suited(flat, 9, quantizers, 16)
    before, after = (int(ggd_models.cost(flat, each, _models.logs())) for each in (plain, table))
    assert before - after >= 8 * shares.size << 12
    assert (table == _models.tables(model, 9, classes, quantizers, shares)).all()
    again = _models.suited(flat, 9, quantizers, 16)
    assert again.model == model
    assert np.array_equal(shares, again.shares)


def test_tables_are_generalised_gaussians() -> None:
    # scale, shape and zeros such that sizes are Gaussian with a deviation of 2 points
    alpha = 2 * 2 * math.sqrt(2 * math.log(2))
    tables = _models.tables((round(64 * math.log2(alpha)), 0, 128, 0, 0, 0), 0, 1, 1).astype(float)
    sizes = np.arange(12)
    expected = np.exp(-(sizes**2) / 8)
    expected /= expected[0] + 2 * np.exp(-(np.arange(1, 60) ** 2) / 8).sum()
    assert np.abs(tables[2 * sizes] / 4096 - expected).max() < 2e-3


@pytest.mark.parametrize("deviation", [0.2, 1.0, 5.0, 60.0])
def test_a_gaussian_is_coded_near_its_entropy(deviation: float) -> None:
    x = np.rint(gaussian(1 << 17) * deviation).astype(np.int16)
    _, counts = np.unique(x, return_counts=True)
    entropy = float(-(counts / x.size * np.log2(counts / x.size)).sum())
    _, streams = Ggd().encode(x)[0], Ggd().encode(x).streams
    assert 8 * sum(stream.size for stream in streams) / x.size < 1.01 * entropy + 0.02


@given(st.integers(0, 300), st.sampled_from((0, *_machines.STATES)), st.integers(0, 15))
def test_indices_of_any_size_come_back(count: int, states: int, bits: int) -> None:
    rng = np.random.Generator(np.random.Philox(count))
    x = (rng.integers(-1 << bits, 1 << bits, count, endpoint=True)).astype(np.int32)
    frame = featherweight.encode(x, Ggd(states))
    assert (featherweight.decode(frame) == x).all()


def test_what_a_token_leaves_open_is_checked() -> None:
    x = np.array([5000, 0, 0, -7000], np.int16)
    wire, (payload, rest) = Ggd().encode(x)
    for other in (rest[:-1], np.append(rest, np.uint8(0))):
        with pytest.raises(FrameError):
            ggd_module.decode(wire, (payload, other), (), np.empty_like(x))
    with pytest.raises(FrameError):
        ggd_module.decode(wire, (payload, rest), (), np.empty(4, np.int8))

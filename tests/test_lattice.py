"""The lattice codec: points that are nearest, moments and rates of the lattices, errors that know no weights."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import featherweight
from featherweight.codecs import lattice
from featherweight.codecs.lattice import CODEC, LATTICES, Lattice, LatticeWire, nearest
from featherweight.codecs.rans import Rans
from featherweight.errors import ArgumentError, FrameError

Array = np.ndarray[Any, np.dtype[Any]]
DIMENSIONS = dict(zip(LATTICES, (1, 2, 4, 8, 24), strict=True))
# Conway and Sloane, Sphere Packings, Lattices and Groups, table 2.3.
MOMENTS = dict(zip(LATTICES, (0.083333, 0.080188, 0.076603, 0.071682, 0.065771), strict=True))
# Edge of the cube of a point's volume, and least squared distance of points, both in the units of `brute`.
UNITS = {"a2": (math.sqrt(math.sqrt(3) / 2), 1), "d4": (0.5**0.25, 1), "e8": (1, 2), "leech": (8**0.5, 32)}


def coded(stage: Lattice, x: Array) -> Array:
    wire, streams = stage.encode(x)
    out = np.empty_like(x)
    CODEC.decode(wire, streams, (), out)
    return out


@functools.cache
def golay() -> Array:
    """Return the 4,096 words of the code that the norm gives by its last twelve bits."""
    last = [0x25F, 0x727, 0xB8B, 0x1F3, 0x5CD, 0xC75, 0x6B9, 0x96E, 0xAB6, 0xCDA, 0xF1C, 0xFE0]
    rows = np.array([[i == j for j in range(12)] + [last[i] >> j & 1 for j in range(12)] for i in range(12)], np.int64)
    every = np.array(list(itertools.product([0, 1], repeat=12)))
    return every @ rows % 2


def brute(name: str, x: Array) -> float:
    """Return the squared distance of one point from a lattice, by looking at all cosets that may hold the nearest."""
    n = x.size
    sides = np.array(list(itertools.product([0, 1], repeat=n))) if n <= 8 else np.empty(0)
    if name == "a2":
        scale = np.array([0.5, math.sqrt(3) / 2])
        pairs = np.array([(a, b) for a in range(-4, 5) for b in range(-4, 5) if (a + b) % 2 == 0])
        centre = 2 * np.rint(x / scale / 2)
        return float(np.square((pairs + centre) * scale - x).sum(1).min())
    if name == "d4":
        found = np.concatenate([np.floor(x) + sides, np.floor(x - 0.5) + sides + 0.5])
        return float(np.square(found - x).sum(1).min())
    if name == "e8":
        least = math.inf
        for shift in (0, 0.5):
            points = np.floor(x - shift) + sides
            even = points[points.sum(1) % 2 == 0]
            least = min(least, float(np.square(even + shift - x).sum(1).min()))
        return least
    least, words = math.inf, golay()
    for m in (0, 1):
        t = (x - m - 2 * words) / 4
        k = np.rint(t)
        cost = np.square(t - k)
        odd = (k.sum(1).astype(int) + m) % 2
        total = cost.sum(1) + odd * (1 - 2 * np.abs(t - k)).min(1)
        least = min(least, 16 * float(total.min()))
    return least


@pytest.mark.parametrize("name", LATTICES[1:])
def test_no_point_is_nearer(name: str) -> None:
    edge, _ = UNITS[name]
    x = np.random.default_rng(1).uniform(-9, 9, (60 if name == "leech" else 200, DIMENSIONS[name]))
    found = np.square((nearest(x / edge, name) * edge) - x).sum(1)
    assert np.allclose(found, [brute(name, each) for each in x], rtol=1e-5, atol=1e-5)


def test_the_code_behind_leech_is_golay_s() -> None:
    weights, counts = np.unique(golay().sum(1), return_counts=True)
    assert dict(zip(weights.tolist(), counts.tolist(), strict=True)) == {0: 1, 8: 759, 12: 2576, 16: 759, 24: 1}


@pytest.mark.parametrize("name", LATTICES[1:])
def test_any_streams_hold_points_and_sums_of_points_are_points(name: str) -> None:
    rng, number, n = np.random.default_rng(2), LATTICES.index(name), DIMENSIONS[name]
    cell = lattice._CELLS[number]
    streams = [rng.integers(0, 2, (1, 500), np.int32), rng.integers(-9, 9, (cell.columns[0], 500), np.int32)]
    if cell.columns[1]:
        streams.append(rng.integers(-9, 9, (cell.columns[1], 500), np.int32))
    y = lattice._join(number, *streams)
    assert (n, 500) == y.shape
    assert all(np.array_equal(a, b) for a, b in zip(streams, lattice._split(number, y), strict=True))
    points = (y * np.array(cell.scales)[:, None]).T
    for each in (points, points[:250] + points[250:], points[:250] - points[250:]):
        assert np.allclose(each, nearest(each, name), atol=1e-6)
    edge, norm = UNITS[name]
    apart = np.square((points[:, None] - points[None]) * edge).sum(2)[np.triu_indices(500, 1)]
    assert apart[apart > 1e-6].min() > norm - 1e-6


@pytest.mark.parametrize("name", LATTICES)
def test_a_cell_has_volume_one_and_the_reach_that_is_promised(name: str) -> None:
    cell = lattice._CELLS[LATTICES.index(name)]
    assert math.prod(a * b for a, b in zip(cell.scales, cell.widths, strict=True)) == pytest.approx(1)
    x = np.random.default_rng(3).uniform(-9, 9, (20_000, cell.n))
    most = np.abs(x - nearest(x, name)).max()
    assert most <= cell.reach * (1 + 1e-6)
    if name in ("e8", "leech"):  # a deep hole, which random points are far from
        x = np.zeros((1, cell.n))
        x[0, 0] = cell.reach
        assert np.square(x - nearest(x, name)).sum() == pytest.approx(cell.reach**2)
    else:
        assert most > 0.95 * cell.reach


@pytest.mark.parametrize("name", LATTICES)
def test_normalised_second_moments(name: str) -> None:
    n = DIMENSIONS[name]
    x = np.random.default_rng(4).uniform(-40, 40, ((1 << 20) // n, n))
    assert np.square(x - nearest(x, name)).mean() == pytest.approx(MOMENTS[name], rel=0.005)


@pytest.mark.parametrize("dither", [False, True])
@pytest.mark.parametrize("name", LATTICES)
def test_streams_waste_neither_coset_nor_parity(name: str, dither: bool) -> None:
    x = np.random.default_rng(5).normal(0, 8, 1 << 20).astype(np.float32)
    _, streams = Lattice(name, 1.0, dither).encode(x)
    assert all(each.itemsize == 1 for each in streams)
    size = 8 * sum(Rans().encode(each.view(np.uint8)).streams[0].size for each in streams) / x.size
    entropy = 0.5 * math.log2(2 * math.pi * math.e * 64)  # the volume of a cell is 1
    assert entropy - 0.01 < size < entropy + 0.02


@pytest.mark.parametrize("name", LATTICES)
def test_with_dither_errors_know_nothing_of_the_weights(name: str) -> None:
    n, step = DIMENSIONS[name], 3.0
    x = np.random.default_rng(6).laplace(0, 0.5, 24 * 5000).astype(np.float32)
    spoilt, clean = (coded(Lattice(name, step, dither, 11), x) - x for dither in (False, True))
    assert np.square(clean).mean() == pytest.approx(MOMENTS[name] * step**2, rel=0.02)
    first = slice(None, None, n)  # coordinates of a block are not independent of each other
    assert abs(clean[first].mean()) < 4 * clean.std() / math.sqrt(x.size / n)
    for weights in (x[first], np.abs(x[first])):
        assert abs(np.corrcoef(weights, clean[first])[0, 1]) < 4 / math.sqrt(x.size / n)
        assert abs(np.corrcoef(weights, np.abs(clean[first]))[0, 1]) < 4 / math.sqrt(x.size / n)
    bins = np.digitize(x[first], np.quantile(x[first], [0.25, 0.5, 0.75]))
    for each in range(4):
        inside, outside = (clean[first][chosen] for chosen in (bins == each, bins != each))
        assert stats.ks_2samp(inside, outside).pvalue > 1e-3
    inside, outside = (spoilt[first][chosen] for chosen in (bins == 0, bins != 0))
    assert stats.ks_2samp(inside, outside).pvalue < 1e-9, "without, they do: the test can fail"


def test_integers_with_dither_err_uniformly() -> None:
    x = np.random.default_rng(7).laplace(0, 0.02, 100_000)
    error = coded(Lattice("z", 0.1, True, 3), x) - x
    assert stats.kstest(error, stats.uniform(-0.05, 0.1).cdf).pvalue > 1e-3


def test_a_common_dither_keeps_equal_vectors_equal() -> None:
    x = np.repeat(np.random.default_rng(8).normal(0, 1, 30_001), 3).astype(np.float32)[:-1]
    _, (_, index) = Lattice("z", 0.5, True, 1, 3).encode(x)
    assert np.array_equal(index[:-2:3], index[1:-1:3])
    assert np.array_equal(
        coded(Lattice("z", 0.5, True, 1, 3), x)[:-2:3], coded(Lattice("z", 0.5, True, 1), x[:-2:3].copy())
    )
    _, (_, apart) = Lattice("z", 0.5, True, 1).encode(x)
    assert not np.array_equal(apart[:-2:3], apart[1:-1:3])
    with pytest.raises(ArgumentError, match="common=3"):
        Lattice("e8", common=3)


@pytest.mark.parametrize("dither", [False, True])
@pytest.mark.parametrize("kind", ["f4", "f8", "f2", ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
@pytest.mark.parametrize("name", LATTICES)
def test_every_tail_and_type(name: str, kind: Any, dither: bool) -> None:
    rng, stage = np.random.default_rng(9), Lattice(name, 0.03, dither, 5)
    for count in (0, 1, 2, 7, 23, 24, 25, 49, 33_001):
        x = rng.normal(0, 0.3, count).astype(kind)
        out = coded(stage, x)
        error = np.abs(out.astype(np.float64) - x.astype(np.float64)).max(initial=0)
        assert error <= stage.error_bound(x)
        if dither and np.dtype(kind).itemsize > 2:
            assert np.array_equal(out, coded(stage, out)), "points stay where they are"


def test_the_dither_of_an_element_does_not_depend_on_how_many_there_are() -> None:
    x = np.random.default_rng(10).normal(0, 0.3, 200_000).astype(np.float32)
    for name, n in DIMENSIONS.items():
        stage = Lattice(name, 0.1, True, 1 << 60)
        assert np.array_equal(coded(stage, x)[: 48 * n], coded(stage, x[: 48 * n]))


@pytest.mark.parametrize("name", LATTICES)
def test_double_precision_is_kept(name: str) -> None:
    x = np.random.default_rng(11).normal(0, 1, 480)
    stage = Lattice(name, 1e-6, True)
    assert np.abs(coded(stage, x) - x).max() < 1.5e-6
    assert stage.error_bound(x) < 1.5e-6
    with pytest.raises(ArgumentError, match="larger step"):
        stage.encode(x.astype(np.float32) * 9)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ArgumentError, match="lossless"):
        Lattice("e8").encode(np.array([0, value], np.float16))


def test_outliers_are_refused_with_a_remedy() -> None:
    x = np.array([0.1, 1e30], np.float32)
    for name in LATTICES:
        with pytest.raises(ArgumentError, match="too many steps"):
            Lattice(name, 0.01).encode(x)
        assert np.abs(coded(Lattice(name, 1e24), x) - x).max() <= Lattice(name, 1e24).error_bound(x)
    with pytest.raises(ArgumentError, match="sign"):
        Lattice().encode(np.ones(3, ml_dtypes.float8_e8m0fnu))


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1.0])
def test_denormals_and_extreme_steps(scale: float) -> None:
    x = np.array([1, -2, 3, 0, -0.0], np.float32) * np.float32(scale)
    for name, step in itertools.product(LATTICES, (1e-30, 1e-6, 1e30)):
        if scale / step < 1000:
            assert np.abs(coded(Lattice(name, step, True), x) - x).max() <= Lattice(name, step).error_bound(x)


def test_zeros_stay_zeros_without_dither() -> None:
    for name in LATTICES:
        assert not coded(Lattice(name, 0.1), np.zeros(100, np.float32)).any()


BLOCK = [np.zeros((2, 1), np.uint8), np.zeros((2, 7), np.int8), np.zeros((2, 1), np.int8)]
NONE = np.zeros(0, np.uint8)


@pytest.mark.parametrize(
    ("wire", "streams"),
    [
        (LatticeWire(0, 0.1), [NONE]),
        (LatticeWire(0, 0.1), [NONE, np.zeros(11, np.int8)]),
        (LatticeWire(0, 0.1), [NONE, np.zeros((2, 6), np.int8)]),
        (LatticeWire(0, 0.1), [NONE, np.zeros(12, np.int64)]),
        (LatticeWire(0, 0.1), [BLOCK[0], np.zeros(12, np.int8)]),
        (LatticeWire(0, math.nan), [NONE, np.zeros(12, np.int8)]),
        (LatticeWire(0, 1e31), [NONE, np.zeros(12, np.int8)]),
        (LatticeWire(0, 0.1, 1 << 64), [NONE, np.zeros(12, np.int8)]),
        (LatticeWire(3, 0.1, 1, 2), BLOCK),
        (LatticeWire(3, 0.1), BLOCK[:2]),
        (LatticeWire(3, 0.1), [BLOCK[0], BLOCK[1][:1], BLOCK[2]]),
        (LatticeWire(3, 0.1), [BLOCK[0] + np.uint8(2), *BLOCK[1:]]),
        (LatticeWire(2, 0.1), BLOCK),
    ],
)
def test_streams_that_do_not_fit_are_refused(wire: LatticeWire, streams: list[Array]) -> None:
    out = np.empty(12, np.float32)
    with pytest.raises(FrameError):
        CODEC.decode(wire, tuple(streams), (), out)


@settings(max_examples=20)
@given(st.sampled_from(LATTICES), st.integers(0, 1 << 32), st.booleans())
def test_any_integers_decode_to_something(name: str, seed: int, dither: bool) -> None:
    rng, cell = np.random.default_rng(seed), lattice._CELLS[LATTICES.index(name)]
    out = np.full(3 * cell.n, np.nan, np.float32)
    streams = [rng.integers(-(1 << 31), 1 << 31, (3, c), np.int32) for c in cell.columns if c]
    streams.insert(0, rng.integers(0, 2, (3, 1), np.uint8))
    streams = [NONE, streams[1].reshape(-1)] if cell.n == 1 else streams
    CODEC.decode(LatticeWire(LATTICES.index(name), 1.0, seed if dither else None), tuple(streams), (), out)
    assert np.isfinite(out).all()


def test_pruned_zeros_stay_outside_by_composition() -> None:
    x = np.random.default_rng(12).normal(0, 0.1, 2400).astype(np.float32)
    x[np.abs(x) < 0.1] = 0
    out = featherweight.decode(featherweight.encode(x, "sparse(values=lattice(e8, 0.01, dither=true, index=bzip2))"))
    assert np.array_equal(x == 0, out == 0)
    assert np.abs(out - x).max() <= 0.0101


def test_indices_are_smaller_given_their_coset() -> None:
    x = np.random.default_rng(13).normal(0, 1, 80_000).astype(np.float32)
    alone, given = (
        featherweight.encode(x, f"lattice(d4, 1.0, coset=bitpack, index=planes(exponent=rans{classes}))")
        for classes in ("", "(given=coset)")
    )
    assert np.array_equal(featherweight.decode(alone), featherweight.decode(given))
    assert len(given) < 0.985 * len(alone)

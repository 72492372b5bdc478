"""Affine integers and narrow floats: against plain NumPy, exact arithmetic, and every value of the narrow types."""

import ml_dtypes
import numpy as np
import pytest

from featherweight import dtypes
from featherweight.codecs._kernels import _floats
from featherweight.codecs.affine import CODEC, Affine, AffineWire, fit, quantize
from featherweight.codecs.cast import Cast
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.testing import check_stage

pytestmark = pytest.mark.filterwarnings("error")

NARROW = ["F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F6_E2M3", "F6_E3M2", "F4"]


def weights(*shape: int, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.05).astype(np.float32)


def back(stage: Affine, x: Array, *given: Array) -> Array:
    wire, streams = stage.encode(x, *given)
    out = np.empty(x.shape, x.dtype)
    CODEC.decode(wire, streams, given, out)
    return out


def nmse(x: Array, y: Array) -> float:
    x, y = x.astype(np.float64), y.astype(np.float64)
    return float(((x - y) ** 2).sum() / (x**2).sum())


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_channels_are_what_numpy_makes_of_them(bits: int) -> None:
    x = weights(9, 5, 7)
    top = 2 ** (bits - 1) - 1
    index, scales = Affine(bits).encode(x).streams
    expected = np.abs(x).max((1, 2)).astype(np.float64) / top
    np.testing.assert_allclose(scales[:, 0], expected, rtol=1e-6)
    np.testing.assert_array_equal(index, np.rint(x / scales[:, :, None]) + 2 ** (bits - 1))
    assert index.min() >= 1


@pytest.mark.parametrize("bits", range(1, 9))
def test_with_zero_points_the_range_is_covered_and_zero_is_exact(bits: int) -> None:
    x = weights(4, 100) + np.float32(0.05)
    x[:, 3] = 0
    stage = Affine(bits, symmetric=False)
    y = back(stage, x)
    assert not y[:, 3].any()
    bound = stage.error_bound(x)
    assert bound is not None
    assert bound < 1.05 * ((x.max(1) - np.minimum(x.min(1), 0)) / (2**bits - 1)).max()
    assert np.abs(x - y).max() <= bound


def test_one_bit_is_the_sign_times_the_mean_magnitude() -> None:
    x = weights(3, 50)
    means = np.abs(x).mean(1, keepdims=True, dtype=np.float64)
    np.testing.assert_allclose(back(Affine(1), x), np.where(x >= 0, means, -means), rtol=1e-6)


def test_groups_follow_each_other_within_a_row_and_the_last_is_short() -> None:
    x = weights(2, 5, 14)
    index, scales = Affine(8, "group", 32).encode(x).streams
    rows = x.reshape(2, 70)
    groups = [np.abs(rows[:, begin : begin + 32]).max(1) / 127 for begin in (0, 32, 64)]
    np.testing.assert_allclose(scales, np.stack(groups, 1), rtol=1e-6)
    assert index.shape == x.shape


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_looking_longer_errs_less(bits: int, granularity: str, symmetric: bool) -> None:
    x = weights(40, 300)
    plain, squares, search = (
        nmse(x, back(Affine(bits, granularity, 64, symmetric, by), x)) for by in ("range", "least-squares", "search")
    )
    assert search <= squares * 1.001
    assert squares < plain


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_search_finds_about_the_best_scale(bits: int) -> None:
    x = weights(100, 100)
    half = 2 ** (bits - 1)
    grid = np.linspace(0.1, 1.1, 400) * np.abs(x).max() / half
    errors = [nmse(x, scale * np.clip(np.rint(x / scale), -half, half - 1)) for scale in (*grid, *-grid)]
    assert nmse(x, back(Affine(bits, "tensor", by="search"), x)) <= min(errors) * 1.005


def test_scales_widen_where_the_narrow_type_does_not_hold_them() -> None:
    for factor, kind in ((1.0, np.float16), (1e30, np.float32), (1e-30, np.float32), (1e-43, np.float64)):
        x = weights(3, 50) * np.float32(factor)
        stage = Affine(8, scale="f16")
        assert stage.encode(x).streams[1].dtype == kind
        check_stage(stage, x)
        assert nmse(x / np.float32(factor), back(stage, x) / np.float32(factor)) < 1e-2


@pytest.mark.parametrize("by", ["range", "least-squares", "search"])
@pytest.mark.parametrize("kind", ["F32", "F64", "BF16", "F16", "F8_E4M3", "F4"])
def test_odd_arrays(by: str, kind: str) -> None:
    limits = ml_dtypes.finfo(dtypes.of(kind).dtype)
    for numbers in (
        [],
        [0.0, -0.0],
        [1.0],
        [float(limits.max), -float(limits.max), 1],
        [float(limits.smallest_subnormal)] * 3,
    ):
        x = np.array([numbers] * 2, np.float64).astype(dtypes.of(kind).dtype)
        for symmetric in (True, False):
            stage = Affine(4, "group", 2, symmetric, by)
            check_stage(stage, x)
            assert np.isfinite(back(stage, x).astype(np.float64)).all()


def test_an_outlier_costs_its_own_group_only() -> None:
    x = weights(4, 64)
    x[2, 5] = 1e30
    y = back(Affine(8), x)
    assert np.abs(x - y)[[0, 1, 3]].max() < 1e-3
    assert y[2, 5] == pytest.approx(1e30, rel=1e-6)


def test_scales_and_zeros_from_outside() -> None:
    x = weights(3, 20)
    scales = np.array([0.01, 0.02, -0.03], np.float16)
    zeros = np.array([3, 8, 15], np.uint8)
    y = back(Affine(4, symmetric=False, by="given"), x, scales, zeros)
    steps = np.clip(
        np.rint(x / scales[:, None].astype("f4")), -zeros[:, None].astype(int), 15 - zeros[:, None].astype(int)
    )
    np.testing.assert_allclose(y, steps * scales[:, None], rtol=1e-6)
    quantizer = fit(x, 4, 20, by="search")
    np.testing.assert_array_equal(quantize(x, quantizer, 4, 20), Affine(4, by="search").encode(x).streams[0])
    np.testing.assert_array_equal(back(Affine(4, by="given"), x, quantizer.scales), back(Affine(4, by="search"), x))


def test_what_cannot_be_is_refused() -> None:
    x, ones = weights(3, 20), np.ones(3, np.float32)
    for stage, array, given, words in (
        (Affine(), np.full(3, np.nan, np.float32), (), "finite"),
        (Affine(), np.full(3, -np.inf), (), "finite"),
        (Affine(), x, (ones,), "by=given"),
        (Affine(by="given"), x, (), "scales"),
        (Affine(by="given"), x, (ones[:2],), "3 groups"),
        (Affine(by="given"), x, (ones * np.float32(np.inf),), "finite"),
        (Affine(4, symmetric=False, by="given"), x, (ones, np.full(3, 16, np.uint8)), "zero point"),
        (Affine(), np.ones(3, dtypes.of("F8_E8M0").dtype), (), "sign"),
    ):
        with pytest.raises(ArgumentError, match=words):
            stage.encode(array, *given)


def test_hostile_streams_are_errors_and_never_make_infinities() -> None:
    wire, index, out = AffineWire(8, 0), np.full((2, 3), 255, np.uint8), np.empty((2, 3), np.float32)
    for streams, given in (
        ((index,), ()),
        ((index, np.ones(2, np.float32)), ()),
        ((index[0], np.ones(1, np.float32)), ()),
        ((index, np.full(1, np.nan, np.float32)), ()),
        ((index, np.ones(1, np.float32)), (np.ones(1, np.float32),)),
    ):
        with pytest.raises(FrameError, match="scales"):
            CODEC.decode(wire, streams, given, out)
    CODEC.decode(wire, (index, np.full(1, 3e38, np.float32)), (), out)
    assert (out == np.finfo(np.float32).max).all()


@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("source", [np.float32, np.float64])
def test_rounding_is_to_the_nearest_even_and_saturates(name: str, source: type) -> None:
    row = dtypes.of(name)
    with np.errstate(invalid="ignore"):
        every = np.arange(1 << row.bits).astype(row.word).view(row.dtype).astype(np.float64)
    values = np.unique(every[np.isfinite(every)])
    middles = (values[1:] + values[:-1]) / 2
    exact, ties = values.astype(source), middles.astype(source)
    for x, expected in (
        (exact, values),
        (np.nextafter(ties, source(np.inf)), values[1:]),
        (np.nextafter(ties, source(-np.inf)), values[:-1]),
        (
            np.array([1e30, -1e30], source),
            values[[-1, 0]] if values[-1] < 1e30 else np.array([1e30, -1e30]).astype(row.dtype),
        ),
    ):
        out = np.empty(x.size, row.dtype)
        _floats.round_into(x, out)
        np.testing.assert_array_equal(out.astype(np.float64), expected.astype(np.float64))
    out = np.empty(ties.size, row.dtype)
    _floats.round_into(ties, out)
    assert not (out.view(row.word) & 1).any()
    np.testing.assert_array_equal(np.abs(out.astype(np.float64) - middles), (values[1:] - values[:-1]) / 2)


def test_f64_is_rounded_once() -> None:
    x = np.array([1 + 2.0**-8 + 2.0**-40, 1 + 2.0**-8 - 2.0**-40])
    out = np.empty(2, dtypes.of("BF16").dtype)
    _floats.round_into(x, out)
    assert out.astype(float).tolist() == [1 + 2.0**-7, 1]


@pytest.mark.parametrize("to", ["f16", "bf16", "f8_e4m3", "f8_e5m2", "f6_e2m3", "f4"])
def test_cast_keeps_the_laws_and_its_bound_is_not_lavish(to: str) -> None:
    for x in (
        weights(80, 70),
        weights(3) * np.float32(1e4),
        np.float32(1e30) * weights(5),
        weights(4, 4).astype(np.float64),
    ):
        check_stage(Cast(to), x)
        out = np.empty(x.shape, x.dtype)
        Cast.codec.decode(*Cast(to).encode(x), (), out)
        bound = Cast(to).error_bound(x)
        assert bound is not None
        assert bound <= 16 * np.abs(x.astype(np.float64) - out).max() + 1e-6


def test_cast_refuses_what_the_narrow_type_cannot_be_for() -> None:
    for x, to in (
        (np.float32([np.inf]), "bf16"),
        (np.float32([np.nan]), "f8_e4m3"),
        (np.float16([1]), "bf16"),
        (np.float16([1]), "f16"),
    ):
        with pytest.raises(ArgumentError):
            Cast(to).encode(x)
    for narrow in (np.float64, np.float32):
        with pytest.raises(FrameError):
            Cast.codec.decode(
                *Cast("bf16").encode(np.ones(3, np.float32))[:1], (np.ones(3, narrow),), (), np.empty(3, np.float32)
            )

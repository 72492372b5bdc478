"""3LC's three stages against its paper: values worked out by hand, and the numbers of the definition in plain NumPy."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import featherweight
from featherweight.codecs.base3 import CODEC as BASE3
from featherweight.codecs.base3 import Base3
from featherweight.codecs.density import Density
from featherweight.codecs.rans import Rans
from featherweight.codecs.ternary import CODEC as TERNARY
from featherweight.codecs.ternary import Ternary, TernaryWire
from featherweight.codecs.zero_run import CODEC as ZERO_RUN
from featherweight.codecs.zero_run import ZeroRun
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Empty, Recipe, chain

THREE = "ternary(1.5, values=base3(bytes=zero_run))"


def gradients(count: int, seed: int = 0) -> Array:
    """Return numbers of a heavy-tailed distribution, in float32."""
    return np.random.default_rng(seed).standard_t(3, count).astype(np.float32)


def decoded(codec: object, wire: object, streams: tuple[Array, ...], shape: object, dtype: object) -> Array:
    out = np.empty(shape, dtype)
    codec.decode(wire, streams, (), out)  # type: ignore[attr-defined]
    return out


# By hand, from the paper. s = 1.5 and max 0.5: M = 0.75. What is beyond ±0.375 is sent; 0.375 = M / 2 itself is not.
HAND = np.array([0.5, -0.4, 0.375, -0.375, 0.1, 0, -0.5, 0.38, 0, 0, 0, 0], np.float32)
HAND_VALUES = [2, 0, 1, 1, 1, 1, 0, 2, 1, 1, 1, 1]
# P = 3: the fifths are (2 0 1) (1 1 1) (0 2 1) (1 1 1), and (1 1 1), all of it padding.
# 81·2 + 27 + 0 + 3 + 1 = 193; 0 + 27 + 9·2 + 3 + 1 = 49; 81 + 27 + 9 + 3 + 1 = 121.
HAND_BYTES = "c1 31 79"
HAND_STORED = "00 00 40 3f c1 31 79"  # M as F32, then the bytes: a single 121 stays as it is


def test_a_hand_worked_array_gives_the_bytes_of_the_paper() -> None:
    _, (scales, values) = Ternary(1.5).encode(HAND)
    assert [0.75] == scales.tolist()
    assert HAND_VALUES == values.tolist()
    (data,) = Base3().encode(values).streams
    assert HAND_BYTES == data.tobytes().hex(" ")
    assert HAND_BYTES == ZeroRun().encode(data).streams[0].tobytes().hex(" ")
    frame = featherweight.encode(HAND, THREE)
    assert frame.endswith(bytes.fromhex(HAND_STORED))
    expected = np.array([0.75, -0.75, 0, 0, 0, 0, -0.75, 0.75, 0, 0, 0, 0], np.float32)
    assert expected.tolist() == featherweight.decode(frame).tolist()


@pytest.mark.parametrize(
    ("data", "coded"),
    [
        ("79", "79"),
        ("79 79", "f3"),
        ("79 " * 14, "ff"),
        ("79 " * 15, "ff 79"),
        ("79 " * 16, "ff f3"),
        ("79 " * 28, "ff ff"),
        ("79 " * 41, "ff ff fe"),
        ("00 79 f2 79 79 79 01", "00 79 f2 f4 01"),
        ("78 7a", "78 7a"),
        ("", ""),
    ],
)
def test_runs_are_coded_as_the_paper_says(data: str, coded: str) -> None:
    x = np.frombuffer(bytes.fromhex(data), np.uint8)
    assert coded == ZeroRun().encode(x).streams[0].tobytes().hex(" ")
    stream = np.frombuffer(bytes.fromhex(coded), np.uint8)
    assert x.tolist() == decoded(ZERO_RUN, Empty(), (stream,), x.shape, np.uint8).tolist()


def test_seventy_zeros_are_one_byte() -> None:
    frame = featherweight.encode(np.zeros(700, np.float32), THREE)
    assert frame.endswith(bytes.fromhex("00 00 00 00" + "ff" * 10))


@given(st.integers(0, 300), st.integers(0, 1 << 30), st.floats(0, 1))
def test_base3_is_the_sum_of_digits_from_five_equal_parts(n: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(n) < share, rng.integers(0, 3, n), 1).astype(np.uint8)
    padded = np.ones(-(-n // 5) * 5, np.int64)
    padded[:n] = x
    expected = [81, 27, 9, 3, 1] @ padded.reshape(5, -1)
    wire, (data,) = Base3().encode(x)
    assert expected.tolist() == data.tolist()
    assert x.tolist() == decoded(BASE3, wire, (data,), x.shape, np.uint8).tolist()


@given(st.integers(0, 400), st.integers(0, 1 << 30), st.sampled_from([0, 0.01, 0.1, 0.5, 1]))
def test_zero_run_comes_back_and_never_costs_more_than_it_gets(n: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(n) < share, rng.integers(0, 243, n), 121).astype(np.uint8)
    wire, (coded,) = ZeroRun().encode(x)
    assert coded.size <= x.size
    assert x.tolist() == decoded(ZERO_RUN, wire, (coded,), x.shape, np.uint8).tolist()
    # Two codes that could be one never stand side by side: single 121, or a run that is not full, before a run.
    zeros = [(z == 121 or z >= 243, z == 255) for z in coded.tolist()]
    assert not any(a and not full and b for (a, full), (b, _) in itertools.pairwise(zeros))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("s", [1.0, 1.5, 1.75, 1.9])
def test_ternary_is_the_definition_and_keeps_the_error_below_half_the_scale(s: float, dtype: type) -> None:
    x = gradients(5000).astype(dtype)
    wire, (scales, values) = Ternary(s).encode(x)
    wide = x.astype(np.float64 if dtype is np.float64 else np.float32)
    scale = np.abs(wide).max() * wide.dtype.type(s)
    assert [scale] == scales.tolist()
    assert (np.rint(wide / scale) + 1).tolist() == values.tolist()
    back = decoded(TERNARY, wire, (scales, values), x.shape, x.dtype)
    bound = Ternary(s).error_bound(x)
    assert np.abs(back.astype(np.float64) - x).max() <= bound <= float(scale) / 2 * 1.001


def test_the_largest_element_is_always_sent() -> None:
    for x in (1e-45, -3e-45, 1e-38, 3.4e38, 1.0, 5e-324, 1.7e308):
        for s in (1.0, 1.75, 1.9999):
            array = np.array([0, x], np.float32 if 1e-46 < abs(x) < 1e39 else np.float64)
            _, (scales, values) = Ternary(s).encode(array)
            assert [1, 2 if x > 0 else 0] == values.tolist()
            assert np.isfinite(scales).all()


def test_scales_of_blocks_and_of_given_parts() -> None:
    x = np.concatenate([gradients(100) * 1e-6, gradients(57, 1), np.zeros(9), gradients(34, 2) * 1e6]).astype("f4")
    parts = np.array([100, 0, 57, 9, 34])
    wire, (scales, values) = Ternary(1.0).encode(x, parts)
    assert [float(np.abs(p).max(initial=0)) for p in np.split(x, [100, 100, 157, 166])] == scales.tolist()
    out = np.empty_like(x)
    TERNARY.decode(wire, (scales, values), (parts,), out)
    assert (np.repeat(scales, parts) * (values.astype("f4") - 1)).tolist() == out.tolist()
    wire, (scales, _) = Ternary(1.0, block=32).encode(x, parts)
    cuts = [32, 64, 96, 100, 132, 157, 166, 198]
    assert [float(np.abs(p).max()) for p in np.split(x, cuts)] == scales.tolist()
    with pytest.raises(ArgumentError, match="parts do not make 200"):
        Ternary().encode(x, parts[:3])
    with pytest.raises(ArgumentError, match="negative"):
        Ternary().encode(x, np.array([250, -50]))
    with pytest.raises(FrameError, match="scales for"):
        TERNARY.decode(TernaryWire(0), (scales, values), (parts,), out)


def test_what_cannot_be_coded_is_refused() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ArgumentError, match="not finite"):
            Ternary().encode(np.array([1, bad], np.float32))
    with pytest.raises(ArgumentError, match="below 3"):
        Base3().encode(np.array([0, 3], np.uint8))
    with pytest.raises(ArgumentError, match="below 243"):
        ZeroRun().encode(np.array([0, 243], np.uint8))
    with pytest.raises(ArgumentError, match="at most"):
        Ternary(2.0)


@pytest.mark.parametrize(
    ("codec", "stream", "size", "why"),
    [
        (BASE3, [243], 5, "above 242"),
        (BASE3, [120], 4, "stands for no value"),
        (BASE3, [121, 121], 5, "2 bytes for 5"),
        (ZERO_RUN, [255], 13, "do not make 13"),
        (ZERO_RUN, [255], 15, "do not make 15"),
        (ZERO_RUN, [], 1, "do not make 1"),
        (ZERO_RUN, [255] * 9 + [1, 1], 127, "do not make 127"),
    ],
)
def test_hostile_bytes_are_refused(codec: object, stream: list[int], size: int, why: str) -> None:
    with pytest.raises(FrameError, match=why):
        decoded(codec, Empty(), (np.array(stream, np.uint8),), size, np.uint8)


@pytest.mark.parametrize("block", [-1, 1 << 60, (1 << 64) - 1])
def test_a_hostile_block_is_refused(block: int) -> None:
    for count in (0, 1, 3):
        with pytest.raises(FrameError):
            decoded(TERNARY, TernaryWire(block), (np.zeros(count, "f4"), np.ones(3, np.uint8)), 3, np.float32)


@pytest.mark.parametrize("scale", [-1.0, -0.0, np.inf, np.nan])
def test_a_hostile_scale_is_refused(scale: float) -> None:
    with pytest.raises(FrameError, match="negative or not finite"):
        decoded(TERNARY, TernaryWire(), (np.array([scale], "f4"), np.ones(3, np.uint8)), 3, np.float32)


def test_entropy_coded_by_density_it_is_near_the_entropy_of_its_rows() -> None:
    rng = np.random.default_rng(5)
    shares = np.repeat(rng.choice([0.002, 0.02, 0.2], 4000, p=[0.7, 0.2, 0.1]), 144)
    signs = rng.choice([0, 2], shares.size)
    x = np.where(rng.random(shares.size) < shares, signs, 1).astype(np.uint8)
    recipe = chain(Density(144), density=Rans(), values=Recipe(Rans(), (), ("density",)))
    ideal = float(-(shares * np.log2(shares / 2) + (1 - shares) * np.log2(1 - shares)).sum()) / 8
    frame = featherweight.encode(x, recipe)
    plain = featherweight.encode(x, Rans())
    assert x.tolist() == featherweight.decode(frame).tolist()
    assert len(frame) < min(1.12 * ideal, 0.9 * len(plain))

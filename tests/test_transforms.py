"""Rotations and cosine transforms: orthonormal, exactly undone but for rounding, and as good as they are said to be."""

import warnings

import ml_dtypes
import numpy as np
import pytest
import scipy.fft
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import featherweight as fw
from featherweight import kernel
from featherweight.codecs import dct, hadamard
from featherweight.codecs._kernels import _filters
from featherweight.codecs._kernels import hadamard as kernels
from featherweight.codecs._kernels._random import word
from featherweight.codecs.dct import Dct
from featherweight.codecs.hadamard import Hadamard, rotate, unrotate
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.testing import check_stage

pytestmark = pytest.mark.filterwarnings("error")


def gauss(*shape: int, seed: int = 0, dtype: type = np.float32) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def there_and_back(x: Array, stage: object) -> Array:
    return fw.decode(fw.encode(x, stage))


def kurtosis(x: Array) -> float:
    x = x.astype(np.float64)
    return float(np.mean(x**4) / np.mean(x**2) ** 2)


# Rotation


def signs(seed: int, q: int, words: int, positions: range) -> Array:
    with np.errstate(over="ignore"):
        bits = [int(word(np.uint64(seed), np.uint64(q * words + p // 64))) >> (p % 64) & 1 for p in positions]
    return np.where(bits, -1.0, 1.0)


def rotation(n: int, at: int, size: int, seed: int, rounds: int) -> Array:
    """Return the matrix of the norm's three steps, for the part of `size` at `at` of vectors of `n`."""
    words, blocks = -(-n // 64), []
    for k in reversed(range(size.bit_length())):
        if size >> k & 1:
            blocks.append((sum(p for _, p in blocks), 1 << k))
    matrix = np.eye(size)
    for r in range(rounds):
        turns = []
        if r:
            for start, power in reversed(blocks):
                after = size - start - power
                turns += [(start + i, start + power + i, after / (power + after)) for i in range(after)]
        elif size >= 16:
            whole = size - size % 16
            turns = [(a, b, 7 / 8) for b in range(whole, size) for a in range(whole - 16, whole)]
        for a, b, share in turns:
            c, s = np.sqrt([share, 1 - share])
            s *= signs(seed, rounds + r, words, range(at + b, at + b + 1))[0]
            matrix[[a, b]] = np.array([[c, -s], [s, c]]) @ matrix[[a, b]]
        matrix = signs(seed, r, words, range(at, at + size))[:, None] * matrix
        mixed = [scipy.linalg.hadamard(p) / np.sqrt(p) for _, p in blocks]
        matrix = scipy.linalg.block_diag(*mixed) @ matrix
    return matrix


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, 31, 48, 64, 65, 100, 127, 200, 256, 321, 777])
@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_the_rotation_is_that_of_the_norm(n: int, rounds: int) -> None:
    expected = rotation(n, 0, n, 9, rounds)
    assert np.allclose(expected @ expected.T, np.eye(n), atol=1e-12)
    rows = np.eye(n)
    rotate(rows, 9, length=n, rounds=rounds)
    assert np.allclose(expected.T, rows, atol=1e-13)


@pytest.mark.parametrize(("n", "block"), [(200, 64), (130, 128), (64, 192), (500, 192), (4096 + 77, 64 * 21)])
def test_parts_are_rotated_apart(n: int, block: int) -> None:
    x = gauss(n, dtype=np.float64)
    expected = []
    for at in range(0, n, block):
        part = x[at : at + block]
        expected.append(rotation(n, at, part.size, 3, 2) @ part)
    y = x.copy()
    rotate(y, 3, block=block)
    assert np.allclose(np.concatenate(expected), y, atol=1e-12)


@given(st.integers(1, 1 << 16), st.integers(0, (1 << 64) - 1), st.sampled_from([0, 64, 4096, 65536]), st.integers(1, 3))
def test_any_length_keeps_its_norm_and_comes_back(n: int, seed: int, block: int, rounds: int) -> None:
    for dtype, near in ((np.float32, 3e-6), (np.float64, 1e-14)):
        x = gauss(n, seed=seed % 99, dtype=dtype)
        y = x.copy()
        rotate(y, seed, block=block, rounds=rounds)
        norm = np.linalg.norm(x.astype(np.float64))
        assert abs(np.linalg.norm(y.astype(np.float64)) - norm) < near * norm
        unrotate(y, seed, block=block, rounds=rounds)
        assert np.abs(x - y).max() < near * max(1, float(np.abs(x).max()))


@pytest.mark.parametrize("n", [1 << 12, (1 << 12) + 1, (1 << 13) - 1, 5000, 99_999, (1 << 17) + 3])
def test_a_spike_anywhere_becomes_noise(n: int) -> None:
    for place in sorted({0, 1, 5, n // 3, n // 2, *range(n - 20, n)}):
        x = np.zeros(n)
        x[place] = np.sqrt(n)
        rotate(x, 4)
        assert abs(kurtosis(x) - 3) < (0.25 if place < n - 40 else 2), place
        parts = np.array_split(x**2, 8)  # each part has its share
        assert max(abs(part.mean() - 1) for part in parts) < 0.5, place


@pytest.mark.parametrize("n", [1 << 16, 100_000])
@pytest.mark.parametrize(("bits", "theory"), [(1, 0.36338), (2, 0.11748), (3, 0.03454), (4, 0.009497)])
def test_quantizers_of_the_normal_distribution_do_as_well_as_theory_says(n: int, bits: int, theory: float) -> None:
    levels = {
        1: [0.79788],
        2: [0.45278, 1.51042],
        3: [0.24509, 0.75601, 1.34391, 2.15195],
        4: [0.12840, 0.38805, 0.65676, 0.94234, 1.25623, 1.61805, 2.06902, 2.73259],
    }[bits]
    book = np.array([*(-each for each in reversed(levels)), *levels])
    x = np.zeros(n)
    x[:: n // 50] = np.linspace(-3, 5, len(x[:: n // 50]))  # nothing like a normal distribution
    x *= np.sqrt(n) / np.linalg.norm(x)
    rotate(x, 11)
    error = x - book[np.searchsorted((book[1:] + book[:-1]) / 2, x)]
    assert np.mean(error**2) == pytest.approx(theory, rel=0.02)


@pytest.mark.parametrize("axis", [None, 0, 1, 2, -1, -2])
def test_all_vectors_along_an_axis_are_rotated_alike(axis: int | None) -> None:
    x = gauss(5, 20, 6, dtype=np.float64)
    wire, (rotated,) = Hadamard(6, axis).encode(x)
    rows = x.reshape(1, -1) if axis is None else np.moveaxis(x, axis, -1)
    expected = rows @ rotation(rows.shape[-1], 0, rows.shape[-1], 6, 2).T
    expected = expected.reshape(x.shape) if axis is None else np.moveaxis(expected, -1, axis)
    assert np.allclose(expected, rotated, atol=1e-12)
    assert wire.axis == (0 if axis is None else 1 + axis % 3)
    assert np.allclose(x, there_and_back(x, Hadamard(6, axis)), atol=1e-13)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("block", [0, 64])
def test_rotations_keep_the_laws_on_chosen_axes(axis: int | None, block: int) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        check_stage(Hadamard(1 << 63, axis, block, 3), gauss(9, 90).astype(dtype))
        check_stage(Hadamard(1 << 63, axis, block, 3), np.zeros((0, 90), dtype))


def test_a_rotation_of_an_axis_that_is_not_there_is_refused() -> None:
    for axis in (2, -3):
        with pytest.raises(ArgumentError, match=f"axis={axis}"):
            Hadamard(axis=axis).encode(gauss(3, 4))
    with pytest.raises(ArgumentError, match="multiple of 64"):
        Hadamard(block=63)


# Cosine transform


@pytest.mark.parametrize("sides", [(2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (11, 11), (1, 7), (7, 1), (3, 5), (16, 9)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_filters_are_transformed_as_scipy_does(sides: tuple[int, int], dtype: type) -> None:
    near = 3e-6 if dtype == np.float32 else 1e-13
    for x, axes, form in (
        (gauss(13, 11, *sides, dtype=dtype), (2, 3), "last"),
        (gauss(*sides, 13, 11, dtype=dtype), (0, 1), "first"),
    ):
        expected = scipy.fft.dctn(x.astype(np.float64), axes=axes, norm="ortho")
        (coefficients,) = Dct(form).encode(x).streams
        assert coefficients.dtype == dtype
        assert np.abs(expected - coefficients).max() < near
        assert np.abs(x - there_and_back(x, Dct(form))).max() < near


@pytest.mark.parametrize("shape", [(30, 20, 3), (5, 30, 20)])
def test_filters_of_one_dimension_are_transformed(shape: tuple[int, ...]) -> None:
    x = gauss(*shape)
    axis = 2 if shape[2] == 3 else 0
    expected = scipy.fft.dct(x, axis=axis, norm="ortho")
    assert np.allclose(expected, Dct().encode(x).streams[0], atol=1e-6)


@given(st.integers(1, 40), st.integers(1, 200), st.sampled_from([1, 2, 3, 8, 16]))
def test_matrices_are_transformed_in_blocks_and_what_is_left(rows: int, columns: int, edge: int) -> None:
    x = gauss(rows, columns)
    (coefficients,) = Dct("blocks", edge).encode(x).streams
    if rows == 1 or columns == 1:
        rows, columns = 1, rows * columns
    shaped, made = x.reshape(rows, columns), coefficients.reshape(rows, columns)
    for i in range(0, rows, edge):
        for j in range(0, columns, edge):
            part = np.s_[i : i + edge, j : j + edge]
            expected = scipy.fft.dctn(shaped[part], norm="ortho")
            assert np.allclose(expected, made[part], atol=1e-5)
    assert np.allclose(x, there_and_back(x, Dct("blocks", edge)), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((64, 3, 3, 3), "last"),
        ((3, 3, 3, 64), "first"),
        ((20, 1, 5, 5), "last"),
        ((5, 5, 1, 20), "first"),
        ((3, 3, 3, 8), "first"),
        ((8, 8, 3, 3), "last"),
        ((3, 3, 8, 8), "first"),
        ((3, 3, 128, 1), "first"),
        ((128, 1, 3, 3), "last"),
        ((6, 3, 1, 7), "last"),
        ((7, 1, 64, 64), "first"),
        ((2, 2, 2, 2), "last"),
        ((30, 20, 3), "last"),
        ((3, 30, 20), "first"),
        ((64, 32, 1, 1), None),
        ((1, 1, 64, 32), None),
        ((12, 64, 384), None),
        ((10, 10), None),
        ((5,), None),
        ((), None),
    ],
)
def test_filters_are_found_by_the_shape(shape: tuple[int, ...], place: str | None) -> None:
    assert place == _filters.place(shape)


def test_the_transform_of_smooth_filters_leaves_few_coefficients() -> None:
    y, x = np.mgrid[-3:4, -3:4]
    filters = np.exp(-(x**2 + y**2) / 9)[None, None] * gauss(32, 16, 1, 1)
    energies = np.sort((Dct().encode(filters).streams[0] ** 2).reshape(-1, 49).sum(0))[::-1]
    assert energies[:4].sum() > 0.97 * energies.sum()


@pytest.mark.parametrize("form", ["auto", "last", "first", "blocks"])
def test_transforms_keep_the_laws_in_every_form(form: str) -> None:
    for dtype in (np.float16, np.float32, np.float64):
        check_stage(Dct(form), gauss(5, 5, 3, 9).astype(dtype))
        if form in ("auto", "blocks"):
            check_stage(Dct(form), np.array(3, dtype))


def test_filters_that_are_not_there_are_refused() -> None:
    for x in (gauss(9, 9), gauss(2, 2, 65, 3)):
        with pytest.raises(ArgumentError, match="form=last"):
            Dct("last").encode(x)
    with pytest.raises(ArgumentError, match="form=first"):
        Dct("first").encode(gauss(65, 3, 2, 2))


# Both


def test_compiled_and_interpreted_loops_do_the_same() -> None:
    if not kernel.compiled():
        pytest.skip("kernels run interpreted anyway")
    for n, block, size in ((8192 + 77, 8192 + 77, 4), (1000, 192, 8), (4096, 4096, 8)):
        for run in (kernels.ROTATE[size], kernels.UNROTATE[size]):
            x = gauss(n, dtype=np.dtype(f"f{size}").type)
            tables = hadamard._tables(block, n % block, x.dtype)
            made = [x.copy(), x.copy()]
            run(made[0], n, block, 2, np.uint64(77), *tables)
            with np.errstate(over="ignore"):
                run.python(made[1], n, block, 2, np.uint64(77), *tables)
            assert made[0].tobytes() == made[1].tobytes()


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("shape", [(37, 1, 3, 3), (1, 15, 3, 3), (3, 3, 9, 8), (9, 5, 4, 3), (40, 3)])
def test_compiled_and_interpreted_transforms_do_the_same(
    shape: tuple[int, ...], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel.compiled():
        pytest.skip("kernels run interpreted anyway")
    x = gauss(*shape, dtype=np.dtype(f"f{size}").type)
    forms = ["blocks", *(["first", "last"] if len(shape) > 2 else [])]
    made = []
    for loop in (dct.kernels.TRANSFORM[size], dct.kernels.TRANSFORM[size].python):
        monkeypatch.setitem(dct.kernels.TRANSFORM, size, kernel._interpret(loop))
        made += [dct.transform(x, form, 3, inverse=inverse) for form in forms for inverse in (False, True)]
    half = len(made) // 2
    assert [each.tobytes() for each in made[:half]] == [each.tobytes() for each in made[half:]]


STAGES = [Hadamard(), Hadamard(axis=-1, block=64), Dct(), Dct("blocks")]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-3, 1e19, 1e30, 3.4e38])
def test_any_magnitude_comes_back_finite(stage: object, scale: float) -> None:
    x = np.clip(gauss(12, 6, 3, 3).astype(np.float64) * scale, -3.4e38, 3.4e38).astype(np.float32)
    y = there_and_back(x, stage)
    assert np.isfinite(y).all()
    assert np.abs(x.astype(np.float64) - y).max() <= 3e-6 * np.abs(x.astype(np.float64)).max() + 2e-45
    flat = np.full((12, 6, 3, 3), np.finfo(np.float32).max)
    assert np.allclose(flat, there_and_back(flat, stage), rtol=1e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_one_outlier_spoils_no_more_than_rounding_against_it(stage: object) -> None:
    x = gauss(40, 9, 3, 3)
    x[3, 4, 1, 1] = 1e30
    assert np.abs(x - there_and_back(x, stage)).max() < 1e30 * 3e-6


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(stage: object, bad: float) -> None:
    x = gauss(4, 4, 3, 3)
    x[1, 2, 0, 1] = bad
    with pytest.raises(ArgumentError, match="not finite: code this array with lossless"):
        fw.encode(x, stage)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"])
@pytest.mark.parametrize("stage", STAGES)
def test_narrow_types_come_back_bit_for_bit(stage: object, name: str) -> None:
    x = np.random.default_rng(1).integers(1, 4, (9, 8, 3, 3)) * np.float32(0.5)
    narrow = x.astype(np.dtype(getattr(ml_dtypes, name, name)))
    assert narrow.tobytes() == there_and_back(narrow, stage).tobytes()


def test_an_orthonormal_transform_keeps_the_error_of_what_follows() -> None:
    x = gauss(64, 32, 3, 3)
    for stage in (Dct(), Hadamard(7)):
        wire, (values,) = stage.encode(x)
        coarse = np.rint(values * 4) / 4
        out = np.empty_like(x)
        stage.codec.decode(wire, (coarse,), (), out)
        assert np.sum((out - x) ** 2) == pytest.approx(np.sum((coarse - values) ** 2), rel=1e-4)


@pytest.mark.parametrize(
    ("stage", "changes"),
    [
        (Hadamard(), {"seed": -1}),
        (Hadamard(), {"seed": 1 << 64}),
        (Hadamard(), {"axis": 5}),
        (Hadamard(), {"block": 63}),
        (Hadamard(), {"block": -64}),
        (Hadamard(), {"rounds": 0}),
        (Hadamard(), {"rounds": 9}),
        (Hadamard(), {"exponent": 1101}),
        (Dct(), {"form": 3}),
        (Dct(), {"edge": 0}),
        (Dct(), {"edge": 65}),
        (Dct(), {"exponent": -1101}),
    ],
)
def test_records_out_of_bounds_are_refused(stage: object, changes: dict[str, int]) -> None:
    x = gauss(4, 6, 3, 3)
    wire, streams = stage.encode(x)
    fields = {name: getattr(wire, name) for name in wire.__struct_fields__}
    with pytest.raises(FrameError):
        stage.codec.decode(type(wire)(**{**fields, **changes}), streams, (), np.empty_like(x))


@pytest.mark.parametrize("codec", [hadamard.CODEC, dct.CODEC])
def test_streams_that_do_not_fit_or_are_out_of_range_are_refused(codec: object) -> None:
    stage = Hadamard() if codec is hadamard.CODEC else Dct()
    x = gauss(4, 6, 3, 3)
    wire, (values,) = stage.encode(x)
    wrong = [values[:-1], values.astype(np.float64), values * np.float32(np.inf), np.full_like(values, 2e27)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in wrong:
            with pytest.raises(FrameError):
                codec.decode(wire, (each,), (), np.empty_like(x))


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_a_step_means_what_it_says_however_large_the_weights_are(scale: float) -> None:
    x = np.cumsum(np.random.default_rng(1).standard_normal((64, 64)), axis=1).astype(np.float32) * np.float32(scale)
    with pytest.raises(ArgumentError, match="would have to be scaled"):
        fw.encode(x, "dct(scaled=false)")
    assert np.allclose(fw.decode(fw.encode(x, "dct")), x, rtol=1e-4, atol=1e-4 * scale)
    for recipe in ("tcq(step=0.5)", "ecsq(step=0.5)", "transform-clustering(step=0.5)"):
        assert np.abs(fw.decode(fw.encode(x, recipe)) - x).max() <= min(2, 200 * scale)

"""EDEN: centroids against their definition, the error of the whole recipe against theory, and that it is unbiased."""

import numpy as np
import pytest
from scipy.special import ndtr

import featherweight
from featherweight.codecs.bitpack import Bitpack
from featherweight.codecs.hadamard import Hadamard
from featherweight.codecs.lloydmax import CODEC, Lloydmax, LloydmaxWire, centroids
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import AnyRecipe, chain


def eden(bits: int, seed: int = 0, block: int = 0, rounds: int = 2) -> AnyRecipe:
    quantizer = chain(Lloydmax(bits, block), index=Bitpack(bits))
    return chain(Hadamard(seed, block=block, rounds=rounds), rotated=quantizer)


def through(x: Array, recipe: AnyRecipe) -> Array:
    return featherweight.decode(featherweight.encode(x, recipe, threads=1), threads=1)


@pytest.mark.parametrize("bits", range(1, 9))
def test_centroids_are_the_means_of_what_is_nearest_to_them(bits: int) -> None:
    c = centroids(bits)
    middles = np.r_[-np.inf, (c[1:] + c[:-1]) / 2, np.inf]
    density = np.where(np.isinf(middles), 0, np.exp(-np.square(np.nan_to_num(middles, posinf=0, neginf=0)) / 2))
    means = -np.diff(density) / np.sqrt(2 * np.pi) / np.diff(ndtr(middles))
    assert c.size == 1 << bits
    assert np.abs(means - c).max() < 2.0**-19


# |x - x̂|² / |x|² of vectors of any kind, in theory D / (1 - D) with D the distortion of the quantizer.
@pytest.mark.parametrize(("bits", "expected"), [(1, np.pi / 2 - 1), (2, 0.1331), (3, 0.03578), (4, 0.00959)])
@pytest.mark.parametrize("block", [0, 4096])
def test_the_error_is_what_theory_says(bits: int, expected: float, block: int) -> None:
    rng = np.random.default_rng(bits)
    for x in (rng.standard_normal(1 << 17), rng.standard_t(5, 100_000), rng.standard_normal(70_000) ** 3):
        x = x.astype(np.float32)  # noqa: PLW2901
        error = np.square(through(x, eden(bits, 5, block)) - x, dtype=np.float64).sum() / np.square(x, dtype="f8").sum()
        assert abs(error / expected - 1) < 0.02


def test_the_mean_over_seeds_is_right() -> None:
    x = np.random.default_rng(1).standard_t(3, 1000).astype(np.float32)
    for recipe in (lambda seed: eden(1, seed), lambda seed: eden(1, seed, 256)):
        mean = np.mean([through(x, recipe(seed)).astype(np.float64) for seed in range(1000)], axis=0)
        # What is left of an error that averages out is the thousandth part; a bias would stay.
        assert np.square(mean - x).sum() / np.square(x.astype(np.float64)).sum() < 1.25 * 0.571 / 1000


def test_without_bias_corrected_the_error_is_less() -> None:
    x = np.random.default_rng(2).standard_normal(1 << 16).astype(np.float32)
    least = through(x, Lloydmax(1, unbiased=False))
    error = np.square(least - x).sum() / np.square(x).sum()
    assert abs(error / (1 - 2 / np.pi) - 1) < 0.02


@pytest.mark.parametrize("bits", range(1, 9))
def test_indices_are_those_of_the_nearest_centroids(bits: int) -> None:
    x = np.random.default_rng(bits).standard_normal(3000)
    x[:7] = 0, 1e-300, 50, -50, 5, -5, 4.99
    _, (scales, index) = Lloydmax(bits, 1000).encode(x)
    for part, chosen, scale in zip(x.reshape(3, -1), index.reshape(3, -1), scales, strict=True):
        z = part * np.sqrt(part.size / np.square(part).sum())
        c = centroids(bits)
        best = np.abs(z[:, None] - c).min(axis=1)
        assert np.abs(np.abs(z - c[chosen]) - best).max() < 1e-12
        assert scale == pytest.approx(np.square(part).sum() / part.dot(c[chosen]))


@pytest.mark.parametrize("size", [1e38, 1e-38, 1e-45, 0.0])
def test_extreme_magnitudes_stay_finite(size: float) -> None:
    x = (np.random.default_rng(3).uniform(-3, 3, 500) * size).astype(np.float32)
    for array in (x, np.full(77, size, np.float32), np.r_[np.float32(3 * size), np.zeros(999, np.float32)]):
        back = through(array, Lloydmax(1))
        assert np.isfinite(back).all()
    huge = np.full(9, 1e300)
    assert huge == pytest.approx(through(huge, Lloydmax(1)))


def test_what_cannot_be_coded_or_decoded_is_refused() -> None:
    with pytest.raises(ArgumentError, match="not finite"):
        Lloydmax().encode(np.array([np.nan, 1], np.float32))
    scales, index, out = np.ones(1, np.float32), np.zeros(3, np.uint8), np.empty(3, np.float32)
    for wire, streams in (
        (LloydmaxWire(0), (scales, index)),
        (LloydmaxWire(9), (scales, index)),
        (LloydmaxWire(1, -1), (scales, index)),
        (LloydmaxWire(1, (1 << 64) - 1), (scales[:0], index)),
        (LloydmaxWire(1), (scales, index + np.uint8(2))),
        (LloydmaxWire(1), (scales * np.float32(np.nan), index)),
        (LloydmaxWire(4), (scales * np.float32(3e38), index)),
        (LloydmaxWire(1, 1), (scales, index)),
        (LloydmaxWire(1), (scales.astype("f8"), index)),
        (LloydmaxWire(1), (scales,)),
    ):
        with pytest.raises(FrameError):
            CODEC.decode(wire, streams, (), out)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_scale_is_one_that_the_decoder_takes(dtype: type) -> None:
    for bits in range(1, 9):
        x = np.full(7, np.finfo(dtype).max, dtype)
        assert np.isfinite(featherweight.decode(featherweight.encode(x, f"lloydmax({bits})"))).all()


def test_blocks_of_any_magnitude_are_told_without_a_warning() -> None:
    x = np.array([4e307, 2e149, 1e147, -1e70, 0.0, 5e-324])  # squares beside which a length overflows
    for unbiased in ("true", "false"):
        assert np.isfinite(featherweight.decode(featherweight.encode(x, f"lloydmax(1, 1, {unbiased})"))).all()

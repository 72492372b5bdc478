"""Smooth tensors: what is taken for one, and what that spares."""

import math

import numpy as np
import pytest
from hypothesis import given

import featherweight
from featherweight import recipes
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError
from featherweight.smooth import Smooth, correlation, pruned
from featherweight.stage import Smallest
from featherweight.testing import arrays


def gaussian(*shape: int, seed: int = 1) -> Array:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape).astype(np.float32)


def smoothed(rows: int, columns: int, r: float) -> Array:
    """Return rows whose neighbours are correlated by r: an autoregressive process."""
    noise = gaussian(rows, columns).astype(np.float64)
    for j in range(1, columns):
        noise[:, j] = r * noise[:, j - 1] + math.sqrt(1 - r * r) * noise[:, j]
    return noise.astype(np.float32)


@pytest.mark.parametrize("r", [0.0, 0.3, 0.9])
def test_the_correlation_of_neighbours_is_found_along_either_dimension(r: float) -> None:
    x = smoothed(300, 400, r)
    for turned in (x, x.T, x[:, None, None], -x.reshape(1, 300, 400), x.astype(np.float16)):
        assert abs(correlation(np.ascontiguousarray(turned)) - r) < 0.03


@pytest.mark.parametrize("r", [0.0, 0.5])
def test_neighbours_in_filters_are_those_of_the_filter(r: float) -> None:
    x = np.concatenate((smoothed(4096, 3, r).reshape(64, 64, 3, 1), gaussian(64, 64, 3, 2)), axis=3)
    for turned in (x[..., :1, :1], x[..., :1], x[..., 0]):
        assert abs(correlation(np.ascontiguousarray(turned)) - (r if turned.shape[2] > 1 else 0)) < 0.03
    keras = np.ascontiguousarray(x.transpose(2, 3, 1, 0))
    assert abs(correlation(keras) - correlation(x)) < 0.03


def test_neighbours_with_a_mean_in_common_are_alike() -> None:
    assert 0.85 < correlation(gaussian(100, 100) + 3) < 0.95


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0), (0, 2), (0, 2, 12), (2, 0, 3), (0, 3, 3, 3), (1, 7)])
def test_where_there_are_no_neighbours_nothing_is_alike(shape: tuple[int, ...]) -> None:
    x = np.ones(shape, np.float16)
    assert correlation(x) == 0


@given(arrays())
def test_the_correlation_of_anything_is_a_share(x: Array) -> None:
    if x.dtype.kind == "f":
        assert 0 <= correlation(x) <= 1 + 1e-9


def test_the_more_alike_neighbours_are_the_less_is_tried() -> None:
    plain, other = recipes.parse("raw"), recipes.parse("dct")
    chooser = Smooth(plain, other)
    assert chooser.choose(smoothed(128, 128, 0.05)) == plain
    assert chooser.choose(smoothed(128, 128, 0.25)) == Smallest((other, plain))
    assert chooser.choose(smoothed(128, 128, 0.8)) == other
    assert chooser.choose(smoothed(32, 128, 0.8)) == Smallest((other, plain))
    assert recipes.parse("smooth(raw, transformed=dct)") == chooser
    assert recipes.parse(recipes.text(chooser)) == chooser


def test_what_was_pruned_is_not_transformed_and_stays_pruned() -> None:
    x = smoothed(128, 128, 0.8)
    x[:40] = 0  # whole rows are not in the way
    chooser = Smooth(recipes.parse("raw"), recipes.parse("dct"))
    assert chooser.choose(x) == chooser.transformed
    x[np.abs(x) < 0.4] = 0
    assert chooser.choose(x) == chooser.recipe
    for recipe in ("tcq(step=0.2)", "ecsq(step=0.2)", "tcq(step=1.0)"):
        decoded = featherweight.decode(featherweight.encode(x, recipe))
        assert not decoded[x == 0].any()


@given(arrays())
def test_anything_is_pruned_or_not(x: Array) -> None:
    if x.dtype.kind == "f" and x.ndim > 1:
        assert pruned(x) in (True, False)
        assert not pruned(np.ones_like(x))


def test_a_selector_without_its_recipes_is_refused() -> None:
    for text in ("smooth", "smooth(raw)"):
        with pytest.raises(ArgumentError, match="two recipes"):
            recipes.parse(text + ("" if "(" in text else "()"))


def test_smooth_matrices_take_fewer_bits_at_no_more_error() -> None:
    x = smoothed(256, 512, 0.9)
    sizes, errors = [], []
    for least in (0.15, 1.0):
        inner = "levels(row=rans, column=rans, values=uniform(0.1, index=ggd(given=[row, column, place])))"
        frame = featherweight.encode(x, f"smooth({inner}, transformed=dct(coefficients={inner}), least={least})")
        sizes.append(8 * len(frame) / x.size)
        errors.append(float(np.square(featherweight.decode(frame).astype(np.float64) - x).mean()))
    # An autoregressive process spares ½ log2(1 / (1 - r²)) = 1.2 bits at most, blocks of eight most of them.
    assert 0.9 < sizes[1] - sizes[0] < 1.2
    assert errors[0] < 1.05 * errors[1]

"""k-means: against dynamic programming by brute force, scipy's k-means, and nearest neighbours by exact arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.cluster.vq import kmeans2

from featherweight import decode, dtypes, encode
from featherweight.codecs.kmeans import CODEC, KMeans, assign, fit, optimum
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Empty

pytestmark = pytest.mark.filterwarnings("error")

INITS = ("coarse", "exact", "linear", "density", "random")


def weights(n: int, kind: str = "f4", seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_t(5, n) * 0.05).astype(kind)


def error(x: Array, codebook: Array) -> float:
    """Return the squared error of the nearest entries."""
    nearest = np.abs(x.astype(np.float64)[:, None] - codebook.astype(np.float64)).min(1)
    return float((nearest**2).sum())


def brute(x: Array, k: int) -> float:
    """Return the least squared error by the plain recurrence."""
    v = np.sort(x.astype(np.float64))
    ones, twos = np.append(0, np.cumsum(v)), np.append(0, np.cumsum(v * v))
    best = np.full((k + 1, v.size + 1), np.inf)
    best[0, 0] = 0
    for m in range(1, k + 1):
        for j in range(m, v.size + 1):
            i = np.arange(m - 1, j)
            best[m, j] = np.min(best[m - 1, i] + twos[j] - twos[i] - (ones[j] - ones[i]) ** 2 / (j - i))
    return float(best[k, -1])


@pytest.mark.parametrize("k", [2, 3, 7, 16, 50])
@pytest.mark.parametrize(
    "x",
    [weights(150), np.arange(120.0), np.arange(150) // 3 * 1.0, np.append(weights(99), 9)],
    ids=["weights", "even", "repeated", "outlier"],
)
def test_exact_is_the_least_there_is(x: Array, k: int) -> None:
    x = x.astype(np.float64)
    assert error(x, fit(x, k, init="exact")) == pytest.approx(brute(x, k), rel=1e-9, abs=1e-12)
    assert optimum(x, k).excess == 0


@pytest.mark.parametrize("k", [2, 5, 16])
def test_nothing_beats_exact_and_scipy_agrees_from_the_same_start(k: int) -> None:
    x = weights(2000, "f8")
    least = error(x, fit(x, k, init="exact"))
    for init in INITS:
        assert error(x, fit(x, k, init=init)) >= least * (1 - 1e-12)
    start = np.linspace(x.min(), x.max(), k)
    theirs, _ = kmeans2(x, start.copy(), iter=200, minit="matrix", missing="warn") if k < 9 else (None, None)
    if theirs is not None:
        assert error(x, fit(x, k, init="linear", iterations=200)) == pytest.approx(error(x, theirs), rel=1e-6)


def test_a_histogram_stays_near_the_optimum_and_says_how_near() -> None:
    x = weights(100_000)
    least = error(x, fit(x, 16, init="exact"))
    assert least <= error(x, fit(x, 16)) <= least * 1.0005


def test_the_excess_beyond_many_values_bounds_the_loss() -> None:
    x = weights((1 << 20) + 5000, "f8")
    found = optimum(x, 4)
    assert 0 < found.excess < 0.01
    sample = np.sort(x)[::16]  # its exact optimum is nearly that of all
    assert error(x, found.centroids) <= error(x, optimum(sample, 4).centroids) * (1 + found.excess)


@given(st.data())
def test_assign_takes_the_nearest_and_of_two_the_lower(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["f2", "f4", "f8"]))
    width = 8 * np.dtype(kind).itemsize
    numbers = st.floats(width=width, allow_nan=False, allow_infinity=False) | st.integers(-9, 9).map(float)
    book = np.array(data.draw(st.lists(numbers, min_size=1, max_size=40)), kind)
    with np.errstate(over="ignore"):
        middles = ((book[:-1] / 2).astype("f8") + book[1:] / 2).astype(kind)
    near = [*book.tolist(), *middles[np.isfinite(middles)].tolist()]
    x = np.array([*data.draw(st.lists(numbers, max_size=20)), *near], kind)
    for value, at in zip(x.tolist(), assign(x, book).tolist(), strict=True):
        distances = [(abs(Fraction(value) - Fraction(each)), each, i) for i, each in enumerate(book.tolist())]
        assert at == min(distances)[2]


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("k", [3, 16, 17, 300, 5000])
def test_many_elements_are_assigned_as_few_are(kind: str, k: int) -> None:
    x = weights(70_000, kind)
    book = np.unique(weights(k, kind, seed=1))
    index = assign(x, book)
    assert index.dtype == (np.uint8 if book.size <= 256 else np.uint16)
    wide = book.astype(np.float64)
    right = np.clip(np.searchsorted(wide, x.astype(np.float64)), 1, wide.size - 1)
    best = np.minimum(np.abs(wide[right] - x), np.abs(wide[right - 1] - x))
    np.testing.assert_array_equal(np.abs(wide[index] - x), best)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("n", [0, 1, 50, 70_000])
def test_no_more_values_than_entries_is_lossless(init: str, n: int) -> None:
    x = (np.arange(n) % 13 - 6).astype(np.float32)
    codebook = fit(x, 16, init=init)
    np.testing.assert_array_equal(codebook, np.unique(x))
    np.testing.assert_array_equal(codebook[assign(x, codebook)], x)


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("kind", ["F32", "BF16", "F64"])
@pytest.mark.parametrize("n", [3000, 90_000])
def test_with_zero_exactly_the_zeros_are_zero(init: str, kind: str, n: int) -> None:
    x = weights(n)
    x[np.abs(x) < 0.08] = 0
    x[::7] *= -0.0
    x = x.astype(dtypes.of(kind).dtype)
    index, codebook = KMeans(8, init, zero=True).encode(x).streams
    assert codebook[0] == 0
    assert codebook.size <= 8
    np.testing.assert_array_equal(index == 0, x == 0)
    assert (np.diff(codebook[1:].astype(np.float64)) > 0).all()


@pytest.mark.parametrize("n", [5, 70_000])
def test_all_pruned_leaves_the_zero_alone(n: int) -> None:
    index, codebook = KMeans(zero=True).encode(np.zeros(n, np.float32)).streams
    assert codebook.tolist() == [0]
    assert not index.any()


def test_an_outlier_has_an_entry_of_its_own() -> None:
    x = np.append(weights(80_000), np.float32(1e30))
    codebook = fit(x, 16)
    assert codebook[-1] == x[-1]
    assert error(x[:-1], codebook[:-1]) <= 1.001 * error(x[:-1], fit(x[:-1], 15))


def test_huge_and_tiny_f64() -> None:
    for scale in (1e306, 5e-324):
        x = np.arange(-90.0, 90) * scale
        assert np.isfinite(fit(x, 4)).all()
        assert fit(x, 4).size == 4


def test_a_given_codebook_may_be_unsorted_and_repeat_itself() -> None:
    book = np.array([3, 1, 1, -2, 3], np.float32)
    x = np.array([[0.9, 2.5], [-9, 2]], np.float32)
    assert assign(x, book).tolist() == [[1, 0], [3, 1]]
    frame = encode(x, "kmeans(given=@book)", refs={"book": book})
    assert decode(frame, refs={"book": book}).tolist() == [[1, 3], [-2, 1]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(wrong: float) -> None:
    good, bad = np.ones(3, np.float32), np.array([1, wrong, 2], np.float32)
    for x, books in ((bad, ()), (bad, (good,)), (good, (bad,))):
        with pytest.raises(ArgumentError, match="not finite"):
            KMeans().encode(x, *books)
    with pytest.raises(FrameError, match="not finite"):
        CODEC.decode(Empty(), (np.zeros(3, np.uint8), bad), (), np.empty(3, np.float32))


def test_codebooks_that_do_not_fit_are_refused() -> None:
    x = np.ones(3, np.float32)
    for book in (np.ones(2), np.ones((2, 1), np.float32), np.ones(0, np.float32)):
        with pytest.raises(ArgumentError, match="codebook"):
            assign(x, book)
    with pytest.raises(ArgumentError, match="must be 0"):
        assign(x, x, zero=True)


@pytest.mark.parametrize("index", [np.full(3, 2, np.uint8), np.zeros(4, np.uint8), np.zeros(3, np.uint32)])
def test_an_index_past_the_codebook_or_of_another_form_is_an_error(index: Array) -> None:
    with pytest.raises(FrameError, match="index"):
        CODEC.decode(Empty(), (index, np.ones(2, np.float32)), (), np.empty(3, np.float32))


def test_one_codebook_is_needed_and_no_second() -> None:
    book = np.ones(2, np.float32)
    for streams, given_ in (((), ()), ((book,), (book,))):
        with pytest.raises(FrameError, match="one codebook"):
            CODEC.decode(Empty(), (np.zeros(3, np.uint8), *streams), given_, np.empty(3, np.float32))


def test_seeds_draw_different_starts() -> None:
    x = weights(3000)
    books = {fit(x, 8, init="random", iterations=0, seed=seed).tobytes() for seed in range(4)}
    assert len(books) == 4

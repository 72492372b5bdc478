"""Pruning: what goes, exactly, whatever the weights are."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight import dtypes, engine, recipes
from featherweight.codecs._kernels import prune as kernels
from featherweight.errors import ArgumentError
from featherweight.kernel import Kernel
from featherweight.prune import Prune, masks, norms, threshold_for
from featherweight.stage import Rewrite, chain

Array = np.ndarray[Any, np.dtype[Any]]
FLOATS = [row for row in dtypes.all_types() if row.kind == "f" and row.mantissa]


def weights(row: dtypes.ElementType, shape: tuple[int, ...], seed: int = 0, ties: bool = False) -> Array:
    rng = np.random.default_rng(seed)
    values = np.asarray(rng.standard_normal(shape)) * 0.5
    if ties:
        values = np.rint(values * 2) / 2
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(row.dtype)


def expected(x: Array, count: int) -> Array:
    """Return the array with the first `count` by magnitude, then position, set to zero."""
    flat = x.reshape(-1).copy()
    flat[np.argsort(np.abs(flat.astype(np.float64)), kind="stable")[:count]] = 0
    return flat.reshape(x.shape)


def same_bits(x: Array, y: Array) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


@st.composite
def floats(draw: st.DrawFn) -> Array:
    row = draw(st.sampled_from(FLOATS))
    shape = draw(st.lists(st.integers(0, 9), max_size=4).map(tuple))
    return weights(row, shape, draw(st.integers(0, 2**32)), draw(st.booleans()))


def test_prune_is_a_rewrite() -> None:
    assert isinstance(Prune(), Rewrite)


@given(floats(), st.floats(0, 1))
def test_a_share_goes_exactly_and_of_equals_the_first(x: Array, sparsity: float) -> None:
    x.flags.writeable = False
    assert same_bits(expected(x, round(sparsity * x.size)), Prune(sparsity).rewrite(x))


@given(floats(), st.floats(0, 3))
def test_a_threshold_takes_all_up_to_it(x: Array, threshold: float) -> None:
    pruned = np.where(np.abs(x.astype(np.float64)) <= threshold, np.zeros((), x.dtype), x)
    assert same_bits(pruned, Prune(threshold=threshold).rewrite(x))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_threshold_is_not_rounded_up(dtype: Any) -> None:
    near = np.array([0.1], dtype)
    beside = np.array([np.nextafter(near[0], dtype(0)), near[0], np.nextafter(near[0], dtype(1))])
    kept = Prune(threshold=0.1).rewrite(beside) != 0
    assert (beside.astype(np.float64) > 0.1).tolist() == kept.tolist()


def test_a_threshold_above_all_takes_all() -> None:
    x = np.array([1.0, -3e38], np.float32)
    assert not Prune(threshold=1e300).rewrite(x).any()


def test_quality_counts_standard_deviations() -> None:
    x = weights(dtypes.of("F32"), (40, 50))
    assert same_bits(
        np.where(np.abs(x) <= 0.75 * x.astype(np.float64).std(), np.float32(0), x), Prune(quality=0.75).rewrite(x)
    )


def test_what_nothing_is_said_about_loses_nine_tenths() -> None:
    assert np.count_nonzero(Prune().rewrite(np.arange(1.0, 101.0))) == 10


@pytest.mark.parametrize("row", FLOATS, ids=lambda row: row.name)
def test_outliers_denormals_and_signed_zeros(row: dtypes.ElementType) -> None:
    import ml_dtypes

    info = ml_dtypes.finfo(row.dtype)
    x = np.array([info.max, 0.0, -0.0, info.smallest_subnormal, -1.0, info.min], row.dtype)
    pruned = Prune(0.5).rewrite(x)
    assert same_bits(np.array([info.max, 0, 0, 0, -1, info.min], row.dtype), pruned)
    for stage in (Prune(0.0), Prune(structure="n:m", n=4, m=4)):
        assert same_bits(x, stage.rewrite(x))
    assert not Prune(1.0).rewrite(x).any()
    assert not np.frombuffer(Prune(1.0).rewrite(x).tobytes(), np.uint8).any()


def test_huge_numbers_have_a_deviation_and_norms() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = np.array([[1e300, -1e300], [1e-300, 1.0]])
        assert Prune(quality=1e-3).rewrite(x).tolist() == [[1e300, -1e300], [0, 0]]
        assert norms(x, "rows")[0] == pytest.approx(1e300)
        single = np.array([[1e30, 1, 2, 3]], np.float32)
        assert Prune(0.5).rewrite(single).tolist() == [[float(np.float32(1e30)), 0, 0, 3]]


def test_equal_weights_and_no_weights() -> None:
    assert Prune(0.5).rewrite(np.full((2, 3), -2.0)).tolist() == [[0, 0, 0], [-2, -2, -2]]
    assert Prune(quality=1.0).rewrite(np.full(4, 0.5)).tolist() == [0.5] * 4  # they deviate by nothing
    for structure in ("rows", "filters", "columns", "channels", "n:m"):
        for shape in ((0, 3), (3, 0), (3, 4, 0), (0, 4, 2)):
            assert Prune(structure=structure).rewrite(np.zeros(shape, np.float32)).shape == shape
    assert Prune(quality=1.0).rewrite(np.zeros(0)).size == 0
    assert Prune().rewrite(np.array(3.0)) == 0  # round(0.9) of one


# Structures


@given(floats(), st.sampled_from(["rows", "filters", "columns", "channels"]), st.sampled_from(["l1", "l2"]))
def test_norms_of_groups(x: Array, structure: str, norm: str) -> None:
    if x.ndim < 2:
        with pytest.raises(ArgumentError, match="two dimensions"):
            norms(x, structure, norm)
        return
    axes = {"columns": (0,), "channels": (0, *range(2, x.ndim))}.get(structure, tuple(range(1, x.ndim)))
    values = x.astype(np.float64)
    if not x.size:
        assert not norms(x, structure, norm).any()
        return
    exact = np.abs(values).mean(axes, keepdims=True) if norm == "l1" else np.sqrt((values**2).mean(axes, keepdims=True))
    found = norms(x, structure, norm)
    assert found.shape == exact.shape
    np.testing.assert_allclose(exact, found, rtol=1e-12)


@given(floats(), st.floats(0, 1), st.sampled_from(["rows", "filters", "columns", "channels"]))
def test_groups_go_whole(x: Array, sparsity: float, structure: str) -> None:
    if x.ndim < 2:
        return
    stage = Prune(sparsity, structure=structure)
    keep, measured = stage.mask(x), norms(x, structure)
    assert np.count_nonzero(~keep) == round(sparsity * measured.size)
    if keep.any() and not keep.all():
        assert measured[~keep].max() <= measured[keep].min()
    assert same_bits(np.where(keep, x, np.zeros((), x.dtype)), stage.rewrite(x))


def test_rows_and_columns_by_threshold_and_by_large_blocks() -> None:
    x = np.ones((700, 900), np.float32)
    x[::3] = 0.25
    assert np.array_equal(Prune(threshold=0.25, structure="rows").rewrite(x), np.where(x < 1, 0, x))
    assert np.array_equal(
        Prune(threshold=0.25, structure="columns").rewrite(np.ascontiguousarray(x.T)), np.where(x < 1, 0, x).T
    )
    assert np.array_equal(Prune(quality=0.9, structure="rows", norm="l1").rewrite(x), np.where(x < 1, 0, x))


def test_filters_and_channels_of_a_convolution() -> None:
    x = np.ones((4, 3, 2, 2), np.float32)
    x[1], x[:, 2] = 0.5, 0.25
    assert np.array_equal(Prune(0.25, structure="filters").mask(x).reshape(-1), [True, False, True, True])
    assert np.array_equal(Prune(1 / 3, structure="channels").mask(x).reshape(-1), [True, True, False])


def best(group: Array, n: int) -> Array:
    kept = np.zeros(group.size, np.bool_)
    kept[np.argsort(np.abs(group.astype(np.float64)), kind="stable")[max(0, group.size - n) :]] = True
    return kept


@given(floats(), st.integers(1, 5), st.integers(1, 5))
def test_n_of_m(x: Array, n: int, m: int) -> None:
    n, m = min(n, m), max(n, m)
    pruned = Prune(structure="n:m", n=n, m=m).rewrite(x)
    axis = min(1, x.ndim - 1)
    flat = x.reshape(1, 1) if x.ndim == 0 else np.moveaxis(x, axis, -1)
    keep = np.ones(flat.shape, np.bool_)
    for index in np.ndindex(flat.shape[:-1]):
        for start in range(0, flat.shape[-1], m):
            keep[(*index, slice(start, start + m))] = best(flat[(*index, slice(start, start + m))], n)
    keep = keep.reshape(()) if x.ndim == 0 else np.moveaxis(keep, -1, axis)
    assert same_bits(np.where(keep, x, np.zeros((), x.dtype)), pruned)


def test_two_of_four_over_many_blocks() -> None:
    x = weights(dtypes.of("F32"), (1500, 400))
    pruned = Prune(structure="n:m").rewrite(x)
    groups = np.abs(x).reshape(-1, 4)
    assert np.array_equal(np.count_nonzero(pruned.reshape(-1, 4), axis=1), np.full(len(groups), 2))
    assert np.array_equal(np.abs(pruned).reshape(-1, 4).sum(1), np.sort(groups, axis=1)[:, 2:].sum(1))


# Masks from outside


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint32, dtypes.of("I4").dtype])
def test_a_mask_says_what_stays(dtype: Any) -> None:
    x = weights(dtypes.of("BF16"), (4, 5))
    mask = (np.arange(20).reshape(4, 5) % 3).astype(dtype)
    assert same_bits(np.where(mask.astype(np.int64) != 0, x, np.zeros((), x.dtype)), Prune().rewrite(x, mask))
    rows = np.array([[1], [0], [1], [0]]).astype(dtype)
    assert not Prune().rewrite(x, rows)[1::2].any()


def test_masks_that_do_not_fit() -> None:
    x = np.ones((3, 4), np.float32)
    with pytest.raises(ArgumentError, match="mask of"):
        Prune().rewrite(x, np.ones((4, 3), np.bool_))
    with pytest.raises(ArgumentError, match="mask of"):
        Prune().rewrite(x, np.ones((2, 3, 4), np.bool_))
    with pytest.raises(ArgumentError, match="leave the parameters out"):
        Prune(0.5).rewrite(x, np.ones((3, 4), np.bool_))


# Whole networks


@given(st.lists(floats(), max_size=4), st.floats(0, 1))
def test_one_choice_over_many_tensors(arrays: list[Array], sparsity: float) -> None:
    tensors = {str(i): x for i, x in enumerate(arrays)}
    values = np.concatenate([np.zeros(0), *(x.reshape(-1).astype(np.float64) for x in arrays)])
    count = round(sparsity * values.size)
    kept = np.ones(values.size, np.bool_)
    kept[np.argsort(np.abs(values), kind="stable")[:count]] = False
    found = masks(tensors, sparsity)
    assert [x.shape for x in arrays] == [found[name].shape for name in tensors]
    assert np.array_equal(kept, np.concatenate([np.zeros(0, np.bool_), *(found[n].reshape(-1) for n in tensors)]))
    threshold = threshold_for(tensors, sparsity)
    assert threshold == (np.sort(np.abs(values))[count - 1] if count else 0)
    for x in arrays:
        above = np.abs(x.astype(np.float64)) > threshold
        assert np.array_equal(Prune(threshold=threshold).rewrite(x) != 0, above)


def test_masks_of_groups_over_many_tensors() -> None:
    tensors = {"a": np.ones((4, 3)), "b": np.full((2, 7), 0.5)}
    keep = masks({name: norms(x, "rows") for name, x in tensors.items()}, 0.5)
    assert (keep["a"].reshape(-1).tolist(), keep["b"].reshape(-1).tolist()) == ([False, True, True, True], [False] * 2)
    assert Prune().rewrite(tensors["a"], keep["a"]).sum() == 9


def test_a_mapping_may_load_what_it_is_asked_for() -> None:
    class Lazy(dict[str, Array]):
        def __getitem__(self, name: str) -> Array:
            return weights(dtypes.of("F32"), (300, 1000), int(name))

    lazy = Lazy({str(i): np.zeros(0) for i in range(3)})
    whole = np.concatenate([lazy[name].reshape(-1) for name in lazy])
    assert threshold_for(lazy, 0.75) == np.sort(np.abs(whole))[round(0.75 * whole.size) - 1]


# Refusals


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    for dtype in (np.float16, np.float32, np.float64, dtypes.of("BF16").dtype, dtypes.of("F8_E5M2").dtype):
        x = np.array([[1.0, bad]]).astype(dtype)
        for stage in (Prune(), Prune(threshold=1.0), Prune(structure="rows"), Prune(structure="n:m")):
            with pytest.raises(ArgumentError, match="not finite"):
                stage.rewrite(x)
        with pytest.raises(ArgumentError, match="not finite"):
            threshold_for({"x": x}, 0.5)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.bool_, np.complex64, dtypes.of("F8_E8M0").dtype])
def test_what_cannot_be_pruned_is_refused(dtype: Any) -> None:
    with pytest.raises(ArgumentError, match="code it with lossless"):
        Prune().rewrite(np.ones((2, 2), dtype))


@pytest.mark.parametrize(
    "arguments",
    [
        {"sparsity": 1.5},
        {"sparsity": float("nan")},
        {"threshold": -1.0},
        {"sparsity": 0.5, "threshold": 0.1},
        {"quality": 1.0, "threshold": 0.1},
        {"structure": "n:m", "sparsity": 0.5},
        {"structure": "blocks"},
        {"n": 5, "m": 4},
        {"n": 0},
        {"norm": "l3"},
    ],
)
def test_parameters_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError):
        Prune(**arguments)


def test_functions_refuse_too() -> None:
    with pytest.raises(ArgumentError, match="sparsity"):
        masks({}, 1.1)
    with pytest.raises(ArgumentError, match="groups are"):
        norms(np.ones((2, 2)), "n:m")


# In recipes


@pytest.mark.parametrize(
    "stage",
    [Prune(), Prune(0.5), Prune(threshold=1), Prune(quality=0.5, structure="rows"), Prune(structure="n:m", n=1, m=8)],
)
def test_text_and_repr(stage: Prune) -> None:
    text = recipes.text(chain(stage))
    assert recipes.parse(text) == chain(stage)
    assert eval(repr(stage)) == stage


@pytest.mark.parametrize(
    "text",
    [
        "prune(0.75, values=sparse(mask=bitpack))",
        "prune(threshold=0.4, values=gaps(4, gaps=bitpack, values=planes))",
        "prune(structure='n:m', values=sparse(mask=bitpack, values=planes))",
        "prune(given=@mask, values=sparse(values=planes))",
    ],
)
def test_decoding_gives_what_was_pruned(text: str) -> None:
    x = weights(dtypes.of("F32"), (48, 64))
    refs = {"mask": np.arange(64, dtype=np.uint8) % 2}
    frame = engine.encode(x, text, refs=refs if "@" in text else {})
    recipe = recipes.parse(text)
    pruned = recipe.stage.rewrite(x, *([refs["mask"]] if "@" in text else []))  # type: ignore[union-attr]
    assert same_bits(pruned, engine.decode(frame))  # the mask is not asked for


def test_kernels_compiled_and_as_python() -> None:
    rng = np.random.default_rng(5)
    for size in (4, 8):
        words = rng.integers(0, 1 << 18, 500).astype(f"u{size}")
        results = []
        for run in (lambda k: k, lambda k: k.python):
            counts, keep, best_ = np.zeros(1 << 16, np.uint64), np.empty(500, np.uint8), np.empty(500, np.uint8)
            table: tuple[dict[int, Kernel], ...] = (kernels.COUNT, kernels.MARK, kernels.BEST)
            count, mark, choose = (run(each[size]) for each in table)
            count(words, np.uint64(1), np.uint64(0), counts)
            left = mark(words, np.uint64(words[7]), 0, keep)
            choose(words, 50, 2, 4, best_)
            results.append((int(left), counts.tobytes(), keep.tobytes(), best_.tobytes()))
        assert results[0] == results[1]

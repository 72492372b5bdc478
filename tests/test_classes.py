"""Classes of elements: whatever levels broadcast, as if all of them had been added up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from featherweight.codecs._classes import Classes
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError

DTYPES = st.sampled_from(("u1", "i1", "u2", "i8"))


@st.composite
def levels(draw: st.DrawFn) -> tuple[tuple[Array, ...], tuple[int, ...]]:
    """Draw up to two arrays that broadcast to a shape, and the shape."""
    shape = draw(
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=40).filter(lambda s: np.prod(s) < 20_000)
    )
    masks = draw(st.lists(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)), max_size=3))
    found = []
    for mask in masks:
        own = tuple(n if keep else 1 for n, keep in zip(shape, mask, strict=True))
        found.append(draw(hnp.arrays(draw(DTYPES), own)))
    return tuple(found), shape


@given(levels(), st.integers(0, 255), st.integers(1, 32), st.sampled_from((1, 2)))
def test_classes_are_sums(
    drawn: tuple[tuple[Array, ...], tuple[int, ...]], low: int, count: int, quantizers: int
) -> None:
    given_, shape = drawn
    total = np.zeros(shape, np.int64)
    for each in given_:
        total = total + each.astype(np.uint8)
    expected = (total % 256).astype(np.uint8).reshape(-1)
    classes = Classes.of(given_, shape, FrameError)
    np.testing.assert_array_equal(expected, classes.each())
    np.testing.assert_array_equal(np.bincount(expected, minlength=256), classes.counted())
    high, out = min(low + count - 1, 255), np.empty(expected.size, np.uint8)
    classes.tables(low, high, quantizers, out)
    np.testing.assert_array_equal((np.clip(expected, low, high) - low).astype(np.int64) * quantizers % 256, out)


@pytest.mark.parametrize("error", [ArgumentError, FrameError])
def test_what_does_not_broadcast_is_refused(error: type[ArgumentError | FrameError]) -> None:
    with pytest.raises(error, match=r"classes \[3, 1\] and \[1, 5\] do not broadcast to \[3, 4\]"):
        Classes.of((np.zeros((3, 1), np.uint8), np.zeros((1, 5), np.uint8)), (3, 4), error)

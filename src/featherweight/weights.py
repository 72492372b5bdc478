"""`weights`: the selector that keeps lossy recipes to the tensors they are made for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featherweight import dtypes
from featherweight.auto import Auto
from featherweight.codecs._kernels import _floats
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError
from featherweight.stage import AnyRecipe, Split, check_params, param

__all__ = ["Weights", "finite", "weight"]

_LEAST, _MOST = 1e-140, 1e140


@dataclass(frozen=True)
class Weights:
    """Code floats of two dimensions or more with `recipe`, and whatever must not be spoilt with `other` or `vectors`.

    That is: biases, norms and other tensors of fewer dimensions, integers and booleans, complex numbers, scales
    (F8_E8M0), and tensors that hold a NaN or an infinity, or f64 whose squares would be 0 or infinite.
    """

    recipe: AnyRecipe = param(None, doc="for floats of two dimensions or more, all finite", recipe=True)  # noqa: RUF009
    other: AnyRecipe = param(Split(Auto("small")), doc="for all else", recipe=True)  # noqa: RUF009
    vectors: AnyRecipe = param(  # noqa: RUF009
        Split(Auto("small")), doc="for floats of one dimension, all finite", recipe=True
    )

    def __post_init__(self) -> None:
        check_params(self)
        if self.recipe is None:
            raise ArgumentError("weights needs a recipe: weights(tcq)")

    def choose(self, x: Array, /) -> AnyRecipe:
        """Return the recipe for this array."""
        if weight(x):
            return self.recipe
        return self.vectors if x.ndim == 1 and weight(x[None]) else self.other


def weight(x: Array) -> bool:
    """Return whether an array is one that lossy recipes are for."""
    return x.ndim >= 2 and dtypes.of(x.dtype).kind == "f" and dtypes.of(x.dtype).name != "F8_E8M0" and _measurable(x)


def _measurable(x: Array) -> bool:
    """Return whether all elements are finite, and squares of them neither vanish nor overflow."""
    if x.dtype != np.float64:
        return finite(x)
    most = _floats.biggest(x.reshape(-1))
    return most == 0 or _LEAST <= most <= _MOST


def finite(x: Array) -> bool:
    """Return whether no element is a NaN or an infinity."""
    flat, step = x.reshape(-1), 1 << 20
    return all(_floats.is_finite(flat[start : start + step]) for start in range(0, flat.size, step))

"""`smooth`: the selector that transforms tensors whose neighbours are alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _filters, _floats
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError
from featherweight.stage import AnyRecipe, Smallest, check_params, param

__all__ = ["Smooth", "correlation", "pruned"]

_SAMPLE = 1 << 14  # elements that tell
_MANY = 1 << 13  # elements of few channels, or of filters for each channel, may lose by a transform however alike


@dataclass(frozen=True)
class Smooth:
    """Where neighbours are alike, code with `transformed` if that comes out smaller; else with `recipe`.

    Such are most filters, and layers next to a spectrogram or an image, whose weights change little from one band or
    pixel to the next. Of neighbours correlated by r a transform spares up to -½ log2(1 - r²) bits a weight in each
    dimension: where that is much, and there are weights enough to learn their scales from, `recipe` is not tried. What
    was pruned stays pruned: an array with many zeros is not transformed.
    """

    recipe: AnyRecipe = param(None, doc="for all others", recipe=True)  # noqa: RUF009
    transformed: AnyRecipe = param(None, doc="for those, if it is smaller", recipe=True)  # noqa: RUF009
    least: float = param(0.2, lo=0.0, hi=1.0, doc="correlation of neighbours from which on both are tried")
    sure: float = param(0.3, lo=0.0, hi=1.0, doc="correlation from which on only `transformed` is, of many elements")

    def __post_init__(self) -> None:
        check_params(self)
        if self.recipe is None or self.transformed is None:
            raise ArgumentError("smooth needs two recipes: smooth(raw, transformed=dct)")

    def choose(self, x: Array, /) -> AnyRecipe:
        """Return the recipe for this array."""
        alike = correlation(x)
        if alike < self.least or pruned(x):
            return self.recipe
        if alike >= self.sure and x.size >= _MANY:
            return self.transformed
        return Smallest((self.transformed, self.recipe))


def correlation(x: Array) -> float:
    """Return the correlation of neighbours along one or another dimension of a float array, the larger one.

    In filters these are the filters' own, else the first and all others together, lengths of 1 left out. Means are not
    taken off: neighbours with a mean in common are alike. 0 where there are none.
    """
    where = _filters.place(x.shape)
    if where is not None:
        filters = x if where == "last" else x.transpose(*range(x.ndim - 1, -1, -1))
        some = np.ascontiguousarray(filters[:: max(1, x.size // _SAMPLE)])
        row = some.shape[-1]
        runs = [(row, 1)] if x.ndim < 4 else [(row, 1), (some.shape[-2] * row, row)]
        flat = _floats.wide(some)
        return max(_correlation(*_floats.neighbours(flat, *run)) for run in runs)
    shape = [n for n in x.shape if n > 1]
    if len(shape) < 2:
        return 0.0
    matrix = x.reshape(shape[0], -1)
    rows, columns = matrix.shape
    wide = slice(0, columns, max(1, columns // (_SAMPLE // 16)))
    some = np.arange(0, rows - 1, max(1, rows * min(columns, _SAMPLE // 16) // _SAMPLE))
    across = _floats.neighbours(_floats.wide(matrix[some]), columns, 1)
    one, other = (_floats.wide(matrix[which, wide]) for which in (some, some + 1))
    down = _floats.dot(one, other), _floats.dot(one, one), _floats.dot(other, other)
    return max(_correlation(*across), _correlation(*down))


def pruned(x: Array) -> bool:
    """Return whether a quarter or more are zeros, as a sample tells, beside those of rows of nothing else."""
    if dtypes.of(x.dtype).kind == "f" and (not x.size or _floats.glance(x)[0] >= 0.75):  # soon told, and so of most
        return False
    rows = x.reshape(-1, x.shape[-1] if x.ndim and x.size else 1)
    rows = rows[:: max(1, x.size // _SAMPLE)]
    rows = rows[rows.any(1)]
    return bool(4 * np.count_nonzero(rows) < 3 * rows.size)


def _correlation(product: float, one: float, other: float) -> float:
    with np.errstate(all="ignore"):
        found = product / np.sqrt(one * other)
    return abs(float(found)) if np.isfinite(found) else 0.0

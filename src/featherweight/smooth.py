"""`smooth`: the selector that transforms tensors whose neighbours are alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featherweight.dtypes import Array
from featherweight.errors import ArgumentError
from featherweight.stage import AnyRecipe, Smallest, check_params, param

__all__ = ["Smooth", "correlation"]

_SAMPLE = 1 << 16  # elements that tell


@dataclass(frozen=True)
class Smooth:
    """Where neighbours are alike, code with `transformed` if that comes out smaller; else with `recipe`.

    Such are layers next to a spectrogram or an image, whose weights change little from one band or pixel to the next.
    Of neighbours correlated by r a transform spares up to -½ log2(1 - r²) bits a weight.
    """

    recipe: AnyRecipe = param(None, doc="for all others", recipe=True)  # noqa: RUF009
    transformed: AnyRecipe = param(None, doc="for those, if it is smaller", recipe=True)  # noqa: RUF009
    least: float = param(0.15, lo=0.0, hi=1.0, doc="correlation of neighbours from which on both are tried")

    def __post_init__(self) -> None:
        check_params(self)
        if self.recipe is None or self.transformed is None:
            raise ArgumentError("smooth needs two recipes: smooth(raw, transformed=dct)")

    def choose(self, x: Array, /) -> AnyRecipe:
        """Return the recipe for this array."""
        return Smallest((self.transformed, self.recipe)) if correlation(x) >= self.least else self.recipe


def correlation(x: Array) -> float:
    """Return the correlation of neighbours along the first or the other dimensions of a float array, the larger one.

    Lengths of 1 are left out, and so are means: neighbours with a mean in common are alike. 0 where there are none.
    """
    shape = [n for n in x.shape if n > 1]
    if len(shape) < 2:
        return 0.0
    matrix = x.reshape(shape[0], -1)
    rows, columns = matrix.shape
    wide = slice(0, columns, max(1, columns // (_SAMPLE // 16)))
    some = np.arange(0, rows - 1, max(1, rows * min(columns, _SAMPLE // 16) // _SAMPLE))
    return max(_alike(matrix[some, :-1], matrix[some, 1:]), _alike(matrix[some, wide], matrix[some + 1, wide]))


def _alike(a: Array, b: Array) -> float:
    with np.errstate(all="ignore"):
        one, other = a.astype(np.float64), b.astype(np.float64)
        both = float((one * other).sum())
        found = both / np.sqrt(float(np.square(one).sum()) * float(np.square(other).sum()))
    return abs(float(found)) if np.isfinite(found) else 0.0

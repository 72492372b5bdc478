"""What lossy coding costs: squared errors and the largest, of arrays, of tensors together, and in decibels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _floats
from featherweight.dtypes import Array

__all__ = ["Error", "decibels", "joined", "measured", "over"]

_BLOCK = 1 << 16  # elements that are measured at a time: they stay in the cache


class Error(NamedTuple):
    """What lossy coding costs: sum of the squared errors, sum of the squares, largest absolute error."""

    noise: float = 0.0
    signal: float = 0.0
    largest: float = 0.0

    def __add__(self, other: Error) -> Error:  # type: ignore[override]
        """Join the errors of two parts."""
        return Error(self.noise + other.noise, self.signal + other.signal, max(self.largest, other.largest))

    @property
    def nmse(self) -> float:
        """Noise over signal."""
        return over(self.noise, self.signal)


def joined(errors: Iterable[tuple[int, Error | None]]) -> Error:
    """Join the errors of tensors, each with its dimensions, as goals count them.

    Those of two dimensions or more make it up, if there are any, be they exact; but for the largest, which is that of
    all.
    """
    vectors, matrices, any_matrices = Error(), Error(), False
    for dimensions, error in errors:
        any_matrices = any_matrices or dimensions > 1
        if error is not None and dimensions > 1:
            matrices += error
        elif error is not None:
            vectors += error
    return (matrices if any_matrices else vectors)._replace(largest=max(vectors.largest, matrices.largest))


def over(noise: float, signal: float) -> float:
    """Return the normalised error: no noise is none of any signal."""
    return noise / signal if signal else math.inf if noise else 0.0


def decibels(nmse: float) -> float:
    """Return the ratio of signal to noise."""
    if math.isnan(nmse):
        return nmse
    return math.inf if nmse == 0 else -math.inf if nmse == math.inf else -10 * math.log10(nmse) + 0.0


def measured(x: Array, decoded: Array) -> Error:
    """Return the error of an array of any type: block by block, so that few wide numbers are in memory."""
    left, right, total = x.reshape(-1), decoded.reshape(-1), Error()
    kind = dtypes.of(x.dtype).kind
    for start in range(0, x.size, _BLOCK):
        a, b = left[start : start + _BLOCK], right[start : start + _BLOCK]
        with np.errstate(all="ignore"):
            if kind == "f":
                total += Error(*_floats.apart(_floats.wide(a), _floats.wide(b)))
                continue
            wide = a.astype(np.complex128 if kind == "c" else np.float64)
            d = b.astype(wide.dtype) - wide
            noise, signal = (_floats.dot(each, each) for each in (d.view(np.float64), wide.view(np.float64)))
            total += Error(noise, signal, float(np.abs(d).max()))
    return total

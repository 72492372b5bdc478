"""Powers of two that keep sums and products of floats in range, whatever the magnitudes were."""

from __future__ import annotations

import math

import numpy as np

from featherweight.codecs._kernels import _floats
from featherweight.dtypes import Array

__all__ = ["MOST", "exponent", "restore", "scaled"]

MOST = 2.0**90
"""What no stream of a linear transform exceeds; sums of up to 2^36 such numbers are finite in f32."""

_SAFE = 60


def exponent(most: float) -> int:
    """Return the power of two to divide by where `most` is the largest magnitude: 0 unless it is extreme."""
    if most == 0 or 2.0**-_SAFE <= most <= 2.0**_SAFE:
        return 0
    return math.frexp(most)[1]


def scaled(values: Array, power: int) -> Array:
    """Return a copy of `values`, times 2^power."""
    return np.ldexp(values, power) if power else values.copy()


def restore(values: Array, power: int, out: Array) -> None:
    """Multiply flat `values` by 2^power in place, and round them to `out`, which may be where they are."""
    if power:
        with np.errstate(over="ignore", under="ignore"):
            np.ldexp(values, power, out=values)
        top = values.dtype.type(_floats.limit(values.dtype))
        np.clip(values, -top, top, out=values)
    flat = out.reshape(-1)
    if not np.shares_memory(values, flat):
        _floats.round_into(values, flat)

"""Sums of magnitudes over rows and columns, weighted by the other's scale."""

from __future__ import annotations

from typing import Any

from numpy import float32, float64

from featherweight.codecs._kernels._primitives import TOGETHER, added
from featherweight.kernel import kernel

__all__ = ["column_sums", "row_sums"]


@kernel("void(f4[r], f4[r], f4[w])")
def column_sums(x: Any, scales: Any, sums: Any) -> None:
    """Add |x| · scales[row] to the `sums` of the columns."""
    for i in range(scales.size):
        row, scale = x[i * sums.size : (i + 1) * sums.size], scales[i]
        for j in range(sums.size):
            sums[j] += abs(row[j]) * scale


@kernel("void(f4[r], f4[r], f4[w], f8[w])")
def row_sums(x: Any, scales: Any, some: Any, sums: Any) -> None:
    """Fill `sums` with those of |x| · scales[column] over the rows; `some` (TOGETHER) is scratch."""
    width = scales.size
    for i in range(sums.size):
        total = float64(0)
        for start in range(0, width, TOGETHER):
            row, scale = x[i * width + start : (i + 1) * width], scales[start:]
            count = min(TOGETHER, width - start)
            for j in range(count):
                some[j] = abs(row[j]) * scale[j]
            for j in range(count, TOGETHER):
                some[j] = float32(0)
            total += float64(added(some))
        sums[i] = total

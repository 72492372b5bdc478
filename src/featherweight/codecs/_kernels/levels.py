"""Sums of magnitudes over rows and columns, weighted by the other's scale."""

from __future__ import annotations

from typing import Any

from numpy import float32, float64

from featherweight.kernel import kernel

__all__ = ["column_sums", "row_sums"]


@kernel("void(f4[r], f4[r], f4[w])")
def column_sums(x: Any, scales: Any, sums: Any) -> None:
    """Add |x| · scales[row] to the `sums` of the columns."""
    for i in range(scales.size):
        row, scale = x[i * sums.size : (i + 1) * sums.size], scales[i]
        for j in range(sums.size):
            sums[j] += abs(row[j]) * scale


@kernel("void(f4[r], f4[r], f8[w])")
def row_sums(x: Any, scales: Any, sums: Any) -> None:
    """Fill `sums` with those of |x| · scales[column] over the rows; sixteen sums go side by side."""
    width = scales.size
    for i in range(sums.size):
        row, total = x[i * width : (i + 1) * width], float64(0)
        for start in range(0, width, 256):
            a = b = c = d = float32(0)
            stop = min(start + 256, width)
            j = start
            while j + 4 <= stop:
                a += abs(row[j]) * scales[j]
                b += abs(row[j + 1]) * scales[j + 1]
                c += abs(row[j + 2]) * scales[j + 2]
                d += abs(row[j + 3]) * scales[j + 3]
                j += 4
            while j < stop:
                a += abs(row[j]) * scales[j]
                j += 1
            total += float64((a + b) + (c + d))
        sums[i] = total

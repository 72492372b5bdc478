"""The sums behind row and column levels; elements that are 0 take no part."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel


@kernel("void(u1[r], i8[w], i8[w])")
def column_sums(values: Any, sums: Any, counts: Any) -> None:
    """Add up every column and count its elements; `sums` and `counts` come as zeros."""
    for start in range(0, values.size, sums.size):
        row = values[start : start + sums.size]
        for j in range(row.size):
            sums[j] += np.int64(row[j])
            counts[j] += np.int64(row[j] != 0)


@kernel("void(u1[r], i8, i8[r], i8[w], i8[w])")
def row_sums(values: Any, resolution: Any, level: Any, sums: Any, counts: Any) -> None:
    """Add up `resolution` times the elements less the level of their column."""
    for i in range(sums.size):
        row = values[i * level.size : (i + 1) * level.size]
        total = count = np.int64(0)
        for j in range(row.size):
            there = np.int64(row[j] != 0)
            total += resolution * np.int64(row[j]) - there * level[j]
            count += there
        sums[i] = total
        counts[i] = count

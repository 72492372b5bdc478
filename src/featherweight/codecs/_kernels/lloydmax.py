"""The loops of quantizing to given centroids.

Sums run in 64 rows, which are added at the end: always in the same order, and many at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel, primitive

__all__ = ["CELLS", "FIND", "LOOK_UP", "REACH", "ROOM", "SQUARES", "TILE"]

ROOM = 128
CELLS = 2048
REACH = 5.0
"""The grid has CELLS cells from -REACH to REACH, none with two middles of centroids in it."""

_ROWS = 64
TILE = 1024
_FEW = 16  # comparing with so many is faster than the grid
_0 = np.float64(0)


@primitive
def _total(rows: Any) -> Any:
    total = np.float64(0)
    for j in range(rows.size):
        total += rows[j]
    return total


def _squares(x: Any, lengths: Any, room: Any, out: Any) -> None:
    """Sum the squares of each block."""
    start: Any = 0
    rows = room[0:_ROWS]
    for k in range(lengths.size):
        count = np.int64(lengths[k])
        for j in range(_ROWS):
            rows[j] = _0
        whole = count // _ROWS * _ROWS
        for i in range(start, start + whole, _ROWS):
            part = x[i : i + _ROWS]
            for j in range(_ROWS):
                rows[j] += np.float64(part[j]) * np.float64(part[j])
        for i in range(start + whole, start + count):
            rows[0] += np.float64(x[i]) * np.float64(x[i])
        out[k] = _total(rows)
        start += count


@primitive
def _index(z: Any, cuts: Any, cells: Any) -> Any:
    """Return how many middles lie below `z`."""
    cell = (z + np.float64(REACH)) * np.float64(CELLS / (2 * REACH))
    cell = max(np.float64(0), min(np.float64(CELLS - 1), cell))
    guess = np.int64(cells[np.int64(cell)])
    return guess + np.int64(z > np.float64(cuts[guess]))


@primitive
def _sum(x: Any, values: Any, squares: Any, products: Any) -> None:
    """Add squares of the values, and products with `x`, row by row."""
    for i in range(0, x.size, _ROWS):
        size: Any = min(_ROWS, x.size - i)
        part, chosen = x[i : i + size], values[i : i + size]
        for j in range(size):
            squares[j] += np.float64(chosen[j]) * np.float64(chosen[j])
        for j in range(size):
            products[j] += np.float64(part[j]) * np.float64(chosen[j])


def _find(
    x: Any,
    lengths: Any,
    factors: Any,
    cuts: Any,
    cells: Any,
    points: Any,
    near: Any,
    room: Any,
    index: Any,
    out: Any,
) -> None:
    """Find the nearest centroids of the elements times the block's factor; sum x · c and c · c, two for each block.

    `near` is room for TILE elements of the type of `x`.
    """
    start: Any = 0
    squares, products = room[0:_ROWS], room[_ROWS : 2 * _ROWS]
    for k in range(lengths.size):
        count, factor = np.int64(lengths[k]), factors[k]
        for j in range(_ROWS):
            squares[j] = _0
            products[j] = _0
        for i in range(start, start + count, TILE):
            size: Any = min(TILE, start + count - i)
            part, places, values = x[i : i + size], index[i : i + size], near[0:size]
            for j in range(size):
                values[j] = part[j] * factor
            if cuts.size > _FEW:
                for j in range(size):
                    places[j] = np.uint8(_index(np.float64(values[j]), cuts, cells))
            else:
                for j in range(size):
                    places[j] = np.uint8(0)
                for cut in cuts:
                    for j in range(size):
                        places[j] += np.uint8(1) if values[j] > cut else np.uint8(0)
            for j in range(size):
                values[j] = points[places[j]]
            _sum(part, values, squares, products)
        out[2 * k] = _total(products)
        out[2 * k + 1] = _total(squares)
        start += count


def _look_up(index: Any, lengths: Any, scales: Any, points: Any, out: Any) -> None:
    """Write scale times centroid; there are 256 of these."""
    start: Any = 0
    for k in range(lengths.size):
        scale, part = scales[k], index[start : start + np.int64(lengths[k])]
        target = out[start : start + part.size]
        for i in range(part.size):
            target[i] = points[part[i]] * scale
        start += part.size


SQUARES = {size: kernel(f"void(f{size}[r], u8[r], f8[w], f8[w])")(_squares) for size in (4, 8)}
FIND = {
    size: kernel(
        f"void(f{size}[r], u8[r], f{size}[r], f{size}[r], u1[r], f{size}[r], f{size}[w], f8[w], u1[w], f8[w])"
    )(_find)
    for size in (4, 8)
}
LOOK_UP = {size: kernel(f"void(u1[r], u8[r], f{size}[r], f{size}[r], f{size}[w])")(_look_up) for size in (4, 8)}

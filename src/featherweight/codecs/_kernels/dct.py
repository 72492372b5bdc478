"""The loop of small separable transforms: many of them side by side, so that the processor's vectors go across them.

Of 3 by 3, as most filters are, 16 stay in registers from one end to the other; others pass through tiles of 64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels import _lanes as v
from featherweight.kernel import kernel, primitive

__all__ = ["SIDE", "TRANSFORM"]

SIDE = 64  # transforms side by side
_1 = np.uint64(1)


@primitive
def _along(source: Any, matrix: Any, many: Any, apart: Any, outer: Any, jump: Any, count: Any, target: Any) -> None:
    """Multiply by a matrix of edge `many` along an axis whose elements are `apart`, at `outer` places of the other."""
    step = apart * SIDE
    for o in range(outer):
        for t in range(o * jump * SIDE, o * jump * SIDE + count, v.WIDTH):
            for k in range(many):
                row = k * many
                total = v.times(v.load(source, t), matrix[row])
                for i in range(1, many):
                    total = v.plus(total, v.times(v.load(source, t + i * step), matrix[row + i]))
                v.store(target, t + k * step, total)


@primitive
def _take(x: Any, at: Any, item: Any, count: Any, tile: Any, to: Any) -> None:
    whole = count & ~15 if item == 1 else 0
    for t in range(0, whole, v.WIDTH):
        v.store(tile, to + t, v.load(x, at + t))
    i, k, step = np.uint64(at + whole * item), np.uint64(to + whole), np.uint64(item)
    for _ in range(whole, count):
        tile[k] = x[i]
        i += step
        k += _1


@primitive
def _put(tile: Any, to: Any, item: Any, count: Any, out: Any, at: Any) -> None:
    whole = count & ~15 if item == 1 else 0
    for t in range(0, whole, v.WIDTH):
        v.store(out, at + t, v.load(tile, to + t))
    i, k, step = np.uint64(at + whole * item), np.uint64(to + whole), np.uint64(item)
    for _ in range(whole, count):
        out[i] = tile[k]
        i += step
        k += _1


@primitive
def _times(a: Any, b: Any, c: Any, matrix: Any) -> Any:
    """Multiply by a matrix of edge 3."""
    one = v.plus(v.plus(v.times(a, matrix[0]), v.times(b, matrix[1])), v.times(c, matrix[2]))
    two = v.plus(v.plus(v.times(a, matrix[3]), v.times(b, matrix[4])), v.times(c, matrix[5]))
    three = v.plus(v.plus(v.times(a, matrix[6]), v.times(b, matrix[7])), v.times(c, matrix[8]))
    return one, two, three


@primitive
def _threes(x: Any, base: Any, items: Any, left: Any, right: Any, out: Any) -> Any:
    """Transform dense matrices of 3 by 3, the filters of most networks, 16 at a time; return how many."""
    whole = items // v.WIDTH * v.WIDTH
    for at in range(base, base + 9 * whole, 9 * v.WIDTH):
        a, b, c, d, e, f, g, h = v.columns(x, at, 9)
        i = v.column(x, at + 8, 9)
        (a, b, c), (d, e, f), (g, h, i) = _times(a, b, c, right), _times(d, e, f, right), _times(g, h, i, right)
        (a, d, g), (b, e, h), (c, f, i) = _times(a, d, g, left), _times(b, e, h, left), _times(c, f, i, left)
        v.put_columns(out, at, 9, (a, b, c, d, e, f, g, h))
        v.put_column(out, at + 8, 9, i)
    return whole


def _transform(
    x: Any,
    base: Any,
    bands: Any,
    band: Any,
    items: Any,
    item: Any,
    rows: Any,
    row: Any,
    columns: Any,
    column: Any,
    left: Any,
    right: Any,
    tile: Any,
    spare: Any,
    out: Any,
) -> None:
    done = 0
    if bands == 1 and item == 9 and rows == row == columns == 3 and column == 1:
        done = _threes(x, base, items, left, right, out)
    for b in range(bands):
        for begin in range(done, items, SIDE):
            count = min(SIDE, items - begin)
            start = base + b * band + begin * item
            for i in range(rows):
                for j in range(columns):
                    _take(x, start + i * row + j * column, item, count, tile, (i * columns + j) * SIDE)
            _along(tile, right, columns, 1, rows, columns, count, spare)
            _along(spare, left, rows, columns, columns, 1, count, tile)
            for i in range(rows):
                for j in range(columns):
                    _put(tile, (i * columns + j) * SIDE, item, count, out, start + i * row + j * column)


_SIGNATURE = "void(f{0}[r], i8, i8, i8, i8, i8, i8, i8, i8, i8, f{0}[r], f{0}[r], f{0}[w], f{0}[w], f{0}[w])"
TRANSFORM = {size: kernel(_SIGNATURE.format(size))(_transform) for size in (4, 8)}
"""Multiply matrices of `rows` by `columns` by `left` and by `right`, transposed: `items` of them in each of `bands`.

`band`, `item`, `row` and `column` are distances in `x` and `out`, which may be the same; `tile` and `spare` take 64
matrices of finite numbers.
"""

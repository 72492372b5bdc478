"""Scales of rows and columns from magnitudes, what knowing them spares, and their logarithms as levels."""

from __future__ import annotations

import math
from typing import Any

from numpy import float32, float64, uint8

from featherweight.codecs._kernels._primitives import TOGETHER, added
from featherweight.kernel import kernel, primitive

__all__ = ["HISTOGRAM", "gain", "levels", "parted", "row_means", "separate"]

HISTOGRAM = 8192  # quarters of an octave: all that floats of 64 bits have, from a middle on
_ROUNDS, _FEW = 2, 64  # weights that share a scale: few


@primitive
def _inverse(scale: Any) -> Any:
    return float32(min(1 / max(float64(scale), 1e-38), 1e30)) if scale > 0 else float32(0)


@primitive
def _row_means(x: Any, inverse: Any, some: Any, means: Any) -> None:
    width = inverse.size
    for i in range(means.size):
        total = float64(0)
        for start in range(0, width, TOGETHER):
            row, scale = x[i * width + start : (i + 1) * width], inverse[start:]
            count = min(TOGETHER, width - start)
            for j in range(count):
                some[j] = abs(row[j]) * scale[j]
            for j in range(count, TOGETHER):
                some[j] = float32(0)
            total += float64(added(some))
        means[i] = total / width


@kernel("void(f4[r], f4[r], f4[w], f8[w])")
def row_means(x: Any, inverse: Any, some: Any, means: Any) -> None:
    """Fill `means` with those of |x| · inverse[column] over the rows; `some` (TOGETHER) is scratch."""
    _row_means(x, inverse, some, means)


@primitive
def _separate(x: Any, columns: Any, inverse: Any, some: Any, rows: Any) -> None:
    width = columns.size
    for turn in range(_ROUNDS):
        for j in range(width):
            columns[j] = float32(0)
        for i in range(rows.size):
            row, scale = x[i * width : (i + 1) * width], _inverse(rows[i]) if turn else float32(1)
            for j in range(width):
                columns[j] += abs(row[j]) * scale
        for j in range(width):
            columns[j] /= float32(rows.size)
            inverse[j] = _inverse(columns[j])
        _row_means(x, inverse, some, rows)


@kernel("void(f4[r], i8, f4[w], f4[w], f4[w], f8[w])")
def separate(x: Any, blocks: Any, columns: Any, inverse: Any, some: Any, rows: Any) -> None:
    """Fill `columns` and `rows` of each block with mean magnitudes, those of each beside the scales of the other.

    `inverse` (as many as a block has columns) and `some` (TOGETHER) are scratch.
    """
    width, height = columns.size // blocks, rows.size // blocks
    for b in range(blocks):
        own = x[b * height * width : (b + 1) * height * width]
        _separate(own, columns[b * width : (b + 1) * width], inverse, some, rows[b * height : (b + 1) * height])


@primitive
def _beside(value: Any, scale: Any) -> Any:
    return value / scale if scale > 0 else float64(0)


@kernel("void(f4[r], i8, f8[w], f8[w], f8[w], f8[w])")
def parted(means: Any, blocks: Any, column: Any, place: Any, alone: Any, both: Any) -> None:
    """Part the mean magnitudes of columns and places of each block, and find what either has beside the other.

    `column` and `place` take the means of each; `alone` those of places beside the scales of `column`, `both` those of
    columns beside the scales of `place`. What has no scale counts for nothing beside it.
    """
    high, wide = column.size // blocks, place.size // blocks
    for b in range(blocks):
        first, some = b * wide, means[b * high * wide : (b + 1) * high * wide]
        for p in range(wide):
            place[first + p], alone[first + p] = float64(0), float64(0)
        for c in range(high):
            total = float64(0)
            for p in range(wide):
                total += float64(some[c * wide + p])
                place[first + p] += float64(some[c * wide + p])
            column[b * high + c] = total / wide
            for p in range(wide):
                alone[first + p] += _beside(float64(some[c * wide + p]), column[b * high + c])
        for p in range(wide):
            place[first + p] /= high
            alone[first + p] /= high
        for c in range(high):
            total = float64(0)
            for p in range(wide):
                total += _beside(float64(some[c * wide + p]), place[first + p])
            both[b * high + c] = total / wide


@primitive
def _gain(x: Any, scale: Any, shape: Any, strides: Any, counts: Any) -> Any:
    number, total, logs = 0, float64(0), float64(0)
    least, most = HISTOGRAM, 0
    for i in range(counts.size):
        counts[i] = 0
    for i in range(scale.size):
        if scale[i] > 0:
            log = math.log2(scale[i])
            number, total, logs = number + 1, total + scale[i], logs + log
            level = min(max(math.floor(4 * log + 0.5) + HISTOGRAM // 2, 0), HISTOGRAM - 1)
            counts[level] += 1
            least, most = min(least, level), max(most, level)
    if number < 2:
        return 0.0
    spread = _spread(x, scale, shape, strides) if x.size < _FEW * scale.size else 1.0
    costs, distinct = float64(number) * 0.72 * spread, 0
    for level in range(least, most + 1):
        if counts[level]:
            distinct += 1
            costs -= float64(counts[level]) * math.log2(float64(counts[level]) / float64(number))
    spared = float64(x.size) * number / scale.size * (math.log2(total / number) - logs / number)
    return spared - costs - 8 * distinct


@kernel("f8(f4[r], f8[r], i8, i8[r], i8[r], i8[w])")
def gain(x: Any, scale: Any, blocks: Any, shape: Any, strides: Any, counts: Any) -> Any:
    """Return about how many bits knowing the scales above 0 spares, less what they cost; see codecs/levels.py.

    Each block has three dimensions of this `shape`, in each of which its scales go on by so many. `counts` (HISTOGRAM)
    is scratch.
    """
    size, many, total = x.size // blocks, scale.size // blocks, float64(0)
    for b in range(blocks):
        own = scale[b * many : (b + 1) * many]
        total += _gain(x[b * size : (b + 1) * size], own, shape, strides, counts)
    return total


@primitive
def _spread(x: Any, scale: Any, shape: Any, strides: Any) -> Any:
    """Return the variance of magnitudes beside their scales over that of normal ones, at least 1."""
    total, squares, at = float64(0), float64(0), 0
    for i in range(shape[0]):
        for j in range(shape[1]):
            for k in range(shape[2]):
                known = scale[i * strides[0] + j * strides[1] + k * strides[2]]
                share = float64(abs(x[at])) / (known if known > 0 else 1.0)
                total += share
                squares += share * share
                at += 1
    mean = total / x.size
    return max(1.0, (squares / x.size / (mean * mean) - 1) / 0.571) if mean > 0 else 1.0


@kernel("void(f8[r], i8, i8, u1[w])")
def levels(scale: Any, resolution: Any, top: Any, out: Any) -> None:
    """Fill `out` with logarithms of scales, `resolution` to the octave, from 0 on and at most `top`; 0 of no scale."""
    least, most = 16 * HISTOGRAM, -16 * HISTOGRAM
    for i in range(scale.size):
        if scale[i] > 0:
            level = math.floor(resolution * math.log2(scale[i]) + 0.5)
            least, most = min(least, level), max(most, level)
    least = max(least, most - top)
    for i in range(scale.size):
        level = least
        if scale[i] > 0:
            level = max(math.floor(resolution * math.log2(scale[i]) + 0.5), least)
        out[i] = uint8(level - least)

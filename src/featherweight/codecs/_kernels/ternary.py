"""The loops of three-value quantization, over parts that each have a scale of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel

__all__ = ["CUT", "MAXIMA", "SPREAD"]


def _maxima4(words: Any, lengths: Any, maxima: Any) -> None:
    """Find the bits of the largest magnitude in each part: of floats in order, and of NaN above all numbers."""
    start: Any = 0
    for k in range(lengths.size):
        part = words[start : start + np.int64(lengths[k])]
        most = np.uint32(0)
        for i in range(part.size):
            most = max(most, part[i] & np.uint32(0x7FFFFFFF))
        maxima[k] = most
        start += part.size


def _maxima8(words: Any, lengths: Any, maxima: Any) -> None:
    start: Any = 0
    for k in range(lengths.size):
        part = words[start : start + np.int64(lengths[k])]
        most = np.uint64(0)
        for i in range(part.size):
            most = max(most, part[i] & np.uint64(0x7FFFFFFFFFFFFFFF))
        maxima[k] = most
        start += part.size


def _cut(x: Any, lengths: Any, scales: Any, values: Any) -> None:
    """Write 2 where twice the element is above its scale, 0 where below minus that, else 1."""
    start: Any = 0
    for k in range(lengths.size):
        scale, part = scales[k], x[start : start + np.int64(lengths[k])]
        target = values[start : start + part.size]
        for i in range(part.size):
            twice = part[i] + part[i]
            target[i] = np.uint8(2) if twice > scale else (np.uint8(0) if twice < -scale else np.uint8(1))
        start += part.size


def _spread4(values: Any, lengths: Any, scales: Any, out: Any) -> int:
    """Write (value - 1) times the scale; return -1 where a value is above 2."""
    start: Any = 0
    top = np.uint8(0)
    for i in range(values.size):
        top = max(top, values[i])
    for k in range(lengths.size):
        scale, part = scales[k], values[start : start + np.int64(lengths[k])]
        target = out[start : start + part.size]
        for i in range(part.size):
            target[i] = scale if part[i] == np.uint8(2) else (np.float32(0) if part[i] == np.uint8(1) else -scale)
        start += part.size
    return -1 if top > np.uint8(2) else 0


def _spread8(values: Any, lengths: Any, scales: Any, out: Any) -> int:
    start: Any = 0
    top = np.uint8(0)
    for i in range(values.size):
        top = max(top, values[i])
    for k in range(lengths.size):
        scale, part = scales[k], values[start : start + np.int64(lengths[k])]
        target = out[start : start + part.size]
        for i in range(part.size):
            target[i] = scale if part[i] == np.uint8(2) else (np.float64(0) if part[i] == np.uint8(1) else -scale)
        start += part.size
    return -1 if top > np.uint8(2) else 0


MAXIMA = {
    4: kernel("void(u4[r], u8[r], u4[w])")(_maxima4),
    8: kernel("void(u8[r], u8[r], u8[w])")(_maxima8),
}
"""Lengths must sum to at most the number of elements, here and below."""
CUT = {size: kernel(f"void(f{size}[r], u8[r], f{size}[r], u1[w])")(_cut) for size in (4, 8)}
SPREAD = {
    4: kernel("i8(u1[r], u8[r], f4[r], f4[w])")(_spread4),
    8: kernel("i8(u1[r], u8[r], f8[r], f8[w])")(_spread8),
}

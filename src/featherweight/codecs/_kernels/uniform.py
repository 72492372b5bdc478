"""The uniform codec's loops, for f32 and f64."""

from __future__ import annotations

from typing import Any

from numpy import float32, float64, int32, int64

from featherweight.codecs._kernels._primitives import TOGETHER, added
from featherweight.kernel import kernel

__all__ = ["KNOWN", "LIMIT", "OFFSETS", "QUANTIZE", "RECONSTRUCT"]

LIMIT = 1 << 30
KNOWN = 8  # sizes that are told apart
_BLOCK = 1 << 14  # elements whose sums f32 holds


def _quantize4(x: Any, inverse: Any, rounding: Any, index: Any) -> Any:
    scale, offset, top = float32(inverse), float32(rounding), float32(LIMIT)
    most = int32(0)
    for i in range(x.size):
        size = int32(min(abs(x[i]) * scale + offset, top))
        most = max(most, size)
        index[i] = -size if x[i] < float32(0) else size
    return int64(most)


def _quantize8(x: Any, inverse: Any, rounding: Any, index: Any) -> Any:
    top, most = float64(LIMIT), int32(0)
    for i in range(x.size):
        size = int32(min(abs(x[i]) * inverse + rounding, top))
        most = max(most, size)
        index[i] = -size if x[i] < float64(0) else size
    return int64(most)


@kernel("void(i4[r], f4[r], f8, f4[w])")
def _reconstruct4(index: Any, points: Any, step: Any, out: Any) -> None:
    width, known = float32(step), int32(points.size - 1)
    for i in range(out.size):
        k = index[i]
        size = abs(k)
        value = points[min(size, known)] + float32(max(size - known, int32(0)))
        out[i] = width * (value if k >= int32(0) else -value)


@kernel("void(i4[r], f8[r], f8, f8[w])")
def _reconstruct8(index: Any, points: Any, step: Any, out: Any) -> None:
    known = int32(points.size - 1)
    for i in range(out.size):
        k = index[i]
        size = abs(k)
        value = points[min(size, known)] + float64(max(size - known, int32(0)))
        out[i] = step * (value if k >= int32(0) else -value)


QUANTIZE = {
    (size, narrow): kernel(f"i8(f{size}[r], f8, f8, i{narrow}[w])")(function)
    for size, function in ((4, _quantize4), (8, _quantize8))
    for narrow in (1, 4)
}
"""Round to indices of 1 or 4 bytes and return the largest size, by the bytes of an element and of an index."""
RECONSTRUCT = {4: _reconstruct4, 8: _reconstruct8}


def _offsets(
    x: Any, index: Any, inverse: Any, top: Any, sizes: Any, beyond: Any, lanes: Any, numbers: Any, sums: Any
) -> None:
    scale, most = float32(inverse), int32(KNOWN - 1)
    for start in range(0, x.size, _BLOCK):
        for j in range(lanes.size):
            lanes[j] = float32(0)
        for begin in range(start, min(start + _BLOCK, x.size), TOGETHER):
            values, some = x[begin : begin + TOGETHER], index[begin : begin + TOGETHER]
            highest = int32(0)
            for j in range(values.size):
                size = abs(int32(some[j]))
                sizes[j] = min(size, most)
                highest = max(highest, size)
                beyond[j] = abs(values[j]) * scale - float32(size)
            for k in range(1, min(int64(highest), top) + 1):
                which = int32(k)
                own, count = lanes[k * TOGETHER : (k + 1) * TOGETHER], numbers[k * TOGETHER : (k + 1) * TOGETHER]
                for j in range(values.size):
                    own[j] += beyond[j] if sizes[j] == which else float32(0)
                for j in range(values.size):
                    count[j] += int32(1) if sizes[j] == which else int32(0)
        for k in range(1, top + 1):
            sums[k] += float64(added(lanes[k * TOGETHER :]))


OFFSETS = {
    narrow: kernel(f"void(f4[r], i{narrow}[r], f8, i8, i4[w], f4[w], f4[w], i4[w], f8[w])")(_offsets)
    for narrow in (1, 4)
}
"""Add up how far elements lie beyond the points of the sizes from 1 to `top`, in steps, and count them.

Sizes of KNOWN - 1 and more go together. `sizes` and `beyond` are room for TOGETHER numbers, `lanes` for as many of each
size; `numbers` has them, to be added up.
"""

"""The uniform codec's loops, for f32 and f64."""

from __future__ import annotations

from typing import Any

from numpy import float32, float64, int32, int64

from featherweight.kernel import kernel

__all__ = ["QUANTIZE", "RECONSTRUCT", "offsets"]

LIMIT = 1 << 30


@kernel("i8(f4[r], f8, f8, i4[w])")
def _quantize4(x: Any, inverse: Any, rounding: Any, index: Any) -> Any:
    scale, offset, top = float32(inverse), float32(rounding), float32(LIMIT)
    most = int32(0)
    for i in range(x.size):
        size = int32(min(abs(x[i]) * scale + offset, top))
        most = max(most, size)
        index[i] = -size if x[i] < float32(0) else size
    return int64(most)


@kernel("i8(f8[r], f8, f8, i4[w])")
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


QUANTIZE = {4: _quantize4, 8: _quantize8}
RECONSTRUCT = {4: _reconstruct4, 8: _reconstruct8}


@kernel("void(f4[r], i4[r], f8, f8[w], i8[w])")
def offsets(x: Any, index: Any, inverse: Any, sums: Any, counts: Any) -> None:
    """Add up how far elements lie beyond the points of the sizes below 8, in steps, and count them.

    `sums` and `counts` have room for four of each, which elements take turns in; all of them end up in the first.
    """
    scale = float32(inverse)
    for i in range(x.size):
        size = abs(index[i])
        which = int64(min(size, int32(7))) | (int64(i) & int64(3)) << int64(3)
        sums[which] += float64(abs(x[i]) * scale - float32(size))
        counts[which] += int64(1)
    for each in range(8, 32):
        sums[each & 7] += sums[each]
        counts[each & 7] += counts[each]

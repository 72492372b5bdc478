"""The loops of affine quantization, group by group.

`rows` rows of `length` elements each hold groups of `group`, the last of a row perhaps fewer. Loops inside a group have
nothing that keeps a compiler from doing many elements at once: floats are rounded by adding and taking away a number so
large that it leaves no fraction, and reach bytes by way of 32-bit integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel

__all__ = ["DEQUANTIZE", "EXTREMES", "MAGNITUDES", "QUANTIZE", "SCORE"]

_M4 = np.float32(1.5 * 2.0**23)
_M8 = np.float64(1.5 * 2.0**52)
_MAX4 = np.finfo(np.float32).max
_MAX8 = np.finfo(np.float64).max
_LANES = 16
_SIZES = "i8, i8, i8"


@kernel(f"void(i4[r], {_SIZES}, i4[w], i4[w])")
def _extremes4(words: Any, rows: Any, length: Any, group: Any, lows: Any, highs: Any) -> None:
    at = 0
    for row in range(rows):
        for start in range(0, length, group):
            begin, end = row * length + start, row * length + min(start + group, length)
            low, high = np.int32(0), np.int32(0)  # the word of 0.0, which is always in the range
            part = words[begin:end]
            for i in range(part.size):
                word = part[i]
                word = word ^ ((word >> np.int32(31)) & np.int32(0x7FFFFFFF))
                low = min(low, word)
                high = max(high, word)
            lows[at], highs[at] = low, high
            at += 1


@kernel(f"void(i8[r], {_SIZES}, i8[w], i8[w])")
def _extremes8(words: Any, rows: Any, length: Any, group: Any, lows: Any, highs: Any) -> None:
    at = 0
    for row in range(rows):
        for start in range(0, length, group):
            begin, end = row * length + start, row * length + min(start + group, length)
            low, high = np.int64(0), np.int64(0)
            part = words[begin:end]
            for i in range(part.size):
                word = part[i]
                word = word ^ ((word >> np.int64(63)) & np.int64(0x7FFFFFFFFFFFFFFF))
                low = min(low, word)
                high = max(high, word)
            lows[at], highs[at] = low, high
            at += 1


EXTREMES = {4: _extremes4, 8: _extremes8}
"""Find the least and the largest of the words of each group and of 0.0, as two's complement; NaNs lie outside all."""


def _magnitudes(x: Any, rows: Any, length: Any, group: Any, unit: Any, means: Any) -> None:
    at = 0
    for row in range(rows):
        for start in range(0, length, group):
            begin, end = row * length + start, row * length + min(start + group, length)
            part, total = x[begin:end], 0.0
            for i in range(part.size):
                total += abs(np.float64(part[i]) * unit)
            means[at] = total / (end - begin)
            at += 1


MAGNITUDES = {f: kernel(f"void(f{f}[r], {_SIZES}, f8, f8[w])")(_magnitudes) for f in (4, 8)}
"""Find the mean magnitude of each group, as multiples of 1 / `unit`."""


@kernel(f"void(f4[r], f4[r], f4[r], f4, f4, {_SIZES}, u1[w])")
def _quantize4(
    x: Any, scales: Any, zeros: Any, bottom: Any, top: Any, rows: Any, length: Any, group: Any, index: Any
) -> None:
    at = 0
    for row in range(rows):
        for start in range(0, length, group):
            begin, end = row * length + start, row * length + min(start + group, length)
            source, target = x[begin:end], index[begin:end]
            scale, zero = scales[at], zeros[at]
            low, high = bottom - zero, top - zero
            for i in range(source.size):
                value = source[i] / scale
                value = max(low, value)
                value = min(high, value)
                target[i] = np.uint8(np.int32(((value + _M4) - _M4) + zero))
            at += 1


@kernel(f"void(f8[r], f8[r], f8[r], f8, f8, {_SIZES}, u1[w])")
def _quantize8(
    x: Any, scales: Any, zeros: Any, bottom: Any, top: Any, rows: Any, length: Any, group: Any, index: Any
) -> None:
    at = 0
    for row in range(rows):
        for start in range(0, length, group):
            begin, end = row * length + start, row * length + min(start + group, length)
            source, target = x[begin:end], index[begin:end]
            scale, zero = scales[at], zeros[at]
            low, high = bottom - zero, top - zero
            for i in range(source.size):
                value = source[i] / scale
                value = max(low, value)
                value = min(high, value)
                target[i] = np.uint8(np.int32(((value + _M8) - _M8) + zero))
            at += 1


QUANTIZE = {4: _quantize4, 8: _quantize8}
"""Find the nearest index; scales are not 0, zeros are whole numbers."""


@kernel(f"void(u1[r], f4[r], f4[r], {_SIZES}, f4[w])")
def _dequantize4(index: Any, scales: Any, zeros: Any, rows: Any, length: Any, group: Any, out: Any) -> None:
    at = 0
    for row in range(rows):
        for start in range(0, length, group):
            begin, end = row * length + start, row * length + min(start + group, length)
            scale, zero = scales[at], zeros[at]
            source, target = index[begin:end], out[begin:end]
            for i in range(source.size):
                value = scale * (np.float32(source[i]) - zero)
                value = min(_MAX4, value)
                target[i] = max(-_MAX4, value)
            at += 1


@kernel(f"void(u1[r], f8[r], f8[r], {_SIZES}, f8[w])")
def _dequantize8(index: Any, scales: Any, zeros: Any, rows: Any, length: Any, group: Any, out: Any) -> None:
    at = 0
    for row in range(rows):
        for start in range(0, length, group):
            begin, end = row * length + start, row * length + min(start + group, length)
            scale, zero = scales[at], zeros[at]
            source, target = index[begin:end], out[begin:end]
            for i in range(source.size):
                value = scale * (np.float64(source[i]) - zero)
                value = min(_MAX8, value)
                target[i] = max(-_MAX8, value)
            at += 1


DEQUANTIZE = {4: _dequantize4, 8: _dequantize8}
"""Return to numbers; infinite ones become the largest finite ones."""


def _score(
    x: Any,
    scales: Any,
    zeros: Any,
    bottom: Any,
    top: Any,
    unit: Any,
    rows: Any,
    length: Any,
    group: Any,
    lanes: Any,
    errors: Any,
    crosses: Any,
    squares: Any,
) -> None:
    # Sums in 16 lanes: one sum would have to wait for itself.
    at = 0
    for row in range(rows):
        for start in range(0, length, group):
            begin, end = row * length + start, row * length + min(start + group, length)
            scale, zero = scales[at], zeros[at]
            inverse = 1.0 / scale
            low, high = bottom - zero, top - zero
            for lane in range(3 * _LANES):
                lanes[lane] = 0.0
            part = x[begin:end]
            blocks = part.size // _LANES
            for block in range(blocks):
                sixteen = part[block * _LANES : block * _LANES + _LANES]
                for lane in range(_LANES):
                    exact = np.float64(sixteen[lane]) * unit
                    value = exact * inverse
                    value = max(low, value)
                    value = min(high, value)
                    value = (value + _M8) - _M8
                    error = exact - value * scale
                    lanes[lane] += error * error
                    lanes[_LANES + lane] += exact * value
                    lanes[2 * _LANES + lane] += value * value
            for i in range(blocks * _LANES, part.size):
                exact = np.float64(part[i]) * unit
                value = exact * inverse
                value = max(low, value)
                value = min(high, value)
                value = (value + _M8) - _M8
                error = exact - value * scale
                lanes[0] += error * error
                lanes[_LANES] += exact * value
                lanes[2 * _LANES] += value * value
            errors[at], crosses[at], squares[at] = 0.0, 0.0, 0.0
            for lane in range(_LANES):
                errors[at] += lanes[lane]
                crosses[at] += lanes[_LANES + lane]
                squares[at] += lanes[2 * _LANES + lane]
            at += 1


SCORE = {
    f: kernel(f"void(f{f}[r], f8[r], f8[r], f8, f8, f8, {_SIZES}, f8[w], f8[w], f8[w], f8[w])")(_score) for f in (4, 8)
}
"""Quantize x · unit and sum, for each group, squared errors, values times steps, and squares of steps."""

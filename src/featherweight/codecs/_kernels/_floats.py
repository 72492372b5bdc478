"""Floating point of any type as f32 or f64, which loops can take, and back: to nearest, ties to even, finite."""

from __future__ import annotations

import functools
import math
from typing import Any

import ml_dtypes
import numpy as np
from numpy import float64, int64, uint64

from featherweight.codecs._kernels._primitives import TOGETHER, added
from featherweight.dtypes import Array
from featherweight.kernel import kernel

__all__ = ["apart", "biggest", "bound", "dot", "glance", "is_finite", "limit", "neighbours", "round_into", "wide"]

_SPAN = 1 << 18  # elements that are rounded at once: what lies between stays in the cache


def limit(dtype: np.dtype[Any]) -> float:
    """Return the largest finite value of a type."""
    return float(ml_dtypes.finfo(dtype).max)


def wide(x: Array) -> Array:
    """Return the elements in a row as f64 if they are f64, else as f32, which holds all other types exactly."""
    flat = x.reshape(-1)
    return flat if flat.dtype in (np.float32, np.float64) else flat.astype(np.float32)


@kernel("u4(u4[r])")
def _biggest4(words: Any) -> Any:
    most = np.uint32(0)
    for i in range(words.size):
        word = words[i] & np.uint32(0x7FFFFFFF)
        most = max(most, word)
    return most


@kernel("u8(u8[r])")
def _biggest8(words: Any) -> Any:
    most = np.uint64(0)
    for i in range(words.size):
        word = words[i] & np.uint64(0x7FFFFFFFFFFFFFFF)
        most = max(most, word)
    return most


def biggest(values: Array) -> float:
    """Return the largest magnitude in a flat f32 or f64 array, 0 where it is empty; not finite where one is not."""
    if values.itemsize == 4:
        return float(np.array(_biggest4(values.view(np.uint32)), np.uint32).view(np.float32))
    return float(np.array(_biggest8(values.view(np.uint64)), np.uint64).view(np.float64))


def _apart(x: Any, y: Any, lanes: Any, found: Any) -> None:
    # `lanes` (3 · TOGETHER) is scratch; `found` (3) takes noise, signal and the largest.
    noise, signal, largest = lanes[:TOGETHER], lanes[TOGETHER : 2 * TOGETHER], lanes[2 * TOGETHER :]
    for j in range(lanes.size):
        lanes[j] = 0
    for start in range(0, x.size, TOGETHER):
        left, right = x[start : start + TOGETHER], y[start : start + TOGETHER]
        for j in range(left.size):
            distance = float64(right[j]) - float64(left[j])
            noise[j] += distance * distance
            largest[j] = max(largest[j], abs(distance))
        for j in range(left.size):
            signal[j] += float64(left[j]) * float64(left[j])
    found[2] = float64(0)
    for j in range(TOGETHER):
        found[2] = max(found[2], largest[j])
    found[0], found[1] = added(noise), added(signal)


_APART = {code: kernel(f"void({code}[r], {code}[r], f8[w], f8[w])")(_apart) for code in ("f4", "f8")}


def _products(x: Any, y: Any, sums: Any) -> None:
    for start in range(0, x.size, TOGETHER):
        left, right = x[start : start + TOGETHER], y[start : start + TOGETHER]
        for j in range(left.size):
            sums[j] += float64(left[j]) * float64(right[j])


_PRODUCTS = {code: kernel(f"void({code}[r], {code}[r], f8[w])")(_products) for code in ("f4", "f8")}


def dot(x: Array, y: Array) -> float:
    """Return the sum of the products of flat f32 or f64, in f64: the same for any number of threads.

    A library's dot product has threads of its own, which wait in loops, and sums in an order that depends on them.
    """
    sums = np.zeros(TOGETHER)
    _PRODUCTS[x.dtype.str[1:]](x, y, sums)
    return float(sums.sum())


def _glanced(x: Any, sums: Any) -> Any:
    some = int64(0)
    for i in range(x.size):
        some += int64(x[i] != 0)
        sums[i & 3] += abs(float64(x[i]))
    return some


_GLANCED = {code: kernel(f"i8({code}[r], f8[w])", brief=True)(_glanced) for code in ("f4", "f8")}
_FEW = 1 << 12  # elements that a glance takes in


def glance(x: Array) -> tuple[float, float]:
    """Return the share of elements that are not zero, and the mean magnitude, as some of a float array tell."""
    flat = x.reshape(-1)
    some, sums = wide(np.ascontiguousarray(flat[:: max(1, flat.size // _FEW)])), np.zeros(4)
    return _GLANCED[some.dtype.str[1:]](some, sums) / max(some.size, 1), float(sums.sum()) / max(some.size, 1)


def _neighbours(x: Any, run: Any, step: Any, sums: Any) -> None:
    for start in range(uint64(0), uint64(x.size), run):
        for i in range(start, start + run - step):
            left, right = float64(x[i]), float64(x[i + step])
            sums[0] += left * right
            sums[1] += left * left
            sums[2] += right * right


_NEIGHBOURS = {code: kernel(f"void({code}[r], u8, u8, f8[w])")(_neighbours) for code in ("f4", "f8")}


def neighbours(x: Array, run: int, step: int) -> tuple[float, float, float]:
    """Return the sums of l·r, l² and r² over elements l and r that are `step` apart in runs of a flat f32 or f64."""
    sums = np.zeros(3)
    if x.size:
        _NEIGHBOURS[x.dtype.str[1:]](x, np.uint64(run), np.uint64(step), sums)
    return float(sums[0]), float(sums[1]), float(sums[2])


def apart(x: Array, y: Array) -> tuple[float, float, float]:
    """Return the sum of the squares of y - x, that of the squares of x, and the largest |y - x|, of flat f32 or f64."""
    found = np.empty(3)
    _APART[x.dtype.str[1:]](x, y, np.empty(3 * TOGETHER), found)
    noise, signal, largest = found.tolist()
    if not math.isfinite(noise):  # a maximum passes NaN by
        largest = biggest(y - x)
    return noise, signal, largest


def bound(values: Array) -> None:
    """Make what is not finite the largest value, and NaN 0."""
    if not math.isfinite(biggest(values)):
        np.nan_to_num(values, copy=False)


def is_finite(x: Array) -> bool:
    """Return whether there is neither NaN nor infinity in an array of any floating-point type."""
    return bool(np.isfinite(biggest(wide(x))))


def _narrow(words: Any, mantissa: Any, least: Any, largest: Any, sign: Any, words_out: Any) -> None:
    # Integers alone, so that many elements go at once. `least` is the exponent field of f32 at the smallest normal
    # number of the narrow type: below it, as much more is shifted out. A carry out of the mantissa is right as it is.
    one = np.uint32(1)
    for i in range(words.size):
        word = words[i]
        size = word & np.uint32(0x7FFFFFFF)
        field = size >> np.uint32(23)
        fraction = (size & np.uint32(0x7FFFFF)) | (np.uint32(0x800000) if field > np.uint32(0) else np.uint32(0))
        field = max(one, field)
        under = least - field if field < least else np.uint32(0)
        over = field - least if field > least else np.uint32(0)
        shift = np.uint32(23) - mantissa + under
        shift = min(np.uint32(25), shift)
        rounded = (fraction + (one << (shift - one)) - one + ((fraction >> shift) & one)) >> shift
        rounded += over << mantissa
        rounded = min(largest, rounded)
        words_out[i] = rounded | (word >> np.uint32(31) << sign)


_NARROW = {size: kernel(f"void(u4[r], u4, u4, u4, u4, u{size}[w])")(_narrow) for size in (1, 2)}


@functools.lru_cache
def _form(dtype: np.dtype[Any]) -> tuple[Any, ...] | None:
    """Return how `_narrow` is to make this type: one of few bits, with a sign and a zero."""
    limits = ml_dtypes.finfo(dtype)
    if dtype.itemsize > 2 or float(limits.min) >= 0:
        return None
    word = f"u{dtype.itemsize}"
    least = math.frexp(float(limits.smallest_normal))[1] + 126
    largest = np.array(limits.max, dtype).view(word)
    return tuple(map(np.uint32, (limits.nmant, least, largest, limits.bits - 1)))


def round_into(values: Array, out: Array) -> None:
    """Round a flat f32 or f64 array to the type of `out`; beyond the largest finite value lies that value.

    The values are numbers. What a type without a sign or a zero cannot hold becomes what the type makes of it.
    """
    form = _form(out.dtype)
    for begin in range(0, values.size, _SPAN):
        part, target = values[begin : begin + _SPAN], out[begin : begin + _SPAN]
        if form is None:
            top = part.dtype.type(min(limit(part.dtype), limit(out.dtype)))
            with np.errstate(invalid="ignore"):
                target[:] = np.clip(part, -top, top).astype(out.dtype)
            continue
        single = _to_odd(part) if part.dtype == np.float64 else part
        words = target.view(f"u{out.itemsize}")
        _NARROW[out.itemsize](single.view(np.uint32), *form, words)
        if "fnuz" in out.dtype.name:  # what would be -0 is NaN
            words[words == 0x80] = 0


def _to_odd(values: Array) -> Array:
    """Return f64 as f32, rounded so that rounding once more gives what rounding once gives: what is inexact is odd."""
    top = np.float64(np.finfo(np.float32).max)
    near = np.clip(values, -top, top).astype(np.float32)
    back = near.astype(np.float64)
    words = near.view(np.uint32)
    even = (words & np.uint32(1)) == 0
    up, down = (back < values) & even, (back > values) & even
    near[up] = np.nextafter(near[up], np.float32(np.inf))
    near[down] = np.nextafter(near[down], np.float32(-np.inf))
    return near

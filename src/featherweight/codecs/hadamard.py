"""Rotate at random, so that every coordinate is about Gaussian, whatever the weights were (Ailon and Chazelle, 2009).

Signs and Walsh-Hadamard transforms, twice. What a few weights held is spread over all, so a quantizer that is made for
the normal distribution fits, and an outlier costs no more than its energy.

Wire: `seed`; `axis`, 1 + the axis along which vectors lie, 0 for all elements as one vector; `block`, the length of
parts that are rotated apart, a multiple of 64, 0 for whole vectors; `rounds`, 1 to 8; `exponent`, from -1,100 to 1,100.
Streams: `rotated`, f64 if the array is, else f32, of the shape of the array; no magnitude above 2^90.
Decoding: each part of each vector is the part of `rotated`, x, times the inverse of R_{rounds - 1} ⋯ R_0, times
2^exponent; rounded to the type of the array, to its largest finite value where beyond.

n is the length of the vector, W = ⌈n / 64⌉; s(q, p) is -1 where bit p mod 64 of random word (q W + ⌊p / 64⌋) of the
seed is 1, else 1. To turn a and b by C is to make them (a √C - σ b √(1 - C), σ a √(1 - C) + b √C), where
σ = s(rounds + r, p), p the position of b in the vector. The part, m long from position t of the vector on, is cut into
powers of two, the largest first. R_r does, in this order:
1. If r = 0 and m ≥ 16: with l = m mod 16, for each b of the last l elements, for each a of the 16 before these l: turn
   a and b by C = 7/8.
   If r > 0: for each of the powers P, from the smallest up, let l be the length of all after it; for i < l turn a,
   element i of this block, and b, element i of what follows, by C = l / (P + l).
2. Multiply each element by s(r, p), p its position.
3. Multiply each of the blocks by the Walsh-Hadamard matrix of its size P: element (i, j) is (-1)^|i & j| / √P, where
   |k| counts the bits of k.

>>> import numpy as np
>>> x = np.zeros(1 << 12, np.float32)
>>> x[7] = 64
>>> (rotated,) = Hadamard().encode(x).streams
>>> float(np.abs(rotated).max()) < 5, round(float(np.square(rotated).mean()), 3)
(True, 1.0)
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _floats, _ranges
from featherweight.codecs._kernels import hadamard as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Hadamard", "rotate", "unrotate"]


class HadamardWire(Wire, frozen=True):
    seed: int
    axis: int = 0
    block: int = 0
    rounds: int = 2
    exponent: int = 0


def decode(wire: HadamardWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Rotate back."""
    (rotated,) = streams
    real = _real(out.dtype)
    if rotated.shape != out.shape or rotated.dtype != real or out.dtype == dtypes.of("F8_E8M0").dtype:
        raise FrameError(f"{rotated.dtype}{list(rotated.shape)} rotated, for {out.dtype}{list(out.shape)}")
    if not (0 <= wire.seed < 1 << 64 and 0 <= wire.axis <= out.ndim and 1 <= wire.rounds <= 8):
        raise FrameError(f"seed {wire.seed}, axis {wire.axis}, {wire.rounds} rounds")
    if not 0 <= wire.block < 1 << 62 or wire.block % 64 or abs(wire.exponent) > 1100:
        raise FrameError(f"parts of {wire.block}, exponent {wire.exponent}")
    if not _floats.biggest(rotated.reshape(-1)) <= _ranges.MOST:
        raise FrameError("a rotated value is out of range")
    if not out.size:
        return
    last = wire.axis in (0, out.ndim)
    values = out if last and out.dtype == real else np.empty(out.shape if last else _moved(out, wire.axis).shape, real)
    values[...] = rotated if last else _moved(rotated, wire.axis)
    unrotate(values, wire.seed, length=values.shape[-1] if wire.axis else 0, block=wire.block, rounds=wire.rounds)
    if last:
        _ranges.restore(values.reshape(-1), wire.exponent, out)
        return
    straight = out if out.dtype == real else np.empty(out.shape, real)
    _moved(straight, wire.axis)[...] = values
    _ranges.restore(straight.reshape(-1), wire.exponent, out)


CODEC = Codec("hadamard", HadamardWire, Port("values", "f"), (Port("rotated", "f"),), decode, exact=False)


@dataclass(frozen=True)
class Hadamard:
    """Rotate all elements as one vector, or the vectors along an axis, all of them alike."""

    codec: ClassVar[Codec] = CODEC
    seed: int = param(0, lo=0, hi=(1 << 64) - 1, doc="which rotation")
    axis: int | None = param(None, lo=-32, hi=31, doc="the axis along which vectors lie; absent: one vector of all")
    block: int = param(0, lo=0, hi=1 << 40, doc="elements rotated apart from others, in multiples of 64; 0: no parts")
    rounds: int = param(2, lo=1, hi=8, doc="rounds; one is enough where no few weights hold most of the energy")

    def __post_init__(self) -> None:
        check_params(self)
        if self.block % 64:
            raise ArgumentError(f"hadamard(block={self.block}): expected a multiple of 64")

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Rotate; raises ArgumentError for what is not finite, and for an axis that is not there."""
        axis = 0
        if self.axis is not None:
            if not -x.ndim <= self.axis < x.ndim:
                raise ArgumentError(f"hadamard(axis={self.axis}) takes arrays that have this axis, not {list(x.shape)}")
            axis = 1 + self.axis % x.ndim
        if x.dtype == dtypes.of("F8_E8M0").dtype:
            raise ArgumentError("hadamard takes types with a sign")
        wide = _floats.wide(x)
        most = _floats.biggest(wide)
        if not math.isfinite(most):
            raise ArgumentError("an element is not finite: code this array with lossless")
        exponent = _ranges.exponent(most)
        values = _ranges.scaled(wide, -exponent).reshape(x.shape)
        if axis:
            values = np.ascontiguousarray(_moved(values, axis))
        if x.size:
            rotate(values, self.seed, length=values.shape[-1] if axis else 0, block=self.block, rounds=self.rounds)
        if axis:
            values = np.ascontiguousarray(np.moveaxis(values, -1, axis - 1))
        return Encoded(HadamardWire(self.seed, axis, self.block, self.rounds, exponent), (values,))

    def error_bound(self, x: Array, /) -> None:
        """Nothing is promised: the rounding of sums."""
        return


def rotate(values: Array, seed: int, *, length: int = 0, block: int = 0, rounds: int = 2) -> None:
    """Rotate each row of `length` elements (0: all are one row) of a contiguous f32 or f64 array, in place."""
    _run(kernels.ROTATE, values, seed, length, block, rounds)


def unrotate(values: Array, seed: int, *, length: int = 0, block: int = 0, rounds: int = 2) -> None:
    """Undo `rotate`, but for rounding."""
    _run(kernels.UNROTATE, values, seed, length, block, rounds)


def _run(run: dict[int, Any], values: Array, seed: int, length: int, block: int, rounds: int) -> None:
    length = length or values.size
    if not values.size:
        return
    block = min(block or length, length)
    factors, turns = _tables(block, length % block, values.dtype)
    with np.errstate(under="ignore"):
        run[values.itemsize](values.reshape(-1), length, block, rounds, np.uint64(seed), factors, turns)


@functools.lru_cache(64)
def _tables(block: int, rest: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return 1 / √P for each power, and cosines and sines of the turns in a whole block and in the last one."""
    factors = np.array([2.0 ** (-k / 2) for k in range(64)]).astype(dtype)
    turns = np.zeros((2, 2, 64))
    for row, size in enumerate((block, rest)):
        for k in range(62):
            power, after = 1 << k, size & ((1 << k) - 1)
            if size & power and after:
                turns[row, :, k] = math.sqrt(after / (power + after)), math.sqrt(power / (power + after))
    turns[:, :, 63] = math.sqrt(7 / 8), math.sqrt(1 / 8)  # no power: for the scattering of short ends
    return factors, turns.reshape(-1).astype(dtype)


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _moved(x: Array, axis: int) -> Array:
    return np.moveaxis(x, axis - 1, -1)

"""The loops of generalised Gaussians by scale class: what tokens weigh, their frequencies, and what they cost.

All of it is integers: logarithms and powers are fixed-point numbers with 12 bits behind the point.
"""

from __future__ import annotations

from typing import Any

from numpy import int32, int64, uint16, uint64

from featherweight.codecs._kernels._primitives import bit_length
from featherweight.codecs._kernels._tokens import DIRECT, ESCAPE, LARGEST
from featherweight.kernel import kernel, primitive

__all__ = [
    "BITS",
    "SIZES",
    "cost",
    "exp2",
    "frequencies",
    "log2",
    "log2_large",
    "model_at",
    "places",
    "size_of",
    "weighed",
    "weight",
]

BITS = 12
SIZES = 76  # that models tell apart
_0, _1, _2, _3, _4, _8 = (uint64(value) for value in (0, 1, 2, 3, 4, 8))
_16, _32 = uint64(16), uint64(32)
_DIRECT, _ESCAPE, _LARGEST, _SIZES = uint64(DIRECT), uint64(ESCAPE), uint64(LARGEST), uint64(SIZES)


@primitive
def log2(x: Any, logs: Any) -> Any:
    """Return the logarithm of x > 0 to the base 2; `logs` holds those of 1 + i / 256."""
    top = bit_length(x) - _1
    return (int64(top) << int64(12)) + int64(logs[(x << uint64(40) >> top >> uint64(32)) & uint64(255)])


@primitive
def log2_large(x: Any, logs: Any) -> Any:
    """Return the logarithm of x > 0, below 2^40."""
    return log2(x >> _16, logs) + int64(16 << 12) if x >> uint64(24) else log2(x, logs)


@primitive
def exp2(y: Any) -> Any:
    """Return 2^y, at most 2^40, within 0.3 %."""
    whole, f = y >> int64(12), y & int64(4095)
    mantissa = int64(4096) + (f * (int64(2689) + (f * int64(1407) >> int64(12))) >> int64(12))
    if whole < int64(-14):
        return int64(0)
    return mantissa << min(whole, int64(28)) if whole >= int64(0) else mantissa >> -whole


@primitive
def weight(token: Any, quantizer: Any, scale: Any, shape: Any, zero: Any, logs: Any) -> Any:
    """Return the weight of a token, about 2^20 times the density times the indices that share it."""
    if token == _0:
        return uint64(exp2((int64(20) << int64(12)) + (zero << int64(8))) >> int64(12))
    if token < _DIRECT:
        return weighed(log2((token + _1 >> _1 << _1) - quantizer, logs), _0, scale, shape)
    many = (token - _DIRECT >> _4) + _2
    size = ((_4 | token - _DIRECT >> _2 & _3) << many + _1) + (_1 << many)
    return weighed(log2((size << _1) - quantizer, logs), many, scale, shape)


@primitive
def weighed(far: Any, many: Any, scale: Any, shape: Any) -> Any:
    """Return the weight of 2^many indices whose middle one's place has the logarithm `far`."""
    power = shape * (far - (scale << int64(6))) >> int64(6)
    if power > int64(6 << 12):
        return _0
    return uint64((exp2((int64(20) << int64(12)) - exp2(power)) << int64(many)) >> int64(12))


@primitive
def model_at(model: Any, level: Any) -> Any:
    """Return the scale and the shape that a model has in a class."""
    scale = model[0] + model[1] * level
    return scale, min(max(model[2] + (model[3] * scale >> int64(8)), int64(16)), int64(256))


@primitive
def size_of(token: Any) -> Any:
    """Return which of the SIZES a token is of."""
    return token + _1 >> _1 if token < _DIRECT else _32 + (token - _DIRECT >> _2)


@kernel("void(u8, u4[r], i4[w])", brief=True)
def places(quantizers: Any, logs: Any, out: Any) -> None:
    """Fill `out` with the logarithms of the places of the SIZES that models tell apart, for each quantizer."""
    for quantizer in range(quantizers):
        for each in range(_1, _SIZES):
            size = uint64(each)
            if each >= _32:
                many = (each - _32 >> _2) + _2
                size = ((_4 | each - _32 & _3) << many + _1) + (_1 << many)
            out[uint64(quantizer) * _SIZES + each] = int32(log2((size << _1) - uint64(quantizer), logs))


@kernel("void(i8[r], u8, u8, u4[r], i1[r], u8[w], u2[w])", brief=True)
def frequencies(model: Any, low: Any, quantizers: Any, logs: Any, shares: Any, weights: Any, out: Any) -> None:
    """Fill `out`, 256 frequencies a table, of tables for the classes from `low` on, each for every quantizer.

    `model` is: scale, slope, shape, bend, zero of quantizer 0, of quantizer 1. `shares` tell of the first sizes by how
    many eighths of an octave they weigh more than that. `weights` (256) is scratch.
    """
    for table in range(uint64(out.size) >> _8):
        row, level, quantizer = (
            uint64(table) << _8,
            int64(low + uint64(table) // quantizers),
            uint64(table) % quantizers,
        )
        scale, shape = model_at(model, level)
        zero = model[5] if quantizer else model[4]
        total, beyond = _0, False
        for each in range(_LARGEST + _1):
            weights[each] = _0 if beyond else weight(uint64(each), quantizer, scale, shape, zero, logs)
            beyond = bool(beyond or (uint64(each) > _1 and weights[each] == _0))
            size = int64(size_of(uint64(each)))
            if size < shares.size:
                weights[each] = max(weights[each], _1) * uint64(exp2(int64(shares[size]) << int64(9))) >> uint64(12)
            total += weights[each]
        room = (_1 << uint64(BITS)) - _2
        left, most, largest = int64(room), int64(-1), _0
        for each in range(uint64(256)):
            out[row + uint64(each)] = uint16(0)
        for each in range(_LARGEST + _1):
            if total and (weights[each] << uint64(13)) >= total:
                frequency = max((weights[each] * room + (total >> _1)) // total, _1)
                out[row + uint64(each)] = uint16(frequency)
                left -= int64(frequency)
                if int64(frequency) > most:
                    most, largest = int64(frequency), uint64(each)
        if left >= int64(0):
            out[row + largest] = uint16(int64(out[row + largest]) + left)
        while left < int64(0):  # rounded up too often
            for each in range(_LARGEST + _1):
                if left < int64(0) and out[row + uint64(each)] > uint16(1):
                    out[row + uint64(each)] = uint16(out[row + uint64(each)] - uint16(1))
                    left += int64(1)
        out[row + _ESCAPE] = out[row + _ESCAPE + _1] = uint16(1)


@kernel("i8(u4[r], u2[r], u4[r])", brief=True)
def cost(counts: Any, table: Any, logs: Any) -> Any:
    """Return the bits that tokens take under frequencies, times 4096."""
    spent = int64(0)
    for place in range(counts.size):
        if counts[place]:
            frequency = uint64(table[place])
            bits = (int64(BITS) << int64(12)) - log2(frequency, logs) if frequency else int64(20 << 12)
            spent += int64(counts[place]) * bits
    return spent

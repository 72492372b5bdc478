"""The loops of generalised Gaussians by scale class: what tokens weigh, frequencies, and fitting.

All of it is integers: logarithms and powers are fixed-point numbers with 12 bits behind the point.
"""

from __future__ import annotations

from typing import Any

from numpy import int64, uint16, uint64

from featherweight.codecs._kernels._primitives import bit_length
from featherweight.codecs._kernels._tokens import DIRECT, ESCAPE, LARGEST
from featherweight.kernel import kernel, primitive

__all__ = ["BITS", "SIZES", "ZERO", "cost", "frequencies", "improve", "places", "settle"]

BITS = 12
SIZES = 76  # that models tell apart
ZERO = 128  # bound of what zeros weigh, in 16ths of an octave
_0, _1, _2, _3, _4, _8 = (uint64(value) for value in (0, 1, 2, 3, 4, 8))
_16, _32 = uint64(16), uint64(32)
_DIRECT, _ESCAPE, _LARGEST, _SIZES = uint64(DIRECT), uint64(ESCAPE), uint64(LARGEST), uint64(SIZES)


@primitive
def log2(x: Any, logs: Any) -> Any:
    """Return the logarithm of x > 0 to the base 2; `logs` holds those of 1 + i / 256."""
    top = bit_length(x) - _1
    return (int64(top) << int64(12)) + int64(logs[(x << uint64(40) >> top >> uint64(32)) & uint64(255)])


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
        return _weighed(log2((token + _1 >> _1 << _1) - quantizer, logs), _0, scale, shape)
    many = (token - _DIRECT >> _4) + _2
    size = ((_4 | token - _DIRECT >> _2 & _3) << many + _1) + (_1 << many)
    return _weighed(log2((size << _1) - quantizer, logs), many, scale, shape)


@primitive
def _weighed(far: Any, many: Any, scale: Any, shape: Any) -> Any:
    """Return the weight of 2^many indices whose middle one's place has the logarithm `far`."""
    power = shape * (far - (scale << int64(6))) >> int64(6)
    if power > int64(6 << 12):
        return _0
    return uint64((exp2((int64(20) << int64(12)) - exp2(power)) << int64(many)) >> int64(12))


@kernel("void(u8, u4[r], i8[w])")
def places(quantizers: Any, logs: Any, out: Any) -> None:
    """Fill `out` with the logarithms of the places of the SIZES that models tell apart, for each quantizer."""
    for quantizer in range(quantizers):
        for each in range(_1, _SIZES):
            size = uint64(each)
            if each >= _32:
                many = (each - _32 >> _2) + _2
                size = ((_4 | each - _32 & _3) << many + _1) + (_1 << many)
            out[uint64(quantizer) * _SIZES + each] = log2((size << _1) - uint64(quantizer), logs)


@kernel("void(i8[r], u8, u8, u4[r], u8[w], u2[w])")
def frequencies(model: Any, low: Any, quantizers: Any, logs: Any, weights: Any, out: Any) -> None:
    """Fill `out`, 256 frequencies a table, of tables for the classes from `low` on, each for every quantizer.

    `model` is: scale, slope, shape, bend, zero of quantizer 0, of quantizer 1. `weights` (256) is scratch.
    """
    for table in range(uint64(out.size) >> _8):
        row, level, quantizer = (
            uint64(table) << _8,
            int64(low + uint64(table) // quantizers),
            uint64(table) % quantizers,
        )
        scale = model[0] + model[1] * level
        shape = min(max(model[2] + (model[3] * scale >> int64(8)), int64(16)), int64(256))
        zero = model[5] if quantizer else model[4]
        total, beyond = _0, False
        for each in range(_LARGEST + _1):
            weights[each] = _0 if beyond else weight(uint64(each), quantizer, scale, shape, zero, logs)
            beyond = bool(beyond or (uint64(each) > _1 and weights[each] == _0))
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


@kernel("i8(u4[r], u2[r], u4[r])")
def cost(counts: Any, table: Any, logs: Any) -> Any:
    """Return the bits that tokens take under frequencies, times 4096."""
    spent = int64(0)
    for place in range(counts.size):
        if counts[place]:
            frequency = uint64(table[place])
            bits = (int64(BITS) << int64(12)) - log2(frequency, logs) if frequency else int64(20 << 12)
            spent += int64(counts[place]) * bits
    return spent


@primitive
def _log_large(x: Any, logs: Any) -> Any:
    """Return the logarithm of x > 0, below 2^40."""
    return log2(x >> _16, logs) + int64(16 << 12) if x >> uint64(24) else log2(x, logs)


@primitive
def _settled(sizes: Any, low: Any, quantizers: Any, logs: Any, far: Any, weights: Any, totals: Any, model: Any) -> Any:
    tables, half = uint64(totals.size) >> _1, uint64(totals.size) >> _1
    for each in range(4):
        least, most = int64(0), int64(1024)  # of the slope
        if each == 0:
            least, most = int64(-4096), int64(4096)
        elif each == 2:
            least, most = int64(16), int64(256)
        elif each == 3:
            least, most = int64(-256), int64(256)
        model[each] = min(max(model[each], least), most)
    for table in range(tables):
        row, number = uint64(table) * _SIZES, _0
        for each in range(_SIZES):
            number += uint64(sizes[row + uint64(each)])
        totals[half + uint64(table)] = number
        if number == _0:
            continue
        scale = model[0] + model[1] * int64(low + uint64(table) // quantizers)
        shape = min(max(model[2] + (model[3] * scale >> int64(8)), int64(16)), int64(256))
        total, beyond = _0, False
        for each in range(_1, _SIZES):
            found = _0
            if not beyond:
                many = _0 if each < _32 else (each - _32 >> _2) + _2
                found = _weighed(far[uint64(table) % quantizers * _SIZES + each], many, scale, shape)
            beyond = bool(beyond or (each > _1 and found == _0))
            weights[row + each] = found
            total += found << (_1 if each < _32 else _2)
        totals[table] = total
    for quantizer in range(quantizers):
        zeros = _0
        for table in range(quantizer, tables, quantizers):
            zeros += uint64(sizes[uint64(table) * _SIZES])
        at, end = int64(-ZERO), int64(ZERO)
        while at < end:  # the more they weigh, the more of them are expected
            between = at + end >> int64(1)
            zero, expected = weight(_0, _0, int64(0), int64(0), between, logs), _0
            for table in range(quantizer, tables, quantizers):
                number = totals[half + uint64(table)]
                if number:
                    expected += number * zero // (zero + totals[table])
            if expected < zeros:
                at = between + int64(1)
            else:
                end = between
        model[int64(4) + int64(quantizer)] = at
    spent = int64(0)
    for table in range(_0, tables):
        if totals[half + uint64(table)] == _0:
            continue
        row, zero = uint64(table) * _SIZES, model[int64(4) + int64(uint64(table) % quantizers)]
        weights[row] = weight(_0, _0, int64(0), int64(0), zero, logs)
        total = totals[table] + weights[row]
        whole = _log_large(total, logs)
        for each in range(_SIZES):
            times = int64(sizes[row + uint64(each)])
            if times:
                weighs = weights[row + uint64(each)]
                rare = weighs << uint64(13) < total
                bits = int64(20 << 12) if rare else min(whole - _log_large(weighs, logs), int64(BITS << 12))
                spent += times * bits
    return spent


@kernel("i8(u4[r], u8, u8, u4[r], i8[r], u8[w], u8[w], i8[w])")
def settle(sizes: Any, low: Any, quantizers: Any, logs: Any, far: Any, weights: Any, totals: Any, model: Any) -> Any:
    """Bound `model` and set its zeros to what suits the rest best; return about what tokens cost, in bits times 4096.

    `sizes` has SIZES counts a table: of the zeros, of each size to 31, and of four parts of every octave above.
    `far` holds the logarithms of their places, for each quantizer. `weights` (as large as `sizes`) and `totals` (two a
    table: what all but zeros weigh, how many tokens) are scratch.
    """
    return _settled(sizes, low, quantizers, logs, far, weights, totals, model)


@primitive
def _moved(model: Any, which: Any, step: Any, middle: Any, out: Any) -> None:
    for each in range(6):
        out[each] = model[each]
    if which == 0:
        out[0] += step
    elif which == 1:  # the shape, with the scale that leaves the share of the ones as it is
        at, shape = int64(64) - model[0] - model[1] * middle, max(model[2] + step, int64(16))
        out[0] = model[0] + at - at * model[2] // shape
        out[2] = shape
    elif which == 2:  # slopes turn about the middle class
        out[0] -= step * middle
        out[1] += step
    elif which == 3:
        out[2] += step
    else:
        out[3] += step


@kernel("i8(u4[r], u8, u8, u4[r], i8[r], u8[w], u8[w], i8, i8[r], i8, i8[w], i8[w])")
def improve(
    sizes: Any,
    low: Any,
    quantizers: Any,
    logs: Any,
    far: Any,
    weights: Any,
    totals: Any,
    middle: Any,
    steps: Any,
    cost: Any,
    model: Any,
    trial: Any,
) -> Any:
    """Go along one parameter after another while that makes tokens cost less than `cost`; return what they cost then.

    `steps` holds, for each round: of the scale, of the shape with the scale, of the slope, of the shape, of the bend.
    """
    for begin in range(0, steps.size, 5):
        before = int64(2) * cost + int64(1)
        while cost < before - before // int64(2000):
            before = cost
            for which in range(5):
                step = steps[begin + which]
                better = False
                for way in range(2):
                    if better:
                        continue
                    move = step if way == 0 else -step
                    _moved(model, which, move, middle, trial)
                    found = _settled(sizes, low, quantizers, logs, far, weights, totals, trial)
                    while found < cost:
                        cost, better = found, True
                        for each in range(6):
                            model[each] = trial[each]
                        _moved(model, which, move, middle, trial)
                        found = _settled(sizes, low, quantizers, logs, far, weights, totals, trial)
    return int64(cost)

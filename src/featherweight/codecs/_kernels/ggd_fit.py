"""Fitting generalised Gaussians to counts of tokens, by integers and by floats that are the same on all processors."""

from __future__ import annotations

from typing import Any

from numpy import float64, int32, int64, uint32, uint64

from featherweight.codecs._kernels._primitives import bit_length
from featherweight.codecs._kernels._tokens import DIRECT
from featherweight.codecs._kernels.ggd_models import BITS, SIZES, log2_large, model_at, weighed, weight
from featherweight.kernel import kernel, primitive

__all__ = ["fit"]

_ZERO = 128  # bound of what zeros weigh, in 16ths of an octave
_FAR = 1 << 22  # the logarithm of a distance that weighs all or nothing
_0, _1, _2, _3, _31, _32 = (uint64(value) for value in (0, 1, 2, 3, 31, 32))
_MOST, _SIZES = uint64((1 << 32) - 1), uint64(SIZES)


@primitive
def _grouped(counts: Any, sizes: Any, totals: Any, sums: Any) -> None:
    """Fill `sizes` with the counts of what weighs the same; the last two thirds of `totals`, and `sums`."""
    tables = sums.size
    for table in range(tables):
        tokens, row = counts[table << 8 : table + 1 << 8], sizes[table * SIZES : (table + 1) * SIZES]
        row[0] = tokens[0]
        for each in range(1, 32):
            row[each] = tokens[2 * each - 1] + tokens[2 * each]
        for each in range(32, SIZES):
            at = DIRECT + 4 * (each - 32)
            row[each] = tokens[at] + tokens[at + 1] + tokens[at + 2] + tokens[at + 3]
        number, behind, total = _0, 0, _0
        for each in range(SIZES):
            number += uint64(row[each])
            if row[each]:
                behind = each + 1
                total += uint64(row[each]) * uint64(_size(each))
        totals[tables + table], totals[2 * tables + table], sums[table] = float64(number), float64(behind), int64(total)


@primitive
def _size(each: Any) -> Any:
    """Return about how large the indices are that are counted there."""
    if each < 32:
        return each
    code = each - 32
    return ((4 | code & 3) << (code >> 2) + 3) + (1 << (code >> 2) + 2)


@primitive
def _centred(low: Any, quantizers: Any, slope: Any, totals: Any, sums: Any, out: Any) -> None:
    """Fill `out` with the middle class, and with a scale to begin with: that of the mean magnitudes of the classes."""
    tables = sums.size
    everything, weighted, number, found = int64(0), int64(0), int64(0), int64(0)
    for begin in range(0, tables, quantizers):
        level, total, many = int64(low) + int64(begin // quantizers), int64(0), int64(0)
        for table in range(begin, begin + quantizers):
            total += sums[table]
            many += int64(totals[tables + table])
        everything += many
        weighted += many * (level - int64(low))
        if total:
            number += many
            top = int64(bit_length(uint64(int64(2048) * total // many)))
            found += many * (int64(64) * top - int64(640) - slope * level)
    out[0] = int64(low) + weighted // max(everything, int64(1))
    out[1] = found // number if number else int64(-256)


@primitive
def _weigh_small(far: Any, scale: Any, shape: Any, weights: Any) -> Any:
    """Fill the 32 `weights` of the sizes below 32, that of zeros with nothing of use; return the sum of the others.

    This is `weighed` for eight at a time: 32 bits are enough once distances that weigh all or nothing are bounded.
    """
    centre = int32(min(max(scale << int64(6), int64(-_FAR)), int64(_FAR)))
    power = int32(shape)
    for each in range(32):
        away = int32(min(max(int32(far[each] - centre), int32(-_FAR)), int32(_FAR)))
        y = int32(int32(power * away) >> int32(6))
        e = int32(_power32(y, int32(min(max(int32(y >> int32(12)), int32(-15)), int32(6)))))
        z = int32(int32(20 << 12) - e)
        found = _power32(z, int32(max(int32(int32(z >> int32(12)) - int32(12)), int32(-31))))
        weights[each] = uint32(0) if y > int32(6 << 12) else found
    total = _0
    for each in range(1, 32):
        total += uint64(weights[each])
    return total


@primitive
def _power32(y: Any, whole: Any) -> Any:
    """Return what `exp2` returns for the fraction of y and the `whole` part, -31 … 18, given."""
    f = int32(y & int32(4095))
    mantissa = int32(int32(2689) + int32(int32(f * int32(1407)) >> int32(12)))
    mantissa = int32(int32(4096) + int32(int32(f * mantissa) >> int32(12)))
    left, right = uint32(max(whole, int32(0))), uint32(max(int32(-whole), int32(0)))
    return uint32(uint32(uint32(mantissa) << uint32(left & uint32(31))) >> uint32(right & uint32(31)))


@primitive
def _settled(
    sizes: Any,
    low: Any,
    quantizers: Any,
    gap: Any,
    logs: Any,
    far: Any,
    weights: Any,
    totals: Any,
    most: Any,
    model: Any,
) -> Any:
    """Bound `model` and set its zeros to what suits the rest best; return about what tokens cost, in bits times 4096.

    What costs `most` or more may be said to cost less than it does, but not less than that.
    """
    tables = uint64(totals.size) // _3
    for each in range(4):
        least, largest = int64(0), int64(1024)  # of the slope
        if each == 0:
            least, largest = int64(-4096), int64(4096)
        elif each == 2:
            least, largest = int64(16), int64(256)
        elif each == 3:
            least, largest = int64(-256), int64(256)
        model[each] = min(max(model[each], least), largest)
    for table in range(tables):
        if totals[tables + uint64(table)] == float64(0):
            continue
        row, places = uint64(table) * _SIZES, uint64(table) % quantizers * _SIZES
        scale, shape = model_at(model, int64(low + uint64(table) // quantizers))
        total = _weigh_small(far[places : places + _32], scale, shape, weights[row : row + _32])
        beyond = bool(weights[row + _31] == uint32(0))  # the larger a size, the less it weighs
        for each in range(_1, min(gap, _32)):
            total -= uint64(weights[row + each])
            weights[row + each] = uint32(0)
        behind = uint64(totals[_2 * tables + uint64(table)])
        for each in range(_32, _SIZES):
            if beyond and each >= behind:
                break
            found = _0
            if not beyond:
                found = min(weighed(int64(far[places + each]), (each - _32 >> _2) + _2, scale, shape), _MOST)
                beyond = bool(found == _0)
            found = _0 if each < gap else found
            weights[row + each] = uint32(found)
            total += found << _1
        totals[table] = float64(total << _1)
    for quantizer in range(quantizers):
        zeros = float64(0)
        for table in range(quantizer, tables, quantizers):
            zeros += float64(sizes[uint64(table) * _SIZES])
        at, end = int64(-_ZERO), int64(_ZERO)
        while at < end:  # the more they weigh, the more of them are expected
            between = at + end >> int64(1)
            zero, expected = float64(weight(_0, _0, int64(0), int64(0), between, logs)), float64(0)
            for table in range(quantizer, tables, quantizers):
                number = totals[tables + uint64(table)]
                if number:
                    expected += number * zero / (zero + totals[table])
            if expected < zeros:
                at = between + int64(1)
            else:
                end = between
        model[int64(4) + int64(quantizer)] = at
    spent = int64(0)
    for table in range(_0, tables):
        if totals[tables + uint64(table)] == float64(0):
            continue
        if spent >= most:
            return spent
        row, zero = uint64(table) * _SIZES, model[int64(4) + int64(uint64(table) % quantizers)]
        zeros = weight(_0, _0, int64(0), int64(0), zero, logs)
        total = uint64(totals[table]) + zeros
        whole = log2_large(total, logs)
        for each in range(uint64(totals[_2 * tables + uint64(table)])):
            times = int64(sizes[row + uint64(each)])
            if times:
                weighs = uint64(weights[row + uint64(each)]) if each else zeros
                rare = weighs << uint64(13) < total
                bits = int64(20 << 12) if rare else min(whole - log2_large(weighs, logs), int64(BITS << 12))
                spent += times * bits
    return spent


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


@kernel("void(u4[r], u8, u8, i8, u8, u4[r], i4[r], i8[r], i8[r], u4[w], u4[w], f8[w], i8[w], i8[w], i8[w])")
def fit(
    counts: Any,
    low: Any,
    quantizers: Any,
    slope: Any,
    gap: Any,
    logs: Any,
    far: Any,
    starts: Any,
    steps: Any,
    sizes: Any,
    weights: Any,
    totals: Any,
    sums: Any,
    trial: Any,
    model: Any,
) -> None:
    """Fill `model` with that under which tokens cost least, going along one parameter after another.

    Sizes from 1 on below `gap`, of which there are none, weigh nothing. `far` holds the logarithms of the places of
    SIZES for each quantizer. `starts` has pairs: a shape, and how far the scale then lies from that of the mean
    magnitude, whose classes lie `slope` apart; where there are none, `model` is where to begin. `steps` holds, for each
    round: of the scale, of the shape with the scale, of the slope, of the shape, of the bend. Scratch, for each table:
    `sizes` and `weights` (SIZES), `totals` (3: what all but zeros weigh, how many tokens, behind which size there are
    none), `sums` (1: of sizes); `trial` (6).
    """
    _grouped(counts, sizes, totals, sums)
    _centred(low, int64(quantizers), slope, totals, sums, trial)
    middle, scale, cost = trial[0], trial[1], int64(1 << 62)
    if not starts.size:
        cost = _settled(sizes, low, quantizers, gap, logs, far, weights, totals, cost, model)
    for each in range(0, starts.size, 2):
        # Ones begin at 8 bits or less: where all sizes weigh nothing, no small move makes a difference.
        trial[0] = max(scale + starts[each + 1], int64(64) - slope * middle - int64(12288) // starts[each])
        trial[1], trial[2], trial[3], trial[4], trial[5] = slope, starts[each], int64(0), int64(0), int64(0)
        found = _settled(sizes, low, quantizers, gap, logs, far, weights, totals, cost, trial)
        if found < cost:
            cost = found
            for i in range(6):
                model[i] = trial[i]
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
                    found = _settled(sizes, low, quantizers, gap, logs, far, weights, totals, cost, trial)
                    while found < cost:
                        cost, better = found, True
                        for i in range(6):
                            model[i] = trial[i]
                        _moved(model, which, move, middle, trial)
                        found = _settled(sizes, low, quantizers, gap, logs, far, weights, totals, cost, trial)

"""The loops of the bumped ribbon: elimination as keys come, back substitution, look-up.

A layer is a system of equations over GF(2) in `slots` unknowns of t bits, 64 slots a block. A key's equation has its
coefficients in a window of 64 slots, of which the first is 1. The solution lies in planes: word b · t + k holds bit k
of the 64 slots of block b, the first in the lowest bit.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from featherweight.codecs._kernels._primitives import popcount, trailing_zeros
from featherweight.codecs._kernels._random import word
from featherweight.kernel import kernel, primitive

__all__ = ["insert", "look", "order", "solve"]

_0 = np.uint64(0)
_1 = np.uint64(1)
_6 = np.uint64(6)
_32 = np.uint64(32)
_63 = np.uint64(63)
_LOW = np.uint64(0xFFFFFFFF)


@kernel("void(u8[r], u8, u8, u8, u8[w])")
def order(positions: Any, seed: Any, starts: Any, turn: Any, keys: Any) -> None:
    """Make what sorts keys by bucket, and in a bucket from the last start to the first: the number is below."""
    for i in range(positions.size):
        start = ((word(seed, positions[i] + positions[i]) >> _32) * starts) >> _32
        keys[i] = ((start ^ turn) << _32) | np.uint64(i)


@kernel("i8(u8[r], u8[r], u2[r], u8, i8, u8, u8, i8[r], i8[w], u8[w], u2[w], u1[w], u4[w])")
def insert(
    keys: Any,
    positions: Any,
    values: Any,
    seed: Any,
    log: Any,
    turn: Any,
    mask: Any,
    thresholds: Any,
    taken: Any,
    coefficients: Any,
    results: Any,
    levels: Any,
    bumped: Any,
) -> Any:
    """Enter the keys bucket by bucket; where one does not fit, bump those of its bucket that start below a threshold.

    `coefficients` begin as zeros, `levels` too. Returns how many were bumped.
    """
    out, first = 0, 0
    shift = np.uint64(log)
    while first < keys.size:
        bucket = (keys[first] >> _32) >> shift
        last = first
        limit: Any = 0
        while last < keys.size and (keys[last] >> _32) >> shift == bucket:
            start = np.int64((keys[last] >> _32) ^ turn)
            offset = np.int64(np.uint64(start) & turn)
            if offset < limit:
                break
            i = keys[last] & _LOW
            twice = positions[i] + positions[i]
            c = word(seed, twice + _1) | _1
            y = (np.uint64(values[i]) ^ word(seed, twice)) & mask
            place: Any = -1
            while c:
                held = coefficients[start]
                if held == _0:
                    coefficients[start] = c
                    results[start] = np.uint16(y)
                    place = start
                    break
                c ^= held
                y ^= np.uint64(results[start])
                if c:
                    zeros = trailing_zeros(c)
                    c >>= zeros
                    start += np.int64(zeros)
            taken[last] = place
            if place < 0 and y:
                level = 0
                while thresholds[level] <= offset:
                    level += 1
                levels[bucket] = np.uint8(level)
                limit = thresholds[level]
            last += 1
        # What was entered last leaves its slot as if it had never come.
        j = last
        while limit > 0 and j > first and np.int64((keys[j - 1] >> _32 ^ turn) & turn) < limit:
            j -= 1
            if taken[j] >= 0:
                coefficients[taken[j]] = _0
        end = last
        while end < keys.size and (keys[end] >> _32) >> shift == bucket:
            end += 1
        while j < end:
            if limit > 0:
                bumped[out] = np.uint32(keys[j] & _LOW)
                out += 1
            j += 1
        first = end
    return out


@kernel("void(u8[r], u2[r], i8, u8[w], u8[w])")
def solve(coefficients: Any, results: Any, bits: Any, windows: Any, planes: Any) -> None:
    """Substitute from the last slot back; `windows` are `bits` words of scratch, zero."""
    for back in range(coefficients.size):
        slot = coefficients.size - 1 - back
        c, y = coefficients[slot], np.uint64(results[slot])
        free = c == _0
        base = (slot >> 6) * bits
        for k in range(bits):
            window = windows[k] << _1
            bit = (popcount(c & window) ^ (y >> np.uint64(k))) & _1
            window |= _0 if free else bit
            windows[k] = window
            if slot & 63 == 0:
                planes[base + k] = window


def _eight_twin(*_: Any) -> Any:
    from llvmlite import ir
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    many = ir.VectorType(ir.IntType(64), 8)

    def eight(typing: Any, planes: Any, p: Any, q: Any, low: Any, high: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array = context.make_array(signature.args[0])(context, builder, arguments[0])

            def asked(at: Any, word: Any) -> Any:
                place = builder.bitcast(builder.gep(array.data, [at]), many.as_pointer())
                lane = builder.insert_element(ir.Constant(many, ir.Undefined), word, ir.Constant(ir.IntType(32), 0))
                mask = ir.Constant(ir.VectorType(ir.IntType(32), 8), None)
                return builder.and_(builder.load(place, align=8), builder.shuffle_vector(lane, lane, mask))

            mixed = builder.xor(asked(arguments[1], arguments[3]), asked(arguments[2], arguments[4]))
            ones = cgutils.get_or_insert_function(builder.module, ir.FunctionType(many, [many]), "llvm.ctpop.v8i64")
            odd = builder.trunc(builder.call(ones, [mixed]), ir.VectorType(ir.IntType(1), 8))
            bits = builder.bitcast(odd, ir.IntType(8))
            if sys.byteorder == "big":
                bits = builder.bitreverse(bits)
            return builder.zext(bits, ir.IntType(64))

        return types.uint64(planes, types.int64, types.int64, types.uint64, types.uint64), generate

    run: Any = intrinsic(eight)
    return lambda planes, p, q, low, high: run(planes, p, q, low, high)  # noqa: PLW0108 - numba wants a function


@primitive(twin=_eight_twin)
def _eight(planes: Any, p: Any, q: Any, low: Any, high: Any) -> Any:
    """Return a bit from each of eight planes: the parity of what two words, eight from p and q on, have in common."""
    y = _0
    for k in range(8):
        y |= (popcount((low & planes[p + k]) ^ (high & planes[q + k])) & _1) << np.uint64(k)
    return y


@primitive
def _some(planes: Any, p: Any, q: Any, low: Any, high: Any) -> Any:
    """Do the same where the table may end before."""
    if q + 8 <= planes.size:
        return _eight(planes, p, q, low, high)
    y = _0
    for k in range(planes.size - q):
        y |= (popcount((low & planes[p + k]) ^ (high & planes[q + k])) & _1) << np.uint64(k)
    return y


@kernel("i8(u8[r], i8, u8, u8, i8, i8[r], u1[r], u8, u8, u8[r], i8, u4[w], u2[w])")
def look(
    planes: Any,
    bits: Any,
    seed: Any,
    starts: Any,
    log: Any,
    thresholds: Any,
    levels: Any,
    mask: Any,
    codes: Any,
    positions: Any,
    count: Any,
    todo: Any,
    out: Any,
) -> Any:
    """Look up the positions whose numbers stand in `todo`; leave those there that were bumped, and return how many.

    `planes` begin with those of the layer, `levels` are one for every 2^log starts, `thresholds` four.
    """
    kept: Any = 0
    turn = (_1 << np.uint64(log)) - _1
    for j in range(count):
        i = todo[j]
        twice = positions[i] + positions[i]
        a, c = word(seed, twice), word(seed, twice + _1) | _1
        start = ((a >> _32) * starts) >> _32
        bump = np.int64(start & turn) < thresholds[levels[start >> np.uint64(log)] & np.uint8(3)]
        place = start & _63
        low, high = c << place, (c >> _1) >> (_63 - place)
        p = np.int64(start >> _6) * bits
        q = p + (bits if place else 0)
        y = _some(planes, p, q, low, high)
        if bits > 8:
            y |= _some(planes, p + 8, q + 8, low, high) << np.uint64(8)
        y = (y ^ a) & mask
        out[i] = np.uint16(y + _1 if y < codes else _0)
        todo[kept] = i
        kept += np.int64(bump)
    return kept

"""The rans codec's loops for 16 lanes at a time: they go as far as is safe, the portable ones finish.

They give the bytes of the portable loops: lane l of vector v is lane 16 v + l, and a vector's words are dealt out in
the order of its lanes.
"""

from __future__ import annotations

from typing import Any

from numpy import int64, uint64

from featherweight.codecs._kernels import _vector as v
from featherweight.codecs._kernels._primitives import popcount
from featherweight.kernel import kernel, primitive

_0, _1, _2, _8, _13, _16 = (uint64(value) for value in (0, 1, 2, 8, 13, 16))
_20, _26, _31 = (uint64(value) for value in (20, 26, 31))
_LOW = uint64(1 << 15)
_START = uint64(4095)
_FIELD = uint64(8191)


@kernel("void(u1[r], u8, u4[r], u4[w], u8[w], u1[w])")
def decode(payload: Any, bits: Any, entries: Any, states: Any, cursor: Any, out: Any) -> None:
    """Decode from byte `cursor[0]` and symbol `cursor[1]` on and leave there how far it came."""
    size, n, lanes = uint64(payload.size), uint64(out.size), uint64(states.size)
    at, done = cursor[0], cursor[1]
    slots, shift = v.splat((_1 << bits) - _1), v.splat(bits)
    while n - done >= lanes and size - at >= _2 * lanes:
        for lane in range(_0, lanes, _16):
            x = v.load(states, lane)
            entry = v.gather(entries, v.both(x, slots))
            v.store8(out, done + lane, entry)
            x = after(entry, x, shift)
            short = v.less(x, v.splat(_LOW))
            v.store(states, lane, refilled(x, short, payload, at))
            at += _2 * popcount(short)
        done += lanes
    cursor[0], cursor[1] = at, done


@kernel("void(u1[r], u8, u4[r], u1[r], u4[w], u8[w], u1[w])")
def decode_rows(payload: Any, bits: Any, entries: Any, rows: Any, states: Any, cursor: Any, out: Any) -> None:
    """Decode as `decode` does, each symbol by the table that `rows` says."""
    size, n, lanes = uint64(payload.size), uint64(out.size), uint64(states.size)
    at, done = cursor[0], cursor[1]
    slots, shift = v.splat((_1 << bits) - _1), v.splat(bits)
    while n - done >= lanes and size - at >= _2 * lanes:
        for lane in range(_0, lanes, _16):
            x = v.load(states, lane)
            row = v.left(v.load8(rows, done + lane), shift)
            entry = v.gather(entries, v.either(row, v.both(x, slots)))
            v.store8(out, done + lane, entry)
            x = after(entry, x, shift)
            short = v.less(x, v.splat(_LOW))
            v.store(states, lane, refilled(x, short, payload, at))
            at += _2 * popcount(short)
        done += lanes
    cursor[0], cursor[1] = at, done


@primitive
def after(entry: Any, x: Any, shift: Any) -> Any:
    """Return the states after the symbols of the entries."""
    moved = v.times(v.right(entry, v.splat(_20)), v.right(x, shift))
    return v.minus(v.minus(x, v.both(v.right(entry, v.splat(_8)), v.splat(_START))), moved)


@primitive
def refilled(x: Any, short: Any, payload: Any, at: Any) -> Any:
    """Return the states when those in the mask `short` have taken a word each."""
    moved = v.choose(short, v.left(x, v.splat(_16)), x)
    return v.either(moved, v.deal16le(payload, at, short, v.splat(_0)))


@kernel("i8(u1[r], u8, u4[r], u8, u8, u4[w], u1[w])")
def encode(symbols: Any, bits: Any, entries: Any, left: Any, at: Any, states: Any, words: Any) -> Any:
    """Encode the first `left` symbols, whole rounds of all lanes; 32 bytes beyond the words' room must be free."""
    lanes = uint64(states.size)
    scale, shift = v.splat(_1 << bits), v.splat(_31 - bits)
    while left >= lanes:
        left -= lanes
        for back in range(_0, lanes, _16):
            lane = lanes - _16 - back
            which = v.load8(symbols, left + lane)
            x, full = pushed(v.load(states, lane), entries, v.plus(which, which), scale, shift)
            v.stack16le(words, at, v.load(states, lane), full)
            at -= _2 * popcount(full)
            v.store(states, lane, x)
    return int64(at)


@kernel("i8(u1[r], u8, u4[r], u1[r], u8, u8, u4[w], u1[w])")
def encode_rows(symbols: Any, bits: Any, entries: Any, rows: Any, left: Any, at: Any, states: Any, words: Any) -> Any:
    """Encode as `encode` does, each symbol by the table that `rows` says."""
    lanes = uint64(states.size)
    scale, shift = v.splat(_1 << bits), v.splat(_31 - bits)
    while left >= lanes:
        left -= lanes
        for back in range(_0, lanes, _16):
            lane = lanes - _16 - back
            which = v.either(v.left(v.load8(rows, left + lane), v.splat(_8)), v.load8(symbols, left + lane))
            x, full = pushed(v.load(states, lane), entries, v.plus(which, which), scale, shift)
            v.stack16le(words, at, v.load(states, lane), full)
            at -= _2 * popcount(full)
            v.store(states, lane, x)
    return int64(at)


@primitive
def pushed(x: Any, entries: Any, place: Any, scale: Any, shift: Any) -> Any:
    """Return the states after the symbols whose entries are at `place`, and which of them gave up a word first."""
    one, other = v.gather2(entries, place), v.gather2(entries, v.turn(place))
    field, inverse = v.evens(one, other), v.odds(one, other)
    frequency = v.both(field, v.splat(_FIELD))
    full = v.less(v.minus(v.left(frequency, shift), v.splat(_1)), x)
    x = v.choose(full, v.right(x, v.splat(_16)), x)
    quotient = v.right(v.high(x, inverse), v.right(field, v.splat(_26)))
    bias = v.both(v.right(field, v.splat(_13)), v.splat(_FIELD))
    return v.plus(v.plus(x, bias), v.times(quotient, v.minus(scale, frequency))), full

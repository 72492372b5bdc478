"""The rans codec's loops by vectors where none moves lanes by a mask: wherever vectors are compiled at all.

Strategy: as `rans_simd`, but words are dealt out one by one, for up to 64 lanes together: few lanes want one, and the
bits of a mask say which, so that the processor guesses wrong once in 64 symbols. The bytes are the portable loops'.
"""

from __future__ import annotations

from typing import Any

from numpy import int64, uint8, uint32, uint64

from featherweight.codecs._kernels import _vector as v
from featherweight.codecs._kernels._primitives import load16le, popcount, trailing_zeros
from featherweight.codecs._kernels.rans_simd import after, pushed
from featherweight.kernel import kernel, primitive

_0, _1, _2, _8, _16, _31, _64 = (uint64(value) for value in (0, 1, 2, 8, 16, 31, 64))
_LOW = uint64(1 << 15)
_BYTE = uint64(255)


@kernel("void(u1[r], u8, u4[r], u4[w], u8[w], u1[w])")
def decode(payload: Any, bits: Any, entries: Any, states: Any, cursor: Any, out: Any) -> None:
    """Decode from byte `cursor[0]` and symbol `cursor[1]` on and leave there how far it came."""
    size, n, lanes = uint64(payload.size), uint64(out.size), uint64(states.size)
    at, done = cursor[0], cursor[1]
    slots, shift = v.splat((_1 << bits) - _1), v.splat(bits)
    while n - done >= lanes and size - at >= _2 * lanes:
        for begin in range(_0, lanes, _64):
            short = _0
            for lane in range(begin, min(begin + _64, lanes), _16):
                x = v.load(states, lane)
                entry = v.gather(entries, v.both(x, slots))
                v.store8(out, done + lane, entry)
                x = after(entry, x, shift)
                v.store(states, lane, x)
                short |= v.less(x, v.splat(_LOW)) << (lane - begin)
            at = _refill(states, begin, short, payload, at)
        done += lanes
    cursor[0], cursor[1] = at, done


@kernel("void(u1[r], u8, u4[r], u1[r], u4[w], u8[w], u1[w])")
def decode_rows(payload: Any, bits: Any, entries: Any, rows: Any, states: Any, cursor: Any, out: Any) -> None:
    """Decode as `decode` does, each symbol by the table that `rows` says."""
    size, n, lanes = uint64(payload.size), uint64(out.size), uint64(states.size)
    at, done = cursor[0], cursor[1]
    slots, shift = v.splat((_1 << bits) - _1), v.splat(bits)
    while n - done >= lanes and size - at >= _2 * lanes:
        for begin in range(_0, lanes, _64):
            short = _0
            for lane in range(begin, min(begin + _64, lanes), _16):
                x = v.load(states, lane)
                row = v.left(v.load8(rows, done + lane), shift)
                entry = v.gather(entries, v.either(row, v.both(x, slots)))
                v.store8(out, done + lane, entry)
                x = after(entry, x, shift)
                v.store(states, lane, x)
                short |= v.less(x, v.splat(_LOW)) << (lane - begin)
            at = _refill(states, begin, short, payload, at)
        done += lanes
    cursor[0], cursor[1] = at, done


@primitive
def _refill(states: Any, begin: Any, short: Any, payload: Any, at: Any) -> Any:
    """Give each lane of a mask its next word, and return where the words go on."""
    while short:
        lane = begin + trailing_zeros(short)
        states[lane] = uint32(uint64(states[lane]) << _16 | load16le(payload, at))
        at += _2
        short &= short - _1
    return at


@kernel("i8(u1[r], u8, u4[r], u8, u8, u4[w], u4[w], u1[w])")
def encode(symbols: Any, bits: Any, entries: Any, left: Any, at: Any, states: Any, fresh: Any, words: Any) -> Any:
    """Encode the first `left` symbols, whole rounds of all lanes; `fresh` is room for as many states."""
    lanes = uint64(states.size)
    scale, shift = v.splat(_1 << bits), v.splat(_31 - bits)
    while left >= lanes:
        left -= lanes
        end = lanes
        while end:
            begin, full = end - min(end, _64), _0
            for lane in range(begin, end, _16):
                which = v.load8(symbols, left + lane)
                x, more = pushed(v.load(states, lane), entries, v.plus(which, which), scale, shift)
                v.store(fresh, lane, x)
                full |= more << (lane - begin)
            at = _drain(states, begin, full, words, at)
            end = begin
        for lane in range(_0, lanes, _16):
            v.store(states, lane, v.load(fresh, lane))
    return int64(at)


@kernel("i8(u1[r], u8, u4[r], u1[r], u8, u8, u4[w], u4[w], u1[w])")
def encode_rows(
    symbols: Any, bits: Any, entries: Any, rows: Any, left: Any, at: Any, states: Any, fresh: Any, words: Any
) -> Any:
    """Encode as `encode` does, each symbol by the table that `rows` says."""
    lanes = uint64(states.size)
    scale, shift = v.splat(_1 << bits), v.splat(_31 - bits)
    while left >= lanes:
        left -= lanes
        end = lanes
        while end:
            begin, full = end - min(end, _64), _0
            for lane in range(begin, end, _16):
                which = v.either(v.left(v.load8(rows, left + lane), v.splat(_8)), v.load8(symbols, left + lane))
                x, more = pushed(v.load(states, lane), entries, v.plus(which, which), scale, shift)
                v.store(fresh, lane, x)
                full |= more << (lane - begin)
            at = _drain(states, begin, full, words, at)
            end = begin
        for lane in range(_0, lanes, _16):
            v.store(states, lane, v.load(fresh, lane))
    return int64(at)


@primitive
def _drain(states: Any, begin: Any, full: Any, words: Any, at: Any) -> Any:
    """Take a word from each lane of a mask, so that they end before `at`, and return where they begin."""
    at -= _2 * popcount(full)
    place = at
    while full:
        x = states[begin + trailing_zeros(full)]
        words[place], words[place + _1] = uint8(x & _BYTE), uint8(x >> _8 & _BYTE)
        place += _2
        full &= full - _1
    return at

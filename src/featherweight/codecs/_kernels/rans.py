"""The rans codec's portable coder; `rans_tables` makes its tables.

Loops by vectors are in `rans_simd`, in `rans_permute`, and in `rans_baseline` for processors that lack what those want.

Strategy: a state x lives in [2^15, 2^31) and moves 16 bits at a time, so that no symbol moves more than one word and
a reciprocal of 32 bits divides exactly. Symbol i belongs to lane i mod lanes: neighbouring symbols depend on each
other only through the position in the payload, which is one addition, so the processor works on many lanes at once.
"""

from __future__ import annotations

from typing import Any

from numpy import int64, uint8, uint32, uint64

from featherweight.codecs._kernels._primitives import load16le
from featherweight.kernel import kernel, primitive

_0, _1, _2, _3, _4, _8 = (uint64(value) for value in (0, 1, 2, 3, 4, 8))
_13, _16, _20, _26, _31, _32 = (uint64(value) for value in (13, 16, 20, 26, 31, 32))
_START = uint64(4095)  # mask of the first slot in a decoding entry
_BYTE = uint64(255)
_LOW = uint64(1 << 15)  # the smallest state
_FIELD = uint64(8191)  # mask of the frequency and of the bias in an encoding field


@kernel("void(u1[r], u1[r], u1[w])")
def choose_tables(classes: Any, firsts: Any, rows: Any) -> Any:
    """Fill `rows` with the table of each class: how many of `firsts` beyond the first are not above it."""
    n, block, tables = uint64(classes.size), uint64(4096), uint64(firsts.size)
    for begin in range(_0, n, block):
        end, table = min(begin + block, n), _1
        for i in range(begin, end):
            rows[i] = uint8(0)
        while table + _4 <= tables:
            a, b, c, d = firsts[table], firsts[table + _1], firsts[table + _2], firsts[table + _3]
            for i in range(begin, end):
                which = classes[i]
                rows[i] += uint8(which >= a) + uint8(which >= b) + uint8(which >= c) + uint8(which >= d)
            table += _4
        while table < tables:
            first = firsts[table]
            for i in range(begin, end):
                rows[i] += uint8(classes[i] >= first)
            table += _1


@primitive
def left(entry: Any, x: Any, bits: Any) -> Any:
    """Return the state after the symbol of an entry."""
    return x - (entry >> _8 & _START) - (entry >> _20) * (x >> bits)


@kernel("i8(u1[r], u8, u4[r], u4[w], u8[w], u1[w])")
def decode(payload: Any, bits: Any, entries: Any, states: Any, cursor: Any, out: Any) -> Any:
    """Decode from byte `cursor[0]` and symbol `cursor[1]` to the end; -1 where the payload does not end as it must."""
    size, n, lanes = uint64(payload.size), uint64(out.size), uint64(states.size)
    at, done, slots = cursor[0], cursor[1], (_1 << bits) - _1
    while n - done >= lanes and size - at >= _2 * lanes:
        for lane in range(lanes):
            x = states[lane]
            entry = uint64(entries[x & slots])
            out[done + lane] = uint8(entry & _BYTE)
            x = left(entry, x, bits)
            more = x << _16 | load16le(payload, at)
            at += uint64(x < _LOW) << _1
            states[lane] = uint32(more if x < _LOW else x)
        done += lanes
    while done < n:
        x = states[done & (lanes - _1)]
        entry = uint64(entries[x & slots])
        out[done] = uint8(entry & _BYTE)
        x = left(entry, x, bits)
        if x < _LOW:
            if size - at < _2:
                return -1
            x = x << _16 | load16le(payload, at)
            at += _2
        states[done & (lanes - _1)] = uint32(x)
        done += _1
    return _finish(states, at == size)


@kernel("i8(u1[r], u8, u4[r], u1[r], u4[w], u8[w], u1[w])")
def decode_rows(payload: Any, bits: Any, entries: Any, rows: Any, states: Any, cursor: Any, out: Any) -> Any:
    """Decode as `decode` does, each symbol by the table that `rows` says."""
    size, n, lanes = uint64(payload.size), uint64(out.size), uint64(states.size)
    at, done, slots = cursor[0], cursor[1], (_1 << bits) - _1
    while n - done >= lanes and size - at >= _2 * lanes:
        for lane in range(lanes):
            x = states[lane]
            entry = uint64(entries[rows[done + lane] << bits | x & slots])
            out[done + lane] = uint8(entry & _BYTE)
            x = left(entry, x, bits)
            more = x << _16 | load16le(payload, at)
            at += uint64(x < _LOW) << _1
            states[lane] = uint32(more if x < _LOW else x)
        done += lanes
    while done < n:
        x = states[done & (lanes - _1)]
        entry = uint64(entries[rows[done] << bits | x & slots])
        out[done] = uint8(entry & _BYTE)
        x = left(entry, x, bits)
        if x < _LOW:
            if size - at < _2:
                return -1
            x = x << _16 | load16le(payload, at)
            at += _2
        states[done & (lanes - _1)] = uint32(x)
        done += _1
    return _finish(states, at == size)


@primitive
def _finish(states: Any, used_up: Any) -> Any:
    for lane in range(uint64(states.size)):
        if states[lane] != _LOW:
            return -1
    return 0 if used_up else -1


@primitive
def _joined(field: Any, inverse: Any, x: Any, bits: Any) -> Any:
    """Return the state that holds x and a symbol."""
    quotient = (x * inverse >> _32) >> (field >> _26)
    return x + (field >> _13 & _FIELD) + quotient * ((_1 << bits) - (field & _FIELD))


@kernel("i8(u1[r], u8, u4[r], u8, u8, u8, u4[w], u1[w])")
def encode(symbols: Any, bits: Any, entries: Any, stop: Any, left: Any, at: Any, states: Any, words: Any) -> Any:
    """Encode the symbols from `left` (not included) down to `stop`, writing `words` from `at` downwards.

    A symbol takes at most 2 bytes, 2 more must be free. Returns where the words begin.
    """
    lanes = uint64(states.size)
    while left > stop:
        left -= _1
        lane = left & (lanes - _1)
        x, place = states[lane], uint64(symbols[left]) << _1
        field, inverse = entries[place], entries[place | _1]
        words[at - _2], words[at - _1] = uint8(x & _BYTE), uint8(x >> _8 & _BYTE)
        full = uint64(x >= (field & _FIELD) << (_31 - bits))
        at -= full << _1
        states[lane] = uint32(_joined(field, inverse, x >> (full << _4), bits))
    return int64(at)


@kernel("i8(u1[r], u8, u4[r], u1[r], u8, u8, u8, u4[w], u1[w])")
def encode_rows(
    symbols: Any, bits: Any, entries: Any, rows: Any, stop: Any, left: Any, at: Any, states: Any, words: Any
) -> Any:
    """Encode as `encode` does, each symbol by the table that `rows` says."""
    lanes = uint64(states.size)
    while left > stop:
        left -= _1
        lane = left & (lanes - _1)
        x, place = states[lane], (uint64(rows[left]) << _8 | symbols[left]) << _1
        field, inverse = entries[place], entries[place | _1]
        words[at - _2], words[at - _1] = uint8(x & _BYTE), uint8(x >> _8 & _BYTE)
        full = uint64(x >= (field & _FIELD) << (_31 - bits))
        at -= full << _1
        states[lane] = uint32(_joined(field, inverse, x >> (full << _4), bits))
    return int64(at)

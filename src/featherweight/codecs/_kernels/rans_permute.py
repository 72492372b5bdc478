"""The rans codec's decoding loop for one table of 4096 slots and up to 128 symbols, looked up in registers.

Strategy: a gather takes the processor dozens of steps and `rans_simd.decode` half its time; here nothing is gathered.
Slots lie in 256 cells of 16. A cell tells the rank, among the symbols that occur, of its first slot's, and where in it
others begin, a bit each: counting those up to a slot leads to the slot's rank, and by rank lies all else. Two vectors
of 16 lanes go as one of 32 words, whose low halves are the first's and whose high halves are the second's. Of more
symbols the tables are too large to gain anything.

`tables` are bytes: at `_CELLS` ranks, at `_BEGINS` words of bits, at `_STARTS` and `_MISSING` words by rank (the first
slot, and 4096 - frequency), at `_SYMBOLS` bytes by rank, at `_ORDER` which bytes are the low ones of the words in the
order of the lanes.
"""

from __future__ import annotations

from typing import Any

from numpy import uint8, uint64

from featherweight.codecs._kernels import _vector as v
from featherweight.codecs._kernels._primitives import popcount
from featherweight.codecs._kernels.rans_simd import refilled
from featherweight.kernel import kernel, primitive

__all__ = ["BITS", "LANES", "SIZE", "condense", "decode"]

BITS = 12
LANES = 32  # at least
_CELLS, _BEGINS, _STARTS, _MISSING, _SYMBOLS, _ORDER = (uint64(value) for value in (0, 256, 768, 1024, 1280, 1408))
SIZE = 1472

_0, _1, _2, _3, _4, _7, _8, _12, _15, _16 = (uint64(value) for value in (0, 1, 2, 3, 4, 7, 8, 12, 15, 16))
_32, _64, _128, _256 = (uint64(value) for value in (32, 64, 128, 256))
_LOW = uint64(1 << 15)
_HALF, _BYTE = uint64(65535), uint64(255)
_NIBBLES = uint64(0x000F000F)
_BIT6, _BIT11 = uint64(0x00400040), uint64(0x08000800)


@primitive
def _put(tables: Any, at: Any, index: Any, word: Any) -> None:
    place = at + _2 * index
    tables[place], tables[place + _1] = uint8(word & _BYTE), uint8(word >> _8)


@kernel("i8(u8[r], u1[w])")
def condense(frequencies: Any, tables: Any) -> Any:
    """Fill `tables`, `SIZE` zeros, from the frequencies of 256 symbols, 4096 together; -1 where too many occur."""
    rank, start, cell = _0, _0, _0
    for symbol in range(_256):
        if frequencies[symbol] != _0:
            if rank == _128:
                return -1
            place, bit = start >> _4, start & _15
            if bit != _0:
                at = _BEGINS + _2 * place + (bit >> _3)
                tables[at] |= uint8(_1 << (bit & _7))
            _put(tables, _STARTS, rank, start)
            _put(tables, _MISSING, rank, (_1 << _12) - frequencies[symbol])
            tables[_SYMBOLS + rank] = uint8(symbol)
            start += frequencies[symbol]
            while cell << _4 < start:
                tables[_CELLS + cell] = uint8(rank)
                cell += _1
            rank += _1
    for lane in range(_16):
        tables[_ORDER + lane] = uint8(_4 * lane)
        tables[_ORDER + _16 + lane] = uint8(_4 * lane + _2)
    return 0


@primitive
def _four(tables: Any, at: Any) -> Any:
    return (
        v.load_bytes(tables, at),
        v.load_bytes(tables, at + _64),
        v.load_bytes(tables, at + _128),
        v.load_bytes(tables, at + _128 + _64),
    )


@primitive
def _words(table: Any, index: Any, upper: Any) -> Any:
    """Look words up in a table of 128; `upper` says which lie in its second half."""
    return v.choose16(upper, v.named16(table[2], table[3], index), v.named16(table[0], table[1], index))


@kernel("void(u1[r], u1[r], u4[w], u8[w], u1[w])")
def decode(payload: Any, tables: Any, states: Any, cursor: Any, out: Any) -> None:
    """Decode from byte `cursor[0]` and symbol `cursor[1]` on and leave there how far it came."""
    size, n, lanes = uint64(payload.size), uint64(out.size), uint64(states.size)
    at, done = cursor[0], cursor[1]
    # Stores could change what lies in memory, for all that the compiler knows: load the tables once.
    firsts, starts, missings = _four(tables, _CELLS), _four(tables, _STARTS), _four(tables, _MISSING)
    begins_low, begins_high = _four(tables, _BEGINS), _four(tables, _BEGINS + _256)
    symbols_low, symbols_high = v.load_bytes(tables, _SYMBOLS), v.load_bytes(tables, _SYMBOLS + _64)
    order = v.load_bytes(tables, _ORDER)
    while n - done >= lanes and size - at >= _2 * lanes:
        for lane in range(_0, lanes, _32):
            one, two = v.load(states, lane), v.load(states, lane + _16)
            # Of each word the lowest bits count, as many as a table asks for; above them lies rubbish.
            slots = v.either(v.both(one, v.splat(_HALF)), v.left(two, v.splat(_16)))
            cells = v.right(slots, v.splat(_4))
            half, quarter = v.has16(slots, v.splat(_BIT11)), v.has16(cells, v.splat(_BIT6))
            rank = v.choose16(half, v.named8(firsts[2], firsts[3], cells), v.named8(firsts[0], firsts[1], cells))
            begins = v.choose16(half, _words(begins_high, cells, quarter), _words(begins_low, cells, quarter))
            beyond = v.both(v.differ(slots, v.splat(_NIBBLES)), v.splat(_NIBBLES))
            rank = v.plus(rank, v.count16(v.left16(begins, beyond)))
            quarter = v.has16(rank, v.splat(_BIT6))
            start, missing = _words(starts, rank, quarter), _words(missings, rank, quarter)
            v.store_half(out, done + lane, v.named8(symbols_low, symbols_high, v.named8(rank, rank, order)))
            one = _left(one, v.both(start, v.splat(_HALF)), v.both(missing, v.splat(_HALF)))
            two = _left(two, v.right(start, v.splat(_16)), v.right(missing, v.splat(_16)))
            short = v.less(one, v.splat(_LOW))
            v.store(states, lane, refilled(one, short, payload, at))
            at += _2 * popcount(short)
            short = v.less(two, v.splat(_LOW))
            v.store(states, lane + _16, refilled(two, short, payload, at))
            at += _2 * popcount(short)
        done += lanes
    cursor[0], cursor[1] = at, done


@primitive
def _left(x: Any, start: Any, missing: Any) -> Any:
    return v.minus(v.minus(x, start), v.times(missing, v.right(x, v.splat(_12))))

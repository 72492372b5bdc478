"""The ggd codec's loops: tables of tokens by class, and decoding where classes depend on what came before."""

from __future__ import annotations

from typing import Any

from numpy import int64, uint8, uint32, uint64

from featherweight.codecs._kernels._primitives import load16le
from featherweight.codecs._kernels._tokens import code_of
from featherweight.codecs._kernels.ggd_models import BITS
from featherweight.codecs._kernels.rans import left
from featherweight.codecs._kernels.rans_tables import enter
from featherweight.kernel import kernel

__all__ = ["decode", "fields", "rows", "slots", "walk"]

_0, _1, _2, _8 = (uint64(value) for value in (0, 1, 2, 8))
_16, _20 = uint64(16), uint64(20)
_LOW = uint64(1 << 15)


@kernel("void(u2[r], u4[w])", brief=True)
def slots(table: Any, entries: Any) -> None:
    """Fill the decoding entries of tables: a code, where its slots start, and what its frequency lacks to all."""
    place = _0
    for row in range(_0, uint64(table.size), uint64(256)):
        start = _0
        for symbol in range(uint64(256)):
            frequency = uint64(table[row + uint64(symbol)])
            entry = code_of(uint64(symbol)) | start << _8 | ((_1 << uint64(BITS)) - frequency) << _20
            for _ in range(frequency):
                entries[place] = uint32(entry)
                place += _1
            start += frequency


@kernel("void(u1[r], u1[r], u8, u8, u8, u8, u1[w])")
def rows(levels: Any, places: Any, blocks: Any, low: Any, high: Any, shift: Any, out: Any) -> None:
    """Fill `out` with the table of each class under quantizer 0; classes below `low` and above `high` are these.

    The class of an element is the sum of the levels of its row and of its place there, which each of the `blocks` of
    rows has of its own. `shift` is 1 where there are two quantizers, else 0.
    """
    least, most, twice = uint8(low), uint8(high), uint8(255 if shift else 0)
    height, width = levels.size // int64(blocks), places.size // int64(blocks)
    for i in range(levels.size):
        row, base, own = out[i * width : (i + 1) * width], levels[i], places[i // height * width :]
        for j in range(width):  # nothing but bytes: LLVM makes no short vectors of wider ones
            level = uint8(base + own[j])
            level = max(level, least)
            level = min(level, most)
            level = uint8(level - least)
            row[j] = uint8(level + (level & twice))


@kernel("void(u2[r], u4[w])", brief=True)
def fields(table: Any, entries: Any) -> None:
    """Fill the encoding entries of tables, which rans_tables describes."""
    for row in range(_0, uint64(table.size), uint64(256)):
        start = _0
        for symbol in range(uint64(256)):
            frequency, place = uint64(table[row + uint64(symbol)]), row + uint64(symbol)
            if frequency:
                start = enter(entries, place, frequency, start, uint64(BITS))


@kernel("void(u4[r], u4[r], u8, u4[w], u1[w])")
def walk(index: Any, nexts: Any, done: Any, states: Any, rows: Any) -> None:
    """Add to the rows of indices from `done` on the quantizer that each is coded by; `states` follows each path."""
    many = uint64(states.size)
    for i in range(done, uint64(index.size)):
        state = uint64(states[i & (many - _1)])
        rows[i] = uint8(uint64(rows[i]) | state & _1)
        states[i & (many - _1)] = nexts[state << _1 | uint64(index[i]) & _1]


@kernel("i8(u1[r], u4[r], u1[r], u4[r], u4[w], u4[w], u8[w], u1[w])")
def decode(payload: Any, entries: Any, rows: Any, nexts: Any, paths: Any, states: Any, cursor: Any, out: Any) -> Any:
    """Decode from byte `cursor[0]` and code `cursor[1]` to the end; -1 where the payload does not end as it must.

    `rows` holds the table of each index under quantizer 0; `paths` is the state of each path, `states` of each lane.
    """
    size, n, lanes, many = uint64(payload.size), uint64(out.size), uint64(states.size), uint64(paths.size)
    at, done, bits, mask = cursor[0], cursor[1], uint64(BITS), (_1 << uint64(BITS)) - _1
    while done < n:
        x, path = uint64(states[done & (lanes - _1)]), uint64(paths[done & (many - _1)])
        entry = uint64(entries[(uint64(rows[done]) | path & _1) << bits | x & mask])
        out[done] = uint8(entry & uint64(255))
        paths[done & (many - _1)] = nexts[path << _1 | entry & _1]
        x = left(entry, x, bits)
        if x < _LOW:
            if size - at < _2:
                return int64(-1)
            x = x << _16 | load16le(payload, at)
            at += _2
        states[done & (lanes - _1)] = uint32(x)
        done += _1
    for lane in range(lanes):
        if uint64(states[lane]) != _LOW:
            return int64(-1)
    return int64(0) if at == size else int64(-1)

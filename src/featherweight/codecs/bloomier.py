"""Keep what is not zero in a Bloomier filter, at the cost of some zeros (Reagen et al., "Weightless", ICML 2018).

Wire: `seed`, u64; `bits` t of a cell, 1 to 16; `codes` c, the largest number stored, at most 2^t.
Streams: `table`, u8, one-dimensional, the low 8 bits of 3 · s cells, none where c = 0; `high`, where t > 8, u8, the
others.
Decoding: out is 0 where c = 0. Else, for the element of flat position v (C order), with random(seed, i) the random
word i of a stream, k = random(seed, 0), A = random(k, 2v), B = random(k, 2v + 1) and cells = table + 256 · high:
y = B ^ cells[⌊(A >> 32) · s / 2^32⌋] ^ cells[s + ⌊(A mod 2^32) · s / 2^32⌋] ^ cells[2s + ⌊(B >> 32) · s / 2^32⌋],
modulo 2^t; out[v] = y + 1 where y < c, else 0.

What was not zero comes back as it was. A zero becomes any of 1 … c, each with probability 2^-t: some c · 2^-t of all
zeros. Three hashes need 1.222 cells a key and a little more (Molloy, "Cores in random hypergraphs and Boolean
formulas", 2005). A fifth of the cells is free, and 0: an entropy coder takes the table to about t + 0.9 bits a key.

>>> import numpy as np
>>> wire, (table,) = Bloomier(8).encode(np.array([0, 3, 0, 1], np.uint8))
>>> wire.codes, table.size
(3, 6)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _random
from featherweight.codecs._kernels import bloomier as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Edge, Encoded, Port, Spec, Wire, check_params, param

__all__ = ["CODEC", "Bloomier", "Filter", "build", "evaluate"]

_BLOCK = 1 << 14  # positions that are looked up at a time
_TOP = (1 << 64) - 1
_TRIALS = 8  # seeds that are tried before the table grows
_MOST = (1 << 16) - 1  # codes
_KEYS = 1 << 26


class BloomierWire(Wire, frozen=True):
    seed: int
    bits: int
    codes: int


class Filter(NamedTuple):
    """Cells, and the seed that they were built with in the end; `high` is empty where 8 bits do."""

    seed: int
    table: Array
    high: Array


def evaluate(found: Filter, bits: int, codes: int, positions: Array, out: Array) -> None:
    """Look up `positions`, u64, into flat `out`, u16: value + 1 where it is below `codes`, else 0."""
    if codes:
        third = np.uint64(found.table.size // 3)
        mask, key = np.uint64((1 << bits) - 1), _key(found.seed)
        if found.high.size:
            kernels.look_wide(found.table, found.high, positions, key, third, mask, np.uint64(codes), out)
        else:
            kernels.look(found.table, positions, key, third, mask, np.uint64(codes), out)
    else:
        out[:] = 0


def _key(seed: int) -> np.uint64:
    words = np.empty(1, np.uint64)
    _random.fill(np.uint64(seed), np.uint64(0), words)
    return np.uint64(words[0])


def _checked(wire: BloomierWire, streams: tuple[Array, ...], dtype: np.dtype[Any]) -> Filter:
    known = 0 <= wire.seed <= _TOP and 1 <= wire.bits <= 16 and 0 <= wire.codes <= min(1 << wire.bits, _MOST)
    if not known or wire.codes >> dtypes.of(dtype).bits:
        raise FrameError(f"{wire.codes} codes in cells of {wire.bits} bits under the seed {wire.seed} for {dtype}")
    if len(streams) != 1 + (wire.bits > 8) or len({stream.size for stream in streams}) > 1:
        raise FrameError(f"cells of {wire.bits} bits in {len(streams)} parts of {[each.size for each in streams]}")
    table, high = (*streams, np.zeros(0, np.uint8))[:2]
    if table.size % 3 or table.size >> 33 or (table.size == 0) != (wire.codes == 0):
        raise FrameError(f"a table of {table.size} cells for {wire.codes} codes")
    return Filter(wire.seed, table, high)


def decode(wire: BloomierWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Look up every position."""
    found, flat = _checked(wire, streams, out.dtype), dtypes.bits_view(out)
    if not wire.codes:
        flat[:] = 0
        return
    words = np.empty(min(_BLOCK, flat.size), np.uint16)
    steps = np.arange(words.size, dtype=np.uint64)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        block = words[: part.size]
        evaluate(found, wire.bits, wire.codes, steps[: part.size] + np.uint64(start), block)
        part[:] = block


def at(wire: BloomierWire, streams: tuple[Edge, ...], given: tuple[Edge, ...], spec: Spec, positions: Array) -> Array:
    """Look up some positions."""
    words = np.empty(positions.size, np.uint16)
    found = _checked(wire, tuple(edge.whole() for edge in streams), spec.dtype)
    evaluate(found, wire.bits, wire.codes, positions, words)
    return words.astype(dtypes.of(spec.dtype).word).view(spec.dtype)


CODEC = Codec(
    "bloomier", BloomierWire, Port("index", "u"), (Port("table", "u", 1, 8), Port("high", "u", 1, 8)), decode, at=at
)


@dataclass(frozen=True)
class Bloomier:
    """Store numbers other than 0 in cells of `bits`; of `extra` more bits than the largest needs where that is 0."""

    codec: ClassVar[Codec] = CODEC
    bits: int = param(0, lo=0, hi=16, doc="bits of a cell, t; 0 for as many as numbers need, and the extra ones")
    extra: int = param(5, lo=0, hi=16, doc="bits beyond those of the numbers: 2^-extra of the zeros are lost")
    seed: int = param(0, lo=0, hi=1 << 32, doc="the first seed that is tried")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Build the filter of what is not 0; raises ArgumentError for numbers that do not fit the cells."""
        flat = dtypes.bits_view(x)
        codes = int(flat.max()) if flat.size else 0
        if codes > _MOST or codes >> dtypes.of(x.dtype).bits:
            raise ArgumentError(f"bloomier: the largest number is {codes}, and may be {_MOST} in {x.dtype}")
        needed = max(codes - 1, 0).bit_length()
        bits = self.bits or min(16, max(1, needed + self.extra))
        if bits < needed:
            raise ArgumentError(f"bloomier(bits={bits}): {codes} codes need {needed}")
        positions = np.flatnonzero(flat)
        values = flat[positions].astype(np.uint16) - np.uint16(1)
        found = _build(positions.view(np.uint64), values, bits, self.seed)
        return Encoded(BloomierWire(found.seed, bits, codes), (found.table, found.high)[: 1 + (bits > 8)])

    def error_bound(self, x: Array, /) -> None:
        """Any zero may become any of the codes."""
        return


def build(positions: Array, values: Array, bits: int, seed: int = 0) -> Filter:
    """Build a filter of cells of `bits` that gives each of `positions` its value, from 0 on.

    Raises ArgumentError for a position that comes twice and a value that does not fit.
    """
    keys, numbers = np.asarray(positions), np.asarray(values)
    if keys.dtype.kind not in "ui" or numbers.dtype.kind not in "ui" or keys.shape != numbers.shape or keys.ndim != 1:
        raise ArgumentError("positions and values are integers in one dimension, as many of one as of the other")
    known = 1 <= bits <= 16 and 0 <= seed <= _TOP
    if not known or (keys.size and not 0 <= int(keys.min()) <= int(keys.max()) < 1 << 62):
        raise ArgumentError(f"bits={bits}, seed={seed}: expected 1 to 16, 64 bits, and positions from 0 to 2^62")
    if keys.size and (int(numbers.min()) < 0 or int(numbers.max()) >> bits):
        raise ArgumentError(f"values from {numbers.min()} to {numbers.max()} do not fit in {bits} bits")
    ordered = np.sort(keys)
    if (ordered[1:] == ordered[:-1]).any():
        raise ArgumentError("a position comes twice")
    return _build(keys.astype(np.uint64), numbers.astype(np.uint16), bits, seed)


def _build(positions: Array, values: Array, bits: int, seed: int) -> Filter:
    """Try seeds until every key can be taken out, with tables so small that about every other seed will do."""
    count = positions.size
    if not count:
        return Filter(seed, np.zeros(0, np.uint8), np.zeros(0, np.uint8))
    if count >= _KEYS:
        raise ArgumentError(f"bloomier: {count} keys are too many for one table: split the array")
    third = -(-(count * 12225 // 10000 + 2 * math.isqrt(count) // 5) // 3)
    keys, places = np.empty(count + 1, np.uint32), np.empty(count + 1, np.uint32)
    for trial in range(1 << 16):
        if trial and trial % _TRIALS == 0:
            third += 1 + third // 64
        tried = (seed + trial) & _TOP
        key, size = _key(tried), 3 * third
        cells, waiting = np.zeros(size, np.uint32), np.empty(size + 1, np.uint32)
        if kernels.count(positions, key, np.uint64(third), cells) < 0:
            continue
        if kernels.peel(positions, key, np.uint64(third), cells, waiting, keys, places) == count:
            table, mask = np.zeros(size, np.uint16), np.uint64((1 << bits) - 1)
            kernels.assign(positions, values, keys[:count], places[:count], key, np.uint64(third), mask, table)
            return Filter(tried, table.astype(np.uint8), (table >> 8).astype(np.uint8)[: size if bits > 8 else 0])
    raise AssertionError("no seed serves a table of many cells a key")

"""Code bytes near their entropy with interleaved asymmetric numeral systems, by tables that classes may choose.

Duda, "Asymmetric numeral systems" (arXiv:1311.2540); Giesen, "Interleaved entropy coders" (arXiv:1402.3392).

Wire: `bits`, 8 to 12: a table has M = 2^bits slots. `lanes`, 0 to 7: there are 2^lanes of them. `tables`, 1 to 64.

Streams: `payload`, bytes: tables, then states, then words. Empty where there are no symbols.

Given: nothing, or up to three integer arrays that broadcast to the shape of the symbols. Their sum modulo 256 is the
class of a symbol. They are ignored where there is one table.

Decoding: The *tables* are bits, each byte's least significant first, and hold nothing but numbers G(k) in Golomb's
exponential code: z zeros (at most 16), a one, z bits r, k bits t, numbers least significant bit first; the value is
(2^z + r - 1) · 2^k + t. First come tables - 1 numbers G(2): table i + 1 begins 1 + G(2) classes after table i, table 0
at class 0 and all at or before class 255; a class has the last table that begins at or before it. Then each table:

1. Which symbols occur, in ascending order: G(2) that do not, 1 + G(2) that do, and G(0): if it is 1, one symbol that
   does not occur and the same again; if it is 0, the rest does not occur.
2. If only one occurs, its frequency is M, and the table ends here. Otherwise p = G(2) and k = G(2), at most 7, and for
   each symbol that occurs a number g = G(k) that leads from level to level, from 0 on: add g / 2 if g is even,
   subtract (g + 1) / 2 if it is odd. Levels are at least 0 and at most 13 · 2^p. The weight of level 0 is 0, of level v
   (2^p + (v - 1) mod 2^p) · 2^⌊(v - 1) / 2^p⌋. Their sum W must not be 0.
3. Let K symbols occur, and let the first j of them weigh S(j) together. The slots of the j-th (from 1) begin at
   start = j - 1 + ⌊S(j - 1) · (M - K) / W⌋ and end where those of the next begin; how many they are is its frequency.

The tables end on a whole byte; bits left over are ignored. If there is one table with one symbol, that is all: every
symbol is this one. Else follow the *states*, 4 bytes for each lane, least significant first, at least 2^15 and below
2^31, and *words* of 2 bytes, least significant first. Symbol i (in C order) is taken from the state x of lane
i mod 2^lanes: slot = x mod M of its table names it; then x = frequency · ⌊x / M⌋ + slot - start, and if this is below
2^15, x = 2^16 · x + the next word. At the end no words are left and all states are 2^15.

>>> import numpy as np
>>> x = np.array([7, 7, 8, 7, 9, 7, 8, 7, 7, 7], np.uint8)
>>> wire, (payload,) = Rans().encode(x)
>>> wire, payload.tobytes().hex(" ")
(RansWire(bits=12, lanes=0, tables=1), 'ba 33 ac 07 aa 62 57 08')
>>> out = np.empty_like(x)
>>> CODEC.decode(wire, (payload,), (), out)
>>> out.tolist()
[7, 7, 8, 7, 9, 7, 8, 7, 7, 7]
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from featherweight.codecs import _interleaved
from featherweight.codecs._classes import PORTS, Classes
from featherweight.codecs._kernels import rans as portable
from featherweight.codecs._kernels import rans_tables
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Rans", "RansWire", "decode"]

_MOST_TABLES = 64
_HEADER = 2048  # bytes, more than any table can take


class RansWire(Wire, frozen=True):
    """What the decoder must know before it reads the payload."""

    bits: Annotated[int, msgspec.Meta(ge=8, le=12)]
    lanes: Annotated[int, msgspec.Meta(ge=0, le=7)]
    tables: Annotated[int, msgspec.Meta(ge=1, le=_MOST_TABLES)]


def decode(wire: RansWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Fill `out` from the payload."""
    payload, flat = streams[0], out.reshape(-1)
    if not flat.size:
        if payload.size:
            raise FrameError("a payload for no symbols")
        return
    bits, firsts = np.uint64(wire.bits), np.empty(wire.tables, np.uint8)
    entries = np.empty(wire.tables << wire.bits, np.uint32)
    cursor, levels = np.zeros(2, np.uint64), np.empty(256, np.uint64)
    header = payload[: _HEADER * wire.tables + 8]
    if header.size == payload.size:
        header = np.concatenate((payload, np.zeros(8, np.uint8)))
    used = rans_tables.read_tables(header, bits, firsts, entries, cursor, levels)
    if used < 0:
        raise FrameError("the payload holds no valid tables")
    if cursor[1] < 256:
        if used != payload.size:
            raise FrameError("bytes follow the only symbol")
        flat.fill(np.uint8(cursor[1]))
        return
    rows = None
    if wire.tables > 1:
        if not given:
            raise FrameError(f"{wire.tables} tables and no classes given")
        rows = _rows(Classes.of(given, out.shape, FrameError), firsts)
    _interleaved.decode(payload, used, 1 << wire.lanes, wire.bits, entries, rows, flat, levels)


CODEC = Codec(
    name="rans",
    wire=RansWire,
    out=Port("symbols", "u", bits=8),
    streams=(Port("payload", "u", 1, 8),),
    decode=decode,
    given=PORTS,
)


@dataclass(frozen=True, slots=True)
class Rans:
    """Code bytes near their entropy; by the class of each where classes are given."""

    tables: int = param(16, lo=1, hi=_MOST_TABLES, doc="the most tables that classes may choose among")

    codec: ClassVar[Codec] = CODEC
    blind: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Count, choose tables, and code from the last symbol to the first."""
        flat = x.reshape(-1)
        if flat.size >= 1 << 32:
            raise ArgumentError(f"{flat.size} symbols at once; split them into pieces")
        if not flat.size:
            return Encoded(RansWire(8, 0, 1), (np.empty(0, np.uint8),))
        logs, levels, sizes, cursor = _logs(), *np.empty((2, 256), np.uint64), np.zeros(2, np.uint64)
        if given and self.tables > 1:
            classes, counts = Classes.of(given, x.shape, ArgumentError), np.zeros(1 << 16, np.uint32)
            rans_tables.count_classes(flat, classes.each(), counts)
            starts, costs, joint = np.zeros((3, 256), np.uint64)
            tables = rans_tables.merge(counts, np.uint64(self.tables), logs, starts, costs, joint)
            firsts = starts[:tables].astype(np.uint8)
            firsts[0] = 0
        else:
            counts, firsts = np.zeros(4 << 8, np.uint32), np.zeros(1, np.uint8)
            rans_tables.count(flat, counts)
            counts = counts.reshape(4, 256).sum(0, dtype=np.uint32)
        tables = firsts.size
        scale = _bits(tables)
        bits, header = np.uint64(scale), np.zeros(_HEADER * tables + 8, np.uint8)
        entries = np.empty(tables << 9, np.uint32)
        used = rans_tables.write_tables(counts, bits, firsts, logs, levels, sizes, entries, header, cursor)
        if tables == 1 and np.count_nonzero(counts[:256]) == 1:
            return Encoded(RansWire(scale, 0, 1), (header[:used].copy(),))
        lanes, rows = _lanes(flat.size, int(cursor[1])), None if tables == 1 else _rows(classes, firsts)
        coded = _interleaved.encode(flat, 1 << lanes, scale, entries, rows)
        return Encoded(RansWire(scale, lanes, tables), (np.concatenate((header[:used], coded)),))

    def error_bound(self, x: Array, /) -> float | None:
        """Nothing is lost."""
        return 0.0


def _rows(classes: Classes, firsts: Array) -> Array:
    """Return the table of each symbol."""
    if len(classes.rows) > 1 or classes.rows.size == 1:
        return _chosen(classes.each(), firsts)
    (levels,), (places,) = classes
    # There are few levels, and rows of one level have their tables in common.
    occurs = np.bincount(levels, minlength=256) > 0
    each = np.flatnonzero(occurs).astype(np.uint8)[:, None] + places
    rows = _chosen(each.reshape(-1), firsts).reshape(each.shape)
    found: Array = np.take(rows, (np.cumsum(occurs) - 1)[levels], axis=0).reshape(-1)
    return found


def _chosen(classes: Array, firsts: Array) -> Array:
    rows = np.empty_like(classes)
    portable.choose_tables(classes, firsts, rows)
    return rows


def _bits(tables: int) -> int:
    """Choose how many slots a table has: all of them together should stay near the processor."""
    return 12 if tables <= 16 else 11


def _lanes(n: int, bits: int) -> int:
    """Choose how many lanes, as a power of two: each costs about 24 bits and lets the decoder do more at once."""
    return min(max(bits // 12288, n >> 14, 1).bit_length() - 1, 7)


@functools.cache
def _logs() -> Array:
    """Return log2(1 + i / 256) in 2^-20 for i = 0 … 256, by integers alone."""
    logs = []
    for i in range(256):
        value, result = (256 + i) << 56, 0
        for _ in range(20):  # squaring doubles the logarithm, whose integer part is then the next bit
            value = value * value >> 64
            whole = value >> 65
            value, result = value >> whole, result << 1 | whole
        logs.append(result)
    logs.append(1 << 20)
    return np.array(logs, np.uint32)

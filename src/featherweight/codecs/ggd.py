"""Code quantized weights by rANS under generalised Gaussian models, by scale class and trellis state.

An index is taken to come from a generalised Gaussian whose scale follows from its class and whose shape is one of the
wire's few numbers, so that no tables are sent and small tensors cost next to nothing. Behind a trellis (Marcellin and
Fischer, "Trellis coded quantization of memoryless and Gauss-Markov sources", 1990) the quantizer, which the parities
of earlier indices decide, is part of the class.

Wire: `lanes`, `paths` (base-2 logarithms, 0 to 7, lanes ≤ paths), `states` (0 without a trellis, else 4, 8, … 128),
`low`, `classes`, `model` = (scale, slope, shape, bend, zero, zero1).

Streams: `payload`, bytes: states of 4 bytes for each lane, then words, as those of rans; `rest`, bytes: bits, least
significant first, that tokens leave open; `shares`, i8, at most 76: by how many eighths of an octave the sizes weigh
more than the model says, those of weights that were pruned, say. A token below 63 is of the size number (t + 1) >> 1,
others of 32 + ((t - 63) >> 2).

Given: nothing, or up to three integer arrays that broadcast to the shape of the indices. Their sum modulo 256 is the
class of an index; classes below `low` count as `low`, those from low + classes on as the last.

Decoding: Index i is coded by the rANS of the codec rans, with 12 bits of precision, in lane i mod 2^lanes, under the
table of its class and, with a trellis, of the quantizer q, the lowest bit of the state of path i mod 2^paths; paths
begin in state 0 and go on by the parity of the index (see trellis). Without, q = 0.

*Tokens.* Below 63, token t means index (t + 1) >> 1, negative if t is odd. From 63 to 238, let u = t - 63,
e = 5 + (u >> 4): the size of the index has the bit e, below it the two bits (u >> 2) & 3, then e - 3 bits of `rest`,
then the bit (u >> 1) & 1; it is negative if u is odd. Tokens 254 (odd indices) and 255 (even ones) are followed in
`rest` by 8 bits, the token itself. Others do not occur.

*Tables.* lg(x) is ⌊log2 x⌋ · 4096 + L[the 8 bits below the highest], L[i] = log2(1 + i / 256) in 4096ths, rounded;
ex(y) = 2^(y >> 12) · (4096 + (f · (2689 + ((f · 1407) >> 12)) >> 12)) with f = y & 4095, shifted without rounding, 0 if
y >> 12 < -14. For class c: A = scale + slope · c, b = shape + ((bend · A) >> 8) kept in 16 … 256. Token 0 weighs
ex(20 · 4096 + 256 · z) >> 12, z being zero or, for q = 1, zero1. A token of the index size k below 32 has the
distance d = lg(2 k - q) - 64 A, a larger one that of its middle size, k = the size with `rest` all 0 and bit 0 off,
plus 2^(e - 3). Its power is p = (b · d) >> 6; it weighs 0 if p > 6 · 4096, else (ex(20 · 4096 - ex(p)) · m) >> 12,
where m is 1 or 2^(e - 3); after the first token above 1 that weighs 0 all weigh 0. If there is a share s for its size,
a token's weight, at least 1, then becomes (weight · ex(512 s)) >> 12. With W their sum, a token has a frequency if its
weight times 2^13 is W or more: max(1, ⌊(4094 weight + ⌊W / 2⌋) / W⌋). What these lack to 4094 goes to the first of the
most frequent; what they exceed it by is taken one by one, in order, round after round, from those above 1. Tokens 254
and 255 have the frequency 1 each.

>>> import numpy as np
>>> x = np.array([0, 1, -1, 0, 2, 0, 0, -1], np.int8)
>>> wire, streams = Ggd().encode(x)
>>> out = np.empty_like(x)
>>> CODEC.decode(wire, streams, (), out)
>>> out.tolist()
[0, 1, -1, 0, 2, 0, 0, -1]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import msgspec
import numpy as np

from featherweight import dtypes
from featherweight.codecs import _interleaved
from featherweight.codecs._classes import PORTS, Classes
from featherweight.codecs._kernels import _machines, _models, _tokens, ggd_models
from featherweight.codecs._kernels import ggd as portable
from featherweight.codecs._kernels import ggd_simd as simd
from featherweight.codecs._kernels._vector import AVX2, WIDTH
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.kernel import features
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Ggd", "GgdWire", "decode"]

_MOST_TABLES = 64
_MANY = 1 << 17  # indices that take long, however few their bits are
_Log = Annotated[int, msgspec.Meta(ge=0, le=7)]
_Small = Annotated[int, msgspec.Meta(ge=-8192, le=8192)]


class GgdWire(Wire, frozen=True):
    """What the decoder must know before it reads the payload."""

    lanes: _Log
    paths: _Log
    states: int
    low: Annotated[int, msgspec.Meta(ge=0, le=255)]
    classes: Annotated[int, msgspec.Meta(ge=1, le=_MOST_TABLES)]
    model: tuple[_Small, _Small, _Small, _Small, _Small, _Small]


def decode(wire: GgdWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Fill `out` from payload and rest."""
    if wire.states and wire.states not in _machines.STATES:
        raise FrameError(f"a trellis of {wire.states} states is none of {_machines.STATES}")
    quantizers = 2 if wire.states else 1
    if wire.classes * quantizers > _MOST_TABLES or wire.lanes > wire.paths:
        raise FrameError(f"{wire.classes} classes, {wire.lanes} and {wire.paths}: too many")
    payload, rest = streams[0], streams[1] if len(streams) > 1 else np.empty(0, np.uint8)
    shares = streams[2] if len(streams) > 2 else _models.NONE
    if shares.size > ggd_models.SIZES:
        raise FrameError(f"{shares.size} shares for {ggd_models.SIZES} sizes")
    flat = out.reshape(-1)
    if not flat.size:
        if payload.size or rest.size:
            raise FrameError("a payload for no indices")
        return
    entries = np.empty(wire.classes * quantizers << ggd_models.BITS, np.uint32)
    portable.slots(_models.tables(wire.model, wire.low, wire.classes, quantizers, shares), entries)
    rows = None
    if given or wire.states:
        rows, high = np.empty(flat.size, np.uint8), min(wire.low + wire.classes - 1, 255)
        Classes.of(given, out.shape, FrameError).tables(wire.low, high, quantizers, rows)
    codes = flat.view(np.uint8) if flat.dtype == np.int8 else np.empty(flat.size, np.uint8)
    if wire.states and rows is not None:
        _walked(wire, payload, entries, rows, codes)
    else:
        _interleaved.decode(payload, 0, 1 << wire.lanes, ggd_models.BITS, entries, rows, codes)
    read = _indices(codes, rest, flat)
    if read < 0 or read + 7 >> 3 != rest.size:
        raise FrameError("the rest of large indices is not what their tokens say")


def _walked(wire: GgdWire, payload: Array, entries: Array, rows: Array, codes: Array) -> None:
    """Decode what paths through a trellis have part in."""
    states = _interleaved.states_at(payload, 0, 1 << wire.lanes)
    nexts, paths = _machines.nexts(wire.states), np.zeros(1 << wire.paths, np.uint32)
    cursor = np.array([_interleaved.STATE * states.size, 0], np.uint64)
    if states.size >= WIDTH and features() >= AVX2 and codes.size >= states.size:
        simd.decode(payload, entries, rows, nexts, paths, states, cursor, codes)
    if portable.decode(payload, entries, rows, nexts, paths, states, cursor, codes) < 0:
        raise FrameError("the payload does not end where its indices do")


def _indices(codes: Array, rest: Array, out: Array) -> int:
    bits = dtypes.of(out.dtype).bits
    half = 1 << min(bits, 32) - 1
    if bits in _tokens.INDICES:
        return int(_tokens.INDICES[bits](codes, rest, out, -half, half - 1))
    plain = np.empty(out.size, np.int32)
    read = int(_tokens.INDICES[32](codes, rest, plain, -half, half - 1))
    if read >= 0:
        out[:] = plain.astype(out.dtype)
    return read


CODEC = Codec(
    name="ggd",
    wire=GgdWire,
    out=Port("index", "i"),
    streams=(Port("payload", "u", 1, 8), Port("rest", "u", 1, 8), Port("shares", "i", 1, 8)),
    decode=decode,
    given=PORTS,
)


@dataclass(frozen=True, slots=True)
class Ggd:
    """Code quantized weights near their entropy under models by scale class; after a trellis by its states, too."""

    states: int = param(0, lo=0, hi=128, doc="states of the trellis that the indices come from, 0 for none")
    resolution: int = param(4, lo=1, hi=64, doc="classes that an octave of scale has")

    codec: ClassVar[Codec] = CODEC
    blind: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_params(self)
        if self.states and self.states not in _machines.STATES:
            raise ArgumentError(f"ggd(states={self.states}): expected 0 or one of {_machines.STATES}")

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Count, fit the model, and code from the last index to the first."""
        flat = x.reshape(-1)
        if not flat.size:
            return Encoded(GgdWire(0, 0, self.states, 0, 1, _models.START), (np.empty(0, np.uint8),))
        if flat.size >= 1 << 32:
            raise ArgumentError(f"{flat.size} indices at once; split them into pieces")
        if flat.dtype.itemsize > 2 and (flat.min() <= -(1 << 16) or flat.max() >= 1 << 16):
            raise ArgumentError("an index has 2^16 or more: take a larger step")
        index = flat if flat.dtype == np.int8 and not self.states else flat.astype(np.int32, copy=False)
        paths = _machines.path_bits(flat.size)
        classes = Classes.of(given, x.shape, ArgumentError)
        quantizers = 2 if self.states else 1
        low, count = _range(classes.counted(), quantizers)
        rows, counts, tokens = _counted(index, classes, low, count, self.states, paths)
        model, shares, table = _models.suited(counts, low, quantizers, 64 // self.resolution)
        # A token leaves at most 12 bits open, after an escape 8 more.
        large = int(counts.reshape(-1, 256)[:, _tokens.DIRECT :].sum())
        rest = np.zeros(large * 3 + _escapes(counts, table) + 8, np.uint8)
        used = int(_tokens.TOKENIZE[index.itemsize](index, rows, table, tokens, rest)) + 7 >> 3
        lanes = min(paths, _lane_bits(int(ggd_models.cost(counts, table, _models.logs())) >> 12, flat.size))
        payload = _coded(tokens, rows, table, lanes)
        wire = GgdWire(lanes, paths, self.states, low, count, model)  # type: ignore[arg-type]  # it has six
        streams = payload, rest[:used].copy(), shares
        return Encoded(wire, streams if shares.size else streams[: 2 if used else 1])

    def error_bound(self, x: Array, /) -> float | None:
        """Nothing is lost."""
        return 0.0


def _lane_bits(bits: int, size: int) -> int:
    """Return the base-2 logarithm of the lanes: each costs about 24 bits and lets the decoder do more at once.

    Many indices take long however few their bits are. Sixteen lanes are a vector, with which the decoder is three times
    as fast: they may cost half as much again, and some percent of the few bits of many indices. With two vectors it
    is twice as fast as with one, which waits for itself.
    """
    lanes = min(max((2 * bits + size) // 12000, 1).bit_length() - 1, 7)
    if bits >= WIDTH * 4096:
        return max(lanes, 5 if size >= _MANY else 4)
    return max(lanes, 4) if size >= _MANY and bits >= WIDTH * 512 else lanes


def _escapes(counts: Array, table: Array) -> int:
    return int(counts[table == 0].sum())


def _range(seen: Array, quantizers: int) -> tuple[int, int]:
    """Return the first class and how many: of far more than tables allow, those at the ends are put together."""
    most = min(_MOST_TABLES // quantizers, 40)
    here = np.nonzero(seen >= min(256, int(seen.max()), int(seen.sum()) >> 6))[0]
    low, high = int(here[0]), int(here[-1])
    while high - low >= most:
        if seen[low] < seen[high]:
            low += 1
        else:
            high -= 1
    return low, high - low + 1


def _counted(
    index: Array, classes: Classes, low: int, count: int, states: int, paths: int
) -> tuple[Array, Array, Array]:
    quantizers = 2 if states else 1
    rows = np.empty(index.size, np.uint8)
    classes.tables(low, low + count - 1, quantizers, rows)
    if states:
        _machines.walk(index, states, paths, rows)
    tokens, counts = _models.counted(index, rows, count * quantizers)
    return rows, counts, tokens


def _coded(tokens: Array, rows: Array, table: Array, lanes: int) -> Array:
    entries = np.zeros(2 * table.size, np.uint32)
    portable.fields(table, entries)
    return _interleaved.encode(tokens, 1 << lanes, ggd_models.BITS, entries, rows if table.size > 256 else None)

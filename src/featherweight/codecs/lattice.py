"""Quantize to the nearest points of a lattice, with a dither that makes the error independent of the weights.

Universal randomized lattice quantization: Ziv, "On universal quantization" (1985); Zamir and Feder, "On lattice
quantization noise" (1996); for networks Choi, El-Khamy and Lee, "Universal deep neural network compression"
(arXiv:1802.02271). The lattices and their parities are those of Conway and Sloane, "Fast quantizing and decoding
algorithms for lattice quantizers and codes" (1982).

Wire: `lattice`, 0 to 4: Z, A2, D4, E8, Leech's; `step`, the edge of a cube of the volume that a point has to itself, so
that the same step gives about the same rate in each lattice; `seed` of the dither, none without; `common`, how many
successive elements share a dither (only with Z, else 1).

Streams: `coset`, u8 (blocks, 1), 0 or 1; `index`, signed integers; `rest`, signed integers, with A2, E8 and Leech's. A
block is a point: n = 1, 2, 4, 8 or 24 successive elements, the last block filled up with elements that are not there.
With Z the coset is empty, (0), and the index has the shape of the array; else it has (blocks, columns) with 1, 4, 7 or
11 columns, and the rest 1, 1 or 13. Each stream comes near its entropy by itself; *given* the coset a little nearer,
where steps are coarse.

Decoding: a block's integers y follow from its m (the coset), i (index) and r (rest):
Z: y = i. A2: y = (m + 2 i, m + 2 r). D4: y = m + 2 i (this is D4 turned: coordinates all even or all odd).
E8: y = m + 2 z with z_1 … z_7 = i and z_8 = 2 r + (the parity of z_1 + … + z_7).
Leech: y = m + 2 c + 4 k. c_1 … c_11 and k_1 … k_11 are the lowest bits of i and the rest of them: i = c + 2 k;
k_12 … k_23 = r_1 … r_12; c_12 is the lowest bit of r_13; with it r_13 = c_12 + 2 h, and k_24 = 2 h + (the parity of
m + k_1 + … + k_23). c_13 … c_24 are the exclusive or of twelve-bit words, the first bit the lowest, those for
which c_1 … c_12 is 1: 25f 727 b8b 1f3 5cd c75 6b9 96e ab6 cda f1c fe0 (hexadecimal); c is a word of Golay's code.

The elements are (y - u) · s, in double precision where they are F64, else in single, then rounded to their type. s is
step times 1 (Z), 0.5372849659117709 and 0.9306048591020996 (first and second of A2), 0.5946035575013605 (D4), 0.5 (E8),
0.35355339059327373 (Leech), rounded to that precision. u is 0 without a seed. Else let e be the number of the element,
divided by `common`, ⌊⌋; bits 8 to 31 (e even) or 40 to 63 (e odd) of random word ⌊e / 2⌋ of the seed make b, and
u = (b · 2^-24 - 1/2) · w. w is 1 (Z), 2 and 1 (A2), 1, 2, 2, 2 (D4), 1, six times 2, 4 (E8), 1, eleven times 2, eleven
times 4, 8 (Leech's): a box that holds each point of space once, modulo the lattice.

So the error is what the cell of the lattice holds, uniformly, whatever the weights. With `common` above 1 the same
weights next to each other still give the same indices next to each other, which dictionary coders see.

>>> import numpy as np
>>> x = np.array([0.26, -0.11, 0.52, 0.07], np.float32)
>>> wire, streams = Lattice("d4", 0.1).encode(x)
>>> [each.tolist() for each in streams]
[[[1]], [[2, -1, 4, 0]]]
>>> out = np.empty_like(x)
>>> CODEC.decode(wire, streams, (), out)
>>> out.astype(float).round(3).tolist()
[0.297, -0.059, 0.535, 0.059]
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import ml_dtypes
import msgspec
import numpy as np

from featherweight.codecs._kernels import _floats
from featherweight.codecs._kernels import lattice as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "LATTICES", "Lattice", "LatticeWire", "decode", "nearest"]

_LEAST, _MOST = 1e-30, 1e30
_SPAN = 1 << 15  # elements at once: what lies between stays in the cache
_GOLAY = (0x25F, 0x727, 0xB8B, 0x1F3, 0x5CD, 0xC75, 0x6B9, 0x96E, 0xAB6, 0xCDA, 0xF1C, 0xFE0)
# Where the coordinates of Leech's lattice stand in the six columns of four rows that its kernel works on.
_PLACES = (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 16, 7, 11, 13, 14, 15, 17, 18, 19, 20, 21, 22, 23)
_SLOTS = tuple(_PLACES.index(i) for i in range(24))
_PATTERNS = np.array([0, 15, 12, 3, 10, 5, 6, 9, 14, 1, 2, 13, 4, 11, 8, 7], np.uint8)


class _Cell(NamedTuple):
    """A lattice: its units in steps, the widths of its dither, the largest error of an element in steps."""

    scales: tuple[float, ...]
    widths: tuple[float, ...]
    reach: float
    columns: tuple[int, int]  # of the index and the rest

    @property
    def n(self) -> int:
        return len(self.scales)


_CELLS = (
    _Cell((1.0,), (1.0,), 0.5, (1, 0)),
    _Cell((0.5372849659117709, 0.9306048591020996), (2.0, 1.0), 0.6204032394013998, (1, 1)),
    _Cell((0.5946035575013605,) * 4, (1.0, 2.0, 2.0, 2.0), 0.5946035575013605, (4, 0)),
    _Cell((0.5,) * 8, (1.0, *(2.0,) * 6, 4.0), 1.0, (7, 1)),
    _Cell((0.35355339059327373,) * 24, (1.0, *(2.0,) * 11, *(4.0,) * 11, 8.0), math.sqrt(2), (11, 13)),
)
LATTICES = ("z", "a2", "d4", "e8", "leech")
"""Names of the lattices; their numbers count from 0."""


class LatticeWire(Wire, frozen=True):
    """What the decoder must know before it reads the streams."""

    lattice: Annotated[int, msgspec.Meta(ge=0, le=len(LATTICES) - 1)]
    step: float
    seed: Annotated[int, msgspec.Meta(ge=0)] | None = None
    common: Annotated[int, msgspec.Meta(ge=1, le=1 << 16)] = 1


def decode(wire: LatticeWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Fill `out` with points."""
    cell, flat = _CELLS[wire.lattice], out.reshape(-1)
    if not _LEAST <= wire.step <= _MOST or (wire.seed or 0) >> 64 or (wire.common > 1 and cell.n > 1):
        raise FrameError(f"step {wire.step}, seed {wire.seed}, common {wire.common} do not go together")
    if out.dtype == ml_dtypes.float8_e8m0fnu:
        raise FrameError("points are no numbers of a type without sign and zero")
    blocks = -(-flat.size // cell.n)
    shapes = [(blocks, 1), (blocks, cell.columns[0]), (blocks, cell.columns[1])][: 2 + bool(cell.columns[1])]
    if [each.shape for each in streams] != (shapes if cell.n > 1 else [(0,), out.shape]):
        raise FrameError(f"streams of {[list(each.shape) for each in streams]} for {list(out.shape)}")
    if any(each.itemsize > 4 for each in streams) or streams[0].max(initial=0) > 1:
        raise FrameError("an index or a coset is out of range")
    kind = np.float64 if out.dtype == np.float64 else np.float32
    with np.errstate(over="ignore"):
        if cell.n == 1:
            _decode_integers(wire, streams[1].reshape(-1), kind, flat)
            return
        scales = np.array(cell.scales) * wire.step
        for begin, end in _spans(blocks, cell.n):
            rows: Array = _join(wire.lattice, *(each[begin:end].T.astype(np.int32) for each in streams)).astype(kind)
            if wire.seed is not None:
                rows -= _dither(cell, wire.seed, begin, end)
            rows *= scales.astype(kind)[:, None]
            target = flat[begin * cell.n : end * cell.n]
            if target.dtype == kind and target.size == rows.size:
                target.reshape(-1, cell.n)[...] = rows.T
            else:
                _floats.round_into(np.ascontiguousarray(rows.T).reshape(-1)[: target.size], target)


def _decode_integers(wire: LatticeWire, index: Array, kind: type[Any], out: Array) -> None:
    room = np.empty(min(_SPAN, out.size), kind)
    scale = kind(wire.step)
    for begin, end in _spans(out.size, 1):
        target = out[begin:end]
        values = target if target.dtype == kind else room[: end - begin]
        np.copyto(values, index[begin:end], casting="unsafe")
        if wire.seed is not None:
            values -= _dither_integers(wire.seed, wire.common, begin, end)
        values *= scale
        if values is not target:
            _floats.round_into(values, target)


CODEC = Codec(
    name="lattice",
    wire=LatticeWire,
    out=Port("weights", "f"),
    streams=(Port("coset", "u", bits=8), Port("index", "i"), Port("rest", "i", 2)),
    decode=decode,
)


@dataclass(frozen=True)
class Lattice:
    """Quantize to a lattice."""

    lattice: str = param("z", choices=LATTICES, doc="which lattice: 1, 2, 4, 8 or 24 elements are a point")
    step: float = param(0.01, lo=_LEAST, hi=_MOST, doc="edge of a cube as large as the cell of a point")
    dither: bool = param(False, doc="shift by what is subtracted again, so that errors do not depend on weights")
    seed: int = param(0, lo=0, hi=(1 << 63) - 1, doc="of the dither")
    common: int = param(1, lo=1, hi=1 << 16, doc="successive elements that share a dither; with z only")

    codec: ClassVar[Codec] = CODEC

    def __post_init__(self) -> None:
        check_params(self)
        if self.common > 1 and self.lattice != "z":
            raise ArgumentError(f"lattice(common={self.common!r}): a dither is shared with the lattice z only")

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Find the nearest point of each block; raises ArgumentError for what is not finite or too many steps away."""
        number, flat = LATTICES.index(self.lattice), x.reshape(-1)
        cell = _CELLS[number]
        kind = np.float64 if x.dtype == np.float64 else np.float32
        most = self._check(x)
        wire = LatticeWire(
            number, float(self.step), self.seed if self.dither else None, self.common if self.dither else 1
        )
        top = most / (self.step * min(cell.scales)) + max(cell.widths) / 2 + 5
        top = top if cell.n == 1 else top / 2 + 1
        integers = np.dtype(np.int8 if top < 1 << 7 else np.int16 if top < 1 << 15 else np.int32)
        scales = (np.array(cell.scales) * self.step).astype(kind)
        inverses = (1 / scales.astype(np.float64)).astype(kind)[:, None]
        if cell.n == 1:
            index = np.empty(flat.size, integers)
            _encode_integers(wire, flat, inverses[0, 0], index)
            return Encoded(wire, (np.empty(0, np.uint8), index.reshape(x.shape)))
        blocks, whole = -(-flat.size // cell.n), flat.size // cell.n
        streams = [np.empty((blocks, 1), np.uint8), np.empty((blocks, cell.columns[0]), integers)]
        if cell.columns[1]:
            streams.append(np.empty((blocks, cell.columns[1]), integers))
        last = np.zeros((1, cell.n), x.dtype)
        last[0, : flat.size - whole * cell.n] = flat[whole * cell.n :]
        parts = [
            (*span, flat[span[0] * cell.n : span[1] * cell.n].reshape(-1, cell.n)) for span in _spans(whole, cell.n)
        ]
        for begin, end, part in [*parts, (whole, blocks, last)] if whole < blocks else parts:
            rows = np.ascontiguousarray(part.T.astype(kind))
            rows *= inverses
            if wire.seed is not None:
                rows += _dither(cell, wire.seed, begin, end)
            for stream, found in zip(streams, _split(number, _search(number, rows)), strict=False):
                stream[begin:end] = found.T
        return Encoded(wire, tuple(streams))

    def _check(self, x: Array) -> float:
        """Return the largest magnitude, if it can be coded."""
        if x.dtype == ml_dtypes.float8_e8m0fnu:
            raise ArgumentError(
                "a type without sign and zero has no points of a lattice: code this array with lossless"
            )
        most = _floats.biggest(_floats.wide(x))
        if not math.isfinite(most):
            raise ArgumentError("an element is not finite: code this array with lossless")
        steps = most / (self.step * min(_CELLS[LATTICES.index(self.lattice)].scales))
        if steps >= (1 << 30 if x.dtype == np.float64 else 1 << 22):
            raise ArgumentError(
                f"an element of {most:.3g} is too many steps of {self.step:.3g} away: take a larger step, "
                "or code this array with lossless"
            )
        return most

    def error_bound(self, x: Array, /) -> float:
        """Return the reach of a cell, and what arithmetic and the type of the elements add."""
        cell, most = _CELLS[LATTICES.index(self.lattice)], self._check(x)
        bound = self.step * (cell.reach + 2.0**-16)
        far = most + self.step * (cell.reach + 2 * max(cell.widths))
        bound += far * (2.0**-49 if x.dtype == np.float64 else 2.0**-21)
        limits = ml_dtypes.finfo(x.dtype)
        return bound + far * float(limits.eps) * 0.5001 + float(limits.smallest_subnormal)


def nearest(points: Array, lattice: str) -> Array:
    """Return the points, f64, of a lattice of step 1 that are nearest to points given in rows.

    What is nearest is decided in single precision. Raises ArgumentError where there are not as many coordinates as the
    lattice has.
    """
    number = LATTICES.index(lattice)
    cell = _CELLS[number]
    if points.ndim != 2 or points.shape[1] != cell.n:
        raise ArgumentError(f"points of {lattice} have {cell.n} coordinates, not the shape {list(points.shape)}")
    if cell.n == 1:
        return np.rint(points.astype(np.float64))
    scales = np.array(cell.scales)[:, None]
    found: Array = (_search(number, np.ascontiguousarray(points.T / scales)) * scales).T
    return found


def _spans(count: int, n: int) -> Iterator[tuple[int, int]]:
    size = _SPAN // n
    for begin in range(0, count, size):
        yield begin, min(begin + size, count)


def _dither(cell: _Cell, seed: int, begin: int, end: int) -> Array:
    """Return the dither of some blocks, a row a coordinate."""
    rows = np.empty((cell.n, end - begin), np.float32)
    kernels.dither(np.uint64(seed), np.uint64(begin), np.array(cell.widths, np.float32), rows)
    return rows


def _dither_integers(seed: int, common: int, begin: int, end: int) -> Array:
    """Return the dither of some elements of which `common` at a time share one."""
    first, last = begin // common & -2, (end - 1) // common + 1
    values = np.empty(last - first + 1 & -2, np.float32)
    kernels.dither_one(np.uint64(seed), np.uint64(first >> 1), values)
    if common > 1:
        values = np.repeat(values, common)
    start = begin - first * common
    return values[start : start + end - begin]


def _encode_integers(wire: LatticeWire, flat: Array, inverse: Any, index: Array) -> None:
    room = np.empty(min(_SPAN, flat.size), inverse.dtype)
    for begin, end in _spans(flat.size, 1):
        values = room[: end - begin]
        np.multiply(flat[begin:end].astype(inverse.dtype, copy=False), inverse, out=values)
        if wire.seed is not None:
            values += _dither_integers(wire.seed, wire.common, begin, end)
        np.rint(values, out=values)
        np.copyto(index[begin:end], values, casting="unsafe")


def _search(number: int, rows: Array) -> Array:
    """Return the nearest points, in their units, to points whose coordinates are rows; changes these."""
    base: Array = np.rint(rows * rows.dtype.type(0.125))
    base *= 8
    rows -= base
    part, y = rows.astype(np.float32, copy=False), np.empty(rows.shape, np.int32)
    if number == 4:
        kernels.leech(part[list(_SLOTS)], _PATTERNS, _hexacode(), *kernels.scratch(), y)
        y = y[list(_PLACES)]
    else:
        finders: dict[int, Callable[..., None]] = {1: kernels.a2, 2: kernels.d4, 3: kernels.e8}
        finders[number](part, y)
    y += base.astype(np.int32)
    return y


def _split(number: int, y: Array) -> tuple[Array, ...]:
    """Return coset, index and rest of points, as rows."""
    m = y[:1] & 1
    half = (y - m) >> 1
    if number == 1:
        return m, half[:1], half[1:]
    if number == 2:
        return m, half
    if number == 3:
        return m, half[:7], half[7:] >> 1
    rest = half[11:] >> 1
    rest[12] = (rest[12] & -2) | (half[11] & 1)
    return m, half[:11], rest


def _join(number: int, m: Array, index: Array, rest: Array | None = None) -> Array:
    """Return the points from coset, index and rest; whatever these are, points result."""
    if rest is None:
        points: Array = m + 2 * index
        return points
    if number == 1:
        return np.concatenate((m + 2 * index, m + 2 * rest))
    if number == 3:
        last = 2 * rest + (np.bitwise_xor.reduce(index, axis=0) & 1)
        return np.concatenate((m + 2 * index, m + 2 * last))
    y = np.empty((24, m.size), np.int32)
    message = rest[12] & 1
    y[11] = 2 * message
    for i in range(10, -1, -1):
        message = 2 * message + (index[i] & 1)
    odd = np.bitwise_xor.reduce(index >> 1, axis=0) ^ np.bitwise_xor.reduce(rest[:12], axis=0) ^ m[0]
    y[:11] = 2 * index
    y[11] += 4 * rest[0]
    y[12:] = 4 * rest[1:]
    y[23] += 4 * ((odd & 1) - (rest[12] & 1))
    word = _golay()[message]
    for j in range(12):
        y[12 + j] += 2 * (word >> j & 1)
    y += m
    return y


@functools.cache
def _golay() -> Array:
    """Return the last twelve bits of the words of Golay's code, by their first twelve."""
    words = np.zeros(1, np.int32)
    for each in _GOLAY:
        words = np.concatenate((words, words ^ np.int32(each)))
    return words


@functools.cache
def _hexacode() -> Array:
    """Return the 64 words of the hexacode: a, b, c and the values of a x² + b x + c at 1, ω and ω²."""

    def times(a: int, b: int) -> int:
        return (a + b - 2) % 3 + 1 if a and b else 0

    words = []
    for number in range(64):
        a, b, c = number >> 4, number >> 2 & 3, number & 3
        words += [a, b, c, *(times(a, times(x, x)) ^ times(b, x) ^ c for x in (1, 2, 3))]
    return np.array(words, np.uint8)

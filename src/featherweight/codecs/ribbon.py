"""Keep what is not zero in a bumped ribbon: `bloomier` in a fifth less (Dillinger et al., arXiv:2109.01892).

Wire: `seed`, u64; `bits` t, 1 to 16; `codes` c, the largest number stored, at most 2^t; `layers`, up to 64 numbers of
blocks B, each at most 2^25.
Streams: `table`, u64, one-dimensional, of B · t words for each layer in order; `levels`, u2, one-dimensional, of
⌈(64 · B - 63) / 128⌉ for each layer with blocks, in order.
Decoding: the element of flat position v (C order) is looked up in layer after layer, those without blocks left out,
until one does not bump it; out[v] is 0 where all do, and where there are none. In layer l with B blocks, with
random(seed, i) the random word i of a stream: k = random(seed, l), A = random(k, 2v), C = random(k, 2v + 1) | 1,
s = ⌊(A >> 32) · (64 · B - 63) / 2^32⌋. It is bumped where s mod 128 is below (0, 20, 56, 128)[levels[⌊s / 128⌋]].
Else bit j of y, for j < t, is bit j of A, and flipped for each i < 64 where bit i of C is 1 and bit (s + i) mod 64 of
table[⌊(s + i) / 64⌋ · t + j] too; out[v] = y + 1 where y < c, else 0.

What was not zero comes back as it was. A zero becomes any of 1 … c, each with probability 2^-t: some c · 2^-t of all
zeros. The whole takes about 1.01 t bits a key for 10,000 keys, 1.005 t for more, and cannot be compressed further.

>>> import numpy as np
>>> wire, (table, levels) = Ribbon(8).encode(np.array([0, 3, 0, 1], np.uint8))
>>> wire.codes, wire.layers, table.size, levels.size
(3, (1,), 8, 1)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import ml_dtypes
import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import _random
from featherweight.codecs._kernels import ribbon as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Edge, Encoded, Port, Spec, Wire, check_params, param

__all__ = ["CODEC", "Ribbon", "System", "build", "evaluate"]

_LOG = 7  # of the starts in a bucket
_THRESHOLDS = np.array([0, 20, 56, 128], np.int64)
_BLOCK = 1 << 14  # positions that are looked up at a time
_TOP = (1 << 64) - 1
_MOST = (1 << 16) - 1  # codes
_LAYERS = 64
_BLOCKS = 1 << 25  # of a layer
_SMALL = 1 << 12  # keys up to which the size of a layer is found by trying


class RibbonWire(Wire, frozen=True):
    seed: int
    bits: int
    codes: int
    layers: tuple[int, ...]


class System(NamedTuple):
    """What solves the equations of all keys: blocks of each layer, words of the solution, levels (u8) of buckets."""

    layers: tuple[int, ...]
    table: Array
    levels: Array


def evaluate(found: System, seed: int, bits: int, codes: int, positions: Array, out: Array) -> None:
    """Look up `positions`, u64, into flat `out`, u16: value + 1 where it is below `codes`, else 0."""
    todo, count = np.arange(positions.size, dtype=np.uint32), positions.size
    place, bucket = 0, 0
    mask = np.uint64((1 << bits) - 1)
    for key, blocks in zip(_keys(seed, len(found.layers)), found.layers, strict=True):
        if blocks and count:
            count = kernels.look(
                found.table[place:],
                bits,
                key,
                np.uint64(_starts(blocks)),
                _LOG,
                _THRESHOLDS,
                found.levels[bucket:],
                mask,
                np.uint64(codes),
                positions,
                count,
                todo,
                out,
            )
        place += blocks * bits
        bucket += _buckets(blocks)
    out[todo[:count]] = 0


def _keys(seed: int, count: int) -> Array:
    keys = np.empty(count, np.uint64)
    _random.fill(np.uint64(seed), np.uint64(0), keys)
    return keys


def _starts(blocks: int) -> int:
    return 64 * blocks - 63


def _buckets(blocks: int) -> int:
    return -(-_starts(blocks) >> _LOG) if blocks else 0


def _checked(wire: RibbonWire, table: Array, levels: Array, dtype: np.dtype[Any]) -> System:
    known = 0 <= wire.seed <= _TOP and 1 <= wire.bits <= 16 and 0 <= wire.codes <= min(1 << wire.bits, _MOST)
    if not known or wire.codes >> dtypes.of(dtype).bits:
        raise FrameError(f"{wire.codes} codes of {wire.bits} bits under the seed {wire.seed} for {dtype}")
    if len(wire.layers) > _LAYERS or not all(0 <= blocks <= _BLOCKS for blocks in wire.layers):
        raise FrameError(f"{len(wire.layers)} layers, of up to {max(wire.layers)} blocks")
    words, buckets = sum(wire.layers) * wire.bits, sum(map(_buckets, wire.layers))
    if (table.size, levels.size) != (words, buckets):
        raise FrameError(f"{table.size} words and {levels.size} levels where layers need {words} and {buckets}")
    return System(wire.layers, table, levels.view(np.uint8))


def decode(wire: RibbonWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Look up every position."""
    if len(streams) != 2:
        raise FrameError("a table and levels are needed")
    found, flat = _checked(wire, *streams, out.dtype), dtypes.bits_view(out)
    words = np.empty(min(_BLOCK, flat.size), np.uint16)
    steps = np.arange(words.size, dtype=np.uint64)
    for start in range(0, flat.size, _BLOCK):
        part = flat[start : start + _BLOCK]
        block = words[: part.size]
        evaluate(found, wire.seed, wire.bits, wire.codes, steps[: part.size] + np.uint64(start), block)
        part[:] = block


def at(wire: RibbonWire, streams: tuple[Edge, ...], given: tuple[Edge, ...], spec: Spec, positions: Array) -> Array:
    """Look up some positions."""
    if len(streams) != 2:
        raise FrameError("a table and levels are needed")
    words = np.empty(positions.size, np.uint16)
    found = _checked(wire, streams[0].whole(), streams[1].whole(), spec.dtype)
    evaluate(found, wire.seed, wire.bits, wire.codes, positions, words)
    return words.astype(dtypes.of(spec.dtype).word).view(spec.dtype)


CODEC = Codec(
    "ribbon",
    RibbonWire,
    Port("index", "u"),
    (Port("table", "u", 1, 64), Port("levels", "u", 1, 2)),
    decode,
    at=at,
)


@dataclass(frozen=True)
class Ribbon:
    """Store numbers other than 0 in `bits` each; in `extra` more than the largest needs where that is 0."""

    codec: ClassVar[Codec] = CODEC
    bits: int = param(0, lo=0, hi=16, doc="bits a key, t; 0 for as many as numbers need, and the extra ones")
    extra: int = param(5, lo=0, hi=16, doc="bits beyond those of the numbers: 2^-extra of the zeros are lost")
    seed: int = param(0, lo=0, hi=1 << 32, doc="of the hashes")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Build the ribbon of what is not 0; raises ArgumentError for numbers that do not fit the bits."""
        flat = dtypes.bits_view(x)
        codes = int(flat.max()) if flat.size else 0
        if codes > _MOST or codes >> dtypes.of(x.dtype).bits:
            raise ArgumentError(f"ribbon: the largest number is {codes}, and may be {_MOST} in {x.dtype}")
        needed = max(codes - 1, 0).bit_length()
        bits = self.bits or min(16, max(1, needed + self.extra))
        if bits < needed:
            raise ArgumentError(f"ribbon(bits={bits}): {codes} codes need {needed}")
        positions = np.flatnonzero(flat)
        values = flat[positions].astype(np.uint16) - np.uint16(1)
        found = _build(positions.view(np.uint64), values, bits, self.seed)
        levels = found.levels.view(ml_dtypes.uint2)
        return Encoded(RibbonWire(self.seed, bits, codes, found.layers), (found.table, levels))

    def error_bound(self, x: Array, /) -> None:
        """Any zero may become any of the codes."""
        return


def build(positions: Array, values: Array, bits: int, seed: int = 0) -> System:
    """Build a system of `bits` a key that gives each of `positions` its value, from 0 on.

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


class _Layer(NamedTuple):
    blocks: int
    coefficients: Array
    results: Array
    levels: Array
    bumped: Array


def _build(positions: Array, values: Array, bits: int, seed: int) -> System:
    """Make layers, each too small for its keys, of those that the one before has bumped."""
    if positions.size > 1 << 30:
        raise ArgumentError(f"ribbon: {positions.size} keys are too many: split the array")
    layers: list[int] = []
    tables, levels = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint8)]
    for key in _keys(seed, _LAYERS):
        if not positions.size:
            return System(tuple(layers), np.concatenate(tables), np.concatenate(levels))
        tried = [_layer(positions, values, bits, key, blocks) for blocks in _sizes(positions.size)]
        layer = min(tried, key=_cost)
        table = np.empty(layer.blocks * bits, np.uint64)
        kernels.solve(layer.coefficients, layer.results, bits, np.zeros(bits, np.uint64), table)
        layers.append(layer.blocks)
        tables.append(table)
        levels.append(layer.levels)
        positions, values = positions[layer.bumped], values[layer.bumped]
    raise AssertionError("keys are left after many layers")


def _sizes(count: int) -> Iterator[int]:
    """Yield how many blocks a layer for so many keys may have."""
    if count > _SMALL:
        yield count * 100 // 106 // 64
    else:
        yield from range(max(1, count * 100 // 112 // 64), (count + 32) // 64 + 2)
        yield 0  # other hashes may do better


def _cost(layer: _Layer) -> int:
    """Return the slots of a layer and about those of what it bumps; it had better hold something."""
    left = layer.bumped.size
    return (64 * layer.blocks or 63) + (max(64, left + left // 50 + 24) if left else 0)


def _layer(positions: Array, values: Array, bits: int, key: np.uint64, blocks: int) -> _Layer:
    slots, turn, count = 64 * blocks, np.uint64((1 << _LOG) - 1), positions.size
    coefficients, results = np.zeros(slots, np.uint64), np.zeros(slots, np.uint16)
    levels, bumped = np.zeros(_buckets(blocks), np.uint8), np.arange(count, dtype=np.uint32)
    if blocks:
        order, taken = np.empty(count, np.uint64), np.empty(count, np.int64)
        kernels.order(positions, key, np.uint64(_starts(blocks)), turn, order)
        order.sort()
        left = kernels.insert(
            order,
            positions,
            values,
            key,
            _LOG,
            turn,
            np.uint64((1 << bits) - 1),
            _THRESHOLDS,
            taken,
            coefficients,
            results,
            levels,
            bumped,
        )
        bumped = bumped[:left]
    return _Layer(blocks, coefficients, results, levels, bumped)

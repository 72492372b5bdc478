"""Vectors of 16 lanes of 32 bits, for kernels where they are `compilable`.

Uncompiled, a vector is a NumPy array of 16 ``uint32`` and a mask an integer whose bit l is lane l; compiled, they are
registers (`_emit`). A position counts elements of its array; of a byte array that holds wider words, bytes. Nothing
here checks bounds: every function says what it touches.

Those that move lanes by a mask or an index (`deal16le`, `stack16le`, `permute`) want `AVX2` among
``kernel.features()``. Some take a vector for 32 words or 64 bytes, each lane holding its own from the least significant
on, and want `PERMUTES`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels import _emit as emit
from featherweight.codecs._kernels._emit import AVX2, PERMUTES, WIDTH, compilable, twin
from featherweight.kernel import primitive

__all__ = [
    "AVX2",
    "PERMUTES",
    "WIDTH",
    "both",
    "choose",
    "choose16",
    "compilable",
    "count16",
    "deal16le",
    "differ",
    "either",
    "evens",
    "gather",
    "gather2",
    "has16",
    "high",
    "left",
    "left16",
    "less",
    "load",
    "load8",
    "load16le",
    "load_bytes",
    "minus",
    "named8",
    "named16",
    "odds",
    "permute",
    "plus",
    "right",
    "right16",
    "settle",
    "splat",
    "spread8",
    "stack16le",
    "store",
    "store8",
    "store_bytes",
    "store_half",
    "stream",
    "times",
    "turn",
]

_LANES = np.arange(WIDTH, dtype=np.uint32)


@primitive(twin=twin("vector", emit.binary("add")))
def plus(one: Any, other: Any) -> Any:
    """Return the sums modulo 2^32."""
    return one + other


@primitive(twin=twin("vector", emit.binary("sub")))
def minus(one: Any, other: Any) -> Any:
    """Return the differences modulo 2^32."""
    return one - other


@primitive(twin=twin("vector", emit.binary("mul")))
def times(one: Any, other: Any) -> Any:
    """Return the products modulo 2^32."""
    return one * other


@primitive(twin=twin("vector", emit.high))
def high(one: Any, other: Any) -> Any:
    """Return the upper halves of the products of 64 bits."""
    return (one.astype(np.uint64) * other >> np.uint64(32)).astype(np.uint32)


@primitive(twin=twin("vector", emit.binary("and_")))
def both(one: Any, other: Any) -> Any:
    """Return the bits that are in both."""
    return one & other


@primitive(twin=twin("vector", emit.binary("or_")))
def either(one: Any, other: Any) -> Any:
    """Return the bits that are in one or the other."""
    return one | other


@primitive(twin=twin("vector", emit.binary("xor")))
def differ(one: Any, other: Any) -> Any:
    """Return the bits that are in one and not in the other."""
    return one ^ other


@primitive(twin=twin("vector", emit.binary("shl")))
def left(one: Any, bits: Any) -> Any:
    """Shift each lane left by `bits`, a vector of numbers below 32."""
    return one << bits


@primitive(twin=twin("vector", emit.binary("lshr")))
def right(one: Any, bits: Any) -> Any:
    """Shift each lane right by `bits`, a vector of numbers below 32."""
    return one >> bits


@primitive(twin=twin("vector", emit.splat))
def splat(value: Any) -> Any:
    """Return a vector of 16 times `value`."""
    return np.full(WIDTH, np.uint32(value))


@primitive(twin=twin("vector", emit.load(32)))
def load(array: Any, position: Any) -> Any:
    """Return 16 neighbouring elements of a ``uint32`` array."""
    return array[position : int(position) + WIDTH].copy()


@primitive(twin=twin("vector", emit.load(8)))
def load8(array: Any, position: Any) -> Any:
    """Return 16 neighbouring bytes."""
    return array[position : int(position) + WIDTH].astype(np.uint32)


@primitive(twin=twin("vector", emit.load(16)))
def load16le(array: Any, position: Any) -> Any:
    """Return 16 neighbouring words of 2 bytes each, least significant first; `position` counts bytes."""
    return array[position : int(position) + 2 * WIDTH].view("<u2").astype(np.uint32)


@primitive(twin=twin("void", emit.store(32)))
def store(array: Any, position: Any, vector: Any) -> None:
    """Store a vector into 16 neighbouring elements of a ``uint32`` array."""
    array[position : int(position) + WIDTH] = vector


@primitive(twin=twin("void", emit.store(8)))
def store8(array: Any, position: Any, vector: Any) -> None:
    """Store the low byte of each lane into 16 neighbouring bytes."""
    array[position : int(position) + WIDTH] = vector.astype(np.uint8)


@primitive(twin=twin("vector", emit.load(32)))
def load_bytes(array: Any, position: Any) -> Any:
    """Return 64 neighbouring bytes of a byte array."""
    return array[position : int(position) + 4 * WIDTH].view(np.uint32).copy()


@primitive(twin=twin("void", emit.store(32)))
def store_bytes(array: Any, position: Any, vector: Any) -> None:
    """Store a vector into 64 neighbouring bytes of a byte array."""
    array[position : int(position) + 4 * WIDTH] = vector.view(np.uint8)


@primitive(twin=twin("void", emit.store_half))
def store_half(array: Any, position: Any, vector: Any) -> None:
    """Store the first 8 lanes into 32 neighbouring bytes of a byte array."""
    array[position : int(position) + 2 * WIDTH] = vector.view(np.uint8)[: 2 * WIDTH]


@primitive(twin=twin("void", emit.stream))
def stream(array: Any, position: Any, vector: Any) -> None:
    """Store a vector past the caches to 64 bytes that begin at a multiple of 64; `settle` when all is stored."""
    place = array[position:].view(np.uint8)[: 4 * WIDTH]
    place[:] = vector.view(np.uint8)


@primitive(twin=twin("void", emit.settle))
def settle(array: Any) -> None:
    """Let no other thread see what is stored later before it sees what was streamed to an array."""


@primitive(twin=twin("vector", emit.gather))
def gather(array: Any, index: Any) -> Any:
    """Return the elements of a ``uint32`` array at the positions in `index`, all of which must be inside it."""
    return array[index]


@primitive(twin=twin("vector", emit.gather2))
def gather2(array: Any, index: Any) -> Any:
    """Return, for each of the first 8 lanes of `index`, the element of a ``uint32`` array there and that behind it."""
    return np.stack((array[index[:8]], array[index[:8] + np.uint32(1)]), axis=1).reshape(-1)


@primitive(twin=twin("vector", emit.shuffle([*range(8, 16), *range(8)])))
def turn(vector: Any) -> Any:
    """Return the last 8 lanes and then the first."""
    return np.roll(vector, 8)


@primitive(twin=twin("vector", emit.shuffle(list(range(0, 32, 2)))))
def evens(one: Any, other: Any) -> Any:
    """Return the lanes 0, 2, … of `one` and then of `other`."""
    return np.concatenate((one[::2], other[::2]))


@primitive(twin=twin("vector", emit.shuffle(list(range(1, 32, 2)))))
def odds(one: Any, other: Any) -> Any:
    """Return the lanes 1, 3, … of `one` and then of `other`."""
    return np.concatenate((one[1::2], other[1::2]))


@primitive(twin=twin("vector", emit.permute))
def permute(table: Any, index: Any) -> Any:
    """Return the lanes of `table` that the lowest four bits of each lane of `index` name."""
    return table[index & np.uint32(WIDTH - 1)]


@primitive(twin=twin("vector", emit.named(8)))
def named8(low: Any, high: Any, index: Any) -> Any:
    """Return the bytes of `low` and, behind them, `high` that the lowest seven bits of each byte of `index` name."""
    table = np.concatenate((low, high)).view(np.uint8)
    return table[index.view(np.uint8) & np.uint8(127)].view(np.uint32)


@primitive(twin=twin("vector", emit.named(16)))
def named16(low: Any, high: Any, index: Any) -> Any:
    """Return the words of `low` and, behind them, `high` that the lowest six bits of each word of `index` name."""
    table = np.concatenate((low, high)).view(np.uint16)
    return table[index.view(np.uint16) & np.uint16(63)].view(np.uint32)


@primitive(twin=twin("vector", emit.spread8))
def spread8(array: Any, position: Any) -> Any:
    """Return 32 neighbouring bytes as words of 16 bits."""
    return array[position : int(position) + 2 * WIDTH].astype(np.uint16).view(np.uint32)


@primitive(twin=twin("vector", emit.binary16("shl")))
def left16(one: Any, bits: Any) -> Any:
    """Shift each word left by `bits`, 32 numbers below 16; without AVX-512 they had better be constant and the same."""
    return (one.view(np.uint16) << bits.view(np.uint16)).view(np.uint32)


@primitive(twin=twin("vector", emit.binary16("lshr")))
def right16(one: Any, bits: Any) -> Any:
    """Shift each word right likewise."""
    return (one.view(np.uint16) >> bits.view(np.uint16)).view(np.uint32)


@primitive(twin=twin("vector", emit.count16))
def count16(one: Any) -> Any:
    """Return how many bits are set in each word."""
    return np.bitwise_count(one.view(np.uint16)).astype(np.uint16).view(np.uint32)


@primitive(twin=twin("uint64", emit.has16))
def has16(one: Any, bits: Any) -> Any:
    """Return the mask of the 32 words that have any of the bits."""
    found = (one & bits).view(np.uint16) != np.uint16(0)
    return np.packbits(found, bitorder="little").view(np.uint32)[0]


@primitive(twin=twin("vector", emit.choose16))
def choose16(mask: Any, one: Any, other: Any) -> Any:
    """Return the words of `one` that are in a mask of 32, and those of `other` elsewhere."""
    chosen = (np.uint32(mask) >> np.arange(2 * WIDTH, dtype=np.uint32) & np.uint32(1)).astype(bool)
    return np.where(chosen, one.view(np.uint16), other.view(np.uint16)).view(np.uint32)


@primitive(twin=twin("uint64", emit.less))
def less(left: Any, right: Any) -> Any:
    """Return the mask of the lanes where `left` is below `right`."""
    return np.uint64(np.dot((left < right).astype(np.uint32), np.uint32(1) << _LANES))


@primitive(twin=twin("vector", emit.choose))
def choose(mask: Any, one: Any, other: Any) -> Any:
    """Return `one` in the lanes of `mask` and `other` elsewhere."""
    return np.where(_chosen(mask), one, other)


@primitive(twin=twin("vector", emit.deal16le))
def deal16le(array: Any, position: Any, mask: Any, instead: Any) -> Any:
    """Deal words of 2 bytes, as `load16le` finds them, out to the lanes in `mask`, in order; others are `instead`'s.

    It loads no more than 32 bytes from `position` on.
    """
    chosen, dealt = _chosen(mask), instead.copy()
    dealt[chosen] = load16le(array, position)[: int(chosen.sum())]
    return dealt


@primitive(twin=twin("void", emit.stack16le))
def stack16le(array: Any, position: Any, vector: Any, mask: Any) -> None:
    """Store the low 2 bytes of the lanes in `mask`, in order, so that they end before byte `position`.

    What the 32 bytes before it hold else is lost.
    """
    words = vector[_chosen(mask)].astype("<u2").view(np.uint8)
    array[int(position) - words.size : int(position)] = words


def _chosen(mask: Any) -> Any:
    return (np.uint32(mask) >> _LANES & np.uint32(1)).astype(bool)

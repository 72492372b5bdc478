"""The loops of the Bloomier filter: hash, peel, assign, look up.

A key has three cells, one in each third of the table. `half` says how the hashes lie in two random words.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels._random import word
from featherweight.kernel import kernel, primitive

__all__ = ["assign", "count", "look", "look_wide", "peel"]

_0 = np.uint64(0)
_1 = np.uint64(1)
_8 = np.uint64(8)
_32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_DEGREE = np.uint64(26)  # a cell holds how many keys it has, above the exclusive or of their numbers
_NUMBER = np.uint64((1 << 26) - 1)
_FULL = np.uint64(63)


@primitive
def _scaled(half: Any, third: Any) -> Any:
    """Take 32 random bits to 0 … third - 1."""
    return (half * third) >> _32


@kernel("i8(u8[r], u8, u8, u4[w])")
def count(positions: Any, seed: Any, third: Any, cells: Any) -> Any:
    """Enter every key, by its number below 2^26, in its cells, which begin as zeros; return -1 if one is too full."""
    for i in range(positions.size):
        twice = positions[i] + positions[i]
        a, b = word(seed, twice), word(seed, twice + _1)
        number = np.uint64(i)
        for h in (_scaled(a >> _32, third), third + _scaled(a & _LOW, third), third + third + _scaled(b >> _32, third)):
            cell = np.uint64(cells[h])
            if cell >> _DEGREE == _FULL:
                return -1
            cells[h] = np.uint32((cell + (_1 << _DEGREE)) ^ number)
    return 0


@kernel("i8(u8[r], u8, u8, u4[w], u4[w], u4[w], u4[w])")
def peel(positions: Any, seed: Any, third: Any, cells: Any, waiting: Any, keys: Any, places: Any) -> Any:
    """Take out keys that are alone in a cell, again and again; return how many, with the key and cell of each.

    All three lists are one longer than they can become: `waiting` than there are cells, the others than keys.
    """
    # First come, first served: what waits is known long before its turn, so that processors fetch ahead.
    found, first = 0, 0
    last: Any = 0
    for c in range(cells.size):
        waiting[last] = np.uint32(c)
        last += np.int64(np.uint64(cells[c]) >> _DEGREE == _1)
    while first < last:
        place = waiting[first]
        first += 1
        number = np.uint64(cells[place]) & _NUMBER
        keys[found] = np.uint32(number)
        places[found] = place
        if np.uint64(cells[place]) >> _DEGREE != _1:  # its key went by another cell
            continue
        found += 1
        twice = positions[number] + positions[number]
        a, b = word(seed, twice), word(seed, twice + _1)
        for h in (_scaled(a >> _32, third), third + _scaled(a & _LOW, third), third + third + _scaled(b >> _32, third)):
            cell = (np.uint64(cells[h]) - (_1 << _DEGREE)) ^ number
            cells[h] = np.uint32(cell)
            waiting[last] = np.uint32(h)
            last += np.int64(cell >> _DEGREE == _1)
    return found


@kernel("void(u8[r], u2[r], u4[r], u4[r], u8, u8, u8, u2[w])")
def assign(positions: Any, values: Any, keys: Any, places: Any, seed: Any, third: Any, mask: Any, table: Any) -> None:
    """Fill the cells, the last key taken out first; `table` begins as zeros."""
    for j in range(keys.size):
        i = keys[keys.size - 1 - j]
        twice = positions[i] + positions[i]
        a, b = word(seed, twice), word(seed, twice + _1)
        held = np.uint64(table[_scaled(a >> _32, third)])
        held ^= np.uint64(table[third + _scaled(a & _LOW, third)])
        held ^= np.uint64(table[third + third + _scaled(b >> _32, third)])
        table[places[keys.size - 1 - j]] = np.uint16((held ^ b ^ np.uint64(values[i])) & mask)


@kernel("void(u1[r], u8[r], u8, u8, u8, u8, u2[w])")
def look(table: Any, positions: Any, seed: Any, third: Any, mask: Any, codes: Any, out: Any) -> None:
    """Look up positions in cells of up to 8 bits: 3 · third of them, third at least 1."""
    for i in range(positions.size):
        twice = positions[i] + positions[i]
        a, b = word(seed, twice), word(seed, twice + _1)
        held = np.uint64(table[_scaled(a >> _32, third)])
        held ^= np.uint64(table[third + _scaled(a & _LOW, third)])
        held ^= np.uint64(table[third + third + _scaled(b >> _32, third)])
        held = (held ^ b) & mask
        out[i] = np.uint16(held + _1 if held < codes else _0)


@kernel("void(u1[r], u1[r], u8[r], u8, u8, u8, u8, u2[w])")
def look_wide(table: Any, high: Any, positions: Any, seed: Any, third: Any, mask: Any, codes: Any, out: Any) -> None:
    """Look up positions in cells of up to 16 bits, `high` as long as `table`."""
    for i in range(positions.size):
        twice = positions[i] + positions[i]
        a, b = word(seed, twice), word(seed, twice + _1)
        first, second = _scaled(a >> _32, third), third + _scaled(a & _LOW, third)
        last = third + third + _scaled(b >> _32, third)
        held = np.uint64(high[first] ^ high[second] ^ high[last]) << _8
        held |= np.uint64(table[first] ^ table[second] ^ table[last])
        held = (held ^ b) & mask
        out[i] = np.uint16(held + _1 if held < codes else _0)

"""The loops of the relative index. An element is a word of its size, whatever its type."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels._primitives import trailing_zeros
from featherweight.kernel import kernel, primitive

_SIZES = (1, 2, 4, 8)


@primitive
def _filled(words: Any) -> Any:
    """Return up to 64 bits, one for each word, that tell which are not 0."""
    bits = np.uint64(0)
    for i in range(words.size):
        bits |= np.uint64(words[i] != 0) << np.uint64(i)
    return bits


def _find(words: Any, most: Any, gaps: Any, values: Any) -> Any:
    """Write an entry for every word that is not 0, fillers before it where the gap is above `most`; return how many."""
    count = start = np.int64(0)
    for base in range(0, words.size, 64):
        # Of a length that the compiler knows, so that it makes vectors of it.
        bits = _filled(words[base : base + 64]) if base + 64 <= words.size else _filled(words[base:])
        while bits != np.uint64(0):
            position = base + np.int64(trailing_zeros(bits))
            bits &= bits - np.uint64(1)
            gap = position - start
            while gap > most:
                gaps[count] = np.uint8(most)
                values[count] = 0
                count += 1
                gap -= most + 1
            gaps[count] = np.uint8(gap)
            values[count] = words[position]
            count += 1
            start = position + 1
    return count


def _place(gaps: Any, values: Any, words: Any) -> Any:
    """Put the values where the gaps say; return the position after the last, or -1 where one lies beyond the end."""
    position = np.int64(0)
    for k in range(gaps.size):
        position += np.int64(gaps[k])
        if position >= words.size:
            return -1
        words[position] = values[k]
        position += 1
    return position


FIND = {size: kernel(f"i8(u{size}[r], i8, u1[w], u{size}[w])")(_find) for size in _SIZES}
PLACE = {size: kernel(f"i8(u1[r], u{size}[r], u{size}[w])")(_place) for size in _SIZES}

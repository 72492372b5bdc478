"""The loops that choose the least of many magnitudes.

A magnitude is a floating-point number without its sign, seen as a word: words have the order of the numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel

_SIZES = (4, 8)


def _count(words: Any, prefix: Any, shift: Any, counts: Any) -> None:
    """Count the words by the 16 bits from `shift` up, of those that have `prefix` above these."""
    for i in range(words.size):
        word = np.uint64(words[i]) >> shift
        if word >> np.uint64(16) == prefix:
            counts[np.int64(word & np.uint64(0xFFFF))] += np.uint64(1)


def _mark(words: Any, cut: Any, ties: Any, keep: Any) -> Any:
    """Mark with 1 the words above `cut` and those equal to it but the first `ties`; return how many ties are left."""
    left = ties
    for i in range(words.size):
        word = np.uint64(words[i])
        tie = np.int64(word == cut)
        keep[i] = np.uint8((word > cut) | ((tie != 0) & (left <= 0)))
        left -= tie
    return left


def _best(words: Any, length: Any, most: Any, group: Any, keep: Any) -> None:
    """Mark with 1 the `most` greatest in each `group` of neighbours in rows of `length`; of equals the last."""
    for row in range(0, words.size, length):
        for start in range(row, row + length, group):
            stop = min(start + group, row + length)
            for i in range(start, stop):
                word = words[i]
                above = np.int64(0)
                for j in range(start, i):
                    above += np.int64(words[j] > word)
                for j in range(i + 1, stop):
                    above += np.int64(words[j] >= word)
                keep[i] = np.uint8(above < most)


COUNT = {size: kernel(f"void(u{size}[r], u8, u8, u8[w])")(_count) for size in _SIZES}
MARK = {size: kernel(f"i8(u{size}[r], u8, i8, u1[w])")(_mark) for size in _SIZES}
BEST = {size: kernel(f"void(u{size}[r], i8, i8, i8, u1[w])")(_best) for size in _SIZES}

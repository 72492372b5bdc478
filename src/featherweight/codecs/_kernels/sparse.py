"""The loops that part zeros from other elements and join them again. An element is a word of its size."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels._primitives import load64le, trailing_zeros
from featherweight.kernel import kernel

_SIZES = (1, 2, 4, 8)


def _part(words: Any, mask: Any, values: Any) -> None:
    """Mark the words that are not 0 and copy them to `values`, which has room for one more.

    No branch: every word is written where the next value goes, and stays if it is one.
    """
    count = np.int64(0)
    for i in range(words.size):
        word = words[i]
        there = word != 0
        mask[i] = np.uint8(there)
        values[count] = word
        count += np.int64(there)


def _join(mask: Any, values: Any, words: Any) -> None:
    """Write the values where the mask is 1; it holds 0 and 1, and as many ones as there are values."""
    count = np.int64(0)
    whole = mask.size // 8 * 8
    for base in range(0, whole, 8):
        ones = load64le(mask, base)
        while ones != np.uint64(0):
            words[base + np.int64(trailing_zeros(ones) >> np.uint64(3))] = values[count]
            ones &= ones - np.uint64(1)
            count += 1
    for i in range(whole, mask.size):
        if mask[i]:
            words[i] = values[count]
            count += 1


PART = {size: kernel(f"void(u{size}[r], u1[w], u{size}[w])")(_part) for size in _SIZES}
JOIN = {size: kernel(f"void(u1[r], u{size}[r], u{size}[w])")(_join) for size in _SIZES}

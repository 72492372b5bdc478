"""The loop that numbers the different words of an array."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.dtypes import Array
from featherweight.kernel import kernel

__all__ = ["MOST", "numbered"]

MOST = 256  # words that are told apart
_LOG = 10  # of the slots of the table: a quarter of them is filled at most, so that look-ups are short
_MASK = np.uint64((1 << _LOG) - 1)
_SHIFT = np.uint64(64 - _LOG)
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
_1 = np.uint64(1)


def _number(words: Any, values: Any, index: Any) -> Any:
    """Fill `index` with the numbers of words, from 0 on as they come, but for ``values[0]``, which is told.

    `values` becomes the words by number. Returns how many there are; `MOST` + 1 once there are more.
    """
    keys, numbers = np.empty(1 << _LOG, words.dtype), np.full(1 << _LOG, -1, np.int16)
    count = 1
    slot = (np.uint64(values[0]) * _FACTOR) >> _SHIFT
    keys[slot], numbers[slot] = values[0], 0
    for i in range(words.size):
        word = words[i]
        slot = (np.uint64(word) * _FACTOR) >> _SHIFT
        while numbers[slot] >= 0 and keys[slot] != word:
            slot = (slot + _1) & _MASK
        if numbers[slot] < 0:
            if count == MOST:
                return MOST + 1
            keys[slot], numbers[slot] = word, count
            values[count] = word
            count += 1
        index[i] = numbers[slot]
    return count


_NUMBER = {size: kernel(f"i8(u{size}[r], u{size}[w], u1[w])")(_number) for size in (1, 2, 4, 8)}


def numbered(words: Array) -> tuple[Array, Array]:
    """Return the different words, and the number of each, u8; one more than `MOST` of them where there are more.

    The word 0, if it occurs, has the number 0; all else is numbered as it comes.
    """
    values, index = np.zeros(MOST + 1, words.dtype), np.empty(words.size, np.uint8)
    if not words.size:
        return values[:0], index
    if words.all():
        values[0] = words[0]
    return values[: int(_NUMBER[words.itemsize](words, values, index))], index

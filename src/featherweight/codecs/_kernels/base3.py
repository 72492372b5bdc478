"""The loops of five values in a byte: each digit is a walk through one fifth of the values."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel, primitive

__all__ = ["pack", "peel", "unpack"]

_1 = np.uint8(1)
_3 = np.uint8(3)


@primitive
def peel(left: Any, digits: Any) -> None:
    """Take the lowest digit off the first bytes of `left`, as many as there are `digits`."""
    for i in range(digits.size):
        byte = np.uint16(left[i])
        third = np.uint16(np.uint16(byte * np.uint16(171)) >> np.uint16(9))  # of every byte, rounded down
        digits[i] = np.uint8(byte - np.uint16(np.uint16(3) * third))
        left[i] = np.uint8(third)


@kernel("i8(u1[r], u1[w])")
def pack(values: Any, data: Any) -> int:
    """Fill all of `data`, ⌈n / 5⌉ bytes; return -1 where a value is above 2."""
    size, top = data.size, np.uint8(0)
    for i in range(size):
        data[i] = values[i]
    for i in range(values.size):
        top = max(top, values[i])
    for k in range(1, 5):
        there = max(0, min(size, values.size - k * size))
        start = min(k * size, values.size)
        part = values[start : start + there]
        for i in range(there):
            data[i] = np.uint8(_3 * data[i] + part[i])
        for i in range(there, size):
            data[i] = np.uint8(_3 * data[i] + _1)
    return -1 if top > np.uint8(2) else 0


@kernel("i8(u1[w], u1[w], u1[w])")
def unpack(left: Any, digits: Any, values: Any) -> int:
    """Fill all of `values` from their ⌈n / 5⌉ bytes, of which zeros are left; return -1 for one that does not occur.

    `digits` has room for as many bytes.
    """
    size, top, wrong = left.size, np.uint8(0), 0
    for i in range(size):
        top = max(top, left[i])
    for last in range(5):
        start = (4 - last) * size
        peel(left, digits)
        there = max(0, min(size, values.size - start))
        start = min(start, values.size)
        part = values[start : start + there]
        for i in range(there):
            part[i] = digits[i]
        for i in range(there, size):
            if digits[i] != _1:
                wrong = -1
    return -1 if top > np.uint8(242) else wrong

"""Tables, looked up word by word."""

from __future__ import annotations

from typing import Any

from numpy import uint64

from featherweight.codecs._kernels._primitives import load64le
from featherweight.kernel import kernel

__all__ = ["GATHER"]

_0, _1, _2, _3, _4, _5, _6, _7, _8 = (uint64(value) for value in range(9))
_16, _24, _32, _40, _48, _56, _BYTE = (uint64(value) for value in (16, 24, 32, 40, 48, 56, 255))


def _gather1(index: Any, table: Any, out: Any) -> None:
    n = uint64(index.size)
    whole = n & ~_7
    for i in range(_0, whole, _8):  # one load for eight indices
        word = load64le(index, i)
        out[i] = table[word & _BYTE]
        out[i + _1] = table[word >> _8 & _BYTE]
        out[i + _2] = table[word >> _16 & _BYTE]
        out[i + _3] = table[word >> _24 & _BYTE]
        out[i + _4] = table[word >> _32 & _BYTE]
        out[i + _5] = table[word >> _40 & _BYTE]
        out[i + _6] = table[word >> _48 & _BYTE]
        out[i + _7] = table[word >> _56]
    for i in range(whole, n):
        out[i] = table[index[i]]


def _gather2(index: Any, table: Any, out: Any) -> None:
    for i in range(index.size):
        out[i] = table[index[i]]


GATHER = {
    (size, width): kernel(f"void(u{size}[r], u{width}[r], u{width}[w])")(function)
    for size, function in ((1, _gather1), (2, _gather2))
    for width in (1, 2, 4, 8)
}
"""By the bytes of an index and of an element; the table must be as long as the largest index asks for."""

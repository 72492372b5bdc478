"""Tables, looked up word by word."""

from __future__ import annotations

from typing import Any

from featherweight.kernel import kernel

__all__ = ["GATHER"]


def _gather(index: Any, table: Any, out: Any) -> None:
    for i in range(index.size):
        out[i] = table[index[i]]


GATHER = {
    (size, width): kernel(f"void(u{size}[r], u{width}[r], u{width}[w])")(_gather)
    for size in (1, 2)
    for width in (1, 2, 4, 8)
}
"""By the bytes of an index and of an element; the table must be as long as the largest index asks for."""

"""Primitives that move the sign of a word to its bottom, so that its small values have small words.

Everything is computed in 64 bits, and the bits above the word are rubbish afterwards: stores cut them off. `how` never
changes in a loop, so LLVM makes a loop of vectors for each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import primitive

__all__ = ["PLAIN", "ROTATE", "ZIGZAG", "fold", "unfold"]

PLAIN, ROTATE, ZIGZAG = 0, 1, 2
_0 = np.uint64(0)
_1 = np.uint64(1)


@primitive
def fold(word: Any, top: Any, how: Any) -> Any:
    """Rotate left by one bit, or zigzag, a word whose sign is the bit `top`."""
    if how == ROTATE:
        return (word << _1) | (word >> top)
    if how == ZIGZAG:
        return (word << _1) ^ (_0 - (word >> top))
    return word


@primitive
def unfold(word: Any, top: Any, how: Any) -> Any:
    """Undo `fold`."""
    if how == ROTATE:
        return (word >> _1) | ((word & _1) << top)
    if how == ZIGZAG:
        return (word >> _1) ^ (_0 - (word & _1))
    return word

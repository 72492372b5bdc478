"""The loops of the arithmetic difference. One loop serves words of every size: it computes in 64 bits."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels.words import ZIGZAG, fold, unfold
from featherweight.kernel import kernel, primitive

_0 = np.uint64(0)
_1 = np.uint64(1)


@primitive
def _ordered(word: Any, top: Any, signed: Any) -> Any:
    """Map sign and magnitude to two's complement and back: flip the bits `signed` where the sign is set."""
    return word ^ (signed if (word >> top) & _1 else _0)


def _difference(words: Any, base: Any, bits: Any, signed: Any, target: Any) -> None:
    top, every = np.uint64(bits - 1), (_1 << np.uint64(bits - 1)) * np.uint64(2) - _1
    for i in range(target.size):
        x = _ordered(np.uint64(words[i]), top, signed)
        y = _ordered(np.uint64(base[i]), top, signed)
        target[i] = fold((x - y) & every, top, ZIGZAG) & every


def _apply(difference: Any, base: Any, bits: Any, signed: Any, words: Any) -> None:
    top, every = np.uint64(bits - 1), (_1 << np.uint64(bits - 1)) * np.uint64(2) - _1
    for i in range(words.size):
        y = _ordered(np.uint64(base[i]), top, signed)
        x = y + unfold(np.uint64(difference[i]), top, ZIGZAG)
        words[i] = _ordered(x & every, top, signed)


SUBTRACT = {size: kernel(f"void(u{size}[r], u{size}[r], i8, u8, u{size}[w])")(_difference) for size in (1, 2, 4, 8)}
ADD = {size: kernel(f"void(u{size}[r], u{size}[r], i8, u8, u{size}[w])")(_apply) for size in (1, 2, 4, 8)}

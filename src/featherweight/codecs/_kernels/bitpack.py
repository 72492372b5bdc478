"""The loops of bit packing: eight small numbers are one word of 64 bits, squeezed or spread in three steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel

_0 = np.uint64(0)
_4 = np.uint64(4)
_8 = np.uint64(8)
_16 = np.uint64(16)
_24 = np.uint64(24)
_A = np.uint64(0x00FF00FF00FF00FF)
_B = np.uint64(0x0000FFFF0000FFFF)
_C = np.uint64(0x00000000FFFFFFFF)
_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)


@kernel("void(u8[r], u4[w])")
def squeeze4(words: Any, packed: Any) -> None:
    for i in range(packed.size):
        word = words[i]
        word = (word | (word >> _4)) & _A
        word = (word | (word >> _8)) & _B
        packed[i] = np.uint32((word | (word >> _16)) & _C)


@kernel("void(u4[r], u8[w])")
def spread4(packed: Any, words: Any) -> None:
    for i in range(packed.size):
        word = np.uint64(packed[i])
        word = (word | (word << _16)) & _B
        word = (word | (word << _8)) & _A
        words[i] = (word | (word << _4)) & _NIBBLES


@kernel("void(u8[r], i8, u1[w])")
def squeeze(words: Any, width: Any, packed: Any) -> None:
    """Pack every word into `width` bytes."""
    w = np.uint64(width)
    for i in range(words.size):
        word = words[i]
        word = (word & _A) | ((word & ~_A) >> (_8 - w))
        word = (word & _B) | ((word & ~_B) >> (_16 - w - w))
        word = (word & _C) | ((word & ~_C) >> (np.uint64(32) - _4 * w))
        for k in range(width):
            packed[i * width + k] = np.uint8((word >> np.uint64(8 * k)) & np.uint64(255))


@kernel("void(u1[r], i8, u8[w])")
def spread(packed: Any, width: Any, words: Any) -> None:
    """Undo `squeeze`."""
    w = np.uint64(width)
    pair, four = (np.uint64(1) << (w + w)) - np.uint64(1), (np.uint64(1) << (_4 * w)) - np.uint64(1)
    single = (np.uint64(1) << w) - np.uint64(1)
    pairs = pair | (pair << np.uint64(32))
    singles = single | (single << _16)
    singles |= singles << np.uint64(32)
    for i in range(words.size):
        word = _0
        for k in range(width):
            word |= np.uint64(packed[i * width + k]) << np.uint64(8 * k)
        word = (word & four) | ((word & ~four) << (np.uint64(32) - _4 * w))
        word = (word & pairs) | ((word & ~pairs) << (_16 - w - w))
        words[i] = (word & singles) | ((word & ~singles) << (_8 - w))

"""Counted random words: number `i` of the stream `seed`, in any order; FORMAT.md specifies them.

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), whose state counts
up in equal steps, so that any number of the sequence is found at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.kernel import kernel, primitive

__all__ = ["fill", "mix", "word"]


@primitive
def mix(z: Any) -> Any:
    """Scramble 64 bits, one to one."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@primitive
def word(seed: Any, i: Any) -> Any:
    """Return the random word `i` (from 0) of the stream `seed`, both u64."""
    return mix(seed + (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15))


@kernel("void(u8, u8, u8[w])")
def fill(seed: Any, first: Any, out: Any) -> None:
    """Write the words from number `first` on."""
    for i in range(out.size):
        out[i] = word(seed, first + np.uint64(i))

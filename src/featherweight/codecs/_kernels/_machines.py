"""The state machines of trellis-coded quantization, as tables that its quantizer and its coder share."""

from __future__ import annotations

import functools

import numpy as np

from featherweight.codecs._kernels import ggd as portable
from featherweight.codecs._kernels import ggd_simd as simd
from featherweight.codecs._kernels._vector import AVX2, WIDTH
from featherweight.dtypes import Array
from featherweight.kernel import features

__all__ = ["STATES", "edges", "nexts", "path_bits", "paths", "walk"]

STATES = (4, 8, 16, 32, 64, 128)
_EIGHT = ((0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6))
_PARITY = {4: (0o2, 0o5), 16: (0o04, 0o23), 32: (0o10, 0o45), 64: (0o024, 0o103), 128: (0o126, 0o235)}


def _next(states: int, state: int, parity: int) -> int:
    if states == 8:
        return _EIGHT[state][parity]
    one, zero = _PARITY[states]
    return state >> 1 ^ (state & 1) * (zero >> 1) ^ parity * (one >> 1)


@functools.cache
def nexts(states: int) -> Array:
    """Return the state after an index: u32, at 2 · state + parity of the index, and zeros to 16 at least.

    Eight states are those of the standard for neural networks (ISO/IEC 15938-17); the others are Ungerboeck's
    one-dimensional codes ("Channel coding with multilevel/phase signals", 1982), as systematic feedback machines.
    Without a trellis, 0 states, there is one state.
    """
    return _padded([_next(states, s, p) for s in range(states) for p in (0, 1)])


@functools.cache
def _before(states: int) -> list[list[tuple[int, int]]]:
    """Return for each state the two states and parities that lead to it."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(states)]
    for state in range(states):
        for parity in (0, 1):
            found[_next(states, state, parity)].append((state, parity))
    return found


@functools.cache
def edges(states: int) -> Array:
    """Return for each state: a state before it, the subset that leads from there, the other state, its subset."""
    return np.array([[(s, 2 * (s & 1) + p) for s, p in pairs] for pairs in _before(states)], np.uint32).reshape(-1)


@functools.cache
def paths(states: int) -> Array:
    """Return for each state its two predecessors as 4 · state + subset, and zeros to 16 at least."""
    return _padded([4 * s + 2 * (s & 1) + p for pairs in _before(states) for s, p in pairs])


def _padded(values: list[int]) -> Array:
    table = np.array(values + [0] * (16 - len(values)), np.uint32)
    table.flags.writeable = False
    return table


def path_bits(n: int) -> int:
    """Return the base-2 logarithm of the paths that n indices are on: long ones, and as many as vectors want."""
    return min(max((n >> 8).bit_length(), 4), 7)


def walk(index: Array, states: int, paths: int, rows: Array) -> None:
    """Add to the rows of i32 indices, which are even, the quantizer that each is coded by, on 2^paths paths."""
    walked, words = np.zeros(1 << paths, np.uint32), index.view(np.uint32)
    given = words, nexts(states)
    done = simd.walk(*given, walked, rows) if walked.size >= WIDTH and features() >= AVX2 else 0
    portable.walk(*given, np.uint64(done), walked, rows)

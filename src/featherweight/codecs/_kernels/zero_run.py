"""The loops of runs of 121, which are looked for eight bytes at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from featherweight.codecs._kernels._primitives import load64le, store64le, trailing_zeros
from featherweight.kernel import kernel, primitive

__all__ = ["SPARE", "ends", "expand", "shorten", "spread", "squeeze"]

SPARE = 16
"""Bytes that the target of `squeeze` must have beyond as many as there are to code."""

_ZERO = np.uint8(121)
_EVERY = np.uint64(0x7979797979797979)
_LOW = np.uint64(0x7F7F7F7F7F7F7F7F)
_TOPS = np.uint64(0x8080808080808080)
_0 = np.uint64(0)
_1 = np.uint64(1)
_7 = np.uint64(7)
_56 = np.uint64(56)
_GATHER = np.uint64(0x0102040810204080)


@primitive
def ends(run: Any, coded: Any, place: Any) -> Any:
    """Write a run and return where what follows goes."""
    while run >= 14:
        coded[place] = np.uint8(255)
        place += 1
        run -= 14
    # Written in any case, and kept where there is something to say.
    coded[place] = np.uint8(np.int64(241) + run - np.int64(121) * np.int64(run == 1))
    return place + np.int64(run > 0)


@primitive
def squeeze(data: Any, count: Any, run: Any, coded: Any, place: Any) -> Any:
    """Code the first `count` bytes after `run` times 121; return the place, and the run at their end, not written."""
    i = 0
    while i + 64 <= count:
        marks = _0
        for k in range(8):
            other = load64le(data, i + 8 * k) ^ _EVERY
            tops = ((((other & _LOW) + _LOW) | other) & _TOPS) >> _7
            marks |= ((tops * _GATHER) >> _56) << np.uint64(8 * k)
        done: Any = 0
        while marks != _0:
            at = np.int64(trailing_zeros(marks))
            place = ends(run + at - done, coded, place)
            coded[place] = data[i + at]
            place += 1
            run, done = 0, at + 1
            marks &= marks - _1
        run += 64 - done
        i += 64
    while i < count:
        if data[i] == _ZERO:
            run += 1
        else:
            place = ends(run, coded, place)
            coded[place] = data[i]
            place += 1
            run = 0
        i += 1
    return place, run


@primitive
def spread(coded: Any, at: Any, data: Any, place: Any, count: Any) -> Any:
    """Decode from `at` on until `count` or more bytes are written, `data` having 16 more; return both places."""
    while place < count and at < coded.size:
        c = coded[at]
        store64le(data, place, _EVERY)
        store64le(data, place + 8, _EVERY)
        data[place] = c if c < np.uint8(243) else _ZERO
        place += 1 if c < np.uint8(243) else np.int64(c) - 241
        at += 1
    return at, place


@kernel("i8(u1[r], u1[w])")
def shorten(data: Any, coded: Any) -> Any:
    """Code all of `data`, return the length; -1 for a byte above 242. `coded` has SPARE bytes more than `data`."""
    top = np.uint8(0)
    for i in range(data.size):
        top = max(top, data[i])
    if top > np.uint8(242):
        return -1
    place, run = squeeze(data, data.size, 0, coded, 0)
    return ends(run, coded, place)


@kernel("i8(u1[r], u1[w])")
def expand(coded: Any, data: Any) -> int:
    """Fill `data` and return its size; -1 where the runs make more or less."""
    at, place = spread(coded, 0, data, 0, max(0, data.size - 16))
    while at < coded.size:
        c = np.int64(coded[at])
        count = c - 241 if c >= 243 else 1
        if place + count > data.size:
            return -1
        for i in range(place, place + count):
            data[i] = _ZERO
        if c < 243:
            data[place] = np.uint8(c)
        place += count
        at += 1
    return place if place == data.size else -1

"""Run the loops of interleaved rANS: by vectors as far as they go, where there are any, then by the portable ones.

Which they are depends on the processor, the bytes do not: states of 4 bytes for each lane, then words of 2.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from featherweight.codecs._kernels import rans as portable
from featherweight.codecs._kernels import rans_baseline as baseline
from featherweight.codecs._kernels import rans_permute as permute
from featherweight.codecs._kernels import rans_simd as simd
from featherweight.codecs._kernels._vector import AVX2, PERMUTES, WIDTH, compilable
from featherweight.dtypes import Array
from featherweight.errors import FrameError, TruncatedError
from featherweight.kernel import Kernel, features

__all__ = ["STATE", "decode", "encode", "states_at"]

STATE = 4  # bytes
_LOW = np.uint32(1 << 15)  # the smallest state
_RANGE = (1 << 31) - (1 << 15)


def states_at(payload: Array, begin: int, lanes: int) -> Array:
    """Return the states that begin there; raises TruncatedError or FrameError."""
    end = begin + STATE * lanes
    if end > payload.size:
        raise TruncatedError("the payload ends within its states")
    states = payload[begin:end].view("<u4").astype(np.uint32)
    if int((states - _LOW).max()) >= _RANGE:  # those below wrap around
        raise FrameError("a state is out of range")
    return states


def decode(
    payload: Array,
    begin: int,
    lanes: int,
    bits: int,
    entries: Array,
    rows: Array | None,
    out: Array,
    levels: Array | None = None,
) -> None:
    """Fill `out` from the states that begin there, and words; raises TruncatedError or FrameError.

    Tables have 2^bits `entries` each; `rows` is the table of each symbol, None where there is one. If its `levels` are
    known, registers may hold it.
    """
    states = states_at(payload, begin, lanes)
    cursor, scale = np.array([begin + STATE * lanes, 0], np.uint64), np.uint64(bits)
    tables = (scale, entries) if rows is None else (scale, entries, rows)
    vectors = _vectors(lanes)
    if vectors:
        small = np.zeros(permute.SIZE, np.uint8)
        held = rows is None and levels is not None and bits == permute.BITS and lanes >= permute.LANES
        if held and features() >= PERMUTES and permute.condense(levels, small) == 0:
            _advance(permute.decode, payload, (small,), states, cursor, out)
        else:
            _advance(vectors.decode if rows is None else vectors.decode_rows, payload, tables, states, cursor, out)
    finish = portable.decode if rows is None else portable.decode_rows
    if cursor[0] > payload.size or finish(payload, *tables, states, cursor, out) < 0:
        raise FrameError("the payload does not end where its symbols do")


def encode(symbols: Array, lanes: int, bits: int, entries: Array, rows: Array | None) -> Array:
    """Return the states and words of symbols, by tables as `decode` has them, with entries of their own."""
    states, words = np.full(lanes, _LOW, np.uint32), np.empty(2 * symbols.size + 32, np.uint8)
    tables = (np.uint64(bits), entries) if rows is None else (np.uint64(bits), entries, rows)
    vectors = _vectors(lanes)
    # The portable loop codes what does not fill all lanes, and the rest where there is no faster one.
    n, whole = np.uint64(symbols.size), np.uint64(symbols.size - symbols.size % lanes if vectors else 0)
    slow = portable.encode if rows is None else portable.encode_rows
    at = np.uint64(slow(symbols, *tables, whole, n, np.uint64(words.size), states, words))
    if vectors:
        fast = vectors.encode if rows is None else vectors.encode_rows
        room = (np.empty_like(states),) if vectors is baseline else ()
        at = np.uint64(fast(symbols, *tables, whole, at, states, *room, words))
    return np.concatenate((states.astype("<u4").view(np.uint8), words[at:]))


def _vectors(lanes: int) -> ModuleType | None:
    """Return the module whose loops go by vectors here, if there is one."""
    if lanes < WIDTH or not compilable():
        return None
    return simd if features() >= AVX2 else baseline


def _advance(run: Kernel, payload: Array, tables: tuple[Any, ...], states: Array, cursor: Array, out: Array) -> None:
    """Decode by vectors with the `tables` that `run` takes; `cursor` may end beyond a payload cut short."""
    lanes = states.size
    run(payload, *tables, states, cursor, out)
    # It stops where less than a word for each lane is left, which may serve for many symbols: go on with zeros behind.
    if out.size - int(cursor[1]) >= lanes:
        begin = int(cursor[0])
        cursor[0] = 0
        rest = np.concatenate((payload[begin:], np.zeros(2 * lanes, np.uint8)))
        run(rest, *tables, states, cursor, out)
        cursor[0] += np.uint64(begin)

"""The ggd codec's decoding for 16 lanes at a time: it goes as far as is safe, the portable loop finishes."""

from __future__ import annotations

from typing import Any

from numpy import uint64

from featherweight.codecs._kernels import _vector as v
from featherweight.codecs._kernels._primitives import popcount
from featherweight.codecs._kernels._steps import machine_of, stepped
from featherweight.codecs._kernels.ggd_models import BITS
from featherweight.codecs._kernels.rans_simd import after, refilled
from featherweight.kernel import kernel

__all__ = ["decode", "walk"]

_0, _1, _2, _12, _16 = (uint64(each) for each in (0, 1, 2, BITS, 16))
_SLOTS, _LOW = uint64((1 << BITS) - 1), uint64(1 << 15)


@kernel("u8(u4[r], u4[r], u4[w], u1[w])")
def walk(index: Any, nexts: Any, states: Any, rows: Any) -> Any:
    """Do what the portable loop does as far as whole rounds of all paths go, and return how far that is."""
    many, one, trellis = uint64(states.size), v.splat(_1), machine_of(nexts)
    whole = uint64(index.size) // many * many
    for done in range(_0, whole, many):
        for lane in range(_0, many, _16):
            at, state = done + lane, v.load(states, lane)
            v.store8(rows, at, v.either(v.load8(rows, at), v.both(state, one)))
            v.store(states, lane, stepped(trellis, state, v.both(v.load(index, at), one)))
    return whole


@kernel("void(u1[r], u4[r], u1[r], u4[r], u4[w], u4[w], u8[w], u1[w])")
def decode(payload: Any, entries: Any, rows: Any, nexts: Any, paths: Any, states: Any, cursor: Any, out: Any) -> None:
    """Decode from byte `cursor[0]` and code `cursor[1]` on and leave there how far it came."""
    size, n, lanes, many = uint64(payload.size), uint64(out.size), uint64(states.size), uint64(paths.size)
    at, done, trellis = cursor[0], cursor[1], machine_of(nexts)
    one, slots, shift, low = v.splat(_1), v.splat(_SLOTS), v.splat(_12), v.splat(_LOW)
    while n - done >= lanes and size - at >= _2 * lanes:
        for lane in range(_0, lanes, _16):
            which = (done + lane) & (many - _1)
            x, path = v.load(states, lane), v.load(paths, which)
            row = v.left(v.either(v.load8(rows, done + lane), v.both(path, one)), shift)
            entry = v.gather(entries, v.either(row, v.both(x, slots)))
            v.store8(out, done + lane, entry)
            v.store(paths, which, stepped(trellis, path, v.both(entry, one)))
            x = after(entry, x, shift)
            short = v.less(x, low)
            v.store(states, lane, refilled(x, short, payload, at))
            at += _2 * popcount(short)
        done += lanes
    cursor[0], cursor[1] = at, done

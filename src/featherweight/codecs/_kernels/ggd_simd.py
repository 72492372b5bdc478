"""The ggd codec's decoding for 16 lanes at a time: it goes as far as is safe, the portable loop finishes."""

from __future__ import annotations

from typing import Any

from numpy import uint64

from featherweight.codecs._kernels import _vector as v
from featherweight.codecs._kernels._primitives import popcount
from featherweight.codecs._kernels.ggd import BITS
from featherweight.codecs._kernels.rans_simd import _left, _refilled
from featherweight.kernel import kernel

__all__ = ["decode_states"]

_1, _2, _13, _16 = (uint64(each) for each in (1, 2, BITS + 1, 16))
_0, _SLOTS, _BITS, _LOW, _BYTE = uint64(0), uint64((2 << BITS) - 2), uint64(BITS), uint64(1 << 15), uint64(255)


@kernel("void(u1[r], u4[r], u1[r], u4[r], u4[w], u4[w], u8[w], u1[w])")
def decode_states(
    payload: Any, entries: Any, rows: Any, nexts: Any, paths: Any, states: Any, cursor: Any, out: Any
) -> None:
    """Decode from byte `cursor[0]` and token `cursor[1]` on and leave there how far it came; a lane is a path."""
    size, n, lanes = uint64(payload.size), uint64(out.size), uint64(states.size)
    at, done = cursor[0], cursor[1]
    one, slots, shift, above, low = v.splat(_1), v.splat(_SLOTS), v.splat(_BITS), v.splat(_13), v.splat(_LOW)
    byte = v.splat(_BYTE)
    while n - done >= lanes and size - at >= _2 * lanes:
        for lane in range(_0, lanes, _16):
            x, path = v.load(states, lane), v.load(paths, lane)
            row = v.left(v.either(v.load8(rows, done + lane), v.both(path, one)), above)
            entry = v.gather(entries, v.either(row, v.both(v.plus(x, x), slots)))
            v.store8(out, done + lane, entry)
            parity = v.both(v.right(v.plus(v.both(entry, byte), one), one), one)
            v.store(paths, lane, v.gather(nexts, v.plus(v.plus(path, path), parity)))
            x = _left(entry, x, shift)
            short = v.less(x, low)
            v.store(states, lane, _refilled(x, short, v.load16le(payload, at)))
            at += _2 * popcount(short)
        done += lanes
    cursor[0], cursor[1] = at, done

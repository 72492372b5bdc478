"""What a sample of bytes tells of their entropy."""

from __future__ import annotations

from typing import Any

from numpy import uint32, uint64

from featherweight.kernel import kernel

_0, _1 = uint64(0), uint64(1)


@kernel("void(u1[r], u8, u8, u8[r], u4[w], u8[w])", brief=True)
def survey(symbols: Any, run: Any, step: Any, shares: Any, counts: Any, found: Any) -> None:
    """Count `run` symbols at every `step`; `counts` (256) is scratch.

    `found` becomes their number, how many different ones there are, the largest, the sum over these of
    `shares[count]`, and the count of the likeliest.
    """
    for symbol in range(uint64(256)):
        counts[symbol] = uint32(0)
    n = uint64(symbols.size)
    found[0], found[1], found[2], found[3], found[4] = _0, _0, _0, _0, _0
    for start in range(_0, n, step):
        if start + run <= n:
            found[0] += run
            for i in range(start, start + run):
                counts[symbols[i]] += uint32(1)
    for symbol in range(uint64(256)):
        count = counts[symbol]
        if count:
            found[1] += _1
            found[2] = uint64(symbol)
            found[3] += shares[count]
            found[4] = max(found[4], uint64(count))

"""By how much each size of indices is more frequent than a generalised Gaussian has it, in all classes alike.

Weights that were pruned leave a gap around zero, and others are not quite what a model says. The shares are found as
margins are fitted: expected and counted sizes are compared over all classes, and so again with what that made of them.
"""

from __future__ import annotations

from typing import Any

from numpy import float64, int8, int64, uint64

from featherweight.codecs._kernels._tokens import LARGEST
from featherweight.codecs._kernels.ggd_models import SIZES, exp2, log2_large, model_at, size_of, weight
from featherweight.kernel import kernel

__all__ = ["find", "promise"]

_ROUNDS = 4
_MOST = 127 << 9  # octaves in 4096ths, eighths of which are told
_UNIT = 16  # of numbers, so that halves are told
_0, _1, _8 = uint64(0), uint64(1), uint64(8)


@kernel("i8(u4[r], u2[r], u4[r], f8[w])", brief=True)
def promise(counts: Any, table: Any, logs: Any, seen: Any) -> Any:
    """Return about how many bits shares would spare, times 4096: the divergence of counted and expected sizes.

    `table` holds frequencies. Scratch: `seen` (2 · SIZES).
    """
    seen[:] = float64(0)
    for begin in range(0, counts.size, 256):
        number = _0
        for each in range(256):
            number += uint64(counts[begin + each])
        for each in range(LARGEST + 1 if number else 0):
            size = int64(size_of(uint64(each)))
            seen[size] += float64(counts[begin + each])
            seen[SIZES + size] += float64(number) * float64(table[begin + each])
    spared = float64(0)
    for at in range(SIZES):
        if seen[at]:
            there = log2_large(uint64(seen[at] * float64(_UNIT)), logs)
            expected = log2_large((uint64(seen[SIZES + at]) >> _8) + _1, logs)
            spared += seen[at] * float64(there - expected)
    return int64(spared)


@kernel("void(u4[r], i8[r], u8, u8, u4[r], u8, f8[w], f8[w], i8[w], i1[w])", brief=True)
def find(
    counts: Any,
    model: Any,
    low: Any,
    quantizers: Any,
    logs: Any,
    sizes: Any,
    weights: Any,
    seen: Any,
    found: Any,
    out: Any,
) -> None:
    """Fill `out` with the shares of the first `sizes`, up to the last that occurs, in eighths of an octave.

    `counts` are as for fitting. Scratch: `weights` (SIZES for each table), `seen` (2 · SIZES: counted and expected),
    `found` (SIZES).
    """
    tables = counts.size >> 8
    seen[:] = float64(0)
    weights[:] = float64(0)
    found[:] = int64(0)
    for table in range(tables):
        level, quantizer = int64(low + uint64(table) // quantizers), uint64(table) % quantizers
        scale, shape = model_at(model, level)
        zero, beyond = model[5] if quantizer else model[4], False
        for each in range(LARGEST + 1):
            size = int64(size_of(uint64(each)))
            base = _0 if beyond else weight(uint64(each), quantizer, scale, shape, zero, logs)
            beyond = bool(beyond or (each > 1 and base == _0))
            weights[table * SIZES + size] += float64(max(base, _1))
            seen[size] += float64(counts[(table << 8) + each])
    for _ in range(_ROUNDS):
        seen[SIZES:] = float64(0)
        for table in range(tables):
            row, number, total = weights[table * SIZES : (table + 1) * SIZES], _0, float64(0)
            for each in range(256):
                number += uint64(counts[(table << 8) + each])
            for at in range(sizes if number else _0):
                total += row[at] * float64(exp2(found[at]))
            for at in range(sizes if total else _0):
                seen[SIZES + at] += float64(number) * row[at] * float64(exp2(found[at])) / total
        for at in range(sizes):  # one half more of each, so that a size which is rare at any rate stays possible
            there = log2_large(uint64(seen[at] * float64(_UNIT)) + _8, logs)
            expected = log2_large(uint64(seen[SIZES + at] * float64(_UNIT)) + _8, logs)
            found[at] = min(max(found[at] + there - expected, int64(-_MOST)), int64(_MOST))
    for at in range(sizes):
        out[at] = int8(found[at] + int64(256) >> int64(9))

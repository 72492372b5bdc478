"""Steps through the state machine of a trellis, sixteen paths at a time."""

from __future__ import annotations

from typing import Any

from numpy import uint64

from featherweight.codecs._kernels import _vector as v
from featherweight.kernel import primitive

__all__ = ["machine_of", "stepped"]

_0, _1 = uint64(0), uint64(1)


@primitive
def machine_of(nexts: Any) -> Any:
    """Return what `stepped` wants to know: machines of more than eight states are linear, and two states tell all."""
    return nexts.size <= 16, v.load(nexts, _0), v.splat(uint64(nexts[1])), v.splat(uint64(nexts[2]))


@primitive
def stepped(machine: Any, state: Any, parity: Any) -> Any:
    """Return the states after indices of a parity."""
    few, after, odd, fed = machine
    if few:
        return v.permute(after, v.plus(v.plus(state, state), parity))
    none, one = v.splat(_0), v.splat(_1)
    turned = v.differ(v.both(v.minus(none, v.both(state, one)), fed), v.both(v.minus(none, parity), odd))
    return v.differ(v.right(state, one), turned)

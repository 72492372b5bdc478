"""Find how dense the elements are that differ from the common one, by rows, under which all are then coded.

Gradients that were quantized to few values have what is not zero in clusters. This stage leaves the elements as they
are, but puts them into rows, and adds a level for each, so that they can be coded *given* these:
``chain(Density(), values=chain(Rans(), given=("density",)))``.

Wire: `common`, the common element.
Streams: `density`, u8, of the shape (r, 1), and `values`, u8, (r, c), the elements in memory order, with fewer than c
common ones after them.
Decoding: out = values, in memory order.

A row with n other elements has the level ⌈2 log2(1 + n)⌉.

>>> import numpy as np
>>> density, values = Density(4).encode(np.array([1, 1, 1, 1, 1, 2, 1, 0, 1], np.uint8)).streams
>>> density.tolist(), values.tolist()
([[0], [4], [0]], [[1, 1, 1, 1], [1, 2, 1, 0], [1, 1, 1, 1]])
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight.dtypes import Array
from featherweight.errors import FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Density"]

_LONGEST = 1 << 16


class DensityWire(Wire, frozen=True):
    common: int


def decode(wire: DensityWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Copy the values; the levels were for others."""
    if len(streams) != 2 or streams[1].ndim != 2 or streams[0].shape != (streams[1].shape[0], 1):
        raise FrameError("expected a level for each row of values")
    values, row = streams[1].reshape(-1), streams[1].shape[1]
    if not 0 < row <= _LONGEST or streams[1].shape[0] != -(-out.size // row) or not 0 <= wire.common < 256:
        raise FrameError(f"{streams[1].shape} values for {out.size}, the common one {wire.common}")
    if np.any(values[out.size :] != wire.common):
        raise FrameError("what follows the values is not the common one")
    out.reshape(-1)[:] = values[: out.size]


CODEC = Codec(
    "density",
    DensityWire,
    Port("values", "u", bits=8),
    (Port("density", "u", 2, 8), Port("values", "u", 2, 8)),
    decode,
)


@dataclass(frozen=True)
class Density:
    """Add a level of density for each row of `row` elements."""

    codec: ClassVar[Codec] = CODEC
    row: int = param(144, lo=1, hi=_LONGEST, doc="elements that share a level")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Count in each row what is not the commonest element."""
        flat = x.reshape(-1)
        common = int(np.bincount(flat).argmax()) if flat.size else 0
        rows = -(-flat.size // self.row)
        values = np.full((rows, self.row), common, np.uint8)
        values.reshape(-1)[: flat.size] = flat
        others = np.count_nonzero(values != common, axis=1)
        return Encoded(DensityWire(common), (_LEVELS[others].reshape(rows, 1), values))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0


def _levels() -> Array:
    """Return ⌈2 log2(1 + n)⌉, which is the number of k with 2^k < (1 + n)²."""
    squares = np.arange(1, _LONGEST + 2, dtype=np.int64) ** 2
    return np.searchsorted(1 << np.arange(40, dtype=np.int64), squares).astype(np.uint8)


_LEVELS = _levels()

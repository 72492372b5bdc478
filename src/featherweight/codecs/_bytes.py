"""Arrays as bytes, each element least significant byte first, and back: for coders that see nothing else."""

from __future__ import annotations

import numpy as np

from featherweight import dtypes
from featherweight.dtypes import Array
from featherweight.errors import FrameError

__all__ = ["fill", "seen"]


def seen(x: Array) -> Array:
    """Return the bytes of a contiguous array."""
    words = dtypes.bits_view(x)
    return words.astype(words.dtype.newbyteorder("<"), copy=False).view(np.uint8)


def fill(data: bytes, out: Array) -> None:
    """Fill `out` from as many bytes as it has; raises FrameError for what is no element of its type."""
    words = dtypes.bits_view(out)
    if len(data) != out.nbytes:
        raise FrameError(f"{len(data)} bytes for {out.nbytes}")
    words[...] = np.frombuffer(data, words.dtype.newbyteorder("<"))
    row = dtypes.of(out.dtype)
    top = 1 if row.kind == "b" else (1 << row.bits) - 1 if row.bits < 8 else None
    if top is not None and words.size and words.max() > top:
        raise FrameError(f"a byte is no element of {out.dtype}")

"""An array as the parts that it consists of, and these as blocks."""

from __future__ import annotations

import numpy as np

from featherweight.dtypes import Array

__all__ = ["blocks"]


def blocks(given: tuple[Array, ...], size: int, block: int, error: type[Exception]) -> Array:
    """Return the lengths of the blocks that `size` elements are cut into, part by part; the last may be shorter.

    `given` may hold the lengths of the parts; `error` is raised where they do not make `size`. Without `block` a part
    is a block, even if it is empty.
    """
    parts = np.array([size], np.uint64)
    if given:
        (lengths,) = given
        if lengths.size and (lengths.min() < 0 or lengths.max() > size):
            raise error(f"a part is negative, or longer than all {size} elements")
        parts = lengths.astype(np.uint64)
        # In floating point a sum that passes 64 bits is wrong by little, in integers by much.
        if float(parts.sum(dtype=np.float64)) > 2.0**60 or int(parts.sum(dtype=np.uint64)) != size:
            raise error(f"the parts do not make {size} elements")
    if not block:
        return parts
    counts = (parts + np.uint64(block - 1)) // np.uint64(block)
    found = np.full(int(counts.sum(dtype=np.uint64)), block, np.uint64)
    filled = counts > 0
    last = np.cumsum(counts, dtype=np.uint64)[filled] - np.uint64(1)
    found[last.astype(np.int64)] = ((parts - np.uint64(1)) % np.uint64(block) + np.uint64(1))[filled]
    return found

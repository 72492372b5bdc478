"""What the weights hold: entropies in bits a weight, computed from the data itself.

They are limits of models, not of nature: a coder that knows more (rows, columns, neighbours) goes below a limit that
knows less. Empirical entropies are a little too low where a context has few members, and tables cost nothing in them.
"""

from __future__ import annotations

import heapq
import itertools

import numpy as np

from benchmarks._data import Array, Case
from featherweight import dtypes

BLOCKS = (1 << 14, 1 << 16, 1 << 18)


def entropy(counts: Array) -> float:
    """Return the total bits of symbols that occur so often."""
    used = counts[counts > 0].astype(np.float64)
    return float((used * (np.log2(used.sum()) - np.log2(used))).sum())


def conditional(symbols: Array, classes: Array) -> float:
    """Return the total bits of `symbols` given `classes`, both small integers."""
    width = int(symbols.max()) + 1
    used = np.bincount(classes) > 0
    numbers = np.cumsum(used)[classes] - 1  # none that does not occur
    joint = np.bincount(numbers * width + symbols)
    joint = np.pad(joint, (0, -joint.size % width)).reshape(-1, width)
    return sum(entropy(row) for row in joint)


def huffman(counts: Array) -> float:
    """Return the total bits of the best prefix code without a limit on its lengths."""
    heap = [int(count) for count in counts if count]
    heapq.heapify(heap)
    total = heap[0] if len(heap) == 1 else 0
    while len(heap) > 1:
        total += (merged := heapq.heappop(heap) + heapq.heappop(heap))
        heapq.heappush(heap, merged)
    return float(total)


def exponents(array: Array) -> Array:
    """Return the exponent field of floats."""
    row = dtypes.of(array.dtype)
    words = array.reshape(-1).view(row.word)
    return (words >> row.mantissa & ((1 << row.exponent) - 1)).astype(np.uint8)


def limits(case: Case) -> dict[str, float]:
    """Return entropies by name, in bits a weight; empty for what is no float of 16 or 32 bits."""
    row = dtypes.of(case.flat.dtype)
    if row.kind != "f" or row.bits not in (16, 32):
        return {}
    exponent, count = exponents(case.flat), case.flat.size
    counts = np.bincount(exponent)
    found = {"exponent": entropy(counts), "exponent, best Huffman": huffman(counts)}
    for size in BLOCKS:
        parts = (exponent[i : i + size] for i in range(0, count, size))
        found[f"exponent in blocks of {size >> 10} Ki"] = sum(entropy(np.bincount(part)) for part in parts)
    rows, both = _scale_classes(case)
    found["exponent given row scale"] = conditional(exponent, rows)
    found["exponent given row and column scale"] = conditional(exponent, both)
    rest, given = _mantissa(case.flat, exponent, both)
    found["sign and mantissa"] = rest
    found["sign and mantissa given exponent"] = given[0]
    found["sign and mantissa given exponent and scale"] = given[1]
    found["whole, order 0"] = found["exponent"] + rest
    found["whole, given all of that"] = found["exponent given row and column scale"] + given[1]
    return {name: total / count for name, total in found.items()}


def _mantissa(flat: Array, exponent: Array, classes: Array) -> tuple[float, tuple[float, float]]:
    """Return the bits of sign and mantissa byte by byte from the top; the first byte also under contexts."""
    row = dtypes.of(flat.dtype)
    words = flat.view(row.word)
    rest = (words & ((1 << row.mantissa) - 1)) | (words >> (row.bits - 1) << row.mantissa)
    width = row.mantissa + 1
    top = (rest >> max(0, width - 8)).astype(np.uint8)
    first = entropy(np.bincount(top))
    lower = 0.0
    for high, low in itertools.pairwise([*range(width - 8, 0, -8), 0]):
        lower += entropy(np.bincount((rest >> low & ((1 << (high - low)) - 1)).astype(np.uint8)))
    context = exponent.astype(np.int64) << 10
    return first + lower, (conditional(top, context) + lower, conditional(top, context | classes) + lower)


def _scale_classes(case: Case) -> tuple[Array, Array]:
    """Return for every weight the class of its row's scale, and of row and column together, in half octaves."""
    rows, both = [], []
    for _, tensor in case.tensors():
        matrix = np.abs(tensor.reshape(tensor.shape[0] if tensor.ndim > 1 else 1, -1).astype(np.float32))
        row = _root_mean_square(matrix, 1)
        column = _root_mean_square(matrix / row, 0) if len(matrix) > 1 else np.ones_like(matrix)
        rows.append(np.broadcast_to(_half_octaves(row), matrix.shape).reshape(-1))
        both.append(_half_octaves(row * column).reshape(-1))
    return np.concatenate(rows), np.concatenate(both)


def _root_mean_square(matrix: Array, axis: int) -> Array:
    return np.sqrt(np.mean(np.square(matrix), axis=axis, keepdims=True)) + np.float32(1e-30)


def _half_octaves(scale: Array) -> Array:
    return np.clip(np.rint(2 * np.log2(scale)) + 512, 0, 1023).astype(np.int64)

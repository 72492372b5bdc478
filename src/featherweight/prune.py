"""Pruning: a rewrite that sets the least of the weights to zero.

By magnitude, as in Han, Pool, Tran and Dally, "Learning both weights and connections" (arXiv:1506.02626): a share of
the weights, all up to a threshold, or all up to a multiple of their standard deviation; one by one, in whole rows or
columns, or so that n of every m stay. Decoders do not know of it.

For whole networks, `threshold_for` finds the one threshold, and `masks` the exact choice, that prune a share of the
weights of all tensors together.

>>> import numpy as np
>>> x = np.array([[1, -5, 2, 0.5], [4, 3, -2, 6]], np.float32)
>>> Prune(0.5).rewrite(x)
array([[ 0., -5.,  0.,  0.],
       [ 4.,  3.,  0.,  6.]], dtype=float32)
>>> Prune(structure="n:m", n=1, m=2).rewrite(x)
array([[ 0., -5.,  2.,  0.],
       [ 4.,  0.,  0.,  6.]], dtype=float32)
>>> threshold_for({"a": x[0], "b": x[1]}, 0.5)
2.0
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import prune as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError
from featherweight.stage import Port, check_params, param

__all__ = ["Prune", "masks", "norms", "threshold_for"]

_BLOCK = 1 << 18  # elements looked at at once
_GROUPS = ("rows", "filters", "columns", "channels")
_DEFAULT = 0.9


@dataclass(frozen=True)
class Prune:
    """Set the smallest weights to zero.

    What goes is said by one of `sparsity`, `threshold` and `quality`, or by the mask that is given, which is not 0
    where weights stay and broadcasts to them. Exactly round(sparsity · n) of n weights go, or more if more of them are
    zero already; of equal magnitudes the first. A threshold takes all magnitudes up to it.

    `structure` takes groups for single weights: `rows` or `filters` x[i], `columns` x[:, j, …], `channels` x[:, j] (of
    a matrix the same), by the root mean square of a group or, with the norm `l1`, its mean magnitude. `n:m` keeps the
    n largest of every m neighbours along the second axis, where the inputs of a layer are.
    """

    name: ClassVar[str] = "prune"
    given: ClassVar[tuple[Port, ...]] = (Port("mask", "bui"),)
    sparsity: float | None = param(
        None, lo=0.0, hi=1.0, doc=f"the share of weights or groups that goes; {_DEFAULT} where nothing else is said"
    )
    threshold: float | None = param(None, lo=0.0, doc="the largest magnitude that goes")
    quality: float | None = param(None, lo=0.0, doc="the same in standard deviations of the tensor")
    structure: str = param("none", choices=("none", *_GROUPS, "n:m"), doc="what goes together")
    norm: str = param("l2", choices=("l2", "l1"), doc="how groups are compared")
    n: int = param(2, lo=1, hi=64, doc="how many stay of m, where the structure is n:m")
    m: int = param(4, lo=1, hi=64, doc="how many neighbours share n, where the structure is n:m")

    def __post_init__(self) -> None:
        check_params(self)
        said = self._said()
        if len(said) > 1:
            raise ArgumentError(f"prune: {said[0]} and {said[1]} both say what goes; leave one out")
        if said and self.structure == "n:m":
            raise ArgumentError(f"prune: n:m says itself what goes; leave {said[0]} out")
        if self.n > self.m:
            raise ArgumentError(f"prune: {self.n} of {self.m} cannot stay")

    def rewrite(self, x: Array, /, *given: Array) -> Array:
        """Return the pruned array; raises ArgumentError for what is no array of finite floats."""
        _check(x)
        result = np.array(x, order="C")
        words = result.view(dtypes.of(x.dtype).word)
        np.multiply(words, self.mask(x, *given), out=words)
        return result

    def mask(self, x: Array, /, *given: Array) -> Array:
        """Return what stays: booleans that broadcast to the weights."""
        if given:
            if self._said() or self.structure != "none":
                raise ArgumentError("prune: the mask that is given says what goes; leave the parameters out")
            return _mask(given[0], x.shape)
        if self.structure == "n:m":
            return _best(x, self.n, self.m)
        limit = self.threshold
        if self.quality is not None:
            limit = self.quality * _deviation(x)
        measured = x if self.structure == "none" else norms(x, self.structure, self.norm)
        if limit is not None:
            return _above(measured, limit)
        return masks({"": measured}, _DEFAULT if self.sparsity is None else self.sparsity)[""]

    def _said(self) -> list[str]:
        return [name for name in ("sparsity", "threshold", "quality") if getattr(self, name) is not None]


def threshold_for(tensors: Mapping[str, Array], sparsity: float) -> float:
    """Return the threshold that prunes this share of the weights of all tensors together.

    It is the largest of the round(sparsity · n) smallest magnitudes, so more than these go only where some are equal
    to it. Tensors are read one by one, and again for every 16 bits of a magnitude, so a mapping may load them when it
    is asked.
    """
    count = _share(tensors, sparsity)
    if not count:
        return 0.0
    size = _size(tensors.values())
    cut, _ = _cut(tensors, count, size)
    return float(np.array(cut, f"u{size}").view(f"f{size}"))


def masks(tensors: Mapping[str, Array], sparsity: float) -> dict[str, Array]:
    """Return which weights stay if of all tensors together exactly round(sparsity · n) go, the smallest.

    Of equal magnitudes the first go, in the order of the tensors.
    """
    count = _share(tensors, sparsity)
    if not count:
        return {name: np.ones(tensors[name].shape, np.bool_) for name in tensors}
    size = _size(tensors.values())
    cut, below = _cut(tensors, count, size)
    ties, found = count - below, {}
    for name in tensors:
        found[name], ties = _marked(tensors[name], size, cut, ties)
    return found


def norms(x: Array, structure: str, norm: str = "l2") -> Array:
    """Return the root mean square (`l2`) or mean magnitude (`l1`) of the groups of a structure, f64, shaped like `x`.

    Dimensions that groups extend over are 1. They compare with each other, with single weights and between tensors.
    """
    if structure not in _GROUPS or norm not in ("l1", "l2"):
        raise ArgumentError(f"norms of {structure!r} by {norm!r}: groups are {', '.join(_GROUPS)}, norms l1 and l2")
    if x.ndim < 2:
        raise ArgumentError(f"{structure} are of two dimensions or more, not {list(x.shape)}")
    _check(x)
    across = structure in ("rows", "filters")
    rest = x.shape[1:2] + (1,) * (x.ndim - 2) if structure == "channels" else x.shape[1:]
    shape = (x.shape[0],) + (1,) * (x.ndim - 1) if across else (1, *rest)
    sums = np.zeros(math.prod(shape))
    scale = _largest(x) or 1.0  # so that no square overflows
    for start, rows in _rows(x):
        part = np.abs(rows.astype(np.float64).reshape(len(rows), -1)) / scale
        if norm == "l2":
            part *= part
        if across:
            sums[start : start + len(rows)] = part.sum(axis=1)
        else:
            sums += part.sum(axis=0).reshape(sums.size, -1).sum(axis=1)
    means = sums / max(1, x.size // max(1, sums.size))
    return ((np.sqrt(means) if norm == "l2" else means) * scale).reshape(shape)


def _check(x: Array) -> None:
    row = dtypes.of(x.dtype)
    if row.kind != "f":
        raise ArgumentError(f"prune takes floats, not {row.name}: code it with lossless")
    if not row.mantissa:
        raise ArgumentError(f"{row.name} has no zero that weights could be pruned to: code it with lossless")
    for words in _words(x, _size([x])):
        infinite = np.array(np.inf, f"f{words.itemsize}").view(words.dtype)
        if words.max() >= infinite:
            raise ArgumentError("a weight is not finite: code it with lossless, or repair it first")


def _size(tensors: Iterable[Array]) -> int:
    """Return the bytes of the type that holds all their magnitudes."""
    return 8 if any(dtypes.of(x.dtype).bits == 64 for x in tensors) else 4


def _share(tensors: Mapping[str, Array], sparsity: float) -> int:
    if not 0 <= sparsity <= 1:
        raise ArgumentError(f"sparsity {sparsity}: expected 0 to 1")
    total = 0
    for name in tensors:
        x = tensors[name]
        _check(x)
        total += x.size
    return round(sparsity * total)


def _words(x: Array, size: int) -> Iterator[Array]:
    """Yield the magnitudes, block by block, as words of `size` bytes."""
    flat, magnitude = x.reshape(-1), (1 << (8 * size - 1)) - 1
    for start in range(0, flat.size, _BLOCK):
        values = flat[start : start + _BLOCK].astype(f"f{size}", copy=False)
        yield values.view(f"u{size}") & np.array(magnitude, f"u{size}")


def _cut(tensors: Mapping[str, Array], count: int, size: int) -> tuple[int, int]:
    """Return the greatest of the `count` smallest magnitudes, as a word, and how many there are below it."""
    prefix = below = 0
    for shift in range(8 * size - 16, -1, -16):
        counts = np.zeros(1 << 16, np.uint64)
        for name in tensors:
            for words in _words(tensors[name], size):
                kernels.COUNT[size](words, np.uint64(prefix), np.uint64(shift), counts)
        ends = np.cumsum(counts)
        digit = int(np.searchsorted(ends, count - below))
        below += int(ends[digit] - counts[digit])
        prefix = prefix << 16 | digit
    return prefix, below


def _marked(x: Array, size: int, cut: int, ties: int) -> tuple[Array, int]:
    keep, start = np.empty(x.size, np.uint8), 0
    for words in _words(x, size):
        ties = kernels.MARK[size](words, np.uint64(cut), ties, keep[start : start + words.size])
        start += words.size
    return keep.view(np.bool_).reshape(x.shape), ties


def _above(x: Array, limit: float) -> Array:
    size = _size([x])
    cut = np.array(min(limit, float(np.finfo(f"f{size}").max)), f"f{size}")
    word = int(cut.view(f"u{size}"))
    # Where it was rounded up, the number before it is the last within the limit.
    return _marked(x, size, word - (float(cut) > limit), x.size)[0]


def _mask(mask: Array, shape: tuple[int, ...]) -> Array:
    keep: Array = mask.astype(np.bool_) if mask.dtype.kind == "V" else mask != 0
    try:
        np.broadcast_to(keep, shape)
    except ValueError:
        raise ArgumentError(f"prune: a mask of {list(mask.shape)} for weights of {list(shape)}") from None
    return keep


def _rows(x: Array) -> Iterator[tuple[int, Array]]:
    """Yield rows, a few at once, with the number of the first."""
    step = max(1, _BLOCK // max(1, math.prod(x.shape[1:])))
    for start in range(0, x.shape[0] if x.size else 0, step):
        yield start, x[start : start + step]


def _best(x: Array, n: int, m: int) -> Array:
    keep, size = np.ones(x.shape if x.ndim > 1 else (1, x.size), np.bool_), _size([x])
    for start, rows in _rows(x.reshape(keep.shape)):
        words = np.concatenate(list(_words(rows, size))).reshape(rows.shape)
        lined = np.ascontiguousarray(np.moveaxis(words, 1, -1))
        marks = np.empty(lined.size, np.uint8)
        kernels.BEST[size](lined.reshape(-1), lined.shape[-1], n, m, marks)
        keep[start : start + len(rows)] = np.moveaxis(marks.view(np.bool_).reshape(lined.shape), -1, 1)
    return keep.reshape(x.shape)


def _largest(x: Array) -> float:
    size = _size([x])
    most = max((int(words.max()) for words in _words(x, size)), default=0)
    return float(np.array(most, f"u{size}").view(f"f{size}"))


def _deviation(x: Array) -> float:
    """Return the standard deviation, in two passes and free of overflow."""
    scale, flat = _largest(x), x.reshape(-1)
    if not scale:
        return 0.0
    parts = [flat[start : start + _BLOCK] for start in range(0, x.size, _BLOCK)]
    mean = sum(float((part.astype(np.float64) / scale).sum()) for part in parts) / x.size
    square = sum(float(np.square(part.astype(np.float64) / scale - mean).sum()) for part in parts) / x.size
    return scale * math.sqrt(square)

"""Share values: each weight becomes the nearest of a few centroids (Han, Mao and Dally, "Deep Compression", ICLR 2016).

Wire: nothing.
Streams: `index`, u8 or u16, of the shape of the array; `codebook`, one-dimensional, finite, of the type of the array.
Given: a `codebook`, in place of the stream.
Decoding: out[i] = codebook[index[i]].

Centroids minimise the squared error: by Lloyd's iteration from a start (`linear`, `density`, `random`), or over all
choices there are (`exact`; Gronlund et al., arXiv:1701.07204). The default, `coarse`, solves it exactly for a coarse
histogram and goes on from there. With `zero`, entry 0 of the codebook is 0, and zeros and nothing else map to it: what
was pruned stays pruned.

>>> import numpy as np
>>> KMeans(2).encode(np.array([[1, 2], [9, 8]], np.float32)).streams
(array([[0, 0],
       [1, 1]], dtype=uint8), array([1.5, 8.5], dtype=float32))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._centroids import STARTS, checked, fit, optimum
from featherweight.codecs._kernels import _floats
from featherweight.codecs._kernels import kmeans as kernels
from featherweight.codecs._kernels._lookup import GATHER
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Edge, Empty, Encoded, Port, Spec, check_params, param

__all__ = ["CODEC", "KMeans", "assign", "fit", "optimum"]

_MOST = 1 << 16  # entries of a codebook


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Look the values up."""
    index = streams[0]
    if index.shape != out.shape or index.dtype not in (np.uint8, np.uint16):
        raise FrameError(f"an index of {index.dtype}{list(index.shape)} for {list(out.shape)}")
    if len(streams) + len(given) != 2:
        raise FrameError("one codebook is needed")
    codebook = (*streams[1:], *given)[0]
    if codebook.dtype != out.dtype or codebook.ndim != 1 or not _floats.is_finite(codebook):
        raise FrameError(f"a codebook of {codebook.dtype}{list(codebook.shape)} that is not finite or not {out.dtype}")
    if index.size and int(index.max()) >= codebook.size:
        raise FrameError(f"an index of {int(index.max())} in a codebook of {codebook.size}")
    words = dtypes.bits_view(codebook)
    GATHER[index.itemsize, words.itemsize](index.reshape(-1), words, dtypes.bits_view(out))


def at(wire: Empty, streams: tuple[Edge, ...], given: tuple[Edge, ...], spec: Spec, positions: Array) -> Array:
    """Look up some values."""
    if streams[0].spec.shape != spec.shape:
        raise FrameError(f"an index of {list(streams[0].spec.shape)} for {list(spec.shape)}")
    values = np.empty(positions.size, spec.dtype)
    books = tuple(edge.whole() for edge in (*streams[1:], *given))
    decode(wire, (streams[0].at(positions), *books[: len(streams) - 1]), books[len(streams) - 1 :], values)
    return values


CODEC = Codec(
    "kmeans",
    Empty,
    Port("values", "f"),
    (Port("index", "u"), Port("codebook", "f", 1)),
    decode,
    (Port("codebook", "f", 1),),
    at=at,
)


@dataclass(frozen=True)
class KMeans:
    """Map each weight to the nearest of at most `k` values, fitted to all of them, or to those of a given codebook."""

    codec: ClassVar[Codec] = CODEC
    k: int = param(16, lo=2, hi=_MOST, doc="the most entries of the codebook")
    init: str = param("coarse", choices=("exact", *STARTS), doc="where fitting starts; exact needs no iterations")
    iterations: int = param(100, lo=0, hi=1 << 16, doc="the most rounds of Lloyd's iteration")
    zero: bool = param(False, doc="give zero an entry of its own, the first")
    seed: int = param(0, lo=0, hi=(1 << 63) - 1, doc="of the random start")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Fit a codebook unless one is given, and find the nearest entry of each element."""
        if given:
            return Encoded(Empty(), (assign(x, given[0], zero=self.zero),))
        codebook = fit(x, self.k, init=self.init, iterations=self.iterations, zero=self.zero, seed=self.seed)
        return Encoded(Empty(), (assign(x, codebook, zero=self.zero), codebook))

    def error_bound(self, x: Array, /) -> None:
        """Nothing is promised: a codebook may be given."""
        return


def assign(x: Array, codebook: Array, *, zero: bool = False) -> Array:
    """Return the position of the nearest entry for each element, u8 for up to 256 entries, else u16.

    Of two equally near the lesser value is taken, of equal ones the first. With `zero` the first entry must be 0, and
    zeros go there and nothing else. Raises ArgumentError for what is not finite, and for a codebook that is not.
    """
    x, codebook = dtypes.native(x), dtypes.native(codebook)
    if codebook.dtype != x.dtype or codebook.ndim != 1 or codebook.size > _MOST:
        raise ArgumentError(f"a codebook of {codebook.dtype}{list(codebook.shape)} for an array of {x.dtype}")
    values, entries = checked(x), _floats.wide(codebook)
    if not np.isfinite(_floats.biggest(entries)):
        raise ArgumentError("an entry of the codebook is not finite")
    if zero and (not entries.size or entries[0] != 0):
        raise ArgumentError("with zero, the first entry of the codebook must be 0")
    size = 1 if codebook.size <= 256 else 2
    index = np.empty(x.shape, f"u{size}")
    flat = index.reshape(-1)
    entries, places = np.unique(entries[int(zero) :], return_index=True)
    places += int(zero)
    if not entries.size:
        if values.size and (not zero or values.any()):
            raise ArgumentError("the codebook has no entry for an element of the array")
        index[...] = 0
        return index
    words = dtypes.bits_view(x)
    if words.itemsize <= 2 and words.size > 1 << 8 * words.itemsize:
        every = _floats.wide(np.arange(1 << 8 * words.itemsize).astype(words.dtype).view(x.dtype))
        table = _moved(_nearest(every, entries, size), places, size)
        if zero:
            table[every == 0] = 0
        GATHER[words.itemsize, size](words, table, flat)
        return index
    flat[:] = _moved(_nearest(values, entries, size), places, size)
    if zero:
        kernels.ZERO[values.itemsize, size](values, flat)
    return index


def _nearest(values: Array, entries: Array, size: int) -> Array:
    """Return which of the ascending `entries` is nearest to each value."""
    kind, width = entries.dtype, entries.itemsize
    thresholds = np.full(max(entries.size, kernels.FEW), np.inf, kind)
    thresholds[: entries.size - 1] = _thresholds(entries)
    index = np.empty(values.size, f"u{size}")
    if entries.size <= kernels.FEW + 1:
        kernels.COMPARE[width, size](values, thresholds, index)
        return index
    bits = 16 if entries.size <= 1 << 11 else 18
    words = thresholds[: entries.size - 1].view(f"u{width}")
    ordered = np.where(np.signbit(thresholds[: entries.size - 1]), ~words, words | words.dtype.type(1 << 8 * width - 1))
    buckets = (ordered >> words.dtype.type(8 * width - bits)).astype(np.int64)
    starts = np.zeros((1 << bits) + 1, f"u{size}")
    starts[1:] = np.cumsum(np.bincount(buckets, minlength=1 << bits))
    kernels.SEARCH[width, size](values, values.view(f"u{width}"), thresholds, starts, 8 * width - bits, index)
    return index


def _thresholds(entries: Array) -> Array:
    """Return the largest numbers that are no nearer to the next entry than to this one."""
    low, high = entries[:-1].astype(np.float64), entries[1:].astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        total = low + high
        part = total - low  # Knuth's sum: what rounding left out
        rest = (low - (total - part)) + (high - part)
    middle = total / 2
    far = ~np.isfinite(total)
    middle[far], rest[far] = low[far] / 2 + high[far] / 2, 0
    rest[~far] += total[~far] - 2 * middle[~far]
    with np.errstate(under="ignore"):
        found = middle.astype(entries.dtype)
    over = (found > middle) | ((found == middle) & (rest < 0))
    below: Array = np.where(over, np.nextafter(found, entries.dtype.type(-np.inf)), found)
    return below


def _moved(index: Array, places: Array, size: int) -> Array:
    """Return the places in the codebook of sorted entries."""
    if (places == np.arange(places.size)).all():
        return index
    moved = np.empty_like(index)
    GATHER[size, size](index, places.astype(index.dtype), moved)
    return moved

"""Two checkpoints side by side, tensor by tensor and block by block: what `verify` and `diff` report.

Both are read in blocks, so that memory stays bounded, and may be of any formats.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from featherweight import dtypes
from featherweight.bundles import LARGE
from featherweight.dtypes import Array
from featherweight.errors import FeatherweightError, FrameError, LimitError
from featherweight.formats import TensorInfo
from featherweight.losses import decibels, over
from featherweight.reading import TensorFile
from featherweight.threads import ordered_map, thread_pool
from featherweight.writing import Progress

__all__ = ["Damage", "Difference", "compare", "damages"]

BLOCK = 1 << 22  # elements of each file that are looked at together: there are a few float64 of each
Status = Literal["equal", "changed", "dtype", "shape", "first only", "second only"]


@dataclass(frozen=True)
class Difference:
    """How a tensor differs between two files.

    `changed` elements have other bits (other values, where the dtypes differ). Elements with the same bits count as no
    error, NaN included. `largest` is the largest absolute error, `noise` the sum of the squares of the errors, `signal`
    that of the first file's elements. All are None where the shapes differ.
    """

    name: str
    status: Status
    first: TensorInfo | None
    second: TensorInfo | None
    changed: int | None = None
    largest: float | None = None
    noise: float | None = None
    signal: float | None = None

    @property
    def nmse(self) -> float | None:
        """Noise over signal."""
        return None if self.noise is None or self.signal is None else over(self.noise, self.signal)

    @property
    def snr(self) -> float | None:
        """Signal over noise in decibels: infinite where nothing differs."""
        return None if self.nmse is None else decibels(self.nmse)


@dataclass(frozen=True)
class Damage:
    """A tensor that cannot be decoded, and why."""

    name: str
    error: FrameError


def damages(file: TensorFile, threads: int | None = None, progress: Progress | None = None) -> Iterator[Damage]:
    """Decode every tensor, which checks every checksum, and yield those that are damaged.

    Raises what keeps intact tensors from being decoded too: BaseMismatchError, UnsupportedError, LimitError.
    """

    def one(pool: Executor | None, tell: Progress, info: TensorInfo) -> Damage | None:
        try:
            for block in file.blocks(info.name, BLOCK, pool=pool):
                tell(info.name, dtypes.packed_bytes(info.kind, block.size))
        except LimitError:
            raise
        except FrameError as error:
            return Damage(info.name, error)
        return None

    yield from (found for found in _each(one, file.infos.values(), threads, progress) if found)


def compare(
    first: TensorFile, second: TensorFile, threads: int | None = None, progress: Progress | None = None
) -> Iterator[Difference]:
    """Yield how every tensor differs, in the order of the first file; then those that only the second has."""
    alone = [info for name, info in second.infos.items() if name not in first.infos]
    work = functools.partial(_compare_one, first, second)
    yield from _each(work, first.infos.values(), threads, progress)
    for info in alone:
        yield Difference(info.name, "second only", None, info)


def _each(
    work: Callable[[Executor | None, Progress, TensorInfo], Any],
    infos: Iterable[TensorInfo],
    threads: int | None,
    progress: Progress | None,
) -> Iterator[Any]:
    """Do small tensors side by side and large ones piece by piece; progress is told by this thread alone."""
    tell = progress or _nobody
    with thread_pool(threads) as pool:
        for large, group in itertools.groupby(infos, lambda info: info.count >= LARGE):
            if large:
                yield from map(functools.partial(work, pool, tell), group)
                continue
            for info, result in ordered_map(pool)(lambda info: (info, work(None, _nobody, info)), group):
                tell(info.name, info.packed)
                yield result


def _nobody(name: str, size: int) -> None:
    """Tell nobody."""


def _compare_one(
    first: TensorFile, second: TensorFile, pool: Executor | None, tell: Progress, old: TensorInfo
) -> Difference:
    new = second.infos.get(old.name)
    if new is None:
        return Difference(old.name, "first only", old, None)
    if new.shape != old.shape:
        return Difference(old.name, "shape", old, new)
    changed, largest, noise, signal = 0, 0.0, 0.0, 0.0
    for x, y in _pairs(_blocks(first, old.name, pool), _blocks(second, old.name, pool)):
        tell(old.name, dtypes.packed_bytes(old.kind, x.size))
        differs = _differing(x, y)
        count = int(np.count_nonzero(differs))
        signal += _energy(x)
        if not count:
            continue
        changed += count
        errors = _distances(x, y, differs)
        largest = float(np.fmax(largest, errors.max())) if not np.isnan(errors).any() else math.nan
        noise += float(np.square(errors).sum())
    status: Status = "dtype" if new.kind != old.kind else "changed" if changed else "equal"
    return Difference(old.name, status, old, new, changed, largest, noise, signal)


def _blocks(file: TensorFile, name: str, pool: Executor | None) -> Iterator[Array]:
    """Yield the blocks of a tensor; errors name the file."""
    try:
        yield from file.blocks(name, BLOCK, pool=pool)
    except FeatherweightError as error:
        if not error.path.startswith(file.name):
            error.path = f"{file.name}: {error.path}"
        raise


def _pairs(first: Iterator[Array], second: Iterator[Array]) -> Iterator[tuple[Array, Array]]:
    """Cut two sequences of blocks at the same places."""
    x = y = np.empty(0)
    for x in first:
        while x.size:
            y = y if y.size else next(second)
            count = min(x.size, y.size)
            yield x[:count], y[:count]
            x, y = x[count:], y[count:]  # noqa: PLW2901  (what is left of them)
    for _ in second:  # to its end: an empty tensor has checksums too
        pass


def _differing(x: Array, y: Array) -> Array:
    if x.dtype != y.dtype:
        left, right = _wide(x), _wide(y)
        return np.asarray((left != right) & ~(np.isnan(left) & np.isnan(right)))
    words = np.not_equal(dtypes.bits_view(x), dtypes.bits_view(y))
    return np.asarray(words.reshape(-1, 2).any(1) if x.dtype.kind == "c" else words)


def _wide(x: Array) -> Array:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _energy(x: Array) -> float:
    with np.errstate(all="ignore"):
        squares = np.square(np.abs(_wide(x)))
    return float(squares.sum(where=np.isfinite(squares)))


def _distances(x: Array, y: Array, where: Array) -> Array:
    """Return the absolute errors of the elements that differ: of 64-bit integers too, which float64 cannot hold."""
    x, y = x[where], y[where]
    with np.errstate(all="ignore"):
        if x.dtype == y.dtype and x.dtype.kind in "iu":
            word = np.dtype(f"u{x.dtype.itemsize}")
            return np.asarray(np.maximum(x, y).view(word) - np.minimum(x, y).view(word), np.float64)
        return np.asarray(np.abs(_wide(x) - _wide(y)))

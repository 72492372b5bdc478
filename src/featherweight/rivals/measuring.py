"""What a contender is, and how several are measured."""

from __future__ import annotations

import gc
import importlib.util
import statistics
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

import featherweight
from featherweight import dtypes
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, MissingDependencyError

__all__ = ["Quartiles", "Rival", "Row", "Speed", "bytes_of", "measure", "paired", "speed"]


@dataclass(frozen=True)
class Rival:
    """A contender: how to run it, not its code.

    ``compress(prepared, threads)`` gives bytes, or several. ``decompress(blob, out, threads)`` fills `out`, a
    caller's buffer of the array's dtype and shape, and returns it, or returns a buffer of its own, or several.
    `prepare` runs before the clock does: a copy for a package that destroys its input, or bytes where it wants those.
    """

    name: str
    module: str  # what tells whether it is installed
    settings: str
    compress: Callable[[Any, int], Any]
    decompress: Callable[[Any, Array, int], Any]
    prepare: Callable[[Array], Any] = lambda array: array
    types: tuple[str, ...] | None = None  # the element types it takes, None for all
    package: str = ""  # the distribution, where it is called otherwise than the module
    threaded: bool = True

    @property
    def installed(self) -> bool:
        """Whether its package is here; nothing is imported."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """The version of its package."""
        if self.module == featherweight.__name__:
            return featherweight.__version__
        if self.module == "zlib":
            return zlib.ZLIB_RUNTIME_VERSION
        return metadata.version(self.package or self.module)

    def takes(self, array: Array) -> bool:
        """Return whether it has settings for arrays of this element type."""
        return self.types is None or dtypes.of(array.dtype).name in self.types


class Speed(NamedTuple):
    """Megabytes (10^6) of original a second; `spread` is (slowest - quickest) / median of the times."""

    best: float
    median: float
    spread: float


class Quartiles(NamedTuple):
    """Of the ratios of paired times."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Row:
    """What one contender did with one array: sizes in bytes, seconds of each repetition."""

    name: str
    version: str
    settings: str
    elements: int
    source: int
    coded: int
    encode: tuple[float, ...]
    decode: tuple[float, ...]

    @property
    def bits(self) -> float:
        """Bits per element, everything counted."""
        return 8 * self.coded / self.elements

    @property
    def ratio(self) -> float:
        """Source bytes over coded bytes."""
        return self.source / self.coded

    @property
    def encode_speed(self) -> Speed:
        """How fast it encoded."""
        return speed(self.source, self.encode)

    @property
    def decode_speed(self) -> Speed:
        """How fast it decoded."""
        return speed(self.source, self.decode)


def speed(nbytes: int, seconds: Sequence[float]) -> Speed:
    """Return the speed of work on `nbytes` that took these times."""
    middle = statistics.median(seconds)
    return Speed(nbytes / min(seconds) / 1e6, nbytes / middle / 1e6, (max(seconds) - min(seconds)) / middle)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Quartiles:
    """Return how many times as fast as `theirs` we were, round by round."""
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    return Quartiles(float(low), float(middle), float(high))


def measure(
    array: Array,
    contenders: Sequence[Rival],
    *,
    repetitions: int = 7,
    threads: int = 1,
    tick: Callable[[str], object] = len,
) -> list[Row]:
    """Run the contenders on `array`, all of them in every round, and verify every decode by its checksum.

    A round before the first is not counted: kernels compile and buffers are touched in it. `tick` is told who is
    next, for a progress bar.

    Raises MissingDependencyError for one that is not installed, and ArgumentError for one that does not take the
    array, or does not give it back.
    """
    array = dtypes.native(array)
    for rival in contenders:
        if not rival.installed:
            raise MissingDependencyError(f"{rival.name} is not installed: pip install 'featherweight[bench]'")
        if not rival.takes(array):
            raise ArgumentError(f"{rival.name} takes {', '.join(rival.types or ())}, not {array.dtype}")
    expected = _digest([array])
    out = np.empty_like(array)
    sizes = dict.fromkeys(contenders, 0)
    times: dict[Rival, tuple[list[float], list[float]]] = {rival: ([], []) for rival in contenders}
    for count in range(repetitions + 1):
        turn = count % len(contenders)  # nobody is always first, or always behind the same one
        for rival in (*contenders[turn:], *contenders[:turn]):
            tick(rival.name)
            coded, encoding, decoding = _once(rival, array, out, threads, expected)
            sizes[rival] = coded
            if count:
                times[rival][0].append(encoding)
                times[rival][1].append(decoding)
    return [
        Row(rival.name, rival.version, rival.settings, array.size, array.nbytes, sizes[rival], *map(tuple, spans))
        for rival, spans in times.items()
    ]


def _once(rival: Rival, array: Array, out: Array, threads: int, expected: int) -> tuple[int, float, float]:
    prepared = rival.prepare(array)
    out.reshape(-1).view(np.uint8).fill(0xA5)
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        blob = rival.compress(prepared, threads)
        encoding = time.perf_counter() - start
        del prepared
        start = time.perf_counter()
        result = rival.decompress(blob, out, threads)
        decoding = time.perf_counter() - start
    finally:
        gc.enable()
    if _digest(_parts(result)) != expected:
        raise ArgumentError(f"{rival.name} {rival.version} did not give the array back: what is lossy is not compared")
    coded = sum(part.stat().st_size if isinstance(part, Path) else bytes_of(part).size for part in _parts(blob))
    return coded, encoding, decoding


def _parts(result: Any) -> Iterable[Any]:
    return result.values() if isinstance(result, Mapping) else result if isinstance(result, (list, tuple)) else [result]


def bytes_of(data: Any) -> Array:
    """Return the bytes of an array or a buffer, without a copy where that is possible."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return np.frombuffer(data, np.uint8)


def _digest(parts: Iterable[Any]) -> int:
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(bytes_of(part).data)
    return state.intdigest()

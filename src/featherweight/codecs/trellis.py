"""Quantize weights along the best path through a trellis, at least squared error plus λ times rate.

Trellis-coded quantization (Marcellin and Fischer, "Trellis coded quantization of memoryless and Gauss-Markov
sources", 1990) as it is entropy-coded (Fischer and Wang, "Entropy-constrained trellis-coded quantization", 1992): two
quantizers of twice the step take turns as the parities of the indices say, and Viterbi's algorithm picks the indices.
Behind it goes an entropy coder that knows the state, ``trellis(index=ggd(states=8))``.

Wire: `step` Δ, finite and above 0; `states`, 4, 8, … 128; `paths`, 0 to 7.

Streams: `index`, signed integers of the shape of out; `shifts`, i8 (2, n), n at least 1: reconstruction offsets in
64ths of Δ for the quantizers 0 and 1 and the sizes 0 … n - 1, the last for all above, too; without it all are 0.

Decoding: Element i, in C order, is on path i mod 2^paths; each path begins in state 0. With k its index, s the state,
q = s & 1: the value is sign(k) · (2 |k| - q + shift) · Δ, without q for the index 0, in f32, then rounded to the type
of out, to its largest finite value where it lies beyond. Then s = next[s][k & 1]. For 8 states next is (0 2) (7 5)
(1 3) (6 4) (2 0) (5 7) (3 1) (4 6); else (s >> 1) ^ (s & 1) · (h0 >> 1) ^ (k & 1) · (h1 >> 1), with (h1, h0) in octal
4: (2, 5), 16: (04, 23), 32: (10, 45), 64: (024, 103), 128: (126, 235).

>>> import numpy as np
>>> x = np.linspace(-1, 1, 9, dtype=np.float32)
>>> wire, (index, *_) = Trellis(step=0.25).encode(x)
>>> out = np.empty_like(x)
>>> CODEC.decode(wire, (index,), (), out)
>>> bool(np.abs(out - x).max() <= 0.5)
True
"""

from __future__ import annotations

import copy
import functools
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import ml_dtypes
import msgspec
import numpy as np

from featherweight.codecs._classes import LEVELS, Classes
from featherweight.codecs._kernels import _floats, _machines, _models, _tokens
from featherweight.codecs._kernels import trellis as portable
from featherweight.codecs._kernels import trellis_simd as simd
from featherweight.codecs._kernels._vector import AVX2, WIDTH
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.kernel import features
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Trellis", "TrellisWire", "decode"]

_FEW, _MANY = 1 << 12, 1 << 17
_TINY = float(np.finfo(np.float32).tiny)
_MUCH = 0.02  # of the bits, what rates must gain by telling sizes apart: what is rarely chosen else stays so
_KEPT = 255  # an error of a step costs more than any path spares then
_TOP = 63  # the last size whose rate is told from those above
_MOST = (1 << 16) - 1
_BYTES = np.tile(np.arange(256, dtype=np.uint8).view(np.int8).astype(np.int32), 2)  # every index of a byte, twice


def _token(size: int) -> int:
    if 2 * size < _tokens.DIRECT:
        return 2 * size
    top = size.bit_length() - 1
    return _tokens.DIRECT + ((top - 5) << 4 | (size >> top - 2 & 3) << 2 | (size & 1) << 1)


_TOKENS = np.array([_token(k) for k in range(_TOP + 1)], np.uint8)


class TrellisWire(Wire, frozen=True):
    """What the decoder must know."""

    step: float
    states: int
    paths: Annotated[int, msgspec.Meta(ge=0, le=7)]


def decode(wire: TrellisWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Fill `out` with the points that the indices stand for."""
    index, shifts = streams[0], streams[1] if len(streams) > 1 else np.zeros((2, 1), np.int8)
    if wire.states not in _machines.STATES or not 0 < wire.step < math.inf:
        raise FrameError(f"{wire.states} states and a step of {wire.step} are no trellis")
    if index.shape != out.shape or shifts.shape[0] != 2 or not shifts.shape[1]:
        raise FrameError(f"indices of {index.shape} and shifts of {shifts.shape} for {out.shape}")
    flat = index.reshape(-1)
    if flat.itemsize > 1 and flat.size and max(-int(flat.min()), int(flat.max())) > 1 << 23:
        raise FrameError("an index is out of range")
    values = out.reshape(-1) if out.dtype == np.float32 else np.empty(flat.size, np.float32)
    _points(wire, flat, shifts, values)
    if out.dtype != np.float32:
        _floats.round_into(values, out.reshape(-1))


def _points(wire: TrellisWire, index: Array, shifts: Array, out: Array) -> None:
    offsets = (shifts.astype(np.float32) / np.float32(portable.UNIT)).reshape(-1)
    walk, nexts = np.zeros(1 << wire.paths, np.uint32), _machines.nexts(wire.states)
    step = np.float32(min(wire.step, float(np.finfo(np.float32).max)))
    if index.dtype == np.int8 and index.size > _BYTES.size:
        points, quantizers = np.empty(_BYTES.size, np.float32), np.repeat(np.arange(2, dtype=np.uint32), 256)
        portable.reconstruct(_BYTES, nexts, offsets, step, np.uint64(_BYTES.size), quantizers, points)
        _floats.bound(points)
        given, bits = (index.view(np.uint8), nexts, points.view(np.uint32), walk), out.view(np.uint32)
        done = simd.look_up(*given, bits) if walk.size >= WIDTH and features() >= AVX2 else 0
        portable.look_up(*given, np.uint64(done), bits)
    else:
        portable.reconstruct(index.astype(np.int32), nexts, offsets, step, np.uint64(walk.size), walk, out)
        _floats.bound(out)


CODEC = Codec(
    "trellis",
    TrellisWire,
    Port("values", "f"),
    (Port("index", "i"), Port("shifts", "i", 2, 8)),
    decode,
)


@dataclass(frozen=True, slots=True)
class Trellis:
    """Quantize along the best path: less rate than a scalar quantizer at the same error.

    The encoder may be given, for its eyes alone, the levels of rows, columns and places under which indices will be
    coded, and the importance of each weight: what its squared error counts for, 0 or more, of a shape that broadcasts.
    """

    step: float = param(0.0, lo=0.0, hi=1e300, doc="Δ, half the distance of a quantizer's points; 0 to fit the nmse")
    states: int = param(8, lo=4, hi=128, doc="4, 8, 16, 32, 64 or 128: more make it smaller and slower")
    rate: float = param(0.25, lo=0.0, hi=4.0, doc="λ, what a bit is worth in squared steps")
    passes: int = param(2, lo=1, hi=8, doc="searches, each with the rates that the last one found")
    nmse: float = param(1e-3, lo=1e-12, hi=1.0, doc="the squared error, over that of zeros, that the step is fitted to")

    codec: ClassVar[Codec] = CODEC
    hints: ClassVar[tuple[Port, ...]] = (*LEVELS, Port("importance", "f"))

    def __post_init__(self) -> None:
        check_params(self)
        if self.states not in _machines.STATES:
            raise ArgumentError(f"trellis(states={self.states}): expected one of {_machines.STATES}")

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Search, and offer the points' centroids.

        Raises ArgumentError for what is not finite or beyond f32, and where an index would have 2^16 or more.
        """
        if not _floats.is_finite(x):
            raise ArgumentError("an element is not finite: code this array with lossless, or say weights(trellis(…))")
        if x.dtype == ml_dtypes.float8_e8m0fnu:
            raise ArgumentError("powers of two without a sign cannot be rounded to multiples: code them with lossless")
        flat = _floats.wide(x)
        if x.dtype == np.float64:
            most = _floats.biggest(flat)
            if most > _floats.limit(np.dtype(np.float32)) or (not self.step and 0 < most < _TINY):
                raise ArgumentError(
                    f"weights up to {most:.6g} are beyond f32: code this array with uniform or lossless"
                )
            flat = flat.astype(np.float32)
        if not flat.size:
            wire = TrellisWire(self.step or 1.0, self.states, 0)
            return Encoded(wire, (np.empty(x.shape, np.int8),))
        search = _Search(self, flat, x.shape, given)
        step = self.step or search.fitted()
        index, shifts = search.run(step, self.passes)
        wire = TrellisWire(step, self.states, search.paths)
        index = index.reshape(x.shape)
        return Encoded(wire, (index, shifts) if shifts is not None else (index,))

    def together(self, count: int, shape: tuple[int, ...]) -> Trellis | None:
        """Return what codes so many arrays as this codes each; None where the step is fitted to each."""
        return self if self.step else None

    def error_bound(self, x: Array, /) -> float | None:
        """Nothing is promised: what costs much rate may be far off."""
        return None


class _Rates(NamedTuple):
    """What indices cost: see the kernels; the place of the last rate, and how far all of them are shifted."""

    pairs: Array
    last: np.uint32
    shift: np.uint32


class _Search:
    """Elements on their paths, and what of a search does not depend on the step.

    Rates, and a step that is fitted, come from some of the paths where there are many elements: as paths lie side by
    side, these are a fair sample.
    """

    def __init__(self, stage: Trellis, x: Array, shape: tuple[int, ...], hints: tuple[Array, ...]) -> None:
        self.stage, self.x, self.paths = stage, x, _machines.path_bits(x.size)
        size = self.size = (x.size + (1 << self.paths) - 1) >> self.paths << self.paths
        self.classes, self.low, self.count = _classes(hints[: len(LEVELS)], shape, size)
        self.weights = _weights(hints[len(LEVELS)] if len(hints) > len(LEVELS) else None, shape, size)
        self.weights[: x.size][x == 0] = _KEPT  # what was pruned stays pruned
        self.sample = self
        if x.size >= _MANY:
            self.sample = copy.copy(self)
            self.sample.paths, self.sample.sample = 4, self.sample
            self.sample.x = self._some(np.concatenate((x, np.zeros(size - x.size, np.float32))))
            self.sample.classes, self.sample.weights = self._some(self.classes), self._some(self.weights)
            self.sample.size = self.sample.x.size

    def _some(self, values: Array) -> Array:
        """Return of values the sample's."""
        paths = values.reshape(-1, 1 << self.paths)
        return paths[:, : 1 << self.sample.paths].reshape(-1)

    def fitted(self) -> float:
        """Return the step at which the error is what the stage was told, within some percent."""
        x = self.sample.x
        energy = _floats.dot(x, x)
        if energy == 0:
            return _floats.biggest(self.x) or 1.0
        wanted = self.stage.nmse * energy
        step = math.sqrt(wanted / x.size * 12) / 1.7
        for _ in range(4):
            index, _ = self.sample.run(step, 1)
            noise = self.sample.noise(step, index)
            ratio = math.sqrt(wanted / noise) if noise else 2.0
            step *= min(max(ratio, 0.25), 4.0)
            if abs(ratio - 1) < 0.02:
                break
        return float(f"{step:.6g}")

    def noise(self, step: float, index: Array) -> float:
        """Return the squared error, without shifts."""
        values = np.empty(self.x.size, np.float32)
        _points(TrellisWire(step, self.stage.states, self.paths), index, np.zeros((2, 1), np.int8), values)
        values -= self.x
        return float(np.square(values, dtype=np.float64).sum())

    def run(self, step: float, passes: int) -> tuple[Array, Array | None]:
        """Return the indices, and shifts where they pay."""
        parts, first = self.magnitudes(step), self.sample.magnitudes(step)
        rates, model = self.rates(self.sample.first_counts(first), None)
        for _ in range(passes - 1):
            index = self.sample.best(first, rates)
            rates, model = self.rates(self.sample.counted(index), model)
        index = self.best(parts, rates)
        shifts = self.sample.shifts(first, self._some(index))
        found = index[: self.x.size]
        most = int(portable.signed(self.x, found))
        if most > _MOST:
            raise ArgumentError(f"a step of {step:.6g} is too small: indices reach 2^16; take a larger one")
        return found.astype(np.int8 if most < 128 else np.int16 if most < 1 << 15 else np.int32), shifts

    def magnitudes(self, step: float) -> Array:
        """Return magnitudes in parts of the step; raises ArgumentError where they are too many."""
        scale, parts = portable.UNIT / max(step, 1e-300), np.zeros(self.size, np.uint32)
        if scale > 1e37 or portable.magnitudes(self.x, scale, parts[: self.x.size]):
            most = _floats.biggest(self.x)
            raise ArgumentError(f"a step of {step:.6g} is too small for weights up to {most:.6g}: take a larger one")
        return parts

    def first_counts(self, parts: Array) -> Array:
        """Count the nearest points of either quantizer, as if each index were coded by both."""
        every = max(1, self.x.size >> 14)
        count = -(-self.x.size // every)
        index, rows = np.empty(2 * count, np.int32), np.empty(2 * count, np.uint8)
        portable.nearest(parts, self.classes, np.uint64(every), np.uint32(_MOST), index, rows)
        return _models.counted(index, rows, 2 * self.count)[1]

    def _rows(self, index: Array) -> Array:
        """Return the class and the quantizer of each index."""
        rows = self.classes << np.uint8(1)
        _machines.walk(index, self.stage.states, self.paths, rows)
        return rows

    def counted(self, index: Array) -> Array:
        """Count the tokens of indices in each class and quantizer."""
        return _models.counted(np.minimum(index, _MOST), self._rows(index), 2 * self.count)[1]

    def rates(self, counts: Array, start: tuple[int, ...] | None) -> tuple[_Rates, tuple[int, ...]]:
        """Return λ times the bits of each size in each class and quantizer, in squared parts, and their model."""
        times = self.x.size / self.sample.x.size
        model, _, table = _models.suited(counts, self.low, 2, 16, start, rounds=2, times=times, share=_MUCH)
        pairs = np.empty(2 * self.count * (_TOKENS.size + 2), np.uint32)
        shift = portable.pairs(table, _TOKENS, _costs(self.stage.rate), pairs)
        return _Rates(pairs, np.uint32(_TOKENS.size), np.uint32(shift)), model

    def best(self, parts: Array, rates: _Rates) -> Array:
        """Return the indices of the best paths, without their signs."""
        states, lanes = self.stage.states, 1 << self.paths
        words, steps = (states + 7 >> 3) + 1, self.size >> self.paths
        edges, paths, out = _machines.edges(states), _machines.paths(states), np.empty(self.size, np.int32)
        given, found = (parts, self.weights, self.classes, *rates), out.view(np.uint32)
        if lanes >= WIDTH and features() >= AVX2:
            many = min(lanes, simd.PATHS)
            costs = np.empty((2 * states + 4) * many, np.uint32)
            decisions = np.empty(steps * words * many, np.uint8)
            for group in range(0, lanes, many):
                which = np.uint64(lanes), np.uint64(group), np.uint64(states)
                if states == 8:
                    simd.forward8(*given, costs, decisions, *which[:2])
                else:
                    simd.forward(*given, edges, costs, decisions, *which)
                simd.backward(parts, paths, costs, decisions, *which, found)
        else:
            costs, decisions = np.empty(2 * states * lanes + 4, np.uint32), np.empty(steps * words * lanes, np.uint8)
            portable.forward(*given, edges, costs, decisions, np.uint64(lanes), np.uint64(states))
            portable.backward(parts, paths, costs, decisions, np.uint64(lanes), np.uint64(states), found)
        return out

    def shifts(self, parts: Array, index: Array) -> Array | None:
        """Return how far weights lie from their points on average, for sizes below 8; None of too few."""
        if self.x.size < _FEW:
            return None
        n, (sums, numbers) = self.x.size, np.zeros((2, 16), np.int64)
        portable.offsets(parts[:n], index[:n], self._rows(index)[:n], sums, numbers)
        shifts = np.rint(sums / np.maximum(numbers, 1)).clip(-64, 64).reshape(2, 8)
        shifts[:, 0] = 0
        return shifts.astype(np.int8) if shifts.any() else None


@functools.lru_cache(maxsize=8)
def _costs(rate: float) -> Array:
    """Return λ times the bits of a token of each frequency, in squared parts."""
    bits = 12 - np.log2(np.maximum(np.arange((1 << 12) + 1), 1))
    bits[0] = 20.0
    unit = portable.UNIT**2 * portable.ONE * rate
    return np.rint(np.minimum(bits * unit, 1 << 23)).astype(np.uint32)


def _classes(hints: tuple[Array, ...], shape: tuple[int, ...], size: int) -> tuple[Array, int, int]:
    """Return the class of each weight from 0 on, the first class, and how many."""
    classes, count = Classes.of(hints, shape, ArgumentError), math.prod(shape)
    seen = classes.counted()
    here = np.nonzero(seen >= min(256, int(seen.max()), count >> 6))[0]
    low, high = int(here[0]), int(here[-1])
    while high - low >= 32:
        if seen[low] < seen[high]:
            low += 1
        else:
            high -= 1
    inside = np.empty(size, np.uint8)
    classes.tables(low, high, 1, inside[:count])
    inside[count:] = inside[0]
    return inside, low, high - low + 1


def _weights(importance: Array | None, shape: tuple[int, ...], size: int) -> Array:
    weights = np.full(size, portable.ONE, np.uint8)
    if importance is not None:
        if not (np.isfinite(importance).all() and (importance >= 0).all() and importance.any()):
            raise ArgumentError("importances are finite, 0 or more, and not all 0")
        try:
            broad = np.broadcast_to(importance / importance.mean(), shape)
        except ValueError:
            raise ArgumentError(f"importances {list(importance.shape)} do not broadcast to {list(shape)}") from None
        weights[: broad.size] = np.rint(broad * portable.ONE).clip(1, 255).reshape(-1)
    return weights

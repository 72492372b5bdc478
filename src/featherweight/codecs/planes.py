"""Cut every element into bit planes that are coded apart: exponents are skewed, low mantissa bits are noise.

Wire: `widths`, the bits of each plane from the top of the word down: 1 to 8 of them, each 1 to 8, summing to the
bits of the element.
Streams: as many as there are widths, each u8 and of the shape of the array (with a last axis of 2, real and
imaginary parts, where it is complex): `exponent`, `mantissa`, `low`, `low2` … `low6`. One of w < 8 bits may be packed
into ⌈n · w / 8⌉ bytes where those are fewer than its n elements: it is one-dimensional then, element i lies in the bits
i · w and so on, the first byte lowest, and what is over in the last one is 0.
Decoding: v = exponent · 2^(bits - widths[0]) + … + the last plane; then the folding is undone. Floating point with a
sign was rotated left by one bit, so that the sign is the lowest bit: w = (v >> 1) | (v & 1) << (bits - 1). Signed
integers were zigzagged: w = (v >> 1) ^ -(v & 1). Others are w = v.

>>> import numpy as np
>>> Planes().encode(np.array([1.0, -1.5], np.float16)).streams
(array([120, 124], dtype=uint8), array([0, 1], dtype=uint8))
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import planes as kernels
from featherweight.codecs._kernels import planes_simd as simd
from featherweight.codecs._kernels._vector import AVX2, compilable
from featherweight.codecs._kernels.bitpack import bytes_for, pack, unpack
from featherweight.codecs._kernels.words import PLAIN, ROTATE, ZIGZAG
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.kernel import Kernel, features
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Planes"]

_NAMES = ("exponent", "mantissa", "low", "low2", "low3", "low4", "low5", "low6")
_FAST: dict[tuple[int, tuple[int, ...]], tuple[Kernel, Kernel]] = {
    (2, (8, 8)): (kernels.split16, kernels.merge16),
    (2, (8, 4, 4)): (kernels.split844, kernels.merge844),
    (2, (5, 3, 8)): (kernels.split538, kernels.merge538),
    (2, (6, 2, 8)): (kernels.split628, kernels.merge628),
    (2, (5, 4, 7)): (kernels.split547, kernels.merge547),
    (4, (8,) * 4): (kernels.split32, kernels.merge32),
    (4, (8, 4, 4, 8, 8)): (kernels.split84488, kernels.merge84488),
    (8, (8,) * 8): (kernels.split64, kernels.merge64),
}

_CUTS: dict[tuple[int, tuple[int, ...]], Kernel] = {
    (4, (8,) * 4): simd.split32,
    (4, (8, 4, 4, 8, 8)): simd.split84488,
}
# By the bytes of a word, the bits of its planes, and those of the planes to be packed.
_PACKED: dict[tuple[int, tuple[int, ...], int], Kernel] = {(2, (5, 3, 8), 3): kernels.split538_packed}
# By the bytes of a word, the bits of its planes, and whether those of 3 bits, and no others, are packed.
_STREAMS: dict[tuple[int, tuple[int, ...], bool], Kernel] = {
    (2, (8, 8), False): simd.merge16,
    (2, (5, 4, 7), False): simd.merge547,
    (2, (5, 3, 8), True): simd.merge538_packed,
    (2, (8, 4, 4), False): simd.merge844,
    (4, (8,) * 4, False): simd.merge32,
    (4, (8, 4, 4, 8, 8), False): simd.merge84488,
}
_LARGE = 1 << 20  # bytes, of which the next reader will not find many in a cache


@functools.cache
def _folding(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the bits of a word and how it is folded."""
    row = dtypes.of(dtype)
    bits = row.bits // 2 if row.kind == "c" else row.bits
    if row.kind == "i":
        return bits, ZIGZAG
    return bits, ROTATE if row.kind in "fc" and 1 + row.exponent + row.mantissa == bits else PLAIN


@functools.lru_cache(256)
def _fit(widths: tuple[int, ...], bits: int) -> bool:
    return 1 <= len(widths) <= 8 and all(1 <= width <= 8 for width in widths) and sum(widths) == bits


class PlanesWire(Wire, frozen=True):
    widths: tuple[int, ...]


def decode(wire: PlanesWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Put the planes together and undo the folding."""
    (bits, how), words, widths = _folding(out.dtype), dtypes.bits_view(out), wire.widths
    if len(streams) != len(widths) or not _fit(widths, bits):
        raise FrameError(f"{len(streams)} planes of {list(widths)} bits do not make up {out.dtype}")
    count, planes, packed = words.size, list[Array](), set[int]()
    for plane, width in zip(streams, widths, strict=True):
        if plane.size != count:
            if width == 8 or plane.ndim != 1 or plane.size != bytes_for(count, width):
                raise FrameError(f"plane of {plane.size} {plane.dtype} for {count} words")
            packed.add(width)
        if plane.dtype != np.uint8:
            raise FrameError(f"plane of {plane.size} {plane.dtype} for {count} words")
        planes.append(plane.reshape(-1))
    layout = words.itemsize, widths
    streamed = _STREAMS.get((*layout, packed == {3})) if packed <= {3} else None
    if streamed and words.nbytes >= _LARGE and words.flags.aligned and features() >= AVX2:
        first = min(-words.ctypes.data % 64 // words.itemsize, count)
        if streamed(*planes, how, np.uint64(first), words):
            raise _beyond()
        return
    if layout in _FAST:
        if packed:
            planes = [_spread(plane, width, count) for plane, width in zip(planes, widths, strict=True)]
        if _FAST[layout][1](*planes, how, words):
            raise _beyond()
        return
    together = np.empty((len(widths), count), np.uint8)
    for plane, width, row in zip(planes, widths, together, strict=True):
        _spread_into(plane, width, row)
        if width < 8 and count and row.max() >> width:
            raise _beyond()
    kernels.MERGE[words.itemsize](together.reshape(-1), np.array(widths, np.uint8), bits, how, words)


def _spread(plane: Array, width: int, count: int) -> Array:
    """Return a plane with a byte for each element."""
    if plane.size == count:
        return plane
    elements = np.empty(count, np.uint8)
    _spread_into(plane, width, elements)
    return elements


def _spread_into(plane: Array, width: int, elements: Array) -> None:
    if plane.size == elements.size:
        elements[:] = plane
    elif not unpack(plane, width, elements):
        raise _beyond()


def _beyond() -> FrameError:
    return FrameError("a plane holds more than its bits")


def _cut(words: Array, widths: tuple[int, ...], bits: int, how: int, packed: int) -> list[Array]:
    """Return the planes, those of `packed` bits packed where that takes fewer bytes."""
    layout, count = (words.itemsize, widths), words.size
    both = _PACKED.get((*layout, packed)) if compilable() else None
    if both:
        planes = [np.empty(bytes_for(count, width) if width == packed else count, np.uint8) for width in widths]
        both(words, how, *planes, np.empty(kernels.BLOCK, np.uint8))
        return planes
    if layout in _FAST:
        # Each in memory of its own: a plane that is stored as it is would else keep those that were coded.
        planes = [np.empty(count, np.uint8) for _ in widths]
        quick = _CUTS.get(layout) if features() >= AVX2 else None
        done = int(quick(words, how, *planes)) if quick else 0
        if done < count:
            _FAST[layout][0](words[done:], how, *(plane[done:] for plane in planes))
    else:
        together = np.empty((len(widths), count), np.uint8)
        kernels.SPLIT[words.itemsize](words, np.array(widths, np.uint8), bits, how, together.reshape(-1))
        planes = list(together)
    return [
        pack(plane, width) if width == packed and bytes_for(count, width) < count else plane
        for plane, width in zip(planes, widths, strict=True)
    ]


CODEC = Codec("planes", PlanesWire, Port("values"), tuple(Port(name, "u", bits=8) for name in _NAMES), decode)


@dataclass(frozen=True)
class Planes:
    """Cut elements into planes of `widths` bits."""

    codec: ClassVar[Codec] = CODEC
    widths: tuple[int, ...] = param((), lo=1, hi=8, doc="bits of each plane from the top; none for bytes")
    packed: int = param(0, lo=0, hi=7, doc="pack planes of so many bits; 0 for none")

    def __post_init__(self) -> None:
        if isinstance(self.widths, tuple) and any(type(width) is not int for width in self.widths):
            raise ArgumentError(f"planes(widths={self.widths!r}): expected integers")
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Fold and cut; raises ArgumentError where the widths do not sum to the bits of an element."""
        (bits, how), words = _folding(x.dtype), dtypes.bits_view(x)
        widths = self.widths or (8,) * (bits // 8) or (bits,)
        if not _fit(widths, bits):
            raise ArgumentError(f"planes of {list(widths)} bits do not make up the {bits} of {x.dtype}")
        if bits < 8 and words.size and words.max() >> bits:
            raise ArgumentError(f"an element of {x.dtype} has bits set beyond its {bits}")
        planes = _cut(words, widths, bits, how, self.packed)
        shape = (*x.shape, 2) if x.dtype.kind == "c" else x.shape
        streams = [plane.reshape(shape) if plane.size == words.size else plane for plane in planes]
        return Encoded(PlanesWire(widths), tuple(streams))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

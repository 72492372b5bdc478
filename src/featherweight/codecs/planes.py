"""Cut every element into bit planes that are coded apart: exponents are skewed, low mantissa bits are noise.

Wire: `widths`, the bits of each plane from the top of the word down: 1 to 8 of them, each 1 to 8, summing to the
bits of the element.
Streams: as many as there are widths, each u8 and of the shape of the array (with a last axis of 2, real and
imaginary parts, where it is complex): `exponent`, `mantissa`, `low`, `low2` … `low6`. One of 2 bits may be packed, four
elements to a byte, the first in the lowest bits: it is one-dimensional then, and what is over in its last byte is 0.
Decoding: v = exponent · 2^(bits - widths[0]) + … + the last plane; then the folding is undone. Floating point with a
sign was rotated left by one bit, so that the sign is the lowest bit: w = (v >> 1) | (v & 1) << (bits - 1). Signed
integers were zigzagged: w = (v >> 1) ^ -(v & 1). Others are w = v.

>>> import numpy as np
>>> Planes().encode(np.array([1.0, -1.5], np.float16)).streams
(array([120, 124], dtype=uint8), array([0, 1], dtype=uint8))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import planes as kernels
from featherweight.codecs._kernels import planes_simd as simd
from featherweight.codecs._kernels._vector import AVX2
from featherweight.codecs._kernels.bitpack import spread2, squeeze2
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
    (2, (6, 2, 8)): (kernels.split628, kernels.merge628),
    (2, (5, 4, 7)): (kernels.split547, kernels.merge547),
    (4, (8,) * 4): (kernels.split32, kernels.merge32),
    (4, (8, 4, 4, 8, 8)): (kernels.split84488, kernels.merge84488),
    (8, (8,) * 8): (kernels.split64, kernels.merge64),
}

_CUTS = {kernels.split32: simd.split32, kernels.split84488: simd.split84488}
# By the bytes of a word, the bits of its planes, and whether those of 2 bits are packed.
_STREAMS: dict[tuple[int, tuple[int, ...], bool], Kernel] = {
    (2, (8, 8), False): simd.merge16,
    (2, (5, 4, 7), False): simd.merge547,
    (2, (6, 2, 8), False): simd.merge628,
    (2, (6, 2, 8), True): simd.merge628_packed,
    (2, (8, 4, 4), False): simd.merge844,
    (4, (8,) * 4, False): simd.merge32,
    (4, (8, 4, 4, 8, 8), False): simd.merge84488,
}
_LARGE = 1 << 20  # bytes, of which the next reader will not find many in a cache


def _folding(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the bits of a word and how it is folded."""
    row = dtypes.of(dtype)
    bits = row.bits // 2 if row.kind == "c" else row.bits
    if row.kind == "i":
        return bits, ZIGZAG
    return bits, ROTATE if row.kind in "fc" and 1 + row.exponent + row.mantissa == bits else PLAIN


def _fit(widths: tuple[int, ...], bits: int) -> bool:
    return 1 <= len(widths) <= 8 and all(1 <= width <= 8 for width in widths) and sum(widths) == bits


class PlanesWire(Wire, frozen=True):
    widths: tuple[int, ...]


def decode(wire: PlanesWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Put the planes together and undo the folding."""
    (bits, how), words = _folding(out.dtype), dtypes.bits_view(out)
    if not _fit(wire.widths, bits) or len(streams) != len(wire.widths):
        raise FrameError(f"{len(streams)} planes of {list(wire.widths)} bits do not make up {out.dtype}")
    planes, packed = [stream.reshape(-1) for stream in streams], False
    for plane, width in zip(streams, wire.widths, strict=True):
        apart = width == 2 and plane.ndim == 1 and plane.size == -(-words.size // 4) != words.size
        if plane.dtype != np.uint8 or not (apart or plane.size == words.size):
            raise FrameError(f"plane of {plane.size} {plane.dtype} for {words.size} words")
        packed |= apart
    layout = words.itemsize, wire.widths
    streamed = _STREAMS.get((*layout, packed))
    if streamed and words.nbytes >= _LARGE and features() >= AVX2:
        first = min(-words.ctypes.data % 64 // words.itemsize, words.size)
        if streamed(*planes, how, np.uint64(first), words):
            raise _beyond()
        return
    if packed:
        planes = [plane if plane.size == words.size else _unpacked(plane, words.size) for plane in planes]
    if layout in _FAST:
        if _FAST[layout][1](*planes, how, words):
            raise _beyond()
        return
    for plane, width in zip(planes, wire.widths, strict=True):
        if width < 8 and plane.size and plane.max() >> width:
            raise _beyond()
    kernels.MERGE[words.itemsize](np.concatenate(planes), np.array(wire.widths, np.uint8), bits, how, words)


def _packed(plane: Array) -> Array:
    whole = plane.size // 4
    packed = np.zeros(-(-plane.size // 4), np.uint8)
    squeeze2(plane[: 4 * whole], packed[:whole])
    for i, part in enumerate(plane[4 * whole :]):
        packed[-1] |= part << 2 * i
    return packed


def _unpacked(packed: Array, count: int) -> Array:
    plane = np.empty(4 * packed.size, np.uint8)
    spread2(packed, plane)
    if plane[count:].any():
        raise _beyond()
    return plane[:count]


def _beyond() -> FrameError:
    return FrameError("a plane holds more than its bits")


CODEC = Codec("planes", PlanesWire, Port("values"), tuple(Port(name, "u", bits=8) for name in _NAMES), decode)


@dataclass(frozen=True)
class Planes:
    """Cut elements into planes of `widths` bits."""

    codec: ClassVar[Codec] = CODEC
    widths: tuple[int, ...] = param((), lo=1, hi=8, doc="bits of each plane from the top; none for bytes")
    packed: bool = param(False, doc="pack planes of 2 bits, four elements to a byte")

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
        fast = _FAST.get((words.itemsize, widths))
        if fast:
            # Each in memory of its own: a plane that is stored as it is would else keep those that were coded.
            planes = [np.empty(words.size, np.uint8) for _ in widths]
            quick = _CUTS.get(fast[0]) if features() >= AVX2 else None
            done = int(quick(words, how, *planes)) if quick else 0
            if done < words.size:
                fast[0](words[done:], how, *(plane[done:] for plane in planes))
        else:
            together = np.empty((len(widths), words.size), np.uint8)
            kernels.SPLIT[words.itemsize](words, np.array(widths, np.uint8), bits, how, together.reshape(-1))
            planes = list(together)
        shape = (*x.shape, 2) if x.dtype.kind == "c" else x.shape
        streams = (
            _packed(plane) if self.packed and width == 2 else plane.reshape(shape)
            for plane, width in zip(planes, widths, strict=True)
        )
        return Encoded(PlanesWire(widths), tuple(streams))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

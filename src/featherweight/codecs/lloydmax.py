"""Quantize what is normally distributed to the centroids that are best for it, scaled so that the mean is right.

The quantizer of DRIVE (Vargaftik et al., arXiv:2105.08339) and EDEN (arXiv:2108.08842), for vectors that were rotated
at random. The centroids are those of Lloyd (1982) and Max (1960) for the standard normal distribution.

Wire: `bits`, 1 to 8; `block`, the elements that share a scale, 0 where a whole part does.
Streams: `scales`, one-dimensional, f64 if the array is, else f32; `index`, u8, below 2^bits, of the shape of the array.
Given: nothing, or the lengths of the parts that the array consists of, in memory order; their sum is its number of
elements. Without, the array is one part.
Decoding: each part, in memory order, is cut into blocks (the last perhaps shorter; none where the part is empty), and
each block has the next of the scales: out = scale · c[index], rounded to the type of the array, to its largest finite
value where beyond. The 2^bits centroids c ascend; they are the numbers below in 2^-20, rounded to the type of the
scales, with either sign.

Encoding: a block x of n elements with centroids c nearest to x √n / |x| has the scale |x|² / ⟨x, c⟩ with `unbiased`,
⟨x, c⟩ / |c|² without, where the error is least.

>>> import numpy as np
>>> Lloydmax(1).encode(np.array([0.5, -2.0, 1.5, 1.0], np.float32)).streams
(array([1.8799703], dtype=float32), array([1, 0, 1, 1], dtype=uint8))
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs import _parts
from featherweight.codecs._kernels import _floats
from featherweight.codecs._kernels import lloydmax as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Lloydmax", "centroids"]

# For 1 bit, 2 bits, …: the positive ones in 2^-20, fixed points of c ← E[x | x is nearer to c than to the others].
_POSITIVE = """
836643 474774 1583788 257000 792729 1409191 2256479 134632 406898 688662 988116 1317254 1696645 2169522 2865328
69090 207672 347475 489370 634319 783429 938020 1099729 1270669 1453683 1652795 1874050 2127276 2430326 2821843
3419126 35032 105149 175424 245961 316872 388269 460272 533006 606604 681213 756990 834108 912761 993164 1075563
1160237 1247512 1337767 1431454 1529114 1631407 1739157 1853402 1975493 2107230 2251094 2410657 2591351 2802082
3059123 3397845 3925975 17646 52944 88261 123613 159011 194470 230003 265624 301348 337188 373161 409280 445563
482023 518680 555548 592647 629995 667612 705517 743732 782279 821181 860465 900154 940279 980868 1021953 1063567
1105748 1148533 1191966 1236091 1280959 1326622 1373139 1420575 1469001 1518494 1569142 1621040 1674296 1729033
1785386 1843513 1903593 1965831 2030467 2097783 2168111 2241849 2319479 2401595 2488936 2582445 2683348 2793287
2914532 3050357 3205755 3388928 3614893 3916365 4393213 8856 26570 44287 62007 79734 97468 115211 132965 150732
168514 186312 204127 221962 239819 257699 275604 293535 311496 329487 347510 365568 383661 401793 419965 438180
456438 474743 493096 511499 529955 548466 567035 585662 604352 623105 641926 660815 679777 698812 717925 737118
756393 775754 795203 814744 834380 854114 873949 893889 913938 934098 954374 974770 995289 1015937 1036716 1057632
1078689 1099892 1121247 1142757 1164429 1186268 1208280 1230471 1252847 1275414 1298181 1321153 1344339 1367746
1391382 1415256 1439378 1463756 1488400 1513322 1538532 1564042 1589865 1616013 1642500 1669341 1696552 1724149
1752150 1780574 1809441 1838772 1868591 1898922 1929792 1961230 1993268 2025937 2059276 2093323 2128122 2163721
2200171 2237529 2275859 2315230 2355720 2397416 2440416 2484829 2530779 2578409 2627881 2679384 2733136 2789395
2848465 2910711 2976578 3046609 3121487 3202081 3289522 3385328 3491599 3611371 3749276 3912936 4116330 4389964
4827157
"""


class LloydmaxWire(Wire, frozen=True):
    bits: int
    block: int = 0


def decode(wire: LloydmaxWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Look up the centroids and multiply by the scales."""
    if len(streams) != 2 or not 1 <= wire.bits <= 8 or not 0 <= wire.block < 1 << 60:
        raise FrameError(f"{len(streams)} streams for {wire.bits} bits, blocks of {wire.block}")
    scales, index = streams
    real = _real(out.dtype)
    if scales.dtype != real or index.shape != out.shape or _unsigned(out.dtype):
        raise FrameError(f"{scales.dtype} scales and {list(index.shape)} indices for {out.dtype}{list(out.shape)}")
    lengths = _parts.blocks(given, out.size, wire.block, FrameError)
    if lengths.size != scales.size:
        raise FrameError(f"{scales.size} scales for {lengths.size} blocks")
    if not _floats.biggest(scales) <= _most(real, wire.bits):
        raise FrameError("a scale is out of range")
    if index.size and int(index.max()) >> wire.bits:
        raise FrameError(f"an index is not below {1 << wire.bits}")
    flat, points = out.reshape(-1), np.zeros(256, real)
    points[: 1 << wire.bits] = centroids(wire.bits)
    target = flat if out.dtype == real else np.empty(out.size, real)
    kernels.LOOK_UP[real.itemsize](index.reshape(-1), lengths, scales, points, target)
    if target is not flat:
        _floats.round_into(target, flat)


CODEC = Codec(
    "lloydmax",
    LloydmaxWire,
    Port("values", "f"),
    (Port("scales", "f", 1), Port("index", "u", bits=8)),
    decode,
    given=(Port("parts", "ui", 1),),
)


@dataclass(frozen=True)
class Lloydmax:
    """Quantize to the centroids of the normal distribution, with a scale for all elements or for each block."""

    codec: ClassVar[Codec] = CODEC
    bits: int = param(4, lo=1, hi=8, doc="bits of an index")
    block: int = param(0, lo=0, hi=1 << 40, doc="elements that share a scale; 0: all of the array, or of a part")
    unbiased: bool = param(True, doc="the mean over rotations is right; else the error is least")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Find the centroids, then the scales; raises ArgumentError for what is not finite."""
        if _unsigned(x.dtype):
            raise ArgumentError("lloydmax takes types with a sign")
        lengths, flat = _parts.blocks(given, x.size, self.block, ArgumentError), _floats.wide(x)
        most, power = _floats.biggest(flat), 0
        if not math.isfinite(most):
            raise ArgumentError("an element is not finite: code this array with lossless")
        if flat.itemsize == 8 and most and not 2.0**-300 < most < 2.0**300:
            power = math.frexp(most)[1]
            flat = np.ldexp(flat, -power)
        real, size = flat.dtype, flat.itemsize
        room, squares = np.empty(kernels.ROOM), np.empty(lengths.size)
        kernels.SQUARES[size](flat, lengths, room, squares)
        points = np.zeros(256, real)
        points[: 1 << self.bits] = centroids(self.bits)
        middles, cells = _cuts(self.bits)
        cuts = middles.astype(real)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            factors = np.where(squares > 0, np.sqrt(lengths.astype(np.float64) / squares), 0.0)
            factors = np.minimum(factors, np.finfo(real).max).astype(real)
        index, products = np.empty(x.shape, np.uint8), np.empty((lengths.size, 2))
        near, places = np.empty(kernels.TILE, real), index.reshape(-1)
        kernels.FIND[size](flat, lengths, factors, cuts, cells, points, near, room, places, products.reshape(-1))
        top, bottom = (squares, products[:, 0]) if self.unbiased else (products[:, 0], products[:, 1])
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            scales = np.ldexp(np.where(bottom > 0, top / bottom, 0.0), power)
            scales = np.minimum(scales, _most(real, self.bits)).astype(real)
        return Encoded(LloydmaxWire(self.bits, self.block), (scales, index))

    def error_bound(self, x: Array, /) -> None:
        """Nothing is promised: the scale is that of all elements, not of the largest."""
        return


@functools.cache
def centroids(bits: int) -> Array:
    """Return the 2^bits centroids for the standard normal distribution, ascending."""
    half = np.array(_POSITIVE.split()[(1 << bits >> 1) - 1 : (1 << bits) - 1], np.float64) / (1 << 20)
    return np.concatenate((-half[::-1], half))


@functools.cache
def _cuts(bits: int) -> tuple[Array, Array]:
    """Return the middles between centroids, and for each cell of a fine grid how many of them lie below it."""
    points = centroids(bits)
    middles = (points[1:] + points[:-1]) / 2
    grid = np.arange(kernels.CELLS) / kernels.CELLS * 2 * kernels.REACH - kernels.REACH
    return np.append(middles, np.inf), np.searchsorted(middles, grid).astype(np.uint8)


def _most(real: np.dtype[Any], bits: int) -> float:
    """Return the largest scale, a number that `real` holds: its product with any centroid is finite."""
    most = float(np.finfo(real).max) / max(1.0, 2 * float(centroids(bits)[-1]))
    held = real.type(most)
    return float(held if float(held) <= most else np.nextafter(held, real.type(0)))


def _real(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _unsigned(dtype: np.dtype[Any]) -> bool:
    return bool(dtype == dtypes.of("F8_E8M0").dtype)

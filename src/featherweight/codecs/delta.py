"""Store the difference to a base array: a fine-tuned checkpoint against the one it started from.

Wire: `mode`, 0 for exclusive or, 1 for arithmetic.
Streams: `difference`, unsigned words of the element's size and the shape of the array (with a last axis of 2 where it
is complex); of a type below 8 bits only that many may be set.
Given: `base`, of the type and shape of the array.
Decoding: mode 0: w = base ^ d on the bits. Mode 1: order(w) = order(base) + (d >> 1 ^ -(d & 1)) modulo 2^bits, where
order numbers the type's values from the least up: it is the word itself for integers, and for floating point with a
sign s it flips all bits but s where s is set. So a step to the next number up or down is d = 2 or d = 1.

>>> import numpy as np
>>> base = np.array([1, 2, 3], np.float32)
>>> Delta("arithmetic").encode(np.nextafter(base, np.float32(9)), base).streams
(array([2, 2, 2], dtype=uint32),)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import delta as kernels
from featherweight.dtypes import Array
from featherweight.errors import ArgumentError, FrameError
from featherweight.stage import Codec, Encoded, Port, Wire, check_params, param

__all__ = ["CODEC", "Delta"]

_SAMPLE = 1 << 11  # words from each of eight places, by which the modes are compared


class DeltaWire(Wire, frozen=True):
    mode: int


def _order(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the bits of a word and the mask that `order` flips."""
    row = dtypes.of(dtype)
    bits = row.bits // 2 if row.kind == "c" else row.bits
    signed = row.kind in "fc" and 1 + row.exponent + row.mantissa == bits
    return bits, (1 << (bits - 1)) - 1 if signed else 0


def decode(wire: DeltaWire, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Add the difference to the base."""
    if not streams or not given or given[0].dtype != out.dtype or given[0].shape != out.shape:
        raise FrameError(f"a difference and a base of {out.dtype}{list(out.shape)} are needed")
    words, base, difference = dtypes.bits_view(out), dtypes.bits_view(given[0]), streams[0].reshape(-1)
    bits, signed = _order(out.dtype)
    if difference.dtype != words.dtype or difference.size != words.size or wire.mode not in (0, 1):
        raise FrameError(f"mode {wire.mode} with {difference.size} differences of {difference.dtype}")
    if bits < 8 and words.size and (difference.max() | base.max()) >> bits:
        raise FrameError(f"bits are set beyond the {bits} of {out.dtype}")
    if wire.mode == 0:
        np.bitwise_xor(base, difference, out=words)
    else:
        kernels.ADD[words.itemsize](difference, base, bits, np.uint64(signed), words)


CODEC = Codec("delta", DeltaWire, Port("values"), (Port("difference", "u"),), decode, (Port("base"),))


@dataclass(frozen=True)
class Delta:
    """Store the difference to the base: exclusive or, arithmetic, or whichever looks cheaper on a sample."""

    codec: ClassVar[Codec] = CODEC
    mode: str = param("auto", choices=("auto", "xor", "arithmetic"), doc="how to compare; auto measures")

    def __post_init__(self) -> None:
        check_params(self)

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Compare with the base, the one array given."""
        if len(given) != 1 or given[0].dtype != x.dtype or given[0].shape != x.shape:
            raise ArgumentError(f"delta needs one base, of {x.dtype}{list(x.shape)}")
        words, base = dtypes.bits_view(x), dtypes.bits_view(given[0])
        bits = _order(x.dtype)[0]
        if bits < 8 and words.size and (words.max() | base.max()) >> bits:
            raise ArgumentError(f"an element of {x.dtype} has bits set beyond its {bits}")
        arithmetic = _cheaper(words, base, x.dtype) if self.mode == "auto" else self.mode == "arithmetic"
        difference = _subtract(words, base, x.dtype) if arithmetic else words ^ base
        shape = (*x.shape, 2) if x.dtype.kind == "c" else x.shape
        return Encoded(DeltaWire(int(arithmetic)), (difference.reshape(shape),))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0


def _subtract(words: Array, base: Array, dtype: np.dtype[Any]) -> Array:
    bits, signed = _order(dtype)
    difference = np.empty_like(words)
    kernels.SUBTRACT[words.itemsize](words, base, bits, np.uint64(signed), difference)
    return difference


def _cheaper(words: Array, base: Array, dtype: np.dtype[Any]) -> bool:
    """Return whether arithmetic differences have the fewer significant bits; integers tell, so every machine agrees."""
    starts = sorted({max(0, words.size - _SAMPLE) * k // 7 for k in range(8)})
    pick = np.concatenate([np.arange(start, min(start + _SAMPLE, words.size)) for start in starts])
    words, base = words[pick], base[pick]
    return _significant(_subtract(words, base, dtype)) < _significant(words ^ base)


def _significant(words: Array) -> int:
    return sum(int(np.count_nonzero(words >> k)) for k in range(8 * words.itemsize))

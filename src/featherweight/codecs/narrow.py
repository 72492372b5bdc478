"""Store the rows of a wide floating-point array in the narrower type that holds them, bit for bit.

Checkpoints saved as float32 often hold bfloat16 or float16 numbers, whole or in some rows.

Wire: nothing.
Streams: `flags`, u8, one for each row, and the rows themselves in order, two-dimensional, by flag: `wide` (0; the
type of the array, its real type where it is complex), `brain` (1; bfloat16), `half` (2; float16), `single` (3;
float32). Trailing streams without rows are absent. A row is x[i], flattened; an array of fewer than two dimensions is
one row. Flags 1 and 2 are for words of 32 bits, 3 for words of 64.
Decoding: row i of the array is the next row of the stream that flags[i] names, widened exactly: the sign and the
mantissa's bits stay, those of NaNs too; a subnormal number becomes the normal one of the same value.

>>> import numpy as np
>>> encoded = Narrow().encode(np.array([[1, 0.5], [0.1, 3]], np.float32))
>>> encoded.streams[0], encoded.streams[2]
(array([1, 0], dtype=uint8), array([[1, 0.5]], dtype=bfloat16))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from featherweight import dtypes
from featherweight.codecs._kernels import narrow as kernels
from featherweight.dtypes import Array
from featherweight.errors import FrameError
from featherweight.stage import Codec, Empty, Encoded, Port

__all__ = ["CODEC", "Narrow"]

_STREAMS = ("wide", "brain", "half", "single")


def _layout(x: Array) -> tuple[Array, np.dtype[Any], int, int]:
    """Return the words, the real type, the number of rows and of words in a row."""
    words = dtypes.bits_view(x)
    real = np.dtype(f"f{words.itemsize}") if x.dtype.kind == "c" else x.dtype
    rows = x.shape[0] if x.ndim > 1 else 1
    return words, real, rows, words.size // rows if rows else 0


def _types(real: np.dtype[Any]) -> tuple[np.dtype[Any], ...]:
    return (real, *(dtypes.of(name).dtype for name in ("BF16", "F16", "F32")))


def decode(wire: Empty, streams: tuple[Array, ...], given: tuple[Array, ...], out: Array) -> None:
    """Widen row by row."""
    words, real, rows, columns = _layout(out)
    if not streams or streams[0].shape != (rows,) or streams[0].dtype != np.uint8:
        raise FrameError(f"expected flags for {rows} rows")
    flags = streams[0]
    counts = np.bincount(flags, minlength=4)
    allowed = {4: (0, 1, 2), 8: (0, 3)}.get(words.itemsize, (0,))
    if any(count and flag not in allowed for flag, count in enumerate(counts)):
        raise FrameError(f"flags {sorted(set(flags.tolist()))} where {allowed} may be")
    sources = []
    for flag, dtype in enumerate(_types(real)):
        shape = (int(counts[flag]), columns)
        source = streams[flag + 1] if flag + 1 < len(streams) else np.empty((0, columns), dtype)
        if source.dtype != dtype or source.shape != shape:
            raise FrameError(f"{_STREAMS[flag]} is {source.dtype}{list(source.shape)}, not {dtype}{list(shape)}")
        sources.append(dtypes.bits_view(source))
    wide, brain, half, single = sources
    if words.itemsize == 4:
        kernels.merge32(wide, brain, half, flags, columns, words)
    elif words.itemsize == 8:
        kernels.merge64(wide, single, flags, columns, words)
    else:
        words[:] = wide


CODEC = Codec(
    "narrow",
    Empty,
    Port("values", "fc"),
    (Port("flags", "u", 1, 8), *(Port(name, "f", 2) for name in _STREAMS)),
    decode,
)


@dataclass(frozen=True)
class Narrow:
    """Store rows in the narrowest floating-point type that holds them exactly."""

    codec: ClassVar[Codec] = CODEC

    def encode(self, x: Array, /, *given: Array) -> Encoded:
        """Sort the rows by type."""
        words, real, rows, columns = _layout(x)
        flags = _flags(words, rows, columns)
        counts = np.bincount(flags, minlength=4)
        parts = [np.empty((int(n), columns), dtype) for n, dtype in zip(counts, _types(real), strict=True)]
        wide, brain, half, single = (dtypes.bits_view(part) for part in parts)
        if words.itemsize == 4:
            kernels.sort32(words, columns, flags, wide, brain, half)
        elif words.itemsize == 8:
            kernels.sort64(words, columns, flags, wide, single)
        else:
            wide[:] = words
        while parts and not len(parts[-1]):
            parts.pop()
        return Encoded(Empty(), (flags, *parts))

    def error_bound(self, x: Array, /) -> float:
        """Lossless."""
        return 0.0

    def pays(self, x: Array, /) -> bool:
        """Return whether an eighth of the rows or more are narrow; told at once where the numbers need their width."""
        words, _, rows, columns = _layout(x)
        return 8 * int(np.count_nonzero(_flags(words, rows, columns))) >= max(rows, 1)


def _flags(words: Array, rows: int, columns: int) -> Array:
    marks = np.zeros(rows, np.uint8)
    if words.itemsize == 4:
        kernels.judge32(words, columns, marks)
        # Rows that both types hold follow the majority of the others: they continue a stream instead of opening one.
        counts = np.bincount(marks, minlength=4)
        return np.array([0, 1, 2, 2 if counts[2] > counts[1] else 1], np.uint8)[marks]
    if words.itemsize == 8:
        kernels.judge64(words, columns, marks)
    return marks * np.uint8(3)

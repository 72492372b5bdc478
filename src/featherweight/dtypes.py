"""The one table of element types.

Kinds, one letter each, as ports name them: ``b`` boolean, ``u`` and ``i`` integers, ``f`` floating point,
``c`` complex. An array holds one element of a sub-byte type a byte; files and frames hold it packed.

>>> of("BF16").bits, of(np.dtype("<f4")).name
(16, 'F32')
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from featherweight.errors import ArgumentError, UnsupportedError

__all__ = [
    "Array",
    "ElementType",
    "all_types",
    "bits_view",
    "native",
    "of",
    "pack",
    "packed_bytes",
    "same_memory",
    "unpack",
]

Array = np.ndarray[Any, np.dtype[Any]]


_WORDS = {size: np.dtype(f"u{size}") for size in (1, 2, 4, 8)}


class ElementType(NamedTuple):
    """One row of the table; `exponent` and `mantissa` are field widths in bits, 0 where there are none."""

    id: int  # on the wire, for ever
    name: str  # as safetensors writes it; ours where it has none
    dtype: np.dtype[Any]
    kind: str
    bits: int
    exponent: int = 0
    mantissa: int = 0

    @property
    def word(self) -> np.dtype[Any]:
        """The unsigned integer of the same size, with which kernels see the elements (of one part of a complex one)."""
        return _WORDS[self.dtype.itemsize // (2 if self.kind == "c" else 1)]


# id, name, NumPy or ml_dtypes name, kind, bits, exponent bits, mantissa bits
_TABLE = [
    (1, "BOOL", "bool", "b", 8),
    (2, "U8", "uint8", "u", 8),
    (3, "U16", "uint16", "u", 16),
    (4, "U32", "uint32", "u", 32),
    (5, "U64", "uint64", "u", 64),
    (6, "I8", "int8", "i", 8),
    (7, "I16", "int16", "i", 16),
    (8, "I32", "int32", "i", 32),
    (9, "I64", "int64", "i", 64),
    (10, "F16", "float16", "f", 16, 5, 10),
    (11, "F32", "float32", "f", 32, 8, 23),
    (12, "F64", "float64", "f", 64, 11, 52),
    (13, "C64", "complex64", "c", 64, 8, 23),
    (14, "C128", "complex128", "c", 128, 11, 52),
    (15, "BF16", "bfloat16", "f", 16, 8, 7),
    (16, "F8_E4M3", "float8_e4m3fn", "f", 8, 4, 3),
    (17, "F8_E5M2", "float8_e5m2", "f", 8, 5, 2),
    (18, "F8_E8M0", "float8_e8m0fnu", "f", 8, 8, 0),
    (19, "F8_E4M3FNUZ", "float8_e4m3fnuz", "f", 8, 4, 3),
    (20, "F8_E5M2FNUZ", "float8_e5m2fnuz", "f", 8, 5, 2),
    (21, "F6_E2M3", "float6_e2m3fn", "f", 6, 2, 3),
    (22, "F6_E3M2", "float6_e3m2fn", "f", 6, 3, 2),
    (23, "F4", "float4_e2m1fn", "f", 4, 2, 1),
    (24, "U4", "uint4", "u", 4),
    (25, "I4", "int4", "i", 4),
    (26, "U2", "uint2", "u", 2),
    (27, "I2", "int2", "i", 2),
]


@functools.cache
def all_types() -> tuple[ElementType, ...]:
    """Return every row of the table, by id."""
    import ml_dtypes

    rows = []
    for number, name, numpy_name, *rest in _TABLE:
        dtype = np.dtype(getattr(ml_dtypes, str(numpy_name), None) or str(numpy_name))
        rows.append(ElementType(number, name, dtype, *rest))  # type: ignore[arg-type]
    return tuple(rows)


@functools.cache
def _index() -> dict[object, ElementType]:
    index: dict[object, ElementType] = {}
    for row in all_types():
        index.update({row.id: row, row.name: row, row.dtype: row})
    return index


@functools.lru_cache(1024)  # it is asked some ten times for every tensor
def of(key: int | str | np.dtype[Any]) -> ElementType:
    """Look up an element type by wire id, by name, or by NumPy dtype of any byte order.

    Raises UnsupportedError for an unknown id or name and ArgumentError for a dtype that is no element type.
    """
    found = _index().get(key)
    if found is None and isinstance(key, np.dtype):
        if key.kind in "iufc" and not key.isnative:
            found = _index().get(key.newbyteorder("="))
        if found is None:
            raise ArgumentError(f"arrays of dtype {key} are not supported: convert to one of the types of safetensors")
    if found is None:
        raise UnsupportedError(f"element type {key!r} is unknown here: a newer featherweight may know it")
    return found


def native(x: Any) -> Array:
    """Return `x` as a C-contiguous, aligned array in native byte order, itself where it is one already."""
    array = np.asarray(x)
    if array.dtype.kind in "iufc" and not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not (array.flags.c_contiguous and array.flags.aligned):
        array = np.array(array, order="C")
    of(array.dtype)
    return array


def bits_view(x: Array) -> Array:
    """Return the flat view of a contiguous array as unsigned words, two words for a complex element."""
    return x.reshape(-1).view(of(x.dtype).word)


def same_memory(x: Array, y: Array) -> bool:
    """Return whether two contiguous arrays are the same memory, be it in other shapes."""
    start, other = (each.__array_interface__["data"][0] for each in (x, y))
    return x.nbytes == y.nbytes and start == other


def packed_bytes(kind: ElementType, count: int) -> int:
    """Return the bytes that `count` elements take in a file."""
    return (count * kind.bits + 7) // 8


def pack(elements: Array, bits: int) -> Array:
    """Return elements that take a byte each as packed bytes.

    >>> pack(np.array([1, 2, 3], np.uint8), 4)
    array([33,  3], dtype=uint8)
    """
    groups = np.zeros((-(-elements.size // 4), 4), np.uint8)
    np.bitwise_and(elements.reshape(-1).view(np.uint8), (1 << bits) - 1, out=groups.reshape(-1)[: elements.size])
    words = np.zeros(len(groups), "<u4")
    for place in range(4):
        words |= groups[:, place].astype("<u4") << (bits * place)
    packed = np.ascontiguousarray(words.view(np.uint8).reshape(-1, 4)[:, : bits // 2])
    return packed.reshape(-1)[: (elements.size * bits + 7) // 8]


def unpack(data: Array, bits: int, count: int) -> Array:
    """Return the first `count` elements of packed bytes, a byte each.

    >>> unpack(np.array([33, 3], np.uint8), 4, 3)
    array([1, 2, 3], dtype=uint8)
    """
    size = bits // 2
    groups = -(-count // 4)
    padded = np.zeros(groups * size, np.uint8)
    padded[: data.size] = data[: padded.size]
    words = np.zeros((groups, 4), np.uint8)
    words[:, :size] = padded.reshape(-1, size)
    elements = np.empty((groups, 4), np.uint8)
    for place in range(4):
        elements[:, place] = (words.reshape(-1).view("<u4") >> (bits * place)) & ((1 << bits) - 1)
    return elements.reshape(-1)[:count]

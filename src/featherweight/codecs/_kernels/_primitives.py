"""Unaligned words in byte arrays, shared by kernels.

Nothing here checks bounds: the caller guarantees ``0 <= at`` and ``at + width <= len(array)``. Words are ``uint64``
whatever their width; `at` is any integer. Byte order is in the name (``le``, ``be``), never the machine's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from featherweight.dtypes import Array
from featherweight.kernel import primitive

__all__ = [
    "TOGETHER",
    "added",
    "bit_length",
    "load16le",
    "load32le",
    "load64be",
    "load64le",
    "popcount",
    "store32le",
    "store64be",
    "store64le",
    "trailing_zeros",
]

TOGETHER = 128  # floats that are reduced together


def _intrinsic(function: Callable[..., Any]) -> Any:
    from numba.extending import intrinsic

    return intrinsic(function)


def _address(context: Any, builder: Any, signature: Any, arguments: Any, bits: int) -> Any:
    from llvmlite import ir
    from numba.core import cgutils, types

    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    at = context.cast(builder, arguments[1], signature.args[1], types.intp)
    place = cgutils.pointer_add(builder, array.data, at)
    return builder.bitcast(place, ir.IntType(bits).as_pointer())


def _load_twin(bits: int, order: str) -> Callable[..., Any]:
    """Make the twin of a load: one machine instruction, and a byte swap where the machine's order differs."""

    def twin(array: Any, at: Any) -> Any:
        from numba.core import types

        @_intrinsic
        def load(typing: Any, array: Any, at: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                value = builder.load(_address(context, builder, signature, arguments, bits), align=1)
                if order != sys.byteorder:
                    value = builder.bswap(value)
                return context.cast(builder, value, getattr(types, f"uint{bits}"), types.uint64)

            return types.uint64(array, at), generate

        return lambda array, at: load(array, at)  # noqa: PLW0108 - numba wants a function

    return twin


def _store_twin(bits: int, order: str) -> Callable[..., Any]:
    """Make the twin of a store, likewise; it keeps the low bits of the word."""

    def twin(array: Any, at: Any, word: Any) -> Any:
        from numba.core import types

        @_intrinsic
        def store(typing: Any, array: Any, at: Any, word: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                value = context.cast(builder, arguments[2], signature.args[2], getattr(types, f"uint{bits}"))
                if order != sys.byteorder:
                    value = builder.bswap(value)
                builder.store(value, _address(context, builder, signature, arguments, bits), align=1)
                return context.get_dummy_value()

            return types.void(array, at, word), generate

        return lambda array, at, word: store(array, at, word)  # noqa: PLW0108

    return twin


def _count_twin(name: str) -> Callable[..., Any]:
    """Make the twin of a bit count, by its name in llvmlite's builder."""

    def twin(word: Any) -> Any:
        from llvmlite import ir
        from numba.core import types

        @_intrinsic
        def count(typing: Any, word: Any) -> Any:
            def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
                value = context.cast(builder, arguments[0], signature.args[0], types.uint64)
                flags = [] if name == "ctpop" else [ir.Constant(ir.IntType(1), 0)]
                return getattr(builder, name)(value, *flags)

            return types.uint64(word), generate

        return lambda word: count(word)  # noqa: PLW0108

    return twin


@primitive(twin=_load_twin(16, "little"))
def load16le(array: Array, at: Any) -> Any:
    """Return the 2 bytes at `at`, least significant first."""
    return np.uint64(int.from_bytes(array[at : at + 2].tobytes(), "little"))


@primitive(twin=_load_twin(32, "little"))
def load32le(array: Array, at: Any) -> Any:
    """Return the 4 bytes at `at`, least significant first."""
    return np.uint64(int.from_bytes(array[at : at + 4].tobytes(), "little"))


@primitive(twin=_load_twin(64, "little"))
def load64le(array: Array, at: Any) -> Any:
    """Return the 8 bytes at `at`, least significant first."""
    return np.uint64(int.from_bytes(array[at : at + 8].tobytes(), "little"))


@primitive(twin=_load_twin(64, "big"))
def load64be(array: Array, at: Any) -> Any:
    """Return the 8 bytes at `at`, most significant first."""
    return np.uint64(int.from_bytes(array[at : at + 8].tobytes(), "big"))


@primitive(twin=_store_twin(32, "little"))
def store32le(array: Array, at: Any, word: Any) -> None:
    """Store the low 4 bytes of `word` at `at`, least significant first."""
    array[at : at + 4] = np.frombuffer((int(word) & 0xFFFFFFFF).to_bytes(4, "little"), np.uint8)


@primitive(twin=_store_twin(64, "little"))
def store64le(array: Array, at: Any, word: Any) -> None:
    """Store the 8 bytes of `word` at `at`, least significant first."""
    array[at : at + 8] = np.frombuffer(int(word).to_bytes(8, "little"), np.uint8)


@primitive(twin=_store_twin(64, "big"))
def store64be(array: Array, at: Any, word: Any) -> None:
    """Store the 8 bytes of `word` at `at`, most significant first."""
    array[at : at + 8] = np.frombuffer(int(word).to_bytes(8, "big"), np.uint8)


@primitive(twin=_count_twin("ctpop"))
def popcount(word: Any) -> Any:
    """Return the number of ones in a word of up to 64 bits."""
    return np.uint64(int(word).bit_count())


@primitive(twin=_count_twin("cttz"))
def trailing_zeros(word: Any) -> Any:
    """Return the number of zeros below the lowest one, 64 where there is none."""
    word = int(word)
    return np.uint64((word & -word).bit_length() - 1 if word else 64)


@primitive
def bit_length(word: Any) -> Any:
    """Return the bits of a number: the place of its highest one, from 1 on, or 0."""
    word |= word >> np.uint64(1)
    word |= word >> np.uint64(2)
    word |= word >> np.uint64(4)
    word |= word >> np.uint64(8)
    word |= word >> np.uint64(16)
    return popcount(word | word >> np.uint64(32))


@primitive
def added(values: Any) -> Any:
    """Return the sum of the first `TOGETHER` floats of an array, which it spoils: in one order on all processors.

    Compilers make vectors of such loops without leave to change what comes of floats.
    """
    for j in range(64):
        values[j] += values[j + 64]
    for j in range(32):
        values[j] += values[j + 32]
    for j in range(16):
        values[j] += values[j + 16]
    for j in range(8):
        values[j] += values[j + 8]
    for j in range(4):
        values[j] += values[j + 4]
    return (values[0] + values[2]) + (values[1] + values[3])

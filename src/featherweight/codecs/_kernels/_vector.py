"""Vectors of 16 lanes of 32 bits, for kernels that run only where `AVX512` is part of ``kernel.features()``.

Uncompiled, a vector is a NumPy array of 16 ``uint32`` and a mask an integer whose bit l is lane l; compiled, they are
AVX-512 registers. A position counts elements of its array; of a byte array that holds wider words, bytes. Nothing here
checks bounds: every function says what it touches.

Some take a vector for 32 words or 64 bytes, each lane holding its own from the least significant on; `count16`,
`named8` and `named16` want `PERMUTES` as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from featherweight.kernel import primitive

__all__ = [
    "AVX512",
    "PERMUTES",
    "WIDTH",
    "both",
    "choose",
    "choose16",
    "compress",
    "count16",
    "differ",
    "either",
    "evens",
    "expand",
    "gather",
    "gather2",
    "has16",
    "high",
    "left",
    "left16",
    "less",
    "load",
    "load8",
    "load16le",
    "load_bytes",
    "minus",
    "named8",
    "named16",
    "odds",
    "permute",
    "plus",
    "right",
    "settle",
    "splat",
    "store",
    "store8",
    "store16le",
    "store_half",
    "stream",
    "times",
    "turn",
]

AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
PERMUTES = AVX512 | {"avx512vbmi", "avx512bitalg"}
WIDTH = 16
_LANES = np.arange(WIDTH, dtype=np.uint32)


@functools.cache
def _vector() -> Any:
    """Make numba's type of a vector."""
    from llvmlite import ir
    from numba.core import types
    from numba.extending import models, register_model

    class Vector(types.Type):
        def __init__(self) -> None:
            super().__init__("u32x16")

    @register_model(Vector)
    class VectorModel(models.PrimitiveModel):
        def __init__(self, manager: Any, kind: Any) -> None:
            super().__init__(manager, kind, ir.VectorType(ir.IntType(32), WIDTH))

    return Vector()


def _twin(result: str, emit: Callable[..., Any]) -> Callable[..., Any]:
    """Make the twin of a primitive whose code is ``emit(builder, *arguments)``.

    Arrays reach `emit` as the address of their first element (one byte before another: ``i8*``), integers as 64 bits.
    """

    def twin(*kinds: Any) -> Any:
        from numba.core import types
        from numba.extending import intrinsic

        returns = _vector() if result == "vector" else getattr(types, result)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values = []
            for kind, argument in zip(signature.args, arguments, strict=True):
                if isinstance(kind, types.Array):
                    values.append(context.make_array(kind)(context, builder, argument).data)
                elif isinstance(kind, types.Integer):
                    values.append(context.cast(builder, argument, kind, types.uint64))
                else:
                    values.append(argument)
            made = emit(builder, *values)
            return context.get_dummy_value() if made is None else made

        run: Any  # numba takes what has as many arguments as the primitive, and no stars
        if len(kinds) == 1:
            run = intrinsic(lambda _context, a: (returns(a), generate))
            return lambda a: run(a)  # noqa: PLW0108
        if len(kinds) == 2:
            run = intrinsic(lambda _context, a, b: (returns(a, b), generate))
            return lambda a, b: run(a, b)  # noqa: PLW0108
        run = intrinsic(lambda _context, a, b, c: (returns(a, b, c), generate))
        return lambda a, b, c: run(a, b, c)  # noqa: PLW0108

    return twin


def _ir() -> Any:
    from llvmlite import ir

    return ir


def _word(bits: int) -> Any:
    return _ir().IntType(bits)


def _lanes(bits: int) -> Any:
    return _ir().VectorType(_word(bits), WIDTH)


def _at(builder: Any, array: Any, position: Any, kind: Any) -> Any:
    """Return the address of `position` in `array`, as a pointer to `kind`."""
    return builder.bitcast(builder.gep(array, [position]), kind.as_pointer())


def _call(builder: Any, name: str, returns: Any, *arguments: Any) -> Any:
    from numba.core import cgutils

    kind = _ir().FunctionType(returns, [each.type for each in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, arguments)


def _mask(builder: Any, mask: Any) -> Any:
    return builder.bitcast(builder.trunc(mask, _word(16)), _lanes(1))


def _emit_splat(builder: Any, value: Any) -> Any:
    ir = _ir()
    one = builder.insert_element(ir.Constant(_lanes(32), ir.Undefined), builder.trunc(value, _word(32)), _word(32)(0))
    return builder.shuffle_vector(one, one, ir.Constant(_lanes(32), [0] * WIDTH))


def _emit_load(bits: int) -> Callable[..., Any]:
    def emit(builder: Any, array: Any, position: Any) -> Any:
        value = builder.load(_at(builder, array, position, _lanes(bits)), align=1)
        return value if bits == 32 else builder.zext(value, _lanes(32))

    return emit


def _emit_store(bits: int) -> Callable[..., Any]:
    def emit(builder: Any, array: Any, position: Any, vector: Any) -> None:
        value = vector if bits == 32 else builder.trunc(vector, _lanes(bits))
        builder.store(value, _at(builder, array, position, _lanes(bits)), align=1)

    return emit


def _emit_gather(builder: Any, array: Any, index: Any) -> Any:
    ir = _ir()
    base = builder.bitcast(array, _word(8).as_pointer())
    every = ir.Constant(_lanes(1), [1] * WIDTH)
    nothing = ir.Constant(_lanes(32), [0] * WIDTH)
    return _call(builder, "llvm.x86.avx512.mask.gather.dpi.512", _lanes(32), nothing, base, index, every, _word(32)(4))


def _emit_gather2(builder: Any, array: Any, index: Any) -> Any:
    ir = _ir()
    kinds = ir.VectorType(_word(64), 8), ir.VectorType(_word(1), 8)
    base = builder.bitcast(array, _word(8).as_pointer())
    half = builder.shuffle_vector(index, index, ir.Constant(ir.VectorType(_word(32), 8), list(range(8))))
    nothing, every = (ir.Constant(kind, [value] * 8) for kind, value in zip(kinds, (0, 1), strict=True))
    name = "llvm.x86.avx512.mask.gather.dpq.512"
    return builder.bitcast(_call(builder, name, kinds[0], nothing, base, half, every, _word(32)(4)), _lanes(32))


def _emit_shuffle(order: list[int]) -> Callable[..., Any]:
    def emit(builder: Any, one: Any, other: Any = None) -> Any:
        return builder.shuffle_vector(one, one if other is None else other, _ir().Constant(_lanes(32), order))

    return emit


def _emit_permute(builder: Any, table: Any, index: Any) -> Any:
    return _call(builder, "llvm.x86.avx512.permvar.si.512", _lanes(32), table, index)


def _emit_less(builder: Any, left: Any, right: Any) -> Any:
    return builder.zext(builder.bitcast(builder.icmp_unsigned("<", left, right), _word(16)), _word(64))


def _emit_choose(builder: Any, mask: Any, one: Any, other: Any) -> Any:
    return builder.select(_mask(builder, mask), one, other)


def _emit_high(builder: Any, one: Any, other: Any) -> Any:
    wide = _lanes(64)
    product = builder.mul(builder.zext(one, wide), builder.zext(other, wide))
    return builder.trunc(builder.lshr(product, _ir().Constant(wide, [32] * WIDTH)), _lanes(32))


def _emit_compress(builder: Any, vector: Any, mask: Any) -> Any:
    name = "llvm.x86.avx512.mask.compress.v16i32"
    return _call(builder, name, _lanes(32), vector, _ir().Constant(_lanes(32), [0] * WIDTH), _mask(builder, mask))


def _emit_expand(builder: Any, vector: Any, mask: Any, instead: Any) -> Any:
    name = "llvm.x86.avx512.mask.expand.v16i32"
    return _call(builder, name, _lanes(32), vector, instead, _mask(builder, mask))


def _emit_named(bits: int) -> Callable[..., Any]:
    def emit(builder: Any, low: Any, high: Any, index: Any) -> Any:
        kind = _ir().VectorType(_word(bits), 512 // bits)
        low, high, index = (builder.bitcast(each, kind) for each in (low, high, index))
        name = f"llvm.x86.avx512.vpermi2var.{'qi' if bits == 8 else 'hi'}.512"
        return builder.bitcast(_call(builder, name, kind, low, index, high), _lanes(32))

    return emit


def _words() -> Any:
    return _ir().VectorType(_word(16), 2 * WIDTH)


def _emit_left16(builder: Any, one: Any, bits: Any) -> Any:
    moved = builder.shl(builder.bitcast(one, _words()), builder.bitcast(bits, _words()))
    return builder.bitcast(moved, _lanes(32))


def _emit_count16(builder: Any, one: Any) -> Any:
    counts = _call(builder, "llvm.ctpop.v32i16", _words(), builder.bitcast(one, _words()))
    return builder.bitcast(counts, _lanes(32))


def _emit_has16(builder: Any, one: Any, bits: Any) -> Any:
    found = builder.bitcast(builder.and_(one, bits), _words())
    mask = builder.icmp_unsigned("!=", found, _ir().Constant(_words(), [0] * 2 * WIDTH))
    return builder.zext(builder.bitcast(mask, _word(32)), _word(64))


def _emit_choose16(builder: Any, mask: Any, one: Any, other: Any) -> Any:
    chosen = builder.bitcast(builder.trunc(mask, _word(32)), _ir().VectorType(_word(1), 2 * WIDTH))
    return builder.bitcast(
        builder.select(chosen, builder.bitcast(one, _words()), builder.bitcast(other, _words())), _lanes(32)
    )


def _emit_store_half(builder: Any, array: Any, position: Any, vector: Any) -> None:
    ir = _ir()
    half = builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(_word(32), 8), list(range(8))))
    builder.store(half, _at(builder, array, position, half.type), align=1)


def _emit_stream(builder: Any, array: Any, position: Any, vector: Any) -> None:
    store = builder.store(vector, _at(builder, array, position, _lanes(32)), align=64)
    store.set_metadata("nontemporal", builder.module.add_metadata([_word(32)(1)]))


def _emit_settle(builder: Any, _: Any) -> None:
    builder.fence("seq_cst")


def _emit_binary(name: str) -> Callable[..., Any]:
    return lambda builder, one, other: getattr(builder, name)(one, other)


@primitive(twin=_twin("vector", _emit_binary("add")))
def plus(one: Any, other: Any) -> Any:
    """Return the sums modulo 2^32."""
    return one + other


@primitive(twin=_twin("vector", _emit_binary("sub")))
def minus(one: Any, other: Any) -> Any:
    """Return the differences modulo 2^32."""
    return one - other


@primitive(twin=_twin("vector", _emit_binary("mul")))
def times(one: Any, other: Any) -> Any:
    """Return the products modulo 2^32."""
    return one * other


@primitive(twin=_twin("vector", _emit_high))
def high(one: Any, other: Any) -> Any:
    """Return the upper halves of the products of 64 bits."""
    return (one.astype(np.uint64) * other >> np.uint64(32)).astype(np.uint32)


@primitive(twin=_twin("vector", _emit_binary("and_")))
def both(one: Any, other: Any) -> Any:
    """Return the bits that are in both."""
    return one & other


@primitive(twin=_twin("vector", _emit_binary("or_")))
def either(one: Any, other: Any) -> Any:
    """Return the bits that are in one or the other."""
    return one | other


@primitive(twin=_twin("vector", _emit_binary("xor")))
def differ(one: Any, other: Any) -> Any:
    """Return the bits that are in one and not in the other."""
    return one ^ other


@primitive(twin=_twin("vector", _emit_binary("shl")))
def left(one: Any, bits: Any) -> Any:
    """Shift each lane left by `bits`, a vector of numbers below 32."""
    return one << bits


@primitive(twin=_twin("vector", _emit_binary("lshr")))
def right(one: Any, bits: Any) -> Any:
    """Shift each lane right by `bits`, a vector of numbers below 32."""
    return one >> bits


@primitive(twin=_twin("vector", _emit_splat))
def splat(value: Any) -> Any:
    """Return a vector of 16 times `value`."""
    return np.full(WIDTH, np.uint32(value))


@primitive(twin=_twin("vector", _emit_load(32)))
def load(array: Any, position: Any) -> Any:
    """Return 16 neighbouring elements of a ``uint32`` array."""
    return array[position : int(position) + WIDTH].copy()


@primitive(twin=_twin("vector", _emit_load(8)))
def load8(array: Any, position: Any) -> Any:
    """Return 16 neighbouring bytes."""
    return array[position : int(position) + WIDTH].astype(np.uint32)


@primitive(twin=_twin("vector", _emit_load(16)))
def load16le(array: Any, position: Any) -> Any:
    """Return 16 neighbouring words of 2 bytes each, least significant first; `position` counts bytes."""
    return array[position : int(position) + 2 * WIDTH].view("<u2").astype(np.uint32)


@primitive(twin=_twin("void", _emit_store(32)))
def store(array: Any, position: Any, vector: Any) -> None:
    """Store a vector into 16 neighbouring elements of a ``uint32`` array."""
    array[position : int(position) + WIDTH] = vector


@primitive(twin=_twin("void", _emit_store(8)))
def store8(array: Any, position: Any, vector: Any) -> None:
    """Store the low byte of each lane into 16 neighbouring bytes."""
    array[position : int(position) + WIDTH] = vector.astype(np.uint8)


@primitive(twin=_twin("void", _emit_store(16)))
def store16le(array: Any, position: Any, vector: Any) -> None:
    """Store the low 2 bytes of each lane, least significant first; `position` counts bytes."""
    array[position : int(position) + 2 * WIDTH] = vector.astype("<u2").view(np.uint8)


@primitive(twin=_twin("vector", _emit_load(32)))
def load_bytes(array: Any, position: Any) -> Any:
    """Return 64 neighbouring bytes of a byte array."""
    return array[position : int(position) + 4 * WIDTH].view(np.uint32).copy()


@primitive(twin=_twin("void", _emit_store_half))
def store_half(array: Any, position: Any, vector: Any) -> None:
    """Store the first 8 lanes into 32 neighbouring bytes of a byte array."""
    array[position : int(position) + 2 * WIDTH] = vector.view(np.uint8)[: 2 * WIDTH]


@primitive(twin=_twin("void", _emit_stream))
def stream(array: Any, position: Any, vector: Any) -> None:
    """Store a vector past the caches to 64 bytes that begin at a multiple of 64; `settle` when all is stored."""
    place = array[position:].view(np.uint8)[: 4 * WIDTH]
    place[:] = vector.view(np.uint8)


@primitive(twin=_twin("void", _emit_settle))
def settle(array: Any) -> None:
    """Let no other thread see what is stored later before it sees what was streamed to an array."""


@primitive(twin=_twin("vector", _emit_gather))
def gather(array: Any, index: Any) -> Any:
    """Return the elements of a ``uint32`` array at the positions in `index`, all of which must be inside it."""
    return array[index]


@primitive(twin=_twin("vector", _emit_gather2))
def gather2(array: Any, index: Any) -> Any:
    """Return, for each of the first 8 lanes of `index`, the element of a ``uint32`` array there and that behind it."""
    return np.stack((array[index[:8]], array[index[:8] + np.uint32(1)]), axis=1).reshape(-1)


@primitive(twin=_twin("vector", _emit_shuffle([*range(8, 16), *range(8)])))
def turn(vector: Any) -> Any:
    """Return the last 8 lanes and then the first."""
    return np.roll(vector, 8)


@primitive(twin=_twin("vector", _emit_shuffle(list(range(0, 32, 2)))))
def evens(one: Any, other: Any) -> Any:
    """Return the lanes 0, 2, … of `one` and then of `other`."""
    return np.concatenate((one[::2], other[::2]))


@primitive(twin=_twin("vector", _emit_shuffle(list(range(1, 32, 2)))))
def odds(one: Any, other: Any) -> Any:
    """Return the lanes 1, 3, … of `one` and then of `other`."""
    return np.concatenate((one[1::2], other[1::2]))


@primitive(twin=_twin("vector", _emit_permute))
def permute(table: Any, index: Any) -> Any:
    """Return the lanes of `table` that the lowest four bits of each lane of `index` name."""
    return table[index & np.uint32(WIDTH - 1)]


@primitive(twin=_twin("vector", _emit_named(8)))
def named8(low: Any, high: Any, index: Any) -> Any:
    """Return the bytes of `low` and, behind them, `high` that the lowest seven bits of each byte of `index` name."""
    table = np.concatenate((low, high)).view(np.uint8)
    return table[index.view(np.uint8) & np.uint8(127)].view(np.uint32)


@primitive(twin=_twin("vector", _emit_named(16)))
def named16(low: Any, high: Any, index: Any) -> Any:
    """Return the words of `low` and, behind them, `high` that the lowest six bits of each word of `index` name."""
    table = np.concatenate((low, high)).view(np.uint16)
    return table[index.view(np.uint16) & np.uint16(63)].view(np.uint32)


@primitive(twin=_twin("vector", _emit_left16))
def left16(one: Any, bits: Any) -> Any:
    """Shift each word left by `bits`, 32 numbers below 16."""
    return (one.view(np.uint16) << bits.view(np.uint16)).view(np.uint32)


@primitive(twin=_twin("vector", _emit_count16))
def count16(one: Any) -> Any:
    """Return how many bits are set in each word."""
    return np.bitwise_count(one.view(np.uint16)).astype(np.uint16).view(np.uint32)


@primitive(twin=_twin("uint64", _emit_has16))
def has16(one: Any, bits: Any) -> Any:
    """Return the mask of the 32 words that have any of the bits."""
    found = (one & bits).view(np.uint16) != np.uint16(0)
    return np.packbits(found, bitorder="little").view(np.uint32)[0]


@primitive(twin=_twin("vector", _emit_choose16))
def choose16(mask: Any, one: Any, other: Any) -> Any:
    """Return the words of `one` that are in a mask of 32, and those of `other` elsewhere."""
    chosen = (np.uint32(mask) >> np.arange(2 * WIDTH, dtype=np.uint32) & np.uint32(1)).astype(bool)
    return np.where(chosen, one.view(np.uint16), other.view(np.uint16)).view(np.uint32)


@primitive(twin=_twin("uint64", _emit_less))
def less(left: Any, right: Any) -> Any:
    """Return the mask of the lanes where `left` is below `right`."""
    return np.uint64(np.dot((left < right).astype(np.uint32), np.uint32(1) << _LANES))


@primitive(twin=_twin("vector", _emit_choose))
def choose(mask: Any, one: Any, other: Any) -> Any:
    """Return `one` in the lanes of `mask` and `other` elsewhere."""
    return np.where(_chosen(mask), one, other)


@primitive(twin=_twin("vector", _emit_compress))
def compress(vector: Any, mask: Any) -> Any:
    """Move the lanes in `mask` to the first lanes, in order; the others become 0."""
    chosen = vector[_chosen(mask)]
    return np.concatenate((chosen, np.zeros(WIDTH - chosen.size, np.uint32)))


@primitive(twin=_twin("vector", _emit_expand))
def expand(vector: Any, mask: Any, instead: Any) -> Any:
    """Deal the first lanes of `vector` out to the lanes in `mask`, in order; the others are those of `instead`."""
    chosen = _chosen(mask)
    dealt = instead.copy()
    dealt[chosen] = vector[: int(chosen.sum())]
    return dealt


def _chosen(mask: Any) -> Any:
    return (np.uint32(mask) >> _LANES & np.uint32(1)).astype(bool)

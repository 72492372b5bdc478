"""Vectors of 16 floats, f32 or f64: of the compiler's own kind, so that every processor runs them.

Uncompiled, a vector is a NumPy array of 16. Nothing here checks bounds: every function says what it touches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from featherweight.kernel import primitive

__all__ = ["WIDTH", "flip", "load", "minus", "plus", "sixteen", "store", "times"]

WIDTH = 16
_LANES = np.arange(WIDTH)


@functools.cache
def _vector(bits: int) -> Any:
    """Make numba's type of a vector."""
    from numba.core import types
    from numba.extending import models, register_model

    class Vector(types.Type):
        def __init__(self) -> None:
            super().__init__(f"f{bits}x16")
            self.bits = bits

    Vector.__name__ = f"Vector{bits}"

    @register_model(Vector)
    class VectorModel(models.PrimitiveModel):
        def __init__(self, manager: Any, kind: Any) -> None:
            super().__init__(manager, kind, _lanes(bits))

    return Vector()


def _lanes(bits: int) -> Any:
    from llvmlite import ir

    return ir.VectorType(ir.FloatType() if bits == 32 else ir.DoubleType(), WIDTH)


def _words(bits: int) -> Any:
    from llvmlite import ir

    return ir.VectorType(ir.IntType(bits), WIDTH)


def _twin(emit: Callable[..., Any], *, gives: bool = True) -> Callable[..., Any]:
    """Make the twin of a primitive whose code is ``emit(builder, bits, *arguments)``.

    Arrays reach `emit` as the address of their first element, integers as 64 bits.
    """

    def twin(*kinds: Any) -> Any:
        from numba.core import types
        from numba.extending import intrinsic

        bits = kinds[0].dtype.bitwidth if isinstance(kinds[0], types.Array) else kinds[0].bits

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values = []
            for kind, argument in zip(signature.args, arguments, strict=True):
                if isinstance(kind, types.Array):
                    values.append(context.make_array(kind)(context, builder, argument).data)
                elif isinstance(kind, types.Integer):
                    values.append(context.cast(builder, argument, kind, types.uint64))
                else:
                    values.append(argument)
            made = emit(builder, bits, *values)
            return context.get_dummy_value() if made is None else made

        returns = _vector(bits) if gives else types.void
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


def _place(builder: Any, bits: int, array: Any, position: Any) -> Any:
    return builder.bitcast(builder.gep(array, [position]), _lanes(bits).as_pointer())


def _emit_load(builder: Any, bits: int, array: Any, position: Any) -> Any:
    return builder.load(_place(builder, bits, array, position), align=bits // 8)


def _emit_store(builder: Any, bits: int, array: Any, position: Any, vector: Any) -> None:
    builder.store(vector, _place(builder, bits, array, position), align=bits // 8)


def _emit_times(builder: Any, bits: int, vector: Any, factor: Any) -> Any:
    from llvmlite import ir

    one = builder.insert_element(ir.Constant(_lanes(bits), ir.Undefined), factor, ir.IntType(32)(0))
    every = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.fmul(vector, builder.shuffle_vector(one, one, every))


def _signs(bits: int, chosen: list[bool]) -> Any:
    from llvmlite import ir

    return ir.Constant(_words(bits), [1 << (bits - 1) if each else 0 for each in chosen])


def _emit_flip(builder: Any, bits: int, vector: Any, mask: Any) -> Any:
    from llvmlite import ir

    chosen = builder.bitcast(builder.trunc(mask, ir.IntType(16)), ir.VectorType(ir.IntType(1), WIDTH))
    flipped = builder.select(chosen, _signs(bits, [True] * WIDTH), _signs(bits, [False] * WIDTH))
    return builder.bitcast(builder.xor(builder.bitcast(vector, _words(bits)), flipped), _lanes(bits))


def _emit_sixteen(builder: Any, bits: int, vector: Any) -> Any:
    from llvmlite import ir

    for step in (1, 2, 4, 8):
        order = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [lane ^ step for lane in range(WIDTH)])
        other = builder.shuffle_vector(vector, vector, order)
        signs = _signs(bits, [bool(lane & step) for lane in range(WIDTH)])
        flipped = builder.bitcast(builder.xor(builder.bitcast(vector, _words(bits)), signs), _lanes(bits))
        vector = builder.fadd(other, flipped)
    return vector


@primitive(twin=_twin(_emit_load))
def load(array: Any, position: Any) -> Any:
    """Return 16 neighbouring elements."""
    return array[int(position) : int(position) + WIDTH].copy()


@primitive(twin=_twin(_emit_store, gives=False))
def store(array: Any, position: Any, vector: Any) -> None:
    """Store 16 neighbouring elements."""
    array[int(position) : int(position) + WIDTH] = vector


@primitive(twin=_twin(lambda builder, _, one, other: builder.fadd(one, other)))
def plus(one: Any, other: Any) -> Any:
    """Return the sums."""
    return one + other


@primitive(twin=_twin(lambda builder, _, one, other: builder.fsub(one, other)))
def minus(one: Any, other: Any) -> Any:
    """Return the differences."""
    return one - other


@primitive(twin=_twin(_emit_times))
def times(vector: Any, factor: Any) -> Any:
    """Return the products with one number of the same type."""
    return vector * factor


@primitive(twin=_twin(_emit_flip))
def flip(vector: Any, mask: Any) -> Any:
    """Change the sign of the lanes whose bits are set in the low 16 of `mask`."""
    return np.where((int(mask) & 0xFFFF) >> _LANES & 1, -vector, vector)


@primitive(twin=_twin(_emit_sixteen))
def sixteen(vector: Any) -> Any:
    """Return the Walsh-Hadamard transform of the 16 lanes, not normalised."""
    for step in (1, 2, 4, 8):
        vector = vector[_LANES ^ step] + np.where(_LANES & step, -vector, vector)
    return vector

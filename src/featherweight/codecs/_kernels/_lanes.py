"""Vectors of 16 floats, f32 or f64: of the compiler's own kind, so that every processor runs them.

Uncompiled, a vector is a NumPy array of 16. Nothing here checks bounds: every function says what it touches.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from featherweight.kernel import primitive

__all__ = [
    "WIDTH",
    "column",
    "columns",
    "flip",
    "load",
    "minus",
    "plus",
    "put_column",
    "put_columns",
    "sixteen",
    "store",
    "times",
]

WIDTH, _HALF = 16, 8
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


def _lanes(bits: int, width: int = WIDTH) -> Any:
    from llvmlite import ir

    return ir.VectorType(ir.FloatType() if bits == 32 else ir.DoubleType(), width)


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
        if len(kinds) == 3:
            run = intrinsic(lambda _context, a, b, c: (returns(a, b, c), generate))
            return lambda a, b, c: run(a, b, c)  # noqa: PLW0108
        run = intrinsic(lambda _context, a, b, c, d: (returns(a, b, c, d), generate))
        return lambda a, b, c, d: run(a, b, c, d)  # noqa: PLW0108

    return twin


def _place(builder: Any, bits: int, array: Any, position: Any, width: int = WIDTH) -> Any:
    return builder.bitcast(builder.gep(array, [position]), _lanes(bits, width).as_pointer())


def _shuffled(builder: Any, one: Any, other: Any, lanes: Iterable[int]) -> Any:
    from llvmlite import ir

    order = list(lanes)
    return builder.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order))


def _emit_load(builder: Any, bits: int, array: Any, position: Any) -> Any:
    return builder.load(_place(builder, bits, array, position), align=bits // 8)


def _emit_store(builder: Any, bits: int, array: Any, position: Any, vector: Any) -> None:
    builder.store(vector, _place(builder, bits, array, position), align=bits // 8)


def _emit_two(builder: Any, bits: int, array: Any, position: Any, apart: Any) -> Any:
    from llvmlite import ir

    far = builder.add(position, builder.mul(apart, ir.IntType(64)(_HALF)))
    low, high = (_place(builder, bits, array, at, _HALF) for at in (position, far))
    return _shuffled(builder, builder.load(low, align=bits // 8), builder.load(high, align=bits // 8), range(WIDTH))


def _emit_put_two(builder: Any, bits: int, array: Any, position: Any, apart: Any, vector: Any) -> None:
    from llvmlite import ir

    far = builder.add(position, builder.mul(apart, ir.IntType(64)(_HALF)))
    for at, start in ((position, 0), (far, _HALF)):
        half = _shuffled(builder, vector, vector, range(start, start + _HALF))
        builder.store(half, _place(builder, bits, array, at, _HALF), align=bits // 8)


def _emit_column(builder: Any, bits: int, array: Any, position: Any, apart: Any) -> Any:
    from llvmlite import ir

    vector = ir.Constant(_lanes(bits), ir.Undefined)
    for lane in range(WIDTH):
        vector = builder.insert_element(vector, builder.load(builder.gep(array, [position])), ir.IntType(32)(lane))
        position = builder.add(position, apart)
    return vector


def _emit_put_column(builder: Any, bits: int, array: Any, position: Any, apart: Any, vector: Any) -> None:
    from llvmlite import ir

    for lane in range(WIDTH):
        builder.store(builder.extract_element(vector, ir.IntType(32)(lane)), builder.gep(array, [position]))
        position = builder.add(position, apart)


def _emit_times(builder: Any, bits: int, vector: Any, factor: Any) -> Any:
    from llvmlite import ir

    one = builder.insert_element(ir.Constant(_lanes(bits), ir.Undefined), factor, ir.IntType(32)(0))
    return builder.fmul(vector, _shuffled(builder, one, one, [0] * WIDTH))


def _signs(bits: int, chosen: list[bool]) -> Any:
    from llvmlite import ir

    return ir.Constant(_words(bits), [1 << (bits - 1) if each else 0 for each in chosen])


def _emit_flip(builder: Any, bits: int, vector: Any, mask: Any) -> Any:
    from llvmlite import ir

    chosen = builder.bitcast(builder.trunc(mask, ir.IntType(16)), ir.VectorType(ir.IntType(1), WIDTH))
    flipped = builder.select(chosen, _signs(bits, [True] * WIDTH), _signs(bits, [False] * WIDTH))
    return builder.bitcast(builder.xor(builder.bitcast(vector, _words(bits)), flipped), _lanes(bits))


def _emit_sixteen(builder: Any, bits: int, vector: Any) -> Any:
    for step in (1, 2, 4, 8):
        other = _shuffled(builder, vector, vector, [lane ^ step for lane in range(WIDTH)])
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


@primitive(twin=_twin(_emit_column))
def column(array: Any, position: Any, apart: Any) -> Any:
    """Return 16 elements that are `apart` one from another."""
    return array[int(position) + int(apart) * _LANES]


@primitive(twin=_twin(_emit_put_column, gives=False))
def put_column(array: Any, position: Any, apart: Any, vector: Any) -> None:
    """Store 16 elements `apart` one from another."""
    array[int(position) + int(apart) * _LANES] = vector


@primitive(twin=_twin(_emit_two))
def _two(array: Any, position: Any, apart: Any) -> Any:
    """Return 8 neighbouring elements, and 8 others `8 * apart` behind them."""
    return array[int(position) + np.r_[:_HALF, :_HALF] + _LANES // _HALF * _HALF * int(apart)]


@primitive(twin=_twin(_emit_put_two, gives=False))
def _put_two(array: Any, position: Any, apart: Any, vector: Any) -> None:
    array[int(position) + np.r_[:_HALF, :_HALF] + _LANES // _HALF * _HALF * int(apart)] = vector


def _zipper(size: int, upper: bool) -> Callable[..., Any]:
    """Make a primitive that takes `size` lanes of one and of another in turn, from the halves of groups that they fill.

    Groups are of 4 lanes, of 8 for halves of 4: what processors have instructions for.
    """
    group = max(2 * size, 4)
    half = [first + upper * group // 2 + i for first in range(0, WIDTH, group) for i in range(group // 2)]
    parts = [half[i : i + size] for i in range(0, len(half), size)]
    order = [lane + which * WIDTH for part in parts for which in (0, 1) for lane in part]

    @primitive(twin=_twin(lambda builder, _, one, other: _shuffled(builder, one, other, order)))
    def zipped(one: Any, other: Any) -> Any:
        return np.concatenate((one, other))[order]

    return zipped


_low1, _high1, _low2, _high2, _low4, _high4 = (_zipper(size, upper) for size in (1, 2, 4) for upper in (False, True))


@primitive
def _transposed(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """Return rows as columns: of 8 by 8 elements in the first halves, and of as many in the others."""
    ab, cd, ef, gh = _low1(a, b), _low1(c, d), _low1(e, f), _low1(g, h)
    a1, b1, c1, d1 = _low2(ab, cd), _high2(ab, cd), _low2(ef, gh), _high2(ef, gh)
    ab, cd, ef, gh = _high1(a, b), _high1(c, d), _high1(e, f), _high1(g, h)
    e1, f1, g1, h1 = _low2(ab, cd), _high2(ab, cd), _low2(ef, gh), _high2(ef, gh)
    low = _low4(a1, c1), _low4(b1, d1), _low4(e1, g1), _low4(f1, h1)
    return (*low, _high4(a1, c1), _high4(b1, d1), _high4(e1, g1), _high4(f1, h1))


@primitive
def columns(array: Any, at: Any, apart: Any) -> Any:
    """Return the 8 columns of 16 rows that begin `apart` one from another; 8 elements of each are read."""
    two, four, six = at + 2 * apart, at + 4 * apart, at + 6 * apart
    a, b, c, d = (
        _two(array, at, apart),
        _two(array, at + apart, apart),
        _two(array, two, apart),
        _two(array, two + apart, apart),
    )
    e, f, g, h = (
        _two(array, four, apart),
        _two(array, four + apart, apart),
        _two(array, six, apart),
        _two(array, six + apart, apart),
    )
    return _transposed(a, b, c, d, e, f, g, h)


@primitive
def put_columns(array: Any, at: Any, apart: Any, vectors: Any) -> None:
    """Store 8 columns as 16 rows that begin `apart` one from another, 8 elements of each."""
    a, b, c, d, e, f, g, h = vectors
    a, b, c, d, e, f, g, h = _transposed(a, b, c, d, e, f, g, h)
    _put_two(array, at, apart, a)
    _put_two(array, at + apart, apart, b)
    _put_two(array, at + 2 * apart, apart, c)
    _put_two(array, at + 3 * apart, apart, d)
    _put_two(array, at + 4 * apart, apart, e)
    _put_two(array, at + 5 * apart, apart, f)
    _put_two(array, at + 6 * apart, apart, g)
    _put_two(array, at + 7 * apart, apart, h)

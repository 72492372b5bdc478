"""The machine code of `_vector`'s primitives, as LLVM's instructions: a vector is one value of 16 words of 32 bits.

LLVM makes one register of it where the processor has 512 bits and two where it has 256, and most instructions are the
same for both. The others ask ``features()`` for AVX-512, numba's cache being one for each set of features; without,
they look up how lanes move in tables of 256 rows, by masks of 8 lanes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from featherweight.kernel import compiled, features

__all__ = ["AVX2", "AVX512", "PERMUTES", "WIDTH", "compilable", "twin"]

AVX2 = frozenset({"avx2"})
AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})
PERMUTES = AVX512 | {"avx512vbmi", "avx512bitalg"}
WIDTH = 16
_HALF = WIDTH // 2
_WORD = (1 << 32) - 1

Emit = Callable[..., Any]


def compilable() -> bool:
    """Return whether vectors can be compiled here: their lanes are named by the bits of words, the lowest first."""
    return compiled() and sys.byteorder == "little"


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


def twin(result: str, emit: Emit) -> Callable[..., Any]:
    """Make the twin of a primitive whose code is ``emit(builder, *arguments)``.

    Arrays reach `emit` as the address of their first element (one byte before another: ``i8*``), integers as 64 bits.
    """

    def make(*kinds: Any) -> Any:
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
        if len(kinds) == 3:
            run = intrinsic(lambda _context, a, b, c: (returns(a, b, c), generate))
            return lambda a, b, c: run(a, b, c)  # noqa: PLW0108
        run = intrinsic(lambda _context, a, b, c, d: (returns(a, b, c, d), generate))
        return lambda a, b, c, d: run(a, b, c, d)  # noqa: PLW0108

    return make


def _ir() -> Any:
    from llvmlite import ir

    return ir


def _word(bits: int) -> Any:
    return _ir().IntType(bits)


def _lanes(bits: int, width: int = WIDTH) -> Any:
    return _ir().VectorType(_word(bits), width)


def _same(kind: Any, value: int) -> Any:
    return _ir().Constant(kind, [value] * kind.count)


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


def _half(builder: Any, vector: Any, which: int) -> Any:
    order = _ir().Constant(_lanes(32, _HALF), list(range(_HALF * which, _HALF * which + _HALF)))
    return builder.shuffle_vector(vector, vector, order)


def _joined(builder: Any, low: Any, high: Any) -> Any:
    return builder.shuffle_vector(low, high, _ir().Constant(_lanes(32), list(range(WIDTH))))


def binary(name: str) -> Emit:
    return lambda builder, one, other: getattr(builder, name)(one, other)


def splat(builder: Any, value: Any) -> Any:
    ir = _ir()
    one = builder.insert_element(ir.Constant(_lanes(32), ir.Undefined), builder.trunc(value, _word(32)), _word(32)(0))
    return builder.shuffle_vector(one, one, _same(_lanes(32), 0))


def load(bits: int) -> Emit:
    def emit(builder: Any, array: Any, position: Any) -> Any:
        value = builder.load(_at(builder, array, position, _lanes(bits)), align=1)
        return value if bits == 32 else builder.zext(value, _lanes(32))

    return emit


def store(bits: int) -> Emit:
    def emit(builder: Any, array: Any, position: Any, vector: Any) -> None:
        value = vector if bits == 32 else builder.trunc(vector, _lanes(bits))
        builder.store(value, _at(builder, array, position, _lanes(bits)), align=1)

    return emit


def store_half(builder: Any, array: Any, position: Any, vector: Any) -> None:
    half = _half(builder, vector, 0)
    builder.store(half, _at(builder, array, position, half.type), align=1)


def stream(builder: Any, array: Any, position: Any, vector: Any) -> None:
    store = builder.store(vector, _at(builder, array, position, _lanes(32)), align=64)
    store.set_metadata("nontemporal", builder.module.add_metadata([_word(32)(1)]))


def settle(builder: Any, _: Any) -> None:
    builder.fence("seq_cst")


def _loaded(builder: Any, array: Any, places: Any, kind: Any) -> Any:
    """Load the elements at `places` one by one.

    AVX2's gathers are slower than that on AMD's processors, and on those of Intel's that had to slow them down.
    """
    pairs = builder.bitcast(places, _lanes(64, places.type.count // 2))
    found = _ir().Constant(kind, _ir().Undefined)
    for number in range(pairs.type.count):
        pair = builder.extract_element(pairs, _word(32)(number))
        for half, place in enumerate((builder.and_(pair, _word(64)(_WORD)), builder.lshr(pair, _word(64)(32)))):
            element = builder.load(builder.bitcast(builder.gep(array, [place]), kind.element.as_pointer()), align=1)
            found = builder.insert_element(found, element, _word(32)(2 * number + half))
    return found


def gather(builder: Any, array: Any, index: Any) -> Any:
    kind = _lanes(32)
    if not features() >= AVX512:
        return _loaded(builder, array, index, kind)
    base = builder.bitcast(array, _word(8).as_pointer())
    given = _same(kind, 0), base, index, _same(_lanes(1), 1), _word(32)(4)
    return _call(builder, "llvm.x86.avx512.mask.gather.dpi.512", kind, *given)


def gather2(builder: Any, array: Any, index: Any) -> Any:
    kind, half = _lanes(64, _HALF), _half(builder, index, 0)
    if not features() >= AVX512:
        return builder.bitcast(_loaded(builder, array, half, kind), _lanes(32))
    base = builder.bitcast(array, _word(8).as_pointer())
    given = _same(kind, 0), base, half, _same(_lanes(1, _HALF), 1), _word(32)(4)
    return builder.bitcast(_call(builder, "llvm.x86.avx512.mask.gather.dpq.512", kind, *given), _lanes(32))


def shuffle(order: list[int]) -> Emit:
    def emit(builder: Any, one: Any, other: Any = None) -> Any:
        return builder.shuffle_vector(one, one if other is None else other, _ir().Constant(_lanes(32), order))

    return emit


def _permuted(builder: Any, table: Any, index: Any) -> Any:
    """Return of 8 lanes those that the lowest three bits of each lane of `index` name."""
    return _call(builder, "llvm.x86.avx2.permd", _lanes(32, _HALF), table, index)


def permute(builder: Any, table: Any, index: Any) -> Any:
    if features() >= AVX512:
        return _call(builder, "llvm.x86.avx512.permvar.si.512", _lanes(32), table, index)
    low, high = _half(builder, table, 0), _half(builder, table, 1)
    places = [_half(builder, index, which) for which in (0, 1)]
    one = _joined(builder, *(_permuted(builder, low, place) for place in places))
    other = _joined(builder, *(_permuted(builder, high, place) for place in places))
    upper = builder.icmp_unsigned("!=", builder.and_(index, _same(_lanes(32), _HALF)), _same(_lanes(32), 0))
    return builder.select(upper, other, one)


def less(builder: Any, left: Any, right: Any) -> Any:
    return builder.zext(builder.bitcast(builder.icmp_unsigned("<", left, right), _word(16)), _word(64))


def choose(builder: Any, mask: Any, one: Any, other: Any) -> Any:
    return builder.select(_mask(builder, mask), one, other)


def high(builder: Any, one: Any, other: Any) -> Any:
    # Even lanes and odd ones by themselves: one instruction multiplies the lower halves of words of 64 bits.
    wide = _lanes(64, _HALF)
    one, other = builder.bitcast(one, wide), builder.bitcast(other, wide)
    low, by = _same(wide, _WORD), _same(wide, 32)
    evens = builder.lshr(builder.mul(builder.and_(one, low), builder.and_(other, low)), by)
    odds = builder.and_(builder.mul(builder.lshr(one, by), builder.lshr(other, by)), _same(wide, _WORD << 32))
    return builder.bitcast(builder.or_(evens, odds), _lanes(32))


def _set(row: int) -> list[int]:
    return [lane for lane in range(_HALF) if row >> lane & 1]


def _dealt(row: int) -> list[int]:
    """Return for each lane of a mask of 8 how many are in it before."""
    return [(row & (1 << lane) - 1).bit_count() for lane in range(_HALF)]


def _stacked(row: int) -> list[int]:
    """Return the lanes in a mask of 8, behind what fills the first places up."""
    return [0] * (_HALF - row.bit_count()) + _set(row)


def _order(builder: Any, rows: Callable[[int], list[int]], mask: Any) -> Any:
    """Return what a table of 256 rows of 8 bytes says of a mask of 8 lanes, as a vector of 8 words."""
    from numba.core import cgutils

    text = bytearray(lane for row in range(256) for lane in rows(row))
    ir = _ir()
    kind, name = ir.ArrayType(_word(8), len(text)), f"featherweight.lanes.{rows.__name__}"
    if name in builder.module.globals:
        table = builder.module.globals[name]
    else:
        table = cgutils.global_constant(builder, name, ir.Constant(kind, text))
        table.linkage = "internal"
    place = builder.gep(table, [_word(64)(0), builder.shl(mask, _word(64)(3))])
    return builder.zext(builder.load(builder.bitcast(place, _lanes(8, _HALF).as_pointer()), align=1), _lanes(32, _HALF))


def _masks(builder: Any, mask: Any) -> tuple[Any, Any]:
    low, high = builder.and_(mask, _word(64)(255)), builder.lshr(mask, _word(64)(_HALF))
    return low, builder.and_(high, _word(64)(255))


def _behind(builder: Any, position: Any, mask: Any, direction: str) -> Any:
    """Return where 2 bytes for each lane of a mask end, from `position` on or back (``"add"``, ``"sub"``)."""
    count = _call(builder, "llvm.ctpop.i64", _word(64), mask)
    return getattr(builder, direction)(position, builder.shl(count, _word(64)(1)))


def deal16le(builder: Any, array: Any, position: Any, mask: Any, instead: Any) -> Any:
    if features() >= AVX512:
        words = load(16)(builder, array, position)
        name = "llvm.x86.avx512.mask.expand.v16i32"
        return _call(builder, name, _lanes(32), words, instead, _mask(builder, mask))
    halves = []
    for part in _masks(builder, mask):
        some = builder.load(_at(builder, array, position, _lanes(16, _HALF)), align=1)
        words = builder.zext(some, _lanes(32, _HALF))
        halves.append(_permuted(builder, words, _order(builder, _dealt, part)))
        position = _behind(builder, position, part, "add")
    return builder.select(_mask(builder, mask), _joined(builder, *halves), instead)


def stack16le(builder: Any, array: Any, position: Any, vector: Any, mask: Any) -> None:
    if features() >= AVX512:
        lanes, nothing = _mask(builder, mask), _same(_lanes(32), 0)
        first = _call(builder, "llvm.x86.avx512.mask.compress.v16i32", _lanes(32), vector, nothing, lanes)
        free = builder.sub(_word(64)(WIDTH), _call(builder, "llvm.ctpop.i64", _word(64), mask))
        last = _mask(builder, builder.shl(_word(64)((1 << WIDTH) - 1), free))
        words = _call(builder, "llvm.x86.avx512.mask.expand.v16i32", _lanes(32), first, nothing, last)
        store(16)(builder, array, builder.sub(position, _word(64)(2 * WIDTH)), words)
        return
    for which, part in reversed([*enumerate(_masks(builder, mask))]):
        words = _permuted(builder, _half(builder, vector, which), _order(builder, _stacked, part))
        place = _at(builder, array, builder.sub(position, _word(64)(WIDTH)), _lanes(16, _HALF))
        builder.store(builder.trunc(words, _lanes(16, _HALF)), place, align=1)
        position = _behind(builder, position, part, "sub")


def _words() -> Any:
    return _lanes(16, 2 * WIDTH)


def spread8(builder: Any, array: Any, position: Any) -> Any:
    value = builder.load(_at(builder, array, position, _lanes(8, 2 * WIDTH)), align=1)
    return builder.bitcast(builder.zext(value, _words()), _lanes(32))


def binary16(name: str) -> Emit:
    def emit(builder: Any, one: Any, other: Any) -> Any:
        one, other = (builder.bitcast(each, _words()) for each in (one, other))
        return builder.bitcast(getattr(builder, name)(one, other), _lanes(32))

    return emit


# For `rans_permute`, which runs only where PERMUTES are.
def named(bits: int) -> Emit:
    def emit(builder: Any, low: Any, high: Any, index: Any) -> Any:
        kind = _lanes(bits, 512 // bits)
        low, high, index = (builder.bitcast(each, kind) for each in (low, high, index))
        name = f"llvm.x86.avx512.vpermi2var.{'qi' if bits == 8 else 'hi'}.512"
        return builder.bitcast(_call(builder, name, kind, low, index, high), _lanes(32))

    return emit


def count16(builder: Any, one: Any) -> Any:
    counts = _call(builder, "llvm.ctpop.v32i16", _words(), builder.bitcast(one, _words()))
    return builder.bitcast(counts, _lanes(32))


def has16(builder: Any, one: Any, bits: Any) -> Any:
    found = builder.bitcast(builder.and_(one, bits), _words())
    mask = builder.icmp_unsigned("!=", found, _same(_words(), 0))
    return builder.zext(builder.bitcast(mask, _word(32)), _word(64))


def choose16(builder: Any, mask: Any, one: Any, other: Any) -> Any:
    chosen = builder.bitcast(builder.trunc(mask, _word(32)), _lanes(1, 2 * WIDTH))
    one, other = (builder.bitcast(each, _words()) for each in (one, other))
    return builder.bitcast(builder.select(chosen, one, other), _lanes(32))

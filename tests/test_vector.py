"""Vectors of 16 lanes mean the same compiled, whatever the processor, as in Python."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from processors import NARROW, PYTHON, WIDE, elsewhere

from featherweight.codecs import _kernels
from featherweight.codecs._kernels import _vector as v
from featherweight.kernel import Kernel, features, kernel

_0, _1, _16, _32, _64 = (np.uint64(value) for value in (0, 1, 16, 32, 64))


@kernel("void(u4[r], u1[r], u4[w], u8[w])")
def arithmetic(words: Any, octets: Any, out: Any, masks: Any) -> None:
    a, b = v.load(words, _0), v.load(words, _16)
    few = v.both(b, v.splat(31))
    v.store(out, _0, v.plus(a, b))
    v.store(out, _16, v.minus(a, b))
    v.store(out, _32, v.times(a, b))
    v.store(out, _32 + _16, v.high(a, b))
    v.store(out, _64, v.either(v.left(a, few), v.right(b, few)))
    v.store(out, _64 + _16, v.differ(a, v.load8(octets, _1)))
    v.store(out, _64 + _32, v.load16le(octets, _1))
    less = v.less(a, b)
    masks[0], masks[1] = less, v.less(b, b)
    v.store(out, _64 + _32 + _16, v.choose(less, a, b))


@kernel("void(u4[r], u4[w])")
def moves(words: Any, out: Any) -> None:
    a, b = v.load(words, _0), v.load(words, _16)
    v.store(out, _0, v.turn(a))
    v.store(out, _16, v.evens(a, b))
    v.store(out, _32, v.odds(a, b))
    v.store(out, _32 + _16, v.permute(a, b))
    v.store(out, _64, v.gather(words, v.both(b, v.splat(31))))
    v.store(out, _64 + _16, v.gather2(words, v.both(b, v.splat(30))))


@kernel("void(u4[r], u1[r], u8, u1[w], u4[w])")
def words_of_lanes(words: Any, octets: Any, mask: Any, stacked: Any, out: Any) -> None:
    a = v.load(words, _0)
    v.store(out, _0, v.deal16le(octets, _1, mask, a))
    v.stack16le(stacked, _64, a, mask)
    v.store8(stacked, _64 + _1, a)
    v.store_half(stacked, _64 + _64, a)


def results() -> str:
    """Return what the kernels come to, as text."""
    rng, shown = np.random.default_rng(5), []
    octets = rng.integers(0, 256, 96).astype(np.uint8)
    for high in (16, 1 << 32):
        words, out, masks = (
            rng.integers(0, high, 32).astype(np.uint32),
            np.zeros(128, np.uint32),
            np.zeros(2, np.uint64),
        )
        arithmetic(words, octets, out, masks)
        shown.append(f"{out.tolist()} {masks.tolist()}")
        out.fill(0)
        moves(words, out)
        shown.append(str(out.tolist()))
        for mask in (0, 1, 0x8000, 0xFFFF, 0x00FF, 0xFF00, *rng.integers(0, 1 << 16, 20).tolist()):
            stacked = np.zeros(192, np.uint8)
            words_of_lanes(words, octets, np.uint64(mask), stacked, out)
            stacked[32 : 64 - 2 * mask.bit_count()] = 0  # anything may be there
            shown.append(f"{stacked.tolist()} {out[:16].tolist()}")
    return "\n".join(shown)


@pytest.fixture(scope="module")
def expected() -> str:
    return elsewhere(__file__, "results", **PYTHON)


def test_python_stores_no_more_than_it_says() -> None:
    words, stacked = np.arange(16, dtype=np.uint32), np.full(64, 7, np.uint8)
    v.stack16le(stacked, 64, words, 0b1010)
    assert stacked.tolist() == [7] * 60 + [1, 0, 3, 0]


@pytest.mark.skipif(not features() >= v.AVX2, reason="needs vectors of 256 bits")
def test_compiled_is_python(expected: str) -> None:
    assert results() == expected


@pytest.mark.skipif(not features() >= v.AVX2, reason="needs vectors of 256 bits")
def test_256_bits_are_python(expected: str) -> None:
    assert elsewhere(__file__, "results", **NARROW) == expected


def vectors_compile() -> int:
    """Compile all that there is for vectors, and run nothing; return how many loops."""
    loops = 0
    for module in pkgutil.iter_modules(_kernels.__path__):
        if module.name.endswith(("_simd", "_permute")):
            for each in vars(importlib.import_module(f"{_kernels.__name__}.{module.name}")).values():
                if isinstance(each, Kernel) and each.python.__module__.endswith(module.name):
                    each._prepare()
                    loops += 1
    return loops


@pytest.mark.skipif(not features() >= v.AVX2, reason="needs a processor of this family")
def test_512_bits_are_compiled_on_lesser_processors(tmp_path: Path) -> None:
    """Where there is no such processor, at least that LLVM takes the instructions is known."""
    assert int(elsewhere(__file__, "vectors_compile", **WIDE, FEATHERWEIGHT_CACHE_DIR=str(tmp_path))) > 10

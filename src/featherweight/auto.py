"""`auto`: the selector behind the lossless recipes.

It looks at a piece, names the stages that suit it, and is asked again for each stream of theirs, until what is left
are bytes, for which an entropy coder is chosen by its estimated size and the table of costs below. No clock is read:
the same array always gets the same recipe.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from featherweight import dtypes
from featherweight.codecs import stage_class
from featherweight.codecs._kernels.palette import MOST, numbered
from featherweight.codecs._kernels.survey import survey
from featherweight.dtypes import Array
from featherweight.stage import AnyRecipe, Recipe, Smallest, Stage, chain, check_params, param

__all__ = ["Auto", "constant", "few"]

# What coding and decoding a symbol costs, in nanoseconds on one core with 512-bit vectors: a constant and a part that
# grows with its entropy in bits. Huffman's, which needs no vectors, is scaled from a core with 256. A nanosecond
# less is worth so many bits: to "small" few, but a plane of noise is none the smaller for being coded.
COST_NS = {"raw": (0.1, 0.0), "huffman": (0.25, 0.13), "rans": (1.3, 0.0)}
BITS_PER_NS = {"fast": 0.15, "small": 0.005}
# What a word of f16 costs less where the three upper bits of its mantissa are not coded with the exponent.
APART_NS = 0.8
# Beside mantissas of more bits exponents are a small share: half as many tables then spare more time than bits.
_SHORT, _COARSER = 7, 17
SAMPLE, RUN = 2048, 128
FIRST = 1 << 16  # elements that tell whether there are few different ones
TABLES = 1 << 16  # elements from which on the tables of classes are small beside what they spare
_LOG, _2LN2 = 20, 2 * math.log(2)
_SHARES = np.array([round(n * math.log2(max(n, 1)) * (1 << _LOG)) for n in range(SAMPLE + 1)], np.uint64)
"""n · log2(n) in 2^-20."""


@dataclass(frozen=True)
class Auto:
    """Choose by what the array holds: ``fast`` weighs bits against time, ``small`` nearly only bits."""

    effort: str = param("fast", choices=("fast", "small"), doc="fast weighs bits against time, small hardly")
    block: int = param(16, lo=10, hi=18, doc="huffman's: base-2 logarithm of the symbols that share a code")

    def __post_init__(self) -> None:
        check_params(self)

    def choose(self, x: Array, /) -> AnyRecipe | None:
        """Return the recipe for this piece; None stores it as it is."""
        if x.dtype == np.uint8 and x.size:
            return self._bytes(x)
        if constant(x):
            return _stage("constant")  # type: ignore[no-any-return]
        sample = _sample(x)
        zeros = 1 - int(np.count_nonzero(sample.view(dtypes.of(x.dtype).word))) / sample.size
        if zeros > 0.5 and (runs := self._runs(x)) is not None:
            return runs
        others = self._others(x, sample, zeros)
        return Smallest((*self._numbers(x), others)) if _few(x, sample) else others

    def _others(self, x: Array, sample: Array, zeros: float) -> AnyRecipe:
        """Return what to code an array with that is not of few elements, nor of many zeros in a row."""
        row = dtypes.of(x.dtype)
        if row.kind == "f" and row.bits >= 32 and _stage("narrow").pays(x):
            return _each(self, _stage("narrow"))
        plain = self._planes(sample, row.word.itemsize)
        if row.kind == "f" and row.bits >= 16 and x.size >= 256 and (self.effort == "small" or zeros > 0.05):
            conditional = _conditional(self, _widths(x), scaled=self._scaled(x), sparse=zeros > 0.05)
            return conditional if x.size >= TABLES and zeros <= 0.05 else Smallest((conditional, plain))
        return plain

    def _numbers(self, x: Array) -> tuple[AnyRecipe, ...]:
        """Say how to number different elements: in a matrix, scales of rows and columns may tell which are likely."""
        plain = chain(_stage("palette"), index=self)
        if not self._scaled(x):
            return (plain,)
        under = chain(_stage("palette"), index=chain(_stage("rans"), given=("row", "column")))
        return plain, chain(_stage("levels", resolution=2), row=self, column=self, values=under)

    def _planes(self, sample: Array, count: int) -> Recipe:
        """Cut into bytes; of f16 set those bits of the mantissa apart that are noise, where that costs little."""
        then = (
            replace(self, block=_COARSER)
            if dtypes.of(sample.dtype).mantissa > _SHORT and self.effort == "fast"
            else self
        )
        if sample.dtype == np.float16:
            tops = (sample.view(np.uint16) >> 7).astype(np.uint8)
            lost = max(3 - (_survey(tops).entropy - _survey(tops >> 3).entropy), 0)
            if lost < APART_NS * BITS_PER_NS[self.effort]:
                return _apart(then)
        return _each(then, _stage("planes"), count)

    def _runs(self, x: Array) -> AnyRecipe | None:
        stage = _stage("runs", least=1024)  # scattered zeros are the entropy coder's, regions are not
        return _each(self, stage) if stage.pays(x) else None

    def _scaled(self, x: Array) -> bool:
        """Return whether scales of rows and columns are worth a try."""
        return self.effort == "small" and x.ndim >= 2 and len(x) >= 4 and x.size // len(x) >= 4

    def _bytes(self, x: Array) -> AnyRecipe | None:
        found = _survey(x)
        symbols, most, entropy, _ = found
        if symbols == 1 and constant(x):
            return _stage("constant")  # type: ignore[no-any-return]
        width = most.bit_length()
        huffman = found.huffman() if symbols < 256 or entropy < 7.9 else 8.0
        price = BITS_PER_NS[self.effort]
        costs = {
            name: x.size * (bits + price * (COST_NS[name][0] + COST_NS[name][1] * entropy)) + tables
            for name, bits, tables in (
                ("raw", max(width, 1), 0),
                ("huffman", huffman, 24 + 5 * symbols),
                ("rans", entropy, 64 + 8 * symbols),
            )
        }
        best = min(costs, key=costs.__getitem__)
        if best == "raw" and not (width < 8 and int(x.max()) < 128):
            return None
        values = {"block": self.block} if best == "huffman" else {}
        coder: Stage = _stage("bitpack" if best == "raw" else best, **values)
        return coder


@functools.cache
def _stage(name: str, **values: Any) -> Any:
    return stage_class(name)(**values)


@functools.cache  # what recipes know of themselves they find once
def _each(then: Auto, stage: Stage, count: int | None = None) -> Recipe:
    """Ask again for every stream of a stage."""
    return Recipe(stage, tuple((port.name, then) for port in stage.codec.streams[:count]))


@functools.cache
def _apart(then: Auto) -> Recipe:
    """Cut f16 into exponents to be coded, three bits of noise, and the rest."""
    return Recipe(_stage("planes", widths=(5, 3, 8), packed=3), (("exponent", then), ("low", then)))


@functools.cache
def _conditional(then: Auto, widths: tuple[int, ...], *, scaled: bool, sparse: bool) -> Recipe:
    """Code exponents under the scales of rows and columns, and the top of the mantissas under the exponents.

    Of a sparse tensor every plane goes under the exponents, which tell where the zeros are.
    """
    rans = _stage("rans")
    names = [port.name for port in stage_class("planes").codec.streams[: len(widths)]]
    exponent: AnyRecipe = then
    if scaled:
        exponent = chain(_stage("scales"), row=then, column=then, values=chain(rans, given=("row", "column")))
    under = Recipe(rans, given=("exponent",))
    below = names[1:] if sparse else names[1:2]
    planes = ((name, under if name in below else then) for name in names[1:])
    return Recipe(_stage("planes", widths=widths), (("exponent", exponent), *planes))


def constant(x: Array) -> bool:
    """Return whether all elements are the same."""
    if x.size == 0:
        return True
    words = dtypes.bits_view(x)
    width = words.size // x.size  # 2 words where an element is complex
    first, middle = words[:width], x.size // 2 * width
    if not first.tobytes() == words[-width:].tobytes() == words[middle : middle + width].tobytes():
        return False
    return bool((words.reshape(-1, width) == first).all())


def few(x: Array) -> bool:
    """Return whether these are floats with few different elements, as a sample tells, and then the first of them."""
    return x.size > 0 and _few(x, _sample(x))


def _few(x: Array, sample: Array) -> bool:
    row = dtypes.of(x.dtype)
    if row.kind != "f" or row.bits < 16:
        return False
    some = sample.view(row.word)[:: max(1, SAMPLE // (2 * MOST))].copy()
    if 8 * numbered(some)[0].size > min(x.size, 8 * MOST):
        return False
    first = dtypes.bits_view(x)[:FIRST]  # of many zeros a sample is soon told, and what is between them is not
    return numbered(first)[0].size <= MOST


def _sample(x: Array) -> Array:
    """Return some of the elements: runs of neighbours, which share cache lines, from all over the array."""
    flat = x.reshape(-1)
    run, step = _places(flat.size)
    return flat[: flat.size // step * step].reshape(-1, step)[:, :run].reshape(-1)


def _places(size: int) -> tuple[int, int]:
    """Return the length of a run and from where each begins to where the next one does."""
    step = size // (SAMPLE // RUN)
    return (RUN, step) if step > RUN else (min(size, SAMPLE), size)


class _Survey(NamedTuple):
    """Of a sample of bytes: how many different ones, the largest, their entropy in bits, the share of the likeliest."""

    symbols: int
    most: int
    entropy: float
    share: float

    def huffman(self) -> float:
        """Return about how many bits a symbol takes: one at least, which is much where one symbol is most of them."""
        if self.share <= 0.5:
            return self.entropy + 0.03
        rest = 1 - self.share
        which = -self.share * math.log2(self.share) - (rest * math.log2(rest) if rest else 0.0)
        return 1 + self.entropy - which


def _survey(x: Array) -> _Survey:
    flat = x.reshape(-1)
    run, step = _places(flat.size)
    counts, found = np.empty(256, np.uint32), np.empty(5, np.uint64)
    survey(flat, np.uint64(run), np.uint64(step), _SHARES, counts, found)
    n, symbols, most, shares, likeliest = found.tolist()
    # Miller and Madow's correction: a sample shows less entropy than there is.
    entropy = math.log2(n) - shares / (n << _LOG) + (symbols - 1) / (_2LN2 * n)
    return _Survey(symbols, most, entropy, likeliest / n)


def _widths(x: Array) -> tuple[int, ...]:
    """Return planes that end where an exponent does, and after it four bits, which are all that depend on it."""
    row = dtypes.of(x.dtype)
    if row.exponent > 8:
        return (8,) * (row.bits // 8)
    low = row.bits - row.exponent - 4
    return (row.exponent, 4, *((low % 8,) if low % 8 else ()), *(8,) * (low // 8))

"""`auto`: the selector behind the lossless recipes.

It looks at a piece, names the stages that suit it, and is asked again for each stream of theirs, until what is left
are bytes, for which an entropy coder is chosen by its estimated size and the table of costs below. No clock is read:
the same array always gets the same recipe.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featherweight import dtypes
from featherweight.codecs import stage_class
from featherweight.dtypes import Array
from featherweight.stage import AnyRecipe, Recipe, chain, check_params, param

__all__ = ["Auto"]

# What a symbol costs beside its bits: nanoseconds to code and decode it, as measured on one core (benchmarks/results),
# and what "fast" pays for a nanosecond, in bits. "small" pays nothing.
COST_NS = {"raw": 0.1, "huffman": 1.0, "rans": 3.0}
BITS_PER_NS = {"fast": 0.04, "small": 0.0}
SAMPLE = 8192


@dataclass(frozen=True)
class Auto:
    """Choose by what the array holds: ``fast`` weighs bits against time, ``small`` counts bits only."""

    effort: str = param("fast", choices=("fast", "small"), doc="fast weighs bits against time, small counts bits only")

    def __post_init__(self) -> None:
        check_params(self)

    def choose(self, x: Array, /) -> AnyRecipe | None:
        """Return the recipe for this piece."""
        if _constant(x):
            return stage_class("constant")()  # type: ignore[no-any-return]
        sample = _sample(x)
        if x.dtype == np.uint8:
            return self._bytes(x, sample)
        zeros = 1 - np.count_nonzero(sample.view(dtypes.of(x.dtype).word)) / sample.size
        if zeros > 0.5 and (runs := self._runs(x)) is not None:
            return runs
        row = dtypes.of(x.dtype)
        if row.kind == "f" and row.bits >= 32 and stage_class("narrow")().pays(x):
            return chain(stage_class("narrow")(), **dict.fromkeys(("flags", "wide", "brain", "half", "single"), self))
        if self.effort == "small" and row.kind == "f" and row.bits >= 16 and x.size >= 4096:
            return self._conditional(x)
        planes = stage_class("planes")()
        return chain(planes, **{name: self for name in _plane_names(x)})

    def _runs(self, x: Array) -> AnyRecipe | None:
        stage = stage_class("runs")()
        if not stage.pays(x):
            return None
        return chain(stage, lengths=self, kept=self)

    def _conditional(self, x: Array) -> AnyRecipe:
        """Code exponents under the scales of rows and columns, and the top of the mantissas under the exponents."""
        row = dtypes.of(x.dtype)
        top = min(row.exponent, 8)
        low = row.bits - top - 4
        widths = (top, 4, *((low % 8,) if low % 8 else ()), *(8,) * (low // 8))
        if len(widths) > 8:
            return chain(stage_class("planes")(), **{name: self for name in _plane_names(x)})
        rans, names = stage_class("rans")(), _plane_names(x, len(widths))
        exponent: AnyRecipe = Recipe(rans)
        if x.ndim >= 2 and len(x) >= 4 and x.size // len(x) >= 4:
            exponent = chain(stage_class("scales")(), row=self, column=self, values=chain(rans, given=("row", "column")))
        then: dict[str, AnyRecipe] = {"exponent": exponent, "mantissa": chain(rans, given=("exponent",))}
        then |= {name: self for name in names[2:]}
        return chain(stage_class("planes")(widths), **then)

    def _bytes(self, x: Array, sample: Array) -> AnyRecipe | None:
        counts = np.bincount(sample, minlength=256)
        used = counts[counts > 0] / sample.size
        # Miller and Madow's correction: a sample shows less entropy than there is.
        entropy = float(-(used * np.log2(used)).sum()) + (used.size - 1) / (2 * np.log(2) * sample.size)
        width = int(x.max()).bit_length() if used.size <= 128 else 8
        huffman = max(1.0, entropy + 0.03) if used.size < 256 or entropy < 7.9 else 8.0
        bits = {"raw": float(width), "huffman": huffman, "rans": entropy}
        tables = {"raw": 0, "huffman": 24 + 5 * used.size, "rans": 64 + 8 * used.size}
        price = BITS_PER_NS[self.effort]
        cost = {name: x.size * (bits[name] + price * COST_NS[name]) + tables[name] for name in bits}
        best = min(cost, key=cost.__getitem__)
        if best == "raw":
            return stage_class("bitpack")() if width < 8 else None
        return stage_class(best)()  # type: ignore[no-any-return]


def _constant(x: Array) -> bool:
    words = dtypes.bits_view(x)
    if x.dtype.kind == "c":
        words = words.reshape(-1, 2)
    return len(words) == 0 or (bool((words[:64] == words[0]).all()) and bool((words == words[0]).all()))


def _sample(x: Array) -> Array:
    flat = x.reshape(-1)
    return flat[:: max(1, flat.size // SAMPLE)]


def _plane_names(x: Array, count: int | None = None) -> list[str]:
    ports = stage_class("planes").codec.streams
    return [port.name for port in ports[: count or dtypes.of(x.dtype).word.itemsize]]

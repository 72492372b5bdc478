"""Which recipe for which tensor of a checkpoint.

>>> plan = Plan.of("lossless", rules=["*.bias=raw"])
>>> plan.text("layer.bias"), plan.text("layer.weight")
('raw', 'lossless')
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from featherweight.dtypes import Array
from featherweight.encoder import encode_into
from featherweight.errors import ArgumentError
from featherweight.frame import pack_head
from featherweight.recipes import Family, family, parse, text
from featherweight.rough import rough
from featherweight.stage import AnyRecipe

__all__ = ["Plan", "step"]

_SAMPLE = 1 << 16
_FINENESS = 4  # steps of tensors of different sensitivity that an octave has


@dataclass(frozen=True)
class Plan:
    """A recipe for every tensor, and rules (pattern, recipe) for some, of which the first that matches is taken.

    `sensitivities` say, by name or pattern, what a squared error of a tensor counts for beside the others' 1: where a
    goal makes out how coarse the recipe may be, a step shrinks with the square root (equal slope of the errors so
    weighted over the bytes), and choices are weighed by it. A diagonal of the Hessian or of Fisher's information,
    averaged over a tensor, is such a number; without a goal they are refused. `finer` are the recipes that a goal found
    for them, and `chosen` those for single tensors, by name, where no rule matches. `named` is the plan's own recipe as
    it was written. Patterns are those of shells: ``*`` any characters, ``?`` one, ``[ab]`` one of these. The first that
    matches counts; of sensitivities, a tensor's whole name goes before.
    """

    recipe: AnyRecipe
    rules: tuple[tuple[str, AnyRecipe], ...] = ()
    named: str | None = field(default=None, compare=False)
    chosen: Mapping[str, AnyRecipe] = field(default_factory=dict)
    sensitivities: Mapping[str, float] = field(default_factory=dict)
    finer: Mapping[str, AnyRecipe] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        recipe: Plan | AnyRecipe | str = "lossless",
        rules: Iterable[str] = (),
        codecs: Mapping[str, Any] = {},
        sensitivities: Mapping[str, float] = {},
    ) -> Plan:
        """Make a plan from a recipe, as text or as a value, from rules ``"pattern=recipe"``, and from sensitivities.

        Raises ArgumentError for what does not parse, and for a sensitivity that is not a number above 0.
        """
        if isinstance(recipe, Plan):
            return recipe
        parsed = []
        for rule in rules:
            pattern, equals, source = rule.partition("=")
            if not (pattern and equals and source):
                raise ArgumentError(f"rule {rule!r}: expected 'pattern=recipe', such as '*.bias=raw'")
            parsed.append((pattern, parse(source, codecs)))
        for pattern, value in sensitivities.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ArgumentError(f"sensitivity {pattern}={value!r}: expected a number above 0")
        name = recipe if isinstance(recipe, str) else None
        made = parse(recipe, codecs) if isinstance(recipe, str) else recipe
        return cls(made, tuple(parsed), name, sensitivities=dict(sensitivities))

    def recipe_for(self, name: str) -> AnyRecipe:
        """Return the recipe for the tensor of this name."""
        ruled = self._ruled(name)
        if ruled is not None or name in self.chosen:
            return ruled or self.chosen[name]
        pattern = self._sensitive(name)
        return self.recipe if pattern is None else self.finer.get(pattern, self.recipe)

    def free(self, name: str) -> bool:
        """Return whether the tensor shares the plan's knob: no rule and no recipe of its own says otherwise."""
        return not self.ruled(name) and name not in self.chosen

    def ruled(self, name: str) -> bool:
        """Return whether a rule says what becomes of the tensor."""
        return self._ruled(name) is not None

    @property
    def open(self) -> bool:
        """Whether there are sensitivities that no goal has made anything of yet."""
        return any(value != 1 for value in self.sensitivities.values()) and not (self.finer or self.chosen)

    def sensitivity(self, name: str) -> float:
        """Return what a squared error of this tensor counts for."""
        pattern = self._sensitive(name)
        return 1.0 if pattern is None else self.sensitivities[pattern]

    def _ruled(self, name: str) -> AnyRecipe | None:
        return next((recipe for pattern, recipe in self.rules if fnmatchcase(name, pattern)), None)

    def _sensitive(self, name: str) -> str | None:
        if name in self.sensitivities:
            return name
        return next((pattern for pattern in self.sensitivities if fnmatchcase(name, pattern)), None)

    def family(self) -> Family:
        """Return the plan's recipe without the value of its knob; raises ArgumentError where it has none."""
        return family(self.named or text(self.recipe))

    def tuned(self, family: Family, knob: Any) -> Plan:
        """Return the plan with its recipe's knob there; a step is the finer, the more sensitive a tensor is."""
        finer = {}
        if not family.choices:
            finer = {name: step(family, knob, value) for name, value in self.sensitivities.items() if value != 1}
        return replace(self, recipe=family(knob), named=family.text(knob), finer=finer)

    def each(self, chosen: Mapping[str, AnyRecipe]) -> Plan:
        """Return the plan with recipes for single tensors."""
        return replace(self, chosen=chosen)

    def rough(self) -> Plan:
        """Return the plan for errors alone: what rules and single tensors have stays as it is."""
        return replace(self, recipe=rough(self.recipe), finer={name: rough(each) for name, each in self.finer.items()})

    def text(self, name: str) -> str:
        """Return what `recipe_for` returns as text, the plan's own recipe by the name it was given."""
        recipe = self.recipe_for(name)
        return self.named if recipe is self.recipe and self.named else text(recipe)

    @property
    def takes_base(self) -> bool:
        """Whether a base changes anything: lossless recipes look for themselves, others name it."""
        named = any("@base" in text(recipe) for recipe in (self.recipe, *(recipe for _, recipe in self.rules)))
        return self._looks or named

    @property
    def _looks(self) -> bool:
        return (self.named or "").partition("(")[0] in ("lossless", "lossless-small")

    def against(self, base: Array | None, x: Array, name: str) -> AnyRecipe:
        """Return the recipe for a tensor that may have a base: `delta` where a sample of it comes out smaller."""
        recipe = self.recipe_for(name)
        if base is None or recipe is not self.recipe or not self._looks:
            return recipe
        delta = parse("lossless-delta")
        step = max(1, x.size // _SAMPLE)
        part, old = x.reshape(-1)[: step * _SAMPLE : step], base.reshape(-1)[: step * _SAMPLE : step]
        return delta if _size(part, delta, {"base": old}) < _size(part, recipe, {}) else recipe


def step(family: Family, value: float, sensitivity: float = 1.0) -> AnyRecipe:
    """Return the recipe with this step, for a tensor that is so sensitive; short, since steps stand in messages.

    It is finer by a multiple of a quarter of an octave, so that tensors that are about as sensitive can go together.
    """
    finer = 2.0 ** (round(_FINENESS * math.log2(sensitivity) / 2) / _FINENESS)
    return family(float(f"{value / finer:.5g}"))


def _size(x: Array, recipe: AnyRecipe, refs: Mapping[str, Array]) -> int:
    sizes: list[int] = []
    coded = encode_into(lambda data: sizes.append(len(data)), x, recipe, refs=refs)
    return sum(sizes) + len(pack_head(coded.frame))

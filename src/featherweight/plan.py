"""Which recipe for which tensor of a checkpoint.

>>> plan = Plan.of("lossless", rules=["*.bias=raw"])
>>> plan.text("layer.bias"), plan.text("layer.weight")
('raw', 'lossless')
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from featherweight.dtypes import Array
from featherweight.encoder import encode_into
from featherweight.errors import ArgumentError
from featherweight.frame import pack_head
from featherweight.recipes import Family, family, parse, text
from featherweight.stage import AnyRecipe

__all__ = ["Plan"]

_SAMPLE = 1 << 16


@dataclass(frozen=True)
class Plan:
    """A recipe for every tensor, and rules (pattern, recipe) for some, of which the first that matches is taken.

    `chosen` are recipes for single tensors, by name, where no rule matches: a goal found them. `named` is the plan's
    own recipe as it was written. Patterns are those of shells: ``*`` any characters, ``?`` one, ``[ab]`` one of these.
    """

    recipe: AnyRecipe
    rules: tuple[tuple[str, AnyRecipe], ...] = ()
    named: str | None = field(default=None, compare=False)
    chosen: Mapping[str, AnyRecipe] = field(default_factory=dict)

    @classmethod
    def of(
        cls, recipe: Plan | AnyRecipe | str = "lossless", rules: Iterable[str] = (), codecs: Mapping[str, Any] = {}
    ) -> Plan:
        """Make a plan from a recipe, as text or as a value, and from rules ``"pattern=recipe"``.

        Raises ArgumentError for what does not parse.
        """
        if isinstance(recipe, Plan):
            return recipe
        parsed = []
        for rule in rules:
            pattern, equals, source = rule.partition("=")
            if not (pattern and equals and source):
                raise ArgumentError(f"rule {rule!r}: expected 'pattern=recipe', such as '*.bias=raw'")
            parsed.append((pattern, parse(source, codecs)))
        name = recipe if isinstance(recipe, str) else None
        return cls(parse(recipe, codecs) if isinstance(recipe, str) else recipe, tuple(parsed), name)

    def recipe_for(self, name: str) -> AnyRecipe:
        """Return the recipe for the tensor of this name."""
        found = next((recipe for pattern, recipe in self.rules if fnmatchcase(name, pattern)), None)
        return found or self.chosen.get(name, self.recipe)

    def family(self) -> Family:
        """Return the plan's recipe without the value of its knob; raises ArgumentError where it has none."""
        return family(self.named or text(self.recipe))

    def tuned(self, named: str, recipe: AnyRecipe) -> Plan:
        """Return the plan with another recipe of its own."""
        return replace(self, recipe=recipe, named=named)

    def each(self, chosen: Mapping[str, AnyRecipe]) -> Plan:
        """Return the plan with recipes for single tensors."""
        return replace(self, chosen=chosen)

    def text(self, name: str) -> str:
        """Return what `recipe_for` returns as text, the plan's own recipe by the name it was given."""
        recipe = self.recipe_for(name)
        return self.named if recipe is self.recipe and self.named else text(recipe)

    def against(self, base: Array | None, x: Array, name: str) -> AnyRecipe:
        """Return the recipe for a tensor that may have a base: `delta` where a sample of it comes out smaller."""
        recipe = self.recipe_for(name)
        if (
            base is None
            or recipe is not self.recipe
            or (self.named or "").partition("(")[0] not in ("lossless", "lossless-small")
        ):
            return recipe
        delta = parse("lossless-delta")
        step = max(1, x.size // _SAMPLE)
        part, old = x.reshape(-1)[: step * _SAMPLE : step], base.reshape(-1)[: step * _SAMPLE : step]
        return delta if _size(part, delta, {"base": old}) < _size(part, recipe, {}) else recipe


def _size(x: Array, recipe: AnyRecipe, refs: Mapping[str, Array]) -> int:
    sizes: list[int] = []
    coded = encode_into(lambda data: sizes.append(len(data)), x, recipe, refs=refs)
    return sum(sizes) + len(pack_head(coded.frame))

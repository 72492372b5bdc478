"""Goals: how fine a lossy recipe must be for a checkpoint to come to a size, an error or a score.

A recipe that goals can steer has a knob. If it is a step, all tensors share it: with entropy coding, that spends bytes
where they take most squared error away (equal slope), at high rates exactly and at low rates nearly; in the end a few
tensors take one that is a little off, which meets the goal without coding all of them once more. If it is one of a
few choices, every tensor gets its own, chosen by what they measured to least squared error plus λ times bytes, and it
is λ that all tensors share (Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", 1988).

What decides is always measured on the whole checkpoint: sizes are those of files, errors those of decoded weights.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from featherweight.encoder import Error, decibels
from featherweight.errors import ArgumentError
from featherweight.plan import Plan
from featherweight.recipes import Family

__all__ = ["Goal", "Outcome", "Rehearsal", "reach"]

MOST_TRIALS = 40
MOST_DECIBELS = 3000  # more than the squares of any two numbers can be apart, nearly
STEADY = ("bits", "size", "nmse", "snr")  # goals that samples tell of, and that a few tensors can meet
ROUGHLY, MENDABLY = 20, 12  # how many times as far off samples may end, and what a few tensors then mend
MENDINGS = 3
MOST_APART = 0.08  # octaves, about, between steps of one file
LEAST_MOVE = 5e-3  # octaves of a step, between which misses tell a slope
NEAR = {"size": 2e-3, "error": 5e-3, "score": 0.02}  # how close is close enough, in octaves


@dataclass(frozen=True)
class Goal:
    """What an encoded checkpoint must come to; one of these.

    `bits`: the file, in bits per weight, at most. `size`: the file, in bytes, at most. `nmse`: Σ(w - ŵ)² / Σw² over the
    lossy tensors of two dimensions or more (of all, if there are none), at most. `snr`: the same in decibels,
    -10 log10 of it, at least. `max_error`: the largest absolute error, at most. `score`: what a function makes of the
    decoded tensors (a mapping from names to arrays), to be `least` or more.
    """

    bits: float | None = None
    size: int | None = None
    nmse: float | None = None
    snr: float | None = None
    max_error: float | None = None
    score: Callable[[Mapping[str, Any]], float] | None = None
    least: float | None = None

    def __post_init__(self) -> None:
        """Check that there is one goal, and that it can be one."""
        named = [f.name for f in fields(self) if f.name != "least" and getattr(self, f.name) is not None]
        if len(named) != 1:
            raise ArgumentError(f"a goal is one of bits, size, nmse, snr, max_error and score, not {named or 'none'}")
        if (self.score is None) != (self.least is None):
            raise ArgumentError("score and least go together: Goal(score=accuracy, least=0.92)")
        value = self.least if self.score else getattr(self, named[0])
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ArgumentError(f"{named[0]}={value!r}: expected a number")
        if not self.score and value <= 0:
            raise ArgumentError(f"{named[0]}={value!r}: expected a number above 0")
        if self.snr is not None and value > MOST_DECIBELS:
            raise ArgumentError(f"snr={value!r}: expected decibels, {MOST_DECIBELS:,} at most")

    @property
    def name(self) -> str:
        """Which of the goals it is."""
        return next(f.name for f in fields(self) if getattr(self, f.name) is not None)

    @property
    def kind(self) -> str:
        """What is measured: size, error or score."""
        return {"bits": "size", "size": "size", "score": "score"}.get(self.name, "error")

    def measured(self, outcome: Outcome) -> float:
        """Return of an outcome what this goal is about."""
        found = {
            "bits": 8 * outcome.size / max(1, outcome.weights),
            "size": outcome.size,
            "nmse": outcome.error.nmse,
            "snr": decibels(outcome.error.nmse),
            "max_error": outcome.error.largest,
            "score": outcome.score,
        }[self.name]
        return math.nan if found is None else float(found)

    def just(self, outcome: Outcome) -> bool:
        """Return whether the goal is met, and no more than that; of scores that cannot be said."""
        return self.kind != "score" and -NEAR[self.kind] < self.miss(outcome) <= 0

    def miss(self, outcome: Outcome) -> float:
        """Return by how much an outcome misses the goal, in octaves where it can be: 0 or less if it is met."""
        found = self.measured(outcome)
        if self.least is not None:
            return self.least - found
        wanted = float(getattr(self, self.name))
        if self.snr is not None:
            return (wanted - found) / 10 * math.log2(10)
        return -math.inf if found == 0 else math.log2(found / wanted)


class Outcome(NamedTuple):
    """What a checkpoint came to: file bytes, weights, error, the bytes and error of each tensor, its score."""

    size: int
    weights: int
    error: Error
    tensors: Mapping[str, tuple[int, Error | None]]
    score: float | None = None
    draft: Any = None  # the file itself

    def discard(self) -> None:
        """Let go of the draft."""
        if self.draft is not None:
            self.draft.wanted = False


Rehearsal = Callable[[Plan], Outcome]
"""Encodes the checkpoint by a plan, but publishes nothing; scores it if the goal is a score."""


def reach(
    goal: Goal, plan: Plan, rehearse: Rehearsal, scale: float, sample: Rehearsal | None = None
) -> tuple[Plan, Outcome]:
    """Return the plan whose file meets the goal, no finer and no coarser than it must be, and what it comes to.

    `scale` is the root mean square of the weights. `sample` tells nearly and quickly what a plan comes to: the search
    then begins there. Raises ArgumentError for a recipe without a knob, and for a goal that is out of reach, with the
    nearest that is not.
    """
    family = plan.family()
    if family.choices:
        return _by_choice(goal, plan, family, rehearse)
    guess = _guess(goal, scale) - math.log2(family.unit)

    def plan_at(x: float) -> Plan:
        value = float(f"{2.0**x:.5g}")  # short, since steps stand in messages and recipes
        return plan.tuned(family.text(value), family(value))

    if goal.name not in STEADY:
        found = _search(goal, family, plan_at, rehearse, _Begin(guess))
        return found.plan, found.outcome
    begin = _Begin(guess, 0.02)
    if sample is not None:
        with contextlib.suppress(ArgumentError):
            begin = _search(goal, family, plan_at, sample, begin, near=ROUGHLY).near
    found = _search(goal, family, plan_at, rehearse, begin, near=MENDABLY)
    if not abs(goal.miss(found.outcome)) < MENDABLY * NEAR[goal.kind]:
        return found.plan, found.outcome  # whatever the step, it comes no nearer
    mended = found
    for _ in range(MENDINGS):
        if not goal.just(mended.outcome):
            mended = _mended(goal, family, rehearse, mended, found.place, found.near.slope or 1.0)
    if goal.just(mended.outcome):
        return mended.plan, mended.outcome
    mended.outcome.discard()
    found = _search(goal, family, plan_at, rehearse, found.near)
    return found.plan, found.outcome


class _Begin(NamedTuple):
    """Where a search begins, by how much it should move at first, and the slope of the misses, if it is known."""

    place: float
    width: float = 1.0
    slope: float | None = None


class _Found(NamedTuple):
    """A plan, what it comes to, where it lies, and where a straight line puts the border from there."""

    plan: Plan
    outcome: Outcome
    place: float
    near: _Begin


def _guess(goal: Goal, scale: float) -> float:
    """Guess the logarithm of a step: a uniform error of Δ² / 12, an entropy of log2(σ √(2πe) / Δ) of Gaussians.

    Steps near the weights' own size do less harm than that: the smallest weights lose themselves and no more.
    """
    nmse = goal.nmse if goal.snr is None else 10 ** (-goal.snr / 10)
    if nmse is not None:
        return math.log2(scale * math.sqrt(12 * nmse * (1 + math.sqrt(nmse))))
    if goal.max_error is not None:
        return math.log2(2 * goal.max_error)
    bits = goal.bits if goal.bits is not None else 4.0
    return math.log2(scale * 4.13) - min(bits, 20.0)


def _search(
    goal: Goal,
    family: Family,
    plan_at: Callable[[float], Plan],
    rehearse: Rehearsal,
    begin: _Begin,
    *,
    near: float | None = None,
    known: _Found | None = None,
    most: int = MOST_TRIALS,
) -> _Found:
    """Find where the goal is just met, on a line along which sizes fall and errors grow.

    With `near` it is enough to be so many times as far off as is near enough, met or not. Of a line of which a point is
    `known` already the nearest is returned that `most` trials have found, met or not.
    """
    slope = begin.slope or {"size": -0.3, "error": 1.0 if goal.max_error else 2.0}.get(goal.kind, 0.0)
    low, high = begin.place - 40.0, begin.place + 40.0
    inside: dict[str, tuple[float, float]] = {}  # the nearest points on either side: place and miss
    seen: list[tuple[float, float]] = []
    best: tuple[float, float, Plan, Outcome] | None = None
    nearest: tuple[float, Outcome] | None = None
    x, width, aim = begin.place, begin.width, -0.4 * NEAR[goal.kind]
    for trial in range(most + (known is not None)):
        first = trial == 0 and known is not None
        here = known.place if first and known else x
        plan, outcome = (known.plan, known.outcome) if first and known else (plan := plan_at(x), rehearse(plan))
        miss = goal.miss(outcome)
        met = miss <= 0
        finer = met if goal.kind == "size" else not met  # where the border lies
        inside["high" if finer else "low"] = here, miss
        seen.append((here, miss))
        if goal.kind == "size" and len(seen) == 1 and begin.slope is None and not family.choices:
            slope = -min(4.0, max(0.05, outcome.weights / (8 * outcome.size)))  # a bit a weight for an octave of a step
        slope = _slope(seen, slope)
        done = goal.just(outcome) or (near is not None and abs(miss) < near * NEAR[goal.kind])
        if done or ((met or known is not None) and (best is None or abs(miss) < abs(best[1]))):
            if best is not None:
                best[3].discard()
            best = here, miss, plan, outcome
        else:
            outcome.discard()
        if nearest is None or miss < nearest[0]:
            nearest = miss, outcome
        if done or _closed(inside, goal):
            break
        if first:
            continue
        if "low" in inside and "high" in inside:
            x = _between(inside, aim, halve=goal.kind == "score")
        else:
            step = (aim - miss) / slope if slope and math.isfinite(miss) else 0.0
            step = max(-8.0, min(8.0, step))
            x += (-1 if finer else 1) * max(abs(step), width / 8)
            width *= 2
        if not low < x < high:
            break
    if best is None:
        assert nearest is not None
        raise ArgumentError(_out_of_reach(goal, family, nearest[1]))
    place, miss, plan, outcome = best
    return _Found(plan, outcome, place, _Begin(place + (aim - miss) / (slope or 1.0), 0.02, slope))


def _mended(goal: Goal, family: Family, rehearse: Rehearsal, found: _Found, place: float, slope: float) -> _Found:
    """Let a few tensors take another step until a goal that is nearly met is just met: all others stay as they are.

    They are so many that their steps need not be far from the one at `place`, which would cost more than it spares:
    bytes spent anywhere at nearly the same slope are spent nearly as well.
    """
    plan, outcome = found.plan, found.outcome
    change = 2.0 ** (-0.4 * NEAR[goal.kind] - goal.miss(outcome)) - 1
    own = {
        name: (size, error.noise)
        for name, (size, error) in outcome.tensors.items()
        if error and error.noise and plan.recipe_for(name) is plan.recipe
    }
    every = sum(size for size, _ in own.values())
    wanted = abs(change / slope) * math.log2(math.e) / MOST_APART * every
    ordered, total, chosen = sorted(own, key=lambda name: own[name][0]), 0, []
    for most, names in ((1.2 * wanted, reversed(ordered)), (math.inf, ordered)):  # large ones are soon coded
        for name in names:
            if name not in chosen and total < 0.8 * wanted and total + own[name][0] < most:
                chosen.append(name)
                total += own[name][0]
    if not chosen or total > every / 2:
        return found
    noise = sum(own[name][1] for name in chosen)
    share = min(1.0, total / outcome.size if goal.kind == "size" else noise / outcome.error.noise)
    if not 0.5 < 1 + change / share < 2:
        return found

    def plan_at(x: float) -> Plan:
        recipe = family(float(f"{2.0**x:.5g}"))
        return plan.each({**plan.chosen, **dict.fromkeys(chosen, recipe)})

    begin = _Begin(place + math.log2(1 + change / share) / slope, 0.02, slope * share)
    with contextlib.suppress(ArgumentError):  # at the end of what a step can be
        return _search(goal, family, plan_at, rehearse, begin, known=found._replace(place=place), most=3)
    return found


def _slope(seen: list[tuple[float, float]], slope: float) -> float:
    """Return the slope between the two of the points that are nearest to the border, if it is a likely one."""
    if not slope or len(seen) < 2:
        return slope
    (here, miss), (there, other) = sorted(seen, key=lambda each: abs(each[1]))[:2]
    if not math.isfinite(other) or not LEAST_MOVE < abs(here - there) < 2:
        return slope
    found = (other - miss) / (there - here)
    return found if 0.25 < found / slope < 4 else slope


def _closed(inside: Mapping[str, tuple[float, float]], goal: Goal) -> bool:
    return len(inside) == 2 and inside["high"][0] - inside["low"][0] < NEAR[goal.kind] / 8


def _between(inside: Mapping[str, tuple[float, float]], aim: float, *, halve: bool) -> float:
    """Aim a little inside of where a straight line puts the border, and never too near to what is known."""
    (low, below), (high, above) = inside["low"], inside["high"]
    known = math.isfinite(below) and math.isfinite(above) and below != above
    share = (below - aim) / (below - above) if known else 0.5
    if halve or high - low > 2:
        share = 0.5
    return low + (high - low) * min(0.95, max(0.05, share))


def _by_choice(goal: Goal, plan: Plan, family: Family, rehearse: Rehearsal) -> tuple[Plan, Outcome]:
    """Measure every choice, then let λ choose for each tensor."""
    measured = []
    for choice in family.choices:
        measured.append((choice, rehearse(plan.tuned(family.text(choice), family(choice)))))
        measured[-1][1].discard()
    lossy = [
        name
        for name in measured[0][1].tensors
        if plan.recipe_for(name) is plan.recipe and any(outcome.tensors[name][1] for _, outcome in measured)
    ]
    table = {name: [(choice, *outcome.tensors[name]) for choice, outcome in measured] for name in lossy}

    def plan_at(x: float) -> Plan:
        chosen = {}
        for name, rows in table.items():
            choice = min(rows, key=lambda row: (row[2].noise if row[2] else 0.0) + 2.0**x * row[1])[0]
            chosen[name] = choice
        recipes = {choice: family(choice) for choice in set(chosen.values())}
        return plan.each({name: recipes[choice] for name, choice in chosen.items()})

    slopes = [math.log2(slope) for rows in table.values() for slope in _slopes(rows)]
    guess = sum(slopes) / len(slopes) if slopes else 0.0
    found = _search(goal, family, plan_at, rehearse, _Begin(guess))
    return found.plan, found.outcome


def _slopes(rows: list[tuple[Any, int, Error | None]]) -> Iterator[float]:
    points = sorted((size, error.noise if error else 0.0) for _, size, error in rows)
    for (small, much), (large, little) in itertools.pairwise(points):
        if large > small and much > little:
            yield (much - little) / (large - small)


def _out_of_reach(goal: Goal, family: Family, nearest: Outcome) -> str:
    value = getattr(goal, "least" if goal.score else goal.name)
    found = goal.measured(nearest)
    shown = f"{found:,.0f} bytes" if goal.name == "size" else f"{found:.4g}"
    hint = {
        "size": "what else the file holds (tensors that are kept exactly, names) is most of it",
        "error": "lossless coding has none",
        "score": "is it reached by the weights themselves?",
    }[goal.kind]
    return f"{goal.name} {value:,} is out of reach of {family.name}: the nearest is {shown}; {hint}"

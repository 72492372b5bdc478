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
import numbers
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from featherweight.errors import ArgumentError
from featherweight.losses import Error, decibels
from featherweight.plan import Plan, step
from featherweight.recipes import Family, text

__all__ = ["Goal", "Outcome", "Rehearsal", "reach"]

MOST_TRIALS = 40
MOST_DECIBELS = 3000  # more than the squares of any two numbers can be apart, nearly
STEADY = ("bits", "size", "nmse", "snr")  # goals that samples tell of, and that a few tensors can meet
ROUGHLY, MENDABLY = 40, 12  # how many times as far off samples may end, and what a few tensors then mend
MENDINGS, MENDING_TRIALS = 3, 3
FARTHEST = 40.0  # octaves that a search goes from where it begins
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
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ArgumentError(f"{named[0]}={value!r}: expected a number")
        if not self.score and float(value) <= 0:
            raise ArgumentError(f"{named[0]}={value!r}: expected a number above 0")
        if self.snr is not None and float(value) > MOST_DECIBELS:
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

    def better(self, outcome: Outcome, other: Outcome) -> bool:
        """Return whether one that meets the goal is to be taken rather than another: of sizes the larger, else not."""
        return outcome.size > other.size if self.kind == "size" else outcome.size < other.size

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
    """What a checkpoint came to: file bytes, weights, error, bytes and error of each body by its tensors, its score."""

    size: int
    weights: int
    error: Error
    bodies: Mapping[tuple[str, ...], tuple[int, Error | None]]
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

    `scale` is about how large the weights are. `sample` tells nearly and quickly what a plan comes to: the search
    then begins there. Raises ArgumentError for a recipe without a knob, and for a goal that is out of reach, with the
    nearest that is not.
    """
    family = plan.family()
    if family.choices:
        return _by_choice(goal, plan, family, rehearse)
    guess = _guess(goal, scale) - math.log2(family.unit)

    def plan_at(x: float) -> Plan:
        return plan.tuned(family, float(f"{2.0**x:.5g}"))  # short, since steps stand in messages and recipes

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


def _nmse(goal: Goal) -> float | None:
    """Return the squared error over the squares, if that is what is wanted, be it in decibels."""
    return goal.nmse if goal.snr is None else 10 ** (-goal.snr / 10)


def _guess(goal: Goal, scale: float) -> float:
    """Guess the logarithm of a step: a uniform error of Δ² / 12, an entropy of log2(σ √(2πe) / Δ) of Gaussians.

    Steps near the weights' own size do less harm than that: the smallest weights lose themselves and no more.
    """
    nmse = _nmse(goal)
    if nmse is not None:
        lost = math.sqrt(min(nmse, 1.0))
        return math.log2(scale * math.sqrt(12 * nmse) * (1 + 0.7 * lost * (1 - lost)))
    if goal.max_error is not None:
        return math.log2(2 * goal.max_error)
    bits = goal.bits if goal.bits is not None else 4.0
    return math.log2(scale * 4.13) - min(bits, 20.0)


class _Border:
    """Where a goal is just met, on a line along which sizes fall and errors grow, as measurements close in on it."""

    def __init__(self, goal: Goal, begin: _Begin) -> None:
        self.goal, self.begin, self.slope = goal, begin, begin.slope or 0.0
        self.aim, self.width = -0.4 * NEAR[goal.kind], begin.width
        self.inside: dict[str, tuple[float, float]] = {}  # the nearest points on either side: place and miss
        self.seen: list[tuple[float, float]] = []

    def add(self, place: float, miss: float) -> None:
        """Take note of what was measured at a place."""
        met = miss <= 0
        self.inside["high" if met == (self.goal.kind == "size") else "low"] = place, miss
        self.seen.append((place, miss))
        if self.slope and len(self.seen) > 1:
            self.slope = self._secant()

    def next(self) -> float | None:
        """Return where to measure next; None where it is closed in on, or out of reach."""
        place, miss = self.seen[-1]
        if len(self.inside) == 2:
            if self.inside["high"][0] - self.inside["low"][0] < NEAR[self.goal.kind] / 8:
                return None
            return self._between()
        step = (self.aim - miss) / self.slope if self.slope and math.isfinite(miss) else 0.0
        step = max(abs(max(-8.0, min(8.0, step))), self.width / 8)
        place += -step if "high" in self.inside else step
        self.width *= 2
        return place if abs(place - self.begin.place) < FARTHEST else None

    def straight(self, place: float, miss: float) -> float:
        """Return where a straight line through a point puts the border."""
        return place + (self.aim - miss) / (self.slope or 1.0)

    def _secant(self) -> float:
        """Return the slope between the two points that are nearest to the border, if it is a likely one."""
        (here, miss), (there, other) = sorted(self.seen, key=lambda each: abs(each[1]))[:2]
        if not math.isfinite(other) or not LEAST_MOVE < abs(here - there) < 2:
            return self.slope
        found = (other - miss) / (there - here)
        return found if 0.25 < found / self.slope < 4 else self.slope

    def _between(self) -> float:
        """Aim a little inside of where a straight line puts the border, and never too near to what is known."""
        (low, below), (high, above) = self.inside["low"], self.inside["high"]
        share = 0.5
        if high - low <= 2 and self.goal.kind != "score" and math.isfinite(below - above) and below != above:
            share = (below - self.aim) / (below - above)
        return low + (high - low) * min(0.95, max(0.05, share))


def _search(
    goal: Goal,
    family: Family,
    plan_at: Callable[[float], Plan],
    rehearse: Rehearsal,
    begin: _Begin,
    *,
    near: float = 0.0,
) -> _Found:
    """Find where the goal is just met; with `near` it is enough to be so many times as far off as is near enough."""
    border, x = _Border(goal, begin), begin.place
    best: tuple[float, float, Plan, Outcome] | None = None
    nearest: tuple[float, Outcome] | None = None
    for _ in range(MOST_TRIALS):
        try:
            plan = plan_at(x)
        except ArgumentError:  # at the end of what a knob can be
            if nearest is None:
                raise
            break
        outcome = rehearse(plan)
        miss = goal.miss(outcome)
        if math.isnan(miss):
            raise ArgumentError(f"{goal.name} is not a number for {plan.named or text(plan.recipe)}")
        border.slope = border.slope or _likely_slope(goal, family, outcome)
        border.add(x, miss)
        done = goal.just(outcome) or abs(miss) < near * NEAR[goal.kind]
        exact = outcome.error.noise == 0 and (miss <= 0) == (goal.kind == "size")  # no finer step would change it
        if done or (miss <= 0 and (best is None or goal.better(outcome, best[3]))):
            if best is not None:
                best[3].discard()
            best = x, miss, plan, outcome
        else:
            outcome.discard()
        if nearest is None or miss < nearest[0]:
            nearest = miss, outcome
        if done or exact or (following := border.next()) is None:
            break
        x = following
    if best is None:
        assert nearest is not None
        raise ArgumentError(_out_of_reach(goal, family, nearest[1]))
    place, miss, plan, outcome = best
    return _Found(plan, outcome, place, _Begin(border.straight(place, miss), 0.02, border.slope or None))


def _likely_slope(goal: Goal, family: Family, outcome: Outcome) -> float:
    """Return how misses likely grow along the line; 0 of scores, of which that cannot be said."""
    if goal.kind == "size":  # a bit a weight for an octave of a step
        return -0.3 if family.choices else -min(4.0, max(0.05, outcome.weights / (8 * outcome.size)))
    nmse = _nmse(goal)
    if nmse is not None:  # squares of steps, but for the weights below one, which lose themselves and no more
        return 2 - 0.5 * math.sqrt(min(nmse, 1.0))
    return 1.0 if goal.kind == "error" else 0.0


def _mended(goal: Goal, family: Family, rehearse: Rehearsal, found: _Found, place: float, slope: float) -> _Found:
    """Let a few tensors take another step until a goal that is nearly met is just met: all others stay as they are.

    They are so many that their steps need not be far from the one at `place`, which would cost more than it spares:
    bytes spent anywhere at nearly the same slope are spent nearly as well.
    """
    change = 2.0 ** (-0.4 * NEAR[goal.kind] - goal.miss(found.outcome)) - 1
    chosen = _few(found, abs(change / slope) * math.log2(math.e) / MOST_APART)
    error, bodies = found.outcome.error, found.outcome.bodies
    total = sum(bodies[names][0] for names in chosen)
    noise = sum(each.noise for names in chosen if (each := bodies[names][1]))
    share = min(1.0, total / found.outcome.size if goal.kind == "size" else noise / error.noise)
    if not share or not 0.5 < 1 + change / share < 2:
        return found
    x = place + math.log2(1 + change / share) / slope
    border = _Border(goal, _Begin(x, 0.02, slope * share))
    border.add(place, goal.miss(found.outcome))
    sensitivities = {name: found.plan.sensitivity(name) for names in chosen for name in names}
    for _ in range(MENDING_TRIALS):
        try:
            steps = {value: step(family, 2.0**x, value) for value in set(sensitivities.values())}
        except ArgumentError:  # at the end of what a step can be
            break
        recipes = {name: steps[value] for name, value in sensitivities.items()}
        plan = found.plan.each({**found.plan.chosen, **recipes})
        outcome = rehearse(plan)
        border.add(x, goal.miss(outcome))
        if goal.just(outcome) or abs(goal.miss(outcome)) < abs(goal.miss(found.outcome)):  # missed by a hair is missed
            found.outcome.discard()
            found = found._replace(plan=plan, outcome=outcome)
        else:
            outcome.discard()
        if goal.just(found.outcome) or (following := border.next()) is None:
            break
        x = following
    return found


def _few(found: _Found, share: float) -> list[tuple[str, ...]]:
    """Choose bodies that take the step of all, up to about a share of their bytes; none if half were not enough."""
    own = {
        names: size
        for names, (size, error) in found.outcome.bodies.items()
        if error and error.noise and all(map(found.plan.free, names))
    }
    every = sum(own.values())
    wanted, total, chosen = share * every, 0, list[tuple[str, ...]]()
    ordered = sorted(own, key=lambda names: own[names])
    for most, bodies in ((1.2 * wanted, reversed(ordered)), (math.inf, ordered)):  # large ones are soon coded
        for names in bodies:
            if names not in chosen and total < 0.8 * wanted and total + own[names] < most:
                chosen.append(names)
                total += own[names]
    return chosen if total <= every / 2 else []


def _by_choice(goal: Goal, plan: Plan, family: Family, rehearse: Rehearsal) -> tuple[Plan, Outcome]:
    """Measure every choice, then let λ choose for each tensor."""
    measured = []
    for choice in family.choices:
        measured.append((choice, rehearse(plan.tuned(family, choice))))
        measured[-1][1].discard()
    lossy = dict.fromkeys(
        names
        for _, outcome in measured
        for names, (_, error) in outcome.bodies.items()
        if error and all(map(plan.free, names))
    )  # which lie alone: what has choices fits something to each tensor
    table = {
        names: [(choice, *_weighed(outcome.bodies[names], plan.sensitivity(names[0]))) for choice, outcome in measured]
        for names in lossy
    }

    def plan_at(x: float) -> Plan:
        chosen = dict[str, Any]()
        for names, rows in table.items():
            choice = min(rows, key=lambda row: row[2] + 2.0**x * row[1])[0]
            chosen |= dict.fromkeys(names, choice)
        recipes = {choice: family(choice) for choice in set(chosen.values())}
        return plan.each({name: recipes[choice] for name, choice in chosen.items()})

    slopes = [math.log2(slope) for rows in table.values() for slope in _slopes(rows)]
    guess = sum(slopes) / len(slopes) if slopes else 0.0
    found = _search(goal, family, plan_at, rehearse, _Begin(guess))
    return found.plan, found.outcome


def _weighed(measured: tuple[int, Error | None], sensitivity: float) -> tuple[int, float]:
    """Return bytes, and the squared error as it counts."""
    size, error = measured
    return size, sensitivity * error.noise if error else 0.0


def _slopes(rows: list[tuple[Any, int, float]]) -> Iterator[float]:
    points = sorted((size, noise) for _, size, noise in rows)
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

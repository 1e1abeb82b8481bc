"""A rule's gradients at points close to one point: in random directions, and in those that break ties by a rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TypeAlias

import numpy as np

from oracles.constants import CHOICE_SAMPLES, KINK_FAR, KINK_SAMPLES, KINK_STEP, LONGEST_RAMP, RAMP_ENTRIES
from oracles.rule import Array, Output, Primals, Rule, is_differentiable
from oracles.time_budget import require_time

SMALLEST_NORMAL = 2.0**-1022  # of float64
OFF_TIES, LONGER = 2.0**-6, 2.0**10  # the way off a tie, as a share of a step, and the length of that
# The lowest and the highest value of each entry among gradients, by the primal's name; flat arrays.
Extremes: TypeAlias = Mapping[str, tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """A rule's gradients at points close to one point, evaluated once for all arrays that are judged there.

    Attributes:
        rule: computes the gradients.
        primals, delta: the point, in float64.
        least_step: the smallest step that counts: a primal closer to a kink may be flushed onto it.
        length: the length of all steps, in units of `KINK_STEP`.
        shift: how far the point is moved first.
    """

    rule: Rule
    primals: Primals
    delta: Output
    least_step: float = SMALLEST_NORMAL
    length: float = 1.0
    shift: Primals = field(default_factory=dict)

    @cached_property
    def sizes(self) -> dict[str, float]:
        """The size of a step for each primal that has a cotangent."""
        floating = {n: a for n, a in self.primals.items() if is_differentiable(a) and a.size > 0}
        return {n: self.length * _step(a, self.least_step) for n, a in floating.items()}

    def off_ties(self) -> Neighbourhood:
        """Return the gradients near another point, which is off every tie by far less than a step.

        Steps are longer: else a step would by chance be as many units in the last place as the way off a tie.
        """
        rng, wider = np.random.default_rng(1), replace(self, length=LONGER)
        shift = {n: OFF_TIES * h * rng.standard_normal(self.primals[n].shape) for n, h in wider.sizes.items()}
        return replace(wider, shift=shift)

    @cached_property
    def near(self) -> Extremes:
        """Between what the gradients nearby lie, after steps in random directions.

        Raises:
            Exception: whatever the rule raises where it has no value.
        """
        return self.extremes(self.random_steps())

    @cached_property
    def far(self) -> Extremes:
        """The same at `KINK_FAR` times the distance."""
        return self.extremes(self.random_steps(), KINK_FAR)

    def extremes(self, steps: Iterable[Primals], factor: float = 1.0) -> Extremes:
        """Return the lowest and the highest gradients after steps, each ``factor`` times as long."""
        lowest: dict[str, Array] = {}
        highest: dict[str, Array] = {}
        # All gradients at once would take as many times the memory of the arrays as there are steps.
        for step in steps:
            gradients = self.gradients(step, factor)
            lowest = {n: np.minimum(lowest[n], g) for n, g in gradients.items()} if lowest else gradients
            highest = {n: np.maximum(highest[n], g) for n, g in gradients.items()} if highest else gradients
        return {n: (low, highest[n]) for n, low in lowest.items()}

    def random_steps(self) -> Iterator[Primals]:
        """Yield steps in random directions, the same ones each time."""
        rng = np.random.default_rng(0)  # a verdict is a function of the input
        for _ in range(KINK_SAMPLES):
            yield {n: h * rng.standard_normal(self.primals[n].shape) for n, h in self.sizes.items()}

    def directed_steps(self, name: str, choices: Sequence[Array]) -> Iterator[Primals]:
        """Yield steps that break the ties of one primal by a rule, and those of the others at random.

        A rule is the order of the entries by rows or by columns, from either end, or a choice: the entries of a
        cotangent that are not 0 grow and the others fall, or the other way round.

        Args:
            name: the primal.
            choices: cotangents of it.
        """
        rng, shape = np.random.default_rng(0), self.primals[name].shape
        ramp = np.linspace(1.0, -1.0, prod(shape)) * min(max(1.0, prod(shape) / RAMP_ENTRIES), LONGEST_RAMP)
        rules = [ramp.reshape(shape), ramp.reshape(shape, order="F")]
        for choice in (c.reshape(shape) for c in choices):
            grows = np.where(choice == 0, -1.0, 1.0)
            rules += [choice / (np.abs(choice).max() or 1.0)]
            rules += [grows * np.abs(rng.standard_normal(shape)) for _ in range(CHOICE_SAMPLES)]
        for rule in rules:
            for size in (self.sizes[name], -self.sizes[name]):
                others = {n: h * rng.standard_normal(self.primals[n].shape) for n, h in self.sizes.items()}
                yield {**others, name: size * rule}

    def moved_alone(self, name: str, entry: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the gradients after one entry of a primal grows, and after it falls."""
        step = np.zeros(self.primals[name].shape)
        step.flat[entry] = self.sizes[name]
        return self.gradients({name: step}), self.gradients({name: -step})

    def gradients(self, step: Primals, factor: float = 1.0) -> dict[str, Array]:
        """Return the cotangents a step away, flat and in float64; without those of a subject that are no such array."""
        require_time()
        shifted = {n: a + self.shift[n] if n in self.shift else a for n, a in self.primals.items()}
        moved = {n: a + factor * step[n] if n in step else a for n, a in shifted.items()}
        cotangents = self.rule(**moved)[1](self.delta)
        arrays = {n: g for n, g in cotangents.items() if n in self.sizes and isinstance(g, np.ndarray)}
        return {
            n: np.asarray(g, np.float64).ravel()
            for n, g in arrays.items()
            if is_differentiable(g) and g.shape == self.primals[n].shape
        }


def wider(one: Extremes, other: Extremes) -> Extremes:
    """Return the extremes of two sets of gradients together."""
    return {n: (np.minimum(low, other[n][0]), np.maximum(high, other[n][1])) for n, (low, high) in one.items()}


def spread(extremes: Extremes, name: str) -> Array:
    """Return by how much each entry of a cotangent changes among gradients."""
    lowest, highest = extremes[name]
    return highest - lowest


def _step(array: Array, least_step: float) -> float:
    """Return the size of a step: relative to the largest entry, and at least twice the least step."""
    size = float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))
    return max(KINK_STEP * (size or 1.0), 2 * least_step)

"""A rule's gradients at points close to one point: in random directions, and in those that break ties by a rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import TypeAlias, TypeVar

import numpy as np

from oracles.constants import CHOICE_SAMPLES, KINK_FAR, KINK_SAMPLES, KINK_STEP, LONGEST_RAMP, RAMP_ENTRIES
from oracles.rule import Array, Output, Primals, ReferenceFailed, Rule, is_differentiable
from oracles.time_budget import require_time
from oracles.user_code import Raised, attempt, part_of_judge

T = TypeVar("T")
SMALLEST_NORMAL = 2.0**-1022  # of float64
OFF_TIES, LONGER = 2.0**-6, 2.0**10  # the way off a tie, as a share of a step, and the length of that
# The lowest and the highest value of each entry among gradients, by the primal's name; flat arrays.
Extremes: TypeAlias = Mapping[str, tuple[Array, Array]]


class NoGradientNearby(Exception):
    """A rule has no gradient of an array at a point nearby: it raises there, or returns no such array."""


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
            NoGradientNearby: where the rule has no value.
        """
        return self.extremes(self.random_steps())

    @cached_property
    def far(self) -> Extremes:
        """The same at `KINK_FAR` times the distance."""
        return self.extremes(self.random_steps(), KINK_FAR)

    def extremes(self, steps: Iterable[Primals], factor: float = 1.0) -> Extremes:
        """Return the lowest and the highest gradients after steps, each ``factor`` times as long."""
        found: Extremes | None = None
        # All gradients at once would take as many times the memory of the arrays as there are steps.
        for step in steps:
            gradients = self.gradients(step, factor)
            own = {n: (g, g) for n, g in gradients.items()}
            found = own if found is None else wider(found, own)
        return found or {}

    def random_steps(self) -> Iterator[Primals]:
        """Yield steps in random directions, the same ones each time."""
        rng = np.random.default_rng(0)  # a verdict is a function of the input
        for _ in range(KINK_SAMPLES):
            yield {n: h * rng.standard_normal(self.primals[n].shape) for n, h in self.sizes.items()}

    def directed_steps(self, name: str, choices: Sequence[Array]) -> Iterator[Primals]:
        """Yield steps that break the ties of one primal by a rule, and those of the others at random.

        A rule is the order of the entries by rows or by columns, from either end, or a choice: the entries of a
        cotangent that are not 0 grow and the others fall, or the other way round, or they stay amid the others. At last
        the primal is moved by a choice alone: the norm of several primals has its own gradient along each.

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
            # In the middle of the others, as a median is.
            rules += [np.where(choice == 0, rng.permutation(np.linspace(1.0, -1.0, prod(shape))).reshape(shape), 0.0)]
        for rule in rules:
            for size in (self.sizes[name], -self.sizes[name]):
                others = {n: h * rng.standard_normal(self.primals[n].shape) for n, h in self.sizes.items()}
                yield {**others, name: size * rule}
        for choice in (c.reshape(shape) for c in choices if np.any(c)):
            for size in (self.sizes[name], -self.sizes[name]):
                yield {name: size * choice / np.abs(choice).max()}

    def moved_alone(self, name: str, entry: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the gradients after one entry of a primal grows, and after it falls."""
        step = np.zeros(self.primals[name].shape)
        step.flat[entry] = self.sizes[name]
        return self.gradients({name: step}), self.gradients({name: -step})

    def moved_alone_nearby(self, name: str, entry: int) -> tuple[dict[str, Array], dict[str, Array], dict[str, Array]]:
        """Return the gradients at a point nearby, and after one entry of a primal grows and falls there.

        These steps are longer than most in random directions, so that they cross the kink.
        """
        start, step = next(self.random_steps()), np.zeros(self.primals[name].shape)
        step.flat[entry] = 4.0 * self.sizes[name]
        ahead, behind = {**start, name: start[name] + step}, {**start, name: start[name] - step}
        return self.gradients(start), self.gradients(ahead), self.gradients(behind)

    def gradients(self, step: Primals, factor: float = 1.0) -> dict[str, Array]:
        """Return the cotangents a step away, flat and in float64; without those of a subject that are no such array.

        Raises:
            NoGradientNearby: where the rule has no value.
        """
        require_time()
        # NumPy returns a number, and no array, where arrays of shape () are added.
        shifted = {n: np.asarray(a + self.shift[n]) if n in self.shift else a for n, a in self.primals.items()}
        moved = {n: np.asarray(a + factor * step[n]) if n in step else a for n, a in shifted.items()}
        cotangents = attempt(lambda: self.rule(**moved)[1](self.delta), reraise=(ReferenceFailed,))
        if isinstance(cotangents, Raised):
            if part_of_judge(cotangents.error):
                raise cotangents.error
            raise NoGradientNearby from cotangents.error
        arrays = {n: np.asarray(g) for n, g in cotangents.items() if isinstance(g, np.ndarray | np.generic)}
        return {
            n: g.astype(np.float64).ravel()
            for n, g in arrays.items()
            if n in self.sizes and is_differentiable(g) and g.shape == self.primals[n].shape
        }


def of_array(gradients: Mapping[str, T], name: str) -> T:
    """Return what belongs to one primal.

    Raises:
        NoGradientNearby: if the rule returned no such gradient.
    """
    if name not in gradients:
        raise NoGradientNearby(name)
    return gradients[name]


def wider(one: Extremes, other: Extremes) -> Extremes:
    """Return the extremes of two sets of gradients together."""
    both = {n: (one[n], other[n]) for n in one if n in other}
    return {n: (np.minimum(a[0], b[0]), np.maximum(a[1], b[1])) for n, (a, b) in both.items()}


def spread(extremes: Extremes, name: str) -> Array:
    """Return by how much each entry of a cotangent changes among gradients."""
    lowest, highest = of_array(extremes, name)
    return highest - lowest


def _step(array: Array, least_step: float) -> float:
    """Return the size of a step: relative to the largest entry, and at least twice the least step."""
    size = float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))
    return max(KINK_STEP * (size or 1.0), 2 * least_step)

"""Test for a subgradient: at a point without a derivative, several gradients are right.

Clarke's generalized gradient is the convex hull of the limits of gradients nearby. So the reference is evaluated at
many points close by. Where the gradients there equal the one at the point, there is no kink. Where they jump, the
subject's cotangent must lie in their convex hull. Kinks of independent entries are independent, so the hull is taken
over groups of entries that one input moves together: at each of two zeros of ReLU any slope is right, but at a tied
maximum only weights that sum to one.

Backpropagation chooses a subgradient of each entry of the output and adds them up. Such a sum need not be a limit of
gradients of the whole: two overlapping windows of a pooling may break the same tie in two ways.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import TypeAlias

import numpy as np

from oracles.constants import (
    COUPLED_INPUTS,
    HULL_SLACK,
    KINK_INPUTS,
    KINK_JUMP_SHARE,
    KINK_OUTPUTS,
    KINK_STEP,
    TIE_SAMPLES,
)
from oracles.decision.hull import in_hull
from oracles.decision.neighbourhood import Extremes, Neighbourhood, of_array, spread, wider
from oracles.rule import Array, Output, Primals, Rule, as_tuple, is_differentiable, map_delta

CotangentFor: TypeAlias = Callable[[Output], Array]  # of one primal, for a cotangent of the output


@dataclass(frozen=True, eq=False)
class Candidate:
    """A cotangent that may be a subgradient.

    Attributes:
        name: the primal.
        actual: the cotangent, in float64.
        expected: an oracle's cotangent, in float64.
        tolerance: how far rounding may move each entry.
        neighbourhood: the gradients nearby.
        subject: returns the subject's cotangent of this primal for any cotangent of the output.
    """

    name: str
    actual: Array
    expected: Array
    tolerance: Array
    neighbourhood: Neighbourhood
    subject: CotangentFor

    @cached_property
    def off(self) -> Array:
        """The entries that differ from the oracle's; flat, as booleans."""
        return np.asarray(np.abs(self.actual - self.expected) > self.tolerance).ravel()

    @cached_property
    def smooth_change(self) -> Array:
        """Up to where gradients nearby differ by rounding, or as those of a smooth function do."""
        # Two gradients differ by rounding where each is off by its tolerance.
        far = spread(self.neighbourhood.far, self.name) * KINK_JUMP_SHARE
        return np.asarray(np.maximum(2 * self.tolerance.ravel(), far))

    def jumps(self, near: Extremes) -> Array:
        """Return the entries that jump among gradients nearby; flat, as booleans."""
        return np.asarray(spread(near, self.name) > self.smooth_change)

    def directed_steps(self) -> Iterator[Primals]:
        """Yield steps that break ties as a rule, the subject or the oracle does."""
        return self.neighbourhood.directed_steps(self.name, (self.actual, self.expected, self.order))

    @cached_property
    def order(self) -> Array:
        """The subject's cotangent for a ramp: where a function permutes, as a sort does, how it breaks ties."""
        ramp = map_delta(lambda d: np.linspace(-1.0, 1.0, d.size).reshape(d.shape), self.neighbourhood.delta)
        return self.subject(ramp)

    def jumps_alone(self, entry: int) -> bool:
        """Return whether an entry jumps when it alone is moved."""
        above, below = (of_array(g, self.name) for g in self.neighbourhood.moved_alone(self.name, entry))
        return bool(np.abs(above - below)[entry] > self.smooth_change[entry])


def is_subgradient(candidate: Candidate) -> bool | None:
    """Return whether a cotangent is a subgradient; ``None`` if no kink explains where it differs.

    Random directions show most kinks. Of a thousand tied entries they show few maxima, so the directions in which the
    subject and the oracle break ties are tried as well, and then each entry alone.
    """
    near, off = candidate.neighbourhood.near, candidate.off
    if not np.any(candidate.jumps(near)):
        return None
    if np.any(off & ~candidate.jumps(near)):
        near = wider(near, candidate.neighbourhood.extremes(candidate.directed_steps()))
    jumps = candidate.jumps(near)
    if not np.any(jumps & off):
        return None
    unseen = np.flatnonzero(off & ~jumps).tolist()
    # An error where the gradient is smooth is no choice of a subgradient.
    if len(unseen) > KINK_INPUTS or not all(map(candidate.jumps_alone, unseen)):
        return False
    return _lie_in_hull([candidate], [jumps | off], near) or _is_sum_of_subgradients([candidate], _is_subgradient_alone)


def _is_subgradient_alone(candidates: Sequence[Candidate]) -> bool:
    return bool(is_subgradient(candidates[0]))


def are_subgradients_together(candidates: Sequence[Candidate]) -> bool:
    """Return whether subgradients of several primals are one of all of them: at a tie of a and b, weights sum to one.

    Of many entries that is not asked: too many gradients would be needed.
    """
    entries = _jumping_entries(candidates)
    outputs = sum(np.count_nonzero(d) for d in as_tuple(candidates[0].neighbourhood.delta))
    if sum(map(np.count_nonzero, entries)) > KINK_INPUTS or outputs > KINK_OUTPUTS:
        return True
    return _lie_in_hull_together(candidates) or _is_sum_of_subgradients(candidates, _lie_in_hull_together)


def _lie_in_hull_together(candidates: Sequence[Candidate]) -> bool:
    return _lie_in_hull(candidates, _jumping_entries(candidates), candidates[0].neighbourhood.near)


def _jumping_entries(candidates: Sequence[Candidate]) -> list[Array]:
    near = candidates[0].neighbourhood.near
    return [c.jumps(near) for c in candidates]


def _lie_in_hull(candidates: Sequence[Candidate], entries: Sequence[Array], near: Extremes) -> bool:
    """Return whether some entries of one cotangent or several lie in the hull of the gradients nearby."""
    neighbourhood = candidates[0].neighbourhood

    def joined(arrays: Iterable[Array]) -> Array:
        return np.concatenate([np.ravel(a)[chosen] for a, chosen in zip(arrays, entries, strict=True)])

    def of(gradients: Mapping[str, Array]) -> Array:
        return joined(of_array(gradients, c.name) for c in candidates)

    steps = chain(neighbourhood.random_steps(), *(c.directed_steps() for c in candidates), _along(candidates))
    corners = np.array([of(neighbourhood.gradients(step)) for step in steps])
    actual, tolerance = joined(c.actual for c in candidates), joined(c.tolerance for c in candidates)
    if len(candidates) == 1 and not _has_their_sum(actual, corners, _slack(tolerance, corners)):
        return False
    inputs = _moving_inputs(candidates, entries, near)
    moved = [tuple(map(of, neighbourhood.moved_alone(n, k))) for n, k in inputs]
    # At the kink itself the entries of a norm do not move together: each input alone moves its own.
    nearby = inputs if len(inputs) <= COUPLED_INPUTS else []
    moved += [tuple(map(of, neighbourhood.moved_alone_nearby(n, k))) for n, k in nearby]
    smooth_change = joined(c.smooth_change for c in candidates)
    together = [np.ptp(gradients, axis=0) > smooth_change for gradients in moved]
    corners = np.array([*corners, *chain.from_iterable(moved)])
    slack = _slack(tolerance, corners)
    return all(in_hull(actual[g], corners[:, g], slack[g]) for g in _groups(together, len(actual)))


def _along(candidates: Sequence[Candidate]) -> Iterator[Primals]:
    """Yield steps along the cotangents of all primals together: a norm has its own gradient there."""
    largest = max(float(np.abs(c.actual).max()) for c in candidates)
    size = max(c.neighbourhood.sizes[c.name] for c in candidates)
    for step in (size, -size) if largest else ():
        yield {c.name: step * (c.actual / largest) for c in candidates}


def _slack(tolerance: Array, corners: Array) -> Array:
    return np.asarray(2 * tolerance + np.ptp(corners, axis=0) * HULL_SLACK)


def _has_their_sum(actual: Array, corners: Array, slack: Array) -> bool:
    """Return whether the entries have the sum that all gradients nearby have, if there is one: the weights of a tie."""
    sums = np.sum(corners, axis=1)
    return bool(np.ptp(sums) > np.sum(slack) or np.abs(np.sum(actual) - np.median(sums)) <= np.sum(slack))


def _moving_inputs(candidates: Sequence[Candidate], entries: Sequence[Array], near: Extremes) -> list[tuple[str, int]]:
    """Return all inputs that may move the entries, as names and flat indices; none if they are too many.

    An input that moves another entry's derivative across a kink has a derivative that jumps too.
    """
    neighbourhood = candidates[0].neighbourhood
    moving = {n: spread(near, n) > spread(neighbourhood.far, n) * KINK_JUMP_SHARE for n in near}
    moving |= {c.name: chosen for c, chosen in zip(candidates, entries, strict=True)}
    inputs = [(n, k) for n, chosen in moving.items() for k in np.flatnonzero(chosen).tolist()]
    return inputs if len(inputs) <= KINK_INPUTS else []


def _groups(together: Iterable[Array], count: int) -> list[Array]:
    """Return the indices of ``count`` entries in groups: those that jump together belong to one group."""
    label = np.arange(count)
    for entries in together:
        if np.count_nonzero(entries) > 1:
            label[np.isin(label, label[entries])] = label[entries].min()
    return [np.flatnonzero(label == group) for group in np.unique(label)]


def _is_sum_of_subgradients(
    candidates: Sequence[Candidate], are_subgradients: Callable[[Sequence[Candidate]], bool]
) -> bool:
    """Return whether cotangents are the sum of the subgradients of all entries of the output, times their deltas."""
    neighbourhood = candidates[0].neighbourhood
    parts = list(_parts(neighbourhood.delta))
    if not 1 < len(parts) <= KINK_OUTPUTS:
        return False
    totals = {c.name: np.zeros_like(c.tolerance) for c in candidates}
    for delta in parts:
        here = replace(neighbourhood, delta=delta)
        gradients, own = here.gradients({}), []
        for c in candidates:
            actual, expected = c.subject(delta), of_array(gradients, c.name).reshape(c.tolerance.shape)
            own.append(replace(c, actual=actual, expected=expected, neighbourhood=here))
            totals[c.name] += actual
        if any(np.any(part.off) for part in own) and not are_subgradients(own):
            return False
    return all(bool(np.all(np.abs(totals[c.name] - c.actual) <= 2 * c.tolerance)) for c in candidates)


def _parts(delta: Output) -> Iterator[Output]:
    """Yield a cotangent of the output with one entry of it alone, for each that is not 0."""
    outputs = as_tuple(delta)
    for k, output in enumerate(outputs):
        for entry in np.flatnonzero(output):
            part = tuple(np.zeros_like(d) for d in outputs)
            part[k].flat[entry] = output.flat[entry]
            yield part if isinstance(delta, tuple) else part[0]


def stays_tied(name: str, entries: Array, rule: Rule, primals: Primals, delta: Output, tolerance: Array) -> bool:
    """Return whether gradients at some entries stay where equal numbers move alike: the kink is a tie of the inputs.

    Equal inputs are equal for everybody, however they round. A tie that rounding makes, as a sum that cancels to 0, is
    another one in another order of summation, and comes apart here.

    Args:
        name: the primal whose cotangent is judged.
        entries: its entries, as booleans.
        rule: computes the gradients.
        primals, delta: the point, in float64.
        tolerance: how far rounding may move each entry.
    """

    def gradient(steps: Primals) -> Array:
        nearby = {n: a * (1 + steps[n]) if n in steps else a for n, a in primals.items()}
        return np.asarray(rule(**nearby)[1](delta)[name], np.float64)

    rng, here = np.random.default_rng(0), gradient({})
    for _ in range(TIE_SAMPLES):
        # The sign is a function of the number's bits: the highest bit of its product with a random odd number.
        factor = np.uint64(2 * int(rng.integers(2**62)) + 1)
        bits = {n: np.ascontiguousarray(a).view(np.uint64) for n, a in primals.items() if is_differentiable(a)}
        steps = {n: KINK_STEP * (1.0 - 2.0 * ((b * factor) >> np.uint64(63))).reshape(b.shape) for n, b in bits.items()}
        moved = np.abs(gradient(steps) - here)
        # The gradient may also change smoothly, by about the step.
        if np.any((moved > 2 * tolerance + HULL_SLACK * np.abs(here).max(initial=0.0))[entries]):
            return False
    return True

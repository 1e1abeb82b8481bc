"""Judge the gradient of a large point without a reference: some entries one by one, all of them along directions.

Finite differences of every entry take some twenty evaluations each. Along a direction v of random signs, one such
difference is ⟨Jᵀδ, v⟩, which all entries of the subject's cotangent g must give: ⟨g, v⟩. Let e be the error of g. By
the inequality of Paley and Zygmund, |⟨e, v⟩| is at least ‖e‖/4 with a probability of (1 − 1/16)²/3 = 0.29. So k
directions miss an error of at least four times what they resolve with a probability of 0.71^k at most.

Where a direction shows an error, halves of its entries are tried, until one entry is left.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from oracles.constants import CONFIDENCE, DIRECTIONS
from oracles.finite_differences import ROUNDOFF, directional_derivative
from oracles.notes import note
from oracles.rule import Array, Output, Primals, Rule, as_tuple
from oracles.time_budget import is_out_of_time


@dataclass(frozen=True, eq=False)
class Directions:
    """A cotangent of a subject, and what is known of it along directions.

    Attributes:
        rule: the subject, whose primal is differentiated.
        primals, delta: the point, in float64.
        name: the primal whose cotangent is judged.
        actual: the cotangent, in float64.
        tolerance: how far rounding may move each entry.
    """

    rule: Rule
    primals: Primals
    delta: Output
    name: str
    actual: Array
    tolerance: Array

    def suspicious_entry(self) -> int | None:
        """Return an entry, as a flat index, that is not finite, or behind the first direction that is off."""
        seed = zlib.crc32(b"".join(np.ascontiguousarray(d).tobytes() for d in as_tuple(self.delta)))
        rng = np.random.default_rng(seed)
        finite = np.isfinite(self.primals[self.name])
        not_finite = np.flatnonzero(finite & ~np.isfinite(self.actual))
        if len(not_finite):
            return int(not_finite[0])
        movable = np.flatnonzero(finite)
        for _ in range(DIRECTIONS):
            if is_out_of_time():
                note(f"{self.name}: fewer directions than {DIRECTIONS}, out of time")
                break
            signs = rng.choice((-1.0, 1.0), size=self.actual.size)
            if movable.size and self._is_off(movable, signs):
                return self._located(movable, signs)
        return None

    def _located(self, entries: Array, signs: Array) -> int:
        """Return one of the entries, from a half that is off alone; the first one of what cannot be halved."""
        while len(entries) > 1 and not is_out_of_time():
            off = next((half for half in np.array_split(entries, 2) if self._is_off(half, signs)), None)
            if off is None:
                break
            entries = off
        return int(entries[0])

    def _is_off(self, entries: Array, signs: Array) -> bool:
        """Return whether ⟨g, v⟩ is off for the v that has the signs at some entries, by more than rounding."""
        direction = np.zeros(self.actual.size)
        direction[entries] = signs[entries]
        along = {self.name: direction.reshape(self.actual.shape)}
        slope, radius = directional_derivative(self.rule, self.primals, self.delta, along, narrow=True)
        terms = self.actual.ravel()[entries] * signs[entries]
        summed = CONFIDENCE * ROUNDOFF * np.sqrt(len(entries)) * np.sum(np.abs(terms))
        bound = radius + np.sum(self.tolerance.ravel()[entries]) + summed
        return bool(np.abs(np.sum(terms) - slope) > bound)

"""Compare a subject's answer with a candidate: what the answer would be if it had one certain defect.

A candidate must agree in every known entry within its tolerance: at the refused call, for another delta, and at other
primals. Entries whose tolerance or value is unknown (infinite, NaN) show nothing, and at least one entry must be known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from oracles.constants import ELEMENTARY_ROUNDINGS, LONE_ENTRY_FACTOR, ROUGH_AGREEMENT
from oracles.diagnosis.experiments import Expectation, Relation, Symptoms, Trial, depends_on_error, result_or_none
from oracles.numerics import unit_roundoff
from oracles.rule import Array, Primals, is_differentiable

Candidate: TypeAlias = Callable[[Trial], Expectation]


def first_confirmed(
    symptoms: Symptoms, candidates: Iterable[tuple[str, Candidate]], *, shuffle: bool = True
) -> str | None:
    """Return the sentence of the first candidate that is the subject's answer in all trials."""
    if not symptoms.has_expected_shape or not np.any(symptoms.refusal.wrong):
        return None
    for sentence, candidate in candidates:
        if is_confirmed(symptoms, partial(is_answer, candidate), shuffle=shuffle):
            return sentence
    return None


def is_confirmed(symptoms: Symptoms, relation: Relation, *, shuffle: bool = True) -> bool:
    """Return whether a relation holds at the refused call, for another delta, and at other primals.

    A relation that the tolerance alone explains confirms nothing.

    Args:
        symptoms: the refused array.
        relation: what must hold.
        shuffle: whether the other primals may have their entries in another order. If not, they are scaled: symmetric
            matrices stay symmetric.
    """
    return in_all_trials(symptoms, relation, shuffle=shuffle) and depends_on_error(relation, symptoms.refusal)


def in_all_trials(symptoms: Symptoms, relation: Relation, *, shuffle: bool = True) -> bool:
    """Return whether a relation holds in the trials of `is_confirmed`: one that does not depend on the error's size."""
    return all(trial is not None and _holds(relation, trial) for trial in _trials(symptoms, shuffle))


def _trials(symptoms: Symptoms, shuffle: bool) -> Iterator[Trial | None]:
    # The refused call costs nothing more, and excludes most candidates at once.
    yield symptoms.refusal
    if symptoms.is_whole:
        return
    if not symptoms.is_output:
        yield symptoms.other_delta
    shuffled = symptoms.shuffled_primals if shuffle else None
    # Outside the domain of the function there is nothing to compare: a shuffled matrix is not positive definite. Nor is
    # there where all entries are zero: every unit of a ReLU network may be dead.
    yield shuffled if shuffled is not None and _shows_something(shuffled) else scaled_primals(symptoms)


def scaled_primals(symptoms: Symptoms) -> Trial | None:
    """Call both rules at smaller primals, which are in the same domain, with one more random delta."""
    primals = {n: a * LONE_ENTRY_FACTOR if is_differentiable(a) else a for n, a in symptoms.primals.items()}
    return symptoms.evaluate_at(primals, symptoms.draw_delta(3))


def _shows_something(trial: Trial) -> bool:
    defined = np.shape(trial.actual) == trial.expected.shape and bool(np.all(np.isfinite(trial.expected)))
    return defined and bool(np.all(np.isfinite(trial.actual)) and np.any(trial.informative))


def _holds(relation: Relation, trial: Trial) -> bool:
    return bool(result_or_none(lambda: relation(trial)))


def is_answer(candidate: Candidate, trial: Trial) -> bool:
    """Return whether the subject's answer is a candidate, in every known entry within the tolerance."""
    if not np.any(trial.informative):
        return False
    value, tolerance = candidate(trial)
    if not is_near(trial.actual, value):
        return False
    bound = np.maximum(tolerance(), np.where(np.isfinite(trial.tolerance), trial.tolerance, 0))
    # A candidate without a value where the subject is wrong explains nothing there.
    explained = np.isfinite(value) & np.isfinite(bound) | ~np.isfinite(trial.actual)
    return bool(np.all(explained[trial.wrong])) and agrees_where_known(trial.actual, value, bound)


def is_near(actual: Array, expected: Array) -> bool:
    """Return whether two arrays of one shape are so close that their tolerance is worth computing; NaN is ignored."""
    if np.shape(actual) != np.shape(expected):
        return False
    known = np.isfinite(actual) & np.isfinite(expected)
    distance = np.linalg.norm((actual - expected)[known])
    return bool(np.any(actual[known]) and distance <= ROUGH_AGREEMENT * np.linalg.norm(actual[known]))


def agrees_where_known(actual: Array, expected: Array, tolerance: Array) -> bool:
    """Return whether two arrays agree in all entries whose expected value and tolerance are finite, of one at least."""
    if np.shape(actual) != np.shape(expected):
        return False
    known = np.isfinite(expected) & np.isfinite(tolerance)
    return bool(np.any(known) and np.all((np.abs(actual - expected) <= tolerance)[known]))


def at_primals(symptoms: Symptoms, change: Callable[[Primals], Primals], trial: Trial) -> Expectation:
    """Return the oracle's answer at changed primals, for the same delta; NaN if they leave the domain of the change.

    NaN in a primal switches masks off: what a reference returns then is no value of its function.
    """
    changed = change(trial.primals)
    if not all(np.all(np.isfinite(changed[n])) for n, a in trial.primals.items() if np.all(np.isfinite(a))):
        return Expectation(np.full_like(trial.expected, np.nan), lambda: trial.tolerance)
    other = symptoms.compare(trial.actual, changed, trial.delta)
    return Expectation(other.expected, lambda: other.tolerance)


def formula(value: Array, symptoms: Symptoms, uncertainty: Array | float = 0.0) -> Expectation:
    """Return a candidate that is computed here, with the tolerance of a few elementary functions.

    Args:
        value: the candidate.
        symptoms: the refused array: its precision.
        uncertainty: how far the tolerances of the arrays in the formula may move it.
    """
    rounding = ELEMENTARY_ROUNDINGS * unit_roundoff(symptoms.precision)
    return Expectation(value, lambda: np.asarray(rounding * np.abs(value) + uncertainty))


def floating_primals(symptoms: Symptoms) -> dict[str, Array]:
    """Return the primals that have a cotangent, the examined one first."""
    floating = {n: np.asarray(a) for n, a in symptoms.primals.items() if is_differentiable(a)}
    own = {n: a for n, a in floating.items() if n == symptoms.name}
    return {**own, **floating}

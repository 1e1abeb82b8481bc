"""Patterns of small errors: a sum accumulated in a coarse precision, an iteration that stops before it has converged.

A rounding error is drawn anew wherever the input moves. The error of an iteration is smooth, until the number of its
steps changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import ml_dtypes
import numpy as np

from oracles.constants import (
    LEAST_BEND,
    LEAST_GROWTH,
    LONGER_SUMS,
    PATH_LENGTH,
    PATH_TRIALS,
    ROUGH_AGREEMENT,
    SMOOTH_STEP,
    STEP_IN_ROUNDINGS,
    WRONG_SHARE,
)
from oracles.decision.iterations import Compared, change_nearby, in_words, stops_early
from oracles.diagnosis.candidates import agrees_where_known
from oracles.diagnosis.experiments import Symptoms, Trial
from oracles.diagnosis.patterns.blocks import resized_trial
from oracles.numerics import unit_roundoff
from oracles.rule import Array, Output, Primals

ACCUMULATORS = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}


def low_precision_accumulation(symptoms: Symptoms) -> str | None:
    """Detect a sum in a coarse precision: rounding errors that grow with the number of terms."""
    if not symptoms.has_expected_shape or not _is_small(symptoms.refusal) or symptoms.is_output:
        return None
    extents = {n for a in symptoms.primals.values() for n in np.shape(a)} - set(symptoms.expected.shape) - {0, 1}
    for n in sorted(extents):
        short, long = (resized_trial(symptoms, n, k * n) for k in (1, LONGER_SUMS))
        if short is None or long is None or not _is_small(long):
            continue
        growth = _relative_error(long) / _relative_error(short)
        # An error of a formula may grow as well, but it does not jump from input to input.
        if growth >= LEAST_GROWTH and _is_drawn_anew(symptoms):
            if not _is_within(symptoms):
                return None
            precision = _precision_of(symptoms.refusal.actual, _relative_error(long), LONGER_SUMS * n)
            return (
                f"rounding errors grow with the number of terms, {growth:.2g} times from {n} to {LONGER_SUMS * n}: a "
                f"sum is accumulated in {precision}"
            )
    return None


def _is_within(symptoms: Symptoms) -> bool:
    """Return whether each entry is right up to the coarsest precision."""
    ratio = max(map(unit_roundoff, ACCUMULATORS)) / unit_roundoff(symptoms.precision)
    return agrees_where_known(symptoms.refusal.actual, symptoms.expected, ratio * symptoms.tolerance)


def _is_drawn_anew(symptoms: Symptoms) -> bool:
    """Return whether the error is another one a few roundings of some coarse precision away."""
    steps = [STEP_IN_ROUNDINGS * unit_roundoff(name) for name in ACCUMULATORS]
    return any(LEAST_BEND < _change_nearby(symptoms, step) < np.inf for step in steps)


def _is_small(trial: Trial) -> bool:
    """Return whether the error is a small part of the value, all entries finite, and not zero."""
    return bool(0 < _relative_error(trial) <= ROUGH_AGREEMENT)


def _relative_error(trial: Trial) -> float:
    return float(np.linalg.norm(trial.error) / np.linalg.norm(trial.expected))


def _precision_of(actual: Array, relative: float, terms: int) -> str:
    """Return the precision in which the entries have a value, or whose errors have this size over so many terms."""
    for name, dtype in ACCUMULATORS.items():
        if np.array_equal(actual.astype(dtype).astype(np.float64), actual):
            return name
    # n roundings of partial sums that grow evenly are √(n/3) of one.
    one = relative / (terms / 3) ** 0.5
    near = [name for name in ACCUMULATORS if 0.5 <= one / unit_roundoff(name) <= 2]
    return near[0] if near else "a coarse precision"


def not_converged(symptoms: Symptoms) -> str | None:
    """Detect the error of an iteration that stops at a tolerance: see `oracles.decision.iterations`.

    Such an error is in most entries, also where the primal is smaller. A bound from which on an entry is replaced
    (a function that saturates) leaves the others right. It stays in a finer precision, where lost digits come back.
    """
    if not symptoms.has_expected_shape or not _is_small(symptoms.refusal) or _is_rounded(symptoms):
        return None
    if not _are_most_wrong([symptoms.refusal]) or symptoms.shrinks_in_float64:
        return None
    name = stops_early(symptoms.primals, symptoms.delta, partial(_compare_at, symptoms))
    if not name or not _follows(symptoms, name) or not _are_most_wrong(_with_smaller_primal(symptoms, name)):
        return None
    return in_words(name, _relative_error(symptoms.refusal))


def _is_rounded(symptoms: Symptoms) -> bool:
    """Return whether a coarser precision has all the values: its rounding is smooth and jumps, too."""
    actual = symptoms.refusal.actual
    coarser = [d for name, d in ACCUMULATORS.items() if unit_roundoff(name) > unit_roundoff(symptoms.precision)]
    with np.errstate(over="ignore"):
        return any(np.array_equal(actual.astype(dtype).astype(actual.dtype), actual) for dtype in coarser)


def _follows(symptoms: Symptoms, name: str) -> bool:
    """Return whether the answer moves with the oracle's over a small step, which low precision inside would hide."""
    here = symptoms.repetition
    moved = {**symptoms.primals, name: symptoms.primals[name] * (1 + SMOOTH_STEP)}
    there = symptoms.evaluate_at(moved, symptoms.delta)
    if here is None or there is None:
        return False
    step, change = (float(np.linalg.norm(a)) for a in (there.expected - here.expected, there.error - here.error))
    # A constant gradient does not move at all.
    is_constant = step <= unit_roundoff(symptoms.precision) * float(np.linalg.norm(here.expected))
    return is_constant or change <= step / 2


def _with_smaller_primal(symptoms: Symptoms, name: str) -> list[Trial]:
    """Return trials along the line on which one primal goes towards zero, as far as the iteration is followed."""
    shares = np.linspace(0, PATH_LENGTH, PATH_TRIALS)
    points = [{**symptoms.primals, name: symptoms.primals[name] * (1 - t)} for t in shares]
    return [trial for p in points if (trial := symptoms.evaluate_at(p, symptoms.delta)) is not None]


def _are_most_wrong(trials: Sequence[Trial]) -> bool:
    """Return whether most entries of some trials that could be seen to be wrong are so."""
    wrong, all_of_them = (
        sum(np.count_nonzero(a) for a in masks)
        for masks in ([trial.wrong for trial in trials], [trial.informative for trial in trials])
    )
    return bool(wrong > WRONG_SHARE * all_of_them)


def _change_nearby(symptoms: Symptoms, step: float) -> float:
    """Return how much the error changes over a small step, as a share of the error; infinite if unknown."""
    return change_nearby(symptoms.primals, symptoms.delta, partial(_compare_at, symptoms), step)


def _compare_at(symptoms: Symptoms, primals: Primals, delta: Output) -> Compared | None:
    trial = symptoms.repetition if primals is symptoms.primals else symptoms.evaluate_at(primals, delta)
    return None if trial is None else Compared(trial.error, trial.expected)

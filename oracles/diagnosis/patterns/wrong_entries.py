"""Patterns of what some entries hold: zero, the wrong sign, or a bound at which they are clipped."""

from __future__ import annotations

from functools import partial

import numpy as np

from oracles.diagnosis.arrays import agrees
from oracles.diagnosis.constants import PRODUCT_ROUNDINGS
from oracles.diagnosis.experiments import Symptoms, Trial


def zero_in_some(symptoms: Symptoms) -> str | None:
    """Detect zeros in some entries, where the oracle has none, while all other entries are right."""
    if not symptoms.has_expected_shape or not symptoms.always(_is_zero_where_wrong):
        return None
    count = np.count_nonzero(symptoms.refusal.wrong)
    return f"zero in {count} of {symptoms.expected.size} entries, right in all others"


def _is_zero_where_wrong(trial: Trial) -> bool:
    wrong = trial.wrong
    return bool(np.any(wrong) and np.any(trial.informative & ~wrong) and not np.any(trial.actual[wrong]))


def sign_of_some(symptoms: Symptoms) -> str | None:
    """Detect entries of the right magnitude and the wrong sign."""
    if not symptoms.has_expected_shape or not symptoms.always(_has_right_magnitude):
        return None
    other = symptoms.other_delta
    if np.all(symptoms.refusal.actual >= 0) and other is not None and np.all(other.actual >= 0):
        return "it is the absolute value of the oracle's"
    count = np.count_nonzero(symptoms.refusal.wrong)
    return f"the sign is wrong in {count} of {symptoms.expected.size} entries, the magnitude right in all"


def _has_right_magnitude(trial: Trial) -> bool:
    return bool(np.any(trial.wrong)) and agrees(np.abs(trial.actual), np.abs(trial.expected), trial.tolerance)


def clipped(symptoms: Symptoms) -> str | None:
    """Detect a cotangent clipped at a bound."""
    if not symptoms.has_expected_shape or not symptoms.expected.size or symptoms.is_output:
        return None
    magnitudes, other = np.abs(symptoms.refusal.actual), symptoms.other_delta
    bound = float(np.max(magnitudes))
    # Several equal largest entries show the bound; a single one may be below it, and the other trial's above.
    if np.count_nonzero(magnitudes == bound) <= 1 and other is not None:
        bound = max(bound, float(np.max(np.abs(other.actual), initial=0.0)))
    if not symptoms.always(partial(_is_clipped, bound=bound)):
        return None
    return f"it is the oracle's value clipped to ±{bound:.6g}: gradient clipping inside the layer"


def _is_clipped(trial: Trial, bound: float) -> bool:
    return agrees(trial.actual, np.clip(trial.expected, -bound, bound), trial.tolerance)


def describe_wrong_entries(symptoms: Symptoms) -> str:
    """Say how many entries are wrong, and what they hold if all have it in common."""
    trial = symptoms.refusal
    actual, expected, tolerance = (a[trial.wrong] for a in (trial.actual, trial.expected, trial.tolerance))
    count = f" ({actual.size} of {trial.expected.size} entries)"
    if np.all(np.isnan(actual)):
        return count + ": NaN there"
    if not np.any(actual):
        return count + ": zero there"
    if agrees(actual, -expected, tolerance):
        return count + ": of the wrong sign there"
    if not np.any(np.abs(expected) > tolerance):
        return count + ": where the oracle has zero"
    k = float(np.sum(actual * expected) / np.sum(expected * expected))
    if actual.size > 1 and agrees(actual, k * expected, PRODUCT_ROUNDINGS * abs(k) * tolerance):
        return count + f": {k:.6g} times the oracle's there"
    return count

"""Pattern of an answer that is right in a coarser precision: cast to it, or computed in it somewhere."""

from __future__ import annotations

from functools import partial

import numpy as np

from oracles.diagnosis.arrays import agrees
from oracles.diagnosis.constants import LEAST_BEND, LEAST_ERROR_IN_ROUNDINGS, STEP_IN_ROUNDINGS
from oracles.diagnosis.experiments import Symptoms
from oracles.rule import Array, is_differentiable
from oracles.tolerance import unit_roundoff

COARSER = ("float32", "float16", "bfloat16")


def coarse_rounding(symptoms: Symptoms) -> str | None:
    """Detect errors that are the rounding of a coarser precision, drawn anew when the inputs move."""
    if not symptoms.has_expected_shape:
        return None
    actual, expected = symptoms.refusal.actual, symptoms.expected
    for name in COARSER:
        ratio = unit_roundoff(name) / unit_roundoff(symptoms.precision)
        within = ratio > 1 and agrees(actual, expected, ratio * symptoms.tolerance)
        if not within or not _errors_jump(symptoms, name, ratio):
            continue
        # NumPy has no bfloat16 to cast to.
        if name != "bfloat16" and np.array_equal(actual.astype(name).astype(np.float64), actual):
            return f"right up to {name}: the answer was cast to it"
        least_error = LEAST_ERROR_IN_ROUNDINGS * unit_roundoff(name) * np.median(np.abs(expected))
        if np.median(np.abs(actual - expected)) < least_error:
            return None
        return f"right up to {name}: something is computed in it"
    return None


def _errors_jump(symptoms: Symptoms, name: str, ratio: float) -> bool:
    """Return whether the error jumps along a line of a few roundings; the error of a formula is straight there."""
    errors = [symptoms.refusal.error]
    for k in (1, 2):
        rng = np.random.default_rng(1)  # the same direction for both steps: the three points are on one line
        move = partial(_move, step=STEP_IN_ROUNDINGS * k * unit_roundoff(name), rng=rng)
        delta = tuple(map(move, symptoms.delta)) if isinstance(symptoms.delta, tuple) else move(symptoms.delta)
        trial = symptoms.evaluate_at({n: move(a) for n, a in symptoms.primals.items()}, delta)
        if trial is None or not agrees(trial.actual, trial.expected, ratio * trial.tolerance):
            return False
        errors.append(trial.error)
    bend = np.linalg.norm(errors[2] - 2 * errors[1] + errors[0])
    return bool(bend > LEAST_BEND * max(np.linalg.norm(e) for e in errors))


def _move(array: Array, step: float, rng: np.random.Generator) -> Array:
    if not is_differentiable(array):
        return array
    return np.asarray(array * (1 + step * rng.uniform(-1, 1, np.shape(array))))

"""Patterns of whole calls: no answer, the answer zero, state between calls, the derivative of another function."""

from __future__ import annotations

from functools import partial

import numpy as np

from oracles.diagnosis.arrays import agrees, roughly_agrees
from oracles.diagnosis.constants import DIRECTIONS
from oracles.diagnosis.experiments import Symptoms, Trial
from oracles.finite_differences import directional_derivative
from oracles.rule import as_tuple, is_differentiable, with_dtype


def missing(symptoms: Symptoms) -> str | None:
    """Detect that no cotangent is returned."""
    return f"no cotangent was returned for {symptoms.name}" if symptoms.actual is None else None


def all_zero(symptoms: Symptoms) -> str | None:
    """Detect a cotangent that is zero for every delta."""
    return "every entry is zero, for every delta: the gradient never reaches it" if symptoms.always(_is_zero) else None


def _is_zero(trial: Trial) -> bool:
    zero = not np.any(trial.actual) and np.shape(trial.actual) == trial.expected.shape
    return zero and bool(np.any(trial.informative))


def not_repeatable(symptoms: Symptoms) -> str | None:
    """Detect another answer to the same call: state between calls, or arrays read in memory order."""
    again = symptoms.repetition
    if symptoms.actual is None or again is None or np.shape(again.actual) != symptoms.actual.shape:
        return None
    tolerance = symptoms.tolerance if symptoms.has_expected_shape else np.zeros(symptoms.actual.shape)
    if agrees(np.nan_to_num(again.actual), np.nan_to_num(symptoms.actual), tolerance):
        return None
    arrays = (*symptoms.primals.values(), *as_tuple(symptoms.delta))
    strided = any(not np.asarray(a).flags.c_contiguous for a in arrays)
    if not agrees(again.actual, symptoms.expected, symptoms.tolerance):
        return None if strided else "the same call gave another answer the second time: state is kept between calls"
    if strided:
        return "right for contiguous copies of the same arrays: it reads them in memory order"
    return "right when called again with copies of the same arrays: it keeps state between calls, or wrote into them"


def backward_of_own_forward(symptoms: Symptoms) -> str | None:
    """Detect a cotangent that is the derivative of the subject's own, wrong output."""
    if symptoms.primal_agrees or symptoms.is_output or not symptoms.has_expected_shape:
        return None
    if not all(_is_own_derivative(symptoms, seed) for seed in range(DIRECTIONS)):
        return None
    return "it is the derivative of the subject's own output, and that output is wrong: look at the forward pass"


def _is_own_derivative(symptoms: Symptoms, seed: int) -> bool:
    """Return whether the subject's derivative in a random direction is its cotangent's, and not the oracle's."""
    direction = np.random.default_rng(seed).standard_normal(symptoms.expected.shape)
    primals = {
        n: np.array(with_dtype(a, np.float64)) if is_differentiable(a) else a for n, a in symptoms.primals.items()
    }
    slope, radius = directional_derivative(symptoms.subject, primals, symptoms.delta, {symptoms.name: direction})
    tolerance = radius + float(np.sum(symptoms.tolerance * np.abs(direction)))
    actual, expected = (float(np.sum(a * direction)) for a in (symptoms.refusal.actual, symptoms.expected))
    return abs(actual - slope) <= tolerance < abs(expected - slope)


def other_name(symptoms: Symptoms) -> str | None:
    """Detect the cotangent of another primal."""
    if symptoms.is_output:
        return None
    for name, array in symptoms.primals.items():
        others = is_differentiable(array) and name != symptoms.name
        if others and symptoms.always(partial(_is_cotangent_of, name=name)):
            return f"it is the oracle's cotangent of {name}: names or positions are mixed up"
    return None


def _is_cotangent_of(trial: Trial, name: str) -> bool:
    informative = bool(np.any(trial.informative))
    return informative and agrees(trial.actual, trial.answers[name], trial.tolerances()[name])


def primal_transposed(symptoms: Symptoms) -> str | None:
    """Detect a cotangent computed with a square primal transposed: W where Wᵀ belongs."""
    if symptoms.is_output or not symptoms.has_expected_shape:
        return None
    for name, array in symptoms.primals.items():
        square = np.ndim(array) > 1 and array.shape[-1] == array.shape[-2] > 1
        if square and symptoms.always(partial(_is_answer_with_transposed, symptoms, name)):
            return f"it is the oracle's value with {name} transposed: a transpose too many, or one is missing"
    return None


def _is_answer_with_transposed(symptoms: Symptoms, name: str, trial: Trial) -> bool:
    primals = {**trial.primals, name: trial.primals[name].swapaxes(-1, -2)}
    other = symptoms.compare(trial.actual, primals, trial.delta)
    if not (roughly_agrees(trial.actual, other.expected) and np.any(trial.actual)):
        return False
    return agrees(trial.actual, other.expected, other.tolerance)

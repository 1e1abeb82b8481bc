"""Patterns of a primal that is changed, or replaced by another array, before the derivative is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

import numpy as np

from oracles.constants import EXPERIMENT_SEED, SMALL_MOVE
from oracles.diagnosis.experiments import Symptoms, Trial, agrees, roughly_agrees
from oracles.rule import Array, as_tuple, is_differentiable

Replacement: TypeAlias = Callable[[Trial], Array]


def primal_changed(symptoms: Symptoms) -> str | None:
    """Detect the oracle's cotangent at another value of a primal: reversed, all ones, the output, or delta."""
    if symptoms.is_output or not symptoms.has_expected_shape:
        return None
    for name, words, replacement in _replacements(symptoms):
        confirmed = symptoms.always(partial(_is_answer_with, symptoms, name, replacement))
        if confirmed and _is_continuous(symptoms, name, replacement(symptoms.refusal)):
            return f"it is the oracle's value with {words}"
    return None


def _replacements(symptoms: Symptoms) -> Iterator[tuple[str, str, Replacement]]:
    outputs = symptoms.refusal.outputs
    for name, array in symptoms.primals.items():
        if not is_differentiable(array):
            continue
        if np.any(array != 1):
            yield name, f"{name} taken as ones: {name} is left out", partial(_ones, name)
        if (
            len(outputs) == 1
            and outputs[0].shape == array.shape == symptoms.expected.shape
            and _is_elementwise(symptoms)
        ):
            yield name, f"the output in place of {name}: f'(f({name})) where f'({name}) belongs", _output
            yield name, f"delta in place of {name}: a mask or derivative is made of delta", _delta
        for axis in (a for a, n in enumerate(array.shape) if n > 1):
            words = f"{name} reversed along axis {axis}: flipped once too often, or once too few"
            yield name, words, partial(_reversed, name, axis)


def _is_elementwise(symptoms: Symptoms) -> bool:
    """Return whether every entry of delta reaches the same entry of the cotangent alone."""
    if isinstance(symptoms.delta, tuple):
        return False
    odd = np.arange(symptoms.expected.size).reshape(symptoms.expected.shape) % 2 == 1
    answers = [(mask, symptoms.refusal.pull_back(np.where(mask, symptoms.delta, 0.0)).value) for mask in (odd, ~odd)]
    return not any(np.any(value[~mask]) for mask, value in answers)


def _ones(name: str, trial: Trial) -> Array:
    return np.ones_like(trial.primals[name])


def _reversed(name: str, axis: int, trial: Trial) -> Array:
    return np.flip(trial.primals[name], axis)


def _output(trial: Trial) -> Array:
    return trial.outputs[0]


def _delta(trial: Trial) -> Array:
    return np.asarray(as_tuple(trial.delta)[0])


def _is_answer_with(symptoms: Symptoms, name: str, replacement: Replacement, trial: Trial) -> bool:
    other = symptoms.compare(trial.actual, {**trial.primals, name: replacement(trial)}, trial.delta)
    if not (roughly_agrees(trial.actual, other.expected, trial.tolerance) and np.any(trial.actual)):
        return False
    # The output is the subject's own, rounded, so both tolerances count.
    return agrees(trial.actual, other.expected, other.tolerance + trial.tolerance)


def _is_continuous(symptoms: Symptoms, name: str, replaced: Array) -> bool:
    """Return whether the oracle has nearly the same value nearby: equal entries may be ties, which switch masks off."""
    trial = symptoms.refusal
    moved = replaced * (1 + SMALL_MOVE * np.random.default_rng(EXPERIMENT_SEED).uniform(-1, 1, replaced.shape))
    here, there = (
        symptoms.compare(trial.actual, {**trial.primals, name: a}, trial.delta).expected for a in (replaced, moved)
    )
    return bool(np.linalg.norm(there - here) <= SMALL_MOVE**0.5 * np.linalg.norm(here))

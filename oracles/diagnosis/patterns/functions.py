"""Patterns of one function taken for another: a value for a derivative, −x for x, logits for probabilities, an axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from oracles.constants import PRODUCT_ROUNDINGS
from oracles.diagnosis.candidates import (
    Candidate,
    at_primals,
    first_confirmed,
    floating_primals,
    formula,
    is_confirmed,
)
from oracles.diagnosis.experiments import Expectation, Symptoms, Trial, added_factor, agrees
from oracles.rule import Array, Primals

ArrayFunction = Callable[[Array], Array]


def value_for_derivative(symptoms: Symptoms) -> str | None:
    """Detect f where f' belongs: the cotangent is delta · y."""
    if not _is_elementwise(symptoms) or not _has_diagonal_jacobian(symptoms.refusal):
        return None
    words = f"it is delta · y, y being the output: the value of the function where its derivative by {symptoms.name}"
    return first_confirmed(symptoms, [(f"{words} belongs", partial(_delta_times_output, symptoms))])


def derivative_missing(symptoms: Symptoms) -> str | None:
    """Detect delta where delta · f' belongs."""
    if not _is_elementwise(symptoms):
        return None
    sentence = f"it is delta itself: the derivative of the output by {symptoms.name} is missing"
    return first_confirmed(symptoms, [(sentence, partial(_delta_itself, symptoms))])


def _is_elementwise(symptoms: Symptoms) -> bool:
    """Return whether delta may belong to the cotangent entry by entry."""
    return not symptoms.is_output and np.shape(symptoms.delta) == symptoms.expected.shape


def _has_diagonal_jacobian(trial: Trial) -> bool:
    """Return whether delta influences the same entry of the cotangent alone: every other one is zeroed."""
    odd = np.arange(trial.expected.size).reshape(trial.expected.shape) % 2 == 1
    masks = [odd, ~odd]
    return not any(np.any(trial.pull_back(np.where(m, 0.0, np.asarray(trial.delta))).value[m]) for m in masks)


def _delta_times_output(symptoms: Symptoms, trial: Trial) -> Expectation:
    delta, y = np.asarray(trial.delta), trial.outputs[0]
    # y is the oracle's; the subject's own may differ from it by the tolerance of the output.
    return formula(delta * y, symptoms, np.abs(delta) * _known_tolerance(trial, "output"))


def _known_tolerance(trial: Trial, name: str) -> Array:
    tolerance = trial.tolerances()[name]
    return np.where(np.isfinite(tolerance), tolerance, 0)


def _delta_itself(symptoms: Symptoms, trial: Trial) -> Expectation:
    return formula(np.asarray(trial.delta), symptoms)


def negated_primal(symptoms: Symptoms) -> str | None:
    """Detect the oracle's cotangent at −x for x."""
    if symptoms.is_output:
        return None
    names = list(floating_primals(symptoms))
    candidates = [
        (f"it is the oracle's value at -{n} for {n}: a sign is lost before the derivative", _replacing(symptoms, n, f))
        for n, f in ((n, np.negative) for n in names)
    ]
    return first_confirmed(symptoms, candidates)


def _replacing(symptoms: Symptoms, name: str, function: ArrayFunction) -> Candidate:
    return partial(at_primals, symptoms, partial(_replace, name, function))


def _replace(name: str, function: ArrayFunction, primals: Primals) -> Primals:
    return {**primals, name: np.asarray(function(primals[name]))}


def logits_for_probabilities(symptoms: Symptoms) -> str | None:
    """Detect probabilities where logits belong, or the reverse: the oracle's answer at softmax(z) for z, say."""
    candidates = (
        (f"it is the oracle's value at {words.format(n)} in place of {n}: logits and probabilities are mixed up", f)
        for n, array in floating_primals(symptoms).items()
        for words, f in _as_candidates(symptoms, n, array.shape)
    )
    return first_confirmed(symptoms, candidates)


def _as_candidates(symptoms: Symptoms, name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, Candidate]]:
    functions: list[tuple[str, ArrayFunction]] = [
        ("sigmoid({})", _sigmoid), ("log({})", np.log), ("log({0} / (1 - {0}))", lambda p: np.log(p) - np.log1p(-p)),
        ("exp({})", np.exp),
    ]  # fmt: skip
    # Along an axis of one entry every softmax is 1.
    for axis in [k for k in range(-1, -len(shape) - 1, -1) if shape[k] > 1]:
        functions.append((f"softmax({{}}, axis={axis})", partial(softmax, axis=axis)))
        functions.append((f"log_softmax({{}}, axis={axis})", partial(log_softmax, axis=axis)))
    for words, function in functions:
        yield words, _replacing(symptoms, name, function)


def _sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


def softmax(z: Array, axis: int) -> Array:
    """Return exp(z) / Σ exp(z) along an axis."""
    return np.asarray(np.exp(log_softmax(z, axis)))


def log_softmax(z: Array, axis: int) -> Array:
    """Return z − log Σ exp(z) along an axis."""
    shifted = z - np.max(z, axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True)))


def softmax_axis(symptoms: Symptoms) -> str | None:
    """Detect a softmax, or another function along one axis, whose derivative or value is taken along another axis."""
    shape = symptoms.expected.shape
    if len(shape) < 2 or isinstance(symptoms.delta, tuple) or np.shape(symptoms.delta) != shape:
        return None
    candidates = _with_jacobian_along_another_axis(symptoms)
    return first_confirmed(symptoms, candidates) or first_confirmed(symptoms, _along_another_axis(symptoms))


def _with_jacobian_along_another_axis(symptoms: Symptoms) -> Iterator[tuple[str, Candidate]]:
    """Yield the derivatives of softmax and log-softmax with the sum over another axis than that of the output."""
    if symptoms.is_output:
        return
    for name, softmax_of, jacobian in (
        ("softmax", lambda y: y, lambda p, d, axis: p * (d - np.sum(p * d, axis=axis, keepdims=True))),
        ("log-softmax", np.exp, lambda p, d, axis: d - p * np.sum(d, axis=axis, keepdims=True)),
    ):
        probabilities = softmax_of(symptoms.refusal.outputs[0])
        ones = [a for a in range(probabilities.ndim) if _sums_to_one(probabilities, a)]
        for axis in (a for a in range(probabilities.ndim) if ones and a not in ones):
            sentence = f"the output is a {name} along axis {ones[0]}, its derivative is taken along axis {axis}"
            yield sentence, partial(_jacobian, symptoms, softmax_of, partial(jacobian, axis=axis), axis)


def _sums_to_one(array: Array, axis: int) -> bool:
    sums = np.sum(array, axis=axis)
    rounding = array.shape[axis] * np.finfo(np.float32).eps  # a softmax that is computed in float32 is one, too
    return bool(np.all(array >= 0)) and agrees(sums, np.ones_like(sums), np.full_like(sums, rounding))


def _jacobian(
    symptoms: Symptoms, softmax_of: ArrayFunction, jacobian: Callable[[Array, Array], Array], axis: int, trial: Trial
) -> Expectation:
    probabilities, delta = softmax_of(trial.outputs[0]), np.asarray(trial.delta)
    size = np.abs(delta) + np.sum(np.abs(delta), axis=axis, keepdims=True)
    uncertainty = formula(probabilities * size, symptoms).tolerance() + size * _known_tolerance(trial, "output")
    return formula(jacobian(probabilities, delta), symptoms, uncertainty)


def _along_another_axis(symptoms: Symptoms) -> Iterator[tuple[str, Candidate]]:
    """Yield the oracle's own function with two axes of the examined primal and of delta exchanged."""
    ndim, name = symptoms.expected.ndim, symptoms.name
    if symptoms.is_output:
        names = [n for n, a in floating_primals(symptoms).items() if a.shape == symptoms.expected.shape]
        name = names[0] if len(names) == 1 else ""
    if name not in symptoms.primals:
        return
    for first in range(ndim):
        for second in range(first + 1, ndim):
            sentence = f"it is the oracle's value along another axis: with the axes {first} and {second} exchanged"
            yield sentence, partial(_with_axes_exchanged, symptoms, name, first, second)


def _with_axes_exchanged(symptoms: Symptoms, name: str, first: int, second: int, trial: Trial) -> Expectation:
    primals = {**trial.primals, name: trial.primals[name].swapaxes(first, second)}
    other = symptoms.compare(trial.actual, primals, np.asarray(trial.delta).swapaxes(first, second))
    return Expectation(other.expected.swapaxes(first, second), lambda: other.tolerance.swapaxes(first, second))


def factor_outside_sum(symptoms: Symptoms) -> str | None:
    """Detect a factor pulled out of a sum over which it varies: γ of a layer norm, taken out of its means."""
    if symptoms.is_output:
        return None
    shape = symptoms.expected.shape
    candidates = [
        (
            f"it is {n} times what the oracle gives for {n} = 1: {n} is pulled out of a sum over which it varies",
            partial(_factor_outside, symptoms, n),
        )
        for n, a in floating_primals(symptoms).items()
        if n != symptoms.name and a.size > 1 and _fits(a.shape, shape)
    ]
    return first_confirmed(symptoms, candidates)


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _factor_outside(symptoms: Symptoms, name: str, trial: Trial) -> Expectation:
    factor = trial.primals[name]
    value, tolerance = at_primals(symptoms, partial(_replace, name, np.ones_like), trial)
    return Expectation(factor * value, lambda: PRODUCT_ROUNDINGS * np.abs(factor) * tolerance())


def added_primal(symptoms: Symptoms) -> str | None:
    """Detect a multiple of the primal added to its cotangent: weight decay inside the gradient."""
    if symptoms.is_output or not symptoms.has_expected_shape or symptoms.name not in symptoms.primals:
        return None
    primal = symptoms.primals[symptoms.name]
    # An array of one magnitude looks like a constant.
    if np.unique(np.abs(primal)).size < 2:
        return None
    known = np.isfinite(symptoms.tolerance) & np.isfinite(symptoms.refusal.error)
    error, along, tolerance = (np.where(known, a, 0) for a in (symptoms.refusal.error, primal, symptoms.tolerance))
    factor = added_factor(error, along, tolerance)
    if factor is None or not is_confirmed(symptoms, partial(_is_added_primal, *factor)):
        return None
    return (
        f"the error is {float(factor[0]):.6g} × {symptoms.name}, for every delta and at other values: "
        "a weight decay term in the gradient"
    )


def _is_added_primal(factor: Array, uncertainty: Array, trial: Trial) -> bool:
    primal = trial.primals[trial.name]
    tolerance = trial.tolerance + uncertainty * np.abs(primal)
    return bool(np.any(trial.wrong)) and agrees(trial.error, factor * primal, tolerance)

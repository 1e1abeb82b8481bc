"""Patterns of symmetric matrices and of vectors without a sign: another convention than the oracle's.

A function of a symmetric matrix may read one triangle or both, so its gradient is defined up to an antisymmetric part.
Eigenvectors and singular vectors are defined up to their sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from oracles.constants import PRODUCT_ROUNDINGS
from oracles.diagnosis.candidates import (
    Candidate,
    agrees_where_known,
    first_confirmed,
    in_all_trials,
    is_confirmed,
    is_near,
)
from oracles.diagnosis.experiments import Expectation, Symptoms, Trial
from oracles.rule import Array, as_tuple


def symmetrized(symptoms: Symptoms) -> str | None:
    """Detect another convention for the gradient of a symmetric matrix: g + gᵀ, (g + gᵀ)/2, one triangle."""
    shape, name = symptoms.expected.shape, symptoms.name
    square = len(shape) > 1 and shape[-1] == shape[-2] > 1 and symptoms.has_expected_shape
    if symptoms.is_output or not square:
        return None
    # Shuffled entries would make no symmetric matrix, so the other point is scaled.
    exact = first_confirmed(symptoms, _symmetrizations(), shuffle=False)
    primal = symptoms.primals[name]
    is_symmetric = np.array_equal(primal, primal.swapaxes(-1, -2))
    if is_symmetric and in_all_trials(symptoms, _symmetric_parts_agree, shuffle=False):
        relation = exact or "its symmetric part is the oracle's"
        return f"{relation}; a symmetric change of {name} cannot tell the two apart"
    return exact


def _symmetric_parts_agree(trial: Trial) -> bool:
    actual, expected, tolerance = (a + a.swapaxes(-1, -2) for a in (trial.actual, trial.expected, trial.tolerance))
    wrong = bool(np.any(trial.wrong)) and bool(np.any(np.abs(expected) > tolerance))
    return wrong and is_near(actual, expected) and agrees_where_known(actual, expected, tolerance)


def _transpose(g: Array) -> Array:
    return g.swapaxes(-1, -2)


def _diagonal(g: Array) -> Array:
    return np.asarray(g * np.eye(g.shape[-1]))


# What an answer may be of the oracle's g, and what its tolerance is of that of g.
CONVENTIONS: list[tuple[str, Callable[[Array], Array], Callable[[Array], Array]]] = [
    ("g + gᵀ", lambda g: g + _transpose(g), lambda t: t + _transpose(t)),
    ("(g + gᵀ) / 2", lambda g: (g + _transpose(g)) / 2, lambda t: t + _transpose(t)),
    ("g + gᵀ with the diagonal once", lambda g: g + _transpose(g) - _diagonal(g), lambda t: t + _transpose(t)),
    ("the lower triangle of g", np.tril, np.asarray),
    ("the upper triangle of g", np.triu, np.asarray),
    (
        "the lower triangle of g + gᵀ, with the diagonal of g",
        lambda g: np.tril(g + _transpose(g)) - _diagonal(g),
        lambda t: t + _transpose(t),
    ),
    (
        "the upper triangle of g + gᵀ, with the diagonal of g",
        lambda g: np.triu(g + _transpose(g)) - _diagonal(g),
        lambda t: t + _transpose(t),
    ),
    ("g - gᵀ", lambda g: g - _transpose(g), lambda t: t + _transpose(t)),
    ("(g - gᵀ) / 2", lambda g: (g - _transpose(g)) / 2, lambda t: t + _transpose(t)),
]


def _symmetrizations() -> Iterator[tuple[str, Candidate]]:
    for words, convention, tolerance in CONVENTIONS:
        yield f"it is {words}, g being the oracle's value", partial(_in_convention, convention, tolerance)


def _in_convention(
    convention: Callable[[Array], Array], tolerance: Callable[[Array], Array], trial: Trial
) -> Expectation:
    return Expectation(convention(trial.expected), lambda: PRODUCT_ROUNDINGS * tolerance(trial.tolerance))


def gauge(symptoms: Symptoms) -> str | None:
    """Detect vectors that are the oracle's up to sign, and cotangents that are right for the subject's own signs."""
    if symptoms.is_output:
        return _vectors_up_to_sign(symptoms)
    if symptoms.primal_agrees or not symptoms.has_expected_shape:
        return None
    sentence = (
        "the output's vectors are the oracle's up to sign, and this is the oracle's value for a delta of those signs: "
        "eigenvectors and singular vectors have no sign of their own"
    )
    return sentence if is_confirmed(symptoms, partial(_is_answer_for_signs, symptoms), shuffle=False) else None


def _vectors_up_to_sign(symptoms: Symptoms) -> str | None:
    ndim = symptoms.expected.ndim
    for axis in (-2, -1) if ndim > 1 else ():
        if is_confirmed(symptoms, partial(_agrees_up_to_sign, axis=axis), shuffle=False):
            kind = "column" if axis == -2 else "row"
            return (
                f"every {kind} is the oracle's up to sign: eigenvectors and singular vectors have no sign of their "
                "own; compare what does not depend on it, or let the reference choose the same signs"
            )
    return None


def _agrees_up_to_sign(trial: Trial, axis: int) -> bool:
    signs = signs_along(axis, trial.actual, trial.expected)
    mixed = bool(np.any(trial.wrong)) and has_signs_of_both_kinds(signs)
    return mixed and agrees_where_known(trial.actual, signs * trial.expected, trial.tolerance)


def has_signs_of_both_kinds(signs: Array) -> bool:
    """Return whether some vectors have another sign and some have not; one sign for all is a constant factor."""
    return np.unique(signs).size > 1


def signs_along(axis: int, actual: Array, expected: Array) -> Array:
    """Return the sign of each vector along an axis, relative to the expected one."""
    return np.where(np.sum(actual * expected, axis=axis, keepdims=True) < 0, -1.0, 1.0)


def _is_answer_for_signs(symptoms: Symptoms, trial: Trial) -> bool:
    y, _ = symptoms.subject(**trial.primals)
    outputs, deltas = [np.asarray(part, np.float64) for part in as_tuple(y)], as_tuple(trial.delta)
    tolerances = [t for n, t in trial.tolerances().items() if n.split("[")[0] == "output"]
    for axis in (-2, -1):
        signs = [
            signs_along(axis, a, e) if a.ndim > 1 else np.ones(a.shape)
            for a, e in zip(outputs, trial.outputs, strict=True)
        ]
        up_to_sign = all(
            agrees_where_known(a, s * e, t)
            for a, e, s, t in zip(outputs, trial.outputs, signs, tolerances, strict=True)
        )
        if up_to_sign:
            delta = tuple(s * d for s, d in zip(signs, deltas, strict=True))
            value, tolerance = trial.pull_back(delta if isinstance(trial.delta, tuple) else delta[0])
            return is_near(trial.actual, value) and agrees_where_known(trial.actual, value, tolerance())
    return False

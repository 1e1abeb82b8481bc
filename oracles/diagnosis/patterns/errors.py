"""Patterns of the error: an added term, a missing term, or the rounding of a coarser precision."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from operator import attrgetter

import numpy as np

from oracles.constants import (
    HIDDEN_STEP,
    LEAST_BEND,
    LEAST_ERROR_IN_ROUNDINGS,
    REARRANGED_AXES,
    TERM_UNCERTAINTIES,
)
from oracles.decision.precision import point_on_a_line
from oracles.diagnosis.experiments import (
    Axes,
    Symptoms,
    Trial,
    added_factor,
    agrees,
    axes_text,
    axis_subsets,
    least_squares_factor,
)
from oracles.numerics import unit_roundoff
from oracles.rule import Array, as_tuple


def added_constant(symptoms: Symptoms) -> str | None:
    """Detect one number added to every entry."""
    if symptoms.expected.size < 2 or not symptoms.has_expected_shape:
        return None
    ones = np.ones(symptoms.expected.shape)
    constant = added_factor(symptoms.refusal.error, ones, symptoms.tolerance)
    if constant is None:
        return None
    c, uncertainty = constant
    if not symptoms.always(partial(_is_constant_error, c=c, uncertainty=uncertainty)):
        return None
    return f"the error is the constant {float(c):.6g}, in every entry and for every delta"


def _is_constant_error(trial: Trial, c: Array, uncertainty: Array) -> bool:
    constant = np.full_like(trial.expected, c)
    return bool(np.all(trial.wrong)) and agrees(trial.error, constant, trial.tolerance + uncertainty)


def added_array(symptoms: Symptoms) -> str | None:
    """Detect a multiple of a known array that is added: weight decay, a skip path, another term."""
    if not symptoms.has_expected_shape:
        return None
    for name, array in _summands(symptoms.refusal).items():
        # An array of one magnitude looks like a constant, except for delta, which each trial draws anew.
        if np.unique(np.abs(array)).size < 2 and not name.startswith("delta"):
            continue
        factor = added_factor(symptoms.refusal.error, array, symptoms.tolerance)
        if factor is None or not symptoms.always(partial(_is_added, name, *factor, attrgetter("tolerance"))):
            continue
        # Near a kink a wide tolerance lets a mean of different factors pass for one.
        c, uncertainty = least_squares_factor(symptoms.refusal.error, array, symptoms.refusal.sharp_tolerance)
        if symptoms.always(partial(_is_added, name, c, uncertainty, attrgetter("sharp_tolerance"))):
            return f"the error is {float(c):.6g} × {name}{_meaning(symptoms, name, float(c), float(uncertainty))}"
    return None


def _meaning(symptoms: Symptoms, name: str, c: float, uncertainty: float) -> str:
    if name == symptoms.name:
        return ": a weight decay term in the gradient"
    if name != "delta":
        return ""
    if abs(abs(c) - 1) > uncertainty:
        return ": a constant in the derivative is missing, or too many"
    return ": an identity (skip) term is " + ("missing" if c < 0 else "too many")


def _is_added(name: str, c: Array, uncertainty: Array, tolerance_of: Callable[[Trial], Array], trial: Trial) -> bool:
    if not np.any(trial.wrong):
        return False
    array = _summands(trial)[name]
    return agrees(trial.error, c * array, tolerance_of(trial) + uncertainty * np.abs(array))


def _summands(trial: Trial) -> dict[str, Array]:
    """Return the arrays of the cotangent's shape that may be added to it."""
    arrays = {"delta" if i == 0 else f"delta[{i}]": part for i, part in enumerate(as_tuple(trial.delta))}
    cotangents = {n: a for n, a in trial.answers.items() if n in trial.primals and n != trial.name}
    arrays |= {f"the cotangent of {n}": a for n, a in cotangents.items()}
    known = trial.known_arrays
    own = {trial.name: known.pop(trial.name)} if trial.name in known else {}
    arrays |= {**own, **{f"the sign of {n}": np.sign(a) for n, a in own.items()}, **known}
    return {n: a for n, a in arrays.items() if np.shape(a) == trial.expected.shape}


def term_along_axis(symptoms: Symptoms) -> str | None:
    """Detect an error with one coefficient for each slice along an axis: a term summed over that axis is wrong."""
    shape = symptoms.expected.shape
    if len(shape) > REARRANGED_AXES or symptoms.is_output or not symptoms.has_expected_shape:
        return None
    known = [n for n, a in symptoms.refusal.known_arrays.items() if a.shape == shape]
    # The most axes first: an error that is the same along two axes is so along each of them.
    for axes in sorted(axis_subsets(len(shape)), key=lambda axes: (-len(axes), axes[::-1])):
        n = int(np.prod([shape[a] for a in axes]))
        for name in [None, *known]:
            for with_constant in (False, True) if name else (False,):
                # Slices of as many entries as coefficients, or one more, are always nearly spanned.
                enough = n > 2 + with_constant
                relation = partial(_is_spanned, axes=axes, name=name, with_constant=with_constant)
                if enough and symptoms.in_all_trials(relation):
                    return _term_sentence(symptoms.refusal, axes, name, with_constant)
    return None


def _is_spanned(trial: Trial, axes: Axes, name: str | None, with_constant: bool) -> bool:
    """Return whether the error along the axes is a multiple of a known array, of a constant, or of both summed.

    The term must be larger than what the tolerance alone may make: errors of about one tolerance are spanned by
    anything.
    """
    array = trial.known_arrays.get(name, trial.expected) if name else np.ones_like(trial.expected)
    error, tolerance, array = (_slices_along(a, axes) for a in (trial.error, trial.tolerance, array))
    basis = np.stack(([np.ones_like(array)] if with_constant else []) + [array], axis=-1)
    inverse = np.linalg.pinv(basis)
    term = np.einsum("...nk,...k->...n", basis, np.einsum("...kn,...n->...k", inverse, error))
    # What rounding of each entry, at its worst, puts into the coefficients, and these into the term.
    of_coefficients = np.einsum("...kn,...n->...k", np.abs(inverse), tolerance)
    uncertainty = np.einsum("...nk,...k->...n", np.abs(basis), of_coefficients)
    is_significant = np.linalg.norm(term) > TERM_UNCERTAINTIES * np.linalg.norm(uncertainty)
    rest = error - term
    return bool(np.any(trial.wrong) and is_significant) and agrees(rest, np.zeros_like(rest), tolerance + uncertainty)


def _slices_along(array: Array, axes: Axes) -> Array:
    """Return an array with some axes moved to the end and flattened into one."""
    moved = np.moveaxis(array, axes, range(-len(axes), 0))
    return moved.reshape(*moved.shape[: moved.ndim - len(axes)], -1)


def _term_sentence(trial: Trial, axes: Axes, name: str | None, with_constant: bool) -> str:
    where = axes_text(axes)
    if name is None:
        sums = trial.expected.sum(axes)
        if agrees(sums, np.zeros_like(sums), trial.tolerance.sum(axes)):
            meaning = f" — the oracle's sums to zero along {where}, this does not: a mean is not subtracted"
        else:
            meaning = ": a term summed over it is missing or wrong"
        return f"the error is the same number all along {where}{meaning}"
    constant = " plus another" if with_constant else ""
    return f"along {where} the error is a number times {name}{constant}: a term summed over {where} is missing or wrong"


STORED_IN = ("float32", "float16", "bfloat16")


def coarse_rounding(symptoms: Symptoms) -> str | None:
    """Detect errors that are the rounding of a coarser precision, drawn anew when the inputs move.

    They stay when the subject is fed with float64, since it computes in the coarser precision inside.
    """
    if not symptoms.has_expected_shape or symptoms.shrinks_in_float64:
        return None
    actual, expected = symptoms.refusal.actual, symptoms.expected
    for name in STORED_IN:
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
    """Return whether the error jumps over a few roundings of the precision, and stays over a small part of one.

    The error of a formula, or of an iteration that stops early, is straight over so little. Noise does not stay.
    """
    first = symptoms.refusal.error
    near, far, hidden = (_error_at(symptoms, k, name, ratio) for k in (1, 2, HIDDEN_STEP))
    if near is None or far is None or hidden is None:
        return False
    largest = max(np.linalg.norm(e) for e in (first, near, far))
    stays = np.linalg.norm(hidden - first) <= LEAST_BEND * np.linalg.norm(first)
    return bool(stays and np.linalg.norm(far - 2 * near + first) > LEAST_BEND * largest)


def _error_at(symptoms: Symptoms, k: float, name: str, ratio: float) -> Array | None:
    """Return the error k steps away; ``None`` if it is not small there."""
    trial = symptoms.evaluate_at(*point_on_a_line(symptoms.primals, symptoms.delta, k, name))
    if trial is None or not agrees(trial.actual, trial.expected, ratio * trial.tolerance):
        return None
    return trial.error

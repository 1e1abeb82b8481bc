"""Patterns of one operation of the reference without its derivative, or with another one, found by editing it.

Torch and JAX differentiate the reference again with one operation changed: detached (a statistic, a maximum, a
normaliser that is taken for a constant), with the derivative 1, or with its value in place of its derivative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from itertools import combinations

import numpy as np

from oracles.constants import LONE_ENTRY_FACTOR, MOST_EDITS, PRODUCT_ROUNDINGS
from oracles.diagnosis.candidates import Candidate, first_confirmed, floating_primals, formula, is_near
from oracles.diagnosis.edited_references import Contributions, Edit, RecordedOperation, edited, operations
from oracles.diagnosis.experiments import Expectation, Symptoms, Trial, axes_text, axis_subsets
from oracles.rule import Array, Rule

# Operations that only move entries: an edit of one is an edit of the operation before it.
MOVING = {"reshape", "broadcast_in_dim", "convert_element_type", "squeeze", "transpose", "__get__", "unsqueeze", "copy"}
# Elementwise operations without a derivative that could be forgotten.
LINEAR = {"add", "sub", "rsub", "mul", "neg", "div", "truediv", "stop_gradient", "detach", "to", "float", "double"}


def detached_term(symptoms: Symptoms) -> str | None:
    """Detect that the derivative through one operation is missing: a statistic, a maximum, a factor of a product."""
    if symptoms.is_output or not symptoms.has_expected_shape:
        return None
    sentence = (
        "it is the oracle's value without the derivative through {}: what that depends on is taken for a constant"
    )
    candidates = (
        (sentence.format(words), _edited_candidate(symptoms, edited(symptoms.oracle, edits, operand)))
        for words, value, edits, operand in _cuts(symptoms)
        if is_near(symptoms.refusal.actual, value)
    )
    return first_confirmed(symptoms, candidates)


def evaluation_statistics(symptoms: Symptoms) -> str | None:
    """Detect statistics of the batch that are differentiated as constants, as in evaluation mode, or the reverse."""
    if symptoms.is_output or np.shape(symptoms.delta) != symptoms.expected.shape or not symptoms.has_expected_shape:
        return None
    constants = first_confirmed(symptoms, _with_constant_statistics(symptoms))
    return constants or first_confirmed(symptoms, _with_differentiated_statistics(symptoms))


def edited_derivative(edit: Edit, words: str, symptoms: Symptoms) -> str | None:
    """Detect another derivative of one elementwise operation inside the reference."""
    if symptoms.is_output or not symptoms.has_expected_shape:
        return None
    contributions = _probed(symptoms)
    if contributions is None:
        return None
    elementwise = [o for o in contributions.recorded if o.is_elementwise and o.name.strip("_") not in MOVING | LINEAR]
    candidates = (
        (
            f"it is the oracle's value with {words} {_name(o)}",
            _edited_candidate(symptoms, edited(symptoms.oracle, {o.index: edit})),
        )
        for o in elementwise
        if is_near(symptoms.refusal.actual, contributions.with_derivative(o, edit))
    )
    return first_confirmed(symptoms, candidates)


# Three patterns ask for the same in turn.
@lru_cache(maxsize=1)
def _probed(symptoms: Symptoms) -> Contributions | None:
    """Return what each operation of the reference contributes; ``None`` if there are none, or too many."""
    oracle, primals, delta = symptoms.oracle, symptoms.primals, symptoms.refusal.delta
    recorded = operations(oracle, primals)
    if not 0 < len(recorded) <= MOST_EDITS:
        return None
    return Contributions(oracle, recorded, primals, delta, symptoms.name)


def _cuts(symptoms: Symptoms) -> Iterator[tuple[str, Array, dict[int, Edit], tuple[int, int] | None]]:
    """Yield the operations that are cut, one operand of an operation, and two reductions.

    Each comes with the cotangent that is left, and with what makes the reference of it.
    """
    contributions = _probed(symptoms)
    if contributions is None:
        return
    changing = [o for o in contributions.recorded if o.name not in MOVING]
    total = contributions.total
    # Reductions first: statistics and normalisers are what is forgotten most often.
    for o in sorted(changing, key=lambda o: not o.is_reduction):
        yield _name(o), total - contributions.through(o), {o.index: Edit.CUT}, None
        for i in range(len(o.operands)) if len(o.operands) > 1 else ():
            yield f"operand {i} of {_name(o)}", total - contributions.through(o, i), {}, (o.index, i)
    for first, second in combinations([o for o in changing if o.is_reduction], 2):
        left = total - contributions.through_both(first, second)
        yield f"{_name(first)} and {_name(second)}", left, {first.index: Edit.CUT, second.index: Edit.CUT}, None


def _name(operation: RecordedOperation) -> str:
    return f"{operation.name.strip('_')} (operation {operation.index} of the reference)"


def _edited_candidate(symptoms: Symptoms, rule: Rule) -> Candidate:
    return partial(_edited_answer, replace(symptoms, oracle=rule))


def _edited_answer(symptoms: Symptoms, trial: Trial) -> Expectation:
    other = symptoms.compare(trial.actual, trial.primals, trial.delta)
    return Expectation(other.expected, lambda: other.tolerance)


def _with_constant_statistics(symptoms: Symptoms) -> Iterator[tuple[str, Candidate]]:
    """Yield delta times the slope of the output in each slice: with statistics of the slice held constant."""
    words = "the statistics over {} are taken for constants, as in evaluation mode: their derivative is missing"
    for axes in _axes_with_statistics(symptoms):
        yield words.format(axes_text(axes)), partial(_slope_times_delta, symptoms, axes)


def _axes_with_statistics(symptoms: Symptoms) -> Iterator[tuple[int, ...]]:
    """Yield the sets of axes along which there are entries enough for a mean and a variance."""
    for axes in axis_subsets(symptoms.expected.ndim):
        if np.prod([symptoms.expected.shape[a] for a in axes]) > 2:
            yield axes


def _slope_times_delta(symptoms: Symptoms, axes: tuple[int, ...], trial: Trial) -> Expectation:
    """Return delta · a, where y = a x + b in each slice along the axes; NaN if y is no such function of x."""
    x, delta = trial.primals[trial.name], np.asarray(trial.delta)
    plain, factor = _without_affine(symptoms, trial)
    centred = x - x.mean(axes, keepdims=True)
    square = np.sum(centred * centred, axis=axes, keepdims=True)
    slope = np.sum(centred * plain, axis=axes, keepdims=True) / square
    rest = plain - plain.mean(axes, keepdims=True) - slope * centred
    tolerance = trial.tolerances()["output"]
    tolerance = tolerance + np.sum(tolerance, axis=axes, keepdims=True)
    if not np.all(np.abs(rest) <= PRODUCT_ROUNDINGS * tolerance):
        return Expectation(np.full(x.shape, np.nan), lambda: tolerance)
    value = delta * factor * slope
    # A slope is as uncertain as the output, relative to it, along its slice.
    relative = np.sum(tolerance, axis=axes, keepdims=True) / np.sqrt(square)
    return formula(value, symptoms, np.abs(delta * factor) * relative)


def _without_affine(symptoms: Symptoms, trial: Trial) -> tuple[Array, Array]:
    """Return the output of a normalization with its factor γ replaced by 1, and that factor."""
    y, tolerance = trial.outputs[0], PRODUCT_ROUNDINGS * trial.tolerances()["output"]
    for name, array in floating_primals(symptoms).items():
        if name == trial.name or np.shape(array) == y.shape or not _fits(np.shape(array), y.shape):
            continue
        factor, x = trial.primals[name], trial.primals[trial.name]
        plain, shift, moved = (
            np.asarray(symptoms.oracle(**{**trial.primals, name: np.full_like(factor, k), trial.name: at})[0], float)
            for k, at in ((1.0, x), (0.0, x), (0.0, x * LONE_ENTRY_FACTOR))
        )
        # With the factor 0 only the shift is left, which does not depend on x. A shift itself moves y by 1 throughout.
        is_factor = np.all(np.abs(moved - shift) <= tolerance) and np.any(np.abs(plain - shift - 1) > tolerance)
        if is_factor and np.all(np.abs(y - shift - factor * (plain - shift)) <= tolerance):
            return plain - shift, factor
    return y, np.ones(())


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _with_differentiated_statistics(symptoms: Symptoms) -> Iterator[tuple[str, Candidate]]:
    """Yield the gradient through a mean and a variance over some axes, where the oracle takes both for constants."""
    words = (
        "statistics over {} are differentiated, which the oracle takes for constants: the derivative of training mode "
        "in evaluation mode"
    )
    for axes in _axes_with_statistics(symptoms):
        yield words.format(axes_text(axes)), partial(_projected, symptoms, axes)


def _projected(symptoms: Symptoms, axes: tuple[int, ...], trial: Trial) -> Expectation:
    """Return e - mean(e) - n · mean(e · n) of the oracle's value e, n being the output without its affine map."""
    plain, _ = _without_affine(symptoms, trial)
    e, tolerance = trial.expected, trial.tolerance
    value = e - e.mean(axes, keepdims=True) - plain * (e * plain).mean(axes, keepdims=True)
    size = tolerance + tolerance.mean(axes, keepdims=True)
    size = size + np.abs(plain) * (np.abs(plain) * tolerance).mean(axes, keepdims=True)
    spread = np.abs(e) + np.abs(e).mean(axes, keepdims=True)
    spread = spread + np.abs(plain) * (np.abs(plain * e)).mean(axes, keepdims=True)
    return formula(value, symptoms, PRODUCT_ROUNDINGS * size + formula(spread, symptoms).tolerance())

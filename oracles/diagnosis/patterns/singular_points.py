"""Patterns of points without a derivative: ties between two primals, and NaN from a branch that is not selected."""

from __future__ import annotations

from functools import partial

import numpy as np

from oracles.constants import LARGE_VALUE, SMALL_MOVE, UNTYING_FACTORS, VALUES_FOR_TIED_ZEROS
from oracles.diagnosis.candidates import floating_primals
from oracles.diagnosis.experiments import Symptoms, Trial, spread_over
from oracles.diagnosis.patterns.locations import describe_wrong_entries
from oracles.rule import Array, Output, Primals, is_differentiable

EXPERIMENT_ENTRIES = 4  # of the values that a sentence shows


def tie_between_operands(symptoms: Symptoms) -> str | None:
    """Detect errors only where entries of two primals are equal: |p - q| at p = q, max(a, b) at a = b."""
    if not symptoms.has_expected_shape or not np.any(symptoms.refusal.wrong):
        return None
    floating = list(floating_primals(symptoms).items())
    for i, (first, p) in enumerate(floating):
        for second, q in floating[i + 1 :]:
            # A lone number equals an entry of another primal by chance, and one entry shows no pattern.
            if (
                p.shape == q.shape
                and p.size > 1
                and symptoms.in_all_trials(partial(_is_wrong_only_at_ties, first, second))
            ):
                trial = _without_ties(symptoms, first, second)
                if trial is not None and _is_right(trial):
                    where = describe_wrong_entries(symptoms)
                    return f"wrong only at ties, where {first} and {second} are equal{where}; right once they differ"
    return None


def _is_wrong_only_at_ties(first: str, second: str, trial: Trial) -> bool:
    tied = spread_over(trial.primals[first] == trial.primals[second], trial.expected.shape)
    return bool(np.any(trial.wrong) and not np.any(trial.wrong & ~tied))


def _without_ties(symptoms: Symptoms, first: str, second: str) -> Trial | None:
    # A fixed seed: a diagnosis is a function of the refused call.
    rng = np.random.default_rng(4)
    p, q = symptoms.primals[first], symptoms.primals[second]
    zeros, factors = rng.uniform(*VALUES_FOR_TIED_ZEROS, q.shape), rng.uniform(*UNTYING_FACTORS, q.shape)
    apart = np.where(p == q, np.where(q == 0, zeros, q * factors), q)
    return symptoms.evaluate_at({**symptoms.primals, second: apart}, symptoms.draw_delta(2))


def _is_right(trial: Trial) -> bool:
    """Return whether nothing is refused, and something is known."""
    return not np.any(trial.wrong) and bool(np.any(np.isfinite(trial.tolerance) & trial.informative))


def nan_behind_where(symptoms: Symptoms) -> str | None:
    """Detect NaN or infinity from a derivative that is infinite where the forward does not use it: 0·∞, 0/0.

    The NaN must stay when delta is zero wherever it could reach these entries; a derivative that is infinite itself
    gives none then.
    """
    if symptoms.is_output or not symptoms.primal_agrees or not symptoms.has_expected_shape:
        return None
    trial = symptoms.refusal
    singular = ~np.isfinite(trial.actual)
    finite = np.isfinite(trial.expected)
    if not np.any(singular & finite) or np.any(trial.wrong & ~singular) or np.all(singular):
        return None
    name = symptoms.name
    if _are_the_largest(symptoms.primals[name], singular):
        return None
    moved = _with_regular_values(symptoms.primals, name, singular)
    # The third delta: nothing was learned from it.
    regular = symptoms.evaluate_at(moved, symptoms.draw_delta(2))
    again = symptoms.evaluate_at(symptoms.primals, _without_influence(symptoms, singular))
    if regular is None or again is None or not _is_right(regular) or np.any(np.isfinite(again.actual[singular])):
        return None
    if not (_is_outside_a_domain(symptoms.primals[name], singular) or _is_isolated(symptoms, singular)):
        return None
    where = _values_text(name, symptoms.primals[name], singular)
    return (
        f"NaN or infinite {where} ({np.count_nonzero(singular)} of {singular.size} entries), where the output is right "
        "and the oracle's value is finite; it stays so for a delta of zeros there: an infinite derivative times 0, or "
        "0/0, that a where hides in the forward. Replace the argument before the operation, not only the result after"
    )


def _is_outside_a_domain(primal: Array, singular: Array) -> bool:
    """Return whether 0, 1 or −1 divides the values at singular entries from all others, as for √x and arcsin x."""
    inside, outside = primal[singular], primal[~singular]
    return any(
        bool(np.all(change(inside) <= edge) and np.all(change(outside) >= edge))
        for change in (np.positive, np.negative, lambda a: -np.abs(a))
        for edge in (0.0, 1.0, -1.0)
    )


def _is_isolated(symptoms: Symptoms, singular: Array) -> bool:
    """Return whether the singular entries become finite once their values change by little."""
    primal = symptoms.primals[symptoms.name]
    moved = np.where(singular, primal + SMALL_MOVE * np.maximum(np.abs(primal), SMALL_MOVE), primal)
    trial = symptoms.evaluate_at({**symptoms.primals, symptoms.name: moved}, symptoms.delta)
    return trial is not None and bool(np.all(np.isfinite(trial.actual[singular])))


def _are_the_largest(primal: Array, singular: Array) -> bool:
    """Return whether the finite values at singular entries are large, and larger than all others: they overflow."""
    sizes = np.abs(primal)
    least = float(np.min(sizes[singular]))
    return bool(np.isfinite(least) and least > max(LARGE_VALUE, float(np.max(sizes[~singular]))))


def _with_regular_values(primals: Primals, name: str, singular: Array) -> Primals:
    """Replace the values at singular entries by others of the same primal, a little smaller."""
    rng = np.random.default_rng(5)
    donors = primals[name][~singular]
    values = rng.choice(donors, singular.shape) * rng.uniform(*UNTYING_FACTORS, singular.shape)
    return {**primals, name: np.where(singular, values, primals[name])}


def _without_influence(symptoms: Symptoms, singular: Array) -> Output:
    """Return delta with zeros at the singular entries where it has the primal's shape, else zeros throughout."""

    def zeroed(d: Array) -> Array:
        return np.where(singular, 0.0, d) if d.shape == singular.shape else np.zeros_like(d)

    delta = symptoms.draw_delta(3)
    return tuple(map(zeroed, delta)) if isinstance(delta, tuple) else zeroed(delta)


def _values_text(name: str, primal: Array, singular: Array) -> str:
    values = np.unique(primal[singular]) if is_differentiable(primal) else np.array([])
    shown = ", ".join(f"{v:.6g}" for v in values[:EXPERIMENT_ENTRIES])
    if 0 < values.size <= EXPERIMENT_ENTRIES and not np.any(np.isin(primal[~singular], values)):
        return f"where {name} is {shown}"
    return f"at some entries of {name} ({shown}{', …' if values.size > EXPERIMENT_ENTRIES else ''})"

"""Patterns of a factor, and of a sum or mean over an axis that is missing or one too many.

A factor is one for the whole array, one for each slice, or a known array, entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from oracles.constants import PRODUCT_ROUNDINGS, REARRANGED_AXES
from oracles.diagnosis.experiments import (
    Axes,
    Symptoms,
    Trial,
    agrees,
    axes_text,
    axis_subsets,
    broadcasts_to,
    least_squares_factor,
)
from oracles.diagnosis.patterns.rearrangements import is_rearranged
from oracles.rule import Array

# How many a sentence names: a report line must stay readable.
SHOWN_FACTORS = 4
SHOWN_MEANINGS = 2  # of one factor
SHOWN_NAMES = 3  # of the axes that have an extent


def constant_factor(symptoms: Symptoms) -> str | None:
    """Detect one factor in all entries, and say what it equals."""
    if not symptoms.has_expected_shape:
        return None
    actual, expected, tolerance = symptoms.refusal.actual, symptoms.expected, symptoms.tolerance
    k, uncertainty = least_squares_factor(actual, expected, tolerance)
    if not (np.isfinite(k) and k != 0 and symptoms.always(partial(_is_multiple, k=k, uncertainty=uncertainty))):
        return None
    factor, sign = float(k), float(np.sign(k))
    meanings = [
        (candidate, meaning)
        for candidate, meaning in _meaningful_factors(symptoms)
        if candidate != 1 and symptoms.always(partial(_is_multiple, k=np.asarray(sign * candidate)))
    ]
    if meanings:
        nearest = min((candidate for candidate, _ in meanings), key=lambda candidate: abs(candidate - abs(factor)))
        distinct = list(dict.fromkeys(meaning for candidate, meaning in meanings if candidate == nearest))
        sentence = f"every entry is {sign * nearest:.6g} times the oracle's: {nearest:.6g} is "
        return sentence + ", or ".join(distinct[:SHOWN_MEANINGS]) + (", of the wrong sign" if sign < 0 else "")
    if symptoms.always(partial(_is_multiple, k=np.asarray(-1.0))):
        return "every entry is -1 times the oracle's: the sign is wrong"
    return f"every entry is {factor:.10g} times the oracle's"


def _is_multiple(trial: Trial, k: Array, uncertainty: Array | float = 0.0) -> bool:
    """Return whether the subject's answer is k times the oracle's, k being uncertain by ``uncertainty``."""
    tolerance = np.abs(k) * trial.tolerance + uncertainty * np.abs(trial.expected)
    return bool(np.any(trial.informative)) and agrees(trial.actual, k * trial.expected, tolerance)


def _meaningful_factors(symptoms: Symptoms) -> Iterator[tuple[float, str]]:
    """Yield the factors that have a meaning for these shapes, with their meaning."""
    yield 2.0, "a factor 2 too many"
    yield 0.5, "a factor 2 too few"
    for n, extent in ((n, extent) for n, extent in _extents(symptoms) if n > 1):
        yield n, f"{extent} — a sum where a mean belongs"
        yield 1 / n, f"1/{extent} — a mean where a sum belongs"
        yield n / 2, f"half of {extent} — a sum where a mean belongs, and a factor 2 too few"
        yield 2 / n, f"2/{extent} — a mean where a sum belongs, and a factor 2 too many"
        yield n**0.5, f"the square root of {extent}"
        yield n**-0.5, f"1 over the square root of {extent}"
        if n == 2:  # (n - 1)/n is a half, which has better explanations
            continue
        yield (n - 1) / n, f"(n - 1)/n for n = {n}, {extent} — sample and population variance mixed up"
        yield n / (n - 1), f"n/(n - 1) for n = {n}, {extent} — sample and population variance mixed up"


def _extents(symptoms: Symptoms) -> Iterator[tuple[int, str]]:
    """Yield every extent with the axes that have it, then the numbers of entries that are no extent."""
    outputs = {n: a for n, a in symptoms.refusal.answers.items() if n.startswith("output")}
    axes: dict[int, list[str]] = {}
    sizes: dict[int, list[str]] = {}
    for name, array in {**symptoms.primals, **outputs}.items():
        for axis, n in enumerate(np.shape(array)):
            axes.setdefault(n, []).append(f"axis {axis} of {name}")
        sizes.setdefault(np.size(array), []).append(name)
        if np.ndim(array) > 2:
            sizes.setdefault(int(np.prod(np.shape(array)[-2:])), []).append(f"the last two axes of {name}")
    for n, names in axes.items():
        extent = "N, the number of rows" if any(name.startswith("axis 0") for name in names) else "the extent"
        yield n, f"{extent} ({', '.join(names[:SHOWN_NAMES])})"
    for n, names in sizes.items():
        if n not in axes:
            yield n, f"the number of entries ({', '.join(names[:SHOWN_NAMES])})"


def factor_per_group(symptoms: Symptoms) -> str | None:
    """Detect one factor for each slice along an axis: per channel, per row."""
    expected, trial = symptoms.expected, symptoms.refusal
    if not symptoms.has_expected_shape or expected.ndim < 2:
        return None
    for axis in range(expected.ndim):
        others = tuple(a for a in range(expected.ndim) if a != axis)
        counts = np.count_nonzero(trial.informative, axis=others)
        # A single entry always has a factor of its own: slices of one entry show nothing.
        if expected.shape[axis] < 2 or not np.any(counts) or np.any(counts == 1):
            continue
        k, uncertainty = map(np.nan_to_num, least_squares_factor(trial.actual, expected, symptoms.tolerance, others))
        if symptoms.always(partial(_is_multiple, k=k, uncertainty=uncertainty)):
            values = ", ".join(f"{v:.4g}" for v in k.ravel()[:SHOWN_FACTORS]) + (
                ", …" if k.size > SHOWN_FACTORS else ""
            )
            equal = [
                n
                for n, a in symptoms.primals.items()
                if np.size(a) == k.size and agrees(k.ravel(), a.ravel(), uncertainty.ravel())
            ]
            meaning = f": these are the entries of {equal[0]}" if equal else ""
            return f"each slice along axis {axis} is its own factor times the oracle's ({values}){meaning}"
    return None


def known_factor(symptoms: Symptoms) -> str | None:
    """Detect a known array multiplied once too often, or left out, entry by entry."""
    if symptoms.is_output or not symptoms.has_expected_shape:
        return None
    for name, factor in _known_factors(symptoms.refusal):
        if np.unique(np.abs(factor)).size < 2:  # a constant is the pattern constant_factor
            continue
        relation = partial(_is_product, name=name)
        if _agrees_with_product(symptoms.refusal, factor) and symptoms.always(relation):
            return f"it is the oracle's value, entry by entry, times {name}"
    return None


def _known_factors(trial: Trial) -> Iterator[tuple[str, Array]]:
    """Yield the arrays that a cotangent may be multiplied with too often or not at all."""
    arrays = trial.known_arrays
    if not isinstance(trial.delta, tuple) and trial.expected.shape == np.shape(trial.delta):
        arrays[f"the derivative, d output / d {trial.name}"] = trial.pull_back(np.ones(trial.expected.shape)).value
    if "the output" in arrays:
        y = arrays["the output"]
        arrays |= {"1 - output": 1 - y, "1 - output²": 1 - y * y}
    for name, array in arrays.items():
        if broadcasts_to(array.shape, trial.expected.shape):
            yield f"{name}: a factor too many", array
            yield f"1 / {name}: a factor is missing", 1 / array
            yield f"the square of {name}", array * array
            yield f"the square root of {name}", np.sqrt(array)


def _is_product(trial: Trial, name: str) -> bool:
    factor = next(a for n, a in _known_factors(trial) if n == name)
    return bool(np.any(trial.informative)) and _agrees_with_product(trial, factor)


def _agrees_with_product(trial: Trial, factor: Array) -> bool:
    tolerance = PRODUCT_ROUNDINGS * np.abs(factor) * trial.tolerance
    return agrees(trial.actual, factor * trial.expected, tolerance)


def divided_by_count(symptoms: Symptoms) -> str | None:
    """Detect rows, referenced more than once, that are divided by the number of references."""
    if symptoms.is_output or not symptoms.expected.ndim:
        return None
    for name, index in symptoms.primals.items():
        if index.dtype.kind in "iu" and index.ndim and symptoms.always(partial(_is_mean_of_references, name=name)):
            return f"rows that {name} references more than once are divided by how often: a mean where a sum belongs"
    return None


def _is_mean_of_references(trial: Trial, name: str) -> bool:
    counts = trial.reference_counts(name)
    k = (1 / np.maximum(counts, 1)).reshape(-1, *(1,) * (trial.expected.ndim - 1))
    return bool(np.any(counts > 1)) and agrees(trial.actual, k * trial.expected, k * trial.tolerance)


Reduction = Callable[..., Array]
REDUCTIONS: tuple[tuple[str, Reduction], ...] = (("sum", np.sum), ("mean", np.mean))


def not_reduced(symptoms: Symptoms) -> str | None:
    """Detect an axis that a sum should have removed."""
    actual, expected = symptoms.actual, symptoms.expected
    if actual is None or actual.size <= expected.size or actual.ndim > REARRANGED_AXES or not expected.size:
        return None
    for axes in axis_subsets(actual.ndim):
        for word, reduction in REDUCTIONS:
            if symptoms.always(partial(_agrees_reduced, reduction=reduction, axes=axes)):
                return (
                    f"shape {actual.shape} for {expected.shape}: its {word} over {axes_text(axes)} is the oracle's "
                    "value — an axis that was broadcast is not reduced"
                )
    return None


def _agrees_reduced(trial: Trial, reduction: Reduction, axes: Axes) -> bool:
    """Return whether the subject's answer, once reduced, is the oracle's; axes of length one may be kept or not."""
    reduced, expected = np.asarray(reduction(trial.actual, axis=axes)), trial.expected
    if [n for n in reduced.shape if n > 1] != [n for n in expected.shape if n > 1] or not np.any(trial.informative):
        return False
    return agrees(reduced.reshape(expected.shape), expected, trial.tolerance)


def reduced_too_far(symptoms: Symptoms) -> str | None:
    """Detect a sum or mean over an axis that should have stayed."""
    shape = symptoms.expected.shape
    if len(shape) > REARRANGED_AXES:
        return None
    for axes in axis_subsets(len(shape)):
        if all(shape[a] == 1 for a in axes):
            continue
        for word, reduction in REDUCTIONS:
            for keepdims in (True, False):
                if is_rearranged(symptoms, partial(reduction, axis=axes, keepdims=keepdims)):
                    return f"it is the oracle's value reduced by a {word} over {axes_text(axes)}, which should stay"
            if is_rearranged(symptoms, partial(_reduce_and_spread, reduction=reduction, axes=axes)):
                where = axes_text(axes)
                return f"all entries along {where} hold the {word} of the oracle's value over {where}"
    return None


def _reduce_and_spread(array: Array, reduction: Reduction, axes: Axes) -> Array:
    return np.broadcast_to(reduction(array, axis=axes, keepdims=True), array.shape)

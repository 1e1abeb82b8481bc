"""Patterns of a factor, and of a sum or mean over an axis that is missing or one too many.

A factor is one for the whole array, one for each slice, or a known array, entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from oracles.constants import (
    FACTOR_SPREAD,
    FACTOR_TOLERANCES,
    LEAST_FACTOR,
    PRODUCT_ROUNDINGS,
    REARRANGED_AXES,
    TERM_UNCERTAINTIES,
)
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
from oracles.numerics import NARROW
from oracles.rule import Array

# How many a sentence names: a report line must stay readable.
SHOWN_FACTORS = 4
SHOWN_MEANINGS = 2  # of one factor
SHOWN_NAMES = 3  # of the axes that have an extent


def constant_factor(symptoms: Symptoms) -> str | None:
    """Detect one factor in all entries, and say what it equals."""
    if not symptoms.has_expected_shape:
        return None
    found = _factor_of(symptoms.refusal)
    if found is None or not symptoms.always(partial(_is_multiple, k=found[0], uncertainty=found[1])):
        return None
    factor = float(found[0])
    if symptoms.always(partial(_is_multiple, k=np.asarray(-1.0))):
        return "every entry is -1 times the oracle's: the sign is wrong"
    if symptoms.is_further or symptoms.is_whole:
        return f"every entry is {_rounded(factor, symptoms)} times the oracle's"
    elsewhere = [other.refusal for other in symptoms.further]
    if not all(_is_multiple(trial, found[0], found[1]) for trial in elsewhere):
        return f"every entry is {factor:.6g} times the oracle's, and another number times it at other values"
    sign = float(np.sign(factor))
    meanings = _confirmed_meanings(symptoms, factor)
    if meanings:
        nearest = min((candidate for candidate, _ in meanings), key=lambda candidate: abs(candidate - abs(factor)))
        distinct = list(dict.fromkeys(meaning for candidate, meaning in meanings if candidate == nearest))
        sentence = f"every entry is {sign * nearest:.6g} times the oracle's: {nearest:.6g} is "
        return sentence + ", or ".join(distinct[:SHOWN_MEANINGS]) + (", of the wrong sign" if sign < 0 else "")
    in_all_shapes = all(_is_multiple(trial, found[0], found[1]) for trial in symptoms.other_shapes)
    where = "" if in_all_shapes else ", and another number times it in other shapes"
    return f"every entry is {_rounded(factor, symptoms)} times the oracle's{where}"


def _rounded(factor: float, symptoms: Symptoms) -> str:
    """Return a factor to the digits that entries in low precision determine."""
    return f"{factor:.3g}" if symptoms.precision in NARROW else f"{factor:.10g}"


def _factor_of(trial: Trial) -> tuple[Array, Array] | None:
    """Return the factor and its uncertainty; ``None`` if rounding may have made it."""
    known = np.isfinite(trial.tolerance) & np.isfinite(trial.actual) & np.isfinite(trial.expected)
    k, uncertainty = least_squares_factor(trial.actual[known], trial.expected[known], trial.tolerance[known])
    sizes = np.abs(trial.expected[known & (trial.expected != 0)])
    rounding = np.median(trial.tolerance[known & (trial.expected != 0)] / sizes) if sizes.size else np.inf
    if not np.isfinite(k) or k == 0 or abs(k - 1) <= max(LEAST_FACTOR, FACTOR_TOLERANCES * rounding):
        return None
    return k, uncertainty


def _is_multiple(trial: Trial, k: Array, uncertainty: Array | float = 0.0) -> bool:
    """Return whether the subject's answer is k times the oracle's, k being uncertain by ``uncertainty``."""
    tolerance = np.abs(k) * trial.tolerance + uncertainty * np.abs(trial.expected)
    return bool(np.any(trial.informative)) and agrees(trial.actual, k * trial.expected, tolerance)


def _confirmed_meanings(symptoms: Symptoms, factor: float) -> list[tuple[float, str]]:
    """Return what the factor equals in this shape and in all others: its values, with their meanings."""
    size, sign, trials = abs(factor), float(np.sign(factor)), symptoms.other_shapes
    confirmed: dict[tuple[float, str], list[tuple[str, str]]] = {}
    extents = _extents(symptoms.refusal)
    for meaning in _meanings(symptoms.refusal):
        value = meaning.value(symptoms.refusal)
        near = np.isfinite(value) and abs(value - size) <= FACTOR_SPREAD * size and value != 1
        if not near or not symptoms.always(partial(_is_multiple, k=np.asarray(sign * value))):
            continue
        values = [meaning.value(trial) for trial in trials]
        # A name that no other shape could contradict may be a coincidence.
        is_tested = not meaning.location or any(v != value for v in values)
        if is_tested and all(_is_multiple(t, np.asarray(sign * v)) for t, v in zip(trials, values, strict=True)):
            confirmed.setdefault((value, meaning.words), []).append((meaning.kind, meaning.location))
    return [
        (value, words.format(_extent_text(found), n=extents.get(found[0])))
        for (value, words), found in confirmed.items()
    ]


class Meaning(NamedTuple):
    """What a factor may equal.

    Attributes:
        words: the meaning, with a place for the extent.
        kind, location: "extent" of "axis 0 of z", or "entries" of "z"; "" for a plain number.
        value: the factor that it means at a trial.
    """

    words: str
    kind: str
    location: str
    value: Callable[[Trial], float]


# A function of an extent n, and what it means as a factor.
FUNCTIONS_OF_AN_EXTENT: tuple[tuple[str, Callable[[float], float]], ...] = (
    ("{} — a sum where a mean belongs", lambda n: n),
    ("1/{} — a mean where a sum belongs", lambda n: 1 / n),
    ("half of {} — a sum where a mean belongs, and a factor 2 too few", lambda n: n / 2),
    ("2/{} — a mean where a sum belongs, and a factor 2 too many", lambda n: 2 / n),
    ("the square root of {}", lambda n: n**0.5),
    ("1 over the square root of {}", lambda n: n**-0.5),
    ("(n - 1)/n for n = {n}, {} — sample and population variance mixed up", lambda n: (n - 1) / n),
    ("n/(n - 1) for n = {n}, {} — sample and population variance mixed up", lambda n: n / (n - 1)),
)


def _meanings(trial: Trial) -> Iterator[Meaning]:
    """Yield the factors that have a meaning for these shapes."""
    yield Meaning("a factor 2 too many", "", "", lambda _: 2.0)
    yield Meaning("a factor 2 too few", "", "", lambda _: 0.5)
    for (kind, location), n in _extents(trial).items():
        for words, function in FUNCTIONS_OF_AN_EXTENT if n > 1 else ():
            yield Meaning(words, kind, location, partial(_value_at, function, kind, location))


def _value_at(function: Callable[[float], float], kind: str, location: str, trial: Trial) -> float:
    n = _extents(trial)[kind, location]
    return function(n) if n > 1 else np.nan


def _extents(trial: Trial) -> dict[tuple[str, str], int]:
    """Return every extent and number of entries by kind and location."""
    outputs = {n: a for n, a in trial.answers.items() if n.startswith("output")}
    arrays = {**trial.primals, **outputs}
    extents = {("extent", f"axis {i} of {n}"): extent for n, a in arrays.items() for i, extent in enumerate(a.shape)}
    extents |= {("entries", n): a.size for n, a in arrays.items() if a.ndim != 1}
    slices = {n: int(np.prod(a.shape[-2:])) for n, a in arrays.items() if a.ndim > 2}
    return {**extents, **{("entries", f"the last two axes of {n}"): size for n, size in slices.items()}}


def _extent_text(found: list[tuple[str, str]]) -> str:
    """Name an extent by the axes that have it in every shape, or else by the arrays that have so many entries."""
    axes = [location for kind, location in found if kind == "extent"]
    if not axes:
        return f"the number of entries ({', '.join([location for _, location in found][:SHOWN_NAMES])})"
    extent = "N, the number of rows" if any(name.startswith("axis 0") for name in axes) else "the extent"
    return f"{extent} ({', '.join(axes[:SHOWN_NAMES])})"


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
        # Factors that differ by no more than their uncertainty are one factor, and then something else is wrong too.
        is_one = np.all(np.abs(k - np.median(k)) <= TERM_UNCERTAINTIES * uncertainty)
        is_rounding = is_one or np.all(np.abs(k - 1) <= LEAST_FACTOR)
        if not is_rounding and symptoms.always(partial(_is_multiple, k=k, uncertainty=uncertainty)):
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


SumOver = Callable[..., Array]
REDUCTIONS: tuple[tuple[str, SumOver], ...] = (("sum", np.sum), ("mean", np.mean))


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


def _agrees_reduced(trial: Trial, reduction: SumOver, axes: Axes) -> bool:
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


def _reduce_and_spread(array: Array, reduction: SumOver, axes: Axes) -> Array:
    return np.broadcast_to(reduction(array, axis=axes, keepdims=True), array.shape)

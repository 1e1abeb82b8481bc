"""Find a small point that shows a gross error of a large one: windows of rows, columns or channels around the error.

What follows a first comparison (more samples of rounding, kinks, finer precisions, experiments of a diagnosis) takes
hundreds of evaluations. On a large array that does not end, and a gross error needs none of its size to show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np

from oracles.constants import (
    FIRST_SAMPLES,
    GROSS_RATIO,
    GROSS_STORED,
    LEAST_WINDOW,
    MOST_RESAMPLED,
    PART_INPUTS,
    PART_WINDOW,
    REDUCED_INPUTS,
    SAME_VALUE,
)
from oracles.decision.comparison import Comparison, value_and_radius
from oracles.rule import Array, Output, Primals, Rule, as_tuple, is_differentiable, map_delta, with_dtype
from oracles.time_budget import require_time
from oracles.tolerance import tolerance_at, values_of
from oracles.user_code import attempt
from oracles.verdict import Setting

# Which axes of one extent are cut: the first or the last of every array, the first of one primal, or all.
Position: TypeAlias = int | str | None


def is_reducible(comparison: Comparison) -> bool:
    """Return whether an array of a large point is off by so much that a smaller point may show it too."""
    return count_inputs(comparison.setting.primals) > REDUCED_INPUTS and _is_gross(comparison)


def count_inputs(primals: Primals) -> int:
    """Return the number of entries of all primals that have a cotangent."""
    return sum(np.size(a) for a in primals.values() if is_differentiable(a))


def reduced_point(comparison: Comparison) -> tuple[Primals, Output] | None:
    """Return primals and a delta of fewer entries where the same array is grossly wrong; ``None`` if none is found."""
    setting, place = comparison.setting, _worst_entry(comparison)
    shows_error = partial(_shows_error, setting, comparison.name)
    centre_of = partial(_centre, comparison.actual.shape, place)
    primals, delta = _smaller_point(setting, LEAST_WINDOW, centre_of, shows_error)
    # The weights of a network of fixed widths stay as they are; fewer rows are less work all the same.
    return (primals, delta) if count_inputs(primals) < count_inputs(setting.primals) else None


def with_samples_at_part(comparison: Comparison, samples: int) -> Comparison:
    """Return the comparison with more samples of rounding at its refused entries alone, if a part of the point allows.

    Of ten million right entries, two samples refuse some. The part keeps the rows (or columns …) that have one, in the
    arrays of the refused array's shape. It serves where the reference has the same values there as in the whole.
    """
    if count_inputs(comparison.setting.primals) <= REDUCED_INPUTS:
        return comparison
    refused = np.argwhere(comparison.refused)
    if not 0 < len(refused) <= MOST_RESAMPLED:
        return comparison
    for axis in range(refused.shape[1]):
        rows = np.unique(refused[:, axis])
        if len(rows) <= comparison.actual.shape[axis] // 4:
            tolerance = attempt(partial(_tolerance_of_rows, comparison, axis, rows, refused, samples))
            if isinstance(tolerance, np.ndarray):
                whole = np.array(comparison.tolerance)
                whole[tuple(refused.T)] = np.maximum(tolerance, whole[tuple(refused.T)])
                return replace(comparison, tolerance=whole)
    return comparison


def _tolerance_of_rows(comparison: Comparison, axis: int, rows: Array, refused: Array, samples: int) -> Array | None:
    """Return the tolerance of the refused entries, from some rows alone; ``None`` if the reference differs there.

    Raises:
        Exception: whatever the oracles raise for fewer rows.
    """
    setting, name, shape = comparison.setting, comparison.name, comparison.actual.shape

    def cut(array: Array) -> Array:
        return np.take(array, rows, axis) if np.shape(array) == shape else array

    primals = {n: cut(a) for n, a in comparison.estimator.primals.items()}
    delta = map_delta(cut, comparison.estimator.delta)
    there = refused.copy()
    there[:, axis] = np.searchsorted(rows, refused[:, axis])
    entries, whole = tuple(there.T), tuple(refused.T)
    answers = {}
    for oracle in comparison.references:
        answers[oracle.name] = values_of(oracle, primals, delta)
        own, expected = answers[oracle.name][name][entries], value_and_radius(comparison.answers[oracle.name])[0][whole]
        if not np.all(np.abs(own - expected) <= SAME_VALUE * np.abs(expected)):
            return None
    numerics = comparison.estimator.numerics
    estimator = tolerance_at(setting.oracles, primals, delta, numerics, fallback=setting.subject, known=answers)
    return np.asarray(estimator.estimate(samples)[name][entries]) if answers else None


def part_of(setting: Setting) -> Setting:
    """Return the setting at a part of a large point, of axes of about `PART_WINDOW` entries, where the subject runs.

    What asks for no size, such as the layout of the arguments in memory, is asked there.
    """
    if count_inputs(setting.primals) <= PART_INPUTS:
        return setting
    primals, delta = _smaller_point(setting, PART_WINDOW, lambda *_: 0, partial(_runs, setting.subject))
    return replace(setting, primals=primals, delta=delta)


def _smaller_point(
    setting: Setting,
    shortest: int,
    centre_of: Callable[[int, Position], int],
    holds: Callable[[Primals, Output], bool],
) -> tuple[Primals, Output]:
    """Return the smallest point that is found where something holds.

    All axes of one extent are cut to one window, in the primals and in delta, the longest ones first: a batch is an
    axis of several arrays. If that finds none, the first axes of that extent alone are cut, then the last ones, since a
    square array may have a batch and a fixed width; then the first axis of one primal, which may have the batch where
    its weights are square. Windows lie around the index that ``centre_of`` returns, and double from the shortest.
    Indices into an axis that is cut are taken modulo its new extent. What the subject or a reference does not accept is
    no such point.
    """
    primals, delta = setting.primals, setting.delta
    taken = {n for a in primals.values() for n in np.shape(a)}
    for extent in sorted((n for n in taken if n > shortest), reverse=True):
        cuts = (
            (position, window)
            for position in _positions(primals, extent)
            for window in _windows(extent, shortest, centre_of(extent, position), taken)
        )
        for position, window in cuts:
            require_time()
            smaller = _cut(primals, delta, extent, window, position)
            if attempt(partial(holds, *smaller)) is True:
                primals, delta = smaller
                taken = taken | {window.stop - window.start}
                break
    return primals, delta


def _positions(primals: Primals, extent: int) -> tuple[Position, ...]:
    """Return which axes of an extent are cut together, in the order in which they are tried."""
    square = [n for n, a in primals.items() if np.shape(a).count(extent) > 1]
    return (None, 0, -1, *(n for n in square if np.shape(primals[n])[0] == extent)) if square else (None,)


def _centre(shape: tuple[int, ...], place: tuple[int, ...], extent: int, position: Position) -> int:
    """Return the index of an entry along an axis of an extent; 0 if its array has no such axis."""
    cut = _axes(position, len(shape))
    axes = [axis for axis, n in enumerate(shape) if n == extent and axis in cut]
    return place[axes[-1]] if axes else 0


def _is_gross(comparison: Comparison) -> bool:
    sharp = comparison.rounded_once or comparison
    limit = GROSS_STORED if sharp.estimator.numerics.rounds_results else GROSS_RATIO
    return any(float(np.max(ratio, initial=0.0)) > limit for ratio in sharp.ratios.values())


def _worst_entry(comparison: Comparison) -> tuple[int, ...]:
    worst = np.maximum.reduce(list(comparison.ratios.values()))
    return tuple(map(int, np.unravel_index(int(np.argmax(worst)), worst.shape)))


def _windows(extent: int, shortest: int, centre: int, taken: set[int]) -> Iterator[slice]:
    """Yield windows of doubling lengths around an index, each of a length that no other axis has.

    Two axes of one extent would hide a transpose from the diagnosis.
    """
    length = shortest
    while length < extent:
        free = next(n for n in range(length, extent + 1) if n not in taken or n == extent)
        if free < extent:
            start = min(max(centre - free // 2, 0), extent - free)
            yield slice(start, start + free)
        length *= 2


def _cut(
    primals: Primals, delta: Output, extent: int, window: slice, position: Position
) -> tuple[dict[str, Array], Output]:
    """Return the primals and delta in the window; where one primal is cut, the other floating ones as they are."""
    length = window.stop - window.start
    cut = partial(_cut_array, extent, window, position)
    kept = {n for n, a in primals.items() if isinstance(position, str) and n != position and is_differentiable(a)}
    smaller = {n: a if n in kept else cut(_wrapped(a, extent, length)) for n, a in primals.items()}
    return smaller, map_delta(cut, delta)


def _cut_array(extent: int, window: slice, position: Position, array: Array) -> Array:
    """Return the window of an array's axes of an extent."""
    # The only axis of integers is that of a batch's labels; that of floating numbers may be any.
    axes = _axes(position, array.ndim if is_differentiable(array) else max(array.ndim, 2))
    chosen = [window if axis in axes and n == extent else slice(None) for axis, n in enumerate(array.shape)]
    return np.array(array[tuple(chosen)])


def _axes(position: Position, count: int) -> range | tuple[int, ...]:
    """Return the axes of a position in an array of so many axes; none of a position in an array of one axis."""
    if position is None:
        return range(count)
    if count < 2:
        return ()
    return (0,) if isinstance(position, str) else (position % count,)


def _wrapped(array: Array, extent: int, length: int) -> Array:
    """Return integers that may index an axis of this extent as indices of the window."""
    if array.dtype.kind not in "iu" or not array.size or not length <= int(array.max()) < extent:
        return array
    return np.where(array >= length, array % length, array).astype(array.dtype)


def _runs(subject: Rule, primals: Primals, delta: Output) -> bool:
    with np.errstate(all="ignore"):
        y, pullback = subject(**primals)
        pullback(delta)
    return [np.shape(part) for part in as_tuple(y)] == [np.shape(d) for d in as_tuple(delta)]


def _shows_error(setting: Setting, name: str, primals: Primals, delta: Output) -> bool:
    """Return whether the array is grossly wrong at a point.

    Raises:
        Exception: whatever the subject or the oracles raise for such arrays.
    """
    subject = setting.subject
    with np.errstate(all="ignore"):
        actual = values_of(subject, primals, delta)
        wide, wide_delta = with_dtype(dict(primals), np.float64), with_dtype(delta, np.float64)
        answers = {o.name: values_of(o, wide, wide_delta) for o in setting.oracles if o.reference is not None}
        estimator = tolerance_at(setting.oracles, wide, wide_delta, setting.numerics, fallback=subject, known=answers)
        tolerance = estimator.estimate(FIRST_SAMPLES)[name]
        expected = {oracle: values[name] for oracle, values in answers.items() if name in values}
        array = np.asarray(actual[name])
        if not expected or array.shape != tolerance.shape:
            return False
        here = Setting(subject, setting.oracles, primals, delta, setting.numerics)
        return _is_gross(Comparison(name, array, expected, tolerance, estimator, here))

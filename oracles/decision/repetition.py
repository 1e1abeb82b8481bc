"""Tell an answer that changes, or that depends on the layout of memory, from a wrong formula and from lost digits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from oracles.backends.arrays import copied
from oracles.decision.comparison import Comparison, half_of_the_digits
from oracles.evaluations import copies_of, copies_of_delta
from oracles.nondeterminism import values_in_filled_memory
from oracles.options import HALF_NAMES
from oracles.rule import Array, Delta, Primals, Runtime, as_tuple, is_differentiable
from oracles.tolerance import values_of
from oracles.user_code import Raised, attempt
from oracles.verdict import Setting


def change_of_answer(comparison: Comparison) -> tuple[str, str]:
    """Return why a refused array is right, or another one, when the subject is called again; with a fix.

    The subject is called with copies of the same arrays, and with contiguous ones if any is not. Freed memory is filled
    before, since memory that the subject never writes may hold the same in a second call. Two empty strings if it gives
    the same answer.
    """
    setting = comparison.setting
    for reason, fix, primals, delta in _calls(setting):
        values = attempt(partial(values_in_filled_memory, setting.subject, primals, delta))
        if not isinstance(values, Raised) and _is_another(values.get(comparison.name), comparison):
            # NumPy adds in another order along another axis: in 16 bits that alone gives another sum.
            if fix and setting.precision in HALF_NAMES and _is_same_in_float64(comparison, primals, delta):
                continue
            return reason, fix
    return "", ""


def _is_same_in_float64(comparison: Comparison, primals: Primals, delta: Delta) -> bool:
    """Return whether the subject gives the same in float64, in the layout of the refused call and in another one."""
    setting = comparison.setting
    points = (setting.primals, setting.delta), (primals, delta)
    answers = []
    for of_primals, of_delta in points:
        wide = {n: widened(a) if is_differentiable(a) else a for n, a in of_primals.items()}
        wide_delta = tuple(map(widened, of_delta)) if isinstance(of_delta, tuple) else widened(of_delta)
        values = attempt(partial(values_of, setting.subject, wide, wide_delta))
        if isinstance(values, Raised) or comparison.name not in values:
            return False
        answers.append(np.asarray(values[comparison.name], np.float64))
    one, other = answers
    scale = np.max(np.abs(one), initial=0.0, where=np.isfinite(one))
    return bool(np.all(np.abs(one - other) <= half_of_the_digits("float64") * scale))


def widened(array: Array) -> Array:
    """Return an array in float64, with the same order of its axes in memory, the same gaps and repeated entries."""
    own = copied(np.asarray(array))
    memory = own.base if isinstance(own.base, np.ndarray) else None
    if memory is None or memory.ndim != 1:
        return own.astype(np.float64)
    size, wide = own.itemsize, np.asarray(memory, np.float64)
    first = (own.__array_interface__["data"][0] - memory.__array_interface__["data"][0]) // size
    strides = tuple(s // size * wide.itemsize for s in own.strides)
    return np.ndarray(own.shape, np.float64, wide, first * wide.itemsize, strides)


def _is_another(value: object, comparison: Comparison) -> bool:
    """Return whether an answer differs in a refused entry by more than the tolerance; NaN equals NaN."""
    again = np.asarray(value, np.float64) if isinstance(value, np.ndarray | np.generic) else None
    if again is None or again.shape != comparison.value.shape:
        return False
    with np.errstate(invalid="ignore"):
        same = (again == comparison.value) | (np.isnan(again) & np.isnan(comparison.value))
        same |= np.abs(again - comparison.value) <= comparison.tolerance
    return bool(np.any(~same & comparison.refused))


def _calls(setting: Setting) -> Iterator[tuple[str, str, Primals, Delta]]:
    primals, delta = setting.primals, setting.delta
    reason = "not deterministic: the same call gave another answer the second time"
    yield reason, "", copies_of(primals), copies_of_delta(delta)
    is_torch = setting.subject.runtime is Runtime.TORCH
    strides = next((np.asarray(d).strides for d in as_tuple(delta) if not _is_contiguous(d)), None)
    if strides:
        of_delta = tuple(map(_contiguous, delta)) if isinstance(delta, tuple) else _contiguous(delta)
        fix = "dy = dy.contiguous()" if is_torch else "delta = np.ascontiguousarray(delta)"
        yield f"a cotangent with strides {strides} is read as if it were contiguous", fix, copies_of(primals), of_delta
    for n, a in primals.items():
        if not _is_contiguous(a):
            fix = f"{n} = {n}.contiguous()" if is_torch else f"{n} = np.ascontiguousarray({n})"
            given = {**copies_of(primals), n: _contiguous(a)}
            yield f"{n} with strides {a.strides} is read as if it were contiguous", fix, given, copies_of_delta(delta)


def _is_contiguous(array: Array) -> bool:
    return bool(np.asarray(array).flags.c_contiguous)


def _contiguous(array: Array) -> Array:
    return np.array(array, order="C", copy=True)

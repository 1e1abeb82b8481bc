"""Patterns of calls: the memory layout of an argument, memory that is not initialised, random numbers.

They say why equal calls give different answers, so they are tried at arrays that agree with the oracle as well.
"""

from __future__ import annotations

import random as standard_random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeGuard

import numpy as np

from oracles.constants import EXPERIMENT_SEED, POISONED_BLOCKS, POISONS
from oracles.diagnosis.candidates import agrees_where_known, is_near
from oracles.diagnosis.experiments import Symptoms, Trial, evaluate, result_or_none
from oracles.lazy_modules import torch
from oracles.rule import Array, Output, Primals, Runtime, as_tuple, is_differentiable

LayoutChange = Callable[[Array], Array]


def layout(symptoms: Symptoms) -> str | None:
    """Detect a subject that is right for contiguous arrays and wrong for the same values in another memory layout.

    Where it was the subject's own answers that differed, a small other error of the contiguous call does not count.
    """
    given = {**symptoms.primals, **_delta_parts(symptoms.delta)}
    agrees = symptoms.has_expected_shape and not np.any(symptoms.refusal.wrong)
    other_cause = not (agrees or symptoms.contradicts_itself)
    # A refused call on contiguous arrays alone has another cause, and each experiment costs a call.
    if other_cause and all(np.asarray(a).flags.c_contiguous for a in given.values()):
        return None
    if other_cause and not _is_right(symptoms.evaluate_at(symptoms.primals, symptoms.delta)):
        return None
    start = "right for contiguous arrays" if agrees or other_cause else "nearly right for contiguous arrays"
    for name, array in given.items():
        for words, change in LAYOUT_CHANGES.items():
            if np.ndim(array) > 0 and np.size(array) > 1 and _is_wrong_in_layout(symptoms, name, change):
                return f"{start}, wrong where {name} {words}: it reads memory in order and ignores the strides"
    return None


def _is_right(trial: Trial | None) -> TypeGuard[Trial]:
    """Return whether a call, which is made on contiguous copies, gave no wrong entry."""
    return trial is not None and np.shape(trial.actual) == trial.expected.shape and not np.any(trial.wrong)


def _is_nearly_right(trial: Trial | None) -> TypeGuard[Trial]:
    """Return whether a call gave an answer whose error is small."""
    return trial is not None and is_near(trial.actual, trial.expected)


def _delta_parts(delta: Output) -> dict[str, Array]:
    return {"delta" if i == 0 else f"delta[{i}]": np.asarray(d) for i, d in enumerate(as_tuple(delta))}


def _strided(array: Array) -> Array:
    buffer = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    buffer[..., ::2] = array
    return np.asarray(buffer[..., ::2])


def _expanded(array: Array) -> Array:
    return np.broadcast_to(np.array(array[:1]), array.shape)


def _expanded_number(array: Array) -> Array:
    return np.broadcast_to(np.array(array.flat[0]), array.shape)


LAYOUT_CHANGES: dict[str, LayoutChange] = {
    "is expanded from one number (its strides are 0)": _expanded_number,
    "is expanded (its first stride is 0)": _expanded,
    "is strided (every other entry of a larger array)": _strided,
    "is in Fortran order": np.asfortranarray,
}


def _is_wrong_in_layout(symptoms: Symptoms, name: str, change: LayoutChange) -> bool:
    """Return whether the subject is wrong in a layout and right on contiguous copies, for two deltas."""
    for delta in (symptoms.delta, symptoms.draw_delta(0)):
        # The values of the contiguous arrays: an expanded array has others.
        changed, changed_delta = _with_layout(symptoms.primals, delta, name, change)
        right = symptoms.evaluate_at(changed, changed_delta)
        if not (_is_right(right) or (symptoms.contradicts_itself and _is_nearly_right(right))):
            return False
        # In the dtypes of the call first: a cast afterwards would change the layout.
        wrong = _answer(symptoms, *_with_layout(*symptoms.as_given(changed, changed_delta), name, change))
        # A delta has no influence on an output.
        if wrong is None or not _differs(right, wrong):
            return False
        # Where equal calls on contiguous arrays give different answers, the layout is not the cause.
        if not _equal(right.actual, _answer(symptoms, *symptoms.as_given(changed, changed_delta))):
            return False
    return True


def _with_layout(primals: Primals, delta: Output, name: str, change: LayoutChange) -> tuple[Primals, Output]:
    """Return a point with one array in another layout."""
    arrays, parts = dict(primals), _delta_parts(delta)
    of = arrays if name in arrays else parts
    of[name] = change(np.ascontiguousarray(of[name]))
    return arrays, tuple(parts.values()) if isinstance(delta, tuple) else parts["delta"]


def _differs(right: Trial, value: Array) -> bool:
    """Return whether an answer is neither that of the contiguous arrays nor as near to the oracle's as that."""
    if value.shape != right.expected.shape:
        return True
    own = 2 * np.max(np.abs(right.error[np.isfinite(right.error)]), initial=0.0) if np.any(right.wrong) else 0.0
    return not _equal(value, right.actual) and not agrees_where_known(value, right.expected, right.tolerance + own)


def _answer(symptoms: Symptoms, primals: Primals, delta: Output) -> Array | None:
    """Return the subject's answer for the examined array, on these very arrays, in float64."""
    values = result_or_none(lambda: evaluate(symptoms.subject, primals, delta))
    value = None if values is None else values.get(symptoms.name)
    return None if value is None else np.array(value, np.float64)


def uninitialised(symptoms: Symptoms) -> str | None:
    """Detect entries that hold what freed memory held: a buffer that is allocated and not filled."""
    if symptoms.actual is None or not symptoms.actual.size:
        return None
    find = {Runtime.NUMPY: _entries_of_freed_memory, Runtime.TORCH: _entries_that_torch_fills}
    found = find.get(symptoms.subject.runtime)
    shown = found(symptoms) if found is not None else None
    if shown is None or not np.any(shown):
        return None
    return (
        f"{np.count_nonzero(shown)} of {shown.size} entries change with what freed memory holds: a buffer is not "
        "initialised. Allocate it with zeros, or fill all of it"
    )


def _entries_that_torch_fills(symptoms: Symptoms) -> Array | None:
    """Return the mask of the entries that are NaN only while torch fills the memory of ``torch.empty`` with NaN."""
    point = symptoms.as_given(symptoms.primals, symptoms.delta)
    with _filled_torch_memory(True):
        filled = _answer(symptoms, *point)
    if filled is None or not np.any(np.isnan(filled)):
        return None
    with _filled_torch_memory(False):
        plain = _answer(symptoms, *point)
    return None if plain is None or plain.shape != filled.shape else np.isnan(filled) & ~np.isnan(plain)


@contextmanager
def _filled_torch_memory(fill: bool) -> Iterator[None]:
    """Let torch fill fresh memory with NaN, or not, and restore its settings."""
    deterministic = torch.utils.deterministic
    settings = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = deterministic.fill_uninitialized_memory
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some operations have no deterministic algorithm; none is needed
            torch.use_deterministic_algorithms(True, warn_only=True)
            deterministic.fill_uninitialized_memory = fill
            yield
    finally:
        deterministic.fill_uninitialized_memory = filled
        torch.use_deterministic_algorithms(settings[0], warn_only=settings[1])


def _entries_of_freed_memory(symptoms: Symptoms) -> Array | None:
    """Return the mask of the entries that hold, or change with, what NumPy's freed memory is filled with."""
    first, second = POISONS
    if symptoms.repetition is None or _equal(_poisoned_answer(symptoms, first), symptoms.repetition.actual):
        return None
    # This order repeats with no short period, so that a subject which counts its calls does not follow it.
    order = (first, second, second, first)
    values = [_poisoned_answer(symptoms, poison) for poison in order]
    return _poisoned_entries(values, _dtype(symptoms)) | _following_entries(values, order)


def _poisoned_entries(values: list[Array | None], dtype: np.dtype[np.generic]) -> Array:
    """Return the mask of the entries that hold the poison itself, if both poisons were seen."""
    arrays = [v for v in values if v is not None]
    masks = [np.any([a == float(np.asarray(p, dtype)) for a in arrays], axis=0) for p in POISONS]
    return masks[0] | masks[1] if all(map(np.any, masks)) else np.zeros_like(masks[0])


def _following_entries(values: list[Array | None], order: tuple[float, ...]) -> Array:
    """Return the mask of the entries that change with the poison and with nothing else."""
    arrays = [v for v in values if v is not None]
    by_poison = [[a for a, p in zip(arrays, order, strict=False) if p == poison] for poison in POISONS]
    follows = all(_equal(group[0], a) for group in by_poison for a in group)
    a, b = by_poison[0][0], by_poison[1][0]
    differ = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    return differ if follows else np.zeros_like(differ)


def _equal(a: Array | None, b: Array | None) -> bool:
    return a is not None and b is not None and np.array_equal(a, b, equal_nan=True)


def _dtype(symptoms: Symptoms) -> np.dtype[np.generic]:
    """Return the dtype that the subject returns, in which memory is filled."""
    floating = symptoms.actual is not None and is_differentiable(symptoms.actual)
    return symptoms.actual.dtype if symptoms.actual is not None and floating else np.dtype(np.float64)


def _poisoned_answer(symptoms: Symptoms, poison: float) -> Array | None:
    """Return the subject's answer after memory of the sizes that it allocates was filled and freed."""
    point = symptoms.as_given(symptoms.primals, symptoms.delta)  # first: a copy takes the memory that is freed
    arrays = [*symptoms.primals.values(), *as_tuple(symptoms.delta), *symptoms.refusal.answers.values()]
    sizes = {np.size(a) for a in arrays} - {0}
    blocks = [np.full(size, poison, _dtype(symptoms)) for size in sizes for _ in range(POISONED_BLOCKS)]
    del blocks
    return _answer(symptoms, *point)


def random(symptoms: Symptoms) -> str | None:
    """Detect random numbers: the answer changes from call to call, and repeats once the global seeds are reset."""
    if symptoms.actual is None or symptoms.repetition is None:
        return None
    first, second = symptoms.repetition.actual, np.asarray(symptoms.actual, np.float64)
    if first.shape != second.shape or (_equal(first, second) and not _agrees(symptoms)):
        return None
    with _restored_random_states():
        seeded = [partial(_seeded_answer, symptoms, seed)() for seed in (1, 1, 2, 2)]
    a, b, c, d = seeded
    if a is None or b is None or c is None or d is None or not (_equal(a, b) and _equal(c, d)) or _equal(a, c):
        return None
    return (
        "another answer for each call, and the same one once the global seed is reset: it is random. Draw outside, or "
        "pass the random numbers or a seed as an argument"
    )


def _agrees(symptoms: Symptoms) -> bool:
    return symptoms.has_expected_shape and not np.any(symptoms.refusal.wrong)


def _seeded_answer(symptoms: Symptoms, seed: int) -> Array | None:
    np.random.seed(EXPERIMENT_SEED + seed)  # noqa: NPY002 - the subject's generator is the global one
    standard_random.seed(EXPERIMENT_SEED + seed)
    if "torch" in sys.modules:
        torch.manual_seed(EXPERIMENT_SEED + seed)
    return _answer(symptoms, *symptoms.as_given(symptoms.primals, symptoms.delta))


@contextmanager
def _restored_random_states() -> Iterator[None]:
    """Restore the global random states at the end: the caller's numbers must not depend on a diagnosis."""
    numpy_state = np.random.get_state()  # noqa: NPY002 - as above
    python_state = standard_random.getstate()
    torch_state = torch.get_rng_state() if "torch" in sys.modules else None
    try:
        yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002 - as above
        standard_random.setstate(python_state)
        if torch_state is not None:
            torch.set_rng_state(torch_state)

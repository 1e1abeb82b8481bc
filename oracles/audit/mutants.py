"""Wrong values of an array that a test has accepted, each as a reviewer would plant it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from oracles.constants import AUDIT_DIFFERENCE

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class Entries(NamedTuple):
    """The entries of an array that a mutant is made of, flat: all of them, or a sample; the expected ones, if known.

    ``rows`` is the index of each entry along the first axis, ``transposed`` the entries of the transposed array at the
    same locations, ``None`` unless the array is a square matrix. ``scale`` is the largest expected magnitude; where it
    is 0, a relative error means nothing. ``kind`` is that of the array's dtype in NumPy: "f", "c", "i" or "u".
    """

    values: Array
    rows: Array
    transposed: Array | None
    scale: float
    kind: str
    expected: Array | None = None

    @property
    def is_float(self) -> bool:
        """Return whether the entries are floats or complex numbers."""
        return self.kind in "fc"


def _largest(entries: Entries) -> int:
    return int(np.argmax(np.where(np.isfinite(entries.values), np.abs(entries.values), -1)))


def _scaled(factor: float) -> Callable[[Entries], Array | None]:
    return lambda entries: factor * entries.values if entries.is_float and entries.scale else None


def _zeros(entries: Entries) -> Array | None:
    return np.zeros_like(entries.values) if entries.scale else None


def _sign_flipped(entries: Entries) -> Array | None:
    return -entries.values if entries.scale and entries.kind != "u" else None


def _constant(entries: Entries) -> Array | None:
    if entries.values.size < 2:
        return None
    finite = entries.values[np.isfinite(entries.values)]
    return np.full_like(entries.values, np.mean(finite) if entries.scale else 1)


def _row_zero(entries: Entries) -> Array | None:
    if not entries.scale or np.unique(entries.rows).size < 2:
        return None
    return np.where(entries.rows == entries.rows[_largest(entries)], 0, entries.values)


def _one_entry(entries: Entries) -> Array:
    """Change the largest entry, at which relative tolerances allow most, by 1/8; among integers by 1 at least."""
    i, mutant = _largest(entries), entries.values.copy()
    change = 0.125 * (abs(mutant[i]) or entries.scale if entries.scale else 1)
    mutant[i] += (change if entries.is_float else max(1, round(change))) * (1 if mutant[i].real >= 0 else -1)
    return mutant


def _rounded_to_bfloat16(entries: Entries) -> Array | None:
    if not entries.is_float or not entries.scale:
        return None
    parts = np.ascontiguousarray(entries.values).view(np.float64).astype(np.float32).view(np.uint32)
    rounded = ((parts + (0x7FFF + ((parts >> 16) & 1))) & 0xFFFF0000).astype(np.uint32)
    rounded_values: Array = rounded.view(np.float32).astype(np.float64).view(entries.values.dtype)
    return rounded_values


# In the order of the report: what a test should never let through is first.
MUTANTS: Mapping[str, Callable[[Entries], Array | None]] = {
    "zeros": _zeros,
    "a constant": _constant,
    "sign flipped": _sign_flipped,
    "transposed": lambda entries: entries.transposed,
    "one row zero": _row_zero,
    "× 1.2": _scaled(1.2),
    "one entry off": _one_entry,
    "× 1.05": _scaled(1.05),
    "bfloat16": _rounded_to_bfloat16,
}


def mutants(entries: Entries, rounding: float) -> Iterator[tuple[str, Array]]:
    """Yield the name and the entries of each mutant that differs from the values, and is worse, by more than rounding.

    Where 1 is expected, a value of 1 + 1e-10 that is rounded to bfloat16 is no mutant: it is better.
    Entries that are infinite or NaN stay: their locations are compared by other rules.

    Args:
        entries: flat values in float64 or complex128.
        rounding: the unit roundoff of the array's own dtype, 0 for integers.
    """
    finite = np.isfinite(entries.values)
    if not finite.any():
        return
    least = AUDIT_DIFFERENCE * rounding * (entries.scale or 1)
    values = entries.values[finite]
    expected = values if entries.expected is None else entries.expected[finite]
    error = _distance(values, expected)
    for name, mutate in MUTANTS.items():
        mutant = mutate(entries)
        if mutant is None:
            continue
        mutant = np.where(finite & np.isfinite(mutant), mutant, entries.values)
        if min(_distance(mutant[finite], values), _distance(mutant[finite], expected) - error) > least:
            yield name, mutant


def _distance(first: Array, second: Array) -> float:
    """Return the largest difference; 0 where one of them is not finite."""
    difference = np.abs(first - second)
    return float(np.max(np.where(np.isfinite(difference), difference, 0)))

"""The refused array entry by entry: the subject's values, the oracle's, and the tolerance, for a script and a page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np

from oracles.constants import MORE_SAMPLES, SHOWN_EXTENT
from oracles.decision.comparison import value_and_radius
from oracles.diagnosis.experiments import evaluate
from oracles.rule import Array, Rule, is_differentiable, with_dtype
from oracles.tolerance import tolerance_at
from oracles.verdict import SELF_CONSISTENCY, Finding, Setting

Json: TypeAlias = dict[str, Any]  # what json.dumps accepts


@dataclass(frozen=True, eq=False)
class Compared:
    """A refused array and an oracle's.

    Attributes:
        name: the array: "output", or the primal whose cotangent it is.
        oracle: the oracle that refuses it; where the subject contradicts itself, the first one.
        actual: the subject's array, in its own dtype.
        expected: the oracle's, in float64.
        tolerance: how far rounding may move each entry.
        radius: how far the oracle may be off itself.
        shows_the_defect: whether the two differ by more than the tolerance. A subject that contradicts itself may be
            right here and wrong where it is called otherwise.
    """

    name: str
    oracle: Rule
    actual: Array
    expected: Array
    tolerance: Array
    radius: Array | float
    shows_the_defect: bool

    @property
    def ratio(self) -> Array:
        """|error| / tolerance of every entry; 0 where both are equal, infinite where no tolerance explains it."""
        actual, expected = self.actual.astype(np.float64), self.expected
        with np.errstate(all="ignore"):
            ratio = np.where(actual == expected, 0.0, np.abs(actual - expected) / (self.tolerance + self.radius))
        return np.asarray(np.where(np.isnan(ratio), np.inf, ratio))

    @cached_property
    def comparable(self) -> bool:
        """Whether entry can be compared with entry."""
        is_real = is_differentiable(self.actual) or self.actual.dtype.kind in "biu"
        return is_real and self.actual.shape == self.expected.shape and self.actual.size > 0


def compared_at(worst: Finding, setting: Setting) -> Compared:
    """Evaluate the subject and the oracle of a finding again, and estimate the tolerance of every entry.

    Raises:
        Exception: whatever the subject raises.
    """
    wide, wide_delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    arrays = evaluate(setting.subject, setting.primals, setting.delta)
    name = worst.quantity if worst.quantity in arrays else next(iter(arrays))
    oracle = next((o for o in setting.oracles if o.name == worst.oracle), setting.oracles[0])
    expected, radius = value_and_radius(evaluate(oracle, wide, wide_delta)[name])
    estimator = tolerance_at(setting.oracles, wide, wide_delta, setting.numerics, fallback=setting.subject)
    tolerance = np.asarray(estimator.estimate(MORE_SAMPLES)[name], np.float64)
    actual = np.asarray(arrays[name])
    consistent = actual.shape == expected.shape and bool(np.all(np.abs(actual - expected) <= tolerance))
    shows = not (consistent and worst.oracle == SELF_CONSISTENCY)
    return Compared(name, oracle, actual, expected, tolerance, radius, shows)


def entries_document(compared: Compared | None) -> Json | None:
    """Return the entries in JSON's types, as a grid of at most `SHOWN_EXTENT` rows and columns; ``None`` without any.

    The last axis runs along the columns, all others along the rows. Of a larger array each cell of the grid is a block,
    and stands for its worst entry.
    """
    if compared is None or not compared.comparable or not compared.shows_the_defect:
        return None
    shape = compared.actual.shape
    columns = shape[-1] if shape else 1
    rows = prod(shape) // columns
    block = (-(-rows // SHOWN_EXTENT), -(-columns // SHOWN_EXTENT))
    ratio = compared.ratio
    worst = _worst_of_blocks(ratio.reshape(rows, columns), block)
    wide = np.broadcast_to(np.asarray(compared.tolerance + compared.radius), shape)
    return {
        "quantity": compared.name,
        "oracle": compared.oracle.name,
        "shape": list(shape),
        "grid": [-(-rows // block[0]), -(-columns // block[1])],
        "block": list(block),
        "index": [int(i) for i in worst],
        "subject": _numbers(compared.actual.astype(np.float64), worst),
        "expected": _numbers(compared.expected, worst),
        "tolerance": _numbers(wide, worst),
        "ratio": _numbers(ratio, worst),
    }


def _worst_of_blocks(ratio: Array, block: tuple[int, int]) -> Array:
    """Return the flat index of the worst entry of each block, block by block."""
    rows, columns = ratio.shape
    if block == (1, 1):
        return np.arange(ratio.size)
    worst = []
    for i in range(0, rows, block[0]):
        for j in range(0, columns, block[1]):
            part = ratio[i : i + block[0], j : j + block[1]]
            k, m = np.unravel_index(int(np.argmax(part)), part.shape)
            worst.append((i + int(k)) * columns + j + int(m))
    return np.asarray(worst)


def _numbers(array: Array, index: Array) -> list[float | str | None]:
    return [number(float(v)) for v in np.ravel(array)[index]]


def number(value: float | None) -> float | str | None:
    """Return a number as JSON can hold it: infinities and NaN, which JSON lacks, become strings."""
    return value if value is None or np.isfinite(value) else str(float(value))

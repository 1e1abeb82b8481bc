"""Constants of a code that stand for −∞, +∞ or "nothing here": −1e30, −1e9, finfo.min. They are exact.

In an evaluation of which every operand is perturbed, a number that equals a large constant of the code bit for bit has
met no rounding: it is that constant, moved or selected, or it has absorbed what was added to it, as −1e30 + x = −1e30
does. Whoever computes it has the same number, so that (−1e30) − (−1e30) is 0 for everybody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from oracles.constants import FEW_FILL_VALUES, FILL_VALUE_MULTIPLES, LARGE_CONSTANT
from oracles.rule import Array


class FillValues:
    """The large integers among the constants of a code, with what sums of several of them and constant factors make.

    Attributes:
        magnitudes: their absolute values, as float64.
    """

    def __init__(self) -> None:
        self.magnitudes = np.zeros(0)
        self._seen: set[float] = set()  # without multiples

    def __bool__(self) -> bool:
        return bool(self.magnitudes.size)

    def add(self, value: Any) -> None:
        """Add those among a number or an array of real numbers; an array of many large numbers is data."""
        if isinstance(value, float | int):
            if LARGE_CONSTANT <= abs(value) < np.inf and float(value).is_integer():
                self._keep([abs(float(value))])
            return
        array = np.asarray(value)
        if array.dtype.kind not in "fiu" or not array.size:
            return
        sizes = np.abs(np.asarray(array, np.float64))
        large = sizes[(sizes >= LARGE_CONSTANT) & np.isfinite(sizes)]
        if not large.size:
            return
        distinct = np.unique(large)
        if distinct.size <= FEW_FILL_VALUES:
            self._keep(distinct[distinct == np.rint(distinct)].tolist())

    def scale(self, factor: float) -> None:
        """Add what multiplication with a constant, or division by it, makes of each."""
        if self and factor and np.isfinite(factor):
            self._keep([product for c in self._seen for product in (c * abs(factor), c / abs(factor))])

    def _keep(self, sizes: Iterable[float]) -> None:
        new = {size for size in sizes if LARGE_CONSTANT <= size < np.inf} - self._seen
        if not new or len(self._seen) + len(new) > FEW_FILL_VALUES**2:
            return
        self._seen |= new
        with np.errstate(over="ignore"):
            sums = np.cumsum(np.tile(list(new), (FILL_VALUE_MULTIPLES, 1)), axis=0)  # c, c + c, (c + c) + c …
        self.magnitudes = np.unique([*self.magnitudes, *sums[np.isfinite(sums)]])

    def among(self, x: Array) -> Array:
        """Return the entries of an array that are one of them or its negative, as booleans."""
        if x.dtype.kind != "f":
            return np.zeros(x.shape, bool)
        return np.isin(np.abs(x), self.magnitudes)

    def restored(self, x: Array, moved: Array) -> Array:
        """Return a perturbed array, with each of them as it is in ``x``, which broadcasts to it."""
        if not self:
            return moved
        fixed = self.among(x)
        return np.where(fixed, x, moved) if fixed.any() else moved

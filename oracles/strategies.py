"""Strategies of Hypothesis for points: shapes, values, special entries, memory layouts and cotangents.

Arrays are not drawn entry by entry, which is slow and gives mostly equal entries. A drawn seed fills them, and at most
four entries are then set to values that break things. Seed 0 gives the tidy values 1, −1, 2, −2, …, so that a failing
example shrinks to small shapes and small values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from oracles.constants import (
    LARGE_ENTRY,
    LEAST_POSITIVE,
    MAGNITUDES,
    MAX_EXTENT,
    MAX_OVERRIDES,
    NONZERO_SHARE,
    POSITIONS,
    SMALL_ENTRY,
)
from oracles.rule import Array, Output, Rule, as_tuple

# The number of special values of every dtype, see `_special_values`.
SPECIALS = 10
LAYOUTS = ("C", "F", "strided", "reversed", "read-only", "repeated")


def widths(most: int = MAX_EXTENT) -> st.SearchStrategy[int]:
    """Draw the extent of an axis of features: 1 … ``most``."""
    return st.integers(1, most)


def rows(most: int = MAX_EXTENT) -> st.SearchStrategy[int]:
    """Draw a number of rows: 1 … ``most``, in a sixth of the draws 0, the empty batch; shrinks to 1."""
    return st.one_of(st.integers(1, most), st.integers(1, most), st.sampled_from((1, 0)))


# Strategies are made once, and few: a draw costs Hypothesis about 0.1 ms. Each shrinks to its first value.
_SEEDS = st.integers(0, 2**32 - 1)
_REGIMES = st.sampled_from([(layout, magnitude) for layout in LAYOUTS for magnitude in MAGNITUDES])
_OVERRIDES = st.lists(st.integers(0, SPECIALS * POSITIONS - 1), max_size=MAX_OVERRIDES)


# (rng, shape, magnitude) -> array
Fill: TypeAlias = Callable[[np.random.Generator, tuple[int, ...], float], Array]


@dataclass(frozen=True)
class Drawn:
    """How to fill one primal; `real`, `probabilities`, `indices` and others make them.

    Attributes:
        shape: the shape of the array.
        fill: makes the array, in float64 or with integers or booleans.
        special: whether entries may be set to special values.
    """

    shape: tuple[int, ...]
    fill: Fill
    special: bool = True

    def sample(self, rng: np.random.Generator, dtype: npt.DTypeLike, magnitude: float) -> Array:
        """Return an array of this kind; integers keep their dtype."""
        values = self.fill(rng, self.shape, magnitude)
        return values.astype(dtype) if values.dtype.kind == "f" else values


def real(*shape: int, scale: float = 1.0) -> Drawn:
    """Signed normal numbers times ``scale`` and the drawn magnitude."""
    return Drawn(shape, lambda rng, shape, magnitude: rng.standard_normal(shape) * (magnitude * scale))


def pixels(*shape: int) -> Drawn:
    """Grey levels 0, 1/16 … 1, many of them exactly zero, as scikit-learn's digits have them."""
    return Drawn(shape, lambda rng, shape, _: np.clip(rng.integers(-8, 17, shape), 0, 16) / 16.0, special=False)


def probabilities(*shape: int) -> Drawn:
    """Rows over the last axis that sum to one within rounding."""

    def fill(rng: np.random.Generator, shape: tuple[int, ...], magnitude: float) -> Array:
        weights = np.asarray(rng.exponential(size=shape))
        return weights / weights.sum(-1, keepdims=True) if shape[-1] else weights

    return Drawn(shape, fill, special=False)


def nonnegative(*shape: int) -> Drawn:
    """Weights ≥ 0 that need not sum to one."""
    return Drawn(
        shape, lambda rng, shape, _: rng.exponential(size=shape) * (rng.random(shape) < NONZERO_SHARE), special=False
    )


def positive(*shape: int) -> Drawn:
    """Numbers of 0.1 and more: variances."""
    return Drawn(shape, lambda rng, shape, _: LEAST_POSITIVE + rng.exponential(size=shape), special=False)


def indices(*shape: int, below: int) -> Drawn:
    """Integers 0 ≤ i < ``below``."""
    return Drawn(shape, lambda rng, shape, _: rng.integers(0, below, shape), special=False)


def booleans(*shape: int, true: float = 0.5) -> Drawn:
    """Truth values, of which about this share is true, for a mask."""
    return Drawn(shape, lambda rng, shape, _: np.asarray(rng.random(shape) < true), special=False)


def constant(values: npt.ArrayLike) -> Drawn:
    """Exactly this array."""
    array = np.array(values)
    return Drawn(array.shape, lambda rng, shape, _: array.copy(), special=False)


@dataclass(frozen=True)
class Point:
    """Concrete primals and a cotangent of the output, as a subject takes them.

    Attributes:
        primals: the arrays by name.
        delta: the cotangent, an array or a tuple like the output.
        dtype: of the floating primals.
        layout: the memory layout of all arrays, one of `LAYOUTS`.
    """

    primals: Mapping[str, Array]
    delta: Output
    dtype: str
    layout: str = "C"


@st.composite
def points(
    draw: st.DrawFn, subject: Rule, primals: Mapping[str, Drawn], dtype: str = "float64", count: int = 1
) -> tuple[Point, ...]:
    """Draw points for a subject: values, special entries and layouts of its primals and of its cotangent.

    Drawing costs as much as judging, so ``count`` consecutive seeds share one draw.
    """
    seed, overrides = draw(_SEEDS), draw(_OVERRIDES)
    layout, magnitude = draw(_REGIMES)
    return tuple(
        point_at(subject, primals, dtype, seed=s, magnitude=magnitude, overrides=overrides, layout=layout)
        for s in range(seed, seed + count)
    )


def point_at(
    subject: Rule,
    primals: Mapping[str, Drawn],
    dtype: str,
    *,
    seed: int,
    magnitude: float = 1.0,
    overrides: Sequence[int] = (),
    layout: str = "C",
) -> Point:
    """Return the point that is determined by a few numbers.

    Args:
        subject: gives the shapes of the output, and so of the cotangent.
        primals: how to fill each primal.
        dtype: of the floating primals.
        seed: fills the arrays; 0 gives 1, −1, 2, −2, …
        magnitude: the factor of normal numbers.
        overrides: each sets one entry to a special value; the first one an entry of the cotangent too.
        layout: the memory layout of all arrays.
    """
    rng: Any = _TidyGenerator() if seed == 0 else np.random.default_rng(seed)
    arrays = {name: drawn.sample(rng, dtype, magnitude) for name, drawn in primals.items()}
    overridable = [arrays[name] for name, drawn in primals.items() if drawn.special]
    for override in overrides:
        _override(overridable, override, dtype)
    # After the special entries: a read-only or repeated array cannot be written into.
    arrays = {name: laid_out(a, layout) for name, a in arrays.items()}
    # The forward runs once more, only for the shapes of its outputs: a subject need not declare them.
    y, _ = subject(**arrays)
    deltas = [np.asarray(rng.standard_normal(np.shape(part))).astype(np.asarray(part).dtype) for part in as_tuple(y)]
    for override in overrides[:1]:
        _override(deltas, override, dtype)
    # The cotangent gets the layout too: kernels that read a strided delta as contiguous are a common bug.
    deltas = [laid_out(d, layout) for d in deltas]
    return Point(arrays, tuple(deltas) if isinstance(y, tuple | list) else deltas[0], dtype, layout)


def laid_out(array: Array, layout: str) -> Array:
    """Return the same values (for "repeated": rows of the first row's values) in another memory layout."""
    if layout == "F" and array.ndim:
        return np.asfortranarray(array)
    if layout == "reversed" and array.ndim:
        return np.ascontiguousarray(array[::-1])[::-1]
    if layout == "strided" and array.ndim:
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1] + 1), array.dtype)
        wide[..., 1::2] = array
        return wide[..., 1::2]
    if layout == "read-only":
        array = array.copy()
        array.flags.writeable = False
    if layout == "repeated" and array.ndim and array.shape[0] and array.dtype.kind == "f":
        return np.broadcast_to(array[:1], array.shape)  # stride 0 along the rows, and read-only
    return array


class _TidyGenerator:
    """Replaces the random generator at seed 0: small values that are distinct, signed and non-zero."""

    def standard_normal(self, shape: tuple[int, ...]) -> Array:
        k = np.arange(int(np.prod(shape))).reshape(shape)
        return np.where(k % 2 == 0, 1.0, -1.0) * (1 + k // 2 % 4)

    def exponential(self, size: tuple[int, ...]) -> Array:
        return np.abs(self.standard_normal(size))

    def random(self, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Array:
        return np.asarray(low + np.arange(int(np.prod(shape))).reshape(shape) % (high - low))


def _special_values(dtype: str) -> tuple[float, ...]:
    """Return the values that break things. NaN means the value of a neighbour, which makes a tie."""
    info = np.finfo(dtype)
    return (
        0.0,
        -0.0,
        1.0,
        -1.0,
        np.nan,
        SMALL_ENTRY,
        LARGE_ENTRY,
        -LARGE_ENTRY,
        float(info.eps),
        2 * float(info.smallest_subnormal),
    )


def _override(arrays: list[Array], override: int, dtype: str) -> None:
    """Set one entry of one array to a special value; the number ``override`` determines all three.

    An array of one entry is not made subnormal, the last special value: its whole point would be inconclusive.
    """
    where, which = divmod(override, SPECIALS)
    nonempty = [a for a in arrays if a.size]
    if not nonempty:
        return
    array = nonempty[where % len(nonempty)]
    position = where // len(nonempty) % array.size
    value = _special_values(dtype)[which % (SPECIALS - 1) if array.size == 1 else which]
    array.flat[position] = array.flat[position - 1] if np.isnan(value) else value

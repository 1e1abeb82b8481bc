"""What Hypothesis draws: dims first, then a seed, then at most four entries of special value, then a layout.

Arrays are not drawn entry by entry (slow, and mostly equal entries): a seed fills them, a few entries are
overridden with values that break things, and seed 0 stands for the tidy 1, −1, 2, −2, … so that a failing example
shrinks to small dims and small values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from oracles.rule import Array, Rule, as_tuple

MAX_EXTENT = 8
SPECIALS = 10  # how many special values there are in every dtype
MAGNITUDES = (1.0, 1.0, 1.0, 1.0, 1e-3, 1e-3, 30.0, 1e4)
LAYOUTS = ("C", "F", "strided", "reversed", "read-only", "repeated")


def widths(most: int = MAX_EXTENT) -> st.SearchStrategy[int]:
    """Draw the extent of an axis of features: 1 … ``most``."""
    return st.integers(1, most)


def rows(most: int = MAX_EXTENT) -> st.SearchStrategy[int]:
    """Draw a number of rows, shrinking to 1 and reaching the empty batch: 1 … ``most``, now and then 0."""
    return st.one_of(st.integers(1, most), st.integers(1, most), st.sampled_from((1, 0)))


# Hoisted, and few: a draw costs Hypothesis about 0.1 ms. Each shrinks to its first value.
_SEEDS = st.integers(0, 2**32 - 1)
_REGIMES = st.sampled_from([(layout, magnitude) for layout in LAYOUTS for magnitude in MAGNITUDES])
_OVERRIDES = st.lists(st.integers(0, SPECIALS * 2**16 - 1), max_size=4)


@dataclass(frozen=True)
class Drawn:
    """How to fill one primal: `real`, `probabilities` and `indices` make them."""

    shape: tuple[int, ...]
    fill: Callable[[np.random.Generator, tuple[int, ...], float], Array]
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
    return Drawn(shape, lambda rng, shape, _: rng.exponential(size=shape) * (rng.random(shape) < 0.7), special=False)


def positive(*shape: int) -> Drawn:
    """Numbers of 0.1 and more: variances."""
    return Drawn(shape, lambda rng, shape, _: 0.1 + rng.exponential(size=shape), special=False)


def indices(*shape: int, below: int) -> Drawn:
    """Integers 0 ≤ i < ``below``."""
    return Drawn(shape, lambda rng, shape, _: rng.integers(0, below, shape), special=False)


def booleans(*shape: int, true: float = 0.5) -> Drawn:
    """Truth values, of which about this share is true: a mask."""
    return Drawn(shape, lambda rng, shape, _: np.asarray(rng.random(shape) < true), special=False)


def constant(values: npt.ArrayLike) -> Drawn:
    """Exactly this array."""
    array = np.array(values)
    return Drawn(array.shape, lambda rng, shape, _: array.copy(), special=False)


@dataclass(frozen=True)
class Point:
    """Concrete primals and a cotangent for the output, ready for a subject."""

    primals: Mapping[str, Array]
    delta: Any
    dtype: str
    layout: str = "C"


@st.composite
def points(
    draw: st.DrawFn, subject: Rule, primals: Mapping[str, Drawn], dtype: str = "float64", count: int = 1
) -> tuple[Point, ...]:
    """Draw points for a subject: values, special entries and layouts of its primals and of its cotangent.

    Drawing costs as much as judging, so ``count`` neighbouring seeds share one draw.
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
    """Return the point that these few numbers determine."""
    rng: Any = _Tidy() if seed == 0 else np.random.default_rng(seed)
    arrays = {name: drawn.sample(rng, dtype, magnitude) for name, drawn in primals.items()}
    open_to_special = [arrays[name] for name, drawn in primals.items() if drawn.special]
    for override in overrides:
        _override(open_to_special, override, dtype)
    arrays = {name: laid_out(a, layout) for name, a in arrays.items()}
    y, _ = subject(**arrays)
    deltas = [np.asarray(rng.standard_normal(np.shape(part))).astype(np.asarray(part).dtype) for part in as_tuple(y)]
    for override in overrides[:1]:
        _override(deltas, override, dtype)
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


class _Tidy:
    """Stands for a generator at seed 0: the smallest values that are distinct, signed and non-zero."""

    def standard_normal(self, shape: tuple[int, ...]) -> Array:
        k = np.arange(int(np.prod(shape))).reshape(shape)
        return np.where(k % 2 == 0, 1.0, -1.0) * (1 + k // 2 % 4)

    def exponential(self, size: tuple[int, ...]) -> Array:
        return np.abs(self.standard_normal(size))

    def random(self, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Array:
        return np.asarray(low + np.arange(int(np.prod(shape))).reshape(shape) % (high - low))


def _specials(dtype: str) -> tuple[float, ...]:
    """Values that break things; ``nan`` stands for "the value of a neighbour": a tie."""
    info = np.finfo(dtype)
    return (
        0.0,
        -0.0,
        1.0,
        -1.0,
        np.nan,
        1e-3,
        1e4,
        -1e4,
        float(info.eps),
        2 * float(info.smallest_subnormal),
    )


def _override(arrays: list[Array], override: int, dtype: str) -> None:
    """Set one entry of one array to a special value; one number picks all three.

    An array that is one subnormal number and nothing else blinds its whole point, and is not drawn.
    """
    where, which = divmod(override, SPECIALS)
    filled = [a for a in arrays if a.size]
    if not filled:
        return
    array = filled[where % len(filled)]
    position = where // len(filled) % array.size
    value = _specials(dtype)[which % (SPECIALS - 1) if array.size == 1 else which]
    array.flat[position] = array.flat[position - 1] if np.isnan(value) else value

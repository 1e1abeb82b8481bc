"""Strategies of Hypothesis for points: values, special entries, ties, memory layouts and cotangents.

Arrays are not drawn entry by entry, which is slow and gives mostly equal entries. A drawn seed fills them, and decides
for each point by itself which special values it has. Seed 0 gives the tidy values 1, −1, 2, −2, …, without anything
special, so that a failing example shrinks to small shapes and small values. `oracles.extents` draws the shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import ml_dtypes  # which also lets NumPy know the name bfloat16
import numpy as np
import numpy.typing as npt

from oracles.backends.arrays import shifted
from oracles.constants import (
    COPIED_SHARE,
    DELTA_EXPONENTS,
    KINK_INPUTS,
    LARGE_ENTRY,
    LARGEST_IN_FLOAT16,
    LEAST_POSITIVE,
    MAGNITUDES,
    MAGNITUDES_OF_FLOAT16,
    MASKED_SHARE,
    MAX_OVERRIDES,
    NONZERO_SHARE,
    POSITIONS,
    SMALL_ENTRY,
    SPECIAL_DELTA_SHARE,
    SPECIAL_ENTRIES_SHARE,
    SPECIAL_SHARE,
    TIES_SHARE,
)
from oracles.environment import describe_error
from oracles.extents import rows as rows
from oracles.extents import widths as widths
from oracles.lazy_modules import LazyModule
from oracles.outputs import without_gradient
from oracles.rule import Array, InvalidInput, Output, Rule, as_tuple, is_differentiable
from oracles.structure import ComplexParts
from oracles.user_code import Raised, attempt

if TYPE_CHECKING:
    from hypothesis import strategies as st
else:  # a check draws nothing with Hypothesis
    st = LazyModule("hypothesis.strategies")

# The number of special values of every dtype, see `_special_values`.
SPECIALS = 10
LAYOUTS = ("C", "F", "strided", "reversed", "read-only", "repeated")


# Strategies are made once, and few: a draw costs Hypothesis about 0.1 ms. Each shrinks to its first value.
@lru_cache(maxsize=1)
def seeds() -> st.SearchStrategy[int]:
    """Return the strategy of the seeds of points."""
    return st.integers(0, 2**32 - 1)


@lru_cache
def regimes(dtype: str = "float64") -> st.SearchStrategy[tuple[str, float, bool]]:
    """Return the strategy of (layout, magnitude, whether there are special values) of points in a dtype."""
    magnitudes = MAGNITUDES_OF_FLOAT16 if dtype == "float16" else MAGNITUDES
    return st.sampled_from(
        [(layout, m, special) for layout in LAYOUTS for m in magnitudes for special in (False, True, True, True, True)]
    )


# Which entries of an array may be −∞.
Infinite: TypeAlias = Literal["entries", "rows"]
# (rng, shape, magnitude) -> array
Fill: TypeAlias = Callable[[np.random.Generator, tuple[int, ...], float], Array]


@dataclass(frozen=True)
class Drawn:
    """How to fill one primal; `real`, `probabilities`, `indices` and others make them.

    Attributes:
        shape: the shape of the array.
        fill: makes the array, in float64 or with integers or booleans.
        special: whether entries may be set to special values.
        infinite: whether some may be −∞, see `real`.
    """

    shape: tuple[int, ...]
    fill: Fill
    special: bool = True
    infinite: Infinite | None = None

    def sample(self, rng: np.random.Generator, dtype: npt.DTypeLike, magnitude: float) -> Array:
        """Return an array of this kind; integers keep their dtype.

        Raises:
            InvalidInput: if ``fill`` raises: nothing is known of the subject then.
        """
        values = attempt(lambda: self.fill(rng, self.shape, magnitude))
        if isinstance(values, Raised):
            raise InvalidInput(
                f"a primal of shape {self.shape} cannot be filled: {describe_error(values.error)}"
            ) from values.error
        return values.astype(dtype) if values.dtype.kind == "f" else values


def real(*shape: int, scale: float = 1.0, infinite: Infinite | None = None) -> Drawn:
    """Signed normal numbers times ``scale`` and the drawn magnitude.

    Args:
        shape: the shape of the array.
        scale: a factor.
        infinite: whether "entries" may be −∞, as scores under a mask, though not all of a line along an axis; or whole
            "rows" of the last axis too. Only for what is made for it: elsewhere the gradients are NaN, and nothing is
            judged.
    """
    return Drawn(
        shape, lambda rng, shape, magnitude: rng.standard_normal(shape) * (magnitude * scale), infinite=infinite
    )


def complex_numbers(*shape: int, scale: float = 1.0) -> ComplexParts:
    """Complex numbers whose parts are `real`: complex128 in a search in float64, complex64 in any other dtype."""
    return ComplexParts(real(*shape, scale=scale), real(*shape, scale=scale))


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
    """Truth values for a mask, about this share of them true.

    In an eighth of the rows none is true, unless the share is 0 or 1.
    """

    def fill(rng: np.random.Generator, shape: tuple[int, ...], _: float) -> Array:
        values = np.asarray(rng.random(shape) < true)
        if not 0 < true < 1:
            return values
        return values & np.asarray(rng.random((*shape[:-1], 1) if shape else ()) < 1 - MASKED_SHARE)

    return Drawn(shape, fill, special=False)


def constant(values: npt.ArrayLike) -> Drawn:
    """Exactly this array."""
    array = np.array(values)
    return Drawn(array.shape, lambda rng, shape, _: array.copy(), special=False)


@dataclass(frozen=True)
class Point:
    """Concrete primals and a cotangent of the output, as a subject takes them.

    Attributes:
        primals: the arrays by name. Two primals that are one array object share their memory.
        delta: the cotangent, an array or a tuple like the output.
        dtype: of the floating primals.
        layout: the memory layout of all arrays, one of `LAYOUTS`.
    """

    primals: Mapping[str, Array]
    delta: Output
    dtype: str
    layout: str = "C"


def points(
    subject: Rule, primals: Mapping[str, Drawn], dtype: str = "float64", count: int = 1
) -> st.SearchStrategy[tuple[Point, ...]]:
    """Return the strategy of points: values, special values and layouts of a subject's primals and of its cotangent.

    Drawing costs as much as judging, so ``count`` consecutive seeds share one draw of the layout and the magnitude.
    """

    def points_of(seed: int, layout: str, magnitude: float, special: bool) -> tuple[Point, ...]:
        return tuple(
            point_at(subject, primals, dtype, seed=s, magnitude=magnitude, layout=layout, special=special)
            for s in range(seed, seed + count)
        )

    return st.tuples(seeds(), regimes(dtype)).map(lambda drawn: points_of(drawn[0], *drawn[1]))


def point_at(
    subject: Rule,
    primals: Mapping[str, Drawn],
    dtype: str,
    *,
    seed: int,
    magnitude: float = 1.0,
    overrides: Sequence[int] = (),
    layout: str = "C",
    special: bool = False,
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
        special: whether the seed, unless it is 0, also decides on special values: special entries, ties, half-integers,
            equal primals, −∞, and cotangents that are scaled or have zeros.
    """
    rng: Any = _TidyGenerator() if seed == 0 else np.random.default_rng(seed)
    # Of its own, so that the same seed gives the same ordinary values without anything special.
    chance = np.random.default_rng((seed, 1)) if special and seed else None
    arrays = {name: drawn.sample(rng, dtype, magnitude) for name, drawn in primals.items()}
    shared = _specialize(chance, arrays, primals, dtype, layout) if chance is not None else {}
    overridable = [arrays[name] for name, drawn in primals.items() if drawn.special]
    for override in overrides:
        _override(overridable, override, dtype)
    # After the special entries: a read-only or repeated array cannot be written into.
    arrays = {name: laid_out(a, layout) for name, a in arrays.items()}
    arrays |= {name: arrays[other] for name, other in shared.items()}
    # The forward runs once more, only for the shapes of its outputs: a subject need not declare them.
    y, _ = subject(**arrays)
    deltas = [np.asarray(rng.standard_normal(np.shape(part))).astype(np.asarray(part).dtype) for part in as_tuple(y)]
    silent = without_gradient(y) if len(without_gradient(y)) < len(deltas) else {}
    ordinary = [np.zeros(d.shape) if i in silent else d.copy() for i, d in enumerate(deltas)]
    if chance is not None:
        _specialize_deltas(chance, deltas, dtype)
    for override in overrides[:1]:
        _override(deltas, override, dtype)
    # The cotangent gets the layout too: kernels that read a strided delta as contiguous are a common bug.
    deltas = [laid_out(ordinary[i] if i in silent else d, layout) for i, d in enumerate(deltas)]
    if not any(map(np.any, deltas)):  # nothing would be judged; `additive_in_delta` gives a subject a delta of zeros
        deltas = [laid_out(d, layout) for d in ordinary]
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
    if layout == "offset":
        return shifted(array)
    if layout == "read-only":
        array = array.copy()
        array.flags.writeable = False
    if layout == "repeated" and array.ndim and array.shape[0] and is_differentiable(array):
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
    info, large = ml_dtypes.finfo(dtype), LARGEST_IN_FLOAT16 if dtype == "float16" else LARGE_ENTRY
    return (
        0.0,
        -0.0,
        1.0,
        -1.0,
        np.nan,
        SMALL_ENTRY,
        large,
        -large,
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


def _specialize(
    chance: np.random.Generator, arrays: dict[str, Array], primals: Mapping[str, Drawn], dtype: str, layout: str
) -> dict[str, str]:
    """Give some of the arrays special values; return which primals are the same array as which other."""
    reals = [name for name, drawn in primals.items() if drawn.special and arrays[name].size]
    if not reals:
        return {}
    halves, infinite = chance.random(2) < SPECIAL_SHARE
    if halves:
        for name in reals:
            arrays[name] = _halves(arrays[name])
    tied = arrays[reals[chance.integers(len(reals))]]
    if tied.size <= KINK_INPUTS and chance.random() < TIES_SHARE:
        _tie(chance, tied)
    if chance.random() < SPECIAL_ENTRIES_SHARE:
        for override in chance.integers(SPECIALS * POSITIONS, size=chance.integers(1, MAX_OVERRIDES + 1)):
            _override([arrays[name] for name in reals], int(override), dtype)
    shared = _copy(chance, arrays, reals) if len(reals) > 1 and chance.random() < COPIED_SHARE else {}
    if infinite:
        for name in reals:
            kind = primals[name].infinite
            # Where all rows are the first one, its −∞ fill whole columns.
            if kind == "rows" or (kind == "entries" and layout != "repeated"):
                _mask(chance, arrays[name], whole_rows=kind == "rows")
    return shared


def _halves(array: Array) -> Array:
    """Round to integers and half-integers."""
    return np.asarray(np.round(2 * array) / 2).astype(array.dtype)


def _tie(chance: np.random.Generator, array: Array) -> None:
    """Make the maximum of lines along an axis, mostly the last one, tie: of two entries, or of exactly three."""
    if not array.ndim:
        return
    axis = array.ndim - 1 if chance.random() < 3 / 4 else int(chance.integers(array.ndim))
    number = 2 if chance.random() < 1 / 5 else 3
    lines = np.moveaxis(array, axis, -1)  # a view
    for index in np.ndindex(lines.shape[:-1]):
        line, order = lines[index], chance.permutation(lines.shape[-1])
        largest = line.argmax()
        line[order[order != largest][: number - 1]] = line[largest]


def _copy(chance: np.random.Generator, arrays: dict[str, Array], names: Sequence[str]) -> dict[str, str]:
    """Copy one primal into another, whole or in part, or make both one array; return what is one array."""
    pairs = [(a, b) for a in names for b in names if a != b and _broadcasts(arrays[b].shape, arrays[a].shape)]
    if not pairs:
        return {}
    name, other = pairs[chance.integers(len(pairs))]
    target, source = arrays[name], arrays[other]
    kind = chance.random()
    if kind < 1 / 2:
        np.copyto(target, source, where=chance.random(target.shape) < 1 / 2)
    else:
        np.copyto(target, source)
    return {name: other} if kind > 3 / 4 and target.shape == source.shape else {}


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Return whether an array of a shape fits into another one."""
    return len(shape) <= len(target) and all(m in (1, n) for m, n in zip(shape[::-1], target[::-1], strict=False))


def _mask(chance: np.random.Generator, array: Array, *, whole_rows: bool) -> None:
    """Set some entries to −∞, but no whole line along an axis; or, where that is allowed, one whole row at times."""
    if whole_rows and (not array.ndim or chance.random() < 1 / 4):
        array[tuple(int(chance.integers(n)) for n in array.shape[:-1])] = -np.inf
        return
    hidden = np.asarray(chance.random(array.shape) < 1 / 4)
    for axis in range(array.ndim):
        hidden &= ~hidden.all(axis, keepdims=True)
    if array.ndim:
        array[hidden] = -np.inf


def _specialize_deltas(chance: np.random.Generator, deltas: list[Array], dtype: str) -> None:
    """Give a cotangent a loss scale, zeros, half-integers or a special entry, or some of these."""
    scaled, zeros = chance.random(2) < SPECIAL_DELTA_SHARE
    halves, entry = chance.random(2) < SPECIAL_SHARE
    info = ml_dtypes.finfo(dtype)
    least, most = max(DELTA_EXPONENTS[0], int(info.minexp) + 4), min(DELTA_EXPONENTS[1], int(info.maxexp) - 8)
    exponent = int(chance.choice([least, most, int(chance.integers(least, most + 1))]))
    for i, delta in enumerate(deltas):
        if not is_differentiable(delta) or not delta.size:
            continue
        if halves:
            delta[...] = _halves(delta)
        if scaled:
            delta *= delta.dtype.type(2.0**exponent)
        if zeros:
            deltas[i] = _with_zeros(chance, delta)
    if entry:
        _override(deltas, int(chance.integers(SPECIALS * POSITIONS)), dtype)


def _with_zeros(chance: np.random.Generator, delta: Array) -> Array:
    """Set some entries of a cotangent to zero, or most, or a row."""
    kind = chance.random()
    if kind < 1 / 4 and delta.ndim:
        delta[int(chance.integers(len(delta)))] = 0
        return delta
    few = kind < 1 / 2
    kept = np.asarray(chance.random(delta.shape) < (1 / 8 if few else 3 / 4))
    # At least one entry is kept, or at least one is zero.
    kept.flat[int(chance.integers(delta.size))] = few or delta.size == 1
    return np.where(kept, delta, delta.dtype.type(0))

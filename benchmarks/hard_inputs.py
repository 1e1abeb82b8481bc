"""Hard inputs: examples of every layer whose values, cotangents and layouts have broken gradient checkers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import TypeAlias

import hypothesis
import ml_dtypes
import numpy as np
from hypothesis import strategies as st

from oracles.constants import POSITIONS
from oracles.extents import SHORT, drawing, ladder
from oracles.registry import Case, Entry, entries
from oracles.rule import Array, as_tuple
from oracles.strategies import LAYOUTS, SPECIALS, Point, laid_out, point_at

DTYPES = ("float64", "float32", "float16", "bfloat16")
COMPLEX_DTYPES = DTYPES[:2]  # of the parts of complex128 and complex64
# Powers of ten between which the magnitudes of primals and of cotangents lie.
MAGNITUDES = {"float64": (-6.0, 6.0), "float32": (-6.0, 6.0), "float16": (-2.0, 1.0), "bfloat16": (-6.0, 6.0)}
COTANGENTS = {"float64": (-3.0, 3.0), "float32": (-3.0, 3.0), "float16": (-1.0, 1.0), "bfloat16": (-3.0, 3.0)}
SATURATION = {"float64": (1.0, 3.0), "float32": (1.0, 3.0), "float16": (0.5, 1.5), "bfloat16": (1.0, 3.0)}
POOL = 200  # configurations of each layer
XLA_POOL = 6  # of which so many are compiled
# One of these after the other, for so many examples each: a shape that XLA has compiled takes 5 MB.
XLA_BLOCK = 8000
LONG_SHARE = 20  # one of so many configurations has long axes
MOST_ENTRIES = 2**13  # of all primals with long axes: larger ones take most of the time
Info: TypeAlias = "ml_dtypes.finfo"  # of a floating type that is known at run time alone
Fill = Callable[[np.random.Generator, tuple[int, ...], float, Info], Array]


def _normal(rng: np.random.Generator, shape: tuple[int, ...], magnitude: float, info: Info) -> Array:
    return np.asarray(rng.standard_normal(shape) * magnitude)


def _offset(rng: np.random.Generator, shape: tuple[int, ...], magnitude: float, info: Info) -> Array:
    spread = 10.0 ** -rng.uniform(1, info.precision)
    return np.asarray(magnitude * (rng.choice((-1.0, 1.0)) + spread * rng.standard_normal(shape)))


def _cancelling(rng: np.random.Generator, shape: tuple[int, ...], magnitude: float, info: Info) -> Array:
    """Neighbours along a random axis are opposite but for a few units in the last place."""
    values = _normal(rng, shape, magnitude, info)
    along = np.moveaxis(values, rng.integers(len(shape)), 0)
    pairs = len(along) // 2
    off = 1 + rng.integers(-2, 3, along[:pairs].shape) * float(info.eps)
    along[1 : 2 * pairs : 2] = -along[0 : 2 * pairs : 2] * off
    return values


def _near_rows(rng: np.random.Generator, shape: tuple[int, ...], magnitude: float, info: Info) -> Array:
    row = rng.standard_normal(shape[1:]) * magnitude
    return np.asarray(row * (1 + rng.integers(-2, 3, shape) * float(info.eps)))


def _ties(rng: np.random.Generator, shape: tuple[int, ...], magnitude: float, info: Info) -> Array:
    return np.asarray(rng.integers(-1, 2, shape) * magnitude)


def _saturated(rng: np.random.Generator, shape: tuple[int, ...], magnitude: float, info: Info) -> Array:
    return np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(*SATURATION[info.dtype.name]))


def _tiny(rng: np.random.Generator, shape: tuple[int, ...], magnitude: float, info: Info) -> Array:
    smallest = np.log10(float(info.smallest_normal)) / 2
    return np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(smallest, MAGNITUDES[info.dtype.name][0]))


def _scattered(rng: np.random.Generator, shape: tuple[int, ...], magnitude: float, info: Info) -> Array:
    return np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(*MAGNITUDES[info.dtype.name], shape))


REGIMES: Mapping[str, Fill] = {
    f.__name__.strip("_"): f for f in (_normal, _offset, _cancelling, _near_rows, _ties, _saturated, _tiny, _scattered)
}


@dataclass(frozen=True)
class Example:
    """One point of one configuration of a layer."""

    entry: Entry
    case: Case
    compiled: bool
    point: Point
    regime: str


def drawn_cases(entry: Entry, count: int, seed: int) -> list[Case]:
    """Draw configurations of a layer as a search does; a seed determines them."""
    cases: list[Case] = []
    settings = hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    steps = list(ladder(2, {}))

    @st.composite
    def maybe_long(draw: st.DrawFn) -> Case:
        # After the configurations that are compiled: a compilation of a long axis takes as long, and shows no more.
        number = draw(st.integers(0, LONG_SHARE * len(steps) - 1))
        long = steps[number] if number < len(steps) and len(cases) >= XLA_POOL else SHORT
        with drawing(long):
            case = draw(entry.cases)
        return case if sum(prod(drawn.shape) for drawn in case.primals.values()) <= MOST_ENTRIES else draw(entry.cases)

    def keep(case: Case) -> None:
        cases.append(case)

    hypothesis.seed(seed)(settings(hypothesis.given(maybe_long())(keep)))()
    return cases


@lru_cache(maxsize=4)
def pools(seed: int, only: str = "") -> list[tuple[Entry, list[Case]]]:
    """Return all layers with their configurations, drawn before anything is judged, so that they depend on no order.

    Args:
        seed: of the configurations.
        only: what the names of the layers begin with.
    """
    return [(entry, drawn_cases(entry, POOL, seed)) for entry in entries() if entry.name.startswith(only)]


def drawn_example(seed: int, number: int, only: str = "") -> Example:
    """Return the example that a seed and its number determine, among the layers whose names begin with ``only``."""
    layers = pools(seed, only)
    entry, pool = layers[number % len(layers)]
    dtypes = COMPLEX_DTYPES if entry.name.startswith("complex") else DTYPES
    dtype = dtypes[number // len(layers) % len(dtypes)]
    rng = np.random.default_rng((seed, number))
    # Configurations that XLA compiles come up as often as all others together: each costs one compilation.
    compiled = bool(rng.random() < 0.5)
    which = number // XLA_BLOCK % XLA_POOL if compiled else int(rng.integers(len(pool)))
    case = pool[min(which, len(pool) - 1)]
    common, alike = rng.uniform(*MAGNITUDES[dtype]), rng.random() < 0.5
    regimes = {name: str(rng.choice(list(REGIMES))) for name in case.primals}
    regime = next(iter(regimes.values()))
    primals = {
        name: replace(drawn, fill=_filling(regime if alike else regimes[name], dtype, common if alike else None))
        if drawn.special
        else drawn
        for name, drawn in case.primals.items()
    }
    overrides = rng.integers(SPECIALS * POSITIONS, size=rng.integers(1, 5)).tolist() if rng.random() < 1 / 3 else []
    layout = str(rng.choice(LAYOUTS))
    point_seed, special = int(rng.integers(1, 2**32)), bool(rng.random() < 1 / 2)
    point = point_at(case.subject, primals, dtype, seed=point_seed, overrides=overrides, layout=layout, special=special)
    scale = 10.0 ** rng.uniform(*COTANGENTS[dtype])
    most = float(ml_dtypes.finfo(dtype).max)
    deltas = tuple(
        laid_out(np.asarray(np.clip(np.asarray(d, np.float64) * scale, -most, most)).astype(d.dtype), layout)
        for d in as_tuple(point.delta)
    )
    point = replace(point, delta=deltas if isinstance(point.delta, tuple) else deltas[0])
    return Example(entry, case, compiled, point, regime if alike else "+".join(dict.fromkeys(regimes.values())))


def _filling(
    regime: str, dtype: str, exponent: float | None
) -> Callable[[np.random.Generator, tuple[int, ...], float], Array]:
    """Return how to fill one primal with finite values of a regime, of a given magnitude or of its own."""
    info: Info = ml_dtypes.finfo(dtype)

    def fill(rng: np.random.Generator, shape: tuple[int, ...], _: float) -> Array:
        power = rng.uniform(*MAGNITUDES[dtype]) if exponent is None else exponent
        return np.clip(REGIMES[regime](rng, shape, 10.0**power, info), float(info.min), float(info.max))

    return fill

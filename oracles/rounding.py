"""How far rounding alone can move a gradient on this very input: the one place where tolerances come from.

The reference is evaluated again with every operand of every rounding operation, forward and backward, shaken by
``1 ± c√n·u`` (random signs), where u is the unit roundoff of the subject's precision and n the longest reduction.
What moves under that, rounding can move; what does not, it cannot. So the allowance of an entry is the largest
deviation seen over the samples: nothing is chosen, conditioning and cancellation are included.

√n·u is the probabilistic growth of rounding errors in a reduction of length n (Higham & Mary 2019, Ipsen & Zhou
2020); c = 8 covers what the worst of a few samples leaves to chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from oracles.numpy_rounding import own_rounding
from oracles.rule import (
    Array,
    Cotangents,
    Opaque,
    Primals,
    Rule,
    Shake,
    is_differentiable,
    outputs,
    with_dtype,
)

CONFIDENCE = 8.0
FIRST_SAMPLES = 2
SECOND_SAMPLES = 5
BACKWARD_SAMPLES = 4
MORE_SAMPLES = 16 + BACKWARD_SAMPLES

# (unit roundoff, smallest normal) of each precision: what is smaller, vector units may flush to zero.
_PRECISIONS = {
    "float16": (2.0**-11, 2.0**-14),
    "bfloat16": (2.0**-8, 2.0**-126),
    "float32": (2.0**-24, 2.0**-126),
    "float64": (2.0**-53, 2.0**-1022),
    "longdouble": (2.0**-53, 2.0**-1022),
}


def precision_name(dtype: npt.DTypeLike) -> str:
    """Return the name of a floating dtype as this module knows it.

    Raises:
        ValueError: if the dtype has no known precision.
    """
    name = dtype if isinstance(dtype, str) and dtype in _PRECISIONS else _name_of(np.dtype(dtype))
    if name not in _PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(_PRECISIONS)}, got {dtype!r}")
    return name


@lru_cache
def _name_of(dtype: np.dtype[Any]) -> str:
    return "longdouble" if dtype.name in ("float96", "float128") else dtype.name


def unit_roundoff(dtype: npt.DTypeLike) -> float:
    """Return u, the largest relative error of one rounding: 2^-53 for float64, 2^-24 for float32."""
    return _PRECISIONS[precision_name(dtype)][0]


def smallest_normal(dtype: npt.DTypeLike) -> float:
    """Return the smallest number that no machine flushes to zero."""
    return _PRECISIONS[precision_name(dtype)][1]


def is_coarser(dtype: npt.DTypeLike, than: npt.DTypeLike) -> bool:
    """Return whether a dtype is a floating one of less precision than another."""
    try:
        return unit_roundoff(dtype) > unit_roundoff(than)
    except ValueError:
        return False


def precision_of(primals: Primals) -> str:
    """Return the coarsest floating precision among the primals: what a subject fed with them computes in."""
    names = [precision_name(a.dtype) for a in primals.values() if is_differentiable(a)]
    return max(names, key=lambda name: _PRECISIONS[name][0], default="float64")


def longest_reduction(primals: Primals, delta: Any) -> int:
    """Return n: no reduction over one axis can be longer than the longest axis."""
    return max((extent for a in (*primals.values(), *outputs(delta)) for extent in np.shape(a)), default=1)


@dataclass
class Rounding:
    """The allowance at one point, refined on demand: a few samples decide most inputs, more are drawn to refuse.

    Attributes:
        sources: Rules whose operations can be shaken, the first that is not opaque at this point is used.
        primals, delta: the point, in float64.
        precision: what the subject computes in.
        known: what oracles of these names have already answered at the point.
        blur: how far the subject's cotangents may be off by the way in which they are read.
    """

    sources: Sequence[Rule]
    primals: Primals
    delta: Any
    precision: str
    known: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    blur: Mapping[str, Array] = field(default_factory=dict)
    _centre: Array | None = None
    _worst: Array | None = None
    _places: dict[str, tuple[slice, tuple[int, ...]]] = field(default_factory=dict)
    _samples: int = 0

    def allowance(self, samples: int = FIRST_SAMPLES) -> dict[str, Array]:
        """Return how far rounding may move each entry of the outputs ("output", or "output[0]" …) and cotangents.

        The perturbations are seeded, so that an allowance is a function of the input. Beyond the first samples
        underflow is imitated too. The last shake the backward alone: equal rows stay equal in a subject's forward,
        where independent noise drives them apart, in a batch without variance so far that tanh is flat and nothing
        that is shaken behind it counts.
        """
        if samples > self._samples:
            u, tiny = _PRECISIONS[self.precision]
            for k in range(self._samples, samples):
                floor = 0.0 if k < FIRST_SAMPLES else tiny * self._growth
                forward = k < MORE_SAMPLES - BACKWARD_SAMPLES
                deviation = self._deviation(Shake(np.random.default_rng(k), u * self._growth, floor, forward))
                assert self._centre is not None
                # Operands are shaken, so a result that no operation consumes has its own last rounding to add.
                last = u * self._growth * np.abs(self._centre) if self._worst is None else self._worst
                self._worst = np.maximum(np.maximum(last, floor), deviation)
            self._samples = samples
        found = self._named(self._worst)
        return {n: a + self.blur[n] if n in self.blur else a for n, a in found.items()} if self.blur else found

    def jumps(self, name: str) -> bool:
        """Return whether the deviation does not shrink with the perturbation: a kink is within its reach."""
        large = self.allowance()[name]
        h = 2.0**-10 * _PRECISIONS[self.precision][0] * self._growth
        finer = [self._deviation(Shake(np.random.default_rng(k), h)) for k in range(FIRST_SAMPLES)]
        small = self._named(np.maximum.reduce(finer))[name]
        return bool(np.any((small > large / 8) & (large > 0)))

    @cached_property
    def _growth(self) -> float:
        return CONFIDENCE * float(max(1, longest_reduction(self.primals, self.delta)) ** 0.5)

    def _deviation(self, shake: Shake) -> Array:
        """Return how far one shaken evaluation lies from the plain one, all arrays in one flat vector."""
        shaken = self._shaken(shake)
        if self._centre is None:
            source = self.sources[0]
            plain = self.known.get(source.name)
            if plain is None:
                y, pullback = source(**self.primals)
                plain = named_outputs(outputs(y), dict(pullback(self.delta)))
            self._centre = np.concatenate([np.ravel(plain[n]) for n in shaken])
            stops = np.cumsum([np.size(a) for a in shaken.values()]).tolist()
            self._places = {
                n: (slice(stop - np.size(a), stop), np.shape(a))
                for (n, a), stop in zip(shaken.items(), stops, strict=True)
            }
        with np.errstate(invalid="ignore"):  # ∞ − ∞: nothing is known, as the next line says
            deviation = np.abs(np.concatenate([np.ravel(a) for a in shaken.values()]) - self._centre)
        return np.asarray(np.nan_to_num(deviation, copy=False, nan=np.inf, posinf=np.inf))

    def _named(self, flat: Array | None) -> dict[str, Array]:
        assert flat is not None
        return {n: flat[place].reshape(shape) for n, (place, shape) in self._places.items()}

    def _shaken(self, shake: Shake) -> dict[str, Array]:
        while True:
            perturbed = self.sources[0].perturbed
            assert perturbed is not None
            try:
                return named_outputs(*perturbed(self.primals, self.delta, shake))
            except Opaque:
                self.sources = self.sources[1:]


def named_outputs(y: tuple[Array, ...], cotangents: Cotangents) -> dict[str, Array]:
    """Return outputs and cotangents in one mapping; outputs are called "output", or "output[0]" and so on."""
    names = ["output"] if len(y) == 1 else [f"output[{i}]" for i in range(len(y))]
    return {**dict(zip(names, y, strict=True)), **cotangents}


def rounding_at(
    oracles: Sequence[Rule],
    primals: Primals,
    delta: Any,
    precision: str,
    *,
    fallback: Rule,
    known: Mapping[str, Mapping[str, Array]] | None = None,
) -> Rounding:
    """Return the allowance at a point, from the first oracle that can be seen into there.

    Where none can (finite differences, opaque kernels), the code of ``fallback`` is shaken, if it is NumPy; else its
    primals and delta as a whole: that shows the conditioning of the problem, though not the rounding inside.
    ``known`` holds what oracles of these names have already answered at the point, so that they are not asked again.
    """
    own = [] if fallback.framework else [own_rounding(fallback)]
    sources = [*(rule for rule in oracles if rule.perturbed is not None), *own, _shaken_inputs(fallback)]
    wide, wide_delta = with_dtype(primals, np.float64), with_dtype(delta, np.float64)
    blur = fallback.blur(wide, unit_roundoff(precision)) if fallback.blur else {}
    return Rounding(sources, wide, wide_delta, precision, known or {}, blur)


def _shaken_inputs(rule: Rule) -> Rule:
    def perturbed(primals: Primals, delta: Any, shake: Shake) -> tuple[tuple[Array, ...], Cotangents]:
        def move(array: Array) -> Array:
            if not is_differentiable(array):
                return array
            signs = shake.rng.choice((-1.0, 1.0), size=(2, *array.shape))
            return np.asarray(array * (1 + shake.h * signs[0]) + shake.floor * signs[1])

        y, pullback = rule(**({name: move(a) for name, a in primals.items()} if shake.forward else primals))
        cotangents = pullback(tuple(map(move, delta)) if isinstance(delta, tuple) else move(delta))
        return tuple(np.asarray(part, np.float64) for part in outputs(y)), cotangents

    return Rule(rule.evaluate, rule.name, perturbed)

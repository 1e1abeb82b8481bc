"""How far rounding alone can move a gradient on this very input: the one place where tolerances come from.

The reference is evaluated again with every operand of every rounding operation, forward and backward, shaken by
``1 ± c√n·u`` (random signs), where u is the unit roundoff of the subject's precision and n the longest reduction.
What moves under that, rounding can move; what does not, it cannot. So the allowance of an entry is the largest
deviation seen over the samples: nothing is chosen, conditioning and cancellation are included.

√n·u is the probabilistic growth of rounding errors in a reduction of length n (Higham & Mary 2019, Ipsen & Zhou
2020); c = 8 covers what the worst of a few samples leaves to chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

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
FIRST_SAMPLES = 3
MORE_SAMPLES = 16

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
    name = np.dtype(dtype).name if not (isinstance(dtype, str) and dtype == "bfloat16") else "bfloat16"
    name = "longdouble" if name in ("float96", "float128") else name
    if name not in _PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(_PRECISIONS)}, got {dtype!r}")
    return name


def unit_roundoff(dtype: npt.DTypeLike) -> float:
    """Return u, the largest relative error of one rounding: 2^-53 for float64, 2^-24 for float32."""
    return _PRECISIONS[precision_name(dtype)][0]


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
    """

    sources: Sequence[Rule]
    primals: Primals
    delta: Any
    precision: str
    _centre: dict[str, Array] = field(default_factory=dict)
    _worst: dict[str, Array] = field(default_factory=dict)
    _samples: int = 0

    def allowance(self, samples: int = FIRST_SAMPLES) -> dict[str, Array]:
        """Return how far rounding may move each entry of the outputs ("output", or "output[0]" …) and cotangents.

        The perturbations are seeded, so that an allowance is a function of the input. From the fourth sample on
        underflow is imitated too.
        """
        u, tiny = _PRECISIONS[self.precision]
        growth = CONFIDENCE * max(1, longest_reduction(self.primals, self.delta)) ** 0.5
        for k in range(self._samples, samples):
            floor = 0.0 if k < FIRST_SAMPLES else tiny * growth
            for name, moved in self._shaken(Shake(np.random.default_rng(k), u * growth, floor)).items():
                centre = self._centre[name]
                deviation = np.abs(moved - centre)
                deviation = np.where(np.isnan(deviation), np.inf, deviation)
                # Operands are shaken, so a result that no operation consumes has its own last rounding to add.
                before = self._worst[name] if k else u * growth * np.abs(centre)
                self._worst[name] = np.maximum(before, deviation)
        self._samples = max(self._samples, samples)
        return self._worst

    def _shaken(self, shake: Shake) -> dict[str, Array]:
        while True:
            source = self.sources[0]
            try:
                assert source.perturbed is not None
                shaken = named_outputs(*source.perturbed(self.primals, self.delta, shake))
            except Opaque:
                self.sources = self.sources[1:]
                continue
            if not self._centre:
                y, pullback = source(**self.primals)
                self._centre = named_outputs(outputs(y), dict(pullback(self.delta)))
            return shaken


def named_outputs(y: tuple[Array, ...], cotangents: Cotangents) -> dict[str, Array]:
    """Return outputs and cotangents in one mapping; outputs are called "output", or "output[0]" and so on."""
    names = ["output"] if len(y) == 1 else [f"output[{i}]" for i in range(len(y))]
    return {**dict(zip(names, y, strict=True)), **cotangents}


def rounding_at(oracles: Sequence[Rule], primals: Primals, delta: Any, precision: str, *, fallback: Rule) -> Rounding:
    """Return the allowance at a point, from the first oracle that can be seen into there.

    Where none can (finite differences, opaque kernels), the primals and delta of ``fallback`` are shaken as a
    whole: that shows the conditioning of the problem, though not the rounding inside.
    """
    sources = [*(rule for rule in oracles if rule.perturbed is not None), _shaken_inputs(fallback)]
    return Rounding(sources, with_dtype(primals, np.float64), with_dtype(delta, np.float64), precision)


def _shaken_inputs(rule: Rule) -> Rule:
    def perturbed(primals: Primals, delta: Any, shake: Shake) -> tuple[tuple[Array, ...], Cotangents]:
        def move(array: Array) -> Array:
            if not is_differentiable(array):
                return array
            signs = shake.rng.choice((-1.0, 1.0), size=(2, *array.shape))
            return np.asarray(array * (1 + shake.h * signs[0]) + shake.floor * signs[1])

        y, pullback = rule(**{name: move(a) for name, a in primals.items()})
        cotangents = pullback(tuple(map(move, delta)) if isinstance(delta, tuple) else move(delta))
        return tuple(np.asarray(part, np.float64) for part in outputs(y)), cotangents

    return Rule(rule.evaluate, rule.name, perturbed)

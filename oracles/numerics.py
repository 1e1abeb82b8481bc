"""What a subject stores, accumulates and multiplies in: the model of rounding that a tolerance is derived from.

A kernel in low precision keeps its inputs, its results and what it saves in one precision, and sums in a finer one. Its
error is that of the finer one, and one rounding of each result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from oracles.constants import CONFIDENCE, HALF_CONFIDENCE
from oracles.options import HALF_NAMES
from oracles.rule import Array, InvalidInput, Perturbation, Primals, is_differentiable

AnyDType: TypeAlias = np.dtype[Any]
Rounding: TypeAlias = Literal["once", "each", "any"]

# (unit roundoff, smallest normal number) of each precision. Vector units may flush smaller numbers to zero.
PRECISIONS = {
    "float8_e5m2": (2.0**-3, 2.0**-14),
    "float8_e4m3fn": (2.0**-4, 2.0**-6),
    "float16": (2.0**-11, 2.0**-14),
    "bfloat16": (2.0**-8, 2.0**-126),
    "float32": (2.0**-24, 2.0**-126),
    "float64": (2.0**-53, 2.0**-1022),
    "longdouble": (2.0**-53, 2.0**-1022),
}
# Those that nothing but a store of theirs flushes: hardware rounds into their subnormal numbers.
GRADUAL = ("float16", "float8_e4m3fn", "float8_e5m2")
# Those in which nobody sums: matrix units, frameworks and most kernels sum numbers of these in float32.
NARROW = (*GRADUAL, "bfloat16")
# Operands of matrix products on tensor cores: float32 with 10 bits behind the point.
TF32 = "tf32"
_MULTIPLY_UNITS = {TF32: 2.0**-11}


def precision_name(dtype: npt.DTypeLike) -> str:
    """Return the name of a floating dtype as this module knows it.

    Raises:
        ValueError: if the dtype has no known precision.
    """
    name = dtype if isinstance(dtype, str) and dtype in PRECISIONS else _name_of(np.dtype(dtype))
    if name not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {dtype!r}")
    return name


@lru_cache
def _name_of(dtype: AnyDType) -> str:
    return "longdouble" if dtype.name in ("float96", "float128") else dtype.name


def unit_roundoff(dtype: npt.DTypeLike) -> float:
    """Return u, the largest relative error of one rounding: 2^-53 for float64, 2^-24 for float32."""
    return PRECISIONS[precision_name(dtype)][0]


def smallest_normal(dtype: npt.DTypeLike) -> float:
    """Return the smallest number that no machine flushes to zero."""
    return PRECISIONS[precision_name(dtype)][1]


def smallest_stored(dtype: npt.DTypeLike) -> float:
    """Return what storing a number may move it by, however small it is."""
    name = precision_name(dtype)
    unit, normal = PRECISIONS[name]
    return unit * normal if name in GRADUAL else normal


def accumulator_of(precision: str) -> str:
    """Return the precision of the partial sums of numbers in a precision: float32 for those of 16 and 8 bits.

    So do matrix units, frameworks, and most kernels; NumPy's bfloat16 does not.
    """
    return "float32" if precision in NARROW else precision


def confidence(precision: str) -> float:
    """Return the factor c of a simulated rounding error c·√n·u."""
    return HALF_CONFIDENCE if precision in NARROW else CONFIDENCE


def is_coarser(dtype: npt.DTypeLike, than: npt.DTypeLike) -> bool:
    """Return whether a dtype is a floating one of less precision than another."""
    try:
        return unit_roundoff(dtype) > unit_roundoff(than)
    except ValueError:
        return False


def precision_of(primals: Primals) -> str:
    """Return the coarsest floating precision among the primals: what a subject fed with them computes in."""
    names = [precision_name(a.dtype) for a in primals.values() if is_differentiable(a)]
    return max(names, key=lambda name: PRECISIONS[name][0], default="float64")


@dataclass(frozen=True, repr=False)
class Numerics:
    """What a subject stores, accumulates and multiplies in.

    With u_s, u_a, u_m the unit roundoffs of the three, a result y that is rounded once lies within

        |y_computed − y| ≤ |deviation in u_a and u_m| + u_s |y|

    of the truth: the deviation of float32 arithmetic with sums of n terms in ``accumulate`` (√n u_a) and operands of
    matrix products and convolutions in ``multiply``. Where each intermediate is stored, each operand of each operation
    is rounded by u_s as well.

    Attributes:
        store: the precision of inputs, results and what is saved: "float64", "float32", "bfloat16", "float16",
            "float8_e4m3fn" or "float8_e5m2".
        accumulate: that of partial sums; by default float32 where ``store`` has 16 or 8 bits, else ``store``.
        multiply: that of the operands of matrix products and convolutions: also "tf32"; by default as precise as the
            arithmetic between two stores, which is float32 where ``store`` has 16 or 8 bits, else ``store``.
        round: "once" where each result is rounded to ``store`` once, from arithmetic in float32; "each" where every
            intermediate is stored, as by frameworks that run one operation after the other; "any" where either may be.

    Raises:
        InvalidInput: for an unknown precision, or another word for ``round``.

    Example:
        >>> Numerics("bfloat16").accumulate
        'float32'
        >>> str(Numerics("float32", multiply="tf32"))
        'float32, products in tf32'
    """

    store: str
    accumulate: str = ""
    multiply: str = ""
    round: Rounding = "once"

    def __post_init__(self) -> None:
        for argument in ("store", "accumulate", "multiply"):
            value = getattr(self, argument)
            known = {*PRECISIONS, *(_MULTIPLY_UNITS if argument == "multiply" else ())}
            if (value and value not in known) or not (value or argument != "store"):
                raise InvalidInput(
                    f"Numerics: {argument}: expected one of {', '.join(sorted(known))}, got {value!r}\n"
                    'Fix:    oracles.Numerics("bfloat16", accumulate="float32")'
                )
        if self.round not in get_args(Rounding):
            raise InvalidInput(f"Numerics: round: expected one of {', '.join(get_args(Rounding))}, got {self.round!r}")
        object.__setattr__(self, "accumulate", self.accumulate or accumulator_of(self.store))
        object.__setattr__(self, "multiply", self.multiply or self.inner)

    def __repr__(self) -> str:
        """Return the code of the declaration."""
        finer = accumulator_of(self.store)
        defaults = {"accumulate": finer, "multiply": finer if self.round == "once" else self.store, "round": "once"}
        own = "".join(f", {n}={v!r}" for n, default in defaults.items() if (v := getattr(self, n)) != default)
        return f"Numerics({self.store!r}{own})"

    def __str__(self) -> str:
        """Return the declaration in words."""
        inner = accumulator_of(self.store)
        words = [self.store]
        if self.accumulate != inner:
            words.append(f"sums in {self.accumulate}")
        if self.multiply != self.inner:
            words.append(f"products in {self.multiply}")
        if inner != self.store and self.round != "any":
            words.append("rounded once" if self.round == "once" else "each intermediate stored")
        return ", ".join(words)

    @classmethod
    def of(cls, numerics: Numerics | str) -> Numerics:
        """Return the numerics of which the precision alone is known: in 16 bits, either rounding may be.

        Raises:
            ValueError: for an unknown precision.
        """
        if isinstance(numerics, Numerics):
            return numerics
        name = precision_name(numerics)
        # Frameworks may store every intermediate in 16 bits; nobody does in 8.
        return cls(name, round="any" if name in HALF_NAMES else "once")

    @classmethod
    def declared(cls, numerics: Numerics | str | None, primals: Primals) -> Numerics:
        """Return what is declared for a subject at a point; where nothing is, what the dtypes of the primals say.

        A declaration says nothing of a point whose primals are coarser than what it stores.
        """
        own, fed = cls.of(numerics) if numerics else None, precision_of(primals)
        return own if own and not is_coarser(fed, own.store) else cls.of(fed)

    @classmethod
    def parse(cls, text: str) -> Numerics:
        """Return the numerics of a command line: ``bfloat16``, ``bfloat16/float32/tf32/once``; parts may be left out.

        Raises:
            InvalidInput: for anything else.
        """
        parts = text.split("/")
        rounding = parts.pop() if parts[-1] in get_args(Rounding) else "once"
        if len(parts) > 3:
            raise InvalidInput(f"numerics: expected STORE/ACCUMULATE/MULTIPLY/once or /each, got {text!r}")
        store, accumulate, multiply = (*parts, "", "")[:3]
        return cls(store, accumulate, multiply, rounding)  # type: ignore[arg-type]

    @classmethod
    def eager(cls, store: str) -> Numerics:
        """Return the numerics of a framework that stores the result of every operation, and sums in float32."""
        return cls(store, round="each")

    @property
    def inner(self) -> str:
        """The precision of the arithmetic between two stores."""
        return accumulator_of(self.store) if self.round == "once" else self.store

    @property
    def rounds_results(self) -> bool:
        """Whether results are rounded to ``store`` from a finer precision."""
        return self.inner != self.store

    @property
    def sharpest(self) -> Numerics:
        """The same where each result is rounded once."""
        return replace(self, round="once", multiply="" if self.multiply == self.inner else self.multiply)

    @property
    def unit(self) -> float:
        """A bound on the relative rounding error of one operation between two stores."""
        return max(unit_roundoff(self.inner), self._multiply_unit)

    @property
    def _multiply_unit(self) -> float:
        return _MULTIPLY_UNITS.get(self.multiply) or unit_roundoff(self.multiply)

    @property
    def relative(self) -> float:
        """The size of a simulated rounding error between two stores, where nothing is summed: c·u."""
        return confidence(self.inner) * unit_roundoff(self.inner)

    def perturbation(self, rng: np.random.Generator, *, forward: bool = True) -> Perturbation:
        """Return simulated rounding under these numerics, without underflow."""
        # A finer accumulator of the same kind (float64 for sums of float32) is what its own unit says.
        is_own = self.accumulate == self.inner
        accumulated = None if is_own else CONFIDENCE * unit_roundoff(self.accumulate)
        multiplied = HALF_CONFIDENCE * self._multiply_unit if self._multiply_unit > unit_roundoff(self.inner) else 0.0
        return Perturbation(rng, self.relative, 0.0, forward, accumulated, multiplied)

    @property
    def floor(self) -> float:
        """The size of a simulated underflow error."""
        return confidence(self.inner) * smallest_normal(self.inner)


def stored(value: Array, deviation: Array, precision: str) -> Array:
    """Return how far a result may lie from ``value`` that is computed within ``deviation`` and then stored once."""
    return np.asarray(deviation + unit_roundoff(precision) * (np.abs(value) + deviation) + smallest_stored(precision))


def stores_of(primals: Primals) -> Mapping[str, str]:
    """Return the precision of each floating primal, in which its cotangent is stored; and of the outputs as ""."""
    dtypes = {n: a.dtype for n, a in primals.items() if is_differentiable(a)}
    result = np.result_type(*dtypes.values()) if dtypes else np.dtype(np.float64)
    return {n: precision_name(dtype) for n, dtype in dtypes.items()} | {"": precision_name(result)}

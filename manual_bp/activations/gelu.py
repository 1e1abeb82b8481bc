"""The Gaussian error linear unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ..normal import normal
from ..precision import carried
from ..protocol import Array
from .elementwise import Transcendental
from .sigmoid import Sigmoid

Approximation: TypeAlias = Literal["none", "tanh"]
_APPROXIMATIONS = ("none", "tanh")
_SIGMOID = Sigmoid()

# Twice √(2/π), and the coefficient of the cube.
_TWICE, _CUBIC = 1.5957691216057308, 0.044715
# From here on σ is 0 or 1 in every floating type; the cube of this overflows in none.
_SATURATED = 64


@dataclass(frozen=True)
class GELU(Transcendental):
    """σ(z) = z Φ(z) (76), σ'(z) = Φ(z) + z φ(z) (77); Φ and φ are those of the normal distribution.

    Φ(z) is ½ erfc(−z/√2) and never ½ + ½ erf(z/√2), which is 0 from z = −6 on in float32, where z Φ(z) is
    −6e-9. In σ'(z) Φ and zφ have opposite signs below 0, but Φ is about φ/|z| in the tail: the sum keeps
    its digits everywhere but near its root at −0.75, where none could.

    With `approximate="tanh"`, Φ(z) is replaced by ½(1 + tanh s) with s = √(2/π)(z + 0.044715 z³), that is
    by the logistic p = 1/(1 + e^{−2s}) (78), which cancels nowhere; then σ'(z) = p + z p(1 − p) 2s' (79).

    Shapes: any of rank 1 or more. Dtypes: floating or object, kept; float16 and float32 are carried in
    float64. The objects need a method `ndtr` for Φ.
    Raises: ValueError for rank 0, a delta of another shape or an approximation of another name, TypeError
    for a dtype that is not floating.
    Differs from torch's GELU in accuracy alone: torch's has 1 + erf in it, so that it is off by 2 % at z =
    −8 and 0 from −9 on.
    Source: Hendrycks & Gimpel 2016, "Gaussian Error Linear Units", eq. 1 and its approximation.
    """

    approximate: Approximation = "none"

    def __post_init__(self) -> None:
        if self.approximate not in _APPROXIMATIONS:
            expected = " or ".join(map(repr, _APPROXIMATIONS))
            raise ValueError(f"GELU: approximate: expected {expected}, got {self.approximate!r}")

    def with_derivative(self, z: Array) -> tuple[Array, Array]:
        """Return zΦ(z), and Φ(z) + zΦ'(z)."""
        wide = carried(z)
        if self.approximate == "none":
            Φ, dΦ = normal(z)
        else:
            s, ds = _doubled(wide)
            Φ, dΦ = _SIGMOID.with_derivative(s)
            dΦ = dΦ * ds
        y, slope = wide * Φ, Φ + wide * dΦ
        return y.astype(z.dtype, copy=False), slope.astype(z.dtype, copy=False)


def _doubled(z: Array) -> tuple[Array, Array]:
    """Return 2s, and by how much it grows with z."""
    near = np.minimum(np.maximum(z, -_SATURATED), _SATURATED)
    square = near * near
    return _TWICE * (near + _CUBIC * (near * square)), _TWICE * (1 + 3 * _CUBIC * square)

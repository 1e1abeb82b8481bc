"""Dropout, from a generator that is handed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ..precision import scalar
from ..protocol import Array, Arrays, Cache, Params
from ..validation import require_flag, require_names, require_parts, require_ranked, require_real, require_shape

_NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Dropout:
    """y_i = z_i m_i / (1 − rate) with m_i = 1 or, with probability `rate`, 0 (54); dz_i = δ_i m_i / (1 − rate) (55).

    The expectation of y is z. The factors m/(1 − rate) are drawn once, by `forward`, and carried by its cache, so that
    forward and backward drop the same entries, and `backward` may be called twice. They are drawn in the order of
    the indices from 2^24 equal steps, whatever z's dtype and memory. With rate 1 nothing is kept, and y is 0.

    The input "rng" is a `numpy.random.Generator`, which `forward` advances: it is a place in a stream, the one argument
    that an operation changes. With `training=False` there is no such input, and y = z.

    Shapes: z any of rank 1 or more, y and delta alike. Dtypes: floating or object, kept.
    Raises: ValueError for a rate outside 0 … 1, for rank 0 or a delta of another shape, TypeError for a wrong dtype or
    an rng that is no generator.
    Differs from torch's: the generator is an argument, because hidden state would make forward no function of its
    arguments; and evaluation is a field, since a layer has no mode to be switched.
    Source: Srivastava et al. 2014, "Dropout", section 10, the inverted form.
    """

    rate: Any
    training: bool = True
    preserves_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_real(self, "", "rate", self.rate)
        if not 0 <= self.rate <= 1:
            raise ValueError(f"Dropout: rate: expected a probability, 0 … 1, got {self.rate}")
        require_flag(self, "training", self.training)

    @property
    def inputs(self) -> tuple[str, ...]:
        """z, and in training the generator."""
        return ("z", "rng") if self.training else ("z",)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: there is nothing to learn."""
        return {}

    def forward(self, params: Params, z: Arrays) -> tuple[Array, Cache]:
        """Return z times its factors (54), a copy of z in evaluation."""
        z, *rest = require_parts(self, "forward", "z", z, self.inputs)
        require_ranked(self, "forward", "z", z)
        require_names(self, "forward", "params", params, _NO_NAMES)
        if not rest:
            return z.copy(), (z, None)
        factors = self._factors(z, rest[0])
        return z * factors, (z, factors)

    def backward(self, cache: Cache, delta: Array) -> tuple[Arrays, Params]:
        """Return δ times the factors that the forward drew (55)."""
        z, factors = cache
        require_shape(self, "backward", "delta", delta, z.shape, z, "y")
        return (delta.copy() if factors is None else (delta * factors, None)), {}

    def _factors(self, z: Array, rng: object) -> Array:
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"Dropout.forward: rng: expected a numpy.random.Generator, got {type(rng).__name__}")
        kept = rng.random(z.shape, np.float32) >= float(self.rate)
        scale = scalar(1 / (1 - self.rate) if self.rate < 1 else 0, z)
        return np.where(kept, scale, 0).astype(z.dtype)

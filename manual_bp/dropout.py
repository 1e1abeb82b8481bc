"""Dropout, with a random generator as an input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import DTypeLike

from ._precision import narrow, scalar, widen
from ._validation import (
    NO_NAMES,
    require_flag,
    require_names,
    require_parts,
    require_ranked,
    require_real,
    require_shape,
)
from .protocol import Array, Arrays, Cache, Number, Params


@dataclass(frozen=True)
class Dropout:
    """Dropout, with a random generator as an input.

        y_i = z_i m_i / (1 − rate), m_i = 0 with probability `rate`, else 1        (54)
        dz_i = δ_i m_i / (1 − rate)                                                (55)

    The expectation of y is z. `forward` draws the factors m/(1 − rate) once and stores them in the cache, so forward
    and backward drop the same entries, and `backward` may be called twice. They are drawn in the order of the indices
    from 2^24 equal steps, whatever z's dtype and memory layout. With rate 1, y is 0.

    The input "rng" is a `numpy.random.Generator`, which `forward` advances: it is the one argument that a layer
    changes. With `training=False` there is no such input, and y = z.

    Args:
        rate: the probability to drop an entry, in [0, 1].
        training: whether entries are dropped.

    Shapes: z, y, delta of one shape, rank 1 or more. Dtypes: floating or object, kept.

    Raises:
        ValueError: for a rate outside [0, 1], rank 0 or a delta of another shape.
        TypeError: for a wrong dtype or an rng that is not a generator.

    Differs from torch's: the generator is an argument, because with hidden state `forward` would not be a function of
    its arguments; evaluation is a field, since a layer has no mode.

    Source: docs/derivation.md, eq. (54)–(55); Srivastava et al. 2014, "Dropout", section 10, the inverted form.
    """

    rate: Number
    training: bool = True
    preserves_shape: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_real(self, "", "rate", self.rate)
        if not 0 <= self.rate <= 1:
            raise ValueError(f"Dropout: rate: expected a probability in [0, 1], got {self.rate}")
        require_flag(self, "training", self.training)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Z, and in training the generator."""
        return ("z", "rng") if self.training else ("z",)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Return {}: the layer has no parameters."""
        return {}

    def forward(self, params: Params, z: Arrays) -> tuple[Array, Cache]:
        """Return z times random factors (54), a copy of z in evaluation."""
        z, *generator = require_parts(self, "forward", "z", z, self.inputs)
        require_ranked(self, "forward", "z", z)
        require_names(self, "forward", "params", params, NO_NAMES)
        if not generator:
            return z.copy(), (z, None)
        factors = self._factors(z, generator[0])
        return narrow(z * factors, z.dtype), (z, factors)

    def backward(self, cache: Cache, delta: Array) -> tuple[Arrays, Params]:
        """Return δ times the factors that `forward` drew (55)."""
        z, factors = cache
        require_shape(self, "backward", "delta", delta, z.shape, z, "y")
        return (delta.copy() if factors is None else (narrow(delta * factors, z.dtype), None)), {}

    def _factors(self, z: Array, rng: object) -> Array:
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"Dropout.forward: rng: expected a numpy.random.Generator, got {type(rng).__name__}")
        # float32 numbers are drawn whatever the dtype of z, so the same seed drops the same entries in every precision.
        survives = rng.random(z.shape, np.float32) >= float(self.rate)
        scale = scalar(1 / (1 - self.rate) if self.rate < 1 else 0, z)
        return np.where(survives, scale, 0).astype(widen(z[:0]).dtype)

"""A connection around a layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..protocol import Array, Arrays, Cache, Params, as_tuple, untupled
from ..routing import jacobian_of
from ..validation import require_ranked, require_shape
from .around import Around


@dataclass(frozen=True)
class Residual(Around):
    """y = z + f(z) (48), so ∂L/∂z = δ + ∂L/∂z through f (49): the sum passes δ on to both of its terms.

    Parameters and side arrays are f's, under f's names.

    Shapes: any that f preserves. Dtypes: f's, floating.
    Raises: ValueError where f's widths differ, or f gives another shape than that of z, TypeError for no layer.
    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", eq. 1.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if None not in (self.n_in, self.n_out) and self.n_in != self.n_out:
            raise ValueError(
                f"Residual: f: expected as many columns out as in, {self.f} maps {self.n_in} to {self.n_out}"
            )

    @property
    def preserves_shape(self) -> bool:
        """True: a sum has the shape of its terms."""
        return True

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return z + f(z), and f's side outputs."""
        main = as_tuple(z)[0]
        require_ranked(self, "forward", "z", main)
        came, cache = self.f.forward(params, z)
        y, *beside = as_tuple(came)
        require_shape(self, "forward", "f(z)", y, main.shape, main, "z")
        return untupled((main + y, *beside)), cache

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return δ plus what f passes back (49)."""
        came, dparams = self.f.backward(cache, delta)
        dz, *beside = as_tuple(came)
        return untupled((as_tuple(delta)[0] + dz, *beside)), dparams

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return I + ∂f/∂z."""
        inner = jacobian_of(self.f, params, z)
        return np.eye(inner.shape[1], dtype=inner.dtype) + inner

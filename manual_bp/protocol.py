"""The one contract of `manual_bp`: Layer, Loss and Optimizer, and the types that they exchange.

`delta` is the cotangent of a layer's output, ∂L/∂y, and has the shape and the dtype of that output. Rows
are samples: a batch is (N, n), the row-vector convention of the derivation, y = zW + b. A cache refers to
the arrays passed in and handed out, so overwrite none of them between `forward` and `backward`; layers
overwrite nothing.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]
Params: TypeAlias = dict[str, Array]
Cache: TypeAlias = Any


class Layer(Protocol):
    """A differentiable map of rows: configuration in frozen fields, arrays in arguments, nothing stored.

    No layer averages over the batch, writes into an argument or returns a view of one. The dtype in is
    the dtype out. `backward` may be called twice, and from two threads.
    """

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw the parameters; {} where there are none."""
        ...

    def forward(self, params: Params, z: Array) -> tuple[Array, Cache]:
        """Return y and what `backward` needs to know."""
        ...

    def backward(self, cache: Cache, delta: Array) -> tuple[Array, Params]:
        """Return ∂L/∂z and ∂L/∂params, given delta = ∂L/∂y."""
        ...

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return ∂y/∂z from its definition, shape (N or 1, n_out, n_in), independent of `backward`."""
        ...


class Loss(Protocol):
    """A scalar (or, unreduced, one value per row) of an output y and a target; it owns the ½ and the mean."""

    def forward(self, y: Array, target: Array) -> tuple[Any, Cache]:
        """Return the value, in the dtype of y, and what `backward` needs to know."""
        ...

    def backward(self, cache: Cache, delta: Any = 1.0) -> Array:
        """Return δ^n = ∂L/∂y times delta."""
        ...


class Optimizer(Protocol):
    """A pure pair: the state is a value, handed in and handed out."""

    def init(self, params: Params) -> Params:
        """Return the state before the first step."""
        ...

    def step(self, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        """Return the next parameters and the next state."""
        ...

"""The one contract of `manual_bp`: Layer, Loss and Optimizer, and the types that they exchange.

`delta` is the cotangent of a layer's output, ∂L/∂y, and has the shape and the dtype of that output. Rows
are samples: a batch is (N, n), the row-vector convention of the derivation, y = zW + b. A cache refers to
the arrays passed in and handed out, so overwrite none of them between `forward` and `backward`; layers
overwrite nothing.

Everything that an operation depends on is an input, everything that it changes is an output. A layer with
several of either names them in `inputs` and `outputs`, and takes and gives tuples in that order: state
goes in and comes out, with a cotangent like any other array; indices and masks are integer or boolean
inputs, randomness is a generator, and their place in ∂L/∂z holds None.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]
Params: TypeAlias = dict[str, Array]
Cache: TypeAlias = Any
# One array, or where a layer has several inputs (outputs) a tuple of them; None stands for no cotangent.
Arrays: TypeAlias = Any


def inputs_of(layer: Any) -> tuple[str, ...]:
    """Return the names of a layer's inputs, the main stream first: ("z",) where it does not say."""
    return tuple(getattr(layer, "inputs", ("z",)))


def outputs_of(layer: Any) -> tuple[str, ...]:
    """Return the names of a layer's outputs, the main stream first: ("y",) where it does not say."""
    return tuple(getattr(layer, "outputs", ("y",)))


def as_tuple(arrays: Arrays) -> tuple[Any, ...]:
    """Return inputs or outputs as a tuple: one array becomes a tuple of one."""
    return arrays if isinstance(arrays, tuple) else (arrays,)


def untupled(parts: tuple[Any, ...]) -> Arrays:
    """Return a tuple as inputs or outputs are passed: a tuple of one becomes the one array."""
    return parts if len(parts) > 1 else parts[0]


class Layer(Protocol):
    """A differentiable operation: configuration in frozen fields, arrays in arguments, nothing stored.

    No layer averages over the batch, writes into an argument or returns a view of one. The dtype in is
    the dtype out. `backward` may be called twice, and from two threads.
    """

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw the parameters; {} where there are none."""
        ...

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return y and what `backward` needs to know."""
        ...

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return ∂L/∂z and ∂L/∂params, given delta = ∂L/∂y."""
        ...


class RowLayer(Layer, Protocol):
    """A layer that maps each row (1, n_in) to a row (1, n_out), as the derivation has them: for (16)."""

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

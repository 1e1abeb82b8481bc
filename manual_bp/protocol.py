"""The contract of `manual_bp`: Layer, Loss and Optimizer, and the types that they exchange.

`delta` is the cotangent of a layer's output, ∂L/∂y, and has the shape and the dtype of that output. Rows
are samples: a batch is (N, n), the row-vector convention of the derivation, y = zW + b. A cache refers to the
arrays passed in and returned, so overwrite none of them between `forward` and `backward`; layers overwrite
nothing.

Everything that an operation depends on is an input, everything that it changes is an output. A layer with several
of either names them in `inputs` and `outputs`, and takes and returns tuples in that order. State is an input and
an output, with a cotangent like any other array; indices and masks are integer or boolean inputs, randomness is a
generator input, and None stands for their cotangents in ∂L/∂z.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Any stands here for what the type system cannot say of NumPy code; the rest of the package uses these names.
Array: TypeAlias = NDArray[Any]
DType: TypeAlias = np.dtype[Any]
# A configured real number: an int, a float, or for exact arithmetic a Fraction.
Number: TypeAlias = Any
Params: TypeAlias = dict[str, Array]
# Whatever `forward` passes to `backward`; opaque to everybody else.
Cache: TypeAlias = Any
# One array, or if a layer has several inputs (outputs) a tuple of them; None stands for no cotangent.
Arrays: TypeAlias = Any


def inputs_of(layer: object) -> tuple[str, ...]:
    """Return the names of a layer's inputs, the main stream first: ("z",) if it has no attribute `inputs`."""
    return tuple(getattr(layer, "inputs", ("z",)))


def outputs_of(layer: object) -> tuple[str, ...]:
    """Return the names of a layer's outputs, the main stream first: ("y",) if it has no attribute `outputs`."""
    return tuple(getattr(layer, "outputs", ("y",)))


def as_tuple(arrays: Arrays) -> tuple[Arrays, ...]:
    """Return inputs or outputs as a tuple: an array becomes a tuple of one array."""
    return arrays if isinstance(arrays, tuple) else (arrays,)


def one_or_tuple(parts: tuple[Arrays, ...]) -> Arrays:
    """Return inputs or outputs as they are passed: a tuple of one array becomes that array."""
    return parts if len(parts) > 1 else parts[0]


class Layer(Protocol):
    """A differentiable operation: configuration in frozen fields, arrays in arguments, no other state.

    No layer averages over the batch, writes into an argument or returns a view of one. The dtype in is
    the dtype out. `backward` may be called twice, and from two threads.
    """

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw the parameters; {} if there are none."""
        ...

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return y and the cache that `backward` needs."""
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
    """A scalar (or, unreduced, one value per row) of an output y and a target; it applies the ½ and the mean."""

    def forward(self, y: Array, target: Array) -> tuple[Number, Cache]:
        """Return the value, in the dtype of y, and the cache that `backward` needs."""
        ...

    def backward(self, cache: Cache, delta: Number = 1.0) -> Array:
        """Return δ^n = ∂L/∂y times delta."""
        ...


class Optimizer(Protocol):
    """A pair of pure functions; the state is an argument and a result."""

    def init(self, params: Params) -> Params:
        """Return the state before the first step."""
        ...

    def step(self, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        """Return the next parameters and the next state."""
        ...

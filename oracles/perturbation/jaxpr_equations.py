"""What a jaxpr consists of once it is read: values, equations, and the NumPy function of one equation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from oracles.perturbation.jaxpr_kernels import integer_bound
from oracles.rule import Array, is_floating

# The parameters of a primitive: ints, tuples, dtypes and JAX's own enumerations.
Params: TypeAlias = Mapping[str, Any]


@dataclass(eq=False)
class Value:
    """One array of a program, before it is computed.

    Attributes:
        shape, dtype: as the jaxpr states them.
        constant: the array, if it is known; it broadcasts to ``shape``.
        option: it is computed from floating options alone, and is not perturbed, as if it were a constant.
        stage: the first part of a program that can compute it, see `oracles.perturbation.jaxpr.Program`.
        integers: the largest magnitude of its entries, if all of them are integers for a reason that the program shows
            (they were integers or booleans before); infinite if only the reason is known.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    constant: Array | None = None
    option: bool = False
    stage: int = 0
    integers: float | None = None

    @property
    def is_floating(self) -> bool:
        """Whether operations of this dtype round; NumPy does not know that bfloat16 is floating."""
        return self.dtype.kind == "c" or is_floating(self.dtype)

    @property
    def is_complex(self) -> bool:
        """Whether the entries are pairs of floating numbers."""
        return self.dtype.kind == "c"

    @cached_property
    def largest_integer(self) -> float | None:
        """The largest magnitude of integers, known when the program is read; None if they may be no integers."""
        return self.integers if self.constant is None else integer_bound(self.constant)


@dataclass(eq=False)
class Equation:
    """One primitive applied to values; ``make`` returns its kernel, where it has a single one."""

    primitive: str
    params: Params
    inputs: list[Value]
    outputs: list[Value]
    make: Maker | None = None

    @property
    def stage(self) -> int:
        """The stage of its results."""
        return self.outputs[0].stage

    @cached_property
    def kernel(self) -> Kernel:
        """NumPy's function for it."""
        assert self.make is not None, f"{self.primitive} has no single function"
        return self.make(self)


@dataclass(frozen=True)
class Kernel:
    """How NumPy evaluates one equation.

    Attributes:
        function: takes one array for each input; returns one array, or a sequence where ``several``. None if the
            result is the first input itself, which broadcasts to the shape of the result.
        rounds: the function rounds: its floating operands are to be perturbed.
        terms: how many terms it sums, or factors it multiplies, for one entry of its result; 1 if it reduces nothing.
        decides: inputs that only decide where something goes, and are not perturbed.
        broadcasts: it is elementwise: its inputs may be smaller than their shapes and broadcast.
        fresh: its result shares no memory with its inputs.
        several: the function returns a sequence of results.
        product: it is a matrix product or a convolution.
        shape: of the result, where it is smaller than the jaxpr says and broadcasts to that.
    """

    function: Callable[..., Any] | None
    rounds: bool = False
    terms: int = 1
    decides: tuple[int, ...] = ()
    broadcasts: bool = False
    fresh: bool = False
    several: bool = False
    product: bool = False
    shape: tuple[int, ...] | None = None


Maker: TypeAlias = Callable[[Equation], Kernel]

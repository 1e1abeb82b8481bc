"""Read a jaxpr: its equations in order, calls of inner jaxprs inlined, what is constant computed at once.

What is read is not yet evaluated: `oracles.perturbation.jaxpr` turns equations into NumPy calls.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from oracles.perturbation.fill_values import FillValues
from oracles.perturbation.jaxpr_equations import Equation, Value
from oracles.perturbation.jaxpr_kernels import fill
from oracles.perturbation.jaxpr_primitives import ALIASES, CALLS, CONTROL, PRIMITIVES
from oracles.rule import Array, is_floating

if TYPE_CHECKING:
    from jax.extend.core import Jaxpr

# The primitive that stands for the cotangent of an output: its operand is the output, its result has its shape.
COTANGENT = "oracles_cotangent"

# Calls whose derivative their author says: what is inside decides nothing.
OWN_DERIVATIVES = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")

PRIMAL, RESIDUAL, PULLBACK = range(3)  # the stages of a program, in this order


class UnsupportedPrimitive(NotImplementedError):
    """A JAX primitive that NumPy has no function for here: its name is the message."""


def contains(jaxpr: Jaxpr, *primitives: str) -> bool:
    """Return whether a jaxpr, or one inside it, has one of these primitives."""
    from jax.extend.core import jaxprs_in_params

    return any(
        eqn.primitive.name in primitives or any(contains(inner, *primitives) for inner in jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def note_constants(closed: Any, fills: FillValues) -> None:
    """Add the large constants of a jaxpr and of those inside it, and their products with its other constants."""
    factors: list[float] = []
    _note_constants(closed, fills, factors)
    for factor in dict.fromkeys(factors):
        fills.scale(factor)


def _note_constants(jaxpr: Any, fills: FillValues, factors: list[float]) -> None:
    """Add the large constants of a jaxpr, closed or not, and list the numbers that something is multiplied with."""
    for constant in getattr(jaxpr, "consts", ()):
        fills.add(constant)
    for eqn in jaxpr.eqns:
        name, numbers = eqn.primitive.name, [np.asarray(v.val) for v in eqn.invars if hasattr(v, "val")]
        if name not in ("add", "sub"):  # what is added to a whole array fills nothing
            for number in numbers:
                fills.add(number)
        if name in ("mul", "div"):
            factors += [float(number) for number in numbers if number.dtype.kind in "fiu" and not number.ndim]
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns"):
                    _note_constants(inner, fills, factors)


def run_equation(equation: Any, values: Sequence[Any]) -> Any:
    """Return what an equation of a jaxpr gives for other values, arrays or tracers."""
    bound = equation.primitive.get_bind_params(equation.params)
    # Older JAX returns functions apart from the other parameters.
    functions, parameters = bound if isinstance(bound, tuple) else ((), bound)
    return equation.primitive.bind(*functions, *values, **parameters)


def carrying(jaxpr: Jaxpr, inputs: Sequence[bool] | None = None) -> list[bool]:
    """Return which results of a jaxpr carry a gradient: those that depend on inputs, not by ``stop_gradient`` alone.

    Integers and booleans carry none, nor does what is computed from them. A loop or a branch counts as a whole.

    Args:
        jaxpr: the jaxpr.
        inputs: which of its inputs carry a gradient; by default, those of floating dtypes.
    """
    from jax.extend.core import Literal

    carry = [_is_inexact(v.aval) for v in jaxpr.invars] if inputs is None else inputs
    known: dict[object, bool] = dict(zip(jaxpr.invars, carry, strict=True))

    def read(atom: Any) -> bool:
        return not isinstance(atom, Literal) and known.get(atom, False)

    for eqn in jaxpr.eqns:
        operands, name = [read(atom) for atom in eqn.invars], eqn.primitive.name
        if name in CALLS and name not in OWN_DERIVATIVES:
            inner = eqn.params[CALLS[name]]
            results = carrying(getattr(inner, "jaxpr", inner), operands)
        else:
            results = [name != "stop_gradient" and any(operands)] * len(eqn.outvars)
        known.update((v, carries and _is_inexact(v.aval)) for v, carries in zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _is_inexact(aval: Any) -> bool:
    return isinstance(aval.dtype, np.dtype) and (is_floating(aval.dtype) or aval.dtype.kind == "c")


class Reading:
    """The equations of a jaxpr in order, calls inlined and exact constants folded.

    Attributes:
        equations, inputs, outputs: of the whole program.
        deltas: the values that stand for cotangents of outputs, in order.
    """

    def __init__(self, jaxpr: Jaxpr, consts: Sequence[object], options: Collection[int] = ()) -> None:
        self.equations: list[Equation] = []
        self.deltas: list[Value] = []
        self.inputs = [
            Value(tuple(v.aval.shape), np.dtype(v.aval.dtype), option=i in options) for i, v in enumerate(jaxpr.invars)
        ]
        self.outputs = self._inline(jaxpr, consts, self.inputs)

    def _inline(self, jaxpr: Jaxpr, consts: Sequence[object], inputs: Sequence[Value]) -> list[Value]:
        from jax.extend.core import Literal

        values: dict[object, Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        values.update((v, _constant(c, v.aval)) for v, c in zip(jaxpr.constvars, consts, strict=True))

        def read(atom: Any) -> Value:
            return _constant(atom.val, atom.aval) if isinstance(atom, Literal) else values[atom]

        for eqn in jaxpr.eqns:
            results = self._read(eqn, [read(atom) for atom in eqn.invars])
            values.update(zip(eqn.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _read(self, eqn: Any, operands: list[Value]) -> list[Value]:
        """Read one equation of a jaxpr; return its results."""
        name, params = eqn.primitive.name, eqn.params
        if name in ALIASES:
            return operands
        if name in CALLS:
            return self._inline_call(params[CALLS[name]], operands)
        # A branch that is known when the program is read costs nothing when it runs.
        if name == "cond" and (index := operands[0].constant) is not None:
            return self._inline_call(params["branches"][clamped(index, params["branches"])], operands[1:])
        results = [_value(v.aval, name) for v in eqn.outvars]
        if name == COTANGENT:
            results[0].stage = PULLBACK
            self.deltas += results
        elif name in PRIMITIVES or name in CONTROL:
            self._append(Equation(name, params, operands, results, PRIMITIVES.get(name)))
        else:
            raise UnsupportedPrimitive(name)
        return results

    def _inline_call(self, inner: Any, operands: Sequence[Value]) -> list[Value]:
        """Read a jaxpr, closed or not, in the place of the equation that calls it."""
        return self._inline(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)

    def _append(self, equation: Equation) -> None:
        inputs = equation.inputs
        option = any(v.option for v in inputs) and all(v.option or v.constant is not None for v in inputs)
        # An equation belongs to the latest stage of its inputs: it can run no earlier.
        stage = max((v.stage for v in inputs), default=PRIMAL)
        for v in equation.outputs:
            v.option, v.stage = option, stage
        constants = [v.constant for v in inputs]
        # Constants that round are left to the run, where their operands may be perturbed; integers are not.
        if is_constant(equation, constants) and (not equation.kernel.rounds or _are_integers(inputs)):
            for v, constant in zip(equation.outputs, fold(equation, constants), strict=True):
                v.constant = constant
            return
        self.equations.append(equation)
        if not (equation.primitive in _NO_MORE_INTEGERS or equation.kernel.rounds):
            bound = _bound(inputs)
            for v in equation.outputs:
                v.integers = bound


# Primitives that do not round, and yet make other numbers of integers.
_NO_MORE_INTEGERS = CONTROL | {"nextafter", "bitcast_convert_type"}


def _are_integers(values: Iterable[Value]) -> bool:
    return all(not v.is_floating or v.largest_integer is not None for v in values)


def _bound(inputs: Sequence[Value]) -> float | None:
    """Return the largest magnitude of what an exact operation makes of integers; None if it gets other numbers."""
    floating = [v for v in inputs if v.is_floating]
    if not floating:
        return 1.0 if all(v.dtype.kind == "b" for v in inputs) else np.inf
    bounds = []
    for v in floating:
        if v.largest_integer is None:
            return None
        bounds.append(v.largest_integer)
    return max(bounds)


def _value(aval: Any, primitive: str) -> Value:
    dtype = aval.dtype if isinstance(aval.dtype, np.dtype) else None  # keys of random numbers have dtypes of their own
    if dtype is None or not (dtype.kind in "ciub" or is_floating(dtype)):
        raise UnsupportedPrimitive(f"{primitive} of {aval.dtype}")
    return Value(tuple(aval.shape), dtype)


def _constant(value: object, aval: Any) -> Value:
    return Value(tuple(aval.shape), np.dtype(aval.dtype), np.asarray(value, aval.dtype))


def is_constant(equation: Equation, constants: Sequence[Array | None]) -> bool:
    """Return whether an equation may be evaluated at once: a loop may be long, and a callback may count its calls."""
    later = equation.primitive in CONTROL or equation.primitive == "pure_callback"
    return not later and all(c is not None for c in constants)


def fold(equation: Equation, constants: Sequence[Any]) -> list[Array]:
    """Return the results of an equation whose inputs are constants; they may broadcast to their shapes."""
    kernel = equation.kernel
    if kernel.function is None:
        return [constants[0]]
    if not kernel.broadcasts:
        constants = [_filled(c, v.shape) for c, v in zip(constants, equation.inputs, strict=True)]
    with np.errstate(all="ignore"):
        results = kernel.function(*constants)
    return [
        np.asarray(r, v.dtype) for r, v in zip(results if kernel.several else [results], equation.outputs, strict=True)
    ]


def _filled(x: Array, shape: tuple[int, ...]) -> Array:
    return x if x.shape == shape else fill(x, shape)


def clamped(index: Any, branches: Sequence[object]) -> int:
    """Return the number of the branch that XLA runs for an index, which may be outside."""
    return min(max(int(index), 0), len(branches) - 1)


def split(reading: Reading, n_outputs: int) -> tuple[list[Equation], list[Equation]]:
    """Return the equations that the outputs need, and the others that the cotangents need."""
    outputs, cotangents = reading.outputs[:n_outputs], reading.outputs[n_outputs:]
    primal = needed(reading.equations, outputs)
    known = set(primal)
    rest = [eq for eq in reading.equations if eq not in known]
    return primal, needed(rest, cotangents)


def needed(equations: Sequence[Equation], results: Iterable[Value]) -> list[Equation]:
    """Return the equations that results need, in order."""
    live, found = set(results), list[Equation]()
    # Backwards, so that one pass finds the inputs of all that is needed.
    for equation in reversed(equations):
        if not live.isdisjoint(equation.outputs):
            found.append(equation)
            live.update(equation.inputs)
    return found[::-1]

"""References with one operation changed: what autograd gives if a term is detached, or a derivative replaced.

An edit keeps the value of the reference and changes its derivative alone. Torch references run under a mode that sees
each call of torch; JAX references are traced, and the trace is evaluated equation by equation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from importlib import import_module
from math import prod
from typing import Any, TypeAlias

from oracles.backends.jax_reference import jax_vjp
from oracles.backends.torch_reference import torch_autograd
from oracles.lazy_modules import jax, lax, torch
from oracles.rule import Function, Primals, Rule, Runtime, as_tuple, call_by_name

Value: TypeAlias = Any  # a tensor, a JAX array, or an argument of an operation
Call: TypeAlias = Callable[..., Value]


class Edit(Enum):
    """What becomes of one operation."""

    CUT = "cut"  # no derivative through its result
    IDENTITY = "identity"  # the derivative 1
    VALUE = "value"  # its value as its derivative


@dataclass(frozen=True)
class Operation:
    """One operation of a reference at a point.

    Attributes:
        index: its number among those whose result depends on the primals.
        name: what the framework calls it.
        operands: the shapes of the operands that depend on the primals.
        shape: the shape of its result.
    """

    index: int
    name: str
    operands: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...]

    @property
    def is_elementwise(self) -> bool:
        """Whether it may be a function of each entry of one operand."""
        return self.operands == (self.shape,)

    @property
    def is_reduction(self) -> bool:
        """Whether the result has fewer entries than the only operand."""
        return len(self.operands) == 1 and prod(self.shape) < prod(self.operands[0])


@dataclass
class Recorder:
    """Counts the operations of one evaluation, records them, and edits some.

    Attributes:
        edits: what becomes of operations, by their index.
        operands: of which operation one operand alone is cut, and of which: (index, position).
        recorded: the operations seen so far.
    """

    edits: Mapping[int, Edit] = field(default_factory=dict)
    operand: tuple[int, int] | None = None
    recorded: list[Operation] = field(default_factory=list)

    def run(self, name: str, call: Call, operands: Sequence[Value], framework: Framework) -> Value:
        """Run one operation with the edit that is meant for it.

        Args:
            name: its name.
            call: the operation, as a function of the operands.
            operands: those that depend on the primals.
            framework: whose operation it is.
        """
        result = call(*operands)
        if not operands or not framework.is_differentiable(result):
            return result
        index = len(self.recorded)
        shape = tuple(framework.first(result).shape)
        self.recorded.append(Operation(index, name, tuple(tuple(x.shape) for x in operands), shape))
        if self.operand is not None and self.operand[0] == index:
            position = self.operand[1]
            return call(*(framework.detach(x) if i == position else x for i, x in enumerate(operands)))
        edit = self.edits.get(index)
        return result if edit is None else framework.edit(edit, operands[0], result)


@dataclass(frozen=True)
class Framework:
    """What an edit needs of torch or JAX.

    Attributes:
        detach: returns a tensor without its derivative.
        is_tensor: whether a value is a tensor that depends on the primals.
    """

    detach: Callable[[Value], Value]
    is_tensor: Callable[[Value], bool]

    def first(self, result: Value) -> Value:
        """Return the first differentiable tensor of a result."""
        return next(part for part in as_tuple(result) if self.is_tensor(part))

    def is_differentiable(self, result: Value) -> bool:
        """Return whether a result, or an item of it, depends on the primals."""
        return any(map(self.is_tensor, as_tuple(result)))

    def edit(self, edit: Edit, operand: Value, result: Value) -> Value:
        """Return a result with the same value and another derivative."""
        if isinstance(result, tuple | list):
            parts = [self.edit(Edit.CUT, operand, part) if self.is_tensor(part) else part for part in result]
            return type(result)(parts)
        value = self.detach(result)
        if edit is Edit.CUT:
            return value
        moved = operand - self.detach(operand)
        return value + (moved if edit is Edit.IDENTITY else moved * value)


def operations(oracle: Rule, primals: Primals) -> list[Operation]:
    """Return the operations of an oracle's reference at a point; none if it has no reference in torch or JAX."""
    recorder = Recorder()
    if oracle.reference is None or oracle.runtime not in (Runtime.TORCH, Runtime.JAX):
        return []
    edited = _rule(oracle.reference, oracle.runtime, lambda: recorder)
    edited(**primals)
    # A trace runs the reference more than once; each time records the same operations.
    count = next((i for i, o in enumerate(recorder.recorded) if i and o.index == 0), len(recorder.recorded))
    return recorder.recorded[:count]


def edited(oracle: Rule, edits: Mapping[int, Edit], operand: tuple[int, int] | None = None) -> Rule:
    """Return the oracle with some operations edited, or with one operand of an operation cut."""
    assert oracle.reference is not None
    return _rule(oracle.reference, oracle.runtime, lambda: Recorder(edits, operand))


def _rule(reference: Function, runtime: Runtime, recorder: Callable[[], Recorder]) -> Rule:
    if runtime is Runtime.TORCH:
        return torch_autograd(lambda **tensors: _run_torch(reference, tensors, recorder()))
    return jax_vjp(lambda **arrays: _run_jax(reference, arrays, recorder()))


def _run_torch(reference: Function, tensors: Mapping[str, Value], recorder: Recorder) -> Value:
    framework = Framework(lambda t: t.detach(), lambda t: isinstance(t, torch.Tensor) and t.requires_grad)

    def function(
        mode: object, call: Call, types: object, args: tuple[Value, ...] = (), kwargs: Mapping[str, Value] | None = None
    ) -> Value:
        names = dict(kwargs or {})
        where = [i for i, a in enumerate(args) if framework.is_tensor(a)]
        named = [n for n, a in names.items() if framework.is_tensor(a)]

        def with_operands(*operands: Value) -> Value:
            positional, by_name = list(args), dict(names)
            for i, operand in zip(where, operands, strict=False):
                positional[i] = operand
            by_name.update(zip(named, operands[len(where) :], strict=True))
            return call(*positional, **by_name)

        operands = [*(args[i] for i in where), *(names[n] for n in named)]
        return recorder.run(getattr(call, "__name__", "operation"), with_operands, operands, framework)

    # The base class exists only once torch is imported, so the class is made here.
    base = import_module("torch.overrides").TorchFunctionMode
    with type("Record", (base,), {"__torch_function__": function})():
        return call_by_name(reference, tensors)


def _run_jax(reference: Function, arrays: Mapping[str, Value], recorder: Recorder) -> Value:
    names = tuple(arrays)
    closed, shape = jax.make_jaxpr(
        lambda *values: call_by_name(reference, dict(zip(names, values, strict=True))), return_shape=True
    )(*arrays.values())
    results = _evaluate_jaxpr(closed.jaxpr, closed.consts, list(arrays.values()), recorder)
    return tuple(results) if isinstance(shape, tuple | list) else results[0]


# Functions that are evaluated as their own equations; a function with its own VJP stays whole.
INLINED = ("jit", "pjit", "closed_call", "custom_jvp_call")


def _evaluate_jaxpr(
    jaxpr: Value, constants: Sequence[Value], arguments: Sequence[Value], recorder: Recorder
) -> list[Value]:
    tracer = import_module("jax.core").Tracer
    framework = Framework(
        lax.stop_gradient, lambda a: isinstance(a, tracer) and jax.numpy.issubdtype(a.dtype, jax.numpy.floating)
    )
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*constants, *arguments), strict=True))

    def read(variable: Value) -> Value:
        return variable.val if hasattr(variable, "val") else values[variable]

    for equation in jaxpr.eqns:
        inputs = [read(v) for v in equation.invars]
        inner = next((equation.params[n] for n in ("jaxpr", "call_jaxpr") if n in equation.params), None)
        if equation.primitive.name in INLINED and inner is not None:
            outputs = _evaluate_jaxpr(inner.jaxpr, inner.consts, inputs, recorder)
        else:
            where = [i for i, a in enumerate(inputs) if framework.is_tensor(a)]
            bind = partial(_bind, equation, inputs, where)
            result = recorder.run(equation.primitive.name, bind, [inputs[i] for i in where], framework)
            outputs = list(result) if equation.primitive.multiple_results else [result]
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _bind(equation: Value, inputs: Sequence[Value], where: Sequence[int], *operands: Value) -> Value:
    values = list(inputs)
    for i, operand in zip(where, operands, strict=True):
        values[i] = operand
    bound = equation.primitive.get_bind_params(equation.params)
    # Older JAX returns functions apart from the other parameters.
    functions, parameters = bound if isinstance(bound, tuple) else ((), bound)
    return equation.primitive.bind(*functions, *values, **parameters)

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
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from oracles.backends.devices import on_device
from oracles.lazy_modules import LazyModule, jax, lax, torch
from oracles.perturbation.jaxpr_reading import run_equation
from oracles.rule import Array, Function, Output, Primals, Rule, Runtime, as_tuple
from oracles.signatures import call_by_name

if TYPE_CHECKING:
    from oracles.backends import jax_reference, torch_reference
else:  # an edited reference needs one of them
    jax_reference = LazyModule("oracles.backends.jax_reference")
    torch_reference = LazyModule("oracles.backends.torch_reference")

Value: TypeAlias = Any  # a tensor, a JAX array, or an argument of an operation
Call: TypeAlias = Callable[..., Value]


class Edit(Enum):
    """What becomes of one operation."""

    CUT = "cut"  # no derivative through its result
    IDENTITY = "identity"  # the derivative 1
    VALUE = "value"  # its value as its derivative


@dataclass(frozen=True)
class RecordedOperation:
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
    """Counts the operations of one evaluation, records them, and edits or probes some.

    Attributes:
        edits: what becomes of operations, by their index.
        operand: of which operation one operand alone is cut, and which: (index, position).
        probes: arrays of zeros that are added to the operands and results of operations, by `probe_name`: their
            cotangents are those of one use of an operand alone.
        recorded: the operations seen so far.
        operands, results: those that a probe was added to, in their order.
    """

    edits: Mapping[int, Edit] = field(default_factory=dict)
    operand: tuple[int, int] | None = None
    probes: Mapping[str, Value] = field(default_factory=dict)
    recorded: list[RecordedOperation] = field(default_factory=list)
    operands: list[Value] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)

    def run(self, name: str, call: Call, operands: Sequence[Value], framework: FrameworkOperations) -> Value:
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
        self.recorded.append(RecordedOperation(index, name, tuple(tuple(x.shape) for x in operands), shape))
        if self.operand is not None and self.operand[0] == index:
            position = self.operand[1]
            return call(*(framework.detach(x) if i == position else x for i, x in enumerate(operands)))
        if probe_name(index, 0) in self.probes:
            return self._probe(index, call, operands)
        edit = self.edits.get(index)
        return result if edit is None else framework.edit(edit, operands[0], result)

    def _probe(self, index: int, call: Call, operands: Sequence[Value]) -> Value:
        self.operands += operands
        result = call(*(x + self.probes[probe_name(index, i)] for i, x in enumerate(operands)))
        if probe_name(index) not in self.probes:
            return result
        self.results.append(result)
        return result + self.probes[probe_name(index)]


def probe_name(index: int, position: int | None = None) -> str:
    """Return the name of the probe of an operation's operand, or of its result."""
    return f"_probe_{index}_{'result' if position is None else position}"


@dataclass(frozen=True)
class FrameworkOperations:
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


def operations(oracle: Rule, primals: Primals) -> list[RecordedOperation]:
    """Return the operations of an oracle's reference at a point; none if it has no reference in torch or JAX."""
    if oracle.reference is None or oracle.runtime not in (Runtime.TORCH, Runtime.JAX):
        return []
    recorders: list[Recorder] = []

    def make(probes: Mapping[str, Value]) -> Recorder:
        recorders.append(Recorder())
        return recorders[-1]

    _rule(oracle, make)(**primals)
    # A trace runs the reference more than once; each time records the same operations.
    return recorders[-1].recorded


def edited(oracle: Rule, edits: Mapping[int, Edit], operand: tuple[int, int] | None = None) -> Rule:
    """Return the oracle with some operations edited, or with one operand of an operation cut."""
    return _rule(oracle, lambda probes: Recorder(edits, operand))


def _rule(oracle: Rule, make: Callable[[Mapping[str, Value]], Recorder], with_operands: bool = False) -> Rule:
    """Return the oracle's reference under a recorder, which gets those arguments that are probes."""
    run = _run_torch if oracle.runtime is Runtime.TORCH else _run_jax
    reference = oracle.reference
    assert reference is not None

    def evaluate(**arrays: Value) -> Value:
        primals = {n: a for n, a in arrays.items() if not n.startswith("_probe_")}
        recorder = make({n: a for n, a in arrays.items() if n not in primals})
        y = run(reference, primals, recorder)
        return (*as_tuple(y), *recorder.operands, *recorder.results) if with_operands else y

    if oracle.runtime is Runtime.TORCH:
        return on_device(torch_reference.torch_autograd(evaluate), oracle.device)
    return jax_reference.jax_vjp(evaluate)


class Contributions:
    """What each use of an operand contributes to a cotangent: all from one evaluation of the reference.

    Attributes:
        total: the whole cotangent.
        recorded: the operations.
    """

    def __init__(
        self, oracle: Rule, recorded: Sequence[RecordedOperation], primals: Primals, delta: Output, name: str
    ) -> None:
        self.name, self.recorded = name, recorded
        probes = {probe_name(o.index, i): np.zeros(s) for o in recorded for i, s in enumerate(o.operands)}
        probes |= {probe_name(o.index): np.zeros(o.shape) for o in recorded if o.is_elementwise}
        rule = _rule(oracle, lambda arrays: Recorder(probes=arrays), with_operands=True)
        outputs, self._pullback = rule(**primals, **probes)
        deltas, self._outputs = as_tuple(delta), as_tuple(outputs)
        self._results = [o.index for o in recorded if o.is_elementwise]
        self._n_outputs = len(self._outputs) - sum(len(o.operands) for o in recorded) - len(self._results)
        self._cotangents = self._pull(dict(enumerate(deltas)))
        self.total = np.asarray(self._cotangents[name])

    def through(self, operation: RecordedOperation, position: int | None = None) -> Array:
        """Return the contribution of one operand of an operation, or of all."""
        seeds = self._seeds(operation, self._cotangents)
        if position is not None:
            output = self._output(operation, position)
            seeds = {output: seeds[output]}
        return np.asarray(self._pull(seeds)[self.name])

    def through_both(self, first: RecordedOperation, second: RecordedOperation) -> Array:
        """Return the contribution of two operations, of which the first may lie on the way to the second."""
        through_second = self._pull(self._seeds(second, self._cotangents))
        common = self._seeds(first, through_second)
        both = np.asarray(through_second[self.name]) + self.through(first)
        return np.asarray(both - self._pull(common)[self.name])

    def with_derivative(self, operation: RecordedOperation, edit: Edit) -> Array:
        """Return the cotangent with another derivative of an elementwise operation."""
        value = self._outputs[len(self._outputs) - len(self._results) + self._results.index(operation.index)]
        seed = self._cotangents[probe_name(operation.index)] * (value if edit is Edit.VALUE else 1.0)
        changed = self._pull({self._output(operation, 0): seed})[self.name]
        return np.asarray(self.total - self.through(operation) + changed)

    def _seeds(self, operation: RecordedOperation, cotangents: Mapping[str, Array]) -> dict[int, Array]:
        """Return the cotangents of the operands of an operation, by the number of the output that each operand is."""
        return {
            self._output(operation, i): cotangents[probe_name(operation.index, i)]
            for i in range(len(operation.operands))
        }

    def _output(self, operation: RecordedOperation, position: int) -> int:
        before = sum(len(o.operands) for o in self.recorded if o.index < operation.index)
        return self._n_outputs + before + position

    def _pull(self, seeds: Mapping[int, Array]) -> Mapping[str, Array]:
        zeros = [np.zeros_like(y) for y in self._outputs]
        return self._pullback(tuple(np.asarray(seeds.get(i, z), z.dtype) for i, z in enumerate(zeros)))


def _run_torch(reference: Function, tensors: Mapping[str, Value], recorder: Recorder) -> Value:
    framework = FrameworkOperations(lambda t: t.detach(), lambda t: isinstance(t, torch.Tensor) and t.requires_grad)

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
    # Without jax.jit the operations would have other numbers.
    with jax.disable_jit(False):
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
    framework = FrameworkOperations(
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
    return run_equation(equation, values)

"""Evaluate a jaxpr in NumPy, plainly or with every operand of every rounding operation perturbed.

JAX derives, NumPy evaluates: XLA compiles for each shape, at a quarter of a second each, and a search draws a fresh
shape for nearly every example. A jaxpr of concrete shapes is turned once into a list of NumPy calls: calls of inner
jaxprs are inlined, what no result needs is dropped, what is constant is computed at once, and broadcasts are left to
NumPy where it does them anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from oracles.perturbation.jaxpr_kernels import fill
from oracles.perturbation.jaxpr_primitives import ALIASES, CALLS, PRIMITIVES, Equation, Kernel, Value, is_trivial_factor
from oracles.perturbation.signs import Perturb
from oracles.rule import Array

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr, Jaxpr

# The primitive that stands for the cotangent of an output: its operand is the output, its result has its shape.
COTANGENT = "oracles_cotangent"

# A call: function, slots of its arguments, slot of its result (or slots of its several results).
Step: TypeAlias = "tuple[Callable[..., Any], tuple[int, ...], int | tuple[int, ...]]"
Memory: TypeAlias = "list[Any]"
# An inner program (the body of a loop, a branch): body(perturb, *arrays) -> results.
Body: TypeAlias = Callable[..., Sequence[Array]]

PRIMAL, RESIDUAL, PULLBACK = range(3)  # the stages of a program, in this order
LARGE = 1 << 14  # entries; the memory of what is larger is freed as soon as no later call reads it
PERTURB_SLOT = 0  # where the function that perturbs lies in the memory of a run


class UnsupportedPrimitive(NotImplementedError):
    """A JAX primitive that NumPy has no function for here: its name is the message."""


def contains(jaxpr: Jaxpr, *primitives: str) -> bool:
    """Return whether a jaxpr, or one inside it, has one of these primitives."""
    from jax.extend.core import jaxprs_in_params

    return any(
        eqn.primitive.name in primitives or any(contains(inner, *primitives) for inner in jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


class Program:
    """A jaxpr of arrays and options -> outputs and cotangents, as lists of NumPy calls.

    Its stages: the primal computes the outputs; the residuals are what else does not depend on the outputs'
    cotangents; the pullback is the rest. A caller who never pulls back pays for the primal alone.

    Attributes:
        calls_back: whether it has a callback into Python.
    """

    def __init__(self, closed: ClosedJaxpr, n_outputs: int, n_options: int) -> None:
        """Translate a jaxpr.

        Args:
            closed: its last ``n_options`` inputs are floating options.
            n_outputs: how many of its results are outputs; the rest are cotangents.
            n_options: see ``closed``.

        Raises:
            UnsupportedPrimitive: if a primitive is not known.
        """
        n = len(closed.jaxpr.invars)
        self._reading = _Reading(closed.jaxpr, closed.consts, range(n - n_options, n))
        self._n_outputs = n_outputs
        self.calls_back = contains(closed.jaxpr, "pure_callback")
        self._plain = _Calls(self._reading, n_outputs)

    def forward(self, arrays: Sequence[Array]) -> tuple[list[Array], Memory]:
        """Return the outputs, which belong to the caller, and what `pull` goes on from."""
        return self._plain.forward(arrays, None)

    def pull(self, memory: Memory, deltas: Sequence[Array]) -> list[Array]:
        """Return the cotangents of the inputs, given those of the floating outputs."""
        return self._plain.pull(memory, deltas)

    def perturbed(
        self, arrays: Sequence[Array], deltas: Sequence[Array], perturb: Perturb, forward: bool
    ) -> tuple[list[Array], list[Array]]:
        """Return outputs and cotangents of a perturbed run; without ``forward`` the pullback alone is perturbed."""
        calls = self._perturbed if forward else self._perturbed_pullback
        outputs, memory = calls.forward(arrays, perturb)
        return outputs, calls.pull(memory, deltas)

    @cached_property
    def _perturbed(self) -> _Calls:
        return _Calls(self._reading, self._n_outputs, (PRIMAL, RESIDUAL, PULLBACK))

    @cached_property
    def _perturbed_pullback(self) -> _Calls:
        return _Calls(self._reading, self._n_outputs, (PULLBACK,))


class _Reading:
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
        if name == "cond" and (index := operands[0].constant) is not None:
            return self._inline_call(params["branches"][_clamped(index, params["branches"])], operands[1:])
        results = [_value(v.aval, name) for v in eqn.outvars]
        if name == COTANGENT:
            results[0].stage = PULLBACK
            self.deltas += results
        elif name in PRIMITIVES or name in _CONTROL:
            self._append(Equation(name, params, operands, results))
        else:
            raise UnsupportedPrimitive(name)
        return results

    def _inline_call(self, inner: Any, operands: Sequence[Value]) -> list[Value]:
        """Read a jaxpr, closed or not, in the place of the equation that calls it."""
        return self._inline(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands)

    def _append(self, equation: Equation) -> None:
        inputs = equation.inputs
        option = any(v.option for v in inputs) and all(v.option or v.constant is not None for v in inputs)
        stage = max((v.stage for v in inputs), default=PRIMAL)
        for v in equation.outputs:
            v.option, v.stage = option, stage
        constants = [v.constant for v in inputs]
        if _is_constant(equation, constants) and not equation.kernel.rounds:
            for v, constant in zip(equation.outputs, _fold(equation, constants), strict=True):
                v.constant = constant
        else:
            self.equations.append(equation)


def _value(aval: Any, primitive: str) -> Value:
    dtype = aval.dtype if isinstance(aval.dtype, np.dtype) else None  # keys of random numbers have dtypes of their own
    if dtype is None or not (dtype.kind in "fiub" or dtype.name == "bfloat16"):
        raise UnsupportedPrimitive(f"{primitive} of {aval.dtype}")
    return Value(tuple(aval.shape), dtype)


def _constant(value: object, aval: Any) -> Value:
    return Value(tuple(aval.shape), np.dtype(aval.dtype), np.asarray(value, aval.dtype))


def _is_constant(equation: Equation, constants: Sequence[Array | None]) -> bool:
    """Return whether an equation may be evaluated at once: a loop may be long, and a callback may count its calls."""
    later = equation.primitive in _CONTROL or equation.primitive == "pure_callback"
    return not later and all(c is not None for c in constants)


def _fold(equation: Equation, constants: Sequence[Any]) -> list[Array]:
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


def _clamped(index: Any, branches: Sequence[object]) -> int:
    return min(max(int(index), 0), len(branches) - 1)


class _Calls:
    """The calls that evaluate a reading, its stages perturbed or not."""

    def __init__(self, reading: _Reading, n_outputs: int, perturbed: Collection[int] = ()) -> None:
        """Build the calls; operands of the rounding operations of the ``perturbed`` stages are perturbed."""
        build, results = _Builder(), reading.outputs
        primal, rest = _split(reading, n_outputs)
        build.read_once(reading.equations, results)
        self._inputs = [build.slot(v) for v in reading.inputs]
        self._deltas = [build.slot(v) for v in reading.deltas]
        build.add(primal, PRIMAL in perturbed)
        self._outputs = [build.finished(v) for v in results[:n_outputs]]
        primal_steps = build.take_steps()
        build.add((eq for eq in rest if eq.stage < PULLBACK), RESIDUAL in perturbed)
        build.inexact.clear()  # what the pullback hands on unchanged has shown its rounding where it was computed
        build.add((eq for eq in rest if eq.stage == PULLBACK), PULLBACK in perturbed)
        self._cotangents = [build.finished(v) for v in results[n_outputs:]]
        self._pullback, unread = _freeing(build.take_steps(), build.large - {*self._outputs, *self._cotangents})
        self._primal, _ = _freeing(primal_steps, unread)
        self._memory = build.memory

    def forward(self, arrays: Sequence[Array], perturb: Perturb | None) -> tuple[list[Array], Memory]:
        """Return the outputs, and the memory that the pullback goes on from."""
        memory = self._memory.copy()
        memory[PERTURB_SLOT] = perturb
        for slot, array in zip(self._inputs, arrays, strict=True):
            memory[slot] = array
        _execute(self._primal, memory)
        return [memory[slot] for slot in self._outputs], memory

    def pull(self, memory: Memory, deltas: Sequence[Array]) -> list[Array]:
        """Return the cotangents; the memory is left as it was, for another pullback."""
        memory = memory.copy()
        for slot, delta in zip(self._deltas, deltas, strict=True):
            memory[slot] = delta
        _execute(self._pullback, memory)
        return [memory[slot] for slot in self._cotangents]


def _execute(steps: Iterable[Step], memory: Memory) -> None:
    for function, sources, target in steps:
        result = function(*[memory[i] for i in sources])
        if type(target) is int:
            memory[target] = result
        else:
            for slot, part in zip(target, result, strict=True):  # type: ignore[arg-type]
                memory[slot] = part


def _freeing(steps: Sequence[Step], slots: Collection[int]) -> tuple[list[Step], set[int]]:
    """Return the steps, with each of the slots emptied after its last use, and the slots that no step uses."""
    unread, result = set(slots), list[Step]()
    for step in reversed(steps):
        _, sources, target = step
        for slot in unread & {*sources, *_slots_of(target)}:
            unread.remove(slot)
            result.append((_nothing, (), slot))
        result.append(step)
    return result[::-1], unread


def _nothing() -> None:
    """Return what an emptied slot holds."""


def _slots_of(target: int | tuple[int, ...]) -> tuple[int, ...]:
    return target if isinstance(target, tuple) else (target,)


def _split(reading: _Reading, n_outputs: int) -> tuple[list[Equation], list[Equation]]:
    """Return the equations that the outputs need, and the others that the cotangents need."""
    outputs, cotangents = reading.outputs[:n_outputs], reading.outputs[n_outputs:]
    primal = _needed(reading.equations, outputs)
    known = set(primal)
    rest = [eq for eq in reading.equations if eq not in known]
    return primal, _needed(rest, cotangents)


def _needed(equations: Sequence[Equation], results: Iterable[Value]) -> list[Equation]:
    """Return the equations that results need, in order."""
    live, needed = set(results), []
    for equation in reversed(equations):
        if not live.isdisjoint(equation.outputs):
            needed.append(equation)
            live.update(equation.inputs)
    return needed[::-1]


def _body(closed: Any, perturbed: bool, options: Collection[int] = ()) -> Body:
    """Return the inner program of a loop or a branch, whose inputs ``options`` come from floating options."""
    reading, build = _Reading(closed.jaxpr, closed.consts, options), _Builder()
    inputs = slice(PERTURB_SLOT, PERTURB_SLOT + 1 + len([build.slot(v) for v in reading.inputs]))
    build.add(_needed(reading.equations, reading.outputs), perturbed)
    outputs = [build.whole(v) for v in reading.outputs]
    steps, _ = _freeing(build.take_steps(), build.large.difference(outputs))
    template = build.memory

    def run(perturb: Perturb | None, *arrays: Array) -> list[Array]:
        memory = template.copy()
        memory[inputs] = perturb, *arrays
        _execute(steps, memory)
        return [memory[slot] for slot in outputs]

    return run


class _Builder:
    """Turns equations into steps on numbered slots of memory.

    Attributes:
        memory: the slots before a run: the function that perturbs, inputs, constants, results.
        inexact: values that perturbed operations led to.
        large: the slots of results with many entries.
    """

    def __init__(self) -> None:
        self.memory: Memory = [None]
        self.large: set[int] = set()
        self.inexact: set[Value] = set()
        self._steps: list[Step] = []
        self._slots: dict[Value, int] = {}
        self._shapes: dict[Value, tuple[int, ...]] = {}  # of the arrays in the slots, which may be smaller
        self._constants: dict[Value, Array] = {}  # what is constant where nothing is perturbed
        self._own: set[Value] = set()  # what shares memory with nothing
        self._read_once: frozenset[Value] = frozenset()

    def take_steps(self) -> list[Step]:
        """Return the steps since the last call."""
        steps, self._steps = self._steps, []
        return steps

    def read_once(self, equations: Iterable[Equation], results: Sequence[Value]) -> None:
        """Note which results no equation and no other result reads: these can be given away."""
        counts: dict[Value, int] = {}
        for v in results:
            counts[v] = counts.get(v, 0) + 1
        for equation in equations:
            for v in equation.inputs:
                counts[v] = counts.get(v, 0) + 1
        self._read_once = frozenset(v for v in results if counts[v] == 1)

    def _new_slot(self, content: Array | None = None) -> int:
        self.memory.append(content)
        return len(self.memory) - 1

    def _result_slot(self, shape: tuple[int, ...]) -> int:
        slot = self._new_slot()
        if math.prod(shape) > LARGE:
            self.large.add(slot)
        return slot

    def slot(self, v: Value) -> int:
        """Return the slot of a value, whose array may be smaller and broadcasts to the value's shape."""
        if v not in self._slots:
            constant = self._constant(v)
            self._slots[v] = self._new_slot(constant)
            self._shapes[v] = v.shape if constant is None else constant.shape
        return self._slots[v]

    def whole(self, v: Value) -> int:
        """Return the slot of a value in its full shape."""
        slot = self.slot(v)
        if self._shapes[v] == v.shape:
            return slot
        constant, shape = self._constant(v), v.shape
        self._shapes[v] = shape
        if constant is not None:
            self._slots[v] = self._new_slot(fill(constant, shape))
        else:
            self._slots[v] = self._step(shape, lambda x: fill(x, shape), slot)
            self._own.add(v)
        return self._slots[v]

    def finished(self, v: Value) -> int:
        """Return the slot of a result in memory of its own; of a perturbed one after its last rounding.

        No later operation would show the rounding of the last one.
        """
        slot = self.whole(v)
        if v in self.inexact:
            return self._step(v.shape, lambda perturb, x: np.asarray(perturb(x)), PERTURB_SLOT, slot)
        if v in self._own and v in self._read_once and v.shape:
            return slot
        return self._step(v.shape, np.array, slot)

    def add(self, equations: Iterable[Equation], perturbed: bool) -> None:
        """Add the steps of equations."""
        for equation in equations:
            perturbs = perturbed and not equation.outputs[0].option
            if equation.primitive in _CONTROL:
                self._add_control(equation, perturbs)
            elif not (perturbs and equation.kernel.rounds):
                self._add_plain(equation)
            else:
                self._add_perturbed(equation)

    def _add_control(self, equation: Equation, perturbed: bool) -> None:
        function = _CONTROL[equation.primitive](equation, perturbed)
        targets = tuple(self._define(v) for v in equation.outputs)
        self._steps.append((function, (PERTURB_SLOT, *map(self.whole, equation.inputs)), targets))
        if perturbed:
            self.inexact.update(v for v in equation.outputs if v.is_floating)

    def _add_plain(self, equation: Equation) -> None:
        kernel, inputs = equation.kernel, equation.inputs
        constants = [self._constant(v) for v in inputs]
        if _is_constant(equation, constants):
            self._constants.update(zip(equation.outputs, _fold(equation, constants), strict=True))
            return
        slots = tuple(map(self.slot if kernel.broadcasts else self.whole, inputs))
        shapes = [self._shapes[v] for v in inputs]
        if kernel.function is None:
            (out,) = equation.outputs
            self._slots[out], self._shapes[out] = slots[0], shapes[0]
        else:
            shape = np.broadcast_shapes(*shapes) if kernel.broadcasts else kernel.shape
            self._call(equation, kernel, slots, shape)
        if not self.inexact.isdisjoint(inputs):
            self.inexact.update(v for v in equation.outputs if v.is_floating)

    def _add_perturbed(self, equation: Equation) -> None:
        kernel, (out, *_) = equation.kernel, equation.outputs
        if equation.primitive == "mul" and any(v.option for v in equation.inputs):
            x, y = map(self.slot, equation.inputs)
            self._slots[out] = self._step(out.shape, _option_product(out.shape), PERTURB_SLOT, x, y)
            self._shapes[out] = out.shape
        else:
            slots = [
                self._perturbed_operand(v, kernel, out) if i not in kernel.decides else self.whole(v)
                for i, v in enumerate(equation.inputs)
            ]
            self._call(equation, kernel, slots, None)
        self.inexact.update(v for v in equation.outputs if v.is_floating)

    def _perturbed_operand(self, v: Value, kernel: Kernel, out: Value) -> int:
        if not v.is_floating:
            return self.whole(v)
        if not kernel.broadcasts:
            return self._step(v.shape, _perturb, PERTURB_SLOT, self.whole(v))
        slot, shape = self.slot(v), out.shape
        if self._shapes[v] == shape:
            return self._step(shape, _perturb, PERTURB_SLOT, slot)
        return self._step(shape, lambda perturb, x: perturb(x, shape), PERTURB_SLOT, slot)

    def _call(self, equation: Equation, kernel: Kernel, slots: Iterable[int], shape: tuple[int, ...] | None) -> None:
        """Add the call of a kernel, whose result has this shape; None where it is that of the value."""
        assert kernel.function is not None
        targets = tuple(self._define(v, shape) for v in equation.outputs)
        if kernel.fresh:
            self._own.update(equation.outputs)
        self._steps.append((kernel.function, tuple(slots), targets if kernel.several else targets[0]))

    def _define(self, v: Value, shape: tuple[int, ...] | None = None) -> int:
        self._shapes[v] = v.shape if shape is None else shape
        self._slots[v] = self._result_slot(self._shapes[v])
        return self._slots[v]

    def _step(self, shape: tuple[int, ...], function: Callable[..., Any], *sources: int) -> int:
        """Add a call whose result has this shape; return its slot."""
        slot = self._result_slot(shape)
        self._steps.append((function, sources, slot))
        return slot

    def _constant(self, v: Value) -> Array | None:
        return v.constant if v.constant is not None else self._constants.get(v)


def _perturb(perturb: Perturb, x: Array) -> Array:
    return perturb(x)


def _option_product(shape: tuple[int, ...]) -> Callable[..., Array]:
    """Return the perturbed product with an option: exact where that is 0 or ±1, as if it were a constant."""

    def multiply(perturb: Perturb, x: Array, y: Array) -> Array:
        if any(np.ndim(a) == 0 and is_trivial_factor(a) for a in (x, y)):
            return fill(np.asarray(x * y), shape)
        return np.asarray(perturb(x, shape) * perturb(y, shape))

    return multiply


def _scan(equation: Equation, perturbed: bool) -> Callable[..., Any]:
    p = equation.params
    n_consts, n_carry = _scan_counts(equation)
    options = [i for i, v in enumerate(equation.inputs[:n_consts]) if v.option]
    body = _body(p["jaxpr"], perturbed, options)
    stacked = [(v.shape, v.dtype) for v in equation.outputs[n_carry:]]
    order = range(p["length"])[:: -1 if p["reverse"] else 1]

    def run(perturb: Perturb | None, *operands: Array) -> list[Array]:
        consts, xs = operands[:n_consts], operands[n_consts + n_carry :]
        carry: Sequence[Array] = operands[n_consts : n_consts + n_carry]
        ys = [np.empty(shape, dtype) for shape, dtype in stacked]
        for i in order:
            results = body(perturb, *consts, *carry, *[x[i] for x in xs])
            carry = results[:n_carry]
            for y, part in zip(ys, results[n_carry:], strict=True):
                y[i] = part
        return [*carry, *ys]

    return run


def _scan_counts(equation: Equation) -> tuple[int, int]:
    """Return how many operands of a scan are constants, and how many are its carry.

    The operands are the constants, the carry and the arrays that the body gets by slices; the results are the carry and
    the stacked arrays. JAX 0.12 no longer has the counts among the parameters, so the shapes tell them: an array that
    is sliced or stacked has one axis more outside of the body.
    """
    body = equation.params["jaxpr"]
    n_sliced = sum(len(v.shape) > aval.ndim for v, aval in zip(equation.inputs, body.in_avals, strict=True))
    n_stacked = sum(len(v.shape) > aval.ndim for v, aval in zip(equation.outputs, body.out_avals, strict=True))
    n_carry = len(equation.outputs) - n_stacked
    return len(equation.inputs) - n_sliced - n_carry, n_carry


def _while(equation: Equation, perturbed: bool) -> Callable[..., Any]:
    p = equation.params
    test, body = _body(p["cond_jaxpr"], perturbed), _body(p["body_jaxpr"], perturbed)
    n_test, n_consts = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]

    def run(perturb: Perturb | None, *operands: Array) -> Sequence[Array]:
        test_consts, consts = operands[:n_test], operands[n_test:n_consts]
        state: Sequence[Array] = operands[n_consts:]
        while test(perturb, *test_consts, *state)[0]:
            state = body(perturb, *consts, *state)
        return state

    return run


def _cond(equation: Equation, perturbed: bool) -> Callable[..., Any]:
    """Run one branch, the index clamped as XLA does."""
    options = [i for i, v in enumerate(equation.inputs[1:]) if v.option]
    branches = [_body(branch, perturbed, options) for branch in equation.params["branches"]]
    return lambda perturb, index, *operands: branches[_clamped(index, branches)](perturb, *operands)


_CONTROL: dict[str, Callable[[Equation, bool], Callable[..., Any]]] = {"scan": _scan, "while": _while, "cond": _cond}

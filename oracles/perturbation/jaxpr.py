"""Evaluate a jaxpr in NumPy, plainly or with every operand of every rounding operation perturbed.

JAX derives, NumPy evaluates: XLA compiles for each shape, at a quarter of a second each, and a search draws a fresh
shape for nearly every example. A jaxpr of concrete shapes is turned once into a list of NumPy calls: calls of inner
jaxprs are inlined, what no result needs is dropped, what is constant is computed at once, and broadcasts are left to
NumPy where it does them anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from oracles.constants import FREED_ENTRIES
from oracles.perturbation.fill_values import FillValues
from oracles.perturbation.jaxpr_equations import Equation, Kernel, Value
from oracles.perturbation.jaxpr_kernels import fill, integer_bound
from oracles.perturbation.jaxpr_operands import option_product, perturb_all, perturb_as, run_guarded
from oracles.perturbation.jaxpr_reading import (
    PRIMAL,
    PULLBACK,
    RESIDUAL,
    Reading,
    clamped,
    contains,
    fold,
    is_constant,
    needed,
    note_constants,
    split,
)
from oracles.perturbation.random_signs import Perturb, keeping
from oracles.rule import Array
from oracles.user_code import Raised, attempt

if TYPE_CHECKING:
    from jax.extend.core import ClosedJaxpr

# A call: function, slots of its arguments, slot of its result (or slots of its several results).
Step: TypeAlias = "tuple[Callable[..., Any], tuple[int, ...], int | tuple[int, ...]]"
Memory: TypeAlias = "list[Any]"
# An inner program (the body of a loop, a branch): body(perturb, *arrays) -> results.
Body: TypeAlias = Callable[..., Sequence[Array]]

# Where the memory of a run has the function that perturbs, the memory of the plain run beside it, and the inputs.
PERTURB_SLOT, PLAIN_SLOT, FIRST_SLOT = range(3)
# Every precision has all integers up to this one: bfloat16 has 8 bits.
ALWAYS_EXACT = 2.0**8


class Program:
    """A jaxpr of arrays and options -> outputs and cotangents, as lists of NumPy calls.

    Its stages: the primal computes the outputs; the residuals are what else does not depend on the outputs'
    cotangents; the pullback is the rest. A caller who never pulls back pays for the primal alone.

    Attributes:
        calls_back: whether it has a callback into Python.
        moves: of each output, whether it has a cotangent: integers and booleans have none.
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
        self._reading = Reading(closed.jaxpr, closed.consts, range(n - n_options, n))
        self._n_outputs = n_outputs
        self._fills = FillValues()
        note_constants(closed, self._fills)
        self.calls_back = contains(closed.jaxpr, "pure_callback")
        self.moves = [v.is_floating for v in self._reading.outputs[:n_outputs]]
        self._plain = _Calls(self._reading, n_outputs)
        self._built: dict[object, _Calls] = {}

    def forward(self, arrays: Sequence[Array]) -> tuple[list[Array], Memory]:
        """Return the outputs, which belong to the caller, and what `pull` goes on from."""
        return self._plain.forward(arrays, None)

    def pull(self, memory: Memory, deltas: Sequence[Array]) -> list[Array]:
        """Return the cotangents of the inputs, given those of the floating outputs."""
        return self._plain.pull(memory, deltas)

    def perturbed(
        self, arrays: Sequence[Array], deltas: Sequence[Array], perturb: Perturb, forward: bool
    ) -> tuple[list[Array], list[Array]]:
        """Return outputs and cotangents of a perturbed run; without ``forward`` the pullback alone is perturbed.

        Where an operation leaves its domain because its operands are perturbed (the arcsine of 1 + 1e-15), its result
        is that of the plain run, perturbed.
        """
        stages = (PRIMAL, RESIDUAL, PULLBACK) if forward else (PULLBACK,)
        if self._fills:
            perturb = keeping(perturb, self._fills)
        # A callback may raise anything outside of its domain; the guarded run shows other causes.
        result = attempt(lambda: self._calls(stages).run(arrays, deltas, perturb)[:2])
        if not isinstance(result, Raised) and all(map(_are_finite, result)):
            return result
        plain = self._calls((), keeps=True)
        guarded = self._calls(stages, plain)
        outputs, cotangents, _ = guarded.run(arrays, deltas, perturb, plain.run(arrays, deltas, None)[2])
        return outputs, cotangents

    def _calls(self, stages: tuple[int, ...], guard: _Calls | None = None, keeps: bool = False) -> _Calls:
        """Return the calls that perturb these stages; they are built once."""
        key = stages, guard is not None, keeps
        if key not in self._built:
            self._built[key] = _Calls(self._reading, self._n_outputs, stages, guard, keeps)
        return self._built[key]


def _are_finite(arrays: Iterable[Array]) -> bool:
    # The sum of squares costs a fraction of a test of each entry; only where it overflows is that made.
    return all(math.isfinite(np.vdot(x, x)) or np.isfinite(x).all() for x in arrays if x.dtype.kind == "f")


class _Calls:
    """The calls that evaluate a reading, its stages perturbed or not.

    Attributes:
        builder: knows where the memory of a run has which value.
    """

    def __init__(
        self,
        reading: Reading,
        n_outputs: int,
        perturbed: Collection[int] = (),
        guard: _Calls | None = None,
        keeps: bool = False,
    ) -> None:
        """Build the calls.

        Args:
            reading, n_outputs: the program.
            perturbed: the stages of which the operands of rounding operations are perturbed.
            guard: the calls of the plain program, whose results replace those that are lost by a perturbation.
            keeps: leave all arrays in memory after a run.
        """
        build = _Builder(guard.builder if guard else None)
        self.builder: _Builder = build
        results = reading.outputs
        primal, rest = split(reading, n_outputs)
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
        freed = set() if keeps else build.large - {*self._outputs, *self._cotangents}
        self._pullback, unread = _freeing(build.take_steps(), freed)
        self._primal, _ = _freeing(primal_steps, unread)
        self._memory = build.memory

    def run(
        self, arrays: Sequence[Array], deltas: Sequence[Array], perturb: Perturb | None, plain: Memory | None = None
    ) -> tuple[list[Array], list[Array], Memory]:
        """Return outputs, cotangents and memory; ``plain`` is the memory of a plain run that keeps it."""
        outputs, memory = self.forward(arrays, perturb, plain)
        for slot, delta in zip(self._deltas, deltas, strict=True):
            memory[slot] = delta
        _execute(self._pullback, memory)
        return outputs, [memory[slot] for slot in self._cotangents], memory

    def forward(
        self, arrays: Sequence[Array], perturb: Perturb | None, plain: Memory | None = None
    ) -> tuple[list[Array], Memory]:
        """Return the outputs, and the memory that the pullback goes on from."""
        memory = self._memory.copy()
        memory[PERTURB_SLOT], memory[PLAIN_SLOT] = perturb, plain
        for slot, array in zip(self._inputs, arrays, strict=True):
            memory[slot] = array
        _execute(self._primal, memory)
        return [memory[slot] for slot in self._outputs], memory

    def pull(self, memory: Memory, deltas: Sequence[Array]) -> list[Array]:
        """Return the cotangents; the memory is left as it was, for another pullback."""
        # A shallow copy, so that this pullback may empty slots which another one needs.
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
    # Backwards: the first use that is met is the last one of a run.
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


def _body(closed: Any, perturbed: bool, options: Collection[int] = ()) -> Body:
    """Return the inner program of a loop or a branch, whose inputs ``options`` come from floating options."""
    reading, build = Reading(closed.jaxpr, closed.consts, options), _Builder()
    inputs = slice(FIRST_SLOT, FIRST_SLOT + len([build.slot(v) for v in reading.inputs]))
    build.add(needed(reading.equations, reading.outputs), perturbed)
    outputs = [build.whole(v) for v in reading.outputs]
    steps, _ = _freeing(build.take_steps(), build.large.difference(outputs))
    template = build.memory

    def run(perturb: Perturb | None, *arrays: Array) -> list[Array]:
        memory = template.copy()
        memory[PERTURB_SLOT], memory[inputs] = perturb, arrays
        _execute(steps, memory)
        return [memory[slot] for slot in outputs]

    return run


class _Builder:
    """Turns equations into steps on numbered slots of memory.

    Attributes:
        memory: the slots before a run: what `PERTURB_SLOT` and `PLAIN_SLOT` hold, inputs, constants, results.
        inexact: values that perturbed operations led to.
        large: the slots of results with many entries.
    """

    def __init__(self, plain: _Builder | None = None) -> None:
        """Start a program; ``plain`` is that of the plain run which guards it, if any."""
        self.memory: Memory = [None] * FIRST_SLOT
        self._plain = plain
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
        if math.prod(shape) > FREED_ENTRIES:
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
        sources = (PERTURB_SLOT, *map(self.whole, equation.inputs))
        if perturbed and self._plain:
            function, sources = self._guarded(equation, function, True), (PERTURB_SLOT, PLAIN_SLOT, *sources)
        self._steps.append((function, sources, targets))
        if perturbed:
            self.inexact.update(v for v in equation.outputs if v.is_floating)

    def _add_plain(self, equation: Equation) -> None:
        kernel, inputs = equation.kernel, equation.inputs
        constants = [self._constant(v) for v in inputs]
        if is_constant(equation, constants):
            self._constants.update(zip(equation.outputs, fold(equation, constants), strict=True))
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
            product = option_product(out.shape, *(v.option for v in equation.inputs))
            self._slots[out] = self._step(out.shape, product, PERTURB_SLOT, x, y)
            self._shapes[out] = out.shape
        else:
            operands = [
                self._operand(v, kernel) if i in kernel.decides else self._perturbed_operand(v, kernel, out)
                for i, v in enumerate(equation.inputs)
            ]
            slots, shapes = [slot for slot, _ in operands], [shape for _, shape in operands]
            shape = np.broadcast_shapes(*shapes) if kernel.broadcasts else None
            self._call(equation, kernel, slots, shape, guarded=self._plain is not None)
        self.inexact.update(v for v in equation.outputs if v.is_floating)

    def _operand(self, v: Value, kernel: Kernel) -> tuple[int, tuple[int, ...]]:
        """Return the slot of an operand and the shape of its array, which a kernel may broadcast."""
        slot = self.slot(v) if kernel.broadcasts else self.whole(v)
        return slot, self._shapes[v]

    def _perturbed_operand(self, v: Value, kernel: Kernel, out: Value) -> tuple[int, tuple[int, ...]]:
        """Return the slot of a perturbed operand and the shape of its array; integers that are exact stay so."""
        bound = self._largest_integer(v) if v.is_floating else 0.0
        slot, own = self._operand(v, kernel)
        if bound is not None and bound <= ALWAYS_EXACT:
            return slot, own
        # What is broadcast is an operand of its own for each entry of the result.
        shape = own if bound is not None or not kernel.broadcasts else out.shape
        unless_exact = bound is not None or v.option
        simple = shape == own and kernel.terms == 1 and not unless_exact and not kernel.product
        perturbed = perturb_all if simple else perturb_as(shape, kernel.terms, unless_exact, kernel.product)
        return self._step(shape, perturbed, PERTURB_SLOT, slot), shape

    def _largest_integer(self, v: Value) -> float | None:
        constant = self._constants.get(v)
        return v.largest_integer if constant is None else integer_bound(constant)

    def _call(
        self,
        equation: Equation,
        kernel: Kernel,
        slots: Iterable[int],
        shape: tuple[int, ...] | None,
        guarded: bool = False,
    ) -> None:
        """Add the call of a kernel, whose result has this shape; None if it is that of the value."""
        function = kernel.function
        assert function is not None
        if guarded:
            function, slots = self._guarded(equation, function, kernel.several), (PERTURB_SLOT, PLAIN_SLOT, *slots)
        targets = tuple(self._define(v, shape) for v in equation.outputs)
        if kernel.fresh:
            self._own.update(equation.outputs)
        self._steps.append((function, tuple(slots), targets if kernel.several else targets[0]))

    def _guarded(self, equation: Equation, function: Callable[..., Any], several: bool) -> Callable[..., Any]:
        assert self._plain is not None
        slots = [self._plain.slot(v) for v in equation.outputs]
        return partial(run_guarded, function, slots if several else slots[0])

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
    return lambda perturb, index, *operands: branches[clamped(index, branches)](perturb, *operands)


_CONTROL: dict[str, Callable[[Equation, bool], Callable[..., Any]]] = {"scan": _scan, "while": _while, "cond": _cond}

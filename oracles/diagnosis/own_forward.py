"""The derivative of a subject's own NumPy forward, and what it becomes if one operation is differentiated wrongly.

The forward is recorded as a graph (`oracles.diagnosis.recorded_arrays`) and differentiated backwards. That is a
reference where the user has none, and a `Change` of the graph is the answer of a backward with one certain mistake in
it: no derivative of an activation, its value in place of its derivative, a matrix that is not transposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property, partial
from typing import TypeAlias

import numpy as np

from oracles.constants import OWN_AGREEMENT
from oracles.diagnosis.pullbacks import NotRecordable
from oracles.diagnosis.recorded_arrays import Operation, Tape
from oracles.perturbation.fill_values import FillValues
from oracles.perturbation.numpy_arrays import perturbed_array
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    NotPerturbable,
    Output,
    Perturbation,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    is_differentiable,
)
from oracles.user_code import Raised, attempt

# The cotangents that an operation gives to operands, from that of its result.
Contributions: TypeAlias = list[tuple[Operation, Array]]
Pulled: TypeAlias = Callable[[Array], Contributions]


class Kind(Enum):
    """What a backward gets wrong in one operation, or in one function of single entries."""

    ONE = "the derivative 1"
    VALUE = "its value in place of its derivative"
    AT_OUTPUT = "its derivative at its output in place of its input"
    FORMULA_AT_INPUT = "its derivative's formula in terms of the output, at its input"
    TWICE = "its derivative twice"
    NEGATED = "the wrong sign"
    TRANSPOSED = "an operand that is not transposed"
    CUT = "no derivative"


@dataclass(frozen=True)
class Change:
    """One mistake: its kind, and the functions of single entries (start, end), or the (operation, operand), it is in.

    Attributes:
        kind: the mistake.
        targets: pairs of numbers: of the operations where a function starts and ends, or of an operation and of its
            operand.
    """

    kind: Kind
    targets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, eq=False)
class EntryFunction:
    """Several operations that together are one function of each entry: 1 / (1 + exp(−z)).

    Attributes:
        start, end: the operation whose result is the argument, and the one whose result is the value.
        between: all operations of the function in their order, the last one too.
    """

    start: Operation
    end: Operation
    between: tuple[Operation, ...]

    @property
    def argument(self) -> Array:
        """The argument, entry by entry."""
        return self.start.value

    @property
    def value(self) -> Array:
        """The value, entry by entry."""
        return self.end.value

    @property
    def signature(self) -> tuple[str, ...]:
        """The names of the operations."""
        return tuple(o.name for o in self.between)

    def derivative(self, argument: Array | None = None, seed: Array | None = None) -> Array:
        """Return seed · f'(argument); by default f' at the argument of the forward."""
        values = {o.index: o.value for o in self.between}
        values |= {o.index: o.value for inner in self.between for o in inner.operands if o.index not in values}
        if argument is not None:
            values[self.start.index] = argument
            for o in self.between:
                values[o.index] = o.call(*(values[i.index] for i in o.operands))
        inside = {o.index for o in self.between} | {self.start.index}
        g = {self.end.index: np.ones(self.end.shape) if seed is None else seed}
        for o in reversed(self.between):
            if o.index not in g:
                continue
            operands = [values[i.index] for i in o.operands]
            for operand, pull in zip(o.operands, o.pulls, strict=True):
                if operand.index in inside:
                    part = pull(g[o.index], values[o.index], *operands)
                    g[operand.index] = g[operand.index] + part if operand.index in g else part
        return np.asanyarray(g.get(self.start.index, np.zeros(self.start.shape)))


@dataclass(frozen=True, eq=False)
class Graph:
    """The operations of a forward at one point.

    Attributes:
        operations: all in their order, primals and constants too.
        primals: the operation of each floating primal.
        outputs: the outputs; a constant has no operation.
        y: their values, in the structure that the forward returned.
    """

    operations: Sequence[Operation]
    primals: Mapping[str, Operation]
    outputs: Sequence[Operation | None]
    y: Output

    def cotangents(
        self, delta: Delta, change: Change | None = None, rounded: Mapping[int, Pulled] | None = None
    ) -> dict[str, Array]:
        """Differentiate backwards, with one mistake if a change is given.

        Args:
            delta: the cotangent of the output.
            change: the mistake.
            rounded: what some operations, by their numbers, give to operands in place of their own cotangents.
        """
        instead = {**(rounded or {}), **(self._instead(change) if change is not None else {})}
        g: dict[int, Array] = {}
        for output, d in zip(self.outputs, as_tuple(delta), strict=True):
            if output is not None:
                _add(g, output, d)
        for o in reversed(self.operations):
            if o.index in g:
                contributions = instead.get(o.index, partial(_contributions, o))
                for operand, part in contributions(g[o.index]):
                    _add(g, operand, part)
        return {n: g.get(o.index, np.zeros(o.shape)) for n, o in self.primals.items()}

    @cached_property
    def functions(self) -> list[EntryFunction]:
        """All functions of single entries that are not linear, as long as possible first."""
        found = [f for o in self.operations for f in _functions_that_end_in(o, self.operations)]
        curved = (f for f in found if f.start.shape == f.end.shape and _is_curved(f))
        return sorted(curved, key=lambda f: -len(f.between))

    def _instead(self, change: Change) -> dict[int, Pulled]:
        """Return what some operations give to their operands in place of their own cotangents."""
        if change.kind in (Kind.TRANSPOSED, Kind.CUT):
            by_operation: dict[int, list[int]] = {}
            for index, operand in change.targets:
                by_operation.setdefault(index, []).append(operand)
            return {
                index: partial(_with_operands, change.kind, self._operation(index), operands)
                for index, operands in by_operation.items()
            }
        functions = [self._function(*ends) for ends in change.targets]
        return {f.end.index: partial(_with_derivative, change.kind, f) for f in functions}

    def _function(self, start: int, end: int) -> EntryFunction:
        """Return a function by its ends, whether it is curved at this point or not."""
        for f in _functions_that_end_in(self._operation(end), self.operations):
            if f.start.index == start and f.start.shape == f.end.shape:
                return f
        raise NotRecordable("the forward has other operations here")

    def _operation(self, index: int) -> Operation:
        if index >= len(self.operations):
            raise NotRecordable("the forward has other operations here")
        return self.operations[index]


def _add(g: dict[int, Array], operation: Operation, part: Array) -> None:
    g[operation.index] = g[operation.index] + part if operation.index in g else part


def _contributions(operation: Operation, g: Array) -> Contributions:
    values = [o.value for o in operation.operands]
    return [(o, pull(g, operation.value, *values)) for o, pull in zip(operation.operands, operation.pulls, strict=True)]


def _with_derivative(kind: Kind, function: EntryFunction, g: Array) -> Contributions:
    """Return a cotangent times another function than the derivative."""
    start, end = function.argument, function.value
    if kind is Kind.ONE:
        result = g
    elif kind is Kind.VALUE:
        result = g * end
    elif kind is Kind.AT_OUTPUT:
        result = function.derivative(end, g)
    elif kind is Kind.NEGATED:
        result = -function.derivative(seed=g)
    elif kind is Kind.TWICE:
        result = function.derivative(seed=function.derivative(seed=g))
    else:
        formula = formula_of_output(function)
        if formula is None:
            raise NotRecordable("no formula of the output")
        result = g * formula.evaluate(start)
    return [(function.start, result)]


def _with_operands(kind: Kind, operation: Operation, operands: Sequence[int], g: Array) -> Contributions:
    """Return the contributions with some operands cut, or each pulled back through the other one as it stands."""
    result = []
    for i, (operand, part) in enumerate(_contributions(operation, g)):
        if i not in operands:
            result.append((operand, part))
        elif kind is Kind.TRANSPOSED:
            result.append((operand, _pulled_untransposed(operation, i, g, part)))
    return result


def _pulled_untransposed(operation: Operation, i: int, g: Array, right: Array) -> Array:
    """Return g B where g Bᵀ belongs, or A g where Aᵀ g belongs: the pullback at transposed operands."""
    values = [np.swapaxes(o.value, -1, -2) if k != i else o.value for k, o in enumerate(operation.operands)]
    part = operation.pulls[i](g, operation.value, *values)
    if np.shape(part) != np.shape(right):
        raise NotRecordable("the transposed operand does not fit")
    return np.asanyarray(part)


@dataclass(frozen=True)
class FormulaOfOutput:
    """A derivative in terms of the value a of the function, as many write it.

    Attributes:
        text: the formula.
        evaluate: computes it.
    """

    text: str
    evaluate: Callable[[Array], Array]


FORMULAS = (
    FormulaOfOutput("a(1 - a)", lambda a: a * (1 - a)),
    FormulaOfOutput("1 - a²", lambda a: 1 - a * a),
    FormulaOfOutput("a", lambda a: a),
    FormulaOfOutput("1 - exp(-a)", lambda a: 1 - np.exp(-a)),
    FormulaOfOutput("1 / (2a)", lambda a: 0.5 / a),
    FormulaOfOutput("-a²", lambda a: -a * a),
)


def formula_of_output(function: EntryFunction) -> FormulaOfOutput | None:
    """Return the formula that the derivative follows in every entry, ``None`` if it is not known."""
    value, derivative = np.asarray(function.value), np.asarray(function.derivative())
    return next((f for f in FORMULAS if nearly_equal(f.evaluate(value), derivative)), None)


def nearly_equal(first: Array, second: Array) -> bool:
    """Return whether two arrays differ by less than any mistake makes them differ, relative to the largest entry."""
    scale = np.max(np.abs(second), initial=0.0)
    return bool(np.all(np.abs(first - second) <= OWN_AGREEMENT * scale))


def _functions_that_end_in(end: Operation, operations: Sequence[Operation]) -> Iterator[EntryFunction]:
    """Yield the functions of single entries, of one argument, whose value is the result of an operation."""
    frontier, between = {end.index}, list[Operation]()
    while True:
        last = operations[max(frontier)]
        if len(frontier) == 1 and last is not end:
            yield EntryFunction(last, end, tuple(reversed(between)))
        if not last.is_entrywise or not last.operands:
            return
        between.append(last)
        frontier.remove(last.index)
        frontier |= {o.index for o in last.operands if o.name != "constant"}
        if not frontier:
            return


def _is_curved(function: EntryFunction) -> bool:
    """Return whether each entry depends on its own argument alone, and not with one slope for all but 0.

    Where every unit of a ReLU is dead, all slopes are 0, and a backward without them is wrong.
    """
    slope = np.asarray(function.derivative())
    weights = np.random.default_rng(0).uniform(1.0, 2.0, slope.shape)
    is_diagonal = nearly_equal(function.derivative(seed=weights), weights * slope)
    if not (is_diagonal and slope.size):
        return False
    return bool(not np.any(slope) or np.ptp(slope) > OWN_AGREEMENT * np.max(np.abs(slope)))


def record(rule: Rule, primals: Primals, perturbation: Perturbation | None = None) -> Graph:
    """Run the forward of a rule on arrays that record.

    Args:
        rule: the rule; its pullback is not used.
        primals: the point.
        perturbation: simulated rounding of every operation, if it is wanted.

    Raises:
        ExceptionGroup: if its code runs on no such arrays, or an operation is not known; it has the exceptions.
    """
    errors: list[Exception] = []
    for dtype in (float, object):
        graph = attempt(partial(_record, rule, primals, perturbation, Tape(dtype)))
        if not isinstance(graph, Raised):
            return graph
        errors.append(graph.error)
    raise ExceptionGroup("the code runs on no arrays that record", errors)


def _record(rule: Rule, primals: Primals, perturbation: Perturbation | None, tape: Tape) -> Graph:
    arrays, leaves, fills = dict(primals), {}, FillValues()
    for name, array in primals.items():
        if is_differentiable(array):
            plain = np.array(array, np.float64)
            if perturbation is not None and perturbation.forward:
                plain = perturbed_array(plain, perturbation, fills)
            arrays[name] = tape.leaf(plain, "primal")
            leaves[name] = tape.operations[-1]
    with np.errstate(all="ignore"):
        y, _ = rule(**arrays)
    parts = as_tuple(y)
    outputs = [getattr(part, "operation", None) for part in parts]
    values = tuple(np.asanyarray(part if o is None else o.value) for part, o in zip(parts, outputs, strict=True))
    return Graph(tape.operations, leaves, outputs, values if isinstance(y, tuple | list) else values[0])


def own_derivative(rule: Rule, change: Change | None = None) -> Rule:
    """Make a Rule of the forward of ``rule`` and of its derivative, which is found by recording it.

    Args:
        rule: the rule; its pullback is not used.
        change: the mistake that the derivative has.
    """

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        graph = record(rule, primals)

        def pullback(delta: Delta) -> Cotangents:
            with np.errstate(all="ignore"):
                return {n: np.asarray(g, np.float64) for n, g in graph.cotangents(delta, change).items()}

        return graph.y, pullback

    return Rule(evaluate, "its own forward", _PerturbedForward(rule, change), implementation=rule)


def changed(own: Rule, change: Change) -> Rule:
    """Return the result of `own_derivative` with a mistake."""
    assert isinstance(own.implementation, Rule)
    return replace(own_derivative(own.implementation, change), name=own.name)


class _PerturbedForward:
    """The ``evaluate_perturbed`` of `own_derivative`.

    A backward may compute the derivative of an activation from its output: a(1 − a) for a sigmoid. Near a = 1 that
    loses digits which the graph keeps, so the rounding of both formulas is simulated.
    """

    def __init__(self, rule: Rule, change: Change | None) -> None:
        self.rule, self.change = rule, change
        self.formulas: tuple[Primals | None, list[_Formula]] = None, []

    def __call__(
        self, primals: Primals, delta: Delta, perturbation: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        results = attempt(partial(self._evaluate, primals, delta, perturbation))
        if isinstance(results, Raised):
            reason = f"{self.rule.name} does not run on arrays that record: {results.error}"
            raise NotPerturbable(reason) from results.error
        return results

    def _evaluate(
        self, primals: Primals, delta: Delta, perturbation: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        with np.errstate(all="ignore"):
            graph = record(self.rule, primals, perturbation)
            seeds = tuple(perturbed_array(np.asarray(d), perturbation) for d in as_tuple(delta))
            rounded = {f.function.end.index: partial(_with_both_roundings, f, graph) for f in self._formulas(primals)}
            cotangents = graph.cotangents(seeds if isinstance(delta, tuple) else seeds[0], self.change, rounded)
        plain = {n: np.array(g, np.float64) for n, g in cotangents.items()}
        return tuple(np.array(part, np.float64) for part in as_tuple(graph.y)), plain

    def _formulas(self, primals: Primals) -> list[_Formula]:
        """Return the longest functions whose derivative follows a formula of the output; kept for further samples."""
        if self.formulas[0] is not primals:
            found: dict[int, _Formula] = {}
            for f in record(self.rule, primals).functions:
                formula = formula_of_output(f)
                if formula is not None and f.end.index not in found:
                    found[f.end.index] = _Formula(f, formula)
            self.formulas = primals, list(found.values())
        return self.formulas[1]


@dataclass(frozen=True, eq=False)
class _Formula:
    """A function of the unperturbed forward, and the formula of its output that its derivative follows."""

    function: EntryFunction
    formula: FormulaOfOutput


def _with_both_roundings(found: _Formula, graph: Graph, g: Array) -> Contributions:
    """Return the contributions of the operations, off by the rounding of the formula of the output too."""
    f = found.function
    start, end = graph.operations[f.start.index], graph.operations[f.end.index]
    perturbed = EntryFunction(start, end, tuple(graph.operations[o.index] for o in f.between))
    off = g * found.formula.evaluate(end.value) - g * found.formula.evaluate(np.asarray(end.value))
    return [(start, perturbed.derivative(seed=g) + off)]

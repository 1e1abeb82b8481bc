"""Patterns of one mistake in the backward of the subject's own forward: an activation, a matrix product, a term.

The forward is recorded (`oracles.diagnosis.own_forward`), so no reference need be written in torch or JAX.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from oracles.constants import MOST_OWN_OPERATIONS, OWN_AGREEMENT
from oracles.diagnosis.candidates import Candidate, first_confirmed, is_near
from oracles.diagnosis.experiments import Expectation, Symptoms, Trial, result_or_none
from oracles.diagnosis.own_forward import (
    Change,
    EntryFunction,
    Graph,
    Kind,
    changed,
    formula_of_output,
    nearly_equal,
    own_derivative,
    record,
)
from oracles.diagnosis.recorded_arrays import Operation
from oracles.rule import Array, Output, Rule

MATRIX_PRODUCTS = {"matmul"}
# Products and sums whose operands a backward may forget; what only moves entries is an edit of what stands before it.
CUTTABLE = {
    "add",
    "subtract",
    "multiply",
    "divide",
    "matmul",
    "einsum",
    "power",
    "square",
    "sqrt",
    "exp",
    "log",
    "add.reduce",
    "maximum.reduce",
    "minimum.reduce",
}

# Functions by their names, which a student knows better than their operations.
NAMED: tuple[tuple[str, Callable[[Array], Array]], ...] = (
    ("sigmoid", lambda z: 1 / (1 + np.exp(-z))),
    ("tanh", np.tanh),
    ("ReLU", lambda z: np.maximum(z, 0)),
    ("softplus", lambda z: np.logaddexp(z, 0)),
    ("SiLU", lambda z: z / (1 + np.exp(-z))),
    ("softsign", lambda z: z / (1 + np.abs(z))),
    ("ELU", lambda z: np.where(z > 0, z, np.expm1(z))),
    ("square", np.square),
)


@dataclass(frozen=True, eq=False)
class OwnForward:
    """The subject's own forward at the refused call.

    Attributes:
        rule: its value and its derivative.
        graph: its operations.
    """

    rule: Rule
    graph: Graph


def mistake(kind: Kind, symptoms: Symptoms) -> str | None:
    """Detect one kind of mistake in one operation of the subject's own forward, or in all functions alike.

    Args:
        kind: the mistake.
        symptoms: the refused array.
    """
    if symptoms.is_output or not symptoms.has_expected_shape:
        return None
    own = _own_forward(symptoms)
    if own is None:
        return None
    delta = symptoms.refusal.delta
    candidates = (
        (sentence, _candidate(symptoms, changed(own.rule, change)))
        for sentence, change in _changes(kind, own.graph)
        if _is_possible(own.graph, change, symptoms, delta)
    )
    return first_confirmed(symptoms, candidates)


# Several patterns ask for the same in turn.
@lru_cache(maxsize=1)
def _own_forward(symptoms: Symptoms) -> OwnForward | None:
    """Return the own forward; ``None`` if it cannot be recorded, or if it has another derivative than the oracle.

    Where there is a reference, edits of that tell more: they know detached terms and missing paths by name.
    """
    has_reference = symptoms.oracle.reference is not None
    if has_reference or not (symptoms.subject.runs_on_object_arrays and symptoms.primal_agrees):
        return None
    graph = result_or_none(partial(record, symptoms.subject, symptoms.primals))
    if graph is None or len(graph.operations) > MOST_OWN_OPERATIONS:
        return None
    right = result_or_none(lambda: graph.cotangents(symptoms.refusal.delta)[symptoms.name])
    if right is None or not _is_oracles(right, symptoms):
        return None
    return OwnForward(own_derivative(symptoms.subject), graph)


def _is_oracles(value: Array, symptoms: Symptoms) -> bool:
    scale = np.max(np.abs(symptoms.expected), initial=0.0)
    rounding = np.where(np.isfinite(symptoms.tolerance), symptoms.tolerance, 0.0) + OWN_AGREEMENT * scale
    return bool(np.all(np.abs(value - symptoms.expected) <= rounding))


def _is_possible(graph: Graph, change: Change, symptoms: Symptoms, delta: Output) -> bool:
    with np.errstate(all="ignore"):
        value = result_or_none(lambda: graph.cotangents(delta, change)[symptoms.name])
    return value is not None and is_near(symptoms.refusal.actual, np.asarray(value))


def _candidate(symptoms: Symptoms, rule: Rule) -> Candidate:
    return partial(_answer, replace(symptoms, oracle=rule))


def _answer(symptoms: Symptoms, trial: Trial) -> Expectation:
    other = symptoms.compare(trial.actual, trial.primals, trial.delta)
    return Expectation(other.expected, lambda: other.tolerance)


def _changes(kind: Kind, graph: Graph) -> Iterator[tuple[str, Change]]:
    """Yield every change of a kind, with its sentence."""
    start = "it is the derivative of its own forward"
    if kind is Kind.TRANSPOSED:
        for o, i in _operands(graph, MATRIX_PRODUCTS):
            yield f"{start} with {_operand_text(graph, o, 1 - i)} not transposed", Change(kind, ((o.index, i),))
    elif kind is Kind.CUT:
        for o, i in _operands(graph, CUTTABLE):
            words = f"{start} without what goes through {_operand_text(graph, o, i)}: that is taken for a constant"
            yield words, Change(kind, ((o.index, i),))
    else:
        for functions in _sets(graph.functions):
            words = _words(kind, functions[0])
            if words:
                targets = tuple((f.start.index, f.end.index) for f in functions)
                yield f"{start} with {words} {_name(functions, graph)}", Change(kind, targets)


def _words(kind: Kind, function: EntryFunction) -> str:
    """Return the mistake in words, which end before the name of the function; "" if it can not be made in it."""
    formula = formula_of_output(function)
    if kind is Kind.FORMULA_AT_INPUT:
        return f"{formula.text} at the input a = z of" if formula is not None else ""
    words = {
        Kind.ONE: "the derivative 1 for that of",
        Kind.VALUE: "the value in place of the derivative of",
        Kind.AT_OUTPUT: "f'(f(z)) in place of f'(z), so f applied twice, for f =",
        Kind.TWICE: "the derivative applied twice of",
        Kind.NEGATED: "the wrong sign in the derivative of",
    }
    if kind is Kind.VALUE and formula is not None and formula.text != "a":
        return f"the value a in place of the derivative {formula.text} of"
    return words[kind]


def _sets(functions: Sequence[EntryFunction]) -> Iterator[tuple[EntryFunction, ...]]:
    """Yield each function alone, then all that consist of the same operations, together."""
    alike: dict[tuple[str, ...], list[EntryFunction]] = defaultdict(list)
    for f in functions:
        alike[f.signature].append(f)
        yield (f,)
    yield from (tuple(group) for group in alike.values() if len(group) > 1)


def _operands(graph: Graph, names: set[str]) -> Iterator[tuple[Operation, int]]:
    for o in graph.operations:
        if o.name in names:
            yield from ((o, i) for i, _ in enumerate(o.operands))


def _name(functions: Sequence[EntryFunction], graph: Graph) -> str:
    """Return "sigmoid 1 of 2, of shape [4, 3]", or "each of 2 sigmoids"."""
    name = _name_of(functions[0])
    if len(functions) > 1:
        return f"each of {len(functions)} functions {name}"
    alike = [f for f in graph.functions if f.signature == functions[0].signature]
    order = sorted(alike, key=lambda f: f.end.index).index(functions[0]) + 1
    which = f" {order} of {len(alike)}" if len(alike) > 1 else ""
    return f"the {name}{which} (shape {list(functions[0].end.shape)})"


def _name_of(function: EntryFunction) -> str:
    argument, value = np.asarray(function.argument), np.asarray(function.value)
    with np.errstate(all="ignore"):
        for name, f in NAMED:
            if nearly_equal(f(argument), value):
                return name
    return " ".join(function.signature)


def _operand_text(graph: Graph, operation: Operation, position: int) -> str:
    """Return a primal's name, or which operand of which operation it is."""
    if position < len(operation.operands):
        operand = operation.operands[position]
        while operand.name == "copy":
            operand = operand.operands[0]
        names = [n for n, o in graph.primals.items() if o is operand]
        if names:
            return f"{names[0]} in a {operation.name}"
    alike = [o for o in graph.operations if o.name == operation.name]
    which = f" {alike.index(operation) + 1} of {len(alike)}" if len(alike) > 1 else ""
    side = f"operand {position}" if len(operation.operands) > 1 else "the operand"
    return f"{side} of {operation.name}{which} (shape {list(operation.shape)})"

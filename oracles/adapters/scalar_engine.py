"""Adapter of an engine of scalar nodes, in which each number remembers how it was computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Function,
    InvalidInput,
    Output,
    Pullback,
    Rule,
    Runtime,
    as_tuple,
    describe,
    is_differentiable,
)
from oracles.signatures import call_by_name

Node: TypeAlias = Any  # a number of the user's engine


def scalar_graph(
    f: Function,
    node: Callable[[float], Node],
    *,
    data: str = "data",
    grad: str = "grad",
    backward: str = "backward",
    name: str | None = None,
) -> Rule:
    """Make a Rule of a function of an engine's nodes; every pullback builds the graph again.

    The engine differentiates the scalar L = Σ delta_i y_i, which is computed with its own + and *.

    Args:
        f: ``f(**primals) -> y`` on object arrays of nodes. y is a node, or an array or nested lists of nodes; an entry
            that depends on no node may be a number.
        node: makes a leaf of a number.
        data: the attribute of a node that holds its number.
        grad: the attribute of a leaf that holds its gradient after backward.
        backward: the method of L that differentiates it.
        name: what reports call the rule.

    Returns:
        The Rule.

    Raises:
        InvalidInput: when evaluated, if the output holds anything but nodes and numbers.
    """
    label = name or str(getattr(f, "__qualname__", "scalar_graph"))
    engine = _Engine(f, node, data, grad, backward, label)
    return Rule(engine.evaluate, label, runtime=Runtime.OPAQUE, implementation=f)


@dataclass(frozen=True)
class _Engine:
    """The arguments of `scalar_graph`."""

    f: Function
    node: Callable[[float], Node]
    data: str
    grad: str
    backward: str
    label: str

    def evaluate(self, **primals: Array) -> tuple[Output, Pullback]:
        dtypes = [a.dtype for a in primals.values() if is_differentiable(a)]
        dtype = np.result_type(*dtypes) if dtypes else np.dtype(float)
        _, parts, is_tuple = self._graph(primals)
        y = tuple(np.array([self._number(x) for x in part.flat], dtype).reshape(part.shape) for part in parts)

        def pullback(delta: Delta) -> Cotangents:
            # A fresh graph: engines add to the gradients of their leaves, so a second backward would double them.
            leaves, parts, _ = self._graph(primals)
            total = self._weighted_sum(parts, delta)
            if total is not None:
                getattr(total, self.backward)()
            return {n: self._gradient(leaf, primals[n]) for n, leaf in leaves.items() if is_differentiable(primals[n])}

        return (y if is_tuple else y[0]), pullback

    def _graph(self, primals: Mapping[str, Array]) -> tuple[dict[str, Array], list[Array], bool]:
        """Return the leaves, the outputs as arrays of nodes, and whether there are several outputs."""
        leaves = {n: self._leaf(a) if is_differentiable(a) else a for n, a in primals.items()}
        y = call_by_name(self.f, leaves)
        return leaves, [_nodes(part) for part in (y if isinstance(y, tuple) else (y,))], isinstance(y, tuple)

    def _leaf(self, array: Array) -> Array:
        nodes = np.empty(array.shape, object)
        for index in np.ndindex(array.shape):
            nodes[index] = self.node(float(array[index]))
        return nodes

    def _weighted_sum(self, parts: list[Array], delta: Delta) -> Node | None:
        """Return L = Σ delta_i y_i as a node; ``None`` if no output depends on a node."""
        total: Node | None = None
        for part, d in zip(parts, as_tuple(delta), strict=True):
            for x, weight in zip(part.flat, np.ravel(d).tolist(), strict=True):
                # An entry that is a plain number depends on no leaf, and adds nothing to a gradient.
                if hasattr(x, self.backward):
                    total = x * weight if total is None else total + x * weight
        return total

    def _gradient(self, leaf: Array, primal: Array) -> Array:
        return np.array([self._number(getattr(x, self.grad)) for x in leaf.flat], primal.dtype).reshape(leaf.shape)

    def _number(self, x: Node) -> float:
        number = x if isinstance(x, float | int | np.number) else getattr(x, self.data, x)
        if isinstance(number, float | int | np.number):
            return float(number)
        expected = f"{self.label}: expected nodes with a number in .{self.data}, got"
        if hasattr(x, self.data):
            raise InvalidInput(
                f"{expected} {describe(number)} there.\n"
                "Fix: write the array first, since its * multiplies each entry:    W * s, not s * W"
            )
        raise InvalidInput(f"{expected} {describe(x)}.\nFix:    data='value'")


def _nodes(y: Node) -> Array:
    """Return nodes, or nested lists of them, as an object array."""
    if isinstance(y, np.ndarray):
        return y.astype(object)
    if isinstance(y, list):
        rows = [_nodes(row) for row in y]
        return np.stack(rows) if rows else np.empty(0, object)
    single = np.empty((), object)
    single[()] = y  # np.array(y) would take a node that can be indexed for a sequence
    return single

"""Lift an engine of scalar nodes, in which every number remembers how it was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from oracles.rule import (
    Array,
    Cotangents,
    InvalidInput,
    Pullback,
    Rule,
    as_tuple,
    call_by_name,
    describe,
    is_differentiable,
)


def scalar_graph(
    f: Callable[..., Any],
    node: Callable[[float], Any],
    *,
    data: str = "data",
    grad: str = "grad",
    backward: str = "backward",
    name: str | None = None,
) -> Rule:
    """Lift a function of an engine's nodes into a Rule; every pullback builds the graph anew.

    The engine derives dL/dx of the scalar L = Σ delta_i y_i, which is put together with its own + and *.

    Args:
        f: ``f(**primals) -> y`` on object arrays of nodes; y is a node, or an array or nested lists of them, and a
            number where it depends on none.
        node: makes a leaf of a number.
        data, grad, backward: a node's number, its gradient after the method ``backward()`` of L.
        name: what reports call it.

    Raises:
        InvalidInput: when evaluated, if the output holds anything but nodes and numbers.
    """
    label = name or str(getattr(f, "__qualname__", "scalar_graph"))

    def number(x: Any) -> float:
        found = x if isinstance(x, float | int | np.number) else getattr(x, data, x)
        if not isinstance(found, float | int | np.number):
            if hasattr(x, data):
                raise InvalidInput(
                    f"{label}: expected nodes with a number in .{data}, got {describe(found)} there.\n"
                    "Fix: put the array first, whose * goes entry by entry:    W * s, not s * W"
                )
            raise InvalidInput(
                f"{label}: expected nodes with a number in .{data}, got {describe(x)}.\nFix:    data='value'"
            )
        return float(found)

    def graph(primals: dict[str, Array]) -> tuple[dict[str, Array], list[Array], bool]:
        leaves = {n: _each(node, a) if is_differentiable(a) else a for n, a in primals.items()}
        y = call_by_name(f, leaves)
        return leaves, [_nodes(part) for part in (y if isinstance(y, tuple) else (y,))], isinstance(y, tuple)

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        dtype = np.result_type(*(a.dtype for a in primals.values() if is_differentiable(a)))
        _, parts, many = graph(primals)
        y = tuple(np.array([number(x) for x in part.flat], dtype).reshape(part.shape) for part in parts)

        def pullback(delta: Any) -> Cotangents:
            leaves, parts, _ = graph(primals)
            total: Any = None
            for part, d in zip(parts, as_tuple(delta), strict=True):
                for x, weight in zip(part.flat, np.ravel(d).tolist(), strict=True):
                    if hasattr(x, backward):
                        total = x * weight if total is None else total + x * weight
            if total is not None:
                getattr(total, backward)()
            return {
                n: np.array([number(getattr(x, grad)) for x in leaf.flat], primals[n].dtype).reshape(leaf.shape)
                for n, leaf in leaves.items()
                if is_differentiable(primals[n])
            }

        return (y if many else y[0]), pullback

    return Rule(evaluate, label, framework="scalar graph", implementation=f)


def _each(node: Callable[[float], Any], array: Array) -> Array:
    found = np.empty(array.shape, object)
    for index in np.ndindex(array.shape):
        found[index] = node(float(array[index]))
    return found


def _nodes(y: Any) -> Array:
    """Return nodes, or nested lists of them, as an object array: NumPy would look into a node that can be indexed."""
    if isinstance(y, np.ndarray):
        return y.astype(object)
    if isinstance(y, list):
        rows = [_nodes(row) for row in y]
        return np.stack(rows) if rows else np.empty(0, object)
    found = np.empty((), object)
    found[()] = y
    return found

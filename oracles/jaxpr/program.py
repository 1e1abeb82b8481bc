"""From a jaxpr to Python: JAX derives, NumPy evaluates.

XLA compiles per shape, at a quarter of a second each, and a search draws a fresh shape per example. So the
program that JAX derives is traced once, with symbolic dimensions, and written out as NumPy source whose sizes
are read off its arguments: calls inlined, dead code dropped, broadcasts left to NumPy where it does them
anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from oracles.jaxpr.kernels import NAMESPACE
from oracles.jaxpr.primitives import KNOWN
from oracles.jaxpr.writer import ALL, Function


@dataclass(frozen=True)
class Program:
    """Generated NumPy code: ``run(*arrays) -> tuple`` of fresh arrays; ``source`` is what it looks like."""

    run: Callable[..., tuple[Any, ...]]
    source: str


def translate(closed: Any, *, keep: slice = ALL, noisy: bool = False) -> Program:
    """Write a closed jaxpr as NumPy.

    Args:
        closed: a ClosedJaxpr; its dimensions may be symbolic where arguments carry them as plain symbols.
        keep: which of its outputs to compute. noisy: let ``run`` take `oracles.jaxpr.shaker.shaker`'s function
        last, and pass every floating operand of
            every rounding operation through it.

    Raises:
        UnsupportedPrimitive: if the table lacks one of its primitives.
    """
    namespace = dict(NAMESPACE)
    lines = Function(KNOWN, namespace, noisy).define("run", closed.jaxpr, closed.consts, True, keep)
    source = "\n".join(lines)
    exec(compile(source, "<translated from JAX>", "exec"), namespace)
    return Program(namespace["run"], source)

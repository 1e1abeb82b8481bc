"""From a jaxpr to Python: JAX derives, NumPy evaluates.

XLA compiles per shape, at a quarter of a second each, and a search draws a fresh shape per example. So the
program that JAX derives is traced once, with symbolic dimensions, and written out as NumPy source whose sizes
are arguments: calls inlined, dead code dropped, broadcasts left to NumPy where it does them anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from oracles.jaxpr.kernels import NAMESPACE
from oracles.jaxpr.patterns import Pattern, owners
from oracles.jaxpr.primitives import KNOWN
from oracles.jaxpr.writer import Function, Results


@dataclass(frozen=True)
class Program:
    """Generated NumPy code: ``run(dims, *arrays) -> tuple`` of arrays; ``source`` is what it looks like.

    ``settings`` are the places of results that come from numbers among the options alone.
    """

    run: Callable[..., tuple[Any, ...]]
    source: str
    settings: frozenset[int]


def translate(
    closed: Any,
    pattern: Pattern,
    given: int,
    *,
    fixed: Mapping[int, Any] | None = None,
    settings: Collection[int] = (),
    noisy: bool = False,
) -> Program:
    """Write a closed jaxpr as NumPy.

    Args:
        closed: a ClosedJaxpr; its dimensions may be symbolic.
        pattern: names the entries of ``dims`` as the jaxpr does; numbers are entries that it knows.
        given: how many results, from the first, go to the caller, who owns them; the others may share memory.
        fixed: arguments that are always these constants, by place.
        settings: places of arguments that come from numbers among the options alone.
        noisy: let ``run`` take `oracles.jaxpr.shaker.shaker`'s function after ``dims``, and pass every floating
            operand of every rounding operation through it.

    Raises:
        UnsupportedPrimitive: if the table lacks one of its primitives.
    """
    namespace = dict(NAMESPACE)
    names = owners(pattern)
    prologue = (f"{', '.join(name or '_' for name in names)}, = dims",) if any(names) else ()
    function = Function(KNOWN, namespace, noisy, extents={name: name for name in names if name})
    first = ("dims", "noise") if noisy else ("dims",)
    lines = function.define("run", closed.jaxpr, closed.consts, Results(first, prologue, given, fixed or {}, settings))
    source = "\n".join(lines)
    exec(compile(source, "<translated from JAX>", "exec"), namespace)
    return Program(namespace["run"], source, function.settings)

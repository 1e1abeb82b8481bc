"""The primal of a rule in a compiled form, where it is evaluated at many points of the same shapes.

JAX traces a loop anew in each plain call, which takes as long as thousands of calls of what it has compiled. The
compiled form is taken only where it has shown the values of plain calls; plain calls alone are compared with oracles.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from oracles.constants import CONFIRMED_CALLS, SAME_VALUE
from oracles.rule import Array, Derived, Function, Output, Pullback, Rule, as_tuple, is_differentiable
from oracles.user_code import Raised, attempt


@dataclass
class _Form:
    """A compiled primal, and how many plain calls it has equalled."""

    evaluate: Function
    confirmed: int = 0


def repeated(rule: Rule) -> Rule:
    """Return a rule for many evaluations of the primal, in a compiled form if it has one; it has no cotangents then.

    The first `CONFIRMED_CALLS` calls for the same shapes, dtypes and integers are plain as well. Where the compiled
    form gives other values, or raises (code that branches on values, or is random), all calls are plain.
    """
    compile_primal = rule.derivatives.primal
    if compile_primal is None:
        return rule
    forms: dict[Hashable, _Form | None] = {}

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        key = tuple((n, a.shape, a.dtype, None if is_differentiable(a) else a.tobytes()) for n, a in primals.items())
        if key not in forms:
            compiled = attempt(partial(compile_primal, primals))
            forms[key] = None if isinstance(compiled, Raised) else _Form(compiled)
        form = forms[key]
        if form is None:
            return rule.evaluate(**primals)
        values = attempt(lambda: form.evaluate(**primals))
        if isinstance(values, Raised):
            forms[key] = None
            return rule.evaluate(**primals)
        if form.confirmed < CONFIRMED_CALLS:
            plain = rule.evaluate(**primals)
            if not _are_same(values, plain[0]):
                forms[key] = None
                return plain
            form.confirmed += 1
        return values, lambda delta: {}

    return replace(rule, evaluate=evaluate, derived=Derived(evaluate))


def _are_same(values: Output, plain: Output) -> bool:
    """Return whether outputs are equal but for rounding, and integers bit for bit."""
    parts, others = as_tuple(values), as_tuple(plain)
    return len(parts) == len(others) and all(map(_is_same, map(np.asarray, parts), map(np.asarray, others)))


def _is_same(a: Array, b: Array) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not is_differentiable(a):
        return np.array_equal(a, b)
    x, y = a.astype(np.float64), b.astype(np.float64)
    largest = float(np.max(np.abs(y), initial=0.0, where=np.isfinite(y)))
    with np.errstate(invalid="ignore"):
        return bool(np.all((np.abs(x - y) <= SAME_VALUE * largest) | (x == y) | (np.isnan(x) & np.isnan(y))))

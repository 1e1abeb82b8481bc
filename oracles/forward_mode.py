"""Forward mode: a directional derivative is itself a function, of the primals and of their tangents, linear in these.

    T(primals, tangents) = (y, J v)        its pullback in the tangents: delta -> Jᵀ delta

So T is a rule like any other. Its values are compared with those of the references. Its pullback in the tangents is the
subject's own backward pass, so that comparing the two is the adjoint identity ⟨delta, J v⟩ = ⟨Jᵀ delta, v⟩.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from oracles.finite_differences import DIFFERENCES, differences_along, finite_difference
from oracles.outputs import OUTPUT, core_names
from oracles.process_state import call_foreign
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Evaluate,
    InvalidInput,
    Output,
    Primals,
    Pullback,
    Rule,
    Runtime,
    as_tuple,
    is_differentiable,
    is_discrete,
)
from oracles.second_order import free_names
from oracles.user_code import Raised, attempt


class ForwardMode(NamedTuple):
    """A directional derivative as a subject, with its point and its oracles.

    Attributes:
        subject: the Rule T of the directional derivative.
        oracles: the Rules of the references' directional derivatives; finite differences if there is no reference.
        primals: the primals, and their tangents.
        names: what each output of T is called.
    """

    subject: Rule
    oracles: tuple[Rule, ...]
    primals: dict[str, Array]
    names: tuple[str, ...]


def forward_mode(
    subject: Rule, primals: Primals, oracles: Sequence[Rule], rng: np.random.Generator, *, both: bool
) -> ForwardMode:
    """Return the directional derivative of a subject as a subject, along random tangents.

    Args:
        subject: the Rule that has a forward mode.
        primals: the point.
        oracles: the references.
        rng: draws the tangents.
        both: whether the subject's backward is judged against its forward mode too.

    Raises:
        InvalidInput: if the subject has no forward mode.
    """
    moving = [n for n, a in primals.items() if is_differentiable(a)]
    tangents = {n: free_names(f"{n}_dot", 1, primals)[0] for n in moving}
    drawn = {tangents[n]: np.asarray(rng.standard_normal(np.shape(primals[n]))) for n in moving}
    along = {t: drawn[t].astype(primals[n].dtype) for n, t in tangents.items()}
    pushed = pushed_forward(subject, tangents, both=both)
    if oracles:
        _, oracles = subject.convention.aligned(subject, tuple(oracles), primals)
    rules = tuple(replace(t(tangents), name=o.name) for o in oracles if (t := o.derivatives.tangent) is not None)
    point = dict(pushed.convention.nearest_point({**primals, **along}))
    called = attempt(lambda: pushed(**point), reraise=(InvalidInput,))
    # What it raises is reported by the judge, which calls it again.
    names = () if isinstance(called, Raised) else core_names(len(as_tuple(called[0])) // 2)
    return ForwardMode(
        pushed,
        rules or (_differences_of(subject, pushed, tangents),),
        point,
        (*names, *(name.replace(OUTPUT, "J v") for name in names)),
    )


def has_forward_mode(rule: Rule) -> bool:
    """Return whether a rule has a forward mode of its own."""
    return rule.derivatives.tangent is not None


def pushed_forward(rule: Rule, tangents: dict[str, str], *, both: bool) -> Rule:
    """Return the Rule of a rule's directional derivative; ``both``: pulled back in the tangents by its backward.

    Raises:
        InvalidInput: if it has none.
    """
    tangent = rule.derivatives.tangent
    if tangent is None:
        raise InvalidInput(
            f"mode: {rule.name} has no forward mode.\nFix: pass one:    oracles.manual(forward, backward, jvp=jvp)    "
            "# jvp(primals, tangents) -> (y, tangent of y)"
        )
    made = tangent(tangents)

    def evaluate(way: Evaluate, /, **arguments: Array) -> tuple[Output, Pullback]:
        y, _ = call_foreign(way, **arguments)
        parts = as_tuple(y)

        def pullback(delta: Delta) -> Cotangents:
            if not both:
                return {}
            primals = {n: a for n, a in arguments.items() if n not in tangents.values()}
            own, pull = rule(**primals)
            # The outputs do not depend on the tangents; the second half of delta is that of J v.
            given = iter(as_tuple(delta)[len(parts) // 2 :])
            seeds = [next(given) if not is_discrete(part) else np.zeros(np.shape(part)) for part in as_tuple(own)]
            cotangents = pull(tuple(seeds) if isinstance(own, tuple) else seeds[0])
            return {tangents[n]: g for n, g in cotangents.items() if n in tangents}

        return tuple(parts), pullback

    # Not on balls: they would prove that the code of the jvp computes what it computes, and it is what is judged.
    return replace(
        made,
        runtime=Runtime.OPAQUE if made.runtime is Runtime.NUMPY else made.runtime,
        evaluate=partial(evaluate, made.evaluate),
        call_patterns={name: partial(evaluate, way) for name, way in made.call_patterns.items()},
        name=rule.name,
        numerics=rule.numerics,
        derived=None,
        structured=None,
    )


def _differences_of(rule: Rule, pushed: Rule, tangents: dict[str, str]) -> Rule:
    """Return the oracle of a directional derivative by finite differences: of the primal along the tangents.

    Its pullback is that of the directional derivative itself, which is linear in the tangents.
    """

    def evaluate(**arguments: Array) -> tuple[Any, Pullback]:
        primals = {n: a for n, a in arguments.items() if n not in tangents.values()}
        along = {n: arguments[t] for n, t in tangents.items()}
        y = [part for part in as_tuple(rule(**primals)[0]) if not is_discrete(part)]
        _, pullback = finite_difference(pushed)(**arguments)
        return (*y, *differences_along(rule, primals, along)), pullback

    return Rule(evaluate, DIFFERENCES, implementation=rule)

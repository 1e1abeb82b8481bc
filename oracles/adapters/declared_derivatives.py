"""The second order and the forward mode of a subject that declares a convention: they follow the same one.

A pullback G(primals, delta) of a subject has the cotangents as its outputs, so what converts a cotangent in the first
order converts an output here, and its transpose converts w, the cotangent of G. All of these conversions are linear:

    G̃ = C G(A primals, B delta)        its pullback: w -> Aᵀ, Bᵀ of that of G at Cᵀ w
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from oracles.evaluations import copies_of
from oracles.outputs import like
from oracles.rule import (
    Answer,
    Array,
    Convention,
    Cotangent,
    Cotangents,
    Delta,
    Evaluate,
    Output,
    Perturbation,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    is_differentiable,
    one_or_tuple,
)


class Linear(NamedTuple):
    """A linear map of arrays, and its transpose."""

    to: Callable[[Array], Array]
    back: Callable[[Array], Array]


@dataclass(frozen=True)
class OfDerivative(Convention):
    """What a declaration says of a derivative: the arrays that are symmetric, and the accuracy of all."""

    declaration: Convention

    def adjusted(
        self, primals: Primals, cotangents: Mapping[str, Cotangent], answers: Mapping[str, Mapping[str, Answer]]
    ) -> Mapping[str, Mapping[str, Answer]]:
        """Return the oracles' answers as the declaration has them."""
        return self.declaration.adjusted(primals, cotangents, answers)

    def tolerances(self, tolerances: Mapping[str, Array], values: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the tolerances as the declaration has them."""
        return self.declaration.tolerances(tolerances, values)

    def nearest_point(self, primals: Primals) -> Primals:
        """Return the point with symmetric matrices where they are declared."""
        return self.declaration.nearest_point(primals)


def with_outputs(rule: Rule, maps: Sequence[Callable[[Primals], Linear] | None]) -> Rule:
    """Return a rule whose outputs are mapped, and whose pullback takes the cotangents of the mapped ones.

    Args:
        rule: the rule.
        maps: what gives the map of each output at a point; ``None`` leaves an output as it is.
    """
    if not any(maps):
        return rule
    perturbed = rule.evaluate_perturbed

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        y, pullback = rule.evaluate(**primals)
        at = [make and make(primals) for make in maps]
        return like(y, _mapped([m and m.to for m in at], y)), lambda delta: pullback(_taken(at, delta))

    def evaluate_perturbed(
        primals: Primals, delta: Delta, perturbation: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        assert perturbed is not None
        at = [make and make(primals) for make in maps]
        y, cotangents = perturbed(primals, _taken(at, delta), perturbation)
        return tuple(_mapped([m and m.to for m in at], y)), cotangents

    return replace(rule, evaluate=evaluate, evaluate_perturbed=evaluate_perturbed if perturbed else None, derived=None)


def _taken(maps: Sequence[Linear | None], delta: Delta) -> Delta:
    taken: Delta = like(delta, _mapped([m and m.back for m in maps], delta))
    return taken


def _mapped(functions: Sequence[Callable[[Array], Array] | None], y: Output) -> list[Array]:
    return [f(part) if f else part for f, part in zip(functions, as_tuple(y), strict=True)]


def with_own_deltas(
    rule: Rule, first: Evaluate, deltas: Sequence[str], maps: Callable[[Output], Sequence[Linear | None]]
) -> Rule:
    """Return the rule of a pullback with its deltas converted, in the dtypes of the subject's outputs.

    Args:
        rule: the rule of the pullback; its ``deltas`` are as the subject has them.
        first: evaluates the subject, whose outputs say how.
        deltas: the names of the outputs' cotangents among the primals of the rule.
        maps: gives the map of each output's cotangent to the subject's, of the outputs.
    """

    def converted(evaluate: Evaluate, /, **arguments: Array) -> tuple[Output, Pullback]:
        primals = {n: a for n, a in arguments.items() if n not in deltas}
        y = first(**copies_of(primals))[0]
        ways = dict(zip(deltas, maps(y), strict=True))
        dtypes = {n: part.dtype for n, part in zip(deltas, as_tuple(y), strict=True) if is_differentiable(part)}
        given = {n: _cast(_applied(ways[n], "to", arguments[n]), dtypes.get(n)) for n in deltas}
        value, pullback = evaluate(**primals, **given)

        def pulled(w: Delta) -> Cotangents:
            found = pullback(w)
            return {
                n: _cast(_applied(ways[n], "back", g), arguments[n].dtype if g.dtype == given[n].dtype else None)
                if n in ways and isinstance(g, np.ndarray)
                else g
                for n, g in found.items()
            }

        return value, pulled

    return _through(rule, converted)


def with_own_outputs(
    rule: Rule, first: Evaluate, tangents: Sequence[str], maps: Callable[[Output], Sequence[Linear | None]]
) -> Rule:
    """Return the rule of a directional derivative (y, J v) with both halves converted from the subject's outputs.

    Args:
        rule: the rule of the directional derivative.
        first: evaluates the subject, whose outputs say how.
        tangents: the names of the tangents among the primals of the rule.
        maps: gives the map of each output to the subject's, of the outputs.
    """

    def converted(evaluate: Evaluate, /, **arguments: Array) -> tuple[Output, Pullback]:
        y = first(**copies_of({n: a for n, a in arguments.items() if n not in tangents}))[0]
        ways = [w for w, part in zip(maps(y), as_tuple(y), strict=True) if is_differentiable(part)]
        parts, pullback = evaluate(**arguments)
        both = [*ways, *ways] if len(as_tuple(parts)) == 2 * len(ways) else [None] * len(as_tuple(parts))
        return one_or_tuple(_mapped([w and w.back for w in both], parts)), pullback

    return _through(rule, converted)


def _through(rule: Rule, converted: Callable[..., tuple[Output, Pullback]]) -> Rule:
    """Return a rule of which each way to evaluate it goes through ``converted(way, **primals)``."""
    return replace(
        rule,
        evaluate=partial(converted, rule.evaluate),
        evaluate_perturbed=None,
        call_patterns={n: partial(converted, way) for n, way in rule.call_patterns.items()},
        derived=None,
    )


def _applied(way: Linear | None, direction: str, array: Array) -> Array:
    function: Callable[[Array], Array] | None = None if way is None else getattr(way, direction)
    return array if function is None else function(array)


def _cast(array: Array, dtype: np.dtype[Any] | None) -> Array:
    return array if dtype is None or not is_differentiable(array) else np.asarray(array).astype(dtype, copy=False)

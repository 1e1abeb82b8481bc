"""The second order: a pullback is itself a function, of the primals and of delta, and is differentiated once more.

    G(primals, delta) = (∂L/∂p for p in primals)        its pullback: w -> {p: ∂⟨w, G⟩/∂p, "delta": J w}

So G is a rule like any other, and everything that judges a rule judges it: values, cotangents, tolerances, diagnoses.
Its references are the pullbacks of the references, which torch and JAX differentiate. A subject that can be
differentiated twice has a rule of its own (`Rule.derivatives`); of any other, finite differences of its pullback are
the second derivative, and their own error is part of the tolerance.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from oracles.constants import DIFFERENCES_KEPT
from oracles.finite_differences import digest_of, finite_difference, remembering
from oracles.rule import (
    Array,
    Convention,
    Cotangents,
    Delta,
    Enclosure,
    InvalidInput,
    Output,
    Primals,
    Pullback,
    Rule,
    Runtime,
    as_tuple,
    with_dtype,
)


class SecondOrder(NamedTuple):
    """A pullback as a subject, with its point and its oracles.

    Attributes:
        subject: the Rule G of the pullback.
        oracles: the Rules of the references' pullbacks; none if there is no reference.
        primals: the primals, and the cotangents of the outputs.
        names: what each output of G is called: ``∂L/∂z``.
    """

    subject: Rule
    oracles: tuple[Rule, ...]
    primals: dict[str, Array]
    names: tuple[str, ...]


def second_order(
    subject: Rule, primals: Primals, delta: Delta, oracles: Sequence[Rule], wrt: Sequence[str]
) -> SecondOrder:
    """Return the pullback of a subject as a subject, and those of its references as references.

    Args:
        subject: the Rule whose pullback is differentiated.
        primals, delta: the point.
        oracles: the references.
        wrt: the primals whose cotangents the pullback returns.

    Raises:
        InvalidInput: if the pullback returns nothing.
    """
    if not wrt:
        raise InvalidInput(f"order=2: {subject.name} claims no cotangent, so there is nothing to differentiate again")
    parts, names = as_tuple(delta), tuple(wrt)
    deltas = free_names("delta", len(parts), primals)
    point = {**primals, **dict(zip(deltas, parts, strict=True))}
    if subject.derivatives.second is None:
        point = with_dtype(point, np.float64)  # finite differences need its digits
    references = [oracle for oracle in oracles if oracle.reference is not None]
    return SecondOrder(
        differentiated(subject, names, deltas),
        tuple(_as_oracle(oracle, names, deltas) for oracle in references),
        point,
        tuple(f"∂L/∂{name}" for name in names),
    )


def free_names(name: str, count: int, taken: Primals) -> tuple[str, ...]:
    """Return a name for each of several arrays that no primal has: "delta", or "delta[0]" and so on."""
    while any(n == name or n.startswith(f"{name}[") for n in taken):
        name += "_"
    return (name,) if count == 1 else tuple(f"{name}[{i}]" for i in range(count))


def differentiated(rule: Rule, wrt: tuple[str, ...], deltas: tuple[str, ...]) -> Rule:
    """Return the Rule of a rule's pullback: that of its own, or one by finite differences of the pullback."""
    second = rule.derivatives.second
    if second is not None:
        return replace(second(wrt, deltas), name=rule.name, numerics=rule.numerics, device=rule.device)
    pulled = pulled_back(rule, wrt, deltas)
    differences = _Differences(pulled, finite_difference(remembering(pulled)))
    return replace(pulled, evaluate=differences.evaluate, convention=_MeasuredByDifferences(differences))


def _as_oracle(oracle: Rule, wrt: tuple[str, ...], deltas: tuple[str, ...]) -> Rule:
    """Return the rule of an oracle's pullback; one that cannot be differentiated twice knows its own error."""
    if oracle.derivatives.second is not None:
        return differentiated(oracle, wrt, deltas)
    return finite_difference(pulled_back(oracle, wrt, deltas), name=oracle.name)


def pulled_back(rule: Rule, wrt: tuple[str, ...], deltas: tuple[str, ...]) -> Rule:
    """Return the Rule of a rule's pullback as a function, whose own pullback claims nothing."""

    def evaluate(**arguments: Array) -> tuple[Output, Pullback]:
        primals = {n: a for n, a in arguments.items() if n not in deltas}
        y, pullback = rule(**primals)
        parts = tuple(arguments[n] for n in deltas)
        cotangents = pullback(parts if isinstance(y, tuple) else parts[0])
        missing = [n for n in wrt if n not in cotangents]
        if missing:
            raise InvalidInput(f"{rule.name}: backward: it returns no cotangent of {', '.join(missing)} here")
        gradients = tuple(cotangents[n] for n in wrt)
        return gradients if len(gradients) > 1 else gradients[0], lambda _: {}

    # Not on balls: they would prove that the code of the pullback is differentiated rightly, and it is what is judged.
    return Rule(evaluate, rule.name, runtime=Runtime.OPAQUE, implementation=rule, numerics=rule.numerics)


@dataclass(frozen=True)
class _Differences:
    """A rule without a pullback, pulled back by finite differences; those of a few calls are remembered."""

    rule: Rule
    differences: Rule
    known: OrderedDict[bytes, dict[str, Enclosure]] = field(default_factory=OrderedDict, compare=False)

    def evaluate(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate the rule; what is not known of its cotangents has an infinite radius, so that any number does."""
        y, _ = self.rule(**primals)

        def pullback(delta: Delta) -> Cotangents:
            return {n: np.nan_to_num(e.mid).astype(primals[n].dtype) for n, e in self.at(primals, delta).items()}

        return y, pullback

    def at(self, primals: Primals, delta: Delta) -> dict[str, Enclosure]:
        """Return finite differences in float64, with their radii."""
        wide, wide_delta = with_dtype(dict(primals), np.float64), with_dtype(delta, np.float64)
        key = digest_of(*wide.values(), *as_tuple(wide_delta))
        if key not in self.known:
            self.known[key] = dict(self.differences(**wide)[1](wide_delta))
            if len(self.known) > DIFFERENCES_KEPT:
                self.known.popitem(last=False)
        return self.known[key]


@dataclass(frozen=True)
class _MeasuredByDifferences(Convention):
    """Second derivatives that are measured: their error is that of reading them off the pullback."""

    differences: _Differences

    def read_error(self, primals: Primals, delta: Delta, u: float) -> dict[str, Array]:
        """Return the radii of the finite differences."""
        return {n: e.radius for n, e in self.differences.at(primals, delta).items()}

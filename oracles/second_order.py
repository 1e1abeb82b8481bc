"""The second order: a pullback is itself a function, of the primals and of delta, and is differentiated once more.

    G(primals, delta) = (∂L/∂p for p in primals)        its pullback: w -> {p: ∂⟨w, G⟩/∂p, "delta": J w}

So G is a rule like any other, and everything that judges a rule judges it: values, cotangents, tolerances, diagnoses.
Its references are the pullbacks of the references, which torch and JAX differentiate. A subject that can be
differentiated twice has a rule of its own (`Rule.derivatives`); of any other, finite differences of its pullback are
the second derivative, and their own error is part of the tolerance.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from oracles.adapters.declared_derivatives import OfDerivative
from oracles.constants import DIFFERENCES_KEPT, HESSIAN_DIRECTIONS, LEAST_HESSIAN, SECOND_DIFFERENCES, SECOND_MEASURED
from oracles.finite_differences import DIFFERENCES, digest_of, directional_derivative, finite_difference, remembering
from oracles.notes import note
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
    ReferenceFailed,
    Rule,
    Runtime,
    as_tuple,
    map_delta,
    one_or_tuple,
    with_dtype,
)
from oracles.user_code import Raised, attempt, describe_fault
from oracles.verdict import Evidence, Finding, Result, Verdict

T = TypeVar("T")


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


@dataclass(frozen=True)
class PullbackOf:
    """The implementation of a pullback's Rule: the rule that is pulled back."""

    rule: Rule


def has_second_order(rule: Rule) -> bool:
    """Return whether a rule can be differentiated twice by itself, and needs no finite differences."""
    return rule.derivatives.second is not None


def second_order(
    subject: Rule,
    primals: Primals,
    delta: Delta,
    oracles: Sequence[Rule],
    wrt: Sequence[str],
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
    subject, oracles = subject.convention.aligned(subject, tuple(oracles), primals) if oracles else (subject, ())
    names, (point, deltas) = tuple(wrt), _with_deltas(primals, delta)
    if not has_second_order(subject):
        point = with_dtype(point, np.float64)  # finite differences need its digits
    references = [oracle for oracle in oracles if oracle.reference is not None]
    return SecondOrder(
        differentiated(subject, names, deltas),
        tuple(_as_oracle(oracle, names, deltas, subject.convention) for oracle in references),
        point,
        tuple(f"∂L/∂{name}" for name in names),
    )


def of_twice_differentiable(second: SecondOrder, judged: Callable[[SecondOrder], T]) -> T:
    """Return what is judged, without the references that have no second derivative, if there are such.

    torch cannot differentiate the backward of every operation.

    Raises:
        ReferenceFailed: if none is left.
    """
    try:
        return judged(second)
    except ReferenceFailed:
        wide = with_dtype(second.primals, np.float64)
        failed = {o.name: attempt(partial(_pull_ones, o, wide)) for o in second.oracles}
        left = tuple(o for o in second.oracles if not isinstance(failed[o.name], Raised))
        if not left or len(left) == len(second.oracles):
            raise
        for name, failure in failed.items():
            if isinstance(failure, Raised):
                note(f"{name} steps aside in the second order: {describe_fault(failure.error)}")
        return judged(second._replace(oracles=left))


def _pull_ones(rule: Rule, primals: Primals) -> Cotangents:
    y, pullback = rule(**primals)
    return pullback(map_delta(np.ones_like, y))


def _with_deltas(primals: Primals, delta: Delta) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Return the arguments of a pullback as a function, primals and cotangents, and the names of the latter."""
    parts = as_tuple(delta)
    deltas = free_names("delta", len(parts), primals)
    return {**primals, **dict(zip(deltas, parts, strict=True))}, deltas


def free_names(name: str, count: int, taken: Primals) -> tuple[str, ...]:
    """Return a name for each of several arrays that no primal has: "delta", or "delta[0]" and so on."""
    while any(n == name or n.startswith(f"{name}[") for n in taken):
        name += "_"
    return (name,) if count == 1 else tuple(f"{name}[{i}]" for i in range(count))


def differentiated(rule: Rule, wrt: tuple[str, ...], deltas: tuple[str, ...]) -> Rule:
    """Return the Rule of a rule's pullback: that of its own, or one by finite differences of the pullback."""
    second = rule.derivatives.second
    if second is not None:
        made = second(wrt, deltas)
        implementation = made.implementation if rule.reference else PullbackOf(rule)
        return replace(made, name=rule.name, numerics=rule.numerics, implementation=implementation)
    pulled = pulled_back(rule, wrt, deltas)
    measured = finite_difference(remembering(pulled), most=SECOND_MEASURED, up_to=SECOND_DIFFERENCES)
    differences = _Differences(pulled, measured)
    convention = _MeasuredByDifferences(rule.convention.of_pullback(), differences)
    return replace(pulled, evaluate=differences.evaluate, derived=None, convention=convention)


def _as_oracle(oracle: Rule, wrt: tuple[str, ...], deltas: tuple[str, ...], convention: Convention) -> Rule:
    """Return the rule of an oracle's pullback in a subject's convention.

    One that cannot be differentiated twice knows its own error.
    """
    if oracle.derivatives.second is not None:
        return convention.pulled_oracle(differentiated(oracle, wrt, deltas), wrt)
    return finite_difference(convention.pulled_oracle(pulled_back(oracle, wrt, deltas), wrt), name=oracle.name)


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
        return one_or_tuple(gradients), lambda _: {}

    # Not on balls: they would prove that the code of the pullback is differentiated rightly, and it is what is judged.
    return Rule(evaluate, rule.name, runtime=Runtime.OPAQUE, implementation=PullbackOf(rule), numerics=rule.numerics)


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
class _MeasuredByDifferences(OfDerivative):
    """Second derivatives that are measured: their error is that of reading them off the pullback.

    Attributes:
        differences: measures them.
    """

    differences: _Differences

    def read_error(self, primals: Primals, delta: Delta, u: float) -> dict[str, Array]:
        """Return the radii of the finite differences."""
        return {n: e.radius for n, e in self.differences.at(primals, delta).items()}


def with_zeros(result: Result) -> Result:
    """Return a result in which a measured derivative of zero agrees with an oracle's that is exactly zero.

    A pullback may not depend on a primal at all. Finite differences of it are exactly zero then, and no relative error
    can be stated.
    """
    setting = result.setting
    if setting is None or not isinstance(setting.subject.convention, _MeasuredByDifferences) or result.refuses:
        return result
    wide, delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    unclear = {f.quantity for f in result.findings if f.verdict is Verdict.VACUOUS and not f.unbounded}
    if not unclear:
        return result
    rules = (setting.subject, *setting.oracles)
    answers = {rule.name: rule(**wide)[1](delta) for rule in rules}
    own = answers[setting.subject.name]
    zeros = {
        (n, oracle.name)
        for oracle in setting.oracles
        for n in unclear & own.keys()
        if not np.any(own[n]) and not np.any(getattr(answers[oracle.name].get(n), "mid", answers[oracle.name].get(n)))
    }
    findings = [
        replace(f, verdict=Verdict.AGREES, judged=(f.judged[1], f.judged[1]), unknown=(), detects_above=0.0)
        if (f.quantity, f.oracle) in zeros and f.verdict is Verdict.VACUOUS
        else f
        for f in result.findings
    ]
    return replace(result, findings=tuple(findings))


def hessian_findings(subject: Rule, primals: Primals, delta: Delta, wrt: Sequence[str]) -> list[Finding]:
    """Judge whether the derivative H of the pullback by the primals is symmetric: ⟨w, H v⟩ = ⟨v, H w⟩.

    Both are finite differences of the pullback, in float64: so nothing but the pullback is needed. v and w are random
    directions in every pair of primals. A pullback whose H is not symmetric is the gradient of no function.

    Args:
        subject: the Rule whose pullback is judged.
        primals, delta: the point.
        wrt: the primals whose cotangents the pullback returns.
    """
    point, deltas = _with_deltas(with_dtype(dict(primals), np.float64), with_dtype(delta, np.float64))
    pulled = remembering(pulled_back(subject, tuple(wrt), deltas))
    rng = np.random.default_rng(0)
    findings = []
    for i, one in enumerate(wrt):
        for other in wrt[i:]:
            trials = []
            for _ in range(HESSIAN_DIRECTIONS):
                v, w = ({n: _relative_direction(point[n], rng)} for n in (one, other))
                slopes = [_slope_along(pulled, point, wrt, *each) for each in ((v, w), (w, v))]
                trials.append(_symmetry_finding(one, other, *slopes))
                # What is not symmetric differs along almost every direction; an estimated radius may fail once.
                if not trials[-1].refuses:
                    break
            findings.append(trials[-1])
    return findings


def _relative_direction(a: Array, rng: np.random.Generator) -> Array:
    """Return a direction that moves every entry by a share of itself, and zeros by that of the largest entry."""
    size = np.where(np.isfinite(a), np.abs(a), 0.0)
    size = np.where(size > 0, size, float(np.max(size, initial=0.0)) or 1.0)
    return np.asarray(size * rng.choice((-1.0, 1.0), a.shape) * rng.uniform(0.5, 1.0, a.shape))


def _slope_along(pulled: Rule, point: Primals, wrt: Sequence[str], v: Primals, w: Primals) -> tuple[float, float]:
    """Return ⟨w, H v⟩ and how far it may be off."""
    weights = tuple(w[n] if n in w else np.zeros(np.shape(point[n])) for n in wrt)
    return directional_derivative(pulled, point, one_or_tuple(weights), v, narrow=True)


def _symmetry_finding(one: str, other: str, first: tuple[float, float], second: tuple[float, float]) -> Finding:
    quantity = f"⟨w, H v⟩ of {one} and {other}"
    (a, radius), (b, other_radius) = first, second
    bound = radius + other_radius
    if not np.isfinite(bound) or 0 < max(abs(a), abs(b)) < LEAST_HESSIAN:
        return Finding(quantity, DIFFERENCES, Verdict.VACUOUS, detects_above=float("inf"))
    ratio = abs(a - b) / bound if a != b else 0.0
    if ratio > 1:
        reason = (
            f"the derivative of the pullback is not symmetric in {one} and {other}: no function has such a gradient"
        )
        evidence = Evidence((), a, {DIFFERENCES: b}, bound, refused=(1, 1), reason=reason)
        return Finding(quantity, DIFFERENCES, Verdict.WRONG, True, ratio, evidence=evidence)
    size = abs(a) + abs(b)
    detects = bound / size if size else 0.0
    return Finding(quantity, DIFFERENCES, Verdict.VACUOUS if detects > 1 else Verdict.AGREES, False, ratio, detects)

"""Declarations under which a refused subject is accepted, each confirmed by judging again.

A subject that does not keep to what it declares gets the declaration that would fit. One that declares nothing may
follow another convention where the problem leaves one open: the gradient of a symmetric matrix, the sign of a vector.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from oracles.adapters.conventions import IMAGINARY, Declaration, Freedom, symmetrized
from oracles.backends.straight_through import straight_through, without_straight_through
from oracles.constants import DECLARATION_DELTAS, FACTOR_SPREAD
from oracles.decision.judge import cotangents_like, judge
from oracles.decision.type_errors import is_real_array
from oracles.diagnosis.candidates import is_near
from oracles.diagnosis.experiments import evaluate, midpoint, result_or_none
from oracles.diagnosis.patterns.symmetry import has_signs_of_both_kinds, signs_along
from oracles.finite_differences import finite_difference
from oracles.rule import Array, Primals, Rule, as_tuple, is_differentiable, with_dtype
from oracles.verdict import SELF_CONSISTENCY, Result, Setting

# What the subject and the first oracle return at the point, by name.
Values: TypeAlias = tuple[Mapping[str, Any], Mapping[str, Any]]


def fitting_declaration(result: Result) -> str:
    """Return what a declaration would have to say for the judge to accept the subject; "" if nothing is found."""
    setting = result.setting
    if setting is None or not isinstance(setting.subject.convention, Declaration) or not setting.oracles:
        return ""
    declaration = setting.subject.convention
    values = _values_at(setting)
    factors, slopes = _measure(declaration, result, setting, values) if values else ({}, {})
    freedoms = _freedoms(result, setting, values) if values else iter(())
    for words, rule in declaration.alternatives(factors, slopes, freedoms):
        if _is_accepted(rule, setting.primals, _oracles_for(rule, setting), setting):
            convention = rule.convention
            if isinstance(convention, Declaration) and convention.declares_nothing:
                return "the declaration does not fit: the subject agrees without it"
            return f"the declaration does not fit; {words} would"
    for name in declaration.fused:
        rule, point = declaration.unfused(name, setting.primals)
        if _is_accepted(rule, point, (finite_difference(rule),), setting):
            return f"the declaration does not fit: nothing is fused, this is the gradient of what becomes of {name}"
    return ""


def missing_declaration(result: Result) -> tuple[str, str]:
    """Return the pattern and the line to write for a subject that declares nothing; "" if no line is found.

    Symmetric primals and signs of vectors alone are suggested: that a gradient is twice the oracle's is a defect, and
    no convention, as long as nobody says so.
    """
    setting = result.setting
    if setting is None or isinstance(setting.subject.convention, Declaration) or not setting.oracles:
        return "", ""
    values = _values_at(setting)
    freedoms = list(_freedoms(result, setting, values)) if values else []
    undeclared = Declaration(setting.subject)
    for freedom, (words, rule) in zip(freedoms, undeclared.alternatives({}, {}, freedoms), strict=True):
        # Another array may be wrong in another way. Signs are those of the outputs, on which everything depends.
        only = freedom.symmetric or None
        only = None if freedom.gauge else only
        if _is_accepted(rule, setting.primals, _oracles_for(rule, setting), setting, only):
            names = " and ".join(freedom.symmetric)
            condition = f"if {names} is always symmetric, " if names else ""
            return _pattern_of(freedom), f"{condition}oracles.declared(subject, {words}) agrees"
    return "", ""


def _pattern_of(freedom: Freedom) -> str:
    if freedom.straight_through:
        return "straight_through"
    return "conjugate" if freedom.conjugate else "gauge" if freedom.gauge else "symmetrized"


def _oracles_for(rule: Rule, setting: Setting) -> tuple[Rule, ...]:
    """Return the oracles of another rule at the same point: finite differences are those of its own primal."""
    oracles = map(without_straight_through, setting.oracles)
    return tuple(o.adapt(rule) if o.adapt and isinstance(o.implementation, Rule) else o for o in oracles)


def _is_accepted(
    rule: Rule, primals: Primals, oracles: Sequence[Rule], setting: Setting, only: Collection[str] | None = None
) -> bool:
    """Return whether the judge accepts a rule at a point, for the refused delta and for random ones."""

    def accepted() -> bool:
        y, _ = rule(**primals)
        has_same_shape = [np.shape(p) for p in as_tuple(y)] == [np.shape(d) for d in as_tuple(setting.delta)]
        # An unfused rule may have another output, and then the refused delta does not fit.
        deltas = [setting.delta] if has_same_shape else []
        deltas += cotangents_like(y, np.random.default_rng(0), DECLARATION_DELTAS)
        judge_again = partial(judge, rule, primals, oracles=oracles, numerics=setting.numerics, only=only)
        return not any(judge_again(delta=d).refuses for d in deltas)

    return bool(result_or_none(accepted))


def _values_at(setting: Setting) -> Values | None:
    """Return what the subject and the first oracle return at the point; ``None`` if either raises."""
    wide, wide_delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    actual = result_or_none(lambda: evaluate(setting.subject, setting.primals, setting.delta))
    expected = result_or_none(lambda: evaluate(setting.oracles[0], wide, wide_delta))
    if actual is None or expected is None:
        return None
    return {n: a for n, a in actual.items() if is_real_array(a)}, expected  # another type is refused as such


def _refused(result: Result) -> set[str]:
    return {f.quantity for f in result.findings if f.refuses}


def _measure(
    declaration: Declaration, result: Result, setting: Setting, values: Values
) -> tuple[dict[str, float], dict[str, float]]:
    """Return what each refused cotangent is times the oracle's, and the derivatives at the declared kinks.

    Only a factor that is one number for the whole array is returned.
    """
    actual, expected = values
    refused = _refused(result)
    names = [n for n in setting.primals if n in refused and n in actual and n in expected]
    factors = {n: _common_factor(np.asarray(actual[n], np.float64), midpoint(expected[n])) for n in names}
    slopes = {}
    for n in declaration.kinks:
        at_kink, _ = declaration.at_kinks(n, setting.primals)
        if n in actual and np.shape(actual[n]) == np.shape(setting.delta) and np.any(at_kink):
            cotangent, delta = np.asarray(actual[n], np.float64), np.asarray(setting.delta, np.float64)
            slopes[n] = _common_factor(cotangent[at_kink], delta[at_kink])
    return {n: f for n, f in factors.items() if f is not None}, {n: s for n, s in slopes.items() if s is not None}


def _common_factor(actual: Array, expected: Array) -> float | None:
    """Return the one factor between two arrays of a shape; ``None`` if there is none."""
    if actual.shape != expected.shape:
        return None
    nonzero = expected != 0
    quotients = actual[nonzero] / expected[nonzero]
    if not quotients.size or not np.all(np.isfinite(quotients)):
        return None
    spread = np.ptp(quotients)
    if spread > FACTOR_SPREAD * np.max(np.abs(quotients)):
        return None
    median = float(np.median(quotients))
    short = float(f"{median:.6g}")  # 0.5, where rounding gives 0.49999999; 1/3 has no short form and stays
    return short if abs(short - median) <= spread else median


def _freedoms(result: Result, setting: Setting, values: Values) -> Iterator[Freedom]:
    """Yield the freedoms that may explain the refusal; they are compared roughly, since the judge decides."""
    actual, expected = ({n: midpoint(a) for n, a in arrays.items()} for arrays in values)
    refused = _refused(result)
    outputs = {n for n in refused if n.split("[")[0] == "output"}
    known = refused & actual.keys() & expected.keys()
    # A subject that contradicts itself does so under any declaration.
    contradicts_itself = any(f.refuses and f.oracle == SELF_CONSISTENCY for f in result.findings)
    if contradicts_itself or not outputs <= known:
        return
    symmetric = [n for n in sorted(known - outputs) if _is_symmetric(setting.primals[n])]
    if not outputs and any(n.endswith(IMAGINARY) for n in (*setting.primals, *actual)):
        yield Freedom(conjugate=True)
    if not outputs and _passes_straight_through(setting, {n: actual[n] for n in known}):
        yield Freedom(straight_through=True)
    if not outputs:
        near = [n for n in symmetric if is_near(*(symmetrized(a[n]) for a in (actual, expected)))]
        if near:
            yield Freedom(tuple(near))
        return
    gauge = {n: _gauge_of(actual[n], expected[n]) for n in sorted(outputs)}
    if all(gauge.values()):
        yield Freedom((), gauge)
        if symmetric:
            yield Freedom(tuple(symmetric), gauge)


def _passes_straight_through(setting: Setting, refused: Mapping[str, Array]) -> bool:
    """Return whether refused cotangents are those of a reference whose steps are differentiated as the identity."""
    wide, delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    for oracle in setting.oracles:
        replaced = straight_through(oracle)
        expected = result_or_none(partial(evaluate, replaced, wide, delta)) if replaced is not oracle else None
        if expected is not None and all(is_near(a, midpoint(expected[n])) for n, a in refused.items()):
            return True
    return False


def _is_symmetric(primal: Array) -> bool:
    """Return whether a primal is a symmetric matrix, and not symmetric by chance, as one of a single diagonal is."""
    a = np.asarray(primal)
    is_square = a.ndim > 1 and a.shape[-1] == a.shape[-2] and is_differentiable(a)
    return is_square and bool(np.array_equal(a, a.swapaxes(-1, -2)) and np.any(np.triu(a, 1)))


def _gauge_of(actual: Array, expected: Array) -> str:
    """Return the gauge of an output whose vectors are the oracle's up to sign; "" if they are not."""
    if actual.shape == expected.shape and actual.ndim > 1:
        for name, axis in (("sign", -2), ("sign of rows", -1)):
            signs = signs_along(axis, actual, expected)
            if has_signs_of_both_kinds(signs) and is_near(actual, signs * expected):
                return name
    return ""

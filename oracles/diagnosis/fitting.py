"""Find the declaration that would fit, where a subject does not keep to the one it declares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oracles.adapters.conventions import Declaration
from oracles.decision.judge import cotangents_like, judge
from oracles.diagnosis.constants import DECLARATION_DELTAS, FACTOR_SPREAD
from oracles.diagnosis.experiments import evaluate, midpoint, result_or_none
from oracles.finite_differences import finite_difference
from oracles.rule import Array, Primals, Rule, as_tuple, with_dtype
from oracles.verdict import Result, Setting


def fitting_declaration(result: Result) -> str:
    """Return what a declaration would have to say for the judge to accept the subject; "" if nothing is found."""
    setting = result.setting
    if setting is None or not isinstance(setting.subject.convention, Declaration) or not setting.oracles:
        return ""
    declaration = setting.subject.convention
    factors, slopes = _measure(declaration, result, setting)
    for words, rule in declaration.alternatives(factors, slopes):
        if _is_accepted(rule, setting.primals, setting.oracles, setting):
            return f"the declaration does not fit; {words} would"
    for name in declaration.fused:
        rule, point = declaration.unfused(name, setting.primals)
        if _is_accepted(rule, point, (finite_difference(rule),), setting):
            return f"the declaration does not fit: nothing is fused, this is the gradient of what becomes of {name}"
    return ""


def _is_accepted(rule: Rule, primals: Primals, oracles: Sequence[Rule], setting: Setting) -> bool:
    """Return whether the judge accepts a rule at a point, for the refused delta and for random ones."""

    def accepted() -> bool:
        y, _ = rule(**primals)
        has_same_shape = [np.shape(p) for p in as_tuple(y)] == [np.shape(d) for d in as_tuple(setting.delta)]
        deltas = [setting.delta] if has_same_shape else []
        deltas += cotangents_like(y, np.random.default_rng(0), DECLARATION_DELTAS)
        return not any(judge(rule, primals, d, oracles, precision=setting.precision).refuses for d in deltas)

    return bool(result_or_none(accepted))


def _measure(declaration: Declaration, result: Result, setting: Setting) -> tuple[dict[str, float], dict[str, float]]:
    """Return what each refused cotangent is times the oracle's, and the derivatives at the declared kinks.

    Only what is one number for the whole array is returned.
    """
    wide, wide_delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    actual = result_or_none(lambda: evaluate(setting.subject, setting.primals, setting.delta))
    expected = result_or_none(lambda: evaluate(setting.oracles[0], wide, wide_delta))
    if actual is None or expected is None:
        return {}, {}
    refused = {f.quantity for f in result.findings if f.refuses}
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
    """Return the one factor between two arrays of a shape; ``None`` where there is none."""
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

"""For a declaration that does not fit: search for the one that would, and say it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from oracles.adapters.conventions import Declaration
from oracles.finite_differences import finite_difference
from oracles.rule import Array, Enclosure, Primals, Rule, as_tuple, with_dtype
from oracles.tolerance import named_outputs
from oracles.verdict import Result

SAME = 2.0**-8  # factors of one array that differ by less are one factor: the judge decides on it


def fitting_declaration(result: Result) -> str:
    """Return what a declaration would have to say for the judge to accept the subject; "" if nothing is found."""
    from oracles.decision.judge import cotangents_like, judge

    setting = result.setting
    if setting is None or not isinstance(setting.subject.convention, Declaration) or not setting.oracles:
        return ""
    primals, declaration = setting.primals, setting.subject.convention

    def accepted(rule: Rule, primals: Primals, oracles: Sequence[Rule]) -> bool:
        try:
            y, _ = rule(**primals)
            fits = [np.shape(p) for p in as_tuple(y)] == [np.shape(d) for d in as_tuple(setting.delta)]
            deltas = [setting.delta] * fits + cotangents_like(y, np.random.default_rng(0), 2)  # one sign alone may fit
            return not any(judge(rule, primals, d, oracles, precision=setting.precision).refuses for d in deltas)
        except Exception:  # whatever it was: this declaration does not fit
            return False

    for words, rule in declaration.alternatives(*_measured(result, declaration)):
        if accepted(rule, primals, setting.oracles):
            return f"the declaration does not fit; {words} would"
    for name in declaration.fused:
        rule, point = declaration.unfused(name, primals)
        if accepted(rule, point, (finite_difference(rule),)):
            return f"the declaration does not fit: nothing is fused, this is the gradient of what becomes of {name}"
    return ""


def _measured(result: Result, declaration: Declaration) -> tuple[dict[str, float], dict[str, float]]:
    """Return what each cotangent is times the oracle's, where that is one number, and the slopes at declared kinks."""
    setting = result.setting
    assert setting is not None
    try:
        got = dict(setting.subject(**setting.primals)[1](setting.delta))
        oracle = setting.oracles[0](**with_dtype(dict(setting.primals), np.float64))
        want = named_outputs((), dict(oracle[1](with_dtype(setting.delta, np.float64))))
    except Exception:
        return {}, {}
    refused = {f.quantity for f in result.findings if f.refuses}
    factors = {n: _one(np.asarray(got[n], np.float64), _middle(want[n])) for n in refused & got.keys() & want.keys()}
    slopes = {}
    for n in declaration.kinks:
        at, _ = declaration.at_kinks(n, setting.primals)
        if n in got and np.shape(got[n]) == np.shape(setting.delta) and np.any(at):
            slopes[n] = _one(np.asarray(got[n], np.float64)[at], np.asarray(setting.delta, np.float64)[at])
    return {n: f for n, f in factors.items() if f is not None}, {n: s for n, s in slopes.items() if s is not None}


def _one(got: Array, want: Array) -> float | None:
    """Return the one factor between two arrays of a shape; ``None`` where there is none."""
    if got.shape != want.shape:
        return None
    seen = want != 0
    factors = got[seen] / want[seen]
    if not factors.size or not np.all(np.isfinite(factors)) or np.ptp(factors) > SAME * np.max(np.abs(factors)):
        return None
    found = float(np.median(factors))
    near = float(f"{found:.6g}")  # 0.5, where rounding says 0.49999999; and 1/3 as it is
    return near if abs(near - found) <= np.ptp(factors) else found


def _middle(answer: Any) -> Array:
    return np.asarray(answer.mid if isinstance(answer, Enclosure) else answer, np.float64)

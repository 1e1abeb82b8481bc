"""Hold a subject against its oracles at one point: exact shapes and dtypes first, then values, entry by entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from oracles.arbitration import Dispute, settle
from oracles.comparison import Answers, agreeing, at_once, exact_answers, ratios_of
from oracles.digits import digits_lost
from oracles.disagreement import require
from oracles.finite_difference import finite_difference
from oracles.rounding import (
    MORE_SAMPLES,
    SECOND_SAMPLES,
    Rounding,
    is_coarser,
    named_outputs,
    precision_name,
    precision_of,
    rounding_at,
)
from oracles.rule import Array, Primals, Rule, is_differentiable, outputs, with_dtype
from oracles.verdict import Evidence, Finding, Result, Setting, Verdict

Kinks = Literal["any", "declared"]
EXACT_INPUTS = 8  # up to so many inputs ball arithmetic judges every point; above, it arbitrates


def check(
    subject: Rule,
    primals: Mapping[str, Any],
    against: Sequence[Rule] = (),
    delta: Any = None,
    *,
    precision: str | None = None,
    kinks: Kinks = "any",
    seed: int = 0,
) -> Result:
    """Judge the subject's output and pullback at one point; return the result where nothing refuses it.

    Args:
        subject: the Rule under test, see `oracles.manual`.
        primals: its inputs by name. Floating ones are judged; integers and booleans have no cotangent.
        against: the oracles. Without any, finite differences of the subject's own primal judge it, and ball
            arithmetic where python-flint is installed and the primal is NumPy.
        delta: the cotangent of the output; by default three signed ones are drawn from ``seed``.
        precision: what the subject computes in where it is less than it is fed: ``"float32"``.
        kinks: where there is no derivative, accept "any" subgradient, or only the one that the oracles' references
            are written to give: the convention that the subject has "declared".
        seed: of the drawn cotangents.

    Raises:
        Disagreement: (an AssertionError) if the subject is refused; it carries the verdict and its evidence.
        TypeError, ValueError: if the arguments do not fit together: says what was expected and what came.
    """
    arrays = {name: _primal(name, value) for name, value in primals.items()}
    if precision is not None:
        precision_name(precision)
    oracles = tuple(against) or (finite_difference(subject),)
    deltas = [delta] if delta is not None else drawn_cotangents(subject, arrays, np.random.default_rng(seed))
    results = [judge(subject, arrays, d, oracles, precision=precision, kinks=kinks, check="check") for d in deltas]
    worst = max(results, key=lambda r: r.worst.gravity if r.worst else (False, 0, 0.0))
    findings = tuple(finding for result in results for finding in result.findings)
    return require(Result(subject.name, "check", findings, worst.not_claimed, worst.setting))


def drawn_cotangents(subject: Rule, primals: Primals, rng: np.random.Generator, count: int = 3) -> list[Any]:
    """Draw signed cotangents for the subject's output, in its shape and dtype.

    Never all ones: under a cotangent of ones an all-zero softmax backward passes.
    """
    y, _ = subject(**primals)
    draws = [
        tuple(np.asarray(rng.standard_normal(np.shape(p))).astype(np.asarray(p).dtype) for p in outputs(y))
        for _ in range(count)
    ]
    return [parts if isinstance(y, tuple | list) else parts[0] for parts in draws]


def judge(
    subject: Rule,
    primals: Primals,
    delta: Any,
    oracles: Sequence[Rule],
    *,
    precision: str | None = None,
    kinks: Kinks = "any",
    only: Iterable[str] | None = None,
    check: str = "cotangents_agree",
) -> Result:
    """Judge one evaluation of the subject against every oracle and return what was found, without raising.

    Args:
        subject, primals, delta, oracles, precision, kinks: as in `check`.
        only: judge these quantities alone ("output", or names of primals).
        check: the name that the result carries.
    """
    fed = precision_of(primals)
    working = precision_name(precision) if precision else fed
    wide, wide_delta = with_dtype(dict(primals), np.float64), with_dtype(delta, np.float64)
    setting = Setting(subject, tuple(oracles), primals, delta, working)
    y, pullback = subject(**primals)
    evaluated = {oracle.name: oracle(**wide) for oracle in oracles}
    expected = {**_like_outputs(evaluated, primals), **primals}
    got = named_outputs(outputs(y), {})
    misfits = _misfits(got, expected, working)
    if any(n not in expected or np.shape(a) != np.shape(expected[n]) for n, a in got.items()):
        return Result(subject.name, check, misfits, setting=setting)  # delta does not fit the oracles' pullbacks
    try:
        cotangents = dict(pullback(delta))
    except Exception as error:
        reason = f"the pullback raised {type(error).__name__}: {error}"
        return Result(subject.name, check, (_refused("cotangents", reason),), setting=setting)
    not_claimed = tuple(n for n, a in primals.items() if is_differentiable(a) and n not in cotangents)
    got |= cotangents
    if only is not None:
        got = {n: a for n, a in got.items() if n in only}
    misfits = _misfits(got, expected, working)
    hopeless = {f.quantity for f in misfits}
    answers = {o: named_outputs(outputs(oy), dict(pb(wide_delta))) for o, (oy, pb) in evaluated.items()}
    if sum(np.size(a) for a in wide.values() if is_differentiable(a)) <= EXACT_INPUTS:
        answers |= exact_answers(subject, wide, wide_delta, working)
    rounding = rounding_at(oracles, wide, wide_delta, working, fallback=subject, known=answers)
    got = {n: a for n, a in got.items() if n not in hopeless}
    findings = None
    if all(a.dtype == expected[n].dtype for n, a in got.items()):
        findings = at_once(got, answers, rounding)
    if findings is None:
        findings = []
        for n in got:
            about = {o: a[n] for o, a in answers.items() if n in a}
            findings += _judged(n, got[n], about, rounding, setting, kinks)
    return Result(subject.name, check, (*misfits, *findings), not_claimed, setting)


def _judged(
    name: str, got: Array, answers: Answers, rounding: Rounding, setting: Setting, kinks: Kinks
) -> list[Finding]:
    """Judge one array: where a few samples of rounding do not explain it, draw more; then settle the dispute."""
    value = np.asarray(got, np.float64)
    ratios = ratios_of(value, answers, rounding.allowance()[name], got.dtype)
    for samples in (SECOND_SAMPLES, MORE_SAMPLES):
        if any(np.any(r > 1) for r in ratios.values()):
            ratios = ratios_of(value, answers, rounding.allowance(samples)[name], got.dtype)
    allowed = rounding.allowance()[name]
    if any(np.any(r > 1) for r in ratios.values()) or is_coarser(got.dtype, precision_of(setting.primals)):
        return settle(Dispute(name, got, answers, ratios, allowed, rounding, setting), declared=kinks == "declared")
    return [
        digits_lost(name, value, answers, o, setting) or agreeing(name, o, value, answers, allowed, rounding)
        for o in answers
    ]


def _like_outputs(evaluated: Mapping[str, Any], primals: Primals) -> dict[str, Array]:
    """Return what the outputs must be like: the shapes that an oracle gives, the dtype of the floating primals."""
    dtypes = [a.dtype for a in primals.values() if is_differentiable(a)]
    y, _ = next(iter(evaluated.values()))
    like = [np.broadcast_to(np.zeros((), np.result_type(*dtypes)), np.shape(part)) for part in outputs(y)]
    return named_outputs(tuple(like), {})


def _misfits(got: Mapping[str, Any], expected: Mapping[str, Array], working: str) -> tuple[Finding, ...]:
    """Refuse every array whose kind, shape or dtype is not exactly the expected one."""
    reasons = {n: _misfit(got[n], expected[n], working) if n in expected else "an output too many" for n in got}
    return tuple(_refused(n, r) for n, r in reasons.items() if r)


def _refused(quantity: str, reason: str) -> Finding:
    return Finding(quantity, "itself", Verdict.WRONG, True, np.inf, evidence=Evidence(reason=reason))


def _misfit(got: Any, like: Any, working: str) -> str:
    """Say how an array differs in kind, shape or dtype from what it must be like; "" where it does not.

    A coarser floating dtype than expected is left to `arbitration`: right in that precision, it is no wrong formula.
    """
    if not isinstance(got, np.ndarray | np.generic):
        return f"a {type(got).__name__}, expected a NumPy array of shape {np.shape(like)}"
    if got.shape != np.shape(like):
        return f"shape {got.shape}, expected {np.shape(like)}"
    wanted = np.asarray(like).dtype
    if got.dtype == wanted or got.dtype.name == working or is_coarser(got.dtype, wanted):
        return ""
    return f"dtype {got.dtype}, expected {wanted}"


def _primal(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"primals[{name!r}]: expected a floating, integer or boolean array, got dtype {array.dtype}")
    return array

"""Hold a subject against its oracles at one point: exact shapes and dtypes first, then values, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from oracles.decision.arbitration import Dispute, settle
from oracles.decision.comparison import Answers, agreeing, at_once, exact_answers, ratios_of
from oracles.decision.lost_digits import digits_lost
from oracles.decision.type_errors import is_array, misfits, parts_of, raised, refused, require_installed
from oracles.rule import (
    Array,
    InvalidInput,
    NotPerturbable,
    Primals,
    ReferenceFailed,
    Rule,
    as_tuple,
    is_differentiable,
    with_dtype,
)
from oracles.tolerance import (
    MORE_SAMPLES,
    SECOND_SAMPLES,
    ToleranceEstimator,
    is_coarser,
    named_outputs,
    precision_name,
    precision_of,
    tolerance_at,
)
from oracles.verdict import Finding, Result, Setting

Kinks = Literal["any", "declared"]
EXACT_INPUTS = 8  # up to so many inputs ball arithmetic judges every point; above, it arbitrates
LONE_EXACT_INPUTS = 256  # up to so many it judges where no reference does


def drawn_cotangents(subject: Rule, primals: Primals, rng: np.random.Generator, count: int = 3) -> list[Any]:
    """Draw signed cotangents for the subject's output, in its shape and dtype.

    Never all ones: under a cotangent of ones an all-zero softmax backward passes.
    """
    return cotangents_like(subject(**primals)[0], rng, count)


def cotangents_like(y: Any, rng: np.random.Generator, count: int = 3) -> list[Any]:
    """Draw signed cotangents in the shape and dtype of an output; a number for what is no array."""
    parts = [np.asarray(p if is_array(p) or isinstance(p, float) else 0.0) for p in as_tuple(y)]
    likes = [p if is_differentiable(p) else np.zeros(p.shape) for p in parts]
    draws = [tuple(np.asarray(rng.standard_normal(p.shape)).astype(p.dtype) for p in likes) for _ in range(count)]
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
    working = precision_name(precision) if precision else precision_of(primals)
    wide, wide_delta = with_dtype(dict(primals), np.float64), with_dtype(delta, np.float64)
    setting = Setting(subject, tuple(oracles), primals, delta, working)
    integers = {n for n, a in primals.items() if not is_differentiable(a)}
    what = "the forward"
    try:
        y, pullback = subject(**primals)
        evaluated = {oracle.name: _asked(oracle, oracle, **wide) for oracle in oracles}
        expected = {**_like_outputs(evaluated, primals), **primals}
        got = named_outputs(parts_of(y, precision_of(primals)), {})
        misfit = misfits(got, expected, working)
        if any(n not in expected or not is_array(a) or a.shape != np.shape(expected[n]) for n, a in got.items()):
            return Result(subject.name, check, misfit, setting=setting)  # delta does not fit the oracles' pullbacks
        what = "the pullback"
        cotangents = {n: g for n, g in dict(pullback(delta)).items() if n not in integers}
        answers = {
            oracle.name: named_outputs(as_tuple(evaluated[oracle.name][0]), _pulled(oracle, evaluated, wide_delta))
            for oracle in oracles
        }
    except (InvalidInput, ReferenceFailed):
        raise
    except Exception as error:
        return Result(subject.name, check, (raised(what, error),), setting=setting, cause=error)
    not_claimed = tuple(n for n in primals if n not in {*cotangents, *integers} and (only is None or n in only))
    got |= cotangents
    if only is not None:
        got = {n: a for n, a in got.items() if n in only}
    misfit = misfits(got, expected, working)
    if subject.declared is not None:
        misses = subject.declared.misses(primals, delta, cotangents, working)
        misfit += tuple(refused(n, reason) for n, reason in misses.items() if n in got)
    most = EXACT_INPUTS if any(oracle.reference for oracle in oracles) else LONE_EXACT_INPUTS
    if sum(np.size(a) for a in wide.values() if is_differentiable(a)) <= most:
        answers |= exact_answers(subject, wide, wide_delta, working)
    rounding = tolerance_at(oracles, wide, wide_delta, working, fallback=subject, known=answers)
    if subject.declared is not None:
        answers = subject.declared.excused(primals, got, answers)
    got = {n: a for n, a in got.items() if n not in {f.quantity for f in misfit}}
    findings = None
    if all(a.dtype == expected[n].dtype for n, a in got.items()):
        findings = at_once(got, answers, rounding)
    if findings is None:
        findings = []
        for n in got:
            about = {o: a[n] for o, a in answers.items() if n in a}
            findings += _judged(n, got[n], about, rounding, setting, kinks)
    return Result(subject.name, check, (*misfit, *findings), not_claimed, setting)


def _asked(oracle: Rule, question: Callable[..., Any], *args: Any, **primals: Any) -> Any:
    """Ask an oracle; what its reference raises is no fault of the subject's."""
    try:
        return question(*args, **primals)
    except (InvalidInput, NotPerturbable):
        raise
    except Exception as error:
        require_installed(error)
        if oracle.reference is None:
            raise  # it evaluates the subject's own primal
        at = ", ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in primals.items())
        raise ReferenceFailed(
            f"{oracle.name}: the reference raised {type(error).__name__}: {error}\n"
            f"Nothing is known of the subject{' at ' + at if at else ''}. The judge asks references in float64."
        ) from error


def _pulled(oracle: Rule, evaluated: Mapping[str, Any], delta: Any) -> dict[str, Any]:
    return dict(_asked(oracle, evaluated[oracle.name][1], delta))


def _judged(
    name: str, got: Array, answers: Answers, rounding: ToleranceEstimator, setting: Setting, kinks: Kinks
) -> list[Finding]:
    """Judge one array: where a few samples of rounding do not explain it, draw more; then settle the dispute."""
    value = np.asarray(got, np.float64)
    ratios = ratios_of(value, answers, rounding.estimate()[name], got.dtype)
    for samples in (SECOND_SAMPLES, MORE_SAMPLES):
        if any(np.any(r > 1) for r in ratios.values()):
            ratios = ratios_of(value, answers, rounding.estimate(samples)[name], got.dtype)
    allowed = rounding.estimate()[name]
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
    like = [
        np.broadcast_to(np.zeros((), np.result_type(*dtypes) if dtypes else np.float64), np.shape(part))
        for part in as_tuple(y)
    ]
    return named_outputs(tuple(like), {})

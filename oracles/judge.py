"""Hold a subject against its oracles at one point: exact shapes and dtypes first, then values, entry by entry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from oracles.report import text
from oracles.rounding import MORE_SAMPLES, Rounding, named_outputs, precision_name, precision_of, rounding_at
from oracles.rule import Array, Enclosure, Primals, Rule, is_differentiable, outputs, with_dtype
from oracles.verdict import Disagreement, Evidence, Finding, Result, Verdict


def check(
    subject: Rule,
    primals: Mapping[str, Any],
    against: Sequence[Rule] = (),
    delta: Any = None,
    *,
    precision: str | None = None,
    seed: int = 0,
) -> Result:
    """Judge the subject's output and pullback at one point; return the result where all oracles agree.

    Args:
        subject: the Rule under test, see `oracles.manual`.
        primals: its inputs by name. Floating ones are judged; integers and booleans have no cotangent.
        against: the oracles. Without any, finite differences of the subject's own primal judge it.
        delta: the cotangent of the output; by default three signed ones are drawn from ``seed``.
        precision: what the subject computes in where it is less than it is fed: ``"float32"``.
        seed: of the drawn cotangents.

    Raises:
        Disagreement: (an AssertionError) if an oracle refuses the subject; it carries the verdict and its evidence.
        TypeError, ValueError: if the arguments do not fit together: says what was expected and what came.
    """
    arrays = {name: _primal(name, value) for name, value in primals.items()}
    judges = tuple(against) or (own_finite_difference(subject),)
    deltas = [delta] if delta is not None else drawn_cotangents(subject, arrays, np.random.default_rng(seed))
    results = [judge(subject, arrays, d, judges, precision=precision) for d in deltas]
    findings = tuple(finding for result in results for finding in result.findings)
    return require(Result(subject.name, "check", findings, results[0].not_claimed))


def require(result: Result) -> Result:
    """Return the result, or raise it as a `Disagreement` where its verdict refuses the subject."""
    if result.verdict.refuses:
        raise Disagreement(result, text(result))
    return result


def own_finite_difference(subject: Rule) -> Rule:
    """Return finite differences of the subject's own primal as an oracle."""
    from oracles.finite_difference import finite_difference

    return finite_difference(subject)


def drawn_cotangents(subject: Rule, primals: Primals, rng: np.random.Generator, count: int = 3) -> list[Any]:
    """Draw signed cotangents for the subject's output, in its shape and dtype.

    Never all ones: under a cotangent of ones an all-zero softmax backward passes.
    """
    y, _ = subject(**primals)
    draws = [tuple(_signed(part, rng) for part in outputs(y)) for _ in range(count)]
    return [parts if isinstance(y, tuple | list) else parts[0] for parts in draws]


def judge(
    subject: Rule,
    primals: Primals,
    delta: Any,
    oracles: Sequence[Rule],
    *,
    precision: str | None = None,
    only: Iterable[str] | None = None,
    check: str = "cotangents_agree",
) -> Result:
    """Judge one evaluation of the subject against every oracle and return what was found, without raising.

    Args:
        subject, primals, delta, oracles, precision: as in `check`.
        only: judge these quantities alone ("output", or names of primals).
        check: the name that the result carries.
    """
    y, pullback = subject(**primals)
    wide, wide_delta = with_dtype(dict(primals), np.float64), with_dtype(delta, np.float64)
    evaluated = {oracle.name: oracle(**wide) for oracle in oracles}
    expected = {**_like_outputs(evaluated, primals), **primals}
    got = named_outputs(outputs(y), {})
    misfits = _misfits(got, expected)
    if misfits:  # a delta of the output's shape does not fit the oracles' pullbacks then
        return Result(subject.name, check, misfits)
    try:
        cotangents = dict(pullback(delta))
    except Exception as error:
        reason = f"the pullback raised {type(error).__name__}: {error}"
        return Result(subject.name, check, (_refused("cotangents", reason),))
    not_claimed = tuple(n for n, a in primals.items() if is_differentiable(a) and n not in cotangents)
    got |= cotangents
    if only is not None:
        got = {n: a for n, a in got.items() if n in only}
    misfits = _misfits(got, expected)
    refused = {f.quantity for f in misfits}
    answers = {o: named_outputs(outputs(oy), dict(pb(wide_delta))) for o, (oy, pb) in evaluated.items()}
    rounding = rounding_at(
        oracles,
        primals,
        delta,
        precision_name(precision) if precision else precision_of(primals),
        fallback=subject,
    )
    findings = list(misfits)
    for n in got:
        if n not in refused:
            findings += _compare(n, got[n], {o: a[n] for o, a in answers.items() if n in a}, rounding)
    return Result(subject.name, check, tuple(findings), not_claimed)


def _like_outputs(evaluated: Mapping[str, Any], primals: Primals) -> dict[str, Array]:
    """Return what the outputs must be like: the shapes that an oracle gives, the dtype of the floating primals."""
    dtypes = [a.dtype for a in primals.values() if is_differentiable(a)]
    y, _ = next(iter(evaluated.values()))
    like = [np.broadcast_to(np.zeros((), np.result_type(*dtypes)), np.shape(part)) for part in outputs(y)]
    return named_outputs(tuple(like), {})


def _misfits(got: Mapping[str, Any], expected: Mapping[str, Array]) -> tuple[Finding, ...]:
    """Refuse every array whose kind, shape or dtype is not exactly the expected one."""
    reasons = {n: _misfit(got[n], expected[n]) if n in expected else "an output too many" for n in got}
    return tuple(_refused(n, r) for n, r in reasons.items() if r)


def _refused(quantity: str, reason: str) -> Finding:
    return Finding(quantity, "itself", Verdict.WRONG, np.inf, evidence=Evidence(reason=reason))


def _compare(name: str, got: Array, answers: Mapping[str, Any], rounding: Rounding) -> list[Finding]:
    """Compare one array with every oracle's; draw more samples of rounding before refusing."""
    value = np.asarray(got, np.float64)
    ratios = {o: _ratio(value, want, rounding.allowance()[name], got.dtype) for o, want in answers.items()}
    if any(np.any(r > 1) for r in ratios.values()):
        allowed = rounding.allowance(MORE_SAMPLES)[name]
        ratios = {o: _ratio(value, want, allowed, got.dtype) for o, want in answers.items()}
    allowed = rounding.allowance()[name]
    refusing = [o for o, r in ratios.items() if np.any(r > 1)]
    conflict = refusing and _conflict(name, answers, rounding)
    return [
        _finding(
            name,
            o,
            value,
            answers,
            ratios[o],
            allowed,
            Verdict.ORACLES_CONFLICT if conflict else Verdict.WRONG,
        )
        for o in answers
    ]


def _finding(
    name: str,
    oracle: str,
    got: Array,
    answers: Mapping[str, Any],
    ratio: Array,
    allowed: Array,
    refused_as: Verdict,
) -> Finding:
    """Return the finding of one oracle on one array, with the worst entry as evidence where it refuses."""
    want, radius = _value(answers[oracle])
    size, room = np.abs(want), allowed + radius
    worst = float(np.max(ratio, initial=0.0))
    if worst > 1:
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
        evidence = Evidence(
            index,
            float(got[index]),
            {o: float(_value(a)[0][index]) for o, a in answers.items()},
            float(room[index]),
            (int(np.count_nonzero(ratio > 1)), ratio.size),
        )
        return Finding(name, oracle, refused_as, worst, 0.0, evidence)
    seen = size > 0
    resolves = float(np.median(room[seen] / size[seen])) if np.any(seen) else 0.0
    blind = bool(np.any(seen)) and bool(np.all(room >= size))
    return Finding(name, oracle, Verdict.VACUOUS if blind else Verdict.AGREES, worst, resolves)


def _ratio(got: Array, answer: Any, allowed: Array, dtype: np.dtype[Any]) -> Array:
    """Return |error| / allowance entry by entry: NaN equals nothing, Inf only the Inf that the answer overflows to."""
    want, radius = _value(answer)
    with np.errstate(all="ignore"):
        error, room = np.abs(got - want), allowed + radius
        ratio = np.where(
            error <= room, np.where(error > 0, error / room, 0.0), np.where(room > 0, error / room, np.inf)
        )
        infinite = np.isinf(got)
        if np.any(infinite):
            reach = np.abs(want) + room > float(np.finfo(dtype).max) if dtype.kind == "f" else np.isinf(want)
            ratio = np.where(infinite & reach & (np.sign(got) == np.sign(want)), 0.0, np.where(infinite, np.inf, ratio))
    return np.where(np.isnan(ratio), np.inf, ratio)


def _conflict(name: str, answers: Mapping[str, Any], rounding: Rounding) -> bool:
    """Return whether the oracles, all in float64, differ from one another by more than float64 rounding allows."""
    fine = Rounding(rounding.sources, rounding.primals, rounding.delta, "float64").allowance(MORE_SAMPLES)[name]
    parts = [_value(a) for a in answers.values()]
    return any(bool(np.any(np.abs(a - b) > fine + ra + rb)) for i, (a, ra) in enumerate(parts) for b, rb in parts[:i])


def _value(answer: Any) -> tuple[Array, Array | float]:
    return (answer.mid, answer.radius) if isinstance(answer, Enclosure) else (np.asarray(answer, np.float64), 0.0)


def _misfit(got: Any, like: Any) -> str:
    """Say how an array differs in kind, shape or dtype from what it must be like; "" where it does not."""
    if not isinstance(got, np.ndarray | np.generic):
        return f"a {type(got).__name__}, expected a NumPy array of shape {np.shape(like)}"
    if got.shape != np.shape(like):
        return f"shape {got.shape}, expected {np.shape(like)}"
    wanted = np.asarray(like).dtype
    return f"dtype {got.dtype}, expected {wanted}" if got.dtype != wanted else ""


def _primal(name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise TypeError(f"primals[{name!r}]: expected a floating, integer or boolean array, got dtype {array.dtype}")
    return array


def _signed(like: Any, rng: np.random.Generator) -> Array:
    like = np.asarray(like)
    return np.asarray(rng.standard_normal(like.shape)).astype(like.dtype)

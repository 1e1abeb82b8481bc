"""Each check is a property of one case at one point; none knows which layer it looks at.

A check returns what it found as a `Result`, or ``None`` where it does not apply to the case. Some hold the subject
against oracles, others hold it against itself: those need a bound on rounding, or none at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from oracles import self_consistency
from oracles.constants import FIRST_SAMPLES, MORE_SAMPLES
from oracles.decision.judge import judge
from oracles.finite_differences import directional_derivative
from oracles.registry import Case
from oracles.rule import Array, Rule, as_tuple, is_differentiable, with_dtype
from oracles.self_consistency import Room, finding, nothing_aliased, nothing_mutated, within
from oracles.strategies import Point, laid_out
from oracles.tolerance import named_outputs, precision_of, tolerance_at
from oracles.verdict import Evidence, Finding, Result, Verdict

ALONG = "⟨cotangents, v⟩"

Check = Callable[[Case, Point, Sequence[Rule]], Result | None]


def primal_agrees(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """The output is the one that every oracle computes."""
    names = named_outputs(as_tuple(point.delta), {})
    return judge(
        case.subject, point.primals, point.delta, oracles, kinks=case.kinks, only=names, property_name="primal_agrees"
    )


def cotangents_agree(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """Every cotangent is the one that every oracle derives."""
    return judge(
        case.subject,
        point.primals,
        point.delta,
        oracles,
        kinks=case.kinks,
        only=point.primals,
        property_name="cotangents_agree",
    )


def adjoint_of_own_primal(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """⟨Jᵀ delta, v⟩ = ⟨delta, J v⟩ along random v, with J v from finite differences of the subject's own primal."""
    wide = with_dtype(dict(point.primals), np.float64)
    delta = with_dtype(point.delta, np.float64)
    cotangents = case.subject(**wide)[1](delta)
    rounding = tolerance_at(oracles, wide, delta, "float64", fallback=case.subject)
    findings = []
    for v in _directions({n: wide[n] for n in cotangents}):
        slope, radius = directional_derivative(case.subject, wide, delta, v)
        terms = [float(t) for n, g in cotangents.items() for t in np.ravel(g * v[n])]
        for samples in (FIRST_SAMPLES, MORE_SAMPLES):
            allowed = rounding.estimate(samples)
            room = radius + sum(float(np.sum(allowed[n][d != 0] * np.abs(d[d != 0]))) for n, d in v.items())
            room += len(terms) * 2.0**-1074  # what underflows in a product
            ratio = _relative(abs(sum(terms) - slope), room)
            if ratio <= 1:
                break
        if ratio > 1:
            evidence = Evidence((), sum(terms), {"finite difference": slope}, room, refused=(1, 1))
            finding = Finding(ALONG, "finite difference", Verdict.WRONG, True, ratio, evidence=evidence)
        else:
            size = sum(map(abs, terms))
            verdict = Verdict.VACUOUS if size and room >= size else Verdict.AGREES
            finding = Finding(
                ALONG, "finite difference", verdict, ratio=ratio, detects_above=room / size if size else 0.0
            )
        findings.append(finding)
    return Result(case.subject.name, "adjoint_of_own_primal", tuple(findings))


def _directions(primals: Mapping[str, Array]) -> list[dict[str, Array]]:
    """Two directions: one relative to every entry, which crosses no kink at 0, and one along the zeros alone."""
    rng = np.random.default_rng(0)
    relative = {n: rng.choice((-1.0, 1.0), a.shape) * np.abs(a) for n, a in primals.items()}
    zeros = {
        n: rng.choice((-1.0, 1.0), a.shape) * (a == 0) * (float(np.max(np.abs(a), initial=0.0)) or 1.0)
        for n, a in primals.items()
    }
    return [v for v in (relative, zeros) if any(np.any(d) for d in v.values())]


def shapes_and_dtypes_exact(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """A cotangent has exactly the shape and dtype of its primal, the output the dtype of the primals; in half too."""
    findings = []
    for dtype in (point.dtype, "float16"):
        with np.errstate(all="ignore"):
            primals = {n: a.astype(dtype) if is_differentiable(a) else a for n, a in point.primals.items()}
            y, pullback = case.subject(**primals)
            got = pullback(with_dtype(point.delta, dtype))
        for name, part in named_outputs(as_tuple(y), {}).items():
            came = np.asarray(part).dtype.name
            findings.append(finding(name, came == dtype, f"dtype {came} where the primals are {dtype}"))
        for name, g in got.items():
            fits = isinstance(g, np.ndarray) and g.shape == primals[name].shape and g.dtype == dtype
            came = f"{g.dtype.name}{g.shape}" if isinstance(g, np.ndarray) else type(g).__name__
            findings.append(finding(name, fits, f"{came}, expected {dtype}{primals[name].shape}"))
    return Result(case.subject.name, "shapes_and_dtypes_exact", tuple(findings))


def pullback_is_linear(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """pullback(a δ + b ε) = a pullback(δ) + b pullback(ε) within rounding, and exactly zero at zero."""
    rng = np.random.default_rng(1)
    other = _map(lambda d: np.asarray(rng.standard_normal(d.shape)).astype(d.dtype), point.delta)
    mixed = _map(lambda d, e: (2 * d - e).astype(d.dtype), point.delta, other)
    _, pullback = case.subject(**point.primals)
    at, beside, sum_ = (dict(pullback(d)) for d in (point.delta, other, mixed))
    rooms = [_allowance(case, point, oracles, d) for d in (point.delta, other, mixed)]

    def room(n: str, samples: int) -> Array:
        at_delta, at_other, at_mixed = (each(n, samples) for each in rooms)
        return np.asarray(2 * at_delta + at_other + at_mixed)

    zero = pullback(_map(lambda d: np.zeros_like(d, order="C"), point.delta))
    findings = []
    for n in at:
        combined = 2 * np.asarray(at[n], np.float64) - np.asarray(beside[n], np.float64)
        findings.append(within(n, sum_[n], combined, room, "pullback(2δ − ε) against 2 pullback(δ) − pullback(ε)"))
        findings.append(finding(n, not np.any(zero[n]), "a cotangent of zeros does not pull back to zeros"))
    return Result(case.subject.name, "pullback_is_linear", tuple(findings))


def layout_blind(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """Fortran order, strides, stride 0 and read-only memory, of primals and of delta, give the same values."""
    plain = {n: np.ascontiguousarray(a).reshape(a.shape) for n, a in point.primals.items()}
    delta = _map(lambda d: np.ascontiguousarray(d).reshape(d.shape), point.delta)
    y, pullback = case.subject(**plain)
    want = named_outputs(as_tuple(y), pullback(delta))
    room = _allowance(case, point, oracles, point.delta)
    findings = []
    for layout in ("F", "strided", "reversed", "read-only"):
        y, pullback = case.subject(**{n: laid_out(a, layout) for n, a in plain.items()})
        laid = _map(lambda d, layout=layout: laid_out(d, layout), delta)
        got = named_outputs(as_tuple(y), pullback(laid))
        findings += [within(n, got[n], want[n], room, f"{layout} memory against contiguous") for n in want]
    return Result(case.subject.name, "layout_blind", tuple(findings))


def nothing_mutated_or_aliased(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """Neither forward nor backward writes into what it is given, and no returned array shares memory with another."""
    findings, arrays = nothing_mutated(case.subject, point.primals, point.delta)
    return Result(case.subject.name, "nothing_mutated_or_aliased", (*findings, *nothing_aliased(arrays)))


def same_every_time(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """Evaluated twice, and its pullback called twice, with another forward and backward between: the same bits."""
    room = _allowance(case, point, oracles, point.delta)
    findings = self_consistency.same_every_time(case.subject, point.primals, point.delta, room)
    return Result(case.subject.name, "same_every_time", tuple(findings))


def batch_is_a_sum(case: Case, point: Point, oracles: Sequence[Rule]) -> Result | None:
    """Rows are independent: two halves give the rows of the whole and sum to its other cotangents; no rows, zeros."""
    if not case.batched:
        return None
    n_rows = len(point.primals[case.batched[0]])
    room = _allowance(case, point, oracles, point.delta)
    whole_y, pullback = case.subject(**point.primals)
    whole = named_outputs(as_tuple(whole_y), dict(pullback(point.delta)))
    cut = n_rows // 2
    per_row = (
        {*case.batched, *named_outputs(as_tuple(whole_y), {})} if np.ndim(as_tuple(whole_y)[0]) else {*case.batched}
    )
    total: dict[str, Any] = {}
    for rows in (slice(0, cut), slice(cut, n_rows), slice(0, 0)):
        part = {n: a[rows] if n in case.batched else a for n, a in point.primals.items()}
        y, pullback = case.subject(**part)
        delta = _map(lambda d, rows=rows: d[rows] if d.ndim else d, point.delta)
        for n, a in named_outputs(as_tuple(y), dict(pullback(delta))).items():
            a = np.asarray(a, np.float64)
            total[n] = a if n not in total else np.concatenate([total[n], a]) if n in per_row else total[n] + a
    why = f"the whole batch against rows [:{cut}] and [{cut}:] and none"
    findings = tuple(within(n, whole[n], total[n], room, why) for n in whole)
    return Result(case.subject.name, "batch_is_a_sum", findings)


PROPERTIES: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        primal_agrees,
        cotangents_agree,
        adjoint_of_own_primal,
        shapes_and_dtypes_exact,
        pullback_is_linear,
        layout_blind,
        nothing_mutated_or_aliased,
        same_every_time,
        batch_is_a_sum,
    )
}
FORWARD_PROPERTIES = (
    "primal_agrees",
    "shapes_and_dtypes_exact",
    "layout_blind",
    "nothing_mutated_or_aliased",
    "same_every_time",
)


def _allowance(case: Case, point: Point, oracles: Sequence[Rule], delta: Any) -> Room:
    """Return the room of `self_consistency.self_tolerance_at` for a case, at a point and for another delta."""
    return self_consistency.self_tolerance_at(case.subject, oracles, point.primals, delta, precision_of(point.primals))


def _relative(error: float, room: float) -> float:
    if np.isnan(error):
        return float("inf")
    return error / room if room > 0 else (0.0 if error == 0 else float("inf"))


def _map(f: Callable[..., Array], *trees: Any) -> Any:
    if isinstance(trees[0], tuple):
        return tuple(f(*parts) for parts in zip(*trees, strict=True))
    return f(*(np.asarray(tree) for tree in trees))

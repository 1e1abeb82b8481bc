"""Properties that a subject must keep with itself: it writes into no argument, and equal calls give equal results.

Each function takes a Rule and a point and returns findings. Where the bits of two results may differ, a `Tolerance`
bounds the difference that rounding explains. This module imports no Hypothesis: `oracles.check` needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from oracles.backends.arrays import copied
from oracles.constants import FIRST_SAMPLES, MORE_SAMPLES, NEAR_OVERFLOW, OTHER_POINT_SCALE
from oracles.decision.comparison import largest_number
from oracles.decision.type_errors import CALL, refuse
from oracles.environment import first_line
from oracles.evaluations import Contradiction, Memory, different, on_copies, same_values
from oracles.nondeterminism import RANDOM, UNWRITTEN, cause_of_change, values_in_filled_memory
from oracles.notes import note
from oracles.numerics import Numerics
from oracles.rule import (
    Array,
    Cotangents,
    Evaluate,
    Output,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    is_differentiable,
    is_real,
)
from oracles.tolerance import named_outputs, tolerance_at, values_of
from oracles.user_code import Raised, attempt
from oracles.verdict import SELF_CONSISTENCY, Evidence, Finding, Verdict

# (name, samples) -> tolerance. Called only where bits differ; with more samples if a few do not explain the difference.
Tolerance: TypeAlias = Callable[[str, int], Array]


def self_tolerance_at(
    subject: Rule, oracles: Sequence[Rule], primals: Primals, delta: Output, numerics: Numerics | str
) -> Tolerance:
    """Return the tolerance between two results of the subject at a point; evaluated when it is first called.

    It is twice the tolerance against an oracle, since both results carry the subject's rounding errors.
    """
    estimator = tolerance_at(oracles, primals, delta, numerics, fallback=subject)
    return lambda name, samples: 2 * estimator.estimate(samples)[name]


def check_mutation(subject: Rule, primals: Primals, delta: Output) -> tuple[list[Finding], dict[str, Array]]:
    """Check that neither forward nor backward writes into its arguments.

    Returns:
        The findings, and every array that was passed ("given NAME") or returned ("returned NAME"), for
        `check_aliasing`.
    """
    arguments = {n: copied(a) for n, a in primals.items()}
    arguments |= {f"delta[{i}]": copied(np.asarray(d)) for i, d in enumerate(as_tuple(delta))}
    before = {n: np.array(a) for n, a in arguments.items()}
    deltas = tuple(arguments[n] for n in arguments if n not in primals)
    returned = values_of(subject, {n: arguments[n] for n in primals}, deltas if isinstance(delta, tuple) else deltas[0])
    findings = [
        exact_finding(
            f"the primal {n}" if n in primals else n,
            same_values(a, before[n]),
            f"{n} was written into",
            _fix_of_mutation(n),
        )
        for n, a in arguments.items()
    ]
    arrays = {f"given {n}": a for n, a in arguments.items()}
    return findings, arrays | {f"returned {n}": a for n, a in returned.items() if isinstance(a, np.ndarray)}


def check_aliasing(arrays: Mapping[str, Array]) -> Iterator[Finding]:
    """Check that no returned array shares memory with another array; ``arrays`` are those of `check_mutation`."""
    labels = list(arrays)
    for i, label in enumerate(labels):
        for other in labels[:i]:
            # The caller may pass one array twice; only results must be fresh.
            if "returned" in (label.split()[0], other.split()[0]):
                name = label.split(" ", 1)[1]
                fix = f"return {'y' if name.startswith('output') else f'd{name}'}.copy()"
                shared = np.shares_memory(arrays[label], arrays[other])
                yield exact_finding(name, not shared, f"{label} shares memory with {other}", fix)


def notes_of_aliasing(arrays: Mapping[str, Array]) -> list[str]:
    """Return a note for each array that shares memory: no refusal, since many correct libraries return views."""
    shared = [f.evidence for f in check_aliasing(arrays) if f.refuses]
    return [f"{e.reason}: writing into one changes the other; {e.fix}" for e in shared]


def check_repeatability(subject: Rule, primals: Primals, delta: Output, tolerance: Tolerance) -> list[Finding]:
    """Check that repeated, interleaved and otherwise called evaluations give the same results.

    NumPy must give the same bits, where NaN equals NaN. Other libraries and devices may differ by rounding. If an
    answer changes, calls of the subject tell random numbers and memory that was never written from state.
    """

    def compare(name: str, actual: object, expected: object, reason: str) -> Finding:
        if not subject.is_bitwise_reproducible and np.asarray(actual).shape == np.asarray(expected).shape:
            return compare_values(name, actual, expected, tolerance, reason)
        return same_finding(name, actual, expected, reason)

    y, pullback = subject(**primals)
    first = named_outputs(as_tuple(y), dict(pullback(delta)))
    # Copies: a later evaluation may write into arrays that were returned before.
    expected = {n: np.array(a) for n, a in first.items()}
    # This order matters: state that an evaluation leaves behind shows only if another one runs in between.
    other, other_pullback = _other_point(subject, primals, delta)
    ask = _asking(subject, primals, delta, pullback)
    again, between = _copies(ask()), _copies(other_pullback(delta))
    # At once: a later call may put the same values back.
    overwritten = {n: np.array(a) for n, a in first.items()}
    interleaved = _copies(ask())
    fresh = subject(**other)[1](delta)
    findings = []
    changes = any(compare(n, again[n], expected[n], "").refuses for n in again)
    reason = "a second pullback differs, after another forward"
    if changes and _writes_into_its_cache(subject, primals, delta, compare):
        reason = "a second backward of the same forward differs: it may write into what forward kept"
    for n in again:
        findings.append(compare(n, again[n], expected[n], reason))
        findings.append(compare(n, interleaved[n], expected[n], "a pullback interleaved with another differs"))
        findings.append(compare(n, between[n], fresh[n], "the other pullback differs from a fresh one"))
    second = values_in_filled_memory(subject, primals, delta)
    findings += [compare(n, second[n], expected[n], "a second evaluation differs") for n in expected]
    findings = explained(findings, subject, primals, delta)
    reason = "an array already returned was written into"
    for n in expected:
        late = first[n] if same_values(overwritten[n], expected[n]) else overwritten[n]
        findings.append(same_finding(n, late, expected[n], reason))
    for pattern, evaluate in subject.call_patterns.items():
        findings += check_call_pattern(pattern, evaluate, primals, delta, expected, tolerance)
    return findings


def _copies(cotangents: Cotangents) -> Cotangents:
    return {n: np.array(a) for n, a in cotangents.items()}


def _writes_into_its_cache(
    subject: Rule, primals: Primals, delta: Output, compare: Callable[[str, object, object, str], Finding]
) -> bool:
    """Return whether a pullback that is asked twice, with no other call between, gives two answers."""
    pullback = subject(**primals)[1]
    first = _copies(pullback(delta))
    second = attempt(lambda: pullback(delta))
    return not isinstance(second, Raised) and any(compare(n, second[n], a, "").refuses for n, a in first.items())


def _asking(subject: Rule, primals: Primals, delta: Output, pullback: Pullback) -> Callable[[], Cotangents]:
    """Return what asks a pullback again; one that raises then is replaced by that of another call, with a note."""

    def ask() -> Cotangents:
        found = attempt(lambda: pullback(delta))
        if not isinstance(found, Raised):
            return found
        cotangents = subject(**primals)[1](delta)
        note_asked_once(found.error)
        return cotangents

    return ask


def note_asked_once(error: Exception) -> None:
    """Make a note that the pullback of a forward can be asked once alone."""
    note(f"a second backward of the same forward raises {type(error).__name__}: {first_line(error)}")


def explained(findings: list[Finding], subject: Rule, primals: Primals, delta: Output) -> list[Finding]:
    """Return findings on answers that change, each with the cause of the change in its reason."""
    changed = [f for f in findings if f.refuses]
    if not changed:
        return findings
    cause = cause_of_change(subject, primals, delta, changed[0].quantity)

    def explain(finding: Finding) -> Finding:
        if not finding.refuses:
            return finding
        own = cause.kind in (RANDOM, UNWRITTEN)
        reason = cause.reason if own else f"{finding.evidence.reason}: {cause.reason}"
        # No number of roundings is an answer that changes, so these come before differences from an oracle.
        evidence = replace(finding.evidence, reason=reason, fix=cause.fix if own else finding.evidence.fix)
        return replace(finding, ratio=np.inf, evidence=replace(evidence, tolerance=None))

    return [explain(f) for f in findings]


def contradiction_findings(memory: Memory, subject: Rule, oracles: Sequence[Rule], numerics: Numerics) -> list[Finding]:
    """Return a finding for every array of which two answers to the same call differ by more than rounding."""
    findings = []
    for name, found in memory.contradictions.items():
        first, second = found.calls
        if not name:
            in_order = found.first, found.second
            raised = next(answer for answer in in_order if isinstance(answer, Exception))
            calls = found.calls if raised is found.first else (second, first)
            what = f"call {calls[0]} raised {type(raised).__name__}: {raised}; call {calls[1]} did not"
            findings.append(refuse(CALL, f"not deterministic: for the same arguments, {what}"))
            continue
        reason = f"not deterministic: for the same arguments, call {first} and call {second} gave two answers"
        delta = found.delta
        if delta is None:
            # Without a cotangent no tolerance is known; where outputs may differ by rounding, others compare them.
            if subject.is_bitwise_reproducible:
                findings.append(same_finding(name, found.second, found.first, reason))
            continue
        tolerance = self_tolerance_at(subject, oracles, found.primals, delta, numerics)
        if _reads_other_memory(found, delta, subject, tolerance):
            continue  # a defect of layout, which is told as such
        if subject.is_bitwise_reproducible or np.shape(found.first) != np.shape(found.second):
            finding = same_finding(name, found.second, found.first, reason)
        else:
            finding = compare_values(name, found.second, found.first, tolerance, reason)
        findings += explained([finding], on_copies(subject), found.primals, delta)
    return [f for f in findings if f.refuses]


def _reads_other_memory(found: Contradiction, delta: Output, subject: Rule, tolerance: Tolerance) -> bool:
    """Return whether contiguous copies give another answer: then the subject reads memory between the entries."""
    if all(np.asarray(a).flags.c_contiguous for a in (*found.primals.values(), *as_tuple(delta))):
        return False
    dense = {n: np.array(a, order="C") for n, a in found.primals.items()}
    parts = tuple(np.array(d, order="C") for d in as_tuple(delta))
    as_given = attempt(lambda: values_of(on_copies(subject), found.primals, delta))
    of_dense = attempt(lambda: values_of(subject, dense, parts if isinstance(delta, tuple) else parts[0]))
    if isinstance(as_given, Raised) or isinstance(of_dense, Raised):
        return False
    return compare_values(found.name, as_given[found.name], of_dense[found.name], tolerance, "").refuses


def check_call_pattern(
    pattern: str, evaluate: Evaluate, primals: Primals, delta: Output, expected: Cotangents, tolerance: Tolerance
) -> list[Finding]:
    """Check that another way to call the subject gives the expected values, within rounding."""
    actual = attempt(lambda: values_of(evaluate, primals, delta))
    if isinstance(actual, Raised):
        return [refuse("cotangents", f"{pattern}: {type(actual.error).__name__}: {actual.error}")]
    return [
        compare_values(n, actual[n], expected[n], tolerance, f"{pattern} gives another answer")
        if n in actual
        else refuse(n, f"{pattern}: none")
        for n in expected
    ]


def move_point(primals: Primals) -> dict[str, Array]:
    """Return another point of the same shapes in the same domain: the entries reversed, and a little smaller."""
    return {
        n: np.asarray((OTHER_POINT_SCALE * a if is_differentiable(a) else a).ravel()[::-1].reshape(a.shape)).astype(
            a.dtype
        )
        for n, a in primals.items()
    }


def _other_point(subject: Rule, primals: Primals, delta: Output) -> tuple[Primals, Pullback]:
    """Return another point and the pullback there, or the same point if the subject raises at the other."""
    other = move_point(primals)
    evaluated = attempt(lambda: subject(**other))
    if isinstance(evaluated, Raised):
        return primals, subject(**primals)[1]
    _, pullback = evaluated

    def pullback_there(delta: Output) -> Cotangents:
        cotangents = attempt(lambda: pullback(delta))
        return subject(**other)[1](delta) if isinstance(cotangents, Raised) else cotangents

    return other, pullback_there


def compare_values(name: str, actual: object, expected: object, tolerance: Tolerance, reason: str) -> Finding:
    """Compare two results of the subject; the tolerance is evaluated only if their values differ.

    What is not real, as complex numbers are, is compared in no value: it is refused for its dtype elsewhere.

    An infinity stands for a number beyond the largest one of the dtype, or within the tolerance of that. Where rounding
    moves an entry by about as much as that number, products inside overflow.
    """
    if not (is_real(actual) and is_real(expected)):
        return Finding(name, SELF_CONSISTENCY, Verdict.AGREES)
    largest = largest_number(np.asarray(actual).dtype)
    result, reference = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if result.shape != reference.shape:
        return refuse(name, f"{reason}: shape {result.shape} against {reference.shape}")
    # Equal infinities differ by NaN, so equality is asked first; NaN in both is no difference.
    with np.errstate(invalid="ignore"):
        same = (result == reference) | (np.isnan(result) & np.isnan(reference))
        error = np.where(same, 0.0, np.abs(result - reference))
    if not np.any(error != 0):
        return Finding(name, SELF_CONSISTENCY, Verdict.AGREES)
    # Few samples explain most differences; many are drawn only before a refusal.
    for samples in (FIRST_SAMPLES, MORE_SAMPLES):
        # Where the source of the tolerance is NaN, nothing bounds the rounding.
        bound = np.broadcast_to(np.nan_to_num(tolerance(name, samples), nan=np.inf, posinf=np.inf), error.shape)
        with np.errstate(all="ignore"):
            ratio = np.where(error == 0, 0.0, np.where(np.isnan(error), np.inf, error / bound))
            for infinite, finite in ((result, reference), (reference, result)):
                overflows = infinite == np.copysign(np.inf, finite)
                overflows &= np.abs(finite) + bound > largest
                overflows |= ~np.isfinite(infinite) & (bound > np.maximum(np.abs(finite), largest * NEAR_OVERFLOW))
                ratio = np.where(overflows & np.isfinite(bound), 0.0, ratio)
        worst = float(np.max(ratio))
        if worst <= 1:
            return Finding(name, SELF_CONSISTENCY, Verdict.AGREES, ratio=worst)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    evidence = Evidence(
        index,
        float(result[index]),
        {SELF_CONSISTENCY: float(reference[index])},
        float(bound[index]),
        refused=(int(np.count_nonzero(ratio > 1)), ratio.size),
        reason=reason,
    )
    return Finding(name, SELF_CONSISTENCY, Verdict.WRONG, True, worst, evidence=evidence)


def exact_finding(name: str, holds: bool, reason: str, fix: str = "") -> Finding:
    """Return the finding of a property that either holds or does not, whatever the rounding."""
    return Finding(name, SELF_CONSISTENCY, Verdict.AGREES) if holds else refuse(name, reason, fix)


def same_finding(name: str, actual: object, expected: object, reason: str, fix: str = "") -> Finding:
    """Return the finding of an array that must have the bits of an earlier one; it names an entry that has not."""
    a, b = np.asarray(actual), np.asarray(expected)
    if same_values(a, b):
        return Finding(name, SELF_CONSISTENCY, Verdict.AGREES)
    if a.shape != b.shape or a.dtype != b.dtype or not is_real(a):
        return refuse(name, reason, fix)
    differs = different(a, b)
    index = tuple(int(i) for i in np.argwhere(differs)[0])
    count = int(np.count_nonzero(differs)), differs.size
    values = {"an earlier call": float(b[index])}
    evidence = Evidence(index, float(a[index]), values, refused=count, reason=reason, fix=fix)
    return Finding(name, SELF_CONSISTENCY, Verdict.WRONG, True, np.inf, evidence=evidence)


def _fix_of_mutation(name: str) -> str:
    variable = name.split("[")[0]
    return (
        f"{variable} = {variable}.copy()      # or out of place: {variable} = {variable} * mask, not {variable} *= mask"
    )

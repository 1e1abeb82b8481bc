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
from oracles.constants import FIRST_SAMPLES, MORE_SAMPLES, OTHER_POINT_SCALE
from oracles.rule import Array, Cotangents, Evaluate, Output, Primals, Pullback, Rule, as_tuple, is_differentiable
from oracles.tolerance import named_outputs, tolerance_at, values_of
from oracles.user_code import Raised, attempt
from oracles.verdict import Evidence, Finding, Verdict

# (name, samples) -> tolerance. Called only where bits differ; with more samples if a few do not explain the difference.
Tolerance: TypeAlias = Callable[[str, int], Array]


def self_tolerance_at(
    subject: Rule, oracles: Sequence[Rule], primals: Primals, delta: Output, precision: str
) -> Tolerance:
    """Return the tolerance between two results of the subject at a point; evaluated when it is first called.

    It is twice the tolerance against an oracle, since both results carry the subject's rounding errors.
    """
    estimator = tolerance_at(oracles, primals, delta, precision, fallback=subject)
    return lambda name, samples: 2 * estimator.estimate(samples)[name]


def on_copies(subject: Rule) -> Rule:
    """Return the subject evaluated on copies of its arguments, so that it cannot change the caller's arrays.

    Without copies, a write that changes nothing the second time (ReLU in place) would never be noticed.
    """

    def guard(evaluate: Evaluate) -> Evaluate:
        def evaluate_on_copies(**primals: Array) -> tuple[Output, Pullback]:
            y, pullback = evaluate(**{n: copied(a) for n, a in primals.items()})
            return y, lambda delta: pullback(tuple(map(copied, delta)) if isinstance(delta, tuple) else copied(delta))

        return evaluate_on_copies

    call_patterns = {name: guard(evaluate) for name, evaluate in subject.call_patterns.items()}
    return replace(subject, evaluate=guard(subject.evaluate), call_patterns=call_patterns)


def check_mutation(subject: Rule, primals: Primals, delta: Output) -> tuple[list[Finding], dict[str, Array]]:
    """Check that neither forward nor backward writes into its arguments.

    Returns:
        The findings, and every array that was passed ("given NAME") or returned ("returned NAME"), for
        `check_aliasing`.
    """
    arguments = {n: a.copy() for n, a in primals.items()}
    arguments |= {f"delta[{i}]": np.array(d) for i, d in enumerate(as_tuple(delta))}
    # Bytes show a change of sign of a zero or of a NaN's bits too, which values would hide.
    before = {n: a.tobytes() for n, a in arguments.items()}
    deltas = tuple(arguments[n] for n in arguments if n not in primals)
    returned = values_of(subject, {n: arguments[n] for n in primals}, deltas if isinstance(delta, tuple) else deltas[0])
    findings = [
        exact_finding(
            f"the primal {n}" if n in primals else n,
            a.tobytes() == before[n],
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
                name = label.split()[1]
                fix = f"return {'y' if name.startswith('output') else f'd{name}'}.copy()"
                shared = np.shares_memory(arrays[label], arrays[other])
                yield exact_finding(name, not shared, f"{label} shares memory with {other}", fix)


def check_repeatability(subject: Rule, primals: Primals, delta: Output, tolerance: Tolerance) -> list[Finding]:
    """Check that repeated, interleaved and otherwise called evaluations give the same results.

    NumPy must give the same bits. Other libraries and devices may differ by rounding.
    """

    def compare(name: str, actual: object, expected: object, reason: str) -> Finding:
        if not subject.is_bitwise_reproducible and np.asarray(actual).shape == np.asarray(expected).shape:
            return compare_values(name, actual, expected, tolerance, reason)
        return exact_finding(name, _same_bits(actual, expected), reason)

    other = _other_point(subject, primals, delta)
    y, pullback = subject(**primals)
    first = named_outputs(as_tuple(y), dict(pullback(delta)))
    # Copies: a later evaluation may write into arrays that were returned before.
    expected = {n: np.array(a) for n, a in first.items()}
    # This order matters: state that an evaluation leaves behind shows only if another one runs in between.
    _, other_pullback = subject(**other)
    again, between, interleaved = pullback(delta), other_pullback(delta), pullback(delta)
    fresh = subject(**other)[1](delta)
    findings = []
    for n in again:
        findings.append(compare(n, again[n], expected[n], "a second pullback differs, after another forward"))
        findings.append(compare(n, interleaved[n], expected[n], "a pullback interleaved with another differs"))
        findings.append(compare(n, between[n], fresh[n], "the other pullback differs from a fresh one"))
    second = values_of(subject, primals, delta)
    findings += [compare(n, second[n], expected[n], "a second evaluation differs") for n in expected]
    reason = "an array already returned was written into"
    findings += [exact_finding(n, _same_bits(first[n], expected[n]), reason) for n in expected]
    for pattern, evaluate in subject.call_patterns.items():
        findings += check_call_pattern(pattern, evaluate, primals, delta, expected, tolerance)
    return findings


def check_call_pattern(
    pattern: str, evaluate: Evaluate, primals: Primals, delta: Output, expected: Cotangents, tolerance: Tolerance
) -> list[Finding]:
    """Check that another way to call the subject gives the expected values, within rounding."""
    actual = attempt(lambda: values_of(evaluate, primals, delta))
    if isinstance(actual, Raised):
        return [exact_finding("cotangents", False, f"{pattern}: {type(actual.error).__name__}: {actual.error}")]
    return [
        compare_values(n, actual[n], expected[n], tolerance, f"{pattern} gives another answer")
        if n in actual
        else exact_finding(n, False, f"{pattern}: none")
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


def _other_point(subject: Rule, primals: Primals, delta: Output) -> Primals:
    """Return another point at which the subject can be evaluated, or the same one if it raises there."""
    other = move_point(primals)
    outside_domain = isinstance(attempt(lambda: values_of(subject.evaluate, other, delta)), Raised)
    return primals if outside_domain else other


def compare_values(name: str, actual: object, expected: object, tolerance: Tolerance, reason: str) -> Finding:
    """Compare two results of the subject; the tolerance is evaluated only if their values differ."""
    result, reference = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if result.shape != reference.shape:
        return exact_finding(name, False, f"{reason}: shape {result.shape} against {reference.shape}")
    # Equal infinities differ by NaN, so equality is asked first.
    error = np.where(result == reference, 0.0, np.abs(result - reference))
    if not np.any(error != 0):
        return Finding(name, "self-consistency", Verdict.AGREES)
    # Few samples explain most differences; many are drawn only before a refusal.
    for samples in (FIRST_SAMPLES, MORE_SAMPLES):
        bound = np.broadcast_to(tolerance(name, samples), error.shape)
        with np.errstate(all="ignore"):
            ratio = np.where(error == 0, 0.0, np.where(np.isnan(error), np.inf, error / bound))
        worst = float(np.max(ratio))
        if worst <= 1:
            return Finding(name, "self-consistency", Verdict.AGREES, ratio=worst)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    evidence = Evidence(
        index,
        float(result[index]),
        {"self-consistency": float(reference[index])},
        float(bound[index]),
        refused=(int(np.count_nonzero(ratio > 1)), ratio.size),
        reason=reason,
    )
    return Finding(name, "self-consistency", Verdict.WRONG, True, worst, evidence=evidence)


def exact_finding(name: str, holds: bool, reason: str, fix: str = "") -> Finding:
    """Return the finding of a property that either holds or does not, whatever the rounding."""
    if holds:
        return Finding(name, "self-consistency", Verdict.AGREES)
    return Finding(name, "self-consistency", Verdict.WRONG, True, np.inf, evidence=Evidence(reason=reason, fix=fix))


def _same_bits(actual: object, expected: object) -> bool:
    a, b = np.asarray(actual), np.asarray(expected)
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def _fix_of_mutation(name: str) -> str:
    variable = name.split("[")[0]
    return (
        f"{variable} = {variable}.copy()      # or out of place: {variable} = {variable} * mask, not {variable} *= mask"
    )

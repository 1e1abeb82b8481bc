"""How one array of the subject is accepted or refused: an ordered table of decisions.

`decide` applies `DECISIONS` one after another. Each is a function of a `Comparison`. It either ends the judgement with
findings, or returns the comparison for the next decision, with what it learned: more samples of rounding, certified
enclosures. The order matters: explanations without a defect come first, and WRONG comes last.

docs/how_it_works/verdicts.md has the same table in words. Errors of type, shape and dtype come before all of these, in
`oracles.decision.type_errors`: values can only be compared where there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np

from oracles.constants import (
    ARBITER_INPUTS,
    AS_MANY_DIGITS,
    ASKED_UNKNOWN,
    BEND_ENTRIES,
    BEYOND_SLOPES,
    CANCELLED_ROUNDINGS,
    FIRST_SAMPLES,
    LAST_SAMPLES,
    LEAST_LOSS,
    MORE_SAMPLES,
    MOST_DIFFERENCES,
    RESAMPLED_SHARE,
    SECOND_SAMPLES,
    UNBOUNDED_SHARE,
)
from oracles.decision.bends import has_kink, slopes_nearby
from oracles.decision.comparison import Comparison, certified_enclosures, half_of_the_digits, is_known, value_and_radius
from oracles.decision.declared_gradients import differs_grossly, finite_differences_agree, may_declare_gradient
from oracles.decision.iterations import Compared, declaration, in_words, stops_early
from oracles.decision.kinks import Candidate, are_subgradients_together, is_subgradient, stays_tied
from oracles.decision.neighbourhood import NoGradientNearby, of_array
from oracles.decision.precision import (
    computes_finer,
    formula_is_right,
    frameworks_lose,
    is_rounding,
    keeps_error_in,
    leaves_range,
    lost_digits,
    references_err_as_much,
    right_up_to,
)
from oracles.decision.reduced_point import count_inputs, with_samples_at_part
from oracles.decision.repetition import change_of_answer
from oracles.decision.single_terms import errs_without_sums
from oracles.finite_differences import DIFFERENCES
from oracles.numerics import Numerics, accumulator_of, is_coarser, precision_of, unit_roundoff
from oracles.options import HALF_NAMES
from oracles.rule import Array, Convention, Enclosure, Output, Primals, Rule, as_tuple, with_dtype
from oracles.time_budget import is_out_of_time
from oracles.tolerance import ToleranceEstimator, named_outputs, perturb_inputs, tolerance_at, values_of
from oracles.user_code import Raised, attempt
from oracles.verdict import EXACT, Finding, Verdict

Decision: TypeAlias = Callable[[Comparison], "list[Finding] | Comparison"]
NOT_TOGETHER = "a kink is near; this may be a subgradient, and is none together with the other cotangents"
OTHER_BRANCH = "no derivative here; the balls follow another branch"
UNDECLARED = "no derivative here; a subgradient, and none is declared"
CROSSED = "rounding crosses a kink here; a subgradient, and another one than the oracles'"
SUBGRADIENT = (OTHER_BRANCH, UNDECLARED, CROSSED)  # the reasons to accept another subgradient than the oracles'
EVERYWHERE = np.array(True)
NO_SUBGRADIENT = "a kink is near, and this is no subgradient"
BEYOND = "beyond all slopes of the primal nearby: no subgradient"
OUT_OF_RANGE = "an intermediate overflows or underflows in float16"


def decide(comparison: Comparison) -> list[Finding]:
    """Return one finding for every oracle: those of the first decision that is made."""
    with np.errstate(invalid="ignore"):  # where an oracle and the subject are infinite, their difference is NaN
        for decision in DECISIONS:
            outcome = decision(comparison)
            if isinstance(outcome, list):
                return outcome
            comparison = outcome
    raise AssertionError("the last decision always ends the judgement")


def within_tolerance(comparison: Comparison) -> list[Finding] | Comparison:
    """Accept an array if every entry is within its tolerance.

    Question: is it, under up to `MORE_SAMPLES` samples of rounding?
    Consequence: AGREES. For an oracle whose tolerance reaches every entry's own size, VACUOUS (KINK if a kink is the
    reason). For an oracle that certifies lost digits, UNSTABLE. Where an error of the entry's own size is within the
    tolerance only because rounding crosses a kink, KINK, or WRONG for what is no subgradient. A dtype coarser than the
    primals' is left to the next decision.
    """
    sharp = comparison.rounded_once
    if is_coarser(comparison.actual.dtype, precision_of(comparison.setting.primals)):
        return _with_enough_samples(comparison)
    if sharp is not None and not (sharp := _with_enough_samples(sharp)).refusing:
        return _accepted(sharp)
    comparison = _where_it_has_a_derivative(_with_enough_samples(comparison))
    if comparison.refusing:
        return comparison
    return (_cancels_what_is_stored(sharp) if sharp else []) or _accepted(comparison)


def _with_enough_samples(comparison: Comparison) -> Comparison:
    """Return the comparison under as many samples of rounding as accept it, up to `MORE_SAMPLES`."""
    for samples in (FIRST_SAMPLES, SECOND_SAMPLES, MORE_SAMPLES):
        comparison = comparison.with_samples(samples)
        if comparison.refusing and samples == FIRST_SAMPLES:
            comparison = with_samples_at_part(comparison, MORE_SAMPLES)
        if not comparison.refusing:
            break
    return comparison


def _accepted(comparison: Comparison) -> list[Finding]:
    """Return the findings on an array that is within its tolerance."""
    return (
        _across_a_kink(comparison)
        or _beyond_all_slopes(comparison)
        or [lost_digits(comparison, oracle) or comparison.agreement(oracle) for oracle in comparison.answers]
    )


def _cancels_what_is_stored(sharp: Comparison) -> list[Finding]:
    """Return UNSTABLE findings where an intermediate is rounded to the precision of a store and cancels; else none.

    The tolerance of stored intermediates allows an error as large as the entry where they cancel, as in p − 1 for a p
    near 1. Entries count that are off by half of themselves, and by `CANCELLED_ROUNDINGS` of the array's largest entry.
    The subject is refused if it computes in a finer precision than that of its inputs, or is off as much when it is fed
    with a finer one: it then casts to the store's precision inside. Code that computes in the dtype of its inputs
    stores every intermediate.

    Args:
        sharp: the comparison where each result is rounded once; it refuses entries.
    """
    expected, name = sharp.expected, sharp.setting.precision
    with np.errstate(invalid="ignore"):
        largest = np.max(np.abs(expected), initial=0.0, where=np.isfinite(expected))
        error = np.abs(sharp.value - expected)
        # A factor is no cancellation.
        lost = sharp.refused & (error > np.abs(expected) / 2)
        lost &= error > CANCELLED_ROUNDINGS * unit_roundoff(name) * largest
    if not np.any(lost):
        return []
    only_lost = replace(sharp, tolerance=np.where(lost, sharp.tolerance, np.inf))
    if not (computes_finer(sharp.setting) or keeps_error_in(only_lost, accumulator_of(name))):
        return []
    if leaves_range(only_lost):
        findings = only_lost.findings(Verdict.UNSTABLE, reason=OUT_OF_RANGE)
        return _with_fix(findings, "compute it in float32", OUT_OF_RANGE)
    defect = f"an intermediate is rounded to {name} before it cancels"
    reason = f"{defect}: the error is {CANCELLED_ROUNDINGS:g} roundings of the largest entry, or more"
    fix = f"keep it in {accumulator_of(name)}, or declare numerics=oracles.{Numerics.eager(name)!r}"
    return _with_fix(only_lost.findings(Verdict.UNSTABLE, reason=reason), fix, defect)


def _with_fix(findings: list[Finding], fix: str, diagnosis: str = "") -> list[Finding]:
    """Return findings of which those that refuse say what repairs it, and which defect the decision has confirmed."""
    return [
        replace(f, evidence=replace(f.evidence, fix=fix, diagnosis=diagnosis)) if f.refuses else f for f in findings
    ]


def coarser_dtype(comparison: Comparison) -> list[Finding] | Comparison:
    """Refuse an array of a coarser dtype than the primals, unless that precision is declared.

    Question: is the dtype coarser?
    Consequence: UNSTABLE if the array is right up to that dtype, else WRONG. In the declared precision, AGREES if no
    oracle refuses it.
    """
    primals_dtype, returned = precision_of(comparison.setting.primals), comparison.actual.dtype
    estimator = comparison.estimator
    if not is_coarser(returned, primals_dtype):
        return comparison
    if returned.name == estimator.precision:
        return comparison if comparison.refusing else comparison.findings(Verdict.AGREES, refuses=False)
    coarse = _tolerance_in(comparison, returned.name)
    reason = f"dtype {returned}, expected {primals_dtype}"
    if coarse.refusing:
        return coarse.findings(Verdict.WRONG, reason=reason, by_all=True)
    reason += f"; right up to {returned}: declare precision={returned.name!r}, or compute in {primals_dtype}"
    return coarse.findings(Verdict.UNSTABLE, reason=reason, by_all=True)


def within_rounding_of_reference(comparison: Comparison) -> list[Finding] | Comparison:
    """Refuse nothing for a reference's own rounding, where another reference accepts every entry.

    Question: does the array agree with one reference, and differ from the others by no more than their own rounding in
    float64? The tolerance is that of one reference, and another one may compute in steps that round more: a variance
    in one pass, say. Where no reference could be perturbed (JAX through XLA), none need agree.
    Consequence: AGREES.
    """
    references, point = {o.name: o for o in comparison.references}, comparison.estimator
    is_seen = point.sources[0].name in references
    if not ((references.keys() - comparison.refusing or not is_seen) and references.keys() >= set(comparison.refusing)):
        return comparison
    answers = dict(comparison.answers)
    for oracle in comparison.refusing:
        wide = Numerics.of("float64")
        sources = [references[oracle]] if references[oracle].evaluate_perturbed else []
        sources = [*sources, perturb_inputs(references[oracle])]
        own = ToleranceEstimator(sources, point.primals, point.delta, wide, point.known)
        radius = attempt(partial(own.estimate, MORE_SAMPLES))
        if not isinstance(radius, Raised):
            answers[oracle] = Enclosure(value_and_radius(answers[oracle])[0], radius[comparison.name])
    explained = replace(comparison, answers=answers)
    return comparison if explained.refusing else explained.findings(Verdict.AGREES, refuses=False)


def references_lose_as_much(comparison: Comparison) -> list[Finding] | Comparison:
    """Refuse nothing that the references do no better in the subject's own dtype.

    Question: is that a coarser dtype than float64, and does every reference, evaluated in it, err by as much in every
    refused entry? Where a square overflows float16, or underflows, it does so for everybody.
    Consequence: UNSTABLE, without a refusal.
    """
    # At a kink balls follow another branch than everybody: nothing is lost.
    if precision_of(comparison.setting.primals) == "float64" or _is_subgradient(comparison):
        return comparison
    names = references_err_as_much(comparison)
    if not names:
        return comparison
    reason = f"off by more than rounding, and in this dtype {names} too: it overflows, underflows or cancels here"
    return comparison.findings(Verdict.UNSTABLE, refuses=False, reason=reason)


def not_finite(comparison: Comparison) -> list[Finding] | Comparison:
    """Refuse NaN and ±Inf where an oracle has a finite number.

    Question: is there such an entry? (An overflow of the subject's dtype is none: no oracle refuses it.)
    Consequence: WRONG.
    """
    actual = comparison.value
    values = {o: value_and_radius(answer) for o, answer in comparison.answers.items()}
    finite = np.any([is_known(e, r) & np.isfinite(e) for e, r in values.values()], axis=0)
    # The derivative itself may be infinite, where the balls follow the branch that one point takes.
    is_limit = np.any([e == actual for e, _ in values.values()], axis=0)
    at = comparison.refused & finite & ~np.isfinite(actual) & ~is_limit
    if not np.any(at):
        return comparison
    number = float(actual[tuple(np.argwhere(at)[0])])
    findings = comparison.findings(Verdict.WRONG, reason=f"{number:g} where the gradient is finite")
    out_of_range = leaves_range(replace(comparison, tolerance=np.where(at, comparison.tolerance, np.inf)))
    return _with_fix(findings, "compute it in float32", OUT_OF_RANGE) if out_of_range else findings


def zero_where_infinite(comparison: Comparison) -> list[Finding] | Comparison:
    """Accept the gradient 0 where the derivative is infinite, as at √0, unless the oracles' choice is declared.

    Question: is every refused entry exactly 0, and every reference there ±∞?
    Consequence: KINK.
    """
    if not comparison.is_cotangent or not comparison.references:
        return comparison
    expected = [value_and_radius(comparison.answers[o.name])[0] for o in comparison.references]
    infinite = np.all([~np.isfinite(e) for e in expected], axis=0) & np.any([np.isinf(e) for e in expected], axis=0)
    if not np.all((infinite & (comparison.value == 0))[comparison.refused]):
        return comparison
    reason = "the derivative is infinite here, and the subject returns 0"
    return comparison.findings(Verdict.KINK, refuses=comparison.declared_kinks, reason=reason)


def within_more_samples(comparison: Comparison) -> list[Finding] | Comparison:
    """Draw more samples where rounding can move a refused entry by about its own size.

    Question: do `LAST_SAMPLES` samples explain the difference? Such a deviation varies much from sample to sample, so a
    few bound it badly. Where they reach `UNBOUNDED_SHARE` of the entry, its derivative may saturate for one rounding
    and not for the next, so an error of its own size is allowed.
    Consequence: AGREES, with the exceptions of `within_tolerance` across a kink. If not, the decisions below use the
    tolerance of all these samples.
    """
    expected, refused, tolerance = comparison.expected, comparison.refused, comparison.tolerance
    if not np.any((tolerance >= np.abs(expected) * RESAMPLED_SHARE)[refused] & (tolerance > 0)[refused]):
        return comparison
    comparison = comparison.with_samples(LAST_SAMPLES)
    # Up to the entry's own size, which is the gradient 0; a slope beyond the two sides of a kink is larger.
    saturated = comparison.tolerance >= np.abs(expected) * UNBOUNDED_SHARE
    own_size = np.maximum(comparison.tolerance, np.abs(expected))
    comparison = replace(comparison, tolerance=np.where(saturated, own_size, comparison.tolerance))
    if comparison.refusing:
        return comparison
    return (
        _across_a_kink(comparison)
        or _beyond_all_slopes(comparison)
        or comparison.findings(Verdict.AGREES, refuses=False)
    )


def another_answer(comparison: Comparison) -> list[Finding] | Comparison:
    """Refuse an answer that changes from call to call, or with the layout of the arguments in memory.

    Question: does the subject give another answer for the same arrays, or for contiguous copies of them?
    Consequence: WRONG. The decisions below evaluate the subject again, and would acquit it by another answer.
    """
    reason, fix = change_of_answer(comparison)
    if reason:
        # Sums in low precision differ by its rounding where another layout changes their order: no defect of layout.
        reason, fix = change_of_answer(replace(comparison, tolerance=_coarsest_tolerance(comparison)))
    if not reason:
        return comparison
    return _with_fix(comparison.findings(Verdict.WRONG, reason=reason), fix)


def kink(comparison: Comparison) -> list[Finding] | Comparison:
    """Accept a subgradient at a point without a derivative, unless another one is declared.

    Question: do the gradients nearby jump at every refused entry, and is the cotangent in their convex hull? Where
    finite differences refuse an entry, its primal must have a kink too: without a reference the gradients nearby are
    the subject's own.
    Consequence: AGREES if no reference refuses it, since ball arithmetic then followed another branch. Else KINK, which
    refuses only where the oracles' choice is declared (and AGREES even there if `LAST_SAMPLES` samples explain the
    difference).
    """
    if _differs_where_smooth(comparison):
        return comparison
    subgradient = _is_subgradient(comparison)
    if subgradient is False:
        limited = comparison.on_one_side(EVERYWHERE) if _finds_every_subgradient(comparison) else comparison
        return replace(limited, kink_nearby=True)
    if not subgradient:
        return comparison
    if not set(comparison.refusing) & {o.name for o in comparison.references}:
        return comparison.findings(Verdict.AGREES, refuses=False, reason=OTHER_BRANCH)
    if comparison.declared_kinks:
        reason = "no derivative here; another subgradient than the declared one"
        return _unless_rounding(comparison, Verdict.KINK, reason)
    return comparison.findings(Verdict.KINK, refuses=False, reason=UNDECLARED)


def certified_by_ball_arithmetic(comparison: Comparison) -> list[Finding] | Comparison:
    """Accept a cotangent that ball arithmetic certifies, or the references alone.

    Question: is every entry within its tolerance of the certified enclosure? The balls enclose the derivative of the
    subject's own primal. So they count only where that primal has a reference's value, never for the output itself,
    and never where a reference differs grossly from them: it defines another gradient (a detached term, a straight-
    through estimator).
    Consequence: AGREES, and the reason names the oracles that are off. If not, the enclosure is the expected value of
    the decisions below.
    """
    certified = _certified(comparison)
    answers = dict(comparison.answers)
    own = answers.pop(EXACT, None)
    enclosure = None if comparison.references else own
    if comparison.is_cotangent and _same_function(comparison, certified):
        enclosure = certified.get(comparison.name)
    is_gross = isinstance(enclosure, Enclosure) and differs_grossly(comparison, enclosure)
    if enclosure is not None and not is_gross:
        answers[EXACT] = enclosure
    comparison = replace(comparison, answers=answers, certified=certified)
    if is_gross:
        reason = "the references define another gradient than the derivative of the forward's value"
        accepted = not comparison.refusing
        return comparison.findings(Verdict.AGREES, refuses=False, reason=reason) if accepted else comparison
    is_certain = enclosure is not None and np.all(is_known(*value_and_radius(enclosure))[comparison.refused])
    if not is_certain or EXACT in comparison.refusing:
        return comparison
    reason = f"ball arithmetic proves the subject right, and {', '.join(comparison.refusing)} off"
    findings = comparison.findings(Verdict.AGREES, refuses=False, reason=reason)
    # The subject's error is its distance from the truth; the rest of the difference is the oracle's.
    own_ratio = float(np.max(comparison.ratios[EXACT], initial=0.0))
    return [replace(f, ratio=own_ratio) if f.ratio > 1 else f for f in findings]


def oracles_contradict(comparison: Comparison) -> list[Finding] | Comparison:
    """Blame the oracles if they contradict one another, and no certified enclosure arbitrates.

    Question: do two oracles differ by more than rounding in float64 explains?
    Consequence: ORACLES_CONFLICT.
    """
    if EXACT in comparison.answers:
        return comparison
    # All oracles are evaluated in float64, whatever the subject computes in.
    parts = [value_and_radius(answer) for answer in comparison.answers.values()]
    pairs = [(one, other) for i, one in enumerate(parts) for other in parts[:i]]
    # Most agree within the first samples.
    for samples in (FIRST_SAMPLES, MORE_SAMPLES):
        tolerance = _tolerance_in(comparison, "float64", samples).tolerance
        if not any(np.any(np.abs(a - b) > tolerance + r + s) for (a, r), (b, s) in pairs):
            return comparison
    return comparison.findings(Verdict.ORACLES_CONFLICT, reason="the oracles contradict one another here")


def primals_differ_slightly(comparison: Comparison) -> list[Finding] | Comparison:
    """Blame neither side if the subject and the reference compute slightly different functions.

    Question: is the subject certified for its own primal, and does the certified value agree with the reference in more
    than half of its digits?
    Consequence: ORACLES_CONFLICT. torch's softplus is the identity from 20 on, which is off by 1e-13, and neither side
    has a bug.
    """
    enclosure = comparison.certified.get(comparison.name)
    if enclosure is None or not comparison.references:
        return comparison
    expected, _ = value_and_radius(comparison.answers[comparison.references[0].name])
    known = is_known(*value_and_radius(enclosure)) & np.isfinite(expected)
    consistent = known & (np.abs(comparison.value - enclosure.mid) <= comparison.tolerance + enclosure.radius)
    close = np.abs(enclosure.mid - expected) <= half_of_the_digits("float64") * np.abs(expected)
    if not np.all((consistent & close)[comparison.refused]):
        return comparison
    reason = (
        "the subject is right for its own primal, by ball arithmetic, and that differs from the reference in its "
        "last digits: one of the two approximates"
    )
    return comparison.findings(Verdict.ORACLES_CONFLICT, reason=reason)


def reference_contradicts_itself(comparison: Comparison) -> list[Finding] | Comparison:
    """Blame neither side if finite differences contradict the one reference that refuses.

    Question: do finite differences of the subject's primal, and those of the reference's, agree with the subject and
    not with the reference's own backward? A reference that may declare its gradient (it detaches a term) defines it,
    if the difference is gross. Two references that agree are not questioned.
    Consequence: ORACLES_CONFLICT, and the reason says who agrees with whom.
    """
    if not comparison.is_cotangent or len(comparison.references) != 1:
        return comparison
    reference = comparison.references[0]
    if reference.name not in comparison.refusing:
        return comparison
    reason = finite_differences_agree(comparison, reference)
    if not reason or (differs_grossly(comparison) and may_declare_gradient(reference, comparison.estimator.primals)):
        return comparison
    return comparison.findings(Verdict.ORACLES_CONFLICT, reason=reason)


def coarser_numerics(comparison: Comparison) -> list[Finding] | Comparison:
    """Name what is kept in low precision that is declared, or expected, to be finer.

    Question: are all errors within the tolerance of a subject that stores every intermediate, or that accumulates in
    the precision of its stores, and are they drawn anew nearby as rounding errors are?
    Consequence: UNSTABLE. The subject should keep it in a finer precision, or declare its numerics.
    """
    numerics, error = comparison.estimator.numerics, np.abs(comparison.value - comparison.expected)
    if numerics.store not in HALF_NAMES:
        return comparison
    # At a kink every rounding error draws a new error of the gradient's own size.
    subgradient = _is_subgradient(comparison)
    if subgradient:
        return comparison
    # A long sum in low precision no longer grows from some term on, and loses up to its own size.
    terms = max(map(np.size, (*comparison.estimator.primals.values(), *as_tuple(comparison.estimator.delta))))
    own_size = np.abs(comparison.expected) if terms * unit_roundoff(numerics.store) >= 1 else 0.0
    sufficient = []
    for coarser, defect, finer in _coarser_numerics(numerics):
        under = replace(comparison, estimator=comparison.estimator.under(coarser))
        coarse = attempt(partial(under.with_samples, MORE_SAMPLES))
        if isinstance(coarse, Raised):
            continue
        # A kink excuses what is a subgradient, and nothing else.
        coarse = coarse.on_one_side(EVERYWHERE) if subgradient is False else coarse
        if np.any(error > np.maximum(coarse.tolerance, own_size)):
            continue
        sufficient.append((coarser, defect, f"{finer}, or declare numerics=oracles.{coarser!r}"))
    if not sufficient or not is_rounding(comparison, numerics.store):
        return comparison
    # Both may suffice: sums of one term are exact in any accumulator, so what errs in them is stored.
    stored = len(sufficient) < 2 or errs_without_sums(comparison) is not False
    coarser, defect, fix = sufficient[0 if stored else -1]
    return _with_fix(_unstable(comparison, f"{defect}: right with that, and not as {numerics}"), fix, defect)


def _coarsest_tolerance(comparison: Comparison) -> Array:
    """Return the tolerance under whatever numerics `coarser_numerics` knows."""
    estimator, tolerance = comparison.estimator, comparison.tolerance
    if estimator.numerics.store not in HALF_NAMES:
        return tolerance
    for coarser, *_ in _coarser_numerics(estimator.numerics):
        wider = attempt(partial(estimator.under(coarser).estimate, MORE_SAMPLES))
        if not isinstance(wider, Raised):
            tolerance = np.maximum(tolerance, wider[comparison.name])
    return tolerance


def _coarser_numerics(numerics: Numerics) -> list[tuple[Numerics, str, str]]:
    """Return numerics that round more, with the defect in words, and what a subject of those should do."""
    store, coarser = numerics.store, []
    if numerics.round == "once":
        every = replace(numerics, round="each", multiply="")
        coarser.append((every, f"stores intermediates in {store}", f"keep them in {numerics.inner}"))
    if numerics.accumulate != store:
        own = replace(numerics, accumulate=store)
        coarser.append((own, f"accumulates in {store}", f"accumulate in {numerics.accumulate}"))
    return coarser


def not_converged(comparison: Comparison) -> list[Finding] | Comparison:
    """Tell a solver that stops early from a wrong formula.

    Question: is the error small and smooth nearby, does it stay if the subject is fed with a finer precision, and does
    it jump by about its size where the reference does not: where the number of steps of an iteration changes?
    Consequence: UNSTABLE. The subject should solve further, or declare ``solved_to``.
    """
    reference = next(iter(comparison.references), None)
    # In 16 bits a small step changes no primal: every error is smooth there.
    if comparison.estimator.precision in HALF_NAMES:
        return comparison
    # What is right in a coarser precision has the rounding of that, which may jump, too.
    if reference is None or _in_coarser_precision(comparison, confirmed=True) or _shrinks(comparison, reference):
        return comparison
    primals, delta = comparison.estimator.primals, comparison.estimator.delta

    def compare_at(primals: Primals, delta: Output) -> Compared | None:
        compared = attempt(partial(_compared, comparison, reference, primals, delta))
        return None if isinstance(compared, Raised) or not np.all(np.isfinite(compared.error)) else compared

    name = stops_early(primals, delta, compare_at)
    if not name:
        return comparison
    with np.errstate(invalid="ignore"):
        error = np.where(comparison.refused, comparison.value - comparison.expected, 0.0)
    share = Compared(error, comparison.expected).share
    reason = "not converged: the error is that of an iteration that stops early"
    findings = comparison.findings(Verdict.UNSTABLE, reason=reason)
    return _with_fix(findings, f"solve further, or declare {declaration(share)}", in_words(name, share))


def _compared(
    comparison: Comparison, reference: Rule, primals: Primals, delta: Output, precision: str = ""
) -> Compared:
    """Return error and expected value at another point, the subject in its own precision or another one."""
    name, setting = comparison.name, comparison.setting
    own, own_delta = (with_dtype(tree, precision or setting.precision) for tree in (dict(primals), delta))
    expected = np.asarray(values_of(reference, primals, delta)[name], np.float64)
    return Compared(np.asarray(values_of(setting.subject, own, own_delta)[name], np.float64) - expected, expected)


def _shrinks(comparison: Comparison, reference: Rule) -> bool:
    """Return whether the error shrinks in a finer precision: that of an iteration stays, that of rounding does not."""
    point, refused = comparison.estimator, comparison.refused
    finer = "longdouble" if point.precision == "float64" else "float64"
    compared = attempt(partial(_compared, comparison, reference, point.primals, point.delta, finer))
    if isinstance(compared, Raised) or compared.error.shape != refused.shape:
        return False
    own = np.linalg.norm((comparison.value - comparison.expected)[refused])
    return bool(np.linalg.norm(compared.error[refused]) < AS_MANY_DIGITS * own)


def wrong_formula(comparison: Comparison) -> list[Finding] | Comparison:
    """Refuse a formula whose error no precision reduces.

    Question: does the error stay when the subject's own code runs in exact arithmetic, or in a finer precision? Code
    that holds a coarser precision inside keeps its error too: there the error must not be the rounding of it.
    Consequence: WRONG.
    """
    right = formula_is_right(comparison)
    if right is False and not _in_coarser_precision(comparison, confirmed=True):
        return wrong(replace(comparison, right_formula=False))
    return replace(comparison, right_formula=right)


def right_in_coarser_precision(comparison: Comparison) -> list[Finding] | Comparison:
    """Name the coarser precision in which something is computed.

    Question: is the whole array right up to that precision, with errors that look like its rounding?
    Consequence: UNSTABLE. The subject should compute finer, or declare that precision.
    """
    coarse = _in_coarser_precision(comparison)
    if not coarse:
        return comparison
    words = f"it is computed in {coarse} somewhere"
    if not _is_the_subjects(comparison, coarse):
        words = f"it, or the reference, is computed in {coarse} somewhere or approximates"
    return _unstable(comparison, f"right up to {coarse}: {words}; declare precision={coarse!r}")


def _is_the_subjects(comparison: Comparison, coarse: str) -> bool:
    """Return whether an error is known to be the subject's: by ball arithmetic, two references, or its own cast."""
    with np.errstate(over="ignore"):
        is_cast = np.array_equal(comparison.value, comparison.value.astype(coarse).astype(np.float64))
    return is_cast or EXACT in comparison.refusing or len(comparison.refusing) > 1


def _in_coarser_precision(comparison: Comparison, *, confirmed: bool = False) -> str:
    """Return the precision in which an array is right, ``confirmed`` by errors that are drawn anew nearby; else ""."""
    coarse = right_up_to(comparison.value, comparison.expected, comparison.tolerance, comparison.estimator.precision)
    # A tolerance that is large for another reason than rounding is no larger in a coarser precision.
    if coarse and _all_in(comparison, coarse).refusing:
        return ""
    return coarse if coarse and (not confirmed or is_rounding(comparison, coarse)) else ""


def loses_digits(comparison: Comparison) -> list[Finding] | Comparison:
    """Tell a right formula that loses digits from a wrong one.

    Question: does the error of the subject's own code shrink with the precision?
    Consequence: UNSTABLE; AGREES if it loses less than one binary digit more than the reference's steps.
    """
    if not comparison.right_formula:
        return comparison
    if leaves_range(comparison):
        return _with_fix(_unstable(comparison, OUT_OF_RANGE), "compute it in float32", OUT_OF_RANGE)
    return _unstable(comparison, "the error shrinks with the precision: the formula is right and loses digits")


def wrong(comparison: Comparison) -> list[Finding]:
    """Refuse what nothing above explains.

    Question: is the error larger than what other steps, that are as good as the reference's, may round by? It is only
    asked where nobody knows whether the formula is right: the code runs in no finer precision, and no kink is near.
    There the tolerance is the size of a jump, which is no rounding.
    Consequence: WRONG.
    """
    reason = NO_SUBGRADIENT if comparison.kink_nearby else ""
    is_small = all(np.all(ratio <= LEAST_LOSS) for ratio in comparison.ratios.values())
    if comparison.right_formula is None and is_small and not reason:
        return _unless_rounding(comparison, Verdict.WRONG, reason, within=LEAST_LOSS)
    return comparison.findings(Verdict.WRONG, reason=reason)


DECISIONS: tuple[Decision, ...] = (
    # Most arrays end here.
    within_tolerance,
    # In its own dtype the array may be right, and then no other decision is needed.
    coarser_dtype,
    # Before all that blame anybody: one reference accepts the array.
    within_rounding_of_reference,
    # Before the samples: no number of them explains an infinite difference.
    zero_where_infinite,
    # The tolerance itself is the first suspect: it comes from samples.
    within_more_samples,
    # Before all that evaluate the subject again: they would judge another answer.
    another_answer,
    # Before the references are asked in the subject's dtype: on a CPU some sum in low precision too.
    coarser_numerics,
    # Before NaN and ±Inf are refused: a reference in the same dtype may have them too.
    references_lose_as_much,
    # Before all that compute with the subject's numbers.
    not_finite,
    # Before kinks are looked for: an iteration jumps nearby, and no precision makes it go on.
    not_converged,
    # Before ball arithmetic, which follows one branch of a kink and certifies that one alone.
    kink,
    # Before the oracles are compared: a certified value shows which of them is off.
    certified_by_ball_arithmetic,
    oracles_contradict,
    # Before the formulas are tested: here both are right.
    primals_differ_slightly,
    # The same question to finite differences, where the code does not run on balls.
    reference_contradicts_itself,
    # Before the precisions: a small error of a formula may look like float32's rounding.
    wrong_formula,
    # Before `loses_digits`, since it says which precision to declare.
    right_in_coarser_precision,
    loses_digits,
    wrong,
)


def _tolerance_in(comparison: Comparison, precision: str, samples: int = MORE_SAMPLES) -> Comparison:
    """Return the comparison under the tolerance of another precision."""
    estimator = comparison.estimator.in_precision(precision)
    return replace(comparison, tolerance=estimator.estimate(samples)[comparison.name])


def _all_in(comparison: Comparison, precision: str) -> Comparison:
    """Return the comparison under the tolerance of code that stores and sums everything in a precision."""
    estimator = comparison.estimator.in_precision(comparison.estimator.precision)
    every = Numerics(precision, accumulate=precision, round="each" if precision in HALF_NAMES else "once")
    return replace(comparison, tolerance=estimator.under(every).estimate(MORE_SAMPLES)[comparison.name])


def _unless_rounding(
    comparison: Comparison, verdict: Verdict, reason: str, *, refuses: bool = True, within: float = 1.0
) -> list[Finding]:
    """Return findings with the verdict, or AGREES if ``within`` times the tolerance of `LAST_SAMPLES` explains them.

    A few samples may cross no kink that is nearby, where more do.
    """
    resampled = comparison.with_samples(LAST_SAMPLES)
    resampled = replace(resampled, tolerance=within * resampled.tolerance)
    if not resampled.refusing:
        return resampled.findings(Verdict.AGREES, refuses=False)
    return comparison.findings(verdict, refuses=refuses, reason=reason)


def _unstable(comparison: Comparison, reason: str) -> list[Finding]:
    """Return UNSTABLE findings, with what the frameworks' own backwards lose.

    Where no framework can be asked whether it loses as many digits, the finding refuses the subject only if an entry
    loses more than half of the largest entry's digits: what cancels in a small entry, cancels in every evaluation.
    """
    expected = comparison.expected
    error = np.abs(comparison.value - expected)
    reason += frameworks_lose(comparison.name, error, expected, comparison.references, comparison.setting)[0]
    grave = error > half_of_the_digits(comparison.estimator.precision) * np.max(np.abs(expected), initial=0.0)
    refuses = bool(comparison.references) or bool(np.any(grave & comparison.refused))
    return _unless_rounding(comparison, Verdict.UNSTABLE, reason, refuses=refuses, within=LEAST_LOSS)


def _across_a_kink(comparison: Comparison) -> list[Finding]:
    """Return the findings on errors of an entry's own size that are within the tolerance across a kink; else none."""
    judge = comparison.references[0].name if comparison.references else EXACT
    if not comparison.is_cotangent or judge not in comparison.answers:
        return []
    entries = _jumps_of_own_size(comparison, judge)
    if not np.any(entries):
        return []
    beyond = comparison.on_one_side(EVERYWHERE)
    subgradient = _is_subgradient(beyond) if beyond.refusing else None
    if subgradient is False and _finds_every_subgradient(comparison):
        return beyond.findings(Verdict.WRONG, reason=NO_SUBGRADIENT)
    if not subgradient or not comparison.references:
        return []
    point, reference = comparison.estimator, comparison.references[0]
    tied = partial(stays_tied, comparison.name, entries, reference, point.primals, point.delta, beyond.tolerance)
    refuses = comparison.declared_kinks and attempt(tied) is True
    return beyond.findings(Verdict.KINK, refuses=refuses, reason=CROSSED)


def _where_it_has_a_derivative(comparison: Comparison) -> Comparison:
    """Return the comparison without jumps in its tolerance where finite differences know of no kink.

    Without a reference the tolerance is how far rounding moves the subject's own pullback, which may jump there alone.
    """
    measured = [o for o in comparison.answers if o != EXACT]
    if comparison.references or not comparison.is_cotangent or not measured:
        return comparison
    entries = _jumps_of_own_size(comparison, measured[0])
    return comparison.on_one_side(entries) if np.any(entries) else comparison


def _jumps_of_own_size(comparison: Comparison, oracle: str) -> Array:
    """Return the entries whose error by an oracle has their own size, and at which rounding jumps, as booleans."""
    expected, radius = value_and_radius(comparison.answers[oracle])
    with np.errstate(invalid="ignore"):
        size, error = np.abs(expected), np.abs(comparison.value - expected)
        least = half_of_the_digits(comparison.estimator.precision) * np.max(size, initial=0.0, where=np.isfinite(size))
        large = (error > size / 2) & (error > least + radius) & np.isfinite(comparison.tolerance)
    return np.asarray(large & comparison.estimator.jumping(comparison.name) if np.any(large) else large)


def _is_subgradient(comparison: Comparison) -> bool | None:
    """Return whether a cotangent is a subgradient; ``None`` if no kink is near."""
    if not comparison.is_cotangent or not np.all(np.isfinite(comparison.value)):
        return None
    expected, _ = value_and_radius(comparison.answers[comparison.refusing[0]])
    try:
        return is_subgradient(_candidate(comparison, expected))
    except NoGradientNearby:
        return None


def _differs_where_smooth(comparison: Comparison) -> bool:
    """Return whether finite differences refuse an entry at which their primal has a derivative."""
    if DIFFERENCES not in comparison.refusing:
        return False
    primal, point = _measured_primal(comparison), comparison.estimator
    ratio = comparison.ratios[DIFFERENCES].ravel()
    worst = [int(k) for k in np.argsort(-ratio, kind="stable")[:BEND_ENTRIES] if ratio[k] > 1]
    return not all(has_kink(primal, point.primals, point.delta, comparison.name, k) for k in worst)


def _measured_primal(comparison: Comparison) -> Rule:
    """Return the rule whose primal finite differences measure."""
    measured = next((o.implementation for o in comparison.setting.oracles if o.name == DIFFERENCES), None)
    return measured if isinstance(measured, Rule) else comparison.setting.subject


def _beyond_all_slopes(comparison: Comparison) -> list[Finding]:
    """Return WRONG findings on entries far beyond all slopes of the primal nearby that no oracle judges; else none.

    No subgradient is. Asked are entries that no oracle knows, and those whose tolerance exceeds them and their error,
    which has their own size, where rounding in the subject's own code is smaller.
    """
    asked = _not_judged(comparison)
    if not np.any(asked):
        return []
    primal, point, value = _measured_primal(comparison), comparison.estimator, comparison.value
    middle, radius = np.zeros(value.shape), np.full(value.shape, np.inf)
    tolerance = np.array(comparison.tolerance)
    # Of more inputs fewer entries, so that it costs no more than at a small point.
    most = max(1, ASKED_UNKNOWN * MOST_DIFFERENCES // max(MOST_DIFFERENCES, count_inputs(point.primals)))
    for k in np.flatnonzero(asked)[:most].tolist():
        if is_out_of_time():
            break
        slopes = slopes_nearby(primal, point.primals, point.delta, comparison.name, k)
        if slopes is None:
            continue
        claim, half = float(value.flat[k]), (slopes[1] - slopes[0]) / 2
        centre = slopes[0] + half
        # Half of the difference between the two sides: the sharpest slopes nearby may not be among them.
        margin = max(half, abs(claim) * BEYOND_SLOPES) if np.isfinite(claim) else half
        if not abs(claim - centre) <= half + margin:
            middle.flat[k], radius.flat[k], tolerance.flat[k] = centre, half, margin
    if np.all(np.isinf(radius)):
        return []
    answers = {**comparison.answers, DIFFERENCES: Enclosure(middle, radius)}
    return replace(comparison, answers=answers, tolerance=tolerance).findings(Verdict.WRONG, reason=BEYOND)


def _not_judged(comparison: Comparison) -> Array:
    """Return the entries of a cotangent that slopes of its primal may refuse, and that nothing judges, as booleans."""
    setting, value, nothing = comparison.setting, comparison.value, np.zeros(comparison.value.shape, bool)
    # A convention says that a cotangent is another one than that of the primal.
    if not comparison.is_cotangent or type(setting.subject.convention) is not Convention:
        return nothing
    # Rounding in a coarser precision moves a right gradient beyond the slopes in float64: where it saturates, to 0.
    if comparison.estimator.precision in HALF_NAMES:
        return nothing
    unknown = comparison.unknown & np.isfinite(np.asarray(setting.primals[comparison.name], np.float64))
    if not comparison.references:
        # Of many inputs few entries are measured, and directions judge the others.
        return unknown if count_inputs(setting.primals) <= MOST_DIFFERENCES else nothing
    unknown &= np.isfinite(value)  # as the reference, which has no number there
    expected, _ = value_and_radius(comparison.answers[comparison.references[0].name])
    with np.errstate(invalid="ignore"):
        size, error = np.abs(expected), np.abs(value - expected)
        least = half_of_the_digits(comparison.estimator.precision) * np.max(size, initial=0.0, where=np.isfinite(size))
        large = (error > size / 2) & (error > least) & (comparison.tolerance >= size) & np.isfinite(error)
        large &= np.isfinite(comparison.tolerance) & (comparison.estimator.precision == "float64")
    point = comparison.estimator
    # Where rounding jumps: what is ill conditioned is right within its tolerance.
    if np.any(large) and np.any(large := large & point.jumping(comparison.name)):
        own = tolerance_at((), point.primals, point.delta, point.numerics, fallback=setting.subject)
        large &= error > own.estimate(MORE_SAMPLES)[comparison.name]
    asked = unknown | large
    if np.any(asked) and any(may_declare_gradient(o, point.primals) for o in comparison.references):
        return nothing
    return np.asarray(asked)


def _finds_every_subgradient(comparison: Comparison) -> bool:
    """Return whether steps are long enough for every subgradient: in float32 rounding crosses kinks farther away."""
    return comparison.estimator.precision == "float64"


def _candidate(comparison: Comparison, expected: Array) -> Candidate:
    setting, name, tolerance = comparison.setting, comparison.name, comparison.off_ties().tolerance

    def cotangent_for(delta: Output) -> Array:
        cotangents = attempt(lambda: values_of(setting.subject, setting.primals, with_dtype(delta, setting.precision)))
        if isinstance(cotangents, Raised):
            raise NoGradientNearby(name) from cotangents.error
        return np.asarray(of_array(cotangents, name), np.float64)

    return Candidate(name, comparison.value, expected, tolerance, comparison.neighbourhood, cotangent_for)


def with_kinks_together(
    comparisons: Sequence[Comparison], findings: Mapping[str, list[Finding]]
) -> Mapping[str, list[Finding]]:
    """Return the findings on all arrays, where subgradients of several primals that are none of all of them are WRONG.

    Each of max(a, b) at a tie may be 0 or 1, and both may not be 1.
    """
    kinked = [n for n, own in findings.items() if any(f.evidence.reason in SUBGRADIENT for f in own)]
    given = [c for c in comparisons if c.is_cotangent and _finds_every_subgradient(c)]
    if not kinked or len(given) < 2 or any(f.verdict is Verdict.WRONG for own in findings.values() for f in own):
        return findings
    try:
        expected = given[0].neighbourhood.gradients({})
        candidates = [_candidate(c, expected[c.name].reshape(c.value.shape)) for c in given if c.name in expected]
        fit = len(candidates) < 2 or are_subgradients_together(candidates)
    except NoGradientNearby:
        return findings
    if fit:
        return findings
    wrong = [c.on_one_side(EVERYWHERE) for c in comparisons if c.name in kinked]
    return {**findings, **{c.name: c.findings(Verdict.WRONG, reason=NOT_TOGETHER) for c in wrong if c.refusing}}


def _certified(comparison: Comparison) -> Mapping[str, Enclosure]:
    """Return certified enclosures of the subject's own primal; empty if it has many inputs or does not run."""
    point = comparison.estimator
    if sum(np.size(a) for a in point.primals.values()) > ARBITER_INPUTS:
        return {}
    subject = comparison.setting.subject
    certified = certified_enclosures(subject, point)
    adjusted = subject.convention.adjusted(point.primals, {}, {EXACT: certified})[EXACT]
    return {n: answer for n, answer in adjusted.items() if isinstance(answer, Enclosure)}


def _same_function(comparison: Comparison, certified: Mapping[str, Enclosure]) -> bool:
    """Return whether the subject's primal, in exact arithmetic, has a reference's value at the point."""
    point = comparison.estimator
    tolerances = point.estimate(MORE_SAMPLES)

    def matches(reference: Rule) -> bool:
        outputs = named_outputs(as_tuple(reference(**point.primals)[0]), {})
        return all(n in certified and _is_near(certified[n], y, tolerances[n]) for n, y in outputs.items())

    return not comparison.references or any(map(matches, comparison.references))


def _is_near(enclosure: Enclosure, value: Array, tolerance: Array) -> bool:
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        near = np.abs(enclosure.mid - value) <= tolerance + enclosure.radius
    return bool(np.all(near | (enclosure.mid == value)))

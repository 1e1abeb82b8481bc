"""Diagnose a refusal: gather the symptoms, and return the first of the ordered patterns that fits.

A diagnosis is never a guess: its pattern holds in every entry within the tolerance, again in the experiments of
`oracles.diagnosis.experiments`, and again at further points, where the same pattern must be found. If none is, the
diagnosis says so. If a declaration would make the judge accept the subject, the diagnosis names it
(`oracles.diagnosis.declarations`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from oracles.constants import (
    EXPERIMENT_MARGIN,
    EXPERIMENT_SAMPLES,
    MORE_SAMPLES,
    OWN_AGREEMENT,
    WRONG_SHARE,
)
from oracles.decision.comparison import value_and_radius
from oracles.decision.type_errors import is_real_array
from oracles.diagnosis.declarations import fitting_declaration, missing_declaration
from oracles.diagnosis.edited_references import Edit
from oracles.diagnosis.experiments import Symptoms, Trial, agrees, evaluate, midpoint, result_or_none
from oracles.diagnosis.layers import LAYER, first_wrong_layer
from oracles.diagnosis.own_forward import Kind, own_derivative
from oracles.diagnosis.patterns import (
    blocks,
    calls,
    deltas,
    errors,
    factors,
    functions,
    indices,
    locations,
    own_operations,
    precision,
    rearrangements,
    second_order,
    singular_points,
    symmetry,
    terms,
)
from oracles.diagnosis.patterns.primals import primal_changed
from oracles.numerics import Numerics
from oracles.rule import Enclosure, Rule, with_dtype
from oracles.time_budget import require_time
from oracles.tolerance import tolerance_at
from oracles.verdict import SELF_CONSISTENCY, Result, Setting, Verdict

Pattern: TypeAlias = Callable[[Symptoms], str | None]


@dataclass(frozen=True)
class Diagnosis:
    """The defect behind a refusal; false if no pattern was found.

    Attributes:
        pattern: the id of the pattern, "" if none was found.
        text: a sentence for a bug report.
    """

    pattern: str = ""
    text: str = "no pattern found"

    def __str__(self) -> str:
        return self.text

    def __bool__(self) -> bool:
        return bool(self.pattern)


NO_PATTERN_FOUND = Diagnosis()

# The order matters. First come the patterns that make all other comparisons meaningless (nothing returned, another
# answer every time, a wrong forward). Then an exact claim on the whole array comes before a vaguer one that would hold
# as well: a transpose before a permutation, a factor with a meaning before one factor per slice, special values before
# locations.
PATTERNS: tuple[tuple[str, Pattern], ...] = (
    ("missing", deltas.missing),
    ("layout", calls.layout),
    ("uninitialised", calls.uninitialised),
    ("random", calls.random),
    ("not_repeatable", deltas.not_repeatable),
    ("gauge", symmetry.gauge),
    ("backward_of_own_forward", deltas.backward_of_own_forward),
    ("cut_graph", second_order.cut_graph),
    ("all_zero", deltas.all_zero),
    ("not_reduced", factors.not_reduced),
    ("shape", rearrangements.rearrangement_pattern("shape")),
    ("transposed", rearrangements.rearrangement_pattern("transposed")),
    ("constant_factor", factors.constant_factor),
    ("delta_ones", deltas.changed_delta_pattern("delta_ones")),
    ("delta_ignored", deltas.delta_ignored),
    ("other_name", deltas.other_name),
    ("symmetrized", symmetry.symmetrized),
    ("negated_primal", functions.negated_primal),
    ("derivative_missing", functions.derivative_missing),
    ("value_for_derivative", functions.value_for_derivative),
    ("reversed", rearrangements.rearrangement_pattern("reversed")),
    ("reshaped", rearrangements.rearrangement_pattern("reshaped")),
    ("shifted", rearrangements.rearrangement_pattern("shifted")),
    ("permuted", rearrangements.permuted),
    ("index_map", indices.index_map),
    ("reduced_too_far", factors.reduced_too_far),
    ("delta_abs", deltas.changed_delta_pattern("delta_abs")),
    ("delta_positive", deltas.changed_delta_pattern("delta_positive")),
    ("delta_sign", deltas.changed_delta_pattern("delta_sign")),
    ("delta_squared", deltas.changed_delta_pattern("delta_squared")),
    ("delta_summed", deltas.changed_delta_pattern("delta_summed")),
    ("delta_rearranged", deltas.changed_delta_pattern("delta_rearranged")),
    ("repeated_indices", deltas.changed_delta_pattern("repeated_indices")),
    ("primal_transposed", deltas.primal_transposed),
    ("repeated_indices", factors.divided_by_count),
    ("repeated_in_bag", indices.repeated_in_bag),
    ("tie_between_operands", singular_points.tie_between_operands),
    ("nan_behind_where", singular_points.nan_behind_where),
    ("zeros", locations.special_value_pattern("zeros")),
    ("masked", locations.special_value_pattern("masked")),
    ("ties", locations.special_value_pattern("ties")),
    ("signs", locations.special_value_pattern("signs")),
    ("repeated_indices", locations.special_value_pattern("repeated_indices")),
    ("delta_first_only", deltas.changed_delta_pattern("delta_first_only")),
    ("term_missing", deltas.changed_delta_pattern("term_missing")),
    ("delta_clipped", deltas.changed_delta_pattern("delta_clipped")),
    ("factor_outside_sum", functions.factor_outside_sum),
    ("softmax_axis", functions.softmax_axis),
    ("evaluation_statistics", terms.evaluation_statistics),
    ("added_primal", functions.added_primal),
    ("added_constant", errors.added_constant),
    ("added_array", errors.added_array),
    ("detached_term", terms.detached_term),
    ("derivative_missing", partial(terms.edited_derivative, Edit.IDENTITY, "the derivative 1 for")),
    ("value_for_derivative", partial(terms.edited_derivative, Edit.VALUE, "the value in place of the derivative of")),
    ("primal_transposed", partial(own_operations.mistake, Kind.TRANSPOSED)),
    ("derivative_missing", partial(own_operations.mistake, Kind.ONE)),
    ("value_for_derivative", partial(own_operations.mistake, Kind.VALUE)),
    ("derivative_at_output", partial(own_operations.mistake, Kind.AT_OUTPUT)),
    ("formula_at_input", partial(own_operations.mistake, Kind.FORMULA_AT_INPUT)),
    ("derivative_twice", partial(own_operations.mistake, Kind.TWICE)),
    ("sign_inside", partial(own_operations.mistake, Kind.NEGATED)),
    # The derivative at another primal may be that at this one by coincidence: of a clamp, or of what is nearly linear.
    ("logits_for_probabilities", functions.logits_for_probabilities),
    ("known_factor", factors.known_factor),
    ("primal_changed", primal_changed),
    ("block_diagonal", deltas.block_diagonal),
    ("clipped", locations.clipped),
    ("saturated", locations.special_value_pattern("saturated")),
    ("block_remainder", blocks.block_remainder),
    ("term_missing", deltas.changed_delta_pattern("remainder_missing")),
    ("wrong_only_in_locations", locations.wrong_only_in_locations),
    ("factor_per_group", factors.factor_per_group),
    ("zero_in_some", locations.zero_in_some),
    ("sign_of_some", locations.sign_of_some),
    ("term_along_axis", errors.term_along_axis),
    ("detached_term", partial(own_operations.mistake, Kind.CUT)),
    ("not_converged", precision.not_converged),
    ("low_precision_accumulation", precision.low_precision_accumulation),
    ("coarse_rounding", errors.coarse_rounding),
)

# Defects that need a special value, a size, a layout or a second call, and that other values may hide. Each of these
# patterns makes the experiments that it needs; all others must hold again at the further points.
NEEDS_ITS_POINT = frozenset(
    {
        "missing", "layout", "uninitialised", "random", "not_repeatable", "zeros", "masked", "ties", "signs",
        "saturated", "repeated_indices", "repeated_in_bag", "tie_between_operands", "nan_behind_where", "clipped",
        "delta_clipped", "block_remainder", "wrong_only_in_locations", "coarse_rounding", "low_precision_accumulation",
        "not_converged", "gauge", "symmetrized", "conjugate", "straight_through",
    }
)  # fmt: skip

# Why equal calls give different answers: tried where this call agrees, too.
CALLS = ("layout", "uninitialised", "random")
PATTERNS_OF_CALLS = tuple((n, p) for n, p in PATTERNS if n in CALLS)
# Another subgradient than the declared one is no other formula: only what singles out the kink explains it.
PATTERNS_OF_KINKS = tuple(
    (n, p) for n, p in PATTERNS if n in (*CALLS, "tie_between_operands", "zeros", "ties", "signs", "saturated")
)

# Finite differences take 20 forwards for each entry, so only patterns of few evaluations are tried with them.
FOR_DIFFERENCES = frozenset(
    {
        *CALLS, "missing", "not_repeatable", "cut_graph", "all_zero", "not_reduced", "shape", "transposed",
        "constant_factor",
        "delta_ones", "delta_ignored", "other_name", "derivative_missing", "value_for_derivative", "reversed",
        "reduced_too_far", "zeros", "ties", "signs", "saturated", "wrong_only_in_locations", "factor_per_group",
        "zero_in_some", "sign_of_some", "coarse_rounding",
    }
)  # fmt: skip


# At a large point of which a part is diagnosed: what must be found again there, by few evaluations. The sentences of
# places and counts are those of the large point.
OF_PLACES = frozenset(
    {"zeros", "masked", "ties", "signs", "saturated", "wrong_only_in_locations", "zero_in_some", "sign_of_some"}
)
FOUND_AGAIN = OF_PLACES | {
    "all_zero", "not_reduced", "shape", "transposed", "constant_factor", "delta_ones", "other_name", "negated_primal",
    "derivative_missing", "value_for_derivative", "reversed", "reshaped", "shifted", "reduced_too_far", "delta_abs",
    "delta_positive", "delta_sign", "delta_squared", "delta_summed", "delta_rearranged", "delta_clipped",
    "delta_first_only", "term_missing", "primal_transposed", "factor_outside_sum", "added_primal", "added_constant",
    "added_array", "known_factor", "primal_changed", "clipped", "factor_per_group", "term_along_axis",
}  # fmt: skip


def diagnose(symptoms: Symptoms, patterns: Sequence[tuple[str, Pattern]] = PATTERNS) -> Diagnosis:
    """Return the first pattern that fits the whole array and is confirmed at other points, or ``NO_PATTERN_FOUND``.

    A pattern that raises is skipped: a diagnosis must not replace the refusal that it explains.

    Args:
        symptoms: the refused array.
        patterns: the patterns that are tried, by id.
    """
    # An array without entries fits many patterns and has no defect.
    actual, expected = symptoms.actual, symptoms.expected
    if actual is not None and not expected.size:
        return NO_PATTERN_FOUND
    with np.errstate(all="ignore"):
        # Of an array that agrees, an equal call gave another answer, or this oracle has no number where it is refused.
        agreed = actual is not None and agrees(actual, expected, symptoms.tolerance)
        agreed |= symptoms.has_expected_shape and not np.any(symptoms.refusal.wrong)
        for name, pattern in PATTERNS_OF_CALLS if agreed else patterns:
            require_time()
            sentence = result_or_none(partial(pattern, symptoms))
            if sentence and (name in NEEDS_ITS_POINT or _is_confirmed(pattern, symptoms)):
                return Diagnosis(name, sentence)
    return NO_PATTERN_FOUND


def _is_confirmed(pattern: Pattern, symptoms: Symptoms) -> bool:
    """Return whether a pattern is found again at every further point; if there is no such point, nothing is known."""
    if not symptoms.can_be_moved:
        return True
    return bool(symptoms.further) and all(result_or_none(partial(pattern, other)) for other in symptoms.further)


def diagnosis_of(result: Result) -> Diagnosis:
    """Return the defect behind the gravest refused array, or ``NO_PATTERN_FOUND``.

    If that is an output without a known pattern, its gravest refused cotangent is diagnosed instead. If the subject
    agrees once symmetric primals or signs of vectors are declared, the line to write follows. A large point is
    diagnosed at the smaller one that shows the same, as far as that is true of the large one.
    """
    if result.worst is not None and result.worst.quantity in result.reduced:
        return _diagnosis_of_part(result, result.reduced[result.worst.quantity])
    if result.worst is not None and result.worst.evidence.diagnosis:
        confirmed = result.worst.evidence.diagnosis
        return Diagnosis("not_converged" if confirmed.startswith("not converged") else "numerics", confirmed)
    declaration = fitting_declaration(result)
    if declaration:
        return Diagnosis("declaration", declaration)
    diagnosis = _diagnosis_of_layer(result)
    pattern, line = missing_declaration(result)
    if not line:
        return diagnosis
    return Diagnosis(diagnosis.pattern, f"{diagnosis}; {line}") if diagnosis else Diagnosis(pattern, line)


def _diagnosis_of_part(result: Result, part: Result) -> Diagnosis:
    """Return the diagnosis of a part of a large point if it holds at the whole, and else that of the whole.

    What depends on a size may show another pattern in a small part: a matrix product that leaves out the last tile has
    no other tile there, and all its gradient is zero.
    """
    diagnosis = diagnosis_of(part)
    names = [name for name, _ in PATTERNS]
    if diagnosis.pattern not in names or result.worst is None:
        return diagnosis
    quantities = {result.worst.quantity: None} | dict.fromkeys(f.quantity for f in result.findings if f.refuses)
    for quantity in [n for n in quantities if n in result.reduced]:
        for numerics in _numerics_of(result, contradicts_itself=False):
            whole = symptoms_of(result, quantity, numerics, EXPERIMENT_SAMPLES)
            found = _found_at_whole(diagnosis, whole, symptoms_of(part, quantity, numerics))
            if found:
                return found
    return _diagnosis_of_arrays(result)


def _found_at_whole(diagnosis: Diagnosis, whole: Symptoms | None, part: Symptoms | None) -> Diagnosis:
    """Return the diagnosis of a part if the whole point shows it too, else ``NO_PATTERN_FOUND``."""
    if whole is None or part is None or whole.actual is None:
        return diagnosis
    whole = replace(whole, is_whole=True)
    whole = replace(whole, tolerance=EXPERIMENT_MARGIN * whole.margin * whole.tolerance)
    with np.errstate(all="ignore"):
        if diagnosis.pattern not in FOUND_AGAIN or LAYER in diagnosis.text:
            return diagnosis if _shows_same(whole.refusal, part.refusal) else NO_PATTERN_FOUND
        for pattern in [p for name, p in PATTERNS if name == diagnosis.pattern]:
            require_time()
            sentence = result_or_none(partial(pattern, whole))
            if sentence:
                return replace(diagnosis, text=sentence) if diagnosis.pattern in OF_PLACES else diagnosis
    return NO_PATTERN_FOUND


def _shows_same(whole: Trial, part: Trial) -> bool:
    """Return whether the whole is zero, and wrong throughout, where its part is."""
    if np.shape(whole.actual) != whole.expected.shape:
        return True
    wrong = np.count_nonzero(whole.wrong) > WRONG_SHARE * np.count_nonzero(whole.informative)
    throughout = np.all(part.wrong | ~part.informative)
    return bool((wrong or not throughout) and (not np.any(whole.actual) or np.any(part.actual)))


def _numerics_of(result: Result, *, contradicts_itself: bool) -> Sequence[Numerics | None]:
    """Return the numerics in which a result is diagnosed: in low precision the sharpest first.

    There a wide tolerance fits several patterns: most subjects round once, and then a narrow one fits. Where two
    answers of the subject differ, an array may be right, and a narrower tolerance would find it wrong.
    """
    own = result.setting.numerics if result.setting else None
    is_wide = own is not None and own.round == "any" and not contradicts_itself
    return tuple(dict.fromkeys((own.sharpest, own))) if own is not None and is_wide else (own,)


def _diagnosis_of_layer(result: Result) -> Diagnosis:
    """Return the defect of the first wrong layer on the way back, if it has one alone; else that of the arrays.

    What is wrong in a layer says more than what that does to a whole network, and takes less time to find.
    """
    layer = first_wrong_layer(result)
    if layer is None:
        return _diagnosis_of_arrays(result)
    alone = _diagnosis_of_arrays(layer.result) if layer.result is not None else NO_PATTERN_FOUND
    if alone:
        return Diagnosis(alone.pattern, f"{layer}: {alone}")
    diagnosis = _diagnosis_of_arrays(result)
    return Diagnosis(diagnosis.pattern, f"{diagnosis}; {layer}")


def _diagnosis_of_arrays(result: Result) -> Diagnosis:
    # A wrong output explains wrong cotangents, so it comes first if it is the gravest.
    gravest = result.worst
    cotangents = [f for f in result.findings if f.refuses and f.is_cotangent]
    cotangent = max(cotangents, key=lambda f: f.gravity, default=None)
    for quantity, verdict in {f.quantity: f.verdict for f in (gravest, cotangent) if f is not None}.items():
        patterns = PATTERNS_OF_KINKS if verdict is Verdict.KINK else PATTERNS
        contradicts_itself = gravest is not None and gravest.oracle == SELF_CONSISTENCY
        for numerics in _numerics_of(result, contradicts_itself=contradicts_itself):
            symptoms = symptoms_of(result, quantity, numerics)
            if symptoms is not None:
                symptoms = replace(symptoms, contradicts_itself=contradicts_itself)
            if symptoms is not None and symptoms.oracle.evaluate_perturbed is None:
                patterns = tuple((n, p) for n, p in patterns if n in FOR_DIFFERENCES)
            diagnosis = diagnose(symptoms, patterns) if symptoms is not None else NO_PATTERN_FOUND
            if diagnosis:
                return diagnosis
    return NO_PATTERN_FOUND


def symptoms_of(
    result: Result, quantity: str, numerics: Numerics | None = None, samples: int = MORE_SAMPLES
) -> Symptoms | None:
    """Return the symptoms of one array; ``None`` if its values cannot be compared with an oracle.

    Without a reference the oracle is the derivative of the subject's own forward. ``numerics`` are those of the result
    unless others are given. ``samples`` of rounding give the tolerance: many, since a candidate must not fail by one
    that is too small.
    """
    setting = result.setting
    oracle = _oracle_of(setting) if setting else None
    if setting is None or oracle is None:
        return None
    primals, delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    # An output of another shape, for example: its delta does not fit the reference, which raises.
    actual = result_or_none(lambda: evaluate(setting.subject, setting.primals, setting.delta))
    expected = result_or_none(lambda: evaluate(oracle, primals, delta))
    if actual is None or expected is None or quantity not in expected:
        return None
    value = actual.get(quantity)
    if quantity in actual and not is_real_array(value):
        return None
    answer = expected[quantity]
    references = [o for o in setting.oracles if o.evaluate_perturbed is not None] or [oracle]
    refusing_primal = {f.oracle for f in result.findings if f.refuses and f.quantity.startswith("output")}
    numerics = numerics or setting.numerics
    estimator = tolerance_at(references, primals, delta, numerics, fallback=setting.subject)
    tolerance = estimator.estimate(samples)[quantity]
    return Symptoms(
        name=quantity,
        actual=None if value is None else np.asarray(value),
        expected=midpoint(answer),
        tolerance=tolerance + answer.radius if isinstance(answer, Enclosure) else tolerance,
        primals=primals,
        delta=setting.delta,
        subject=setting.subject,
        oracle=oracle,
        primal_agrees=not refusing_primal,
        primal_refused_by=len(refusing_primal),
        numerics=numerics,
        dtypes={n: np.asarray(a).dtype for n, a in setting.primals.items()},
    )


def _oracle_of(setting: Setting) -> Rule | None:
    """Return the first reference; without one, the derivative of the subject's own forward, or else the first oracle.

    What is recorded of a forward may be less than all. So its derivative must be that of the oracle that judged.
    """
    references = [o for o in setting.oracles if o.evaluate_perturbed is not None]
    if references or not setting.oracles:
        return references[0] if references else None
    primals, delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    judging = setting.oracles[0]
    if setting.subject.runs_on_object_arrays:
        own = own_derivative(setting.subject)
        answers = [result_or_none(partial(evaluate, oracle, primals, delta)) for oracle in (own, judging)]
        # An array that is not recorded whole raises when it is read.
        if answers[0] and answers[1] and result_or_none(partial(_is_same, answers[0], answers[1])):
            return own
    return judging


def _is_same(own: Mapping[str, Any], judging: Mapping[str, Any]) -> bool:
    """Return whether two oracles agree wherever the second one knows the value."""
    for name, answer in judging.items():
        mid, radius = value_and_radius(answer)
        known = np.isfinite(mid) & np.isfinite(radius)
        scale = OWN_AGREEMENT * np.max(np.abs(mid), initial=0.0, where=known)
        if name not in own or np.shape(own[name]) != mid.shape:
            return False
        if not np.all((np.abs(midpoint(own[name]) - mid) <= radius + scale)[known]):
            return False
    return True

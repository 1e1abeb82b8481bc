"""Compare one array of the subject with every oracle, entry by entry: |error| against the tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from oracles.constants import (
    HALF_OF_THE_DIGITS,
    MOST_DIFFERENCES,
    NAMED_ENTRIES,
    NEAR_OVERFLOW,
    RESOLUTION_LIMIT,
    SECOND_SAMPLES,
)
from oracles.decision.neighbourhood import Neighbourhood
from oracles.finite_differences import DIFFERENCES
from oracles.numerics import smallest_normal, unit_roundoff
from oracles.rule import (
    Answer,
    Array,
    Enclosure,
    NotPerturbable,
    Output,
    Primals,
    Rule,
    as_tuple,
    is_differentiable,
    is_floating,
)
from oracles.tolerance import ToleranceEstimator
from oracles.user_code import Raised, attempt
from oracles.verdict import EXACT, Evidence, Finding, Index, Setting, Verdict

Neighbourhoods: TypeAlias = dict[tuple[str, float], Neighbourhood]
Answers: TypeAlias = Mapping[str, Answer]  # by the oracle's name


def value_and_radius(answer: Answer) -> tuple[Array, Array | float]:
    """Return an oracle's value in float64, and how far it may itself be off."""
    if isinstance(answer, Enclosure):
        return answer.mid, answer.radius
    return np.asarray(answer, np.float64), 0.0


def rounding_bound(answer: Answer) -> Array | None:
    """Return the rigorous bound on |subject − midpoint|: rounding plus radius; ``None`` if an answer has none."""
    if isinstance(answer, Enclosure) and answer.rounding is not None:
        return np.asarray(answer.rounding + answer.radius)
    return None


@dataclass(frozen=True, eq=False)
class Comparison:
    """One array of the subject, the oracles' answers, and what is known of the difference so far.

    Attributes:
        name: "output" ("output[0]" … of several), or the primal whose cotangent is compared.
        actual: the subject's array, in its own dtype.
        answers: the oracles' values of it.
        tolerance: how far rounding may move each entry.
        estimator: estimates tolerances at this point; it can draw more samples.
        setting: the point, the subject and the oracles.
        neighbourhoods: gradients nearby that were evaluated for another array of this point, by who computes them.
        declared_kinks: whether at a kink only the oracles' own choice is accepted.
        kink_nearby: whether gradients nearby jump at a refused entry; known after `decisions.kink`.
        certified: enclosures of the subject's own primal and its derivative, by name; known after
            `decisions.certified_by_ball_arithmetic`.
        one_sided: the entries, as booleans, at which the tolerance has no jumps: no kink is near, or none excuses them.
        right_formula: whether the subject's formulas are right, ``None`` if that could not be tested; known after
            `decisions.wrong_formula`.
    """

    name: str
    actual: Array
    answers: Answers
    tolerance: Array
    estimator: ToleranceEstimator
    setting: Setting
    neighbourhoods: Neighbourhoods = field(default_factory=dict)
    declared_kinks: bool = False
    kink_nearby: bool = False
    certified: Mapping[str, Enclosure] = field(default_factory=dict)
    one_sided: Array | None = None
    right_formula: bool | None = None

    @cached_property
    def value(self) -> Array:
        """The subject's array in float64."""
        return np.asarray(self.actual, np.float64)

    @cached_property
    def ratios(self) -> dict[str, Array]:
        """|error| / tolerance for every oracle: up to 1 is rounding, 0 where the oracle knows nothing."""
        return {o: self._ratio(answer) for o, answer in self.answers.items()}

    def _ratio(self, answer: Answer) -> Array:
        actual, largest = self.value, largest_number(self.actual.dtype)
        expected, radius = value_and_radius(answer)
        with np.errstate(all="ignore"):  # NaN and Inf are expected here
            error, tolerance = np.abs(actual - expected), self.tolerance_of(answer)
            ratio = np.where(actual == expected, 0.0, error / tolerance)
            # A NaN equals nothing, and an infinity only itself: as a limit of the oracle, or where the value overflows.
            ratio = np.where(np.isnan(ratio) | ~np.isfinite(error), np.inf, ratio)
            ratio = np.where(np.isfinite(error) & ~np.isfinite(tolerance), 0.0, ratio)
            reach = np.abs(expected) + np.where(np.isfinite(tolerance), tolerance, 0.0)
            overflows = (actual == np.copysign(np.inf, expected)) & (reach > largest)
            # Where even the sign is unknown, either infinity is an overflow.
            overflows |= np.isinf(actual) & (reach > largest) & (tolerance >= np.abs(expected)) & np.isfinite(tolerance)
            # Rounding alone reaches beyond the dtype, from a number inside it; products inside overflow before.
            beyond_range = ~np.isfinite(actual) & (tolerance > largest * NEAR_OVERFLOW) & (np.abs(expected) <= largest)
            beyond_range &= np.isfinite(tolerance) & (tolerance > np.abs(expected))
            if self.actual.dtype.name.startswith("float8"):  # without ∞, or saturated: what is too large becomes either
                saturated = np.isnan(actual) | (actual == np.copysign(largest, expected))
                beyond_range |= saturated & (reach > largest) & is_known(expected, radius)
            return np.where(overflows | beyond_range | ~is_known(expected, radius), 0.0, ratio)

    def tolerance_of(self, answer: Answer) -> Array:
        """Return the tolerance around an answer; a rigorous bound where the samples give none."""
        tolerance = np.asarray(self.tolerance + value_and_radius(answer)[1])
        bound = rounding_bound(answer)
        return tolerance if bound is None else np.where(np.isfinite(tolerance), tolerance, bound)

    @property
    def is_cotangent(self) -> bool:
        """Whether this is a cotangent, and not an output."""
        return self.name in self.setting.primals

    @property
    def refusing(self) -> list[str]:
        """The names of the oracles that refuse an entry."""
        return [o for o, ratio in self.ratios.items() if np.any(ratio > 1)]

    @property
    def refused(self) -> Array:
        """The entries that any oracle refuses, as booleans."""
        return np.asarray(np.any([ratio > 1 for ratio in self.ratios.values()], axis=0))

    @property
    def references(self) -> list[Rule]:
        """The oracles that differentiate a reference, rather than enclose the subject's own derivative."""
        return [o for o in self.setting.oracles if not isinstance(self.answers.get(o.name), Enclosure | None)]

    @property
    def expected(self) -> Array:
        """The best known value: the midpoint of ball arithmetic, else the value of the first oracle that refuses."""
        refusing = [value_and_radius(self.answers[o])[0] for o in self.refusing if o != EXACT]
        if EXACT not in self.answers:
            return refusing[0]
        # Ball arithmetic is certain, a reference is not.
        mid, radius = value_and_radius(self.answers[EXACT])
        return np.where(is_known(mid, radius), mid, refusing[0]) if refusing else mid

    @property
    def neighbourhood(self) -> Neighbourhood:
        """The gradients nearby: the first reference's, or those of the subject itself; shared among the arrays."""
        rule, point = next(iter(self.references), self.setting.subject), self.estimator
        least_step = smallest_normal(point.precision)
        key = rule.name, least_step
        if key not in self.neighbourhoods:
            found = Neighbourhood(rule, point.primals, point.delta, least_step)
            # What the subject chooses at a tie proves nothing about its choice.
            self.neighbourhoods[key] = found if self.references else found.off_ties()
        return self.neighbourhoods[key]

    def with_samples(self, samples: int) -> Comparison:
        """Return the comparison under a tolerance from at least so many samples."""
        return replace(self, tolerance=self._without_jumps(self.estimator.estimate(samples)[self.name]))

    def on_one_side(self, entries: Array) -> Comparison:
        """Return the comparison without jumps in the tolerance of these entries: of rounding in the backward alone."""
        known = entries if self.one_sided is None else entries | self.one_sided
        limited = replace(self, one_sided=known)
        return replace(limited, tolerance=limited._without_jumps(self.tolerance))

    def _without_jumps(self, tolerance: Array) -> Array:
        entries = self.one_sided
        if entries is None or not np.any(entries := entries & self.estimator.jumping(self.name)):
            return tolerance
        return np.where(entries, self.estimator.backward_tolerance(self.name), tolerance)

    def off_ties(self) -> Comparison:
        """Return the comparison without jumps in its tolerance, of rounding in the backward either.

        Where the backward asks for the side once more, as that of |z| by z / |z| does, it jumps alone. Then the
        tolerance of an entry is no larger than at a point close by.
        """
        one_sided = self.on_one_side(np.array(True))
        large = one_sided.tolerance > half_of_the_digits(self.estimator.precision) * np.abs(self.value)
        if not np.any(large := large & self.estimator.jumping(self.name)):
            return one_sided
        nearby = attempt(self._tolerance_off_ties)
        if isinstance(nearby, Raised):
            return one_sided
        return replace(
            one_sided, tolerance=np.where(large & (nearby < one_sided.tolerance), nearby, one_sided.tolerance)
        )

    def _tolerance_off_ties(self) -> Array:
        """Return the tolerance at a point close by that is off every tie."""
        point = self.estimator
        least_step = smallest_normal(point.precision)
        shift = Neighbourhood(self.setting.subject, point.primals, point.delta, least_step).off_ties().shift
        primals = {n: np.asarray(a + shift[n]) if n in shift else a for n, a in point.primals.items()}
        off_ties = replace(point.under(point.numerics), primals=primals, known={}, native=None)
        return off_ties.estimate(SECOND_SAMPLES)[self.name]

    @property
    def rounded_once(self) -> Comparison | None:
        """The comparison where each result is rounded once; ``None`` where that is no sharper."""
        sharpest = self.estimator.sharpest
        if sharpest is None:
            return None
        return replace(self, estimator=sharpest, tolerance=sharpest.estimate()[self.name])

    def findings(
        self, verdict: Verdict, *, refuses: bool = True, reason: str = "", by_all: bool = False
    ) -> list[Finding]:
        """Return one finding for every oracle: the verdict for those that refuse (or ``by_all``), else AGREES."""
        findings = []
        for oracle, ratio in self.ratios.items():
            worst = float(np.max(ratio, initial=0.0))
            if worst > 1 or by_all:
                finding = Finding(self.name, oracle, verdict, refuses, worst, evidence=self._evidence(oracle, reason))
            else:
                finding = Finding(self.name, oracle, Verdict.AGREES, ratio=worst)
            # An entry that is refused was judged, whatever the tolerance.
            expected = value_and_radius(self.answers[oracle])[0]
            tolerance = np.broadcast_to(self.tolerance_of(self.answers[oracle]), ratio.shape)
            judged = judged_entries(self.name, expected, tolerance, self.estimator) | (ratio > 1)
            if finding.verdict is Verdict.AGREES:
                finding = replace(finding, detects_above=_detects_above(expected, tolerance, judged))
            findings.append(
                replace(finding, judged=(int(np.count_nonzero(judged)), ratio.size), unknown=_first(~judged))
            )
        return findings

    def undecided(self) -> list[Finding]:
        """Return the findings on an array of which no time is left to say whether more than rounding moved it."""
        reason = "off by more than the first samples of rounding explain; what it is was not decided, out of time"
        findings = self.findings(Verdict.VACUOUS, refuses=False, reason=reason)
        return [replace(f, unbounded=True) if f.verdict is Verdict.VACUOUS else f for f in findings]

    def _evidence(self, oracle: str, reason: str) -> Evidence:
        ratio = self.ratios[oracle]
        if not ratio.size:
            return Evidence(reason=reason)
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
        exact = self.answers.get(EXACT)
        return Evidence(
            index,
            float(self.value[index]),
            self.values_at(index),
            float(np.broadcast_to(self.tolerance_of(self.answers[oracle]), ratio.shape)[index]),
            enclosure_at(exact, index) if isinstance(exact, Enclosure) and exact.rounding is not None else None,
            (int(np.count_nonzero(ratio > 1)), ratio.size),
            reason,
        )

    def values_at(self, index: tuple[int, ...]) -> dict[str, float]:
        """Return each oracle's value of one entry."""
        return {o: float(value_and_radius(answer)[0][index]) for o, answer in self.answers.items()}

    def agreement(self, oracle: str) -> Finding:
        """Return the finding of an oracle that accepts the array."""
        answer, actual = self.answers[oracle], self.value
        expected, _ = value_and_radius(answer)
        tolerance = np.broadcast_to(self.tolerance_of(answer), expected.shape)
        # A rigorous bound is sharper to report than the sampled tolerance, where the array keeps within it.
        bound = rounding_bound(answer)
        with np.errstate(all="ignore"):
            if bound is not None and np.all(np.abs(actual - expected) <= bound):
                tolerance = bound
        worst = float(np.max(self.ratios[oracle], initial=0.0))
        return _agreement(self.name, oracle, worst, expected, tolerance, self.estimator)

    @property
    def unknown(self) -> Array:
        """The entries that have no finite value, and no limit ±∞, by any oracle."""
        return np.asarray(np.all([~is_known(*value_and_radius(a)) for a in self.answers.values()], axis=0))


def largest_number(dtype: np.dtype[Any]) -> float:
    """Return the largest finite number of a floating dtype, as a float64; infinity of any other."""
    return float(ml_dtypes.finfo(dtype).max) if is_floating(dtype) else np.inf


def is_known(expected: Array, radius: Array | float) -> Array:
    """Return where an oracle knows a value: no NaN, and no infinite radius."""
    return np.asarray(~np.isnan(expected) & np.isfinite(radius))


def enclosure_at(enclosure: Enclosure, index: tuple[int, ...]) -> tuple[float, float]:
    """Return midpoint and radius of one entry."""
    return float(enclosure.mid[index]), float(enclosure.radius[index])


def all_agreements(
    actual: Mapping[str, Array], answers: Mapping[str, Answers], estimator: ToleranceEstimator
) -> list[Finding] | None:
    """Compare all arrays with every oracle at once; return ``None`` if any entry is refused.

    Most points agree. A few operations on flat vectors decide them; the others are decided array by array.

    Args:
        actual: the subject's arrays by name.
        answers: each oracle's values by name, by the oracle's name.
        estimator: estimates tolerances at this point.
    """
    tolerances = estimator.estimate()
    flat = _flat(list(actual.values()))
    findings: list[Finding] = []
    by_reference: dict[str, Finding] = {}
    for oracle, values in answers.items():
        names = [n for n in actual if n in values]
        value = flat if len(names) == len(actual) else _flat([actual[n] for n in names])
        expected = _flat([value_and_radius(values[n])[0] for n in names])
        tolerance = _flat([_tolerance(values[n], tolerances[n]) for n in names])
        with np.errstate(invalid="ignore"):
            error = np.abs(value - expected)
        # NaN compares false. What is not finite is decided array by array, like every refused entry, and so is an
        # error of the entry's own size, behind which a kink may be.
        if not (error <= tolerance).all() or not np.isfinite(tolerance).all() or (error > np.abs(expected) / 2).any():
            return None
        ratio = np.divide(error, tolerance, out=np.zeros_like(error), where=error > 0)
        stop = 0
        for n in names:
            start, stop = stop, stop + actual[n].size
            worst = float(ratio[start:stop].max()) if stop > start else 0.0
            # References differ from one another by rounding alone, so what one detects, all do.
            if n in by_reference and not isinstance(values[n], Enclosure):
                findings.append(replace(by_reference[n], oracle=oracle, ratio=worst))
            else:
                shape = np.shape(actual[n])
                own, bound = expected[start:stop].reshape(shape), tolerance[start:stop].reshape(shape)
                findings.append(_agreement(n, oracle, worst, own, bound, estimator))
                if not isinstance(values[n], Enclosure):
                    by_reference[n] = findings[-1]
    return findings


def _tolerance(answer: Answer, tolerance: Array) -> Array:
    """Return how far the subject may lie from an answer: a certified enclosure has a bound of its own."""
    bound = rounding_bound(answer)
    return bound if bound is not None else np.asarray(tolerance + value_and_radius(answer)[1])


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays]) if arrays else np.zeros(0)


def _agreement(
    name: str, oracle: str, worst: float, expected: Array, tolerance: Array, estimator: ToleranceEstimator
) -> Finding:
    """Return the finding on an array whose error is within the tolerance: AGREES with the error that it detects.

    VACUOUS if nothing was judged: rounding can move every entry by its own size, or by a tenth of it in the median
    (KINK if the deviation does not shrink with the perturbation).
    """
    size = np.abs(expected)
    judged = judged_entries(name, expected, tolerance, estimator)
    count = int(np.count_nonzero(judged))
    finding = Finding(
        name,
        oracle,
        Verdict.AGREES,
        ratio=worst,
        detects_above=_detects_above(expected, tolerance, judged),
        judged=(count, size.size),
        unknown=_first(~judged) if count < size.size else (),
        unbounded=not np.any(np.isfinite(tolerance) & ~np.isnan(expected)),
        open=_open_entries(name, oracle, expected, tolerance, judged, estimator),
    )
    # One rounding in 8 bits is more than that.
    limit = max(RESOLUTION_LIMIT, 2 * unit_roundoff(estimator.precision))
    if size.size == 0 or (count and finding.detects_above <= limit):
        return finding
    if count == 0 and not finding.unbounded and not is_zero(estimator.delta) and estimator.jumps(name):
        return replace(finding, verdict=Verdict.KINK, detects_above=0.0)
    return _vacuous(finding, judged & ((size == 0) | (tolerance <= limit * size)), estimator)


def _vacuous(finding: Finding, judged: Array, estimator: ToleranceEstimator) -> Finding:
    """Return the finding as VACUOUS, with the reason; judged are the entries that rounding moves by less."""
    reason = f"rounding in {estimator.precision} may move every entry by its own size"
    if finding.judged[0]:
        reason = f"rounding in {estimator.precision} may move its median entry by {100 * finding.detects_above:.2g} %"
    elif finding.quantity in estimator.primals and is_zero(estimator.delta):
        reason = "delta is zero"
    return replace(
        finding,
        verdict=Verdict.VACUOUS,
        detects_above=0.0,
        judged=(int(np.count_nonzero(judged)), judged.size),
        unknown=_first(~judged),
        evidence=Evidence(reason="" if finding.unbounded else reason),
    )


def _detects_above(expected: Array, tolerance: Array, judged: Array) -> float:
    """Return the median of tolerance / |value| over the judged entries: half of them refuse an error above it."""
    size = np.abs(expected)
    measured = judged & (size > 0) & np.isfinite(size)  # no relative error is defined at 0 and at ∞
    with np.errstate(over="ignore"):
        relative = tolerance[measured] / size[measured]
    middle = relative.size // 2
    return float(np.partition(relative, middle)[middle]) if relative.size else 0.0


def _open_entries(
    name: str, oracle: str, expected: Array, tolerance: Array, judged: Array, estimator: ToleranceEstimator
) -> int:
    """Return how many entries are not judged, and are not known to be small next to the array's largest.

    An entry that rounding can move by its own size is known all the same where that is far below the others: a
    probability that underflows. Where finite differences measure some entries of many, directions judge the others.
    """
    if np.all(judged) or is_zero(estimator.delta):
        return 0
    size = np.abs(expected)
    largest = float(np.max(size, initial=0.0, where=np.isfinite(size)))
    is_small = tolerance <= RESOLUTION_LIMIT * largest
    if oracle == DIFFERENCES and sum(map(np.size, estimator.primals.values())) > MOST_DIFFERENCES:
        is_small |= np.isnan(expected)
    # So it is where the subject's own values are measured, as its second derivatives may be.
    is_small |= np.isinf(estimator.read_error.get(name, 0.0))
    return int(np.count_nonzero(~judged & ~is_small))


def _first(entries: Array) -> tuple[Index, ...]:
    """Return the indices of the first true entries."""
    return tuple(tuple(map(int, index)) for index in np.argwhere(entries)[:NAMED_ENTRIES])


def judged_entries(name: str, expected: Array, tolerance: Array, estimator: ToleranceEstimator) -> Array:
    """Return which entries an oracle judges, as booleans.

    A nonzero entry is judged if its tolerance is smaller than itself. An exact zero is judged if the tolerance is less
    than half of the digits of the array's largest entry. A limit ±∞ is judged, since only ±∞ equals it. A cotangent is
    not judged if the delta is zero.
    """
    if name in estimator.primals and is_zero(estimator.delta):
        return np.zeros(expected.shape, bool)
    with np.errstate(invalid="ignore"):
        size = np.abs(expected)
        judged = tolerance < size
    zero = size == 0
    if zero.any():
        scale = float(np.max(size, initial=0.0, where=np.isfinite(size))) or _scale_of_point(name, estimator)
        judged |= zero & (tolerance <= half_of_the_digits(estimator.precision) * scale)
    return np.asarray(judged | np.isinf(expected))


def _scale_of_point(name: str, estimator: ToleranceEstimator) -> float:
    """Return the largest number that an array of zeros is computed from: of the delta, or of the primals; 1 if none."""
    arrays = as_tuple(estimator.delta) if name in estimator.primals else estimator.primals.values()
    return max((float(np.max(np.abs(a), initial=0.0, where=np.isfinite(a))) for a in arrays), default=0.0) or 1.0


def is_zero(delta: Output) -> bool:
    """Return whether a cotangent of the output has entries and all are zero, so that it says nothing."""
    return any(np.size(d) for d in as_tuple(delta)) and not any(np.any(d) for d in as_tuple(delta))


def half_of_the_digits(precision: str) -> float:
    """Return the relative error above which less than half of a precision's digits are right."""
    return float(unit_roundoff(precision) ** HALF_OF_THE_DIGITS)


def certified_enclosures(subject: Rule, point: ToleranceEstimator) -> dict[str, Enclosure]:
    """Return the certified enclosures of the subject's own primal and its derivative at a point, by name.

    Empty if ball arithmetic cannot run: a framework's tensors hold no balls, a ball holds no infinity, python-flint may
    be missing.
    """
    if not subject.runs_on_object_arrays or not is_finite(point.primals, point.delta):
        return {}

    from oracles.exact import ball_arithmetic

    try:
        return ball_arithmetic.certified_enclosures(
            subject, point.primals, point.delta, point.numerics, stores=point.stores
        )
    except (NotPerturbable, ImportError):
        return {}


def is_finite(primals: Primals, delta: Output) -> bool:
    """Return whether a point has no NaN and no infinity."""
    return all(np.all(np.isfinite(a)) for a in (*primals.values(), *as_tuple(delta)) if is_differentiable(a))

"""Compare one array of the subject with every oracle, entry by entry: |error| against the tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np

from oracles.rule import Answer, Array, Enclosure, NotPerturbable, Output, Primals, Rule
from oracles.tolerance import ToleranceEstimator
from oracles.verdict import Evidence, Finding, Setting, Verdict

Answers: TypeAlias = Mapping[str, Answer]  # by the oracle's name
EXACT = "exact"  # the name of the oracle that is ball arithmetic on the subject's own primal
LARGEST_BFLOAT16 = 3.4e38  # NumPy's finfo does not know bfloat16


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
        declared_kinks: whether at a kink only the oracles' own choice is accepted.
        kink_nearby: whether gradients nearby jump at a refused entry; known after `decisions.kink`.
        certified: enclosures of the subject's own primal and its derivative, by name; known after
            `decisions.certified_by_ball_arithmetic`.
        right_formula: whether the subject's formulas are right, ``None`` if that could not be tested; known after
            `decisions.wrong_formula`.
    """

    name: str
    actual: Array
    answers: Answers
    tolerance: Array
    estimator: ToleranceEstimator
    setting: Setting
    declared_kinks: bool = False
    kink_nearby: bool = False
    certified: Mapping[str, Enclosure] = field(default_factory=dict)
    right_formula: bool | None = None

    @cached_property
    def value(self) -> Array:
        """The subject's array in float64."""
        return np.asarray(self.actual, np.float64)

    @cached_property
    def ratios(self) -> dict[str, Array]:
        """|error| / tolerance for every oracle: up to 1 is rounding."""
        return {o: self._ratio(*value_and_radius(answer)) for o, answer in self.answers.items()}

    def _ratio(self, expected: Array, radius: Array | float) -> Array:
        """NaN equals nothing; Inf only the same Inf, and only where the answer overflows the subject's dtype.

        Where rounding alone reaches beyond that dtype, 0: `agreement` counts such entries as inconclusive.
        """
        actual, dtype = self.value, self.actual.dtype
        with np.errstate(all="ignore"):  # NaN and Inf are expected here
            error, tolerance = np.abs(actual - expected), self.tolerance + radius
            ratio = np.where(error == 0, 0.0, error / tolerance)
            if not np.all(np.isfinite(actual)):
                largest = float(np.finfo(dtype).max) if dtype.kind == "f" else LARGEST_BFLOAT16
                same_infinity = np.isinf(actual) & (np.sign(actual) == np.sign(expected))
                overflows = same_infinity & (np.abs(expected) + tolerance > largest)
                ratio = np.where(overflows, 0.0, np.where(np.isfinite(actual), ratio, np.inf))
                unknown = ~np.isfinite(actual) & (np.abs(expected) <= largest) & (tolerance > largest)
                ratio = np.where(unknown, 0.0, ratio)
        return np.where(np.isnan(ratio), np.inf, ratio)

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
        # Ball arithmetic is certain, a reference is not.
        best = EXACT if EXACT in self.answers else self.refusing[0]
        return value_and_radius(self.answers[best])[0]

    def with_samples(self, samples: int) -> Comparison:
        """Return the comparison under a tolerance from at least so many samples."""
        return replace(self, tolerance=self.estimator.estimate(samples)[self.name])

    def findings(
        self, verdict: Verdict, *, refuses: bool = True, reason: str = "", by_all: bool = False
    ) -> list[Finding]:
        """Return one finding for every oracle: the verdict for those that refuse (or ``by_all``), else AGREES."""
        findings = []
        for oracle, ratio in self.ratios.items():
            worst = float(np.max(ratio, initial=0.0))
            if worst > 1 or by_all:
                evidence = self._evidence(ratio, reason)
                findings.append(Finding(self.name, oracle, verdict, refuses, worst, evidence=evidence))
            else:
                findings.append(Finding(self.name, oracle, Verdict.AGREES, ratio=worst))
        return findings

    def _evidence(self, ratio: Array, reason: str) -> Evidence:
        if not ratio.size:
            return Evidence(reason=reason)
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
        exact = self.answers.get(EXACT)
        return Evidence(
            index,
            float(self.value[index]),
            self.values_at(index),
            float(np.broadcast_to(self.tolerance, ratio.shape)[index]),
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
        expected, radius = value_and_radius(answer)
        tolerance = np.broadcast_to(self.tolerance + radius, expected.shape)
        # A rigorous bound is sharper to report than the sampled tolerance, where the array keeps within it.
        bound = rounding_bound(answer)
        if bound is not None and np.all(np.abs(actual - expected) <= bound):
            tolerance = bound
        with np.errstate(all="ignore"):
            ratio = np.where(actual == expected, 0.0, np.abs(actual - expected) / tolerance)
        worst = float(np.max(np.where(np.isfinite(actual), ratio, 0.0), initial=0.0))
        return _agreement(self.name, oracle, worst, np.abs(expected).ravel(), tolerance.ravel(), self.estimator)


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
        # NaN compares false, so it is decided array by array like every refused entry.
        error = np.abs(value - expected)
        if not (error <= tolerance).all():
            return None
        ratio = np.divide(error, tolerance, out=np.zeros_like(error), where=error > 0)
        size, stop = np.abs(expected), 0
        for n in names:
            start, stop = stop, stop + actual[n].size
            worst = float(ratio[start:stop].max()) if stop > start else 0.0
            # References differ from one another by rounding alone, so what one detects, all do.
            if n in by_reference and not isinstance(values[n], Enclosure):
                findings.append(replace(by_reference[n], oracle=oracle, ratio=worst))
            else:
                findings.append(_agreement(n, oracle, worst, size[start:stop], tolerance[start:stop], estimator))
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
    name: str, oracle: str, worst: float, size: Array, tolerance: Array, estimator: ToleranceEstimator
) -> Finding:
    """Return the finding on an array whose error is within the tolerance: AGREES with the error that it detects.

    If rounding can move every nonzero entry by its own size, nothing is detected: VACUOUS, or KINK if the deviation
    does not shrink with the perturbation.
    """
    # No relative error is defined at 0.
    nonzero = size > 0
    if not nonzero.all():
        size, tolerance = size[nonzero], tolerance[nonzero]
    if not size.size:
        return Finding(name, oracle, Verdict.AGREES, ratio=worst)
    with np.errstate(over="ignore", invalid="ignore"):
        relative = np.sort(tolerance / size)
    conclusive = int(np.searchsorted(relative, 1.0))  # the number of entries that rounding cannot move by their size
    if conclusive:
        return Finding(name, oracle, Verdict.AGREES, ratio=worst, detects_above=float(relative[conclusive // 2]))
    return Finding(name, oracle, Verdict.KINK if estimator.jumps(name) else Verdict.VACUOUS, ratio=worst)


def certified_enclosures(subject: Rule, primals: Primals, delta: Output, precision: str) -> dict[str, Enclosure]:
    """Return the certified enclosures of the subject's own primal and its derivative, by name.

    Empty if ball arithmetic cannot run: a framework's tensors hold no balls, python-flint may be missing.
    """
    if not subject.runs_on_object_arrays:
        return {}

    from oracles.exact import ball_arithmetic

    try:
        return ball_arithmetic.certified_enclosures(subject, primals, delta, precision)
    except (NotPerturbable, ImportError):
        return {}

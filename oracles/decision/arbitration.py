"""Settle a dispute, where rounding does not explain the difference.

In this order: a dtype coarser than fed, a kink, a proof by ball arithmetic, oracles that contradict one another,
digits lost in a formula that is right. What is left is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oracles.decision.comparison import EXACT, Answers, exact_answers, ratios_of, value_and_radius
from oracles.decision.kinks import subgradient
from oracles.decision.lost_digits import frameworks_lose
from oracles.decision.precision import formula_is_right, right_up_to
from oracles.rule import Array, Enclosure, Proof, Rule, as_tuple
from oracles.tolerance import (
    MORE_SAMPLES,
    ToleranceEstimator,
    is_coarser,
    named_outputs,
    precision_of,
    smallest_normal,
    unit_roundoff,
)
from oracles.verdict import Evidence, Finding, Setting, Verdict

LAST_SAMPLES = 96  # of rounding, before a right formula is refused for its digits or its choice at a kink
ARBITER_INPUTS = 1024  # up to so many inputs ball arithmetic is asked to arbitrate


@dataclass(frozen=True)
class Dispute:
    """One array of the subject that some oracle refuses."""

    name: str
    got: Array
    answers: Answers
    ratios: dict[str, Array]
    allowed: Array
    rounding: ToleranceEstimator
    setting: Setting

    @property
    def value(self) -> Array:
        """What the subject gave, in float64."""
        return np.asarray(self.got, np.float64)

    @property
    def is_cotangent(self) -> bool:
        """Whether this is a cotangent, and not an output."""
        return self.name in self.setting.primals

    @property
    def refusing(self) -> list[str]:
        """The oracles that refuse."""
        return [o for o, ratio in self.ratios.items() if np.any(ratio > 1)]

    @property
    def refused(self) -> Array:
        """The entries that any oracle refuses."""
        return np.asarray(np.any([ratio > 1 for ratio in self.ratios.values()], axis=0))

    @property
    def references(self) -> list[Rule]:
        """The oracles that differentiate a reference, rather than bound the subject's own derivative."""
        return [o for o in self.setting.oracles if not isinstance(self.answers.get(o.name), Enclosure | Proof | None)]


def settle(dispute: Dispute, *, declared: bool) -> list[Finding]:
    """Return a finding for every oracle; ``declared``: at a kink the oracles' choice alone is right."""
    coarse = _coarser_dtype(dispute)
    if coarse or not dispute.refusing:
        return coarse or _findings(dispute, Verdict.AGREES, False, "")
    dispute = _sampled_more(dispute)
    if not dispute.refusing:
        return _findings(dispute, Verdict.AGREES, False, "")
    at_kink = _at_kink(dispute)
    if at_kink and not set(dispute.refusing) & {o.name for o in dispute.references}:
        return _findings(dispute, Verdict.AGREES, False, "no derivative here; the balls follow another branch")
    if at_kink and declared:
        return _unless_rounding(dispute, Verdict.KINK, "no derivative here; another subgradient than the declared one")
    if at_kink:
        return _findings(dispute, Verdict.KINK, False, "no derivative here; a subgradient, and none is declared")
    proofs = _proofs(dispute)
    dispute, proven = _arbitrated(dispute, proofs)
    if proven:
        off = ", ".join(dispute.refusing)
        found = _findings(dispute, Verdict.AGREES, False, f"ball arithmetic proves the subject right, and {off} off")
        own = float(np.max(dispute.ratios[EXACT], initial=0.0))  # the rest of the difference is the other's error
        return [replace(f, ratio=own) if f.ratio > 1 else f for f in found]
    if EXACT not in dispute.answers and _contradicting(dispute):
        return _findings(dispute, Verdict.ORACLES_CONFLICT, True, "the oracles contradict one another here")
    if _nearly_another_function(dispute, proofs.get(dispute.name)):
        why = "the subject is right for its own primal, by ball arithmetic, and that differs from the reference in its"
        return _findings(dispute, Verdict.ORACLES_CONFLICT, True, why + " last digits: one of the two approximates")
    lost = _lost_digits(dispute)
    if lost:
        return _unless_rounding(dispute, Verdict.UNSTABLE, lost, refuses=_loses_too_much(dispute))
    why = "a kink is near, and this is no subgradient" if at_kink is False else ""
    return _findings(dispute, Verdict.WRONG, True, why)


def _sampled_more(dispute: Dispute) -> Dispute:
    """Where rounding moves a refused entry by about its own size, a few samples bound it badly: draw many."""
    want, refused = _reference(dispute), dispute.refused
    if not np.any((dispute.allowed >= np.abs(want) / 16)[refused] & (dispute.allowed > 0)[refused]):
        return dispute
    allowed = dispute.rounding.estimate(LAST_SAMPLES)[dispute.name]
    return replace(
        dispute, allowed=allowed, ratios=ratios_of(dispute.value, dispute.answers, allowed, dispute.got.dtype)
    )


def _lost_digits(dispute: Dispute) -> str:
    """Say that the formula is right and where its digits went; "" where the formula is wrong."""
    want, refused = _reference(dispute), dispute.refused
    right = formula_is_right(dispute.setting, dispute.name, want, dispute.allowed, refused)
    why = "" if right is False else right_up_to(dispute.value, want, dispute.allowed, dispute.rounding.precision)
    if right and not why:
        why = "the error shrinks with the precision: the formula is right and loses digits"
    if not why:
        return ""
    error = np.abs(dispute.value - want)
    return why + frameworks_lose(dispute.name, error, want, dispute.references, dispute.setting)[0]


def _loses_too_much(dispute: Dispute) -> bool:
    """Where no framework can be asked whether it loses as many digits, little is told, not refused.

    Little is less than half of the largest entry's digits: what cancels in a small entry, cancels for everybody.
    """
    want, half_the_digits = _reference(dispute), unit_roundoff(dispute.rounding.precision) ** 0.5
    grave = np.abs(dispute.value - want) > half_the_digits * np.max(np.abs(want), initial=0.0)
    return bool(dispute.references) or bool(np.any(grave & dispute.refused))


def _unless_rounding(dispute: Dispute, verdict: Verdict, reason: str, refuses: bool = True) -> list[Finding]:
    """Refuse, unless many more samples of rounding explain it: near a kink few of them may cross it."""
    allowed = dispute.rounding.estimate(LAST_SAMPLES)[dispute.name]
    ratios = ratios_of(dispute.value, dispute.answers, allowed, dispute.got.dtype)
    if not any(np.any(r > 1) for r in ratios.values()):
        return _findings(replace(dispute, ratios=ratios, allowed=allowed), Verdict.AGREES, False, "")
    return _findings(dispute, verdict, refuses, reason)


def _at_kink(dispute: Dispute) -> bool | None:
    """Return whether the subject gave a subgradient; ``None`` where no kink is near."""
    if not dispute.is_cotangent or not np.all(np.isfinite(dispute.value)):
        return None
    nearby = next(iter(dispute.references), dispute.setting.subject)
    want, _ = value_and_radius(dispute.answers[dispute.refusing[0]])
    point = dispute.rounding
    try:
        return subgradient(
            dispute.name,
            dispute.value,
            want,
            nearby,
            point.primals,
            point.delta,
            dispute.allowed,
            smallest_normal(point.precision),
        )
    except (TypeError, ValueError, KeyError, FloatingPointError):
        return None  # the rule cannot be asked beside the point


def _coarser_dtype(dispute: Dispute) -> list[Finding]:
    """Return the findings where the subject returned less precision than it was fed, undeclared."""
    fed = precision_of(dispute.setting.primals)
    returned = dispute.got.dtype
    if not is_coarser(returned, fed) or returned.name == dispute.rounding.precision:
        return []
    point = dispute.rounding
    allowed = ToleranceEstimator(point.sources, point.primals, point.delta, returned.name).estimate(MORE_SAMPLES)[
        dispute.name
    ]
    ratios = ratios_of(dispute.value, dispute.answers, allowed, returned)
    right = not any(np.any(r > 1) for r in ratios.values())
    why = f"dtype {returned}, expected {fed}" + (
        f"; right up to {returned}: declare precision={returned.name!r}, or compute in {fed}" if right else ""
    )
    verdict = Verdict.UNSTABLE if right else Verdict.WRONG
    return _findings(replace(dispute, ratios=ratios, allowed=allowed), verdict, True, why, all_refuse=True)


def _proofs(dispute: Dispute) -> Mapping[str, Proof]:
    """Return what ball arithmetic proves of the subject's own primal; nothing where it is large or does not run."""
    point = dispute.rounding
    if sum(np.size(a) for a in point.primals.values()) > ARBITER_INPUTS:
        return {}
    return exact_answers(dispute.setting.subject, point.primals, point.delta, point.precision).get(EXACT, {})


def _arbitrated(dispute: Dispute, proofs: Mapping[str, Proof]) -> tuple[Dispute, bool]:
    """Let ball arithmetic say what the cotangent is, and return whether it proves the subject right.

    What the balls enclose is the derivative of the subject's own primal: no argument where that is another function
    than the references', and none about the output itself.
    """
    answers = dict(dispute.answers)
    own = answers.pop(EXACT, None)
    proof = None if dispute.references else own
    if dispute.is_cotangent and _same_function(dispute, proofs):
        proof = proofs.get(dispute.name)
    if proof is not None:
        answers[EXACT] = proof
    ratios = ratios_of(dispute.value, answers, dispute.allowed, dispute.got.dtype)
    return replace(dispute, answers=answers, ratios=ratios), proof is not None and not np.any(ratios[EXACT] > 1)


def _same_function(dispute: Dispute, exact: Mapping[str, Any]) -> bool:
    """Return whether the subject's primal, in exact arithmetic, has a reference's value at the point."""
    point = dispute.rounding
    room = point.estimate(MORE_SAMPLES)

    def matches(oracle: Rule) -> bool:
        theirs = named_outputs(as_tuple(oracle(**point.primals)[0]), {})
        return all(
            n in exact and np.all(np.abs(exact[n].mid - y) <= room[n] + exact[n].radius) for n, y in theirs.items()
        )

    return not dispute.references or any(map(matches, dispute.references))


def _nearly_another_function(dispute: Dispute, proof: Proof | None) -> bool:
    """Return whether subject and references differ by less than half the digits, and the subject's own are proven.

    torch's softplus is the identity from 20 on, which is off by 1e-13: neither side has a bug.
    """
    if proof is None or not dispute.references:
        return False
    want, _ = value_and_radius(dispute.answers[dispute.references[0].name])
    consistent = np.abs(dispute.value - proof.mid) <= dispute.allowed + proof.radius
    close = np.abs(proof.mid - want) <= unit_roundoff("float64") ** 0.5 * np.abs(want)
    return bool(np.all((consistent & close)[dispute.refused]))


def _contradicting(dispute: Dispute) -> bool:
    """Return whether the oracles, all in float64, differ from one another by more than float64 rounding allows."""
    point = dispute.rounding
    fine = ToleranceEstimator(point.sources, point.primals, point.delta, "float64").estimate(MORE_SAMPLES)[dispute.name]
    parts = [value_and_radius(a) for a in dispute.answers.values()]
    return any(bool(np.any(np.abs(a - b) > fine + ra + rb)) for i, (a, ra) in enumerate(parts) for b, rb in parts[:i])


def _reference(dispute: Dispute) -> Array:
    """Return the best knowledge of the truth: what ball arithmetic proves, else what the first refusing oracle says."""
    best = EXACT if EXACT in dispute.answers else dispute.refusing[0]
    return value_and_radius(dispute.answers[best])[0]


def _findings(
    dispute: Dispute, verdict: Verdict, refuses: bool, reason: str, *, all_refuse: bool = False
) -> list[Finding]:
    """Return one finding for every oracle; those that accept the subject agree."""
    found = []
    for oracle, ratio in dispute.ratios.items():
        worst = float(np.max(ratio, initial=0.0))
        if worst > 1 or all_refuse:
            evidence = _evidence(dispute, ratio, reason)
            found.append(Finding(dispute.name, oracle, verdict, refuses, worst, evidence=evidence))
        else:
            found.append(Finding(dispute.name, oracle, Verdict.AGREES, ratio=worst))
    return found


def _evidence(dispute: Dispute, ratio: Array, reason: str) -> Evidence:
    if not ratio.size:
        return Evidence(reason=reason)
    index: Sequence[Any] = np.unravel_index(int(np.argmax(ratio)), ratio.shape)
    where = tuple(int(i) for i in index)
    said = {o: float(value_and_radius(a)[0][where]) for o, a in dispute.answers.items()}
    exact = dispute.answers.get(EXACT)
    return Evidence(
        where,
        float(dispute.value[where]),
        said,
        float(np.broadcast_to(dispute.allowed, ratio.shape)[where]),
        (float(exact.mid[where]), float(exact.radius[where])) if isinstance(exact, Proof) else None,
        (int(np.count_nonzero(ratio > 1)), ratio.size),
        reason,
    )

"""Digits that a right formula loses: more than rounding need take, or as many as the frameworks lose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oracles.decision.comparison import Answers, value_and_radius
from oracles.rule import Array, Proof, Rule
from oracles.tolerance import unit_roundoff
from oracles.verdict import Evidence, Finding, Setting, Verdict


def digits_lost(name: str, got: Array, answers: Answers, oracle: str, setting: Setting) -> Finding | None:
    """Return a finding where a proof shows that most digits are lost which rounding need not take.

    The frameworks' own backward may lose them as well, so that the difference is within what rounding does to the
    references: then it is worth telling, and no reason to refuse. So it is where there is no framework to ask, and the
    largest entry keeps more than half of its digits.
    """
    proof = answers[oracle]
    if not isinstance(proof, Proof) or name not in setting.primals:
        return None
    error, size = np.abs(got - proof.mid), np.abs(proof.mid)
    half_the_digits = unit_roundoff(setting.precision) ** 0.5
    lost = (error > proof.rounding + proof.radius) & (error > half_the_digits * size)
    if not np.any(lost):
        return None
    where = tuple(int(i) for i in np.argwhere(lost)[0])
    frameworks = [o for o in setting.oracles if o.framework]
    said, worse = frameworks_lose(name, error, proof.mid, frameworks, setting)
    small = not frameworks and not np.any(error > half_the_digits * np.max(size))  # nobody can be asked: told
    reason = f"right as a formula, but it loses digits that need not be lost{said}"
    values = {o: float(value_and_radius(a)[0][where]) for o, a in answers.items()}
    room = float((proof.rounding + proof.radius)[where])
    evidence = Evidence(
        where, float(got[where]), values, room, (float(proof.mid[where]), float(proof.radius[where])),
        (int(np.count_nonzero(lost)), lost.size), reason,
    )  # fmt: skip
    ratio = float(error[where]) / room if room else np.inf  # a Python float overflows in silence
    return Finding(name, oracle, Verdict.UNSTABLE, not (worse or small), ratio, evidence=evidence)


def frameworks_lose(
    name: str, error: Array, truth: Array, frameworks: Sequence[Rule], setting: Setting
) -> tuple[str, bool]:
    """Say whether the frameworks' own backward, in the subject's precision, loses as many digits, and if all do."""
    lost = []
    for oracle in frameworks:
        try:
            _, pullback = oracle(**setting.primals)
            theirs = np.asarray(dict(pullback(setting.delta))[name], np.float64)
        except (TypeError, ValueError, RuntimeError, KeyError):
            continue
        as_much = bool(np.max(np.abs(theirs - truth), initial=0.0) >= np.max(error, initial=0.0) / 4)
        lost.append((oracle.name, as_much))
    words = ", ".join(f"{o}'s own backward {'loses as much' if much else 'does not'}" for o, much in lost)
    return (f"; {words}" if words else ""), bool(lost) and all(much for _, much in lost)

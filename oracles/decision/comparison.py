"""Error against tolerance, entry by entry, and what an agreement detects_above."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from oracles.rule import Array, Enclosure, NotPerturbable, Primals, Proof, Rule
from oracles.tolerance import ToleranceEstimator
from oracles.verdict import Finding, Verdict

Answers: TypeAlias = Mapping[str, Any]  # an array or an Enclosure by oracle
EXACT = "exact"


def value_and_radius(answer: Any) -> tuple[Array, Array | float]:
    """Return what an oracle says, in float64, and how far it may itself be off."""
    return (
        (answer.mid, answer.radius) if isinstance(answer, Enclosure | Proof) else (np.asarray(answer, np.float64), 0.0)
    )


def ratios_of(got: Array, answers: Answers, allowed: Array, dtype: np.dtype[Any]) -> dict[str, Array]:
    """Return |error| / tolerance for every oracle: up to 1 is rounding."""
    return {o: _ratio(got, *value_and_radius(answer), allowed, dtype) for o, answer in answers.items()}


def _ratio(got: Array, want: Array, radius: Array | float, allowed: Array, dtype: np.dtype[Any]) -> Array:
    """NaN equals nothing; Inf only the same Inf, and only where the answer overflows the subject's dtype.

    Where rounding alone reaches beyond that dtype nothing can be told, and `_agreeing` counts it as blind.
    """
    with np.errstate(all="ignore"):
        error, room = np.abs(got - want), allowed + radius
        ratio = np.where(error == 0, 0.0, error / room)
        if not np.all(np.isfinite(got)):
            largest = float(np.finfo(dtype).max) if dtype.kind == "f" else 3.4e38
            overflows = np.isinf(got) & (np.sign(got) == np.sign(want)) & (np.abs(want) + room > largest)
            ratio = np.where(overflows, 0.0, np.where(np.isfinite(got), ratio, np.inf))
            ratio = np.where(~np.isfinite(got) & (np.abs(want) <= largest) & (room > largest), 0.0, ratio)
    return np.where(np.isnan(ratio), np.inf, ratio)


def at_once(
    got: Mapping[str, Array], answers: Mapping[str, Answers], rounding: ToleranceEstimator
) -> list[Finding] | None:
    """Compare all arrays with every oracle in a few operations on flat vectors; ``None`` where any entry is refused.

    Most points agree, and this decides them; what it does not accept is looked at array by array.
    """
    allowed = rounding.estimate()
    flat = _flat([got[n] for n in got])
    findings: list[Finding] = []
    resolved: dict[str, Finding] = {}
    for oracle, said in answers.items():
        names = [n for n in got if n in said]
        mine = flat if len(names) == len(got) else _flat([got[n] for n in names])
        want = _flat([value_and_radius(said[n])[0] for n in names])
        room = _flat([_room(said[n], allowed[n]) for n in names])
        error = np.abs(mine - want)
        if not (error <= room).all():
            return None
        ratio = np.divide(error, room, out=np.zeros_like(error), where=error > 0)
        size, stop = np.abs(want), 0
        for n in names:
            start, stop = stop, stop + got[n].size
            worst = float(ratio[start:stop].max()) if stop > start else 0.0
            if n in resolved and not isinstance(said[n], Enclosure | Proof):  # the same but for rounding
                findings.append(replace(resolved[n], oracle=oracle, ratio=worst))
            else:
                findings.append(_agreeing(n, oracle, worst, size[start:stop], room[start:stop], rounding))
                if not isinstance(said[n], Enclosure | Proof):
                    resolved[n] = findings[-1]
    return findings


def _room(answer: Any, allowed: Array) -> Array:
    """Return how far the subject may lie from an answer: a proof has a bound of its own."""
    if isinstance(answer, Proof):
        return np.asarray(answer.rounding + answer.radius)
    return np.asarray(allowed + value_and_radius(answer)[1])


def _flat(arrays: list[Any]) -> Array:
    return np.concatenate([np.asarray(a, np.float64).ravel() for a in arrays]) if arrays else np.zeros(0)


def agreeing(
    name: str, oracle: str, got: Array, answers: Answers, allowed: Array, rounding: ToleranceEstimator
) -> Finding:
    """Return the finding of an oracle that accepts one array."""
    want, radius = value_and_radius(answers[oracle])
    room = np.broadcast_to(allowed + radius, want.shape)
    if isinstance(answer := answers[oracle], Proof) and np.all(np.abs(got - want) <= _room(answer, allowed)):
        room = _room(answer, allowed)
    with np.errstate(all="ignore"):
        ratio = np.where(got == want, 0.0, np.abs(got - want) / room)
    worst = float(np.max(np.where(np.isfinite(got), ratio, 0.0), initial=0.0))
    return _agreeing(name, oracle, worst, np.abs(want).ravel(), room.ravel(), rounding)


def _agreeing(name: str, oracle: str, worst: float, size: Array, room: Array, rounding: ToleranceEstimator) -> Finding:
    """Say what an agreement detects_above, and whether anything could be seen at all."""
    seen = size > 0
    if not seen.all():
        size, room = size[seen], room[seen]
    if not size.size:
        return Finding(name, oracle, Verdict.AGREES, ratio=worst)
    with np.errstate(over="ignore", invalid="ignore"):
        relative = np.sort(room / size)
    sharp = int(np.searchsorted(relative, 1.0))  # entries that rounding could not move by their own size
    if sharp:
        return Finding(name, oracle, Verdict.AGREES, ratio=worst, detects_above=float(relative[sharp // 2]))
    return Finding(name, oracle, Verdict.KINK if rounding.jumps(name) else Verdict.VACUOUS, ratio=worst)


def exact_answers(subject: Rule, primals: Primals, delta: Any, precision: str) -> dict[str, dict[str, Any]]:
    """Return what ball arithmetic proves of the subject's own primal; nothing where it cannot run there."""
    if subject.framework:
        return {}  # a framework's tensors hold no balls

    from oracles.exact.ball_arithmetic import enclosure_and_radius

    try:
        exact, rounding = enclosure_and_radius(subject, primals, delta, precision)
        return {EXACT: {n: Proof(*exact[n], rounding[n]) for n in exact}}
    except (NotPerturbable, ImportError):
        return {}

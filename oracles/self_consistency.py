"""The laws that a subject keeps with itself, whatever an oracle says: nothing mutated, the same however it is called.

Each law takes a Rule and a point and returns findings. Where bits may differ, ``room`` bounds what rounding can do:
``(name, samples) -> tolerance``, asked only where the bits do differ, and for many samples where few do not explain it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from oracles.backends.arrays import copied
from oracles.constants import FIRST_SAMPLES, MORE_SAMPLES
from oracles.rule import Array, Evaluate, Primals, Rule, as_tuple, is_differentiable
from oracles.tolerance import named_outputs, tolerance_at
from oracles.verdict import Evidence, Finding, Verdict

Room: TypeAlias = Callable[[str, int], Array]


def self_tolerance_at(subject: Rule, oracles: Sequence[Rule], primals: Primals, delta: Any, precision: str) -> Room:
    """Return ``(name, samples) -> tolerance`` at a point, evaluated when first asked for.

    Twice what rounding allows against an oracle: held against itself, a subject errs on both sides.
    """
    rounding = tolerance_at(oracles, primals, delta, precision, fallback=subject)
    return lambda name, samples: 2 * rounding.estimate(samples)[name]


def values(evaluate: Callable[..., Any], primals: Primals, delta: Any) -> dict[str, Any]:
    """Return outputs and cotangents of one evaluation, by name."""
    y, pullback = evaluate(**primals)
    return named_outputs(as_tuple(y), dict(pullback(delta)))


def on_copies(subject: Rule) -> Rule:
    """Return the subject on copies of what it is given: one that writes into its arguments moves nobody else's point.

    A write that does nothing the second time, as ReLU in place, would otherwise never be seen.
    """

    def guarded(evaluate: Evaluate) -> Evaluate:
        def copying(**primals: Array) -> tuple[Any, Any]:
            y, pullback = evaluate(**{n: copied(a) for n, a in primals.items()})
            return y, lambda delta: pullback(tuple(map(copied, delta)) if isinstance(delta, tuple) else copied(delta))

        return copying

    ways = {way: guarded(evaluate) for way, evaluate in subject.call_patterns.items()}
    return replace(subject, evaluate=guarded(subject.evaluate), call_patterns=ways)


def nothing_mutated(subject: Rule, primals: Primals, delta: Any) -> tuple[list[Finding], dict[str, Array]]:
    """Neither forward nor backward writes into what it is given; return what was given and returned, by name, too."""
    given = {n: a.copy() for n, a in primals.items()}
    given |= {f"delta[{i}]": np.array(d) for i, d in enumerate(as_tuple(delta))}
    before = {n: a.tobytes() for n, a in given.items()}
    deltas = tuple(given[n] for n in given if n not in primals)
    returned = values(subject, {n: given[n] for n in primals}, deltas if isinstance(delta, tuple) else deltas[0])
    findings = [
        finding(
            f"the primal {n}" if n in primals else n,
            a.tobytes() == before[n],
            f"{n} was written into",
            _fix_of_writing(n),
        )
        for n, a in given.items()
    ]
    arrays = {("given", n): a for n, a in given.items()}
    arrays |= {("returned", n): a for n, a in returned.items() if isinstance(a, np.ndarray)}
    return findings, {f"{kind} {n}": a for (kind, n), a in arrays.items()}


def nothing_aliased(arrays: Mapping[str, Array]) -> Iterator[Finding]:
    """No returned array shares memory with another, given or returned; ``arrays`` as `nothing_mutated` returns them."""
    for i, (label, a) in enumerate(arrays.items()):
        for other, b in list(arrays.items())[:i]:
            if "returned" in (label.split()[0], other.split()[0]):
                name = label.split()[1]
                fix = f"return {'y' if name.startswith('output') else f'd{name}'}.copy()"
                yield finding(name, not np.shares_memory(a, b), f"{label} shares memory with {other}", fix)


def same_every_time(subject: Rule, primals: Primals, delta: Any, room: Room) -> list[Finding]:
    """Evaluated twice, pulled back twice, another evaluation between, and called in every other way that it has.

    NumPy gives the same bits; what another library or device computes may differ by rounding.
    """

    def same(name: str, got: Any, want: Any, reason: str) -> Finding:
        if not subject.is_bitwise_reproducible and np.shape(got) == np.shape(want):
            return within(name, got, want, room, reason)
        return finding(name, _same_bits(got, want), reason)

    beside = _beside(subject, primals, delta)
    y, pullback = subject(**primals)
    first = named_outputs(as_tuple(y), dict(pullback(delta)))
    kept = {n: np.array(a) for n, a in first.items()}
    _, pullback_beside = subject(**beside)
    again, between, interleaved = pullback(delta), pullback_beside(delta), pullback(delta)
    fresh = subject(**beside)[1](delta)
    found = []
    for n in again:
        found.append(same(n, again[n], kept[n], "a second pullback differs, after another forward"))
        found.append(same(n, interleaved[n], kept[n], "a pullback interleaved with another differs"))
        found.append(same(n, between[n], fresh[n], "the other pullback differs from a fresh one"))
    anew = values(subject, primals, delta)
    found += [same(n, anew[n], kept[n], "a second evaluation differs") for n in kept]
    found += [finding(n, _same_bits(first[n], kept[n]), "an array already returned was written into") for n in kept]
    for way, evaluate in subject.call_patterns.items():
        found += called_by_pattern(way, evaluate, primals, delta, kept, room)
    return found


def called_by_pattern(
    way: str, evaluate: Evaluate, primals: Primals, delta: Any, want: Mapping[str, Any], room: Room
) -> list[Finding]:
    """Another way of calling the subject gives what ``want`` says, within rounding."""
    try:
        got = values(evaluate, primals, delta)
    except Exception as error:
        return [finding("cotangents", False, f"{way}: {type(error).__name__}: {error}")]
    return [
        within(n, got[n], want[n], room, f"{way} gives another answer")
        if n in got
        else finding(n, False, f"{way}: none")
        for n in want
    ]


def elsewhere(primals: Primals) -> dict[str, Array]:
    """Return another point of the same shapes, in the same domain: the entries in another order, a little smaller."""
    return {
        n: np.asarray((0.75 * a if is_differentiable(a) else a).ravel()[::-1].reshape(a.shape)).astype(a.dtype)
        for n, a in primals.items()
    }


def _beside(subject: Rule, primals: Primals, delta: Any) -> Primals:
    """Return another point at which the subject can be evaluated; the same one where its domain has no such."""
    other = elsewhere(primals)
    try:
        subject(**other)[1](delta)
    except Exception:
        return primals
    return other


def within(name: str, got: Any, want: Any, room: Room, reason: str) -> Finding:
    """Hold two values of the subject against each other; rounding is looked at only where the bits differ."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    if got.shape != want.shape:
        return finding(name, False, f"{reason}: shape {got.shape} against {want.shape}")
    error = np.where(got == want, 0.0, np.abs(got - want))
    if not np.any(error != 0):
        return Finding(name, "self-consistency", Verdict.AGREES)
    for samples in (FIRST_SAMPLES, MORE_SAMPLES):
        allowed = np.broadcast_to(room(name, samples), error.shape)
        with np.errstate(all="ignore"):
            ratio = np.where(error == 0, 0.0, np.where(np.isnan(error), np.inf, error / allowed))
        worst = float(np.max(ratio))
        if worst <= 1:
            return Finding(name, "self-consistency", Verdict.AGREES, ratio=worst)
    index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), ratio.shape))
    refused = int(np.count_nonzero(ratio > 1)), ratio.size
    evidence = Evidence(
        index,
        float(got[index]),
        {"self-consistency": float(want[index])},
        float(allowed[index]),
        refused=refused,
        reason=reason,
    )
    return Finding(name, "self-consistency", Verdict.WRONG, True, worst, evidence=evidence)


def finding(name: str, holds: bool, reason: str, fix: str = "") -> Finding:
    """Return the finding on a law that knows no rounding."""
    if holds:
        return Finding(name, "self-consistency", Verdict.AGREES)
    return Finding(name, "self-consistency", Verdict.WRONG, True, np.inf, evidence=Evidence(reason=reason, fix=fix))


def _same_bits(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return bool(a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def _fix_of_writing(name: str) -> str:
    own = name.split("[")[0]
    return f"{own} = {own}.copy()      # or out of place: {own} = {own} * mask, not {own} *= mask"

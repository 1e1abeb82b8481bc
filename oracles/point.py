"""One point, whole: a subject against its oracles under several cotangents, and against itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from oracles import self_consistency
from oracles.backends.arrays import copied, numpy_array
from oracles.decision.judge import Kinks, cotangents_like, judge
from oracles.decision.type_errors import CALL, refuse_exception
from oracles.finite_differences import finite_difference
from oracles.report.disagreement import require
from oracles.rule import InvalidInput, Primals, Rule, as_tuple
from oracles.tolerance import precision_name, precision_of
from oracles.verdict import Result, Setting


def check(
    subject: Rule,
    primals: Mapping[str, Any],
    against: Sequence[Rule] = (),
    delta: Any = None,
    *,
    precision: str | None = None,
    kinks: Kinks = "any",
    isolate: bool = False,
    seconds: float = 60.0,
    seed: int = 0,
) -> Result:
    """Judge the subject's output and pullback at one point; return the result where nothing refuses it.

    Beside the values, the subject must write into nothing that it is given, and give the same every time and in every
    way that it can be called.

    Args:
        subject: the Rule under test, see `oracles.manual`.
        primals: its inputs by name, as NumPy arrays, torch tensors or JAX arrays. Floating ones are judged; integers
            and booleans have no cotangent.
        against: the oracles. Without any, finite differences of the subject's own primal judge it, and ball
            arithmetic where python-flint is installed and the primal is NumPy.
        delta: the cotangent of the output; by default three signed ones are drawn from ``seed``.
        precision: what the subject computes in where it is less than it is fed: ``"float32"``.
        kinks: where there is no derivative, accept "any" subgradient, or only the one that the oracles' references
            are written to give: the convention that the subject has "declared".
        isolate: run the subject in a process of its own, see `oracles.isolated`: a crash is then a finding.
        seconds: how long one call of an isolated subject may take.
        seed: of the drawn cotangents.

    Raises:
        Disagreement: (an AssertionError) if the subject is refused; it carries the verdict and its evidence.
        InvalidInput: (a TypeError and a ValueError) if the arguments do not fit together; states what was expected and
            what was given.
        ReferenceFailed: if a reference raises: then nothing is known of the subject.
    """
    arrays = {name: copied(numpy_array(f"primals[{name!r}]", value)) for name, value in primals.items()}
    if precision is not None:
        precision_name(precision)
    if isolate:
        from oracles.adapters.child_process import isolated

        subject = isolated(subject, seconds=seconds)
    itself, subject = subject, self_consistency.on_copies(subject)
    oracles = _distinct(against) or (finite_difference(subject),)
    deltas, failed = _deltas(subject, arrays, delta, oracles, seed)
    results = [failed] if failed else []
    for d in deltas:
        results.append(judge(subject, arrays, d, oracles, precision=precision, kinks=kinks, property_name="check"))
    if deltas and not any(f.quantity == CALL for result in results for f in result.findings):
        results.append(_laws(itself, arrays, deltas[0], oracles, precision))
    worst = max(results, key=lambda r: r.worst.gravity if r.worst else (False, 0, 0.0))
    causes = [result.cause for result in results if result.cause]
    findings = tuple(finding for result in results for finding in result.findings)
    notes = tuple(dict.fromkeys(note for result in results for note in result.notes))
    not_claimed = tuple(dict.fromkeys(name for result in results for name in result.not_claimed))
    return require(Result(subject.name, "check", findings, not_claimed, worst.setting, notes, next(iter(causes), None)))


def _distinct(oracles: Sequence[Rule]) -> tuple[Rule, ...]:
    """Give every oracle a name of its own: two references may both be called "torch"."""
    names: dict[str, int] = {}
    found = []
    for oracle in oracles:
        names[oracle.name] = count = names.get(oracle.name, 0) + 1
        found.append(oracle if count == 1 else replace(oracle, name=f"{oracle.name} {count}"))
    return tuple(found)


def _deltas(
    subject: Rule, primals: Primals, delta: Any, oracles: Sequence[Rule], seed: int
) -> tuple[list[Any], Result | None]:
    """Return the cotangents to judge with, or the result that says why there are none: the forward raised."""
    try:
        y, _ = subject(**primals)
    except InvalidInput:
        raise
    except Exception as error:
        setting = Setting(subject, tuple(oracles), primals, (), precision_of(primals))
        return [], Result(
            subject.name, "check", (refuse_exception("the forward", error),), setting=setting, cause=error
        )
    if delta is None:
        return cotangents_like(y, np.random.default_rng(seed)), None
    given = tuple(numpy_array("delta", d) for d in as_tuple(delta))
    wanted, came = [np.shape(part) for part in as_tuple(y)], [d.shape for d in given]
    if wanted != came:
        like = ", ".join(f"rng.standard_normal({shape})" for shape in wanted)
        raise InvalidInput(
            f"delta: expected shape {', '.join(map(str, wanted))} like the output, got {', '.join(map(str, came))}.\n"
            f"Fix: leave delta out, and three are drawn; or\n    delta={like if len(wanted) == 1 else f'({like})'}"
        )
    return [given if isinstance(delta, tuple | list) else given[0]], None


def _laws(subject: Rule, primals: Primals, delta: Any, oracles: Sequence[Rule], precision: str | None) -> Result:
    """Hold the subject against itself: what no comparison of values shows."""
    working = precision_name(precision) if precision else precision_of(primals)
    setting = Setting(subject, tuple(oracles), primals, delta, working)
    try:
        findings, arrays = self_consistency.nothing_mutated(subject, primals, delta)
        shared = [f for f in self_consistency.nothing_aliased(arrays) if f.refuses]
        findings += self_consistency.same_every_time(
            self_consistency.on_copies(subject),
            primals,
            delta,
            self_consistency.self_tolerance_at(subject, oracles, primals, delta, working),
        )
    except Exception as error:
        return Result(subject.name, "check", (refuse_exception("a second call", error),), setting=setting, cause=error)
    notes = tuple(f"{f.evidence.reason}: writing into one changes the other; {f.evidence.fix}" for f in shared)
    refused = tuple(f for f in findings if f.refuses)
    return Result(subject.name, "check", refused, setting=setting, notes=notes)

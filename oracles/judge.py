"""Hold a subject against its oracles at one point: exact shapes and dtypes first, then values, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from oracles import laws
from oracles.arbitration import Dispute, settle
from oracles.comparison import Answers, agreeing, at_once, exact_answers, ratios_of
from oracles.digits import digits_lost
from oracles.disagreement import require
from oracles.finite_difference import finite_difference
from oracles.lifts.arrays import copied, numpy_array
from oracles.misfits import CALL, is_array, misfits, parts_of, raised, refused, require_installed
from oracles.rounding import (
    MORE_SAMPLES,
    SECOND_SAMPLES,
    Rounding,
    is_coarser,
    named_outputs,
    precision_name,
    precision_of,
    rounding_at,
)
from oracles.rule import (
    Array,
    Opaque,
    Primals,
    ReferenceFailed,
    Rule,
    Unfit,
    is_differentiable,
    outputs,
    with_dtype,
)
from oracles.verdict import Finding, Result, Setting

Kinks = Literal["any", "declared"]
EXACT_INPUTS = 8  # up to so many inputs ball arithmetic judges every point; above, it arbitrates
LONE_EXACT_INPUTS = 256  # up to so many it judges where no reference does


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
        Unfit: (a TypeError and a ValueError) if the arguments do not fit together: says what was expected and what
            came.
        ReferenceFailed: if a reference raises: then nothing is known of the subject.
    """
    arrays = {name: copied(numpy_array(f"primals[{name!r}]", value)) for name, value in primals.items()}
    if precision is not None:
        precision_name(precision)
    if isolate:
        from oracles.lifts.isolated import isolated

        subject = isolated(subject, seconds=seconds)
    itself, subject = subject, laws.on_copies(subject)
    oracles = _distinct(against) or (finite_difference(subject),)
    deltas, failed = _deltas(subject, arrays, delta, oracles, seed)
    results = [failed] if failed else []
    for d in deltas:
        results.append(judge(subject, arrays, d, oracles, precision=precision, kinks=kinks, check="check"))
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
    except Unfit:
        raise
    except Exception as error:
        setting = Setting(subject, tuple(oracles), primals, (), precision_of(primals))
        return [], Result(subject.name, "check", (raised("the forward", error),), setting=setting, cause=error)
    if delta is None:
        return cotangents_like(y, np.random.default_rng(seed)), None
    given = tuple(numpy_array("delta", d) for d in outputs(delta))
    wanted, came = [np.shape(part) for part in outputs(y)], [d.shape for d in given]
    if wanted != came:
        like = ", ".join(f"rng.standard_normal({shape})" for shape in wanted)
        raise Unfit(
            f"delta: expected shape {', '.join(map(str, wanted))} like the output, got {', '.join(map(str, came))}.\n"
            f"Fix: leave delta out, and three are drawn; or\n    delta={like if len(wanted) == 1 else f'({like})'}"
        )
    return [given if isinstance(delta, tuple | list) else given[0]], None


def _laws(subject: Rule, primals: Primals, delta: Any, oracles: Sequence[Rule], precision: str | None) -> Result:
    """Hold the subject against itself: what no comparison of values shows."""
    working = precision_name(precision) if precision else precision_of(primals)

    def room(name: str, samples: int) -> Array:  # held against itself, a subject errs on both sides
        return 2 * rounding_at(oracles, primals, delta, working, fallback=subject).allowance(samples)[name]

    setting = Setting(subject, tuple(oracles), primals, delta, working)
    try:
        findings, arrays = laws.nothing_mutated(subject, primals, delta)
        shared = [f for f in laws.nothing_aliased(arrays) if f.refuses]
        findings += laws.same_every_time(laws.on_copies(subject), primals, delta, room)
    except Exception as error:
        return Result(subject.name, "check", (raised("a second call", error),), setting=setting, cause=error)
    notes = tuple(f"{f.evidence.reason}: writing into one changes the other; {f.evidence.fix}" for f in shared)
    refused = tuple(f for f in findings if f.refuses)
    return Result(subject.name, "check", refused, setting=setting, notes=notes)


def drawn_cotangents(subject: Rule, primals: Primals, rng: np.random.Generator, count: int = 3) -> list[Any]:
    """Draw signed cotangents for the subject's output, in its shape and dtype.

    Never all ones: under a cotangent of ones an all-zero softmax backward passes.
    """
    return cotangents_like(subject(**primals)[0], rng, count)


def cotangents_like(y: Any, rng: np.random.Generator, count: int = 3) -> list[Any]:
    """Draw signed cotangents in the shape and dtype of an output; a number for what is no array."""
    parts = [np.asarray(p if is_array(p) or isinstance(p, float) else 0.0) for p in outputs(y)]
    likes = [p if is_differentiable(p) else np.zeros(p.shape) for p in parts]
    draws = [tuple(np.asarray(rng.standard_normal(p.shape)).astype(p.dtype) for p in likes) for _ in range(count)]
    return [parts if isinstance(y, tuple | list) else parts[0] for parts in draws]


def judge(
    subject: Rule,
    primals: Primals,
    delta: Any,
    oracles: Sequence[Rule],
    *,
    precision: str | None = None,
    kinks: Kinks = "any",
    only: Iterable[str] | None = None,
    check: str = "cotangents_agree",
) -> Result:
    """Judge one evaluation of the subject against every oracle and return what was found, without raising.

    Args:
        subject, primals, delta, oracles, precision, kinks: as in `check`.
        only: judge these quantities alone ("output", or names of primals).
        check: the name that the result carries.
    """
    working = precision_name(precision) if precision else precision_of(primals)
    wide, wide_delta = with_dtype(dict(primals), np.float64), with_dtype(delta, np.float64)
    setting = Setting(subject, tuple(oracles), primals, delta, working)
    integers = {n for n, a in primals.items() if not is_differentiable(a)}
    what = "the forward"
    try:
        y, pullback = subject(**primals)
        evaluated = {oracle.name: _asked(oracle, oracle, **wide) for oracle in oracles}
        expected = {**_like_outputs(evaluated, primals), **primals}
        got = named_outputs(parts_of(y, precision_of(primals)), {})
        misfit = misfits(got, expected, working)
        if any(n not in expected or not is_array(a) or a.shape != np.shape(expected[n]) for n, a in got.items()):
            return Result(subject.name, check, misfit, setting=setting)  # delta does not fit the oracles' pullbacks
        what = "the pullback"
        cotangents = {n: g for n, g in dict(pullback(delta)).items() if n not in integers}
        answers = {
            oracle.name: named_outputs(outputs(evaluated[oracle.name][0]), _pulled(oracle, evaluated, wide_delta))
            for oracle in oracles
        }
    except (Unfit, ReferenceFailed):
        raise
    except Exception as error:
        return Result(subject.name, check, (raised(what, error),), setting=setting, cause=error)
    not_claimed = tuple(n for n in primals if n not in {*cotangents, *integers} and (only is None or n in only))
    got |= cotangents
    if only is not None:
        got = {n: a for n, a in got.items() if n in only}
    misfit = misfits(got, expected, working)
    if subject.declared is not None:
        misses = subject.declared.misses(primals, delta, cotangents, working)
        misfit += tuple(refused(n, reason) for n, reason in misses.items() if n in got)
    most = EXACT_INPUTS if any(oracle.reference for oracle in oracles) else LONE_EXACT_INPUTS
    if sum(np.size(a) for a in wide.values() if is_differentiable(a)) <= most:
        answers |= exact_answers(subject, wide, wide_delta, working)
    rounding = rounding_at(oracles, wide, wide_delta, working, fallback=subject, known=answers)
    if subject.declared is not None:
        answers = subject.declared.excused(primals, got, answers)
    got = {n: a for n, a in got.items() if n not in {f.quantity for f in misfit}}
    findings = None
    if all(a.dtype == expected[n].dtype for n, a in got.items()):
        findings = at_once(got, answers, rounding)
    if findings is None:
        findings = []
        for n in got:
            about = {o: a[n] for o, a in answers.items() if n in a}
            findings += _judged(n, got[n], about, rounding, setting, kinks)
    return Result(subject.name, check, (*misfit, *findings), not_claimed, setting)


def _asked(oracle: Rule, question: Callable[..., Any], *args: Any, **primals: Any) -> Any:
    """Ask an oracle; what its reference raises is no fault of the subject's."""
    try:
        return question(*args, **primals)
    except (Unfit, Opaque):
        raise
    except Exception as error:
        require_installed(error)
        if oracle.reference is None:
            raise  # it evaluates the subject's own primal
        at = ", ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in primals.items())
        raise ReferenceFailed(
            f"{oracle.name}: the reference raised {type(error).__name__}: {error}\n"
            f"Nothing is known of the subject{' at ' + at if at else ''}. The judge asks references in float64."
        ) from error


def _pulled(oracle: Rule, evaluated: Mapping[str, Any], delta: Any) -> dict[str, Any]:
    return dict(_asked(oracle, evaluated[oracle.name][1], delta))


def _judged(
    name: str, got: Array, answers: Answers, rounding: Rounding, setting: Setting, kinks: Kinks
) -> list[Finding]:
    """Judge one array: where a few samples of rounding do not explain it, draw more; then settle the dispute."""
    value = np.asarray(got, np.float64)
    ratios = ratios_of(value, answers, rounding.allowance()[name], got.dtype)
    for samples in (SECOND_SAMPLES, MORE_SAMPLES):
        if any(np.any(r > 1) for r in ratios.values()):
            ratios = ratios_of(value, answers, rounding.allowance(samples)[name], got.dtype)
    allowed = rounding.allowance()[name]
    if any(np.any(r > 1) for r in ratios.values()) or is_coarser(got.dtype, precision_of(setting.primals)):
        return settle(Dispute(name, got, answers, ratios, allowed, rounding, setting), declared=kinks == "declared")
    return [
        digits_lost(name, value, answers, o, setting) or agreeing(name, o, value, answers, allowed, rounding)
        for o in answers
    ]


def _like_outputs(evaluated: Mapping[str, Any], primals: Primals) -> dict[str, Array]:
    """Return what the outputs must be like: the shapes that an oracle gives, the dtype of the floating primals."""
    dtypes = [a.dtype for a in primals.values() if is_differentiable(a)]
    y, _ = next(iter(evaluated.values()))
    like = [
        np.broadcast_to(np.zeros((), np.result_type(*dtypes) if dtypes else np.float64), np.shape(part))
        for part in outputs(y)
    ]
    return named_outputs(tuple(like), {})

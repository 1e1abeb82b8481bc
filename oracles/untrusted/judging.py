"""Judge a subject that is not trusted: its answers as those of any subject, and whether it answers the same again.

The subject's process is given one point at a time and holds nothing else of the judge. `oracles.check` compares what it
answers with what a framework derives from the reference, in the judge's process.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
import tokenize
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from oracles.adapters.conventions import declared
from oracles.constants import CALLS_OF_A_POINT, CHECK_SECONDS, DECOY_CALLS, REPEATED_CALLS
from oracles.decision.judge import judge
from oracles.numerics import precision_of
from oracles.outputs import like
from oracles.point import check, declared_numerics
from oracles.report.compared import number
from oracles.report.disagreement import Disagreement, Inconclusive, InconclusiveWarning
from oracles.rule import (
    Array,
    Cotangents,
    InternalError,
    InvalidInput,
    Output,
    Pullback,
    ReferenceFailed,
    Rule,
    Runtime,
    as_tuple,
    is_differentiable,
    map_delta,
)
from oracles.untrusted.cases import UntrustedCase, UntrustedPoint, cases_of, points_of
from oracles.untrusted.forbidding import names_in, require_forbidden
from oracles.untrusted.judgement import Judgement
from oracles.untrusted.references import references_of
from oracles.untrusted.remote import (
    Call,
    Process,
    RemoteSubject,
    Sandbox,
    SubjectFailed,
    asked_again,
    differing,
    named_values,
)
from oracles.untrusted.sandbox import Limits
from oracles.untrusted.schema import require_valid
from oracles.untrusted.statuses import Status
from oracles.untrusted.template import Start
from oracles.verdict import Result, Verdict

_SUBJECT = re.compile(r"(?P<path>.*\.py):(?P<name>.+)", re.DOTALL)
# Jobs of several threads wait for one another: the imports of references and filters of warnings are the process's.
_ONE_JOB = threading.RLock()


def judge_untrusted(
    subject: str,
    reference: str | Sequence[str],
    cases: str | Path | Sequence[Mapping[str, Any]],
    *,
    source: str | None = None,
    seconds: float = 10.0,
    memory_mb: int = 2048,
    processes: int = 64,
    forbid: Sequence[str] = (),
    seed: int | None = None,
    diagnosis: bool = True,
    hidden: Sequence[str | Path] = (),
    sandbox: Sandbox | None = None,
) -> Judgement:
    """Judge a subject whose code is not trusted, in processes of its own, by its answers alone.

    Each is given the points one by one and holds neither the reference, nor what the oracles answer, nor the seed.

    Args:
        subject: ``"FILE.py:NAME"``, as of ``oracles check``: ``"kernel.py:forward,backward"``, ``"kernel.py:Silu"``; or
            NAME alone, of ``source``. The file is never imported in this process.
        reference: the primal that torch or JAX differentiates, ``"torch:reference.py:f"``, or several; this process
            imports it, and the subject cannot read its file.
        cases: where it is judged: ``[{"shapes": "z=4,3 W=3,2", "dtypes": ["float32"], "points": 3}]``, or the path of a
            JSON file of ``{"cases": [...]}``, or of an ``.npz`` file of primals, see `oracles.untrusted.cases`.
        source: the text of the subject's file, in place of one on disk.
        seconds: the limit of one call. The loading of the subject has 20 s, or this where it is longer.
        memory_mb: how much memory the subject may take beyond what its packages take.
        processes: how many processes and threads it may have.
        forbid: packages that it must not use, ``["torch", "jax"]``; ``"torch.autograd"`` forbids torch's derivatives.
        seed: of all draws; by default a new one that nobody can know before.
        diagnosis: whether a refusal is diagnosed, which takes seconds.
        hidden: further files and folders that the subject must not read: the cases, results of others.
        sandbox: warm processes of earlier jobs; by default new ones.

    Returns:
        The `Judgement`. Whatever the subject does is a status of it.

    Raises:
        InvalidInput: (a TypeError and a ValueError) for arguments that do not fit.

    Example:
        >>> judged = oracles.judge_untrusted("silu.py:forward,backward", "torch:torch.nn.functional.silu",
        ...                                  [{"shapes": "z=4,3"}])
        >>> judged.status
        'PASSED'
    """
    forbid, hidden = _as_list(forbid), _as_list(hidden)
    drawn = secrets.randbits(63) if seed is None else seed
    _require_types(
        subject=subject, reference=reference, cases=cases, source=source, seconds=seconds, memory_mb=memory_mb,
        processes=processes, forbid=forbid, seed=drawn, diagnosis=diagnosis,
    )  # fmt: skip
    with _ONE_JOB:
        job = _job(subject, reference, cases, source, seconds, forbid, hidden, Limits(memory_mb, processes=processes))
        job = replace(job, seed=drawn, diagnosis=diagnosis)
        began = time.monotonic()
        if sandbox is not None:
            judged = _judged(job, sandbox)
        else:
            with Sandbox() as own:
                judged = _judged(job, own)
        return replace(judged, seconds=time.monotonic() - began)


def _as_list(values: Any) -> Any:
    """Return a list of one text or path, and of a tuple; anything else as it is."""
    return [values] if isinstance(values, str | Path) else list(values) if isinstance(values, tuple) else values


def _require_types(**arguments: Any) -> None:
    """Require arguments of the types that a job of a batch has.

    Raises:
        InvalidInput: for the first other one.
    """
    given = {name: value for name, value in arguments.items() if value is not None or name == "cases"}
    given = {name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()}
    given["cases"] = str(cases) if isinstance(cases := given["cases"], str | Path) else _as_list(cases)
    given["reference"] = _as_list(given["reference"])
    require_valid(given, "job", "judge_untrusted: ")


@dataclass(frozen=True)
class _Job:
    """The arguments of `judge_untrusted`, read."""

    subject: str
    names: tuple[str, ...]
    references: tuple[Rule, ...]
    cases: tuple[UntrustedCase, ...]
    start: Start
    packages: tuple[str, ...]
    source: str
    seconds: float
    seed: int = 0
    diagnosis: bool = False


def _job(
    subject: str,
    reference: str | Sequence[str],
    cases: str | Path | Sequence[Mapping[str, Any]],
    source: str | None,
    seconds: float,
    forbid: Sequence[str],
    hidden: Sequence[str | Path],
    limits: Limits,
) -> _Job:
    """Read the arguments of a job.

    Raises:
        InvalidInput: if they do not fit.
    """
    if not hasattr(os, "fork"):
        raise InvalidInput("judge_untrusted: this system cannot fork processes. Fix:    use Linux, or WSL on Windows")
    parts = _SUBJECT.fullmatch(subject)
    if source is None and (parts is None or not Path(parts["path"]).is_file()):
        raise InvalidInput(
            f"judge_untrusted: subject: expected FILE.py:NAME of a file that exists, got {subject!r}.\n"
            'Fix:    subject="kernel.py:forward,backward", or source="..." and subject="forward,backward"'
        )
    name = subject if source is not None or parts is None else parts["name"]
    path = "" if source is not None or parts is None else os.path.abspath(parts["path"])
    text = source if source is not None else _text_of(path)
    named = references_of(reference)
    packages, no_autograd = require_forbidden(tuple(forbid))
    listed = cases_of(cases)
    secret = [file for each in named for file in each.files] + [_hidden(each) for each in hidden]
    secret += [each.stored_in for each in listed if each.stored_in]
    if isinstance(cases, str | Path):
        secret.append(str(cases))
    start = Start(
        f"{path or 'subject.py'}:{name}", "" if path else text, os.path.dirname(path),
        tuple(path for each in secret for path in _with_compiled(os.path.abspath(each))), packages, no_autograd, limits,
    )  # fmt: skip
    used = [n for n in ("torch", "jax") if re.search(rf"\b{n}\b", text) or (n == "torch" and no_autograd)]
    needed = tuple(n for n in used if n not in packages)
    rules = tuple(each.rule for each in named)
    texts = tuple(each.text for each in named)
    return _Job(subject, texts, rules, tuple(listed), start, needed, text, seconds)


def _text_of(path: str) -> str:
    try:
        with tokenize.open(path) as file:  # in the encoding that its first lines name
            return file.read()
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise InvalidInput(f"judge_untrusted: subject: {path} cannot be read as Python's text: {error}") from None


def _hidden(path: object) -> str:
    """Return the absolute path of what is hidden; it may be a file that will be written."""
    if not isinstance(path, str | Path):
        raise InvalidInput(f"judge_untrusted: hidden: expected paths, got {path!r}. Fix:    hidden=['answers.json']")
    full = Path(path).expanduser().absolute()
    if not full.parent.exists():
        raise InvalidInput(f"judge_untrusted: hidden: there is no folder {full.parent}, which {str(path)!r} is in")
    return str(full)


def _with_compiled(path: str) -> tuple[str, ...]:
    """Return a file and the folder in which Python keeps what it has compiled it to."""
    return path, os.path.join(os.path.dirname(path), "__pycache__")


class _Refused(Exception):
    """The subject is refused: the status, the reason, and the refusal of `oracles.check` if it is one."""

    def __init__(self, status: Status, reason: str, refusal: Disagreement | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.refusal = status, reason, refusal


@dataclass
class _Record:
    """What was judged so far."""

    points: list[dict[str, Any]] = field(default_factory=list)
    verdict: str = ""
    inconclusive: str = ""


def _judged(job: _Job, sandbox: Sandbox) -> Judgement:
    """Judge a job, whatever the subject does."""
    found = names_in(job.source) + names_in(job.subject) if job.start.forbids_autograd else []
    remote = RemoteSubject(sandbox, job.start, job.packages, job.seconds)
    record = _Record()
    status, reason, refusal = Status.PASSED, "", None
    try:
        if found:
            raise _Refused(Status.CHEATS, f"it uses torch's own derivatives, which is forbidden: {'; '.join(found)}")
        _judge_points(job, remote, record)
        _ask_again(job, remote, sandbox)
        status, reason = _passed(record)
    except _Refused as refused:
        status, reason, refusal = refused.status, refused.reason, refused.refusal
    except SubjectFailed as failure:
        status, reason = Status(failure.kind), str(failure)
    except (ReferenceFailed, InternalError, Inconclusive) as error:
        status, reason = Status.NOT_JUDGED, f"{type(error).__name__}: {error}".partition("\n")[0]
    finally:
        diagnosis, report = _described(refusal) if job.diagnosis and refusal else ("", "")
        remote.close()
    return Judgement(
        status, reason, job.subject, job.names, record.verdict, diagnosis, report, tuple(record.points),
        len(remote.calls), remote.protections, job.seed,
    )  # fmt: skip


def _described(refusal: Disagreement) -> tuple[str, str]:
    return refusal.diagnosis, str(refusal)


def _passed(record: _Record) -> tuple[Status, str]:
    """Return the status of a subject that nothing refuses."""
    judged = [point for point in record.points if point["verdict"] not in (Verdict.VACUOUS, "inconclusive")]
    if not judged:
        return Status.NOT_JUDGED, record.inconclusive or "rounding may move every gradient by its own size"
    return Status.PASSED, f"right at {len(judged)} of {len(record.points)} points"


def _judge_points(job: _Job, remote: RemoteSubject, record: _Record) -> None:
    """Judge the subject at all points, in random order.

    Raises:
        _Refused: at the first point that refuses it.
        SubjectFailed: if it gives no answer.
        ReferenceFailed, InternalError: if nothing is known.
    """
    remote.process()
    for point in points_of(job.cases, job.seed):
        # An exception outside of a domain, which the judge has tolerated at an earlier point, is no reason at this one.
        remote.forget_failure()
        remote.case, began = point.case, len(remote.calls)
        outcome, unfinished = _checked_in_time(job, remote, point)
        record.points.append({**_described_point(point), **_measured(outcome)})
        failure = remote.failure
        if failure is not None and (failure.kind != "RUNTIME_ERROR" or not isinstance(outcome, Result)):
            raise failure
        if unfinished is not None:
            raise unfinished
        if isinstance(outcome, _Refused):
            raise outcome
        if isinstance(outcome, Inconclusive):
            record.inconclusive = str(outcome).partition("\n")[0]
            continue
        record.verdict = _graver(record.verdict, outcome.verdict)
        if isinstance(outcome, Disagreement):
            raise _status_of(outcome, remote, point, began)
        _require_all(outcome, job.cases[point.case], point, remote)


def _checked_in_time(
    job: _Job, remote: RemoteSubject, point: UntrustedPoint
) -> tuple[Result | Disagreement | Inconclusive | _Refused, Exception | None]:
    """Return what `oracles.check` says at a point, and whose fault it is if the time was over before it said all.

    Raises:
        InvalidInput: if the job is invalid.
    """
    seconds = CHECK_SECONDS + CALLS_OF_A_POINT * job.seconds
    began, answering = time.monotonic(), remote.answering_seconds
    outcome = _checked(job, remote, point, seconds)
    if time.monotonic() - began < seconds or isinstance(outcome, Disagreement | _Refused):
        return outcome, None
    answered = remote.answering_seconds - answering
    if answered > seconds / 2:
        reason = f"its calls took {answered:.0f} of the {seconds:.0f} s of a point, which is not judged to the end"
        return outcome, SubjectFailed(Status.TIMEOUT, reason)
    return outcome, InternalError(f"a point was not judged to the end within {seconds:.0f} s")


def _checked(
    job: _Job, remote: RemoteSubject, point: UntrustedPoint, seconds: float
) -> Result | Disagreement | Inconclusive | _Refused:
    """Return what `oracles.check` says at a point.

    Raises:
        InvalidInput: if the job is invalid: the subject has not answered yet.
    """
    case = job.cases[point.case]
    subject = (
        remote.asked(declared(remote.rule(job.subject), **case.declared)) if case.declared else remote.rule(job.subject)
    )
    seed = int(np.random.default_rng((job.seed, point.case, point.point)).integers(2**31))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconclusiveWarning)
        try:
            return check(subject, point.primals, job.references, seed=seed, seconds=seconds, **case.options)
        except (Disagreement, Inconclusive) as outcome:
            return outcome
        except InvalidInput as error:
            if remote.last_output is None:
                raise
            return _Refused(Status.WRONG_SHAPE, str(error).partition("\n")[0])


def _described_point(point: UntrustedPoint) -> dict[str, Any]:
    shapes = {n: list(np.shape(a)) for n, a in point.primals.items()}
    return {"case": point.case, "point": point.point, "dtype": point.dtype, "shapes": shapes}


def _graver(verdict: str, other: Verdict) -> str:
    return str(max(Verdict(verdict or other), other, key=list(Verdict).index))


def _measured(outcome: Result | Exception) -> dict[str, Any]:
    """Return what the JSON says of a point besides where it is."""
    if isinstance(outcome, Disagreement):
        return {"verdict": str(outcome.verdict)}
    if not isinstance(outcome, Result):
        return {"verdict": "inconclusive" if isinstance(outcome, Inconclusive) else "wrong"}
    counts = list(outcome.judged.values())
    return {
        "verdict": str(outcome.verdict), "ratio": number(outcome.ratio),
        "detects_above": number(outcome.detects_above),
        "judged": [sum(k for k, _ in counts), sum(n for _, n in counts)],
    }  # fmt: skip


def _require_all(result: Result, case: UntrustedCase, point: UntrustedPoint, remote: RemoteSubject) -> None:
    """Require a gradient of every primal that has one, in the dtype of that primal.

    Raises:
        _Refused: if one is missing or of another dtype.
    """
    real = [n for n, a in point.primals.items() if is_differentiable(a)]
    wanted = case.wrt if case.wrt is not None else tuple(real)
    unknown = [n for n in wanted if n not in point.primals]
    if unknown:
        primals = ", ".join(point.primals)
        raise InvalidInput(f"cases: wrt: there is no primal {unknown[0]!r}; the primals are {primals}")
    missing = [n for n in wanted if n in result.not_claimed]
    if missing:
        raise _Refused(Status.WRONG_NUMERICS, f"there is no gradient of {', '.join(missing)}")
    refused = _type_refused(point, remote.calls[-1:], real)
    if refused:
        raise refused


def _type_refused(point: UntrustedPoint, calls: Sequence[Call], real: Sequence[str]) -> _Refused | None:
    """Return the refusal for a cotangent of another type, shape or dtype than its primal; ``None`` if there is none."""
    for call in calls:
        for name in real:
            if name not in call.values or call.values[name] is None:
                continue
            value, primal = call.values[name], point.primals[name]
            if not isinstance(value, np.ndarray):
                return _Refused(Status.WRONG_DTYPE, f"the gradient of {name} is {value!r}, no array")
            if value.shape != primal.shape:
                return _Refused(
                    Status.WRONG_SHAPE, f"the gradient of {name} has the shape {value.shape}, expected {primal.shape}"
                )
            if value.dtype != primal.dtype:
                return _Refused(
                    Status.WRONG_DTYPE, f"the gradient of {name} has the dtype {value.dtype}, expected {primal.dtype}"
                )
    return None


def _status_of(refusal: Disagreement, remote: RemoteSubject, point: UntrustedPoint, began: int) -> Exception:
    """Return what a refusal of `oracles.check` is: the first that fits of the subject's failures and statuses."""
    if remote.failure is not None:
        return remote.failure
    reason = str(refusal.evidence.reason) or _reason_of(refusal)
    calls = remote.calls[began:]
    real = [n for n, a in point.primals.items() if is_differentiable(a)]
    types = _type_refused(point, calls[:1], real) or _output_refused(refusal, remote)
    if types:
        return types
    if refusal.verdict is Verdict.ORACLES_CONFLICT:
        return ReferenceFailed(f"the references contradict one another: {reason}")
    changed = next((name for name in _changed(calls)), None)
    if changed is not None:
        return _Refused(Status.NOT_DETERMINISTIC, f"equal calls give different answers for {changed}", refusal)
    return _Refused(Status.WRONG_NUMERICS, reason, refusal)


def _output_refused(refusal: Disagreement, remote: RemoteSubject) -> _Refused | None:
    """Return the refusal for an output of another type, shape or dtype than the reference's."""
    setting, y = refusal.result.setting, remote.last_output
    if setting is None or not refusal.evidence.reason or refusal.evidence.subject is not None:
        return None
    expected, _ = setting.oracles[0](**setting.primals)
    for i, (part, wanted) in enumerate(zip(as_tuple(y), map(np.asarray, as_tuple(expected)), strict=False)):
        if not isinstance(part, np.ndarray | float):
            return _Refused(Status.WRONG_DTYPE, f"output {i} is {part!r}, no array", refusal)
        if np.shape(part) != wanted.shape:
            reason = f"output {i} has the shape {np.shape(part)}, expected {wanted.shape}"
            return _Refused(Status.WRONG_SHAPE, reason, refusal)
    if len(as_tuple(y)) != len(as_tuple(expected)):
        reason = f"there are {len(as_tuple(y))} outputs, expected {len(as_tuple(expected))}"
        return _Refused(Status.WRONG_SHAPE, reason, refusal)
    worst = refusal.result.worst
    if worst is not None and not worst.is_cotangent and refusal.evidence.reason.startswith("dtype"):
        return _Refused(Status.WRONG_DTYPE, f"output: {refusal.evidence.reason}", refusal)
    return None


def _reason_of(refusal: Disagreement) -> str:
    worst = refusal.result.worst
    if worst is None:
        return "it is refused"
    entry = f"[{', '.join(map(str, worst.evidence.index))}]" if worst.evidence.index else ""
    expected = next(iter(worst.evidence.oracles.values()), None)
    return (
        f"{worst.quantity}{entry} is {worst.evidence.subject!r}, expected {expected!r}: "
        f"{worst.ratio:.3g} times the tolerance ({worst.verdict})"
    )


def _changed(calls: Sequence[Call]) -> list[str]:
    """Return the names of what changed between equal calls."""
    first: dict[bytes, Call] = {}
    changed: list[str] = []
    for call in calls:
        earlier = first.setdefault(_key(call), call)
        changed += differing(earlier.values, call.values)
    return changed


def _key(call: Call) -> bytes:
    arrays = [np.asarray(a) for a in (*call.primals.values(), *as_tuple(call.delta))]
    return b"".join(str((a.dtype, a.shape)).encode() + a.tobytes() for a in arrays)


def _ask_again(job: _Job, remote: RemoteSubject, sandbox: Sandbox) -> None:
    """Ask some calls again, of the same process and of a new one, in random order among calls that are not judged.

    An answer that is not the same to the bit is judged itself: rounding may depend on how arrays lie in memory.

    Raises:
        _Refused: if one is wrong.
        SubjectFailed: if there is none.
    """
    rng = np.random.default_rng((job.seed, 2))
    chosen = [remote.calls[i] for i in rng.permutation(len(remote.calls))[:REPEATED_CALLS]]
    _repeat(job, [*chosen, *(_decoy(call, rng) for call in chosen[:DECOY_CALLS])], remote.process(), rng)
    remote.close()  # one process at a time: it may use all that the limits allow
    fresh = sandbox.start(job.start, job.packages, job.seconds)
    try:
        _repeat(job, chosen, fresh, rng)
    finally:
        fresh.end()


def _decoy(call: Call, rng: np.random.Generator) -> Call:
    """Return a call of the same shapes with other numbers; nothing is known of the answer."""
    primals = {
        n: (np.asarray(rng.standard_normal(a.shape)).astype(a.dtype) if is_differentiable(a) else a)
        for n, a in call.primals.items()
    }
    return Call(call.case, primals, call.delta, {}, call.asked)


def _repeat(job: _Job, calls: Sequence[Call], process: Process, rng: np.random.Generator) -> None:
    for i in rng.permutation(len(calls)):
        call = calls[i]
        y, cotangents = asked_again(call, process, job.seconds)
        later = named_values(y, cotangents)
        names = differing(call.values, later) if call.values else []
        if not names:
            continue
        changed = [n for n in names if not _is_same_kind(call.values.get(n), later.get(n))]
        if changed:
            raise _Refused(Status.NOT_DETERMINISTIC, f"asked again, it gives no such answer for {', '.join(changed)}")
        if _is_refused(job, call, y, cotangents) and not _is_refused(job, call, *_answered(call, y)):
            raise _Refused(
                Status.NOT_DETERMINISTIC,
                f"asked again in another order, it gives another answer for {', '.join(names)}, which is wrong",
            )


def _is_same_kind(a: Any, b: Any) -> bool:
    """Return whether two answers are arrays of one shape and dtype."""
    arrays = isinstance(a, np.ndarray) and isinstance(b, np.ndarray)
    return type(a) is type(b) and (not arrays or (a.shape, a.dtype) == (b.shape, b.dtype))


def _is_refused(job: _Job, call: Call, y: Output, cotangents: Cotangents) -> bool:
    """Return whether one answer is refused, under all that its case says."""
    case = job.cases[call.case]

    def evaluate(**primals: Array) -> tuple[Output, Pullback]:
        # One answer is no function: as a constant its derivative would be zero, so it has no value anywhere else.
        if all(np.array_equal(primals[n], a, equal_nan=is_differentiable(a)) for n, a in call.primals.items()):
            return y, lambda _: cotangents
        return map_delta(lambda part: np.full(np.shape(part), np.nan), y), lambda _: cotangents

    answer = Rule(evaluate, job.subject, runtime=Runtime.OPAQUE)
    subject = declared(answer, **case.declared) if case.declared else answer
    numerics = declared_numerics(case.options.get("precision"), None, precision_of(call.asked[0]))
    kinks = case.options.get("kinks", "any")
    return judge(subject, *call.asked, job.references, numerics=numerics, kinks=kinks).refuses


def _answered(call: Call, y: Output) -> tuple[Output, Cotangents]:
    """Return what was answered the first time, in the structure of a later output.

    At a call that `oracles.check` has not judged, of which it compares the answer with another one, it may be refused
    for lost digits itself.
    """
    parts = [value for name, value in call.values.items() if name.startswith("output[")]
    cotangents = {name: value for name, value in call.values.items() if not name.startswith("output[")}
    return like(y, parts), cotangents

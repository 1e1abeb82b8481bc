"""A subject in processes of its own, as a Rule: each evaluation is a question to the process, and its answer is data.

`Sandbox` keeps the template processes; `RemoteSubject` is one subject with its processes. The judge keeps the questions
and the answers, and asks some of them again, in another order, of the same process and of a new one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import finalize

import numpy as np

from oracles.adapters.child_process import packed
from oracles.constants import (
    ANSWER_SHARE,
    GRACE_SECONDS,
    LEAST_ANSWER_BYTES,
    LOADING_SECONDS,
    MOST_RECORDED,
    SCRATCH_MB,
    START_SECONDS,
)
from oracles.evaluations import same_values
from oracles.forked import describe_ending
from oracles.outputs import Outputs
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    InternalError,
    Output,
    Primals,
    Pullback,
    Rule,
    Runtime,
    as_tuple,
    map_delta,
)
from oracles.untrusted.template import Start
from oracles.untrusted.wire import Answer, Ended, Malformed, TooLate, ask, read_answer

T = TypeVar("T")
PRELOADED = (
    "numpy", "numpy.fft", "oracles.adaptable", "oracles.adapters.child_process", "oracles.adapters.functions",
    "oracles.untrusted.subject_process",
)  # fmt: skip


class SupportsClose(Protocol):
    """A file or a socket."""

    def close(self) -> None:
        """Close it."""


class SubjectFailed(RuntimeError):
    """The subject gave no answer; `kind` is the status that this is: "TIMEOUT", "RUNTIME_ERROR" or "CHEATS"."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class SandboxFailed(InternalError):
    """The judge's own process, of which those of subjects are forked, did not start or has ended."""


class Unreadable:
    """What a subject returned in place of an array, in words."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class Sandbox:
    """The template processes of a judge, one for each set of packages that subjects have loaded.

    Use it as a context manager: at the end of the block all its processes end.
    """

    def __init__(self) -> None:
        self._templates: dict[tuple[str, ...], _Template] = {}

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for template in self._templates.values():
            template.close()
        self._templates.clear()

    def start(self, start: Start, packages: Sequence[str], seconds: float) -> Process:
        """Start a process that has loaded the subject.

        Args:
            start: the subject and its limits.
            packages: what the template has loaded besides NumPy: "torch", "jax".
            seconds: how long the loading may take.

        Raises:
            SubjectFailed: if the subject cannot be loaded.
            SandboxFailed: if the template does not work.
        """
        key = tuple(packages)
        template = self._templates.get(key)
        if template is None or not template.is_alive:
            template = self._templates[key] = _Template(packages)
        process = template.fork(start)
        try:
            process.receive(max(seconds, LOADING_SECONDS), "the import of the subject")
        except BaseException:
            process.end()
            raise
        return process


class _Template:
    """The judge's end of a template process."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.scratch = tempfile.mkdtemp(prefix="oracles-subject-")
        self.control, theirs = socket.socketpair()
        # Its paths are the interpreter's own. Those of the judge have the user's folders, too, and a subject can read
        # all that is in a folder of the paths.
        here = str(Path(__file__).parents[2])
        code = (
            f"import sys; {here!r} in sys.path or sys.path.append({here!r}); "
            "from oracles.untrusted.template import main; main()"
        )
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  # as long as the process
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code], stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=self.errors,
            env=_environment(self.scratch), cwd=self.scratch, start_new_session=True,
        )  # fmt: skip
        theirs.close()
        self._end = finalize(self, _end_template, self.process, (self.control, self.errors), self.scratch)
        preload = [*PRELOADED, *packages]
        self.control.settimeout(START_SECONDS)
        self.ask({"scratch": self.scratch, "scratch_mb": SCRATCH_MB, "preload": preload})

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End the process and those that were forked from it."""
        self._end()

    def ask(self, question: Mapping[str, Any], descriptors: Sequence[int] = ()) -> Any:
        try:
            line = json.dumps(question).encode() + b"\n"
            sent = socket.send_fds(self.control, [line], list(descriptors))
            self.control.sendall(line[sent:])
            answer = bytearray()
            while not answer.endswith(b"\n"):
                part = self.control.recv(2**16)
                if not part:
                    raise EOFError
                answer += part
        except (OSError, EOFError) as error:
            self.errors.seek(0)
            said = self.errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            self.close()
            raise SandboxFailed(
                f"the process that starts subjects has ended: {said or type(error).__name__}"
            ) from error
        return json.loads(answer)

    def fork(self, start: Start) -> Process:
        ours, theirs = socket.socketpair()
        try:
            answer = self.ask({"start": asdict(start)}, [theirs.fileno()])
        finally:
            theirs.close()
        return Process(ours, answer["pid"], self, tuple(answer["protections"]))


def _end_template(process: subprocess.Popen[bytes], files: Iterable[SupportsClose], scratch: str) -> None:
    process.kill()
    for file in files:
        file.close()
    process.wait()
    shutil.rmtree(scratch, ignore_errors=True)


def _environment(scratch: str) -> dict[str, str]:
    """Return the environment of a template: nothing of the judge's but what Python needs."""
    kept = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "SYSTEMROOT", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "HOME": scratch, "TMPDIR": scratch, "PYTHONDONTWRITEBYTECODE": "1", "JAX_PLATFORMS": "cpu",
        "PYTHONHASHSEED": "0",
    }  # fmt: skip


@dataclass
class Process:
    """A process that has loaded a subject, or failed to."""

    connection: socket.socket
    pid: int
    template: _Template
    protections: tuple[str, ...]
    ended: bool = False
    evaluations: int = 0
    most_bytes: int = LEAST_ANSWER_BYTES
    released: list[int] = field(default_factory=list)

    def forward(self, primals: Mapping[str, Array], seconds: float) -> tuple[Answer, int]:
        """Ask for an evaluation; return the answer and the number by which its pullback is asked.

        Raises:
            SubjectFailed: if there is no answer.
        """
        self.evaluations += 1
        return self._call("output", self.evaluations, primals, True, seconds), self.evaluations

    def pullback(self, number: int, delta: Delta, seconds: float) -> tuple[Answer, Mapping[str, Array]]:
        """Ask the pullback of an evaluation; return the answer, and the parts of the cotangent that were sent.

        Raises:
            SubjectFailed: if there is no answer.
        """
        parts = {str(i): np.asarray(part) for i, part in enumerate(as_tuple(delta))}
        return self._call("cotangents", number, parts, isinstance(delta, tuple), seconds), parts

    def _call(self, kind: str, number: int, arrays: Mapping[str, Array], is_tuple: bool, seconds: float) -> Answer:
        what = "the forward" if kind == "output" else "the pullback"
        if self.ended:
            raise SubjectFailed("RUNTIME_ERROR", f"{what}: the process of the subject has ended")
        released, self.released[:] = list(self.released), []
        self.most_bytes = LEAST_ANSWER_BYTES + ANSWER_SHARE * sum(np.asarray(a).nbytes for a in arrays.values())
        question = (kind, number, released, {n: packed(n, np.asarray(a)) for n, a in arrays.items()}, is_tuple)
        try:
            ask(self.connection, question, time.monotonic() + seconds)
        except (Ended, TooLate) as error:
            raise self._failure(error, what, seconds) from None
        return self.receive(seconds, what, kind)

    def receive(self, seconds: float, what: str, kind: str = "ready") -> Answer:
        """Return the next answer, which must be of one kind.

        Raises:
            SubjectFailed: if there is none, or it is no answer.
        """
        try:
            answer = read_answer(self.connection, time.monotonic() + seconds, self.most_bytes)
        except (Ended, TooLate, Malformed) as error:
            raise self._failure(error, what, seconds) from None
        if answer.forbidden:
            raise SubjectFailed("CHEATS", f"{what}: {'; '.join(answer.forbidden)}")
        if answer.kind == "raised":
            raise SubjectFailed("RUNTIME_ERROR", f"{what} raised {answer.error}")
        if answer.kind != kind:
            self.end()
            raise SubjectFailed("CHEATS", f"{what}: the answer is of the kind {answer.kind!r}, which nobody asked for")
        return answer

    def _failure(self, error: Exception, what: str, seconds: float) -> SubjectFailed:
        status = self.end(GRACE_SECONDS if isinstance(error, Ended) else 0.0)
        if isinstance(error, TooLate):
            return SubjectFailed("TIMEOUT", f"{what} did not return within {seconds:g} s")
        if isinstance(error, Malformed):
            return SubjectFailed("CHEATS", f"{what}: in place of an answer there is {error}")
        if status is None:
            return SubjectFailed("CHEATS", f"{what} closed the connection to the judge and went on")
        if status == 0:
            return SubjectFailed("CHEATS", f"{what} ended the process as if it had succeeded, without an answer")
        return SubjectFailed("RUNTIME_ERROR", f"{what} ended the process: {describe_ending(status)}")

    def end(self, grace: float = 0.0) -> int | None:
        """End the process with all that it started, if it does not end by itself within so many seconds.

        Returns:
            The status with which it ended by itself; ``None`` if it did not.
        """
        if self.ended:
            return None
        self.ended = True
        self.connection.close()
        with suppress(SandboxFailed):
            status: int | None = self.template.ask({"end": self.pid, "grace": grace})["status"]
            return status
        return None


@dataclass(frozen=True, eq=False)
class Call:
    """A forward and one pullback that a subject was asked for at a point of a case, and what it answered.

    Attributes:
        case: the number of the case.
        primals, delta: what the subject was given.
        values: its answers, see `named_values`.
        asked: primals and delta of the judge, which a declared convention has converted for the subject.
    """

    case: int
    primals: Primals
    delta: Delta
    values: Mapping[str, Any]
    asked: tuple[Primals, Delta]


class RemoteSubject:
    """A subject in a process of its own, and what it answered so far.

    Attributes:
        case: the number of the case that is judged.
        calls: what was asked and answered, at most `MOST_RECORDED`.
        answering_seconds: how long all its calls took.
        failure: the first reason why it gave no answer.
        last_output: what the last forward returned.
        protections: what its process is kept from.
    """

    def __init__(self, sandbox: Sandbox, start: Start, packages: Sequence[str], seconds: float) -> None:
        self._sandbox, self._start, self._packages, self.seconds = sandbox, start, packages, seconds
        self._process: Process | None = None
        self.last_output: Any = None
        self.case = 0
        self._asked: tuple[Primals, Delta] | None = None
        self.calls: list[Call] = []
        self.answering_seconds = 0.0
        self.failure: SubjectFailed | None = None
        self.protections: tuple[str, ...] = ()

    def forget_failure(self) -> None:
        """Forget why it gave no answer."""
        self.failure = None

    def close(self) -> None:
        """End its process."""
        if self._process is not None:
            self._process.end()
            self._process = None

    def process(self) -> Process:
        """Return its process, which is started anew after it has ended."""
        if self._process is None or self._process.ended:
            self._process = self._sandbox.start(self._start, self._packages, self.seconds)
            self.protections = self._process.protections
        return self._process

    def rule(self, name: str) -> Rule:
        """Return the subject as a Rule, which anything but NumPy may compute."""
        return Rule(self._evaluate, name, runtime=Runtime.OPAQUE)

    def asked(self, rule: Rule) -> Rule:
        """Return a Rule made of `rule` that also remembers what it was asked itself, in the judge's convention."""

        def evaluate(**primals: Array) -> tuple[Output, Pullback]:
            kept = {n: np.array(a) for n, a in primals.items()}
            y, pull = rule.evaluate(**primals)

            def pullback(delta: Delta) -> Cotangents:
                self._asked = kept, map_delta(np.array, delta)
                try:
                    return pull(delta)
                finally:
                    self._asked = None

            return y, pullback

        return replace(rule, evaluate=evaluate, derived=None)

    def _evaluate(self, /, **primals: Array) -> tuple[Output, Pullback]:
        process = self.process()
        answer, number = self._noted(lambda: process.forward(primals, self.seconds))
        self._write(answer, primals)
        y = self.last_output = _output_of(answer)
        kept = {n: np.array(a) for n, a in primals.items()}

        def pullback(delta: Delta) -> Cotangents:
            copied = map_delta(np.array, delta)
            answer, parts = self._noted(lambda: process.pullback(number, delta, self.seconds))
            self._write(answer, parts)
            cotangents = _values(answer)
            if len(self.calls) < MOST_RECORDED:
                asked = self._asked or (kept, copied)
                self.calls.append(Call(self.case, kept, copied, named_values(y, cotangents), asked))
            return cotangents

        finalize(pullback, process.released.append, number)
        return y, pullback

    def _noted(self, call: Callable[[], T]) -> T:
        began = time.monotonic()
        try:
            return call()
        except SubjectFailed as failure:
            self.failure = self.failure or failure
            raise
        finally:
            self.answering_seconds += time.monotonic() - began

    def _write(self, answer: Answer, arrays: Mapping[str, Array]) -> None:
        """Let the judge see that the subject wrote into its arguments: what it wrote does not matter."""
        for name in answer.written:
            array = arrays.get(name)
            if array is not None and array.size and array.flags.writeable:
                array[...] = ~array if array.dtype.kind == "b" else array + np.ones((), array.dtype)


def asked_again(call: Call, process: Process, seconds: float) -> tuple[Output, Cotangents]:
    """Return what a process answers to a call that was made before.

    Raises:
        SubjectFailed: if there is no answer.
    """
    answer, number = process.forward(call.primals, seconds)
    y = _output_of(answer)
    return y, _values(process.pullback(number, call.delta, seconds)[0])


def differing(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> list[str]:
    """Return the names of the outputs and cotangents of one call that are not those of another, to the bit."""
    names = dict.fromkeys((*earlier, *later))
    return [n for n in names if n not in later or n not in earlier or not _same(later[n], earlier[n])]


def named_values(y: Output, cotangents: Cotangents) -> dict[str, Any]:
    """Return outputs, as "output[0]" …, and cotangents in one mapping."""
    return {f"output[{i}]": part for i, part in enumerate(as_tuple(y))} | cotangents


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Unreadable) or isinstance(b, Unreadable):
        return repr(a) == repr(b)
    return type(a) is type(b) and same_values(a, b)


def _output_of(answer: Answer) -> Output:
    values = _values(answer)
    numbered = {int(name): value for name, value in values.items() if re.fullmatch(r"\d{1,9}", name, re.ASCII)}
    parts = tuple(numbered[i] for i in sorted(numbered))
    if answer.names and len(answer.names) == len(parts):
        return Outputs(parts, answer.names)
    return parts if answer.is_tuple else parts[0] if parts else Unreadable("nothing")  # type: ignore[return-value]


def _values(answer: Answer) -> dict[str, Any]:
    other = {n: None if text == "None" else Unreadable(text) for n, text in (answer.other or {}).items()}
    return {**answer.arrays, **other}

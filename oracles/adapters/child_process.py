"""Run a subject in a process of its own, so that a crash, an exit or an endless loop is a finding of the judge."""

from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Client, Connection, Listener, Pipe
from typing import Any, Literal, NamedTuple, NoReturn
from weakref import finalize

import cloudpickle
import numpy as np
import numpy.typing as npt

from oracles.adapters.jax_functions import rebuild_from
from oracles.backends.devices import CPU, DeviceLost, kind_of
from oracles.constants import IDLE_PROCESSES, POLL_SECONDS, START_SECONDS
from oracles.forked import PICKLING_ERRORS, Crashed, describe_ending, fork, sendable
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Evaluate,
    InvalidInput,
    Output,
    Pullback,
    Rule,
    Runtime,
    as_tuple,
)
from oracles.structure import wrapped

Start = Literal["fork", "spawn"]


def isolated(rule: Rule, *, seconds: float = 60.0, start: Start | None = None) -> Rule:
    """Return a rule that evaluates another in a child process, one for each evaluation and its pullbacks.

    A segmentation fault, `sys.exit` and an endless loop raise `Crashed`, an illegal access on a GPU `DeviceLost`; the
    judge reports both as findings, and the next evaluation gets a new process. Arrays keep their strides on the way,
    and what the subject writes into them is written into the caller's arrays.

    Args:
        rule: the subject.
        seconds: the time limit of one forward, or of one pullback.
        start: "fork" copies this process, so the subject may be anything; "spawn" starts a new one, for which the
            subject must be picklable. By default subjects that JAX or a GPU computes are spawned, and all others
            forked if the system can fork.

    Returns:
        The isolated Rule.

    Raises:
        InvalidInput: if ``seconds`` is not positive or ``start`` unknown; when evaluated, if the subject cannot be
            sent to a new process.
    """
    if not seconds > 0:
        raise InvalidInput(f"isolated: seconds: expected a positive number, got {seconds!r}")
    # A forked child of a process that uses JAX's threads, or a GPU, hangs. The references may use the GPU later.
    on_gpu = rule.device is not None and kind_of(rule.device) != CPU
    spawn = rule.runtime is Runtime.JAX or on_gpu or not hasattr(os, "fork") or _cuda_in_use()
    method: Start = start or ("spawn" if spawn else "fork")
    if method not in ("fork", "spawn"):
        raise InvalidInput(f"isolated: start: expected 'fork' or 'spawn', got {start!r}")
    if method == "fork" and on_gpu and _cuda_in_use():
        raise InvalidInput(
            "isolated: start='fork': this process uses the GPU already, and a forked copy of it cannot.\n"
            "Fix: put the subject into a module that can be imported, and    start='spawn'"
        )
    begin = _forked if method == "fork" else _spawned

    def isolate(evaluate: Evaluate) -> Evaluate:
        return partial(_evaluate, _Processes(partial(begin, evaluate, seconds), reused=method == "spawn"))

    evaluate = isolate(rule.evaluate)
    return replace(
        rule,
        evaluate=evaluate,
        structured=wrapped(rule, evaluate, lambda inner: isolated(inner, seconds=seconds, start=start)),
        derived=rule.derivatives.wrapped(evaluate, lambda inner: isolated(inner, seconds=seconds, start=start)),
        evaluate_perturbed=None,
        # Arrays of objects cannot be sent to another process.
        runtime=Runtime.OPAQUE if rule.runtime is Runtime.NUMPY else rule.runtime,
        call_patterns={n: isolate(evaluate) for n, evaluate in rule.call_patterns.items()},
    )


@dataclass
class _Child:
    """A process at the other end of a pipe."""

    pipe: Connection
    pid: int
    seconds: float
    wait: Callable[[], int]
    done: bool = False

    def ask(self, question: object, operation: str) -> Any:
        """Send a question and return the answer; ``operation`` names it in messages.

        Raises:
            Crashed: if there is no answer.
        """
        if self.done:
            raise Crashed(f"{operation}: the process has ended")
        try:
            self.pipe.send_bytes(pickle.dumps(question))
        except (ConnectionError, BrokenPipeError):
            self.done = True
            raise Crashed(f"{operation} ended the process: {describe_ending(self.wait())}") from None
        return self.receive(operation)

    def receive(self, operation: str) -> Any:
        """Return the next answer.

        Raises:
            Crashed: if there is none.
        """
        try:
            if not self.pipe.poll(self.seconds):
                self.kill()
                raise Crashed(f"{operation} did not return within {self.seconds:g} s")
            kind, answer = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, ConnectionError, BrokenPipeError):
            self.done = True
            raise Crashed(f"{operation} ended the process: {describe_ending(self.wait())}") from None
        if isinstance(answer, DeviceLost) and kind == "raised":
            self.kill()  # another process must go on
            answer.isolated = True
        if kind == "raised":
            raise answer
        return answer

    def kill(self) -> None:
        """End the process, whatever it does."""
        if not self.done:
            self.done = True
            self.pipe.close()
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
            self.wait()


class _Processes:
    """The child processes of one subject: one for each evaluation and its pullbacks.

    To start an interpreter takes seconds, so one that was started serves the next evaluation after its last pullback.
    """

    def __init__(self, begin: Callable[[], _Child], reused: bool) -> None:
        self._begin, self._reused = begin, reused
        self._idle: list[_Child] = []
        finalize(self, _end_all, self._idle)

    def take(self) -> _Child:
        """Return a process that waits for a forward."""
        while self._idle:
            child = self._idle.pop()
            with suppress(OSError):  # it has ended since
                child.pipe.send_bytes(pickle.dumps(None))
                return child
            child.kill()
        return self._begin()

    def give_back(self, child: _Child) -> None:
        """Keep a process for the next evaluation, or end it."""
        if self._reused and not child.done and len(self._idle) < IDLE_PROCESSES:
            self._idle.append(child)
        else:
            child.kill()


def _end_all(children: list[_Child]) -> None:
    for child in children:
        child.kill()


def _evaluate(processes: _Processes, /, **primals: Array) -> tuple[Output, Pullback]:
    child = processes.take()
    y: Output = _ask_with_arrays(child, primals, "the forward")

    def pullback(delta: Delta) -> Cotangents:
        parts = {str(i): part for i, part in enumerate(as_tuple(delta))}
        cotangents: Cotangents = _ask_with_arrays(child, parts, "the pullback", isinstance(delta, tuple))
        return cotangents

    finalize(pullback, processes.give_back, child)
    return y, pullback


def _ask_with_arrays(child: _Child, arrays: Mapping[str, Array], operation: str, is_tuple: bool = True) -> Any:
    """Send arrays with a question, and copy back what the subject wrote into them."""
    answer, written = child.ask(({n: packed(n, np.asarray(a)) for n, a in arrays.items()}, is_tuple), operation)
    for n, values in written.items():
        arrays[n][...] = values
    return answer


class Packed(NamedTuple):
    """The arguments from which `np.ndarray` makes the same array, strides included."""

    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    memory: bytearray
    offset: int
    strides: tuple[int, ...]
    writeable: bool

    def array(self) -> Array:
        """Return the array, which shares this memory."""
        result: Array = np.ndarray(*self[:5])
        result.flags.writeable = self.writeable
        return result


def packed(name: str, array: Array) -> Packed:
    """Return an array of numbers as its memory, so that another process makes the same array, strides included.

    Raises:
        InvalidInput: if it is an array of objects; ``name`` is what the message calls it.
    """
    if array.dtype.kind == "O":
        raise InvalidInput(f"isolated: {name}: expected numbers, got objects, which no other process can take")
    # The memory reaches from the entry of the lowest address, offset bytes before the first one, to the highest.
    reach = [stride * max(n - 1, 0) for stride, n in zip(array.strides, array.shape, strict=True)]
    offset = -sum(r for r in reach if r < 0)
    memory = bytearray(offset + sum(r for r in reach if r > 0) + array.itemsize)
    result = Packed(array.shape, array.dtype, memory, offset, array.strides, True)
    result.array()[...] = array
    return result._replace(writeable=array.flags.writeable)


def _serve(pipe: Connection, evaluate: Evaluate) -> None:
    """Run one forward, then pullbacks until the pipe closes; each result includes the arrays that the subject wrote."""
    pullback: Pullback | None = None
    answer: Output | Cotangents
    while True:
        try:
            question = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        if question is None:  # another evaluation begins
            pullback = None
            continue
        parts_by_name, is_tuple = question
        arrays = {n: parts.array() for n, parts in parts_by_name.items()}
        before = {n: a.tobytes() for n, a in arrays.items()}
        try:
            if pullback is None:
                answer, pullback = evaluate(**arrays)
            else:
                answer = dict(pullback(tuple(arrays.values()) if is_tuple else arrays["0"]))
            written = {n: a for n, a in arrays.items() if a.tobytes() != before[n]}
            message = pickle.dumps(("value", (answer, written)))
        except Exception as error:  # whatever the user's code raises is sent to the parent, which raises it
            message = pickle.dumps(("raised", sendable(error)))
        pipe.send_bytes(message)


def _forked(evaluate: Evaluate, seconds: float) -> _Child:
    parent_end, child_end = Pipe()
    pid = fork()
    if pid == 0:  # pragma: no cover: the child
        status = 1
        try:
            parent_end.close()
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)  # a fork has none of torch's threads, and waits for them
            _serve(child_end, evaluate)
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
        finally:
            os._exit(status & 0xFF)
    child_end.close()
    return _Child(parent_end, pid, seconds, lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _spawned(evaluate: Evaluate, seconds: float) -> _Child:
    """Start a new interpreter that serves the subject, which cloudpickle sends."""
    try:
        message = _pickled(evaluate)
    except PICKLING_ERRORS as error:
        _raise_not_picklable(f"{type(error).__name__}: {error}")
    listener = Listener(family="AF_PIPE" if os.name == "nt" else "AF_UNIX")
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from oracles.adapters.child_process import serve_alone; serve_alone()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, listener.address], stdin=subprocess.DEVNULL)
    pipe = _accepted(listener, child)
    pipe.send_bytes(message)
    result = _Child(pipe, child.pid, START_SECONDS, child.wait)
    result.receive("the import of the subject")
    result.seconds = seconds
    return result


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle, and a `jax.custom_vjp` wherever the subject refers to one."""

    def reducer_override(self, obj: Any) -> Any:
        jax = sys.modules.get("jax")
        if jax is not None and type(obj) is jax.custom_vjp:
            return rebuild_from(obj)
        return super().reducer_override(obj)


def _pickled(evaluate: Evaluate) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(evaluate)
    return buffer.getvalue()


def _accepted(listener: Listener, child: subprocess.Popen[bytes]) -> Connection:
    """Wait for the child to connect.

    Raises:
        Crashed: if it ends before that, or takes longer than `START_SECONDS`.
    """
    connections: list[Connection] = []
    thread = threading.Thread(target=lambda: connections.append(listener.accept()), daemon=True)
    thread.start()
    waited = 0.0
    while not connections and child.poll() is None and waited < START_SECONDS:
        thread.join(POLL_SECONDS)
        waited += POLL_SECONDS
    listener.close()
    if not connections:
        child.kill()
        raise Crashed(f"the subject's process did not start: {describe_ending(child.wait())}")
    return connections[0]


def serve_alone() -> None:
    """Receive a subject and serve it; the main function of a spawned process."""
    pipe = Client(sys.argv[1])
    try:
        evaluate: Evaluate = cloudpickle.loads(pipe.recv_bytes())
    except PICKLING_ERRORS as error:
        evaluate = partial(_raise_not_picklable, f"{type(error).__name__}: {error}")
    pipe.send_bytes(pickle.dumps(("value", None)))  # the time of a call begins after the imports
    _serve(pipe, evaluate)


def _raise_not_picklable(error: str, /, **primals: Array) -> NoReturn:
    raise InvalidInput(
        f"isolated: the subject cannot be sent to a new process: {error}.\n"
        "Fix: put it into a module that can be imported, or fork:\n"
        "    oracles.isolated(subject, start='fork')"
    )


def _cuda_in_use() -> bool:
    torch = sys.modules.get("torch")
    return bool(torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized())

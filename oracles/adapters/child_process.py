"""Run a subject in a process of its own: what crashes, exits or never returns is a finding, and the run goes on."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, Pipe
from typing import Any, Literal
from weakref import finalize

import numpy as np

from oracles.rule import Array, Cotangents, Evaluate, InvalidInput, Pullback, Rule, as_tuple

Start = Literal["fork", "spawn"]
STARTING = 60.0  # seconds that a spawned process may take to import what the subject needs


class Crashed(RuntimeError):
    """The subject's process died, exited or ran out of time; what the subject raises comes back as it is."""


def isolated(rule: Rule, *, seconds: float = 60.0, start: Start | None = None) -> Rule:
    """Return a rule that evaluates another in a child process, one for each evaluation and its pullbacks.

    A segmentation fault, `sys.exit` and a loop without end raise `Crashed`, which the judge reports as a finding.
    Arrays keep their strides on the way, and what the subject writes into them is brought back.

    Args:
        rule: the subject.
        seconds: how long one forward, or one pullback, may take.
        start: "fork" copies this process, so the subject may be anything; "spawn" starts a new one, for which the
            subject must be picklable. By default what JAX or a GPU computes is spawned, and all else forked where the
            system can.

    Raises:
        InvalidInput: if seconds is not positive, or the subject cannot be sent to a new process.
    """
    if not seconds > 0:
        raise InvalidInput(f"isolated: seconds: expected a positive number, got {seconds!r}")
    way: Start = start or ("spawn" if rule.framework == "jax" or not hasattr(os, "fork") or _cuda_in_use() else "fork")
    if way not in ("fork", "spawn"):
        raise InvalidInput(f"isolated: start: expected 'fork' or 'spawn', got {start!r}")

    def guarded(evaluate: Evaluate) -> Evaluate:
        return partial(_evaluate, _forked if way == "fork" else _spawned, evaluate, seconds)

    return replace(
        rule,
        evaluate=guarded(rule.evaluate),
        evaluate_perturbed=None,
        framework=rule.framework or "isolated",  # no balls cross a pipe
        call_patterns={name: guarded(evaluate) for name, evaluate in rule.call_patterns.items()},
    )


@dataclass
class _Child:
    """A process at the other end of a pipe."""

    pipe: Connection
    pid: int
    seconds: float
    wait: Callable[[], int]
    done: bool = False

    def ask(self, question: Any, what: str) -> Any:
        """Send a question and return the answer.

        Raises:
            Crashed: if there is none.
        """
        if self.done:
            raise Crashed(f"{what}: the process is gone")
        try:
            self.pipe.send_bytes(pickle.dumps(question))
            if not self.pipe.poll(self.seconds):
                self.kill()
                raise Crashed(f"{what} did not return within {self.seconds:g} s")
            kind, answer = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, ConnectionError, BrokenPipeError):
            self.done = True
            raise Crashed(f"{what} ended the process: {_ending(self.wait())}") from None
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


def _evaluate(
    begin: Callable[[Evaluate, float], _Child], evaluate: Evaluate, seconds: float, **primals: Array
) -> tuple[Any, Pullback]:
    child = begin(evaluate, seconds)
    y = _asked(child, primals, "the forward")

    def pullback(delta: Any) -> Cotangents:
        parts = as_tuple(delta)
        named = {str(i): part for i, part in enumerate(parts)}
        found: Cotangents = _asked(child, named, "the pullback", isinstance(delta, tuple))
        return found

    finalize(pullback, child.kill)
    return y, pullback


def _asked(child: _Child, arrays: Mapping[str, Array], what: str, many: bool = True) -> Any:
    """Ask with arrays, and write into them what the subject wrote into its own."""
    answer, written = child.ask(({n: _packed(n, np.asarray(a)) for n, a in arrays.items()}, many), what)
    for n, values in written.items():
        arrays[n][...] = values
    return answer


def _packed(name: str, array: Array) -> tuple[Any, ...]:
    """Return what `np.ndarray` makes the same array of, strides included."""
    if array.dtype.kind == "O":
        raise InvalidInput(f"isolated: {name}: numbers that are objects cannot be sent to another process")
    reach = [stride * max(n - 1, 0) for stride, n in zip(array.strides, array.shape, strict=True)]
    offset = -sum(r for r in reach if r < 0)
    room = bytearray(offset + sum(r for r in reach if r > 0) + array.itemsize)
    packed = array.shape, array.dtype, room, offset, array.strides
    np.ndarray(*packed)[...] = array
    return (*packed, array.flags.writeable)


def _unpacked(shape: Any, dtype: Any, room: bytearray, offset: int, strides: Any, writeable: bool) -> Array:
    array: Array = np.ndarray(shape, dtype, room, offset, strides)
    array.flags.writeable = writeable
    return array


def _serve(pipe: Connection, evaluate: Evaluate) -> None:
    """Answer one forward, then pullbacks until the pipe closes; with each answer, what was written into its arrays."""
    pull: Any = None
    while True:
        try:
            packed, many = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        arrays = {n: _unpacked(*parts) for n, parts in packed.items()}
        before = {n: a.tobytes() for n, a in arrays.items()}
        try:
            if pull is None:
                answer, pull = evaluate(**arrays)
            else:
                answer = dict(pull(tuple(arrays.values()) if many else arrays["0"]))
            written = {n: a for n, a in arrays.items() if a.tobytes() != before[n]}
            message = pickle.dumps(("value", (answer, written)))
        except Exception as error:
            message = pickle.dumps(("raised", _sendable(error)))
        pipe.send_bytes(message)


def _sendable(error: Exception) -> Exception:
    """Return an exception that survives the pipe: one of the same kind and words, or a plain one that names it."""
    with suppress(Exception):
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def _forked(evaluate: Evaluate, seconds: float) -> _Child:
    ours, theirs = Pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads that JAX keeps: the child runs none of their code
        pid = os.fork()
    if pid == 0:  # pragma: no cover: the child
        status = 1
        try:
            ours.close()
            if "torch" in sys.modules:
                sys.modules["torch"].set_num_threads(1)
            _serve(theirs, evaluate)
            status = 0
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
        finally:
            os._exit(status & 0xFF)
    theirs.close()
    return _Child(ours, pid, seconds, lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _spawned(evaluate: Evaluate, seconds: float) -> _Child:
    """Start a new interpreter that serves the subject, sent by cloudpickle."""
    try:
        import cloudpickle

        message = cloudpickle.dumps(evaluate)
    except Exception as error:
        _not_sent(f"{type(error).__name__}: {error}")
    from multiprocessing.connection import Listener

    listener = Listener(family="AF_PIPE" if os.name == "nt" else "AF_UNIX")
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; from oracles.adapters.child_process import serve_alone; serve_alone()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, listener.address], stdin=subprocess.DEVNULL)
    pipe = _accepted(listener, child)
    pipe.send_bytes(message)
    return _Child(pipe, child.pid, seconds, lambda: child.wait())


def _accepted(listener: Any, child: subprocess.Popen[bytes]) -> Connection:
    """Wait for the child to connect, or to die."""
    import threading

    found: list[Connection] = []
    thread = threading.Thread(target=lambda: found.append(listener.accept()), daemon=True)
    thread.start()
    waited = 0.0
    while not found and child.poll() is None and waited < STARTING:
        thread.join(0.05)
        waited += 0.05
    listener.close()
    if not found:
        child.kill()
        raise Crashed(f"the subject's process did not start: {_ending(child.wait())}")
    return found[0]


def serve_alone() -> None:
    """Serve the subject that is sent first: the main function of a spawned process."""
    from multiprocessing.connection import Client

    import cloudpickle

    pipe = Client(sys.argv[1])
    try:
        evaluate = cloudpickle.loads(pipe.recv_bytes())
    except Exception as error:
        evaluate = partial(_not_sent, f"{type(error).__name__}: {error}")
    _serve(pipe, evaluate)


def _not_sent(error: str, **primals: Array) -> Any:
    raise InvalidInput(
        f"isolated: the subject cannot be sent to a new process: {error}.\n"
        "Fix: put it into a module that can be imported, or fork:\n"
        "    oracles.isolated(subject, start='fork')"
    )


def _ending(status: int) -> str:
    """Say how a process ended: "killed by SIGSEGV", "exit status 3"."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def _cuda_in_use() -> bool:
    torch = sys.modules.get("torch")
    return bool(torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized())

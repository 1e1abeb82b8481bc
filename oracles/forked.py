"""A copy of this process at the other end of a pipe, made by fork: what crashes there does no harm here."""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any, NoReturn

from oracles.constants import IDLE_SECONDS

# What pickling an object, or importing its class in another process, raises.
PICKLING_ERRORS = (
    pickle.PickleError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


class Crashed(RuntimeError):
    """The subject's process crashed, exited or ran out of time. An exception of the subject is raised as it is."""


def describe_ending(status: int) -> str:
    """Describe how a process ended: "killed by SIGSEGV", "exit status 3"."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def sendable(error: Exception) -> Exception:
    """Return an exception that survives pickling: the same, or a RuntimeError that names it."""
    with suppress(*PICKLING_ERRORS):
        if str(pickle.loads(pickle.dumps(error))) == str(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")


def fork() -> int:
    """Fork this process, without the warnings of JAX and Python that its threads are not copied."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()  # or the copy would write the same text again
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


class ForkedServer:
    """A copy of this process that answers questions about an object which only it needs to have.

    The copy has the object as it is at the time of the fork, whatever it is: nothing is pickled but questions and
    answers. It ends with the pipe, and after `IDLE_SECONDS` without a question.
    """

    def __init__(self, answer: Callable[..., object]) -> None:
        self.owner = os.getpid()
        self.pipe, other_end = Pipe()
        self.pid = fork()
        if self.pid == 0:  # pragma: no cover: the copy
            self.pipe.close()  # or the end of the other process would not close it
            _serve(other_end, answer)
        other_end.close()

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked: a copy of this process has the pipe, but must not use it."""
        return self.owner == os.getpid() and self._ended() is None

    def ask(self, seconds: float, *question: object) -> Any:
        """Return ``answer(*question)``, or raise what that raises there.

        Raises:
            Crashed: if the copy ends, or does not answer in time.
        """
        try:
            self.pipe.send_bytes(pickle.dumps((seconds, question)))
            if not self.pipe.poll(seconds):
                self.close()
                raise Crashed(f"no answer within {seconds:g} s")
            kind, answer = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, ConnectionError, BrokenPipeError):
            ending = self._ended(wait=True)
            raise Crashed(f"it ended its process: {describe_ending(ending or 0)}") from None
        except BaseException:  # an interrupt: the answer would come to the next question
            self.close()
            raise
        if kind == "raised":
            raise answer
        return answer

    def close(self) -> None:
        """End the copy, without waiting for it."""
        if self.owner == os.getpid() and self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._ended()
            _ENDING.append(self.pid)
        self.pipe.close()
        self.pid = 0
        _ENDING[:] = [pid for pid in _ENDING if _wait(pid, os.WNOHANG) is None]

    def _ended(self, wait: bool = False) -> int | None:
        """Return the status with which the copy ended; ``None`` while it runs."""
        if not self.pid:
            return 0
        status = _wait(self.pid, 0 if wait else os.WNOHANG)
        if status is not None:
            self.pid = 0
        return status


def survives(call: Callable[[], object], seconds: float) -> bool:
    """Return whether a copy of this process survives a call, within a time; what the call returns or raises is lost.

    Where the system cannot fork, nothing is known, and the answer is yes.
    """
    if not hasattr(os, "fork"):
        return True
    pipe, other_end = Pipe(duplex=False)
    pid = fork()
    if pid == 0:  # pragma: no cover: the copy
        pipe.close()
        _call_and_end(call, seconds)
    other_end.close()
    ended = pipe.poll(seconds)  # the copy holds the other end until it ends
    pipe.close()
    if not ended:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return _wait(pid, 0) == 0 and ended


def _call_and_end(call: Callable[[], object], seconds: float) -> NoReturn:  # pragma: no cover: the copy
    """Make a call and end the process; nothing of its own end is run."""
    try:
        _become_quiet()
        signal.alarm(int(seconds) + 1)  # the process that waits may have ended before
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            call()
    finally:
        os._exit(0)


# Copies that were killed and whose end nobody has waited for: it takes milliseconds.
_ENDING: list[int] = []


def _wait(pid: int, options: int) -> int | None:
    try:
        ended, status = os.waitpid(pid, options)
    except ChildProcessError:  # somebody else has waited for it
        return 0
    return os.waitstatus_to_exitcode(status) if ended else None


def _serve(pipe: Connection, answer: Callable[..., object]) -> NoReturn:  # pragma: no cover: the copy
    """Answer questions until the pipe closes; nothing of this process's own end is run."""
    status = 1
    try:
        _become_quiet()
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
            while True:
                signal.alarm(IDLE_SECONDS)
                seconds, question = pickle.loads(pipe.recv_bytes())
                signal.alarm(int(seconds) + 1)  # the asking process may have ended before
                try:
                    message = pickle.dumps(("value", answer(*question)))
                except Exception as error:  # whatever the code raises is raised where it was asked for
                    message = pickle.dumps(("raised", sendable(error)))
                pipe.send_bytes(message)
    except (EOFError, OSError):
        status = 0
    finally:
        os._exit(status)


def _become_quiet() -> None:  # pragma: no cover: the copy
    """Dump no core, end by signals, and leave the objects of the other process where they are."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.disable()
    gc.freeze()  # a collection would write to every page, and so copy it
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # a copy has none of torch's threads, and waits for them

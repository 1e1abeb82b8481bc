"""Run a command in a forked copy of this process, so that no subject can end it as if it had succeeded.

The copy tells the status through a pipe at the end of the command. A status of 0 without that word, from C's
``exit(0)`` for example, is none. A fork before NumPy and the frameworks are loaded takes about a millisecond. A system
that cannot fork runs the command as it is: there `oracles.process_state` alone keeps ``os._exit`` and its like away.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

INTERRUPTED = 130
# As a shell reports a program that a closed pipe ends: `oracles list | head` reads no more.
READER_GONE = 141
# Nothing is refused, and something was not judged since a package is missing: neither a pass nor a failure.
EXIT_SKIPPED = 3
# The commands that judge in processes of their own, and what to do if the first one is ended.
ELSEWHERE = {
    "campaign": "run the same command again: what is recorded is kept",
    "judge": "run it again; of a batch, --resume keeps the judgements that are written",
}


def supervised(command: Callable[[], int], name: str = "") -> int:
    """Return the exit status of a command, which runs in a copy of this process; 1 if the copy ends by itself.

    ``name`` is that of the command, which says whether the code under judgement runs in the copy.

    The copy shares the terminal and the process group, so it sees Ctrl-C itself, and decides what to do. An interrupt
    that another process sends to this one alone is passed on.
    """
    if not hasattr(os, "fork") or threading.active_count() > 1:
        return command()
    word, tell = os.pipe()
    lifeline, hold = os.pipe()
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # before the fork: none may end this process alone
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, on_interrupt)
        os.close(word)
        os.close(hold)
        threading.Thread(target=_end_with_the_other, args=(lifeline, os._exit), daemon=True).start()
        status = command()
        os.write(tell, str(status).encode())
        return status
    os.close(tell)
    os.close(lifeline)

    def pass_on(signum: int, frame: FrameType | None) -> None:
        os.kill(pid, signum)

    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, pass_on)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a signal that is ignored cannot be waited for
        threading.Thread(target=_pass_on_interrupts, args=(pid,), daemon=True).start()
    reported = os.read(word, 16)
    ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return _status(int(reported) if reported else None, ended, name)


def _pass_on_interrupts(pid: int) -> None:
    """Pass every interrupt on that another process sends, and not the terminal, which sends to both."""
    while True:
        if signal.sigwaitinfo((signal.SIGINT,)).si_code <= 0:  # not sent by the kernel
            os.kill(pid, signal.SIGINT)


def _end_with_the_other(lifeline: int, end: Callable[[int], None]) -> None:
    """End this process when the one that supervises it has ended, by whatever signal."""
    os.read(lifeline, 1)
    end(1)


def _status(reported: int | None, ended: int, name: str) -> int:
    """Return the exit status, given the reported one and the one with which the process ended."""
    if reported is not None:
        return reported or (1 if ended else 0)
    if ended > 0:
        return ended  # argparse's, or an exception of our own
    if ended in (-signal.SIGINT, -signal.SIGTERM):
        return 128 - ended
    how = f"killed by {signal.Signals(-ended).name}" if ended else "exit status 0"
    print(_how_it_ended(how, name, was_killed=ended == -signal.SIGKILL), file=sys.stderr)
    return 1


def _how_it_ended(how: str, name: str, *, was_killed: bool) -> str:
    """Return who may have ended the process, and what to do."""
    if name in ELSEWHERE:
        return f"oracles: something ended the process of oracles {name} ({how}).\nFix:    {ELSEWHERE[name]}"
    whose = "the code under judgement, or the system for want of memory," if was_killed else "the code under judgement"
    return (
        f"oracles: {whose} ended the process ({how}) before a verdict.\n"
        "Fix:    judge it in a process of its own: oracles check ... --isolate"
    )

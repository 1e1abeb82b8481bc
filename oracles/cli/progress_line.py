"""What a long command does: one line at a terminal, or lines in a log.

At a terminal the line appears late, and is erased at the end.

A thread writes it, as a call of the subject may take a minute. It writes to the file descriptor: a process that is
forked meanwhile inherits no lock of Python's streams. Spaces erase it, and no control sequence: a subject that ends the
process leaves a terminal as it was.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from time import monotonic

from oracles.constants import PATIENCE_SECONDS, REFRESH_SECONDS, REPORT_SECONDS
from oracles.stages import announced_to
from oracles.time_budget import deadline

# The most characters of a line in a log.
NO_WIDTH = 1000


@contextmanager
def progress_line() -> Iterator[None]:
    """Show on standard error what the judge does in the block, if it takes long.

    At a terminal it is one line, which changes; a log gets a line every `REPORT_SECONDS`.
    """
    descriptor = _terminal()
    if descriptor is None:
        log = ProgressLine(0)
        with announced_to(log.update), progress_reports(lambda: f"oracles check: {log.text(NO_WIDTH)}"):
            yield
        return
    line = ProgressLine(descriptor)
    thread = threading.Thread(target=line.show, daemon=True)
    thread.start()
    try:
        with announced_to(line.update):
            yield
    finally:
        line.ended.set()
        thread.join()


class ProgressLine:
    """What is done at present, since when the command runs, and until when at most.

    Attributes:
        ended: set it, and the line is erased.
    """

    def __init__(self, descriptor: int, patience: float = PATIENCE_SECONDS) -> None:
        self.ended = threading.Event()
        self._descriptor, self._patience = descriptor, patience
        self._started = monotonic()
        self._stage, self._within, self._deadline = "reading the subject", "", float("inf")

    def update(self, stage: str | None, within: str) -> None:
        """Take what is announced, and the deadline of the judgement that announces it."""
        self._stage, self._within, self._deadline = stage or self._stage, within, deadline()

    def show(self) -> None:
        """Write the line again and again until the end; never, if that comes early."""
        width = 0
        try:
            while not self.ended.wait(REFRESH_SECONDS if width else self._patience):
                text = self.text(shutil.get_terminal_size().columns - 1)
                self._write(f"\r{text:<{width}}")
                width = max(width, len(text))
            if width:
                self._write(f"\r{'':<{width}}\r")
        except OSError:
            return  # the terminal is gone

    def text(self, most: int) -> str:
        """Return the line in at most so many characters."""
        elapsed, budget = monotonic() - self._started, self._deadline - self._started
        of = f" of at most {budget:.0f}" if isfinite(budget) else ""
        stage = f"{self._stage}: {self._within}" if self._within else self._stage
        return f"{stage} · {elapsed:.0f}{of} s"[:most]

    def _write(self, text: str) -> None:
        os.write(self._descriptor, text.encode(errors="replace"))


@contextmanager
def progress_reports(
    describe: Callable[[], str], *, silent: bool = False, seconds: float = REPORT_SECONDS
) -> Iterator[None]:
    """Write a line to standard error every few seconds, for a log: what ``describe()`` returns then.

    Args:
        describe: returns the line.
        silent: write nothing.
        seconds: the time between two lines; a block that is shorter writes none.
    """
    descriptor = None if silent else _descriptor()
    if descriptor is None:
        yield
        return
    ended = threading.Event()

    def write() -> None:
        with suppress(OSError):  # nobody reads it any more
            while not ended.wait(seconds):
                os.write(descriptor, f"{describe()}\n".encode(errors="replace"))

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _terminal() -> int | None:
    """Return the descriptor of standard error if it is a terminal that can write over a line."""
    descriptor = _descriptor()
    is_terminal = descriptor is not None and os.isatty(descriptor) and os.environ.get("TERM") != "dumb"
    return descriptor if is_terminal else None


def _descriptor() -> int | None:
    """Return the descriptor of standard error, if there is one."""
    try:
        return sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):  # there is none, or something that replaces it
        return None

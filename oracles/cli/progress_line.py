"""One line on the terminal that says what a long check does; it appears late, and is erased at the end.

A thread writes it, as a call of the subject may take a minute. It writes to the file descriptor: a process that is
forked meanwhile inherits no lock of Python's streams. Spaces erase it, and no control sequence: a subject that ends the
process leaves a terminal as it was.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from time import monotonic

from oracles.constants import PATIENCE_SECONDS, REFRESH_SECONDS
from oracles.stages import announced_to
from oracles.time_budget import deadline


@contextmanager
def progress_line() -> Iterator[None]:
    """Show what the judge does in the block, on standard error, if that is a terminal and the block takes long."""
    descriptor = _terminal()
    if descriptor is None:
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


def _terminal() -> int | None:
    """Return the descriptor of standard error if it is a terminal that can write over a line."""
    try:
        descriptor = sys.stderr.fileno()
        return descriptor if os.isatty(descriptor) and os.environ.get("TERM") != "dumb" else None
    except (AttributeError, OSError, ValueError):  # there is none, or something that replaces it
        return None

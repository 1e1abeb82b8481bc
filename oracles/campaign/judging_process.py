"""The worker's side of the process that judges: start it, send it units, notice that it has ended or is silent."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from oracles.campaign.units import Json, Plan
from oracles.constants import CAMPAIGN_POLL_SECONDS, CAMPAIGN_SILENCE_SECONDS
from oracles.forked import describe_ending

# How many characters of what a process says before it ends are shown.
SHOWN = 2000


class Ended(Exception):
    """The process ended, or was ended, before it answered; the message says how."""


class JudgingProcess:
    """A process that judges units of a plan, started when the first one is asked for.

    Attributes:
        pid: its id; ``None`` while there is none.
    """

    def __init__(self, plan: Plan, store: str, examples_from: str | None) -> None:
        self._first = {"plan": plan.to_json(), "store": store, "examples_from": examples_from}
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[Json | None] = queue.SimpleQueue()

    @property
    def pid(self) -> int | None:
        """The id of the process."""
        return self._process.pid if self._process else None

    def start(self, wait: Callable[[], None]) -> str:
        """Start the process, unless it runs; return the identity of the code that it judges with, "" if it ran.

        Raises:
            Ended: if it does not come up, with what it printed.
            Exception: whatever ``wait`` raises, which is called while it starts.
        """
        if self._process is not None:
            return ""
        self._answers = queue.SimpleQueue()
        command = [sys.executable, "-m", "oracles.campaign.judging"]
        # In a session of its own: an interrupt at the terminal is for the worker, which decides.
        process = self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        assert process.stdout is not None
        threading.Thread(target=_read, args=(process.stdout, self._answers), daemon=True).start()
        self._send(self._first)
        return str(self._answer(wait)["code"])

    def judge(self, number: int, wait: Callable[[], None]) -> Json:
        """Return the ``record`` and the ``example`` of a unit.

        Raises:
            Ended: if the process ends before, or is silent for too long.
            Exception: whatever ``wait`` raises, which is called again and again until it answers.
        """
        self._send({"number": number})
        return self._answer(wait)

    def end(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                with suppress(OSError):
                    stream.close() if stream else None

    def _send(self, message: Json) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        with suppress(OSError):  # it has ended, as the end of its answers says
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()

    def _answer(self, wait: Callable[[], None]) -> Json:
        heard = time.monotonic()
        while True:
            try:
                message = self._answers.get(timeout=CAMPAIGN_POLL_SECONDS)
            except queue.Empty:
                message = {"alive": False}
            if message is None:
                raise Ended(self._how())
            if "alive" not in message:
                return message
            if message["alive"]:
                heard = time.monotonic()
            elif time.monotonic() - heard > CAMPAIGN_SILENCE_SECONDS:
                self.end()
                raise Ended(f"it was silent for {CAMPAIGN_SILENCE_SECONDS:g} s")
            wait()

    def _how(self) -> str:
        """Return how the process ended."""
        process = self._process
        assert process is not None
        said = process.stderr.read()[-SHOWN:].strip() if process.stderr else ""
        status = process.wait()
        self.end()
        how = describe_ending(status)
        return f"{how}\n{said}" if said else how


def _read(stream: IO[str], answers: queue.SimpleQueue[Json | None]) -> None:
    """Pass on the answers of a process, and that there are no more."""
    with suppress(OSError, ValueError):  # it was closed, or its last line is half a line
        for line in stream:
            answers.put(json.loads(line))
    answers.put(None)

"""Ask comparisons again while tests run: when, within which time, and without a trace in the run."""

from __future__ import annotations

import inspect
import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import numpy as np

from oracles.audit.comparisons import APPROX, Comparison, Composite, accepts, is_true, roundings
from oracles.audit.in_place import is_in_place
from oracles.audit.mutants import mutants
from oracles.audit.operands import Question, is_same, question
from oracles.audit.records import ByLine, Findings, Line
from oracles.audit.statements import Place, is_assertion, place_of
from oracles.constants import AUDIT_CALLS, AUDIT_FIRST_SHARE, AUDIT_REPEATED_SHARE, AUDIT_SECONDS

# Calls the comparison's own function with the mutant and the expected operand in the places of the first two arguments.
Ask = Callable[[object, object], object]
_PACKAGES = ("oracles.audit", "contextlib")
# Stands for the result of a comparison that raised.
RAISED = object()


class _Part:
    """What the mutants of one composite comparison give: one is let through if every part that has it accepts it."""

    def __init__(self, composite: Composite, findings: Findings | None) -> None:
        self.composite, self.findings = composite, findings
        self.tried: dict[str, bool] = {}

    def add(self, tried: Mapping[str, bool]) -> None:
        """Add the answers of one part, by mutant."""
        for name, is_accepted in tried.items():
            self.tried[name] = self.tried.get(name, True) and is_accepted


class _State(threading.local):
    """Of each thread: whether it is inside a comparison, and inside which composite one."""

    inside = False
    composite: _Part | None = None


class Auditor:
    """Audits the comparisons of the test that runs at present.

    Nothing that it raises leaves it; `faults` counts it. It draws no random numbers, and works on copies.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.test_file = ""  # "" where no test runs
        self.by_line: ByLine = {}
        self.faults: Counter[str] = Counter()
        self.started, self.seconds = time.perf_counter(), 0.0
        self._state = _State()
        self.is_recorded: Callable[[], bool] = bool  # by torch, once it is imported

    def begin(self, test_file: str) -> None:
        """Begin with a test, given the file that it stands in."""
        self.test_file, self.by_line = test_file, {}

    def end(self) -> ByLine:
        """End with a test, and return what it has found."""
        self.test_file, found = "", self.by_line
        return found

    def is_idle(self) -> bool:
        """Return whether a comparison is none of a test's own: no test runs, or another comparison calls it.

        What torch compiles or traces must be what it is without the audit.
        """
        return self.is_recorded() or not self.test_file or self._state.inside

    @contextmanager
    def comparing(self) -> Iterator[None]:
        """Enclose a comparison of the test: what it calls is none."""
        self._state.inside = True
        try:
            yield
        finally:
            self._state.inside = False

    @contextmanager
    def composing(self, composite: Composite) -> Iterator[None]:
        """Enclose a comparison of gradients, whose parts are seen by `compared`."""
        if self._state.composite is not None:
            yield
            return
        part, findings = _Part(composite, None), Findings()
        with _Contained(self):
            findings = self._findings(place_of(_calling_frame(), self.test_file), composite.name)
            part.findings = findings if self._may_ask(findings) else None
        self._state.composite = part
        try:
            yield
        except BaseException:
            findings.refused += 1
            raise
        finally:
            self._state.composite = None
            if part.findings is not None and part.tried:
                _count(part.findings, part.tried)

    def compared(
        self, comparison: Comparison, ask: Ask, args: tuple[Any, ...], named: Mapping[str, Any], result: object
    ) -> None:
        """Record a comparison that has ended, with its result or `RAISED`, and ask it again if it has accepted."""
        with _Contained(self):
            frame = _calling_frame()
            if self._state.composite is not None:
                self._compared_part(self._state.composite, comparison, ask, args, named, frame)
                return
            place = place_of(frame, self.test_file)
            if not comparison.raises and comparison is not APPROX and not is_assertion(place, comparison.name):
                return
            findings = self._findings(place, comparison.name)
            if result is RAISED or not (comparison.raises or is_true(result)):
                findings.refused += 1
                return
            self._ask_again(findings, comparison, ask, named)

    def _compared_part(
        self,
        part: _Part,
        comparison: Comparison,
        ask: Ask,
        args: tuple[Any, ...],
        named: Mapping[str, Any],
        frame: FrameType,
    ) -> None:
        composite, findings = part.composite, part.findings
        caller = str(frame.f_globals.get("__name__", ""))
        is_part = comparison.name == composite.part and caller.startswith(composite.caller)
        if findings is None or not is_part or not composite.is_gradient(args, named):
            return
        actual, expected = (named.get(name) for name in comparison.parameters[:2])
        asked = question(actual, expected)
        if asked is not None:
            self._describe(findings, asked, comparison, named)
            part.add(self._answers(comparison, ask, asked))

    def _ask_again(self, findings: Findings, comparison: Comparison, ask: Ask, named: Mapping[str, Any]) -> None:
        actual, expected = (named.get(name) for name in comparison.parameters[:2])
        if is_same(actual, expected):
            findings.same += 1
            return
        if not self._may_ask(findings):
            return
        asked = question(actual, expected, may_sample=comparison.may_sample)
        if asked is None:
            findings.other += 1
            return
        self._describe(findings, asked, comparison, named)
        tried = self._answers(comparison, ask, asked)
        if tried:
            _count(findings, tried)
        else:
            findings.unmutable += 1

    def _answers(self, comparison: Comparison, ask: Ask, asked: Question) -> dict[str, bool]:
        """Return which mutants the comparison accepts, as far as the time for one comparison goes."""
        answers: dict[str, bool] = {}
        until = time.perf_counter() + AUDIT_SECONDS
        with self.comparing(), _silence(), np.errstate(all="ignore"):
            for name, mutant in mutants(asked.entries, asked.rounding):
                actual = asked.to_actual(mutant)
                answers[name] = accepts(comparison, lambda actual=actual: ask(actual, asked.expected))  # type: ignore[misc]
                if time.perf_counter() > until:
                    break
        return answers

    def _describe(self, findings: Findings, asked: Question, comparison: Comparison, named: Mapping[str, Any]) -> None:
        if asked.dtype not in findings.dtypes:
            findings.dtypes.append(asked.dtype)
        entries = asked.entries
        findings.loosen(roundings(comparison, named, entries.scale, asked.dtype, asked.rounding))

    def _findings(self, place: Place, function: str) -> Findings:
        through = place.through and self._shown(place.through)
        line = Line(self._shown(place.file), place.line, function, through)
        findings = self.by_line.setdefault(line, Findings())
        findings.calls += 1
        return findings

    def _may_ask(self, findings: Findings) -> bool:
        """Return whether a call is to be asked again: the first ones of a line, and within the share of the time."""
        n = findings.calls
        if n > AUDIT_CALLS and n & (n - 1):
            return False
        own = time.perf_counter() - self.started - self.seconds
        return self.seconds <= (AUDIT_REPEATED_SHARE if findings.asked else AUDIT_FIRST_SHARE) * own

    def _shown(self, file: str) -> str:
        """Return a path as the report shows it: in the project, or in an installed package."""
        if file.startswith(self.root + os.sep):
            file = os.path.relpath(file, self.root)
        return file.replace(os.sep, "/").rpartition("site-packages/")[2]


@contextmanager
def _silence() -> Iterator[None]:
    """Ignore warnings.

    ``warnings.catch_warnings`` makes Python forget which warnings it has shown: the run would show them again.
    """
    ignored: Any = ("ignore", None, Warning, None, 0)
    filters: Any = warnings.filters
    filters.insert(0, ignored)
    try:
        yield
    finally:
        filters.remove(ignored)


def _calling_frame() -> FrameType:
    """Return the frame that called a comparison: the innermost one outside this package."""
    frame = inspect.currentframe()
    while frame is not None and (is_in_place(frame) or str(frame.f_globals.get("__name__", "")).startswith(_PACKAGES)):
        frame = frame.f_back
    if frame is None:
        raise LookupError("no frame has called the comparison")
    return frame


def _count(findings: Findings, tried: Mapping[str, bool]) -> None:
    findings.asked += 1
    findings.tried.update(tried.keys())
    findings.accepted.update(name for name, is_accepted in tried.items() if is_accepted)
    findings.detecting += not all(tried.values())


class _Contained:
    """Contain what the audit itself raises, and count its time: neither is the test's."""

    def __init__(self, auditor: Auditor) -> None:
        self.auditor = auditor

    def __enter__(self) -> None:
        self.started = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.auditor.seconds += time.perf_counter() - self.started
        if not isinstance(error, Exception):
            return False  # KeyboardInterrupt, and a time limit of pytest's, are the run's
        self.auditor.faults[f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"] += 1
        return True

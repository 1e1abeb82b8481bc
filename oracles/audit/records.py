"""What an audit has found: by line of the suite, and by test; and the same as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from oracles.audit.mutants import MUTANTS

Json: TypeAlias = dict[str, Any]
# Counts up when a key of the document changes its name or meaning.
SCHEMA = 1
NO_COMPARISON = "no comparison of it was seen"


class Line(NamedTuple):
    """A line of the suite that compares, by the function of this name; ``through`` is the line of a helper, or ""."""

    file: str
    line: int
    function: str
    through: str


@dataclass
class Findings:
    """What the calls of one line have let through; calls count, and among those that were asked again, mutants.

    ``detecting`` counts the calls that refuse a mutant, ``refused`` those that refused the value itself, ``same`` those
    of an object with itself, ``unmutable`` those of which no mutant differs, such as empty arrays. The rest of the
    calls is not asked: for time, or since the operands are of a type that has no mutants (``other``).
    """

    calls: int = 0
    asked: int = 0
    detecting: int = 0
    refused: int = 0
    same: int = 0
    unmutable: int = 0
    other: int = 0
    tried: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    roundings: float | None = None
    dtypes: list[str] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Add the calls of another test or process."""
        for name in ("calls", "asked", "detecting", "refused", "same", "unmutable", "other"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.tried.update(other.tried)
        self.accepted.update(other.accepted)
        self.loosen(other.roundings)
        self.dtypes = sorted({*self.dtypes, *other.dtypes})

    def loosen(self, roundings: float | None) -> None:
        """Keep the largest tolerance."""
        if roundings is not None:
            self.roundings = max(roundings, self.roundings or 0.0)

    @property
    def is_loose(self) -> bool:
        """Return whether a mutant was let through, or an object compared with itself."""
        return bool(self.same or self.accepted)

    @property
    def severity(self) -> tuple[float, ...]:
        """Return the share of calls that let each mutant through, the worst mutant first, for sorting."""
        same = self.same / self.calls if self.calls else 0.0
        shares = (self.accepted[name] / self.tried[name] if self.tried[name] else 0.0 for name in MUTANTS)
        return (same, *shares, self.roundings or 0.0)

    def packed(self) -> Json:
        """Return the fields in the types of JSON."""
        return {**vars(self), "tried": dict(self.tried), "accepted": dict(self.accepted)}

    @classmethod
    def unpacked(cls, contents: Json) -> Findings:
        """Return what `packed` has packed."""
        counts: Json = {name: Counter(contents[name]) for name in ("tried", "accepted")}
        return cls(**{**contents, **counts})


ByLine: TypeAlias = dict[Line, Findings]


def pack(by_line: ByLine) -> list[Any]:
    """Return what a test has found in the types of JSON."""
    return [[list(line), findings.packed()] for line, findings in by_line.items()]


def unpack(contents: Iterable[Any]) -> ByLine:
    """Return what `pack` has packed."""
    return {Line(*line): Findings.unpacked(findings) for line, findings in contents}


def weakness(by_line: Mapping[Line, Findings]) -> str:
    """Return why no comparison of a test refuses a mutant; "" if one does, or nothing is known."""
    if not by_line:
        return NO_COMPARISON
    found = list(by_line.values())
    if any(findings.detecting or findings.refused or findings.other for findings in found):
        return ""
    if any(not (findings.asked or findings.same or findings.unmutable) for findings in found):
        return ""  # not asked: nothing is known
    if all(findings.same == findings.calls for findings in found):
        return "compares an array with itself"
    if any(findings.asked for findings in found):
        return "lets every mutant through"
    return "compares nothing that a mutant could change"


@dataclass
class Audit:
    """What all tests have found, those of the workers of xdist too."""

    lines: ByLine = field(default_factory=dict)
    tests: dict[str, ByLine] = field(default_factory=dict)
    passed: set[str] = field(default_factory=set)
    processes: dict[str, tuple[float, float, dict[str, int]]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Return the time of the audit, of all processes together."""
        return sum(seconds for seconds, _, _ in self.processes.values())

    @property
    def run_seconds(self) -> float:
        """Return the time of the run, of all processes together."""
        return sum(seconds for _, seconds, _ in self.processes.values())

    @property
    def faults(self) -> Counter[str]:
        """Count what the audit itself has raised."""
        return sum((Counter(faults) for _, _, faults in self.processes.values()), Counter())

    def note_process(self, name: str, seconds: float, run_seconds: float, faults: dict[str, int]) -> None:
        """Keep the last totals of one process: of the run itself, or of a worker of xdist."""
        self.processes[name] = (seconds, run_seconds, faults)

    def add(self, test: str, by_line: ByLine) -> None:
        """Add what a test has found."""
        self.tests.setdefault(test, {}).update(by_line)
        for line, findings in by_line.items():
            self.lines.setdefault(line, Findings()).add(findings)

    def loose(self) -> list[tuple[Line, Findings]]:
        """Return the lines that let something through, the worst first."""
        loose = [(line, findings) for line, findings in self.lines.items() if findings.is_loose]
        return sorted(loose, key=lambda pair: ([-share for share in pair[1].severity], pair[0]))

    def weak(self) -> dict[str, str]:
        """Return the tests that passed without a comparison that refuses a mutant, each with the reason."""
        reasons = ((test, weakness(by_line)) for test, by_line in self.tests.items() if test in self.passed)
        return {test: reason for test, reason in sorted(reasons) if reason}

    def document(self) -> Json:
        """Return everything in the types of JSON; docs/reference/json.md describes it."""
        tests_of: dict[Line, list[str]] = {}
        for test, by_line in sorted(self.tests.items()):
            for line in by_line:
                tests_of.setdefault(line, []).append(test)
        order = [line for line, _ in self.loose()]
        order += sorted(line for line in self.lines if not self.lines[line].is_loose)
        return {
            "schema": SCHEMA,
            "seconds": self.seconds,
            "run_seconds": self.run_seconds,
            "tests": len(self.tests),
            "lines": [self._line(line, tests_of.get(line, [])) for line in order],
            "weak": [{"test": test, "reason": reason} for test, reason in self.weak().items()],
            "faults": dict(self.faults),
        }

    def _line(self, line: Line, tests: list[str]) -> Json:
        findings = self.lines[line]
        mutants = {
            name: {"tried": findings.tried[name], "accepted": findings.accepted[name]}
            for name in MUTANTS
            if findings.tried[name]
        }
        counts = {
            name: getattr(findings, name)
            for name in ("calls", "asked", "detecting", "refused", "same", "unmutable", "other")
        }
        return {
            **line._asdict(), "dtypes": findings.dtypes, **counts, "roundings": findings.roundings,
            "mutants": mutants, "tests": tests,
        }  # fmt: skip

"""What ``oracles check`` answers: an exit status, a text, and results for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from oracles.cli.supervision import EXIT_SKIPPED
from oracles.environment import describe_error
from oracles.missing import Missing
from oracles.report.disagreement import Disagreement, Json
from oracles.rule import InternalError, InvalidInput, ReferenceFailed
from oracles.verdict import NOT_JUDGED, SKIPPED

# Why nothing is known of a subject. The first class that fits names it: some are subclasses of others.
CAUSES: Mapping[type[Exception], str] = {
    NotImplementedError: "not implemented",
    InvalidInput: "invalid input",
    ReferenceFailed: "a reference failed",
    InternalError: "the judge failed",
}

LEGEND = "  error / tolerance: the worst one, up to 1 is rounding; detects above: the relative error that is refused"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a command: its exit status, its text, the results for JSON, and the refusal if there is one."""

    status: int
    text: str
    results: Sequence[Json] = ()
    refusal: Disagreement | None = None


def not_judged(name: str, error: Exception) -> Outcome:
    """Return the outcome of a subject of which nothing is known, because of this exception."""
    cause = next(words for kind, words in CAUSES.items() if isinstance(error, kind))
    row: Json = {"verdict": NOT_JUDGED, "cause": cause, "reason": describe_problem(error)}
    return Outcome(2, f"{name}: {NOT_JUDGED}, {cause}: {row['reason']}", [row])


def skipped(name: str, missing: Missing) -> Outcome:
    """Return the outcome of a subject that was not judged, since a package is not installed."""
    row: Json = {"verdict": SKIPPED, "package": missing.package, "reason": missing.reason, "fix": missing.fix}
    return Outcome(EXIT_SKIPPED, f"{name}: {SKIPPED}, {missing}", [row])


def describe_problem(error: BaseException) -> str:
    """Return what an exception says; with its type and origin, unless the message is this package's own."""
    return str(error) if isinstance(error, InvalidInput) else describe_error(error)


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]

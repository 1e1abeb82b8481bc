"""What one search has found: the rows of JSON, and the failure if there is one, for the commands and for pytest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

from oracles.cli.outcomes import describe_problem
from oracles.cli.verify_report import Failure, Outcome, Row
from oracles.missing import missing_of
from oracles.report.disagreement import Disagreement
from oracles.search import Search
from oracles.verdict import NOT_JUDGED, SELF_CONSISTENCY, Verdict


def searched(search: Search, tick: Callable[[], object]) -> Outcome:
    """Run one search and return what it has found, also if it is interrupted."""
    try:
        return outcome_of(search, search.attempt(tick))
    except KeyboardInterrupt:
        return outcome_of(search, None, interrupted=True)


def outcome_of(search: Search, error: BaseException | None, *, interrupted: bool = False) -> Outcome:
    """Return what a search has found, given the exception that ended it, if any did."""
    tally, missing = search.tally, missing_of(error)
    skipped = {**tally.skipped, **({} if tally.skipped or missing is None else {missing.package: missing})}
    failure = None if error is None or missing is not None else _failure(search, error)
    return Outcome(search.label, list(_rows(search)), failure, tally.coverage, interrupted, tally.out_of_time, skipped)


def _failure(search: Search, error: BaseException) -> Failure:
    """Return the failure of a search that was refused, or whose subject or references raised."""
    if isinstance(error, Disagreement):
        return Failure(search.label, str(error.verdict), str(error))
    # The search marks what its subject raised as wrong; of anything else nothing follows.
    verdict = search.tally.verdicts.get(SELF_CONSISTENCY)
    is_wrong = verdict is not None and verdict is not Verdict.AGREES
    message = describe_problem(error)
    text = f"{search.label}, {search.property_name}, {search.dtype}: {message}"
    return Failure(search.label, str(verdict) if is_wrong else NOT_JUDGED, text, message)


def _rows(search: Search) -> Iterator[Row]:
    tally = search.tally
    for oracle, verdict in tally.verdicts.items():
        detectable = tally.detects_above.get(oracle, [])
        yield Row(
            layer=search.label,
            property=search.property_name,
            oracle=oracle,
            dtype=search.dtype,
            verdict=str(verdict),
            examples=tally.examples.get(oracle, 0),
            worst_ratio=float(tally.worst_ratio.get(oracle, 0.0)),
            seconds=round(tally.seconds, 4),
            vacuous=tally.vacuous.get(oracle, 0),
            detects_above_median=float(median(detectable)) if detectable else 0.0,
            detects_above_worst=float(max(detectable, default=0.0)),
        )

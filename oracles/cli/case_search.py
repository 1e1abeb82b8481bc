"""``oracles check`` of a subject whose cases are drawn: a strategy, or a type with registered cases."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from statistics import median
from typing import Any

from hypothesis import strategies as st

from oracles.cli.outcomes import CAUSES, LEGEND, Outcome, align, not_judged, skipped
from oracles.cli.subjects import NamedReference
from oracles.environment import deferred_interrupts, describe_error
from oracles.missing import missing_of
from oracles.numerics import Numerics
from oracles.options import FRAMEWORK_NAMES, PROFILES, SearchOptions, derivative_properties
from oracles.properties import ORACLE_PROPERTIES
from oracles.registry import Case, Unusable, entries_for
from oracles.report.disagreement import Disagreement, Json
from oracles.search import Search
from oracles.stages import announce
from oracles.tally import Tally, describe_inconclusive, points_out_of_time
from oracles.verdict import SKIPPED, Verdict


def cases_of(subject: object) -> st.SearchStrategy[Case] | None:
    """Return the strategy that a subject is, or the one of the cases that are registered for its type."""
    if isinstance(subject, st.SearchStrategy):
        return subject
    entries = entries_for(subject) if isinstance(subject, type) else []
    return st.one_of([entry.cases for entry in entries]) if entries else None


def search_cases(
    cases: st.SearchStrategy[Case], name: str, against: Sequence[NamedReference], args: argparse.Namespace
) -> Outcome:
    """Search drawn cases for a point at which the output or a cotangent is refused."""
    of_a_point = {
        "--delta": args.delta,
        "--batched": args.batched,
        "--precision": args.precision,
        "--isolate": args.isolate,
        "--outputs": args.outputs,
    }
    option = next((name for name, value in of_a_point.items() if value), None)
    if option:
        raise Unusable(
            f"{option}: the points of {name} are drawn from its cases.\nFix:    name the point: --shapes, or --primals"
        )
    changes: dict[str, Any] = {each.framework: each.f for each in against}
    changes |= {"kinks": args.kinks} if args.kinks else {}
    changes |= {"numerics": Numerics.parse(args.numerics)} if args.numerics else {}
    changes |= {"device": args.device} if args.device else {}
    if changes:
        cases = cases.map(lambda case: replace(case, **changes))
    frameworks = tuple(each.framework for each in against) or FRAMEWORK_NAMES
    options = SearchOptions(
        frameworks, args.examples or PROFILES["default"], args.seed, seconds=args.seconds, blocks=args.blocks
    )
    tallies, unclear = [], []
    for dtype in args.dtype or ("float64",):
        for property_name in (*ORACLE_PROPERTIES, *args.properties, *derivative_properties(args.order, args.mode)):
            search = Search(cases, property_name, dtype, name, options=options)
            error = _searched(search)
            # The first refusal ends the search: it is what the user asked for.
            if isinstance(error, Disagreement):
                return Outcome(1, str(error), [error.document()], error)
            missing = missing_of(error)
            if missing is not None:
                return skipped(name, missing)
            if error is not None and isinstance(error, tuple(CAUSES)):
                return not_judged(name, error)
            if error is not None:
                reason = describe_error(error)
                return Outcome(1, f"{name}: {reason}", [{"verdict": str(Verdict.WRONG), "reason": reason}])
            search.require_points()
            tallies.append(search.tally)
            unclear += _inconclusive(search)
    rows, late = _rows_of_search(tallies), sum(tally.out_of_time for tally in tallies)
    note = f"\n  note: {points_out_of_time(late)} (--seconds)" if late else ""
    lacks = {name: lack for tally in tallies for name, lack in tally.skipped.items()}
    note += "".join(f"\n  note: {framework} is {SKIPPED}: {lack.line}" for framework, lack in lacks.items())
    note += "".join(f"\n  NOT PASSED: inconclusive {line}" for line in unclear)
    outcome = "inconclusive at too many points" if unclear else "agrees wherever its cases were drawn"
    return Outcome(int(bool(unclear)), f"{name}: {outcome}\n{_table(rows)}{note}", rows)


def _inconclusive(search: Search) -> list[str]:
    """Return a text for each oracle for which too many points were inconclusive."""
    tally = search.tally
    return [
        f"by {oracle} in {search.dtype}, {search.property_name}: "
        + describe_inconclusive(tally.vacuous.get(oracle, 0), tally.examples[oracle])
        for oracle in tally.inconclusive
    ]


def _searched(search: Search) -> Exception | None:
    """Search, say at which point it is, and return the exception that ended it, if any did."""
    with deferred_interrupts() as raise_if_interrupted:

        def tick() -> None:
            announce(f"{search.property_name} in {search.dtype}: point {search.tally.points + 1}")
            raise_if_interrupted()

        return search.attempt(tick)


def _rows_of_search(tallies: Sequence[Tally]) -> list[Json]:
    """Return the results of searches that refused nothing, oracle by oracle, for JSON."""
    rows: list[Json] = []
    for oracle in sorted({name for tally in tallies for name in tally.examples}):
        own = [tally for tally in tallies if oracle in tally.examples]
        detectable = [error for tally in own for error in tally.detects_above.get(oracle, ())]
        worst = float(max(tally.worst_ratio[oracle] for tally in own))
        unclear = any(oracle in tally.inconclusive for tally in own)
        rows.append(
            {
                "oracle": oracle,
                "verdict": str(Verdict.VACUOUS if unclear else Verdict.AGREES),
                "examples": sum(tally.examples[oracle] for tally in own),
                "worst_ratio": worst if isfinite(worst) else str(worst),  # infinite at a kink that is accepted
                "detects_above": float(median(detectable)) if detectable else 0.0,
                "vacuous": sum(tally.vacuous.get(oracle, 0) for tally in own),
            }
        )
    return rows


def _table(rows: Sequence[Json]) -> str:
    table = [("judged by", "points", "error / tolerance", "detects above", "inconclusive")]
    table += [
        (
            row["oracle"],
            str(row["examples"]),
            f"{float(row['worst_ratio']):.2g}",
            f"{row['detects_above']:.0e}" if row["detects_above"] else "exact",
            f"{row['vacuous'] / row['examples']:.1%}",
        )
        for row in rows
    ]
    return "\n".join([*align(table), LEGEND])

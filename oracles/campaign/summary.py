"""What a campaign has found so far, as one document: counts, failures, worst ratios, workers, coverage, progress."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, isfinite

from oracles.campaign.coverage_documents import coverage_of
from oracles.campaign.store import Store, StoreFailed
from oracles.campaign.units import Json, is_unjudged, reason_of
from oracles.constants import CAMPAIGN_ATTEMPTS
from oracles.coverage import Coverage
from oracles.options import did_you_mean
from oracles.properties import ORACLE_PROPERTIES
from oracles.report.disagreement import number
from oracles.tally import describe_inconclusive, inconclusive_oracles

# Of the document. It counts up when a key changes its name or meaning.
DOCUMENT_SCHEMA = 1
# Rows of the list of worst ratios, and points of the drawing of the progress.
WORST, PROGRESS = 20, 100


def summary(store: Store, code: str | None = None) -> Json:
    """Return what is recorded of one identity of code and versions, the latest one unless it is named.

    Args:
        store: the store.
        code: the beginning of the identity.

    Raises:
        StoreFailed: if there is no such identity, or none at all.
    """
    known = store.identities()
    if not known:
        raise StoreFailed(f"{store.location}: nothing is recorded yet")
    chosen = known[-1] if code is None else next((each for each in known if each["code"].startswith(code)), None)
    if chosen is None:
        hint = did_you_mean(code or "", [each["code"] for each in known])
        raise StoreFailed(f"{store.location}: no results of code {code}{hint}")
    collected = _Collected()
    for record in store.records(chosen["code"]):
        collected.add(record)
    examples = list(store.examples(chosen["code"]))
    apart = [each for each in known if each is not chosen]
    return {
        "schema": DOCUMENT_SCHEMA,
        "store": store.location,
        "code": chosen["code"],
        "versions": chosen["versions"],
        "opened": chosen["opened"],
        **collected.counts(),
        "apart": [{name: each[name] for name in ("code", "opened", "units", "versions")} for each in apart],
        "failures": collected.failures(examples),
        "inconclusive": collected.inconclusive(),
        "given_up": collected.given_up(),
        "skipped": collected.skipped,
        "searches": collected.searches(),
        "worst": collected.worst(),
        "workers": collected.workers(store.leased(chosen["code"])),
        "progress": collected.progress(),
        "coverage": {layer: each.to_json() for layer, each in sorted(collected.coverage.items())},
    }


class _Collected:
    """Adds up records."""

    def __init__(self) -> None:
        self.coverage: dict[str, Coverage] = {}
        self.skipped: dict[str, str] = {}
        self._searches: dict[tuple[str, str, str], Json] = {}
        self._workers: dict[str, Json] = {}
        self._failures: dict[str, Json] = {}
        self._reasons: dict[tuple[str, str, str], list[str]] = {}
        self._times: list[tuple[float, int, str | None]] = []
        self._started = inf
        self._out_of_time = self._repeated = 0

    def add(self, record: Json) -> None:
        """Add one record."""
        key = record["layer"], record["property"], record["dtype"]
        empty = {"units": 0, "points": 0, "seconds": 0.0, "oracles": {}}
        search = self._searches.setdefault(key, {**empty, "order": record["order"]})
        worker = self._workers.setdefault(
            record["worker"], {"units": 0, "points": 0, "busy": 0.0, "first": inf, "last": 0.0}
        )
        worker["busy"] += record["finished"] - record["started"]
        worker["first"] = min(worker["first"], record["started"])
        worker["last"] = max(worker["last"], record["finished"])
        for counts in (search, worker):
            counts["units"] += 1
            counts["points"] += record["points"]
        search["seconds"] += record["seconds"]
        for row in record["rows"]:
            self._add_row(search["oracles"].setdefault(row["oracle"], {"examples": 0, "vacuous": 0}), row)
        if is_unjudged(record):
            self._reasons.setdefault(key, []).append(reason_of(record))
        self._started = min(self._started, record["started"])
        self._out_of_time += record["out_of_time"]
        self._repeated += record["attempts"] > 0
        self.skipped |= record["skipped"]
        self._times.append((record["finished"], record["points"], record["failure"]))
        if record["failure"]:
            self._add_failure(record)
        if record["coverage"]:
            self.coverage.setdefault(record["layer"], Coverage()).merge(coverage_of(record["coverage"]))

    @staticmethod
    def _add_row(known: Json, row: Json) -> None:
        known["examples"] += row["examples"]
        known["vacuous"] += row["vacuous"]
        ratio = float(row["worst_ratio"])
        if isfinite(ratio) and ratio > known.get("worst_ratio", -1.0):
            known["worst_ratio"], known["worst_seed"] = ratio, row["worst_seed"]

    def _add_failure(self, record: Json) -> None:
        known = self._failures.setdefault(record["failure"], {"units": 0, "first": inf, "searches": set()})
        known["units"] += 1
        known["first"] = min(known["first"], record["finished"])
        known["searches"].add(f"{record['property']} {record['dtype']}")
        known["headline"] = record["headline"]

    def counts(self) -> Json:
        """Return the totals."""
        last = max((at for at, *_ in self._times), default=0.0)
        return {
            "units": len(self._times),
            "points": sum(points for _, points, _ in self._times),
            "seconds": last - self._started if self._times else 0.0,
            "busy": sum(worker["busy"] for worker in self._workers.values()),
            "leased_again": self._repeated,
            "out_of_time": self._out_of_time,
        }

    def failures(self, examples: Iterable[Json]) -> list[Json]:
        """Return each failure once, with its smallest example, in the order of their discovery."""
        found = []
        for example in examples:
            counted = self._failures.get(example["failure"])
            if counted:
                times = {"units": counted["units"], "found_after": counted["first"] - self._started}
                found.append({**example, **times, "searches": sorted(counted["searches"])})
        return sorted(found, key=lambda each: each["found_after"])

    def inconclusive(self) -> list[str]:
        """Return a line for each search against an oracle in which too many points were inconclusive."""
        lines = []
        for (layer, name, dtype), search in sorted(self._searches.items()):
            points, vacuous = (
                {oracle: row[key] for oracle, row in search["oracles"].items()} for key in ("examples", "vacuous")
            )
            for oracle in inconclusive_oracles(points, vacuous) if name in ORACLE_PROPERTIES else ():
                described = describe_inconclusive(vacuous[oracle], points[oracle])
                lines.append(f"{layer} by {oracle} in {dtype}, {name}: {described}")
        return lines

    def given_up(self) -> list[str]:
        """Return a line for each search that was tried in a few units and never judged, with the last reason."""
        return [
            f"{layer}, {name}, {dtype}: nothing was judged in {len(reasons)} units: "
            + reasons[-1].removeprefix(f"{layer}, {name}, {dtype}: ")
            for (layer, name, dtype), reasons in sorted(self._reasons.items())
            if len(reasons) >= CAMPAIGN_ATTEMPTS and not self._searches[layer, name, dtype]["points"]
        ]

    def searches(self) -> list[Json]:
        """Return what was searched."""
        return [
            {"layer": layer, "property": name, "dtype": dtype, **search}
            for (layer, name, dtype), search in sorted(self._searches.items())
        ]

    def worst(self) -> list[Json]:
        """Return the largest error / tolerance of the searches in which nothing is refused, largest first."""
        rows = [
            {"layer": each["layer"], "property": each["property"], "dtype": each["dtype"], "oracle": oracle}
            | {"ratio": number(row["worst_ratio"]), "seed": row["worst_seed"]}
            for each in self.searches()
            for oracle, row in each["oracles"].items()
            if 0 < row.get("worst_ratio", 0.0) <= 1
        ]
        return sorted(rows, key=lambda row: -float(row["ratio"]))[:WORST]

    def workers(self, leases: Sequence[Json]) -> list[Json]:
        """Return the throughput of each worker, and whether it holds a lease at present."""
        at_work = {lease["worker"] for lease in leases if lease["expires"] > lease["now"]}
        names = sorted({*self._workers, *(lease["worker"] for lease in leases)})
        none = {"units": 0, "points": 0, "busy": 0.0, "first": None, "last": None}
        return [{"worker": name, **self._workers.get(name, none), "at_work": name in at_work} for name in names]

    def progress(self) -> list[Json]:
        """Return points and discoveries by the seconds since the first unit began, in at most `PROGRESS` steps."""
        known, points, steps = set[str](), 0, []
        for at, more, failure in sorted(self._times, key=lambda each: each[0]):
            points += more
            known |= {failure} if failure else set()
            steps.append({"seconds": at - self._started, "points": points, "discoveries": len(known)})
        every = max(1, len(steps) // PROGRESS)
        return steps[::-every][::-1]

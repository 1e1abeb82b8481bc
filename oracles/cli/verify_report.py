"""What ``oracles verify`` has found: results by search, refusals, what was inconclusive, and the exit status.

The last line and the exit status are made of the same reasons, so they cannot contradict each other.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from oracles.cli.supervision import EXIT_SKIPPED, INTERRUPTED
from oracles.coverage import Coverage
from oracles.environment import installed_versions
from oracles.missing import Missing, missing_module
from oracles.options import FORWARD_MODE, SECOND_ORDER
from oracles.properties import ORACLE_PROPERTIES
from oracles.report.disagreement import SCHEMA, Json, number
from oracles.tally import PointRatio, describe_inconclusive, exceeds_vacuous_limit
from oracles.verdict import EXACT, NOT_JUDGED, SKIPPED, Verdict

# In place of a verdict, where too many points were inconclusive.
INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Row:
    """One row of the JSON: the results of one oracle for one property of one layer in one dtype.

    ``points`` are those of `oracles.tally.Tally.ratios`.
    """

    layer: str
    property: str
    oracle: str
    dtype: str
    verdict: str
    examples: int
    worst_ratio: float
    seconds: float
    vacuous: int
    detects_above_median: float
    detects_above_worst: float
    points: Sequence[PointRatio] = ()


def is_inconclusive(row: Row) -> bool:
    """Return whether more points than chance explains were inconclusive for an oracle."""
    return row.property in ORACLE_PROPERTIES and exceeds_vacuous_limit(row.vacuous, row.examples)


def inconclusive_share(row: Row) -> float:
    """Return the share of inconclusive points."""
    return row.vacuous / row.examples if row.examples else 0.0


@dataclass(frozen=True)
class Failure:
    """A search that was refused or that raised.

    Attributes:
        layer: the layer.
        verdict: the verdict, or "not judged" where nothing is known of the layer.
        text: the report; its first line is the headline.
        message: what was raised, if it is no refusal.
        property_name, dtype: the search, where it is known.
        report: the refusal as `Disagreement.document` gives it, if it was asked for.
    """

    layer: str
    verdict: str
    text: str
    message: str = ""
    property_name: str = ""
    dtype: str = ""
    report: Json = field(default_factory=dict)

    @property
    def headline(self) -> str:
        """The first line, without addresses, which say nothing and differ from search to search."""
        return re.sub(r" at 0x[0-9a-f]+", "", self.text.partition("\n")[0])

    @property
    def details(self) -> str:
        """The other lines."""
        return self.text.partition("\n")[2]

    def document(self) -> Json:
        """Return it in JSON's types."""
        contents = {("property" if name == "property_name" else name): value for name, value in vars(self).items()}
        return contents | {"report": self.report or None}

    @property
    def kind(self) -> tuple[str, str]:
        """What the failures of several searches have in common: the layer, and what was raised or refused."""
        return self.layer, self.message or self.headline


@dataclass(frozen=True)
class Outcome:
    """What one search has found."""

    label: str
    rows: list[Row]
    failure: Failure | None
    coverage: Coverage
    interrupted: bool = False
    out_of_time: int = 0
    skipped: Mapping[str, Missing] = field(default_factory=dict)


@dataclass
class Report:
    """The results of `verify` so far.

    Attributes:
        rows: the results.
        failures: the searches that were refused or that raised.
        missing: the complaints about modules of cases that cannot be imported.
        interrupted: whether the run ended before all searches did.
        coverage: what the searches against oracles have drawn, by layer.
        out_of_time: the number of points whose time was over before all was judged, by layer.
        searches: how many searches are in it.
        skipped: what is missing, by layer and oracle, or by layer and dtype: what could not be judged, and why.
        named: the frameworks that the user named; none for those that are installed.
        options: the options of the command line that repeat it.
        seconds: the wall-clock time.
    """

    rows: list[Row]
    failures: list[Failure]
    missing: Sequence[str]
    interrupted: bool = False
    coverage: dict[str, Coverage] = field(default_factory=dict)
    out_of_time: dict[str, int] = field(default_factory=dict)
    searches: int = 0
    skipped: dict[str, dict[str, Missing]] = field(default_factory=dict)
    named: Sequence[str] = ()
    options: str = ""
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Add what one search has found."""
        self.searches += 1
        self.rows += outcome.rows
        self.failures += [outcome.failure] if outcome.failure else []
        self.interrupted |= outcome.interrupted
        if outcome.skipped:
            self.skipped.setdefault(outcome.label, {}).update(outcome.skipped)
        self.coverage.setdefault(outcome.label, Coverage()).merge(outcome.coverage)
        self.out_of_time[outcome.label] = self.out_of_time.get(outcome.label, 0) + outcome.out_of_time

    def sort(self, names: Sequence[str]) -> None:
        """Put everything in the order of these layers: processes end in any order."""
        self.rows.sort(key=lambda row: names.index(row.layer))
        self.failures.sort(key=lambda failure: names.index(failure.layer))
        self.coverage = {name: self.coverage[name] for name in names if name in self.coverage}

    @property
    def layers(self) -> list[str]:
        """The layers of which anything is known, those that could not be judged included."""
        known = [row.layer for row in self.rows] + [failure.layer for failure in self.failures]
        return list(dict.fromkeys([*known, *self.skipped]))

    def verdict(self, layer: str) -> str:
        """Return a layer's verdict: that of a refusal, else "not judged", "skipped", "inconclusive" or "agrees"."""
        failed = [failure.verdict for failure in self.failures if failure.layer == layer]
        failed.sort(key=lambda verdict: verdict == NOT_JUDGED)  # a verdict says more
        if failed:
            return failed[0]
        rows = [row for row in self.rows if row.layer == layer]
        if layer in self.skipped and not any(row.property in ORACLE_PROPERTIES for row in rows):
            return SKIPPED
        unclear = any(map(is_inconclusive, rows))
        return INCONCLUSIVE if unclear else str(Verdict.AGREES)

    @property
    def inconclusive(self) -> list[str]:
        """A line for each search against an oracle in which too many points were inconclusive."""
        return [
            f"inconclusive: {row.layer} by {row.oracle} in {row.dtype}, {row.property}: "
            f"{describe_inconclusive(row.vacuous, row.examples)}"
            for row in self.rows
            if is_inconclusive(row)
        ]

    @property
    def missing_packages(self) -> dict[str, Missing]:
        """What is missing, by oracle; ball arithmetic too, which no option names."""
        missing = {oracle: each for layer in self.skipped.values() for oracle, each in layer.items()}
        exact = missing_module("flint")
        return missing | ({EXACT: exact} if exact else {})

    @property
    def gaps(self) -> list[str]:
        """What was asked for, and not judged since a package is missing, or a dtype is not taken."""
        layers = [layer for layer in self.layers if self.verdict(layer) == SKIPPED]
        oracles = [oracle for oracle, each in self.missing_packages.items() if oracle in self.named or each.dtype]
        gaps = [f"{counted(len(layers), 'layer')} {SKIPPED} ({', '.join(layers)})"] if layers else []
        return [*gaps, *(f"{oracle} {SKIPPED}" for oracle in oracles)]

    @property
    def reasons(self) -> list[str]:
        """Why this is a failure; nothing if nothing is refused, and all that could be judged agrees."""
        by_outcome: dict[str, list[str]] = {"refused": [], NOT_JUDGED: [], INCONCLUSIVE: []}
        for layer in self.layers:
            verdict = self.verdict(layer)
            if verdict not in (Verdict.AGREES, SKIPPED):
                by_outcome[verdict if verdict in by_outcome else "refused"].append(layer)
        reasons = [
            f"{counted(len(layers), 'layer')} {outcome} ({', '.join(layers)})"
            for outcome, layers in by_outcome.items()
            if layers
        ]
        if self.missing:
            reasons.append(f"{counted(len(self.missing), 'module')} of cases cannot be imported")
        if not self.rows and not self.interrupted and not self.skipped:
            reasons.append("nothing judged")
        return reasons

    @property
    def status(self) -> int:
        """The exit status."""
        if self.interrupted or self.reasons:
            return INTERRUPTED if self.interrupted else 1
        return EXIT_SKIPPED if self.gaps else 0

    @property
    def derivatives(self) -> str:
        """How many layers were judged in the second order and in the forward mode; "" if neither was asked for."""
        words = self.options.split()
        asked = {"order 2": "--order" in words and SECOND_ORDER[0], "forward mode": "--mode" in words and FORWARD_MODE}
        counts = []
        for name, judging in asked.items():
            if judging:
                layers = {row.layer for row in self.rows if row.property == judging and row.examples}
                counts.append(f"{name}: {len(layers)} of {counted(len(self.layers), 'layer')} judged")
        return "; ".join(counts)

    @property
    def summary(self) -> str:
        """The last line: how much was judged, the outcome, and the exit status if it is not 0."""
        reasons = ["interrupted, these are the results until then"] if self.interrupted else []
        reasons += [*self.reasons, *self.gaps]
        packages = [oracle for oracle, each in self.missing_packages.items() if not each.dtype]
        without = [oracle for oracle in packages if oracle not in self.named]
        outcome = ", ".join(reasons) or "all agree"
        outcome += f" (without {', '.join(without)}: not installed)" if without else ""
        outcome += f"; exit status {self.status}" if self.status else ""
        judged = f"{counted(len(self.layers), 'layer')}, {counted(sum(r.examples for r in self.rows), 'verdict')}"
        return f"{judged} in {self.seconds:.0f} s: {outcome}"

    def document(self, seed: int | None) -> Json:
        """Return everything as JSON's types."""
        versions = {"python": platform.python_version(), **installed_versions()}
        return {
            "schema": SCHEMA,
            "versions": versions,
            "seed": seed,
            "options": self.options,
            "status": self.status,
            "summary": self.summary,
            "layers": {layer: self.verdict(layer) for layer in self.layers},
            "failures": [failure.document() for failure in self.failures],
            "inconclusive": self.inconclusive,
            "skipped": {oracle: asdict(each) for oracle, each in self.missing_packages.items()},
            "results": [_row_document(row) for row in self.rows],
            "coverage": {layer: each.to_json() for layer, each in self.coverage.items()},
        }


def _row_document(row: Row) -> Json:
    """Return a row in JSON's types; its points as two lists, to three digits, and the positions of those refused."""
    values = {n: number(v) if isinstance(v, float) else v for n, v in vars(row).items()}
    ratios, tolerances = ([number(float(f"{point[i]:.3g}")) for point in row.points] for i in (0, 1))
    refused = [i for i, point in enumerate(row.points) if point[2]]
    return values | {"points": {"ratio": ratios, "tolerance": tolerances, "refused": refused}}


def counted(count: int, thing: str, ending: str = "s") -> str:
    """Return a number with its noun: "1 layer", "2 layers"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}{ending}"

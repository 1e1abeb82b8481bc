"""The matrices of a page: layer × check × dtype of a run, array × oracle × precision of a point.

Both are made from the JSON documents alone, so that a page and a JSON file never show different results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor, isfinite, log10
from statistics import median

from oracles.properties import ORACLE_PROPERTIES
from oracles.report.compared import Json
from oracles.tally import exceeds_vacuous_limit
from oracles.verdict import NOT_JUDGED, Verdict

INCONCLUSIVE = "inconclusive"
ABSENT = "does not apply"
NOT_ASKED = "was not asked"
# The letters of refusals, so that no verdict shows by its colour alone.
SYMBOLS = {
    Verdict.WRONG: "✕", Verdict.UNSTABLE: "U", Verdict.NOT_INVARIANT: "≠", Verdict.ORACLES_CONFLICT: "C",
    Verdict.KINK: "K", INCONCLUSIVE: "?", Verdict.VACUOUS: "?", NOT_JUDGED: "!", ABSENT: "",
}  # fmt: skip
EXACT_DIGITS = 99  # where only equal bits pass
# Below so many digits that are seen, the green of a cell is one step paler.
STEPS = (3, 5, 8, 12)


@dataclass(frozen=True)
class Cell:
    """What one check, or one oracle, says in one dtype.

    Attributes:
        kind: the class of its colour: "agrees", "accepted" (not equal, and no defect), "inconclusive", "not-judged",
            "absent", or a verdict that refuses.
        verdict: in words.
        symbol: what stands in it: the number of digits that are seen, "=" where bits are compared, or a letter.
        level: how much is seen where it agrees, from 0 to 4.
        details: everything that is known, as a sentence.
        target: the id of the refusal on the page, if there is one.
    """

    kind: str
    verdict: str
    symbol: str
    level: int
    details: str
    target: str = ""


@dataclass(frozen=True)
class Matrix:
    """Rows of cells below two rows of titles.

    Attributes:
        corner: what the rows are.
        groups: the titles of the columns, each with those of its parts.
        rows: the title and the cells of each row.
    """

    corner: str
    groups: Sequence[tuple[str, Sequence[str]]]
    rows: Sequence[tuple[str, Sequence[Cell]]]

    @property
    def kinds(self) -> list[str]:
        """The kinds of cells that occur, for a legend."""
        return list(dict.fromkeys(cell.kind for _, cells in self.rows for cell in cells))


@dataclass
class Summary:
    """What several results have in common: the gravest verdict, the worst ratio, and what was seen least of.

    Attributes:
        verdict: the gravest one.
        refuses: whether the subject is refused.
        ratio: the largest error / tolerance.
        detects_above: the relative error that is refused, of the oracle that sees least; 0 if none is stated.
        examples: the number of verdicts.
        vacuous: the number of inconclusive ones, of the oracle with the largest share.
        oracles: who judged.
    """

    verdict: str = str(Verdict.AGREES)
    refuses: bool = False
    ratio: float = 0.0
    detects_above: float = 0.0
    examples: int = 0
    vacuous: int = 0
    oracles: list[str] = field(default_factory=list)

    def cell(self, title: str, target: str = "") -> Cell:
        """Return it as a cell with a title of its own."""
        parts = [f"{self.examples} verdict{'s' if self.examples != 1 else ''} by {', '.join(self.oracles)}"]
        parts += [f"error / tolerance up to {self.ratio:.2g}"]
        parts += [f"detects above {self.detects_above:.0e}"] if self.detects_above else []
        parts += [f"{self.vacuous} inconclusive"] if self.vacuous else []
        details = f"{title}: {self.verdict}. {'; '.join(parts) if self.examples else 'no verdict'}"
        kind = self.kind
        if kind != "agrees":
            return Cell(kind, self.verdict, SYMBOLS.get(self.verdict, "✕"), 0, details, target)
        digits = self.digits
        symbol = "✓" if digits is None else "=" if digits == EXACT_DIGITS else str(digits)
        level = 2 if digits is None else sum(digits >= step for step in STEPS)
        return Cell(kind, self.verdict, symbol, level, details)

    @property
    def kind(self) -> str:
        """The class of the colour."""
        if self.refuses:
            return self.verdict.replace("_", "-").replace(" ", "-")
        if self.verdict in (INCONCLUSIVE, Verdict.VACUOUS):
            return INCONCLUSIVE
        return "agrees" if self.verdict == Verdict.AGREES else "accepted"

    @property
    def digits(self) -> int | None:
        """How many digits are seen; ``None`` where that is not stated."""
        if self.detects_above:
            return max(0, floor(-log10(self.detects_above)))
        return None if self.ratio else EXACT_DIGITS


def as_float(value: float | str | None) -> float:
    """Return a number of a JSON document, in which infinities and NaN are strings."""
    return 0.0 if value is None else float(value)


def is_inconclusive(row: Json) -> bool:
    """Return whether too many points of a search were inconclusive."""
    return row["property"] in ORACLE_PROPERTIES and exceeds_vacuous_limit(row["vacuous"], row["examples"])


def summarize(rows: Iterable[Json]) -> Summary:
    """Summarize rows of the results of `oracles verify`."""
    rows = list(rows)
    summary = Summary(oracles=sorted({row["oracle"] for row in rows}))
    for row in rows:
        summary.ratio = max(summary.ratio, as_float(row["worst_ratio"]))
        summary.detects_above = max(summary.detects_above, as_float(row["detects_above_median"]))
        summary.examples += row["examples"]
        summary.vacuous = max(summary.vacuous, row["vacuous"])
        if row["verdict"] != Verdict.AGREES and not summary.refuses:
            summary.verdict, summary.refuses = row["verdict"], True
    if not summary.refuses and any(map(is_inconclusive, rows)):
        summary.verdict = INCONCLUSIVE
    return summary


def run_matrix(document: Json, targets: Mapping[tuple[str, str, str], str]) -> Matrix:
    """Return layer × check × dtype of what `oracles verify` writes.

    Args:
        document: the JSON document.
        targets: the id of each refusal by (layer, check, dtype).
    """
    groups: dict[tuple[str, str, str], list[Json]] = {}
    for row in document["results"]:
        groups.setdefault((row["layer"], row["property"], row["dtype"]), []).append(row)
    unjudged = {_search_of(f) for f in document["failures"] if f["verdict"] == NOT_JUDGED}
    properties = list(dict.fromkeys([key[1] for key in groups] + [key[1] for key in unjudged if key[1]]))
    dtypes = list(dict.fromkeys([key[2] for key in groups] + [key[2] for key in unjudged if key[2]]))

    def cell(key: tuple[str, str, str]) -> Cell:
        title = ", ".join(key)
        if key in unjudged or (key[0], "", "") in unjudged:
            return Cell("not-judged", NOT_JUDGED, SYMBOLS[NOT_JUDGED], 0, f"{title}: not judged", targets.get(key, ""))
        if key not in groups:
            return Cell("absent", ABSENT, "", 0, f"{title}: {ABSENT}")
        return summarize(groups[key]).cell(title, targets.get(key, ""))

    rows = [(layer, [cell((layer, p, d)) for p in properties for d in dtypes]) for layer in document["layers"]]
    return Matrix("layer", [(p, dtypes) for p in properties], rows)


def _search_of(failure: Json) -> tuple[str, str, str]:
    return failure["layer"], failure.get("property", ""), failure.get("dtype", "")


def point_summaries(results: Sequence[Json]) -> dict[tuple[str, str, str], Summary]:
    """Summarize the findings of results by (array, oracle, precision)."""
    findings: dict[tuple[str, str, str], list[Json]] = {}
    for result in results:
        for finding in result.get("findings", ()):
            key = finding["quantity"], finding["oracle"], result.get("precision", "")
            findings.setdefault(key, []).append(finding)
    return {key: _summary_of(key[1], group) for key, group in findings.items()}


def _summary_of(oracle: str, findings: Sequence[Json]) -> Summary:
    ranks = [str(verdict) for verdict in Verdict]
    worst = max(findings, key=lambda f: (f["refuses"], ranks.index(f["verdict"])))
    detectable = [d for f in findings if (d := as_float(f["detects_above"])) and isfinite(d)]
    return Summary(
        worst["verdict"],
        worst["refuses"],
        max(as_float(f["ratio"]) for f in findings),
        median(detectable) if detectable else 0.0,
        len(findings),
        sum(f["verdict"] == Verdict.VACUOUS for f in findings),
        [oracle],
    )


def point_matrix(results: Sequence[Json], target: str = "") -> Matrix:
    """Return array × oracle × precision of the results at one or several points."""
    summaries = point_summaries(results)
    oracles = list(dict.fromkeys(key[1] for key in summaries))
    precisions = list(dict.fromkeys(key[2] for key in summaries))

    def cell(key: tuple[str, str, str]) -> Cell:
        title = ", ".join(filter(None, key))
        if key not in summaries:
            return Cell("absent", NOT_ASKED, "", 0, f"{title}: {NOT_ASKED}")
        return summaries[key].cell(title, target if summaries[key].refuses else "")

    arrays = dict.fromkeys(key[0] for key in summaries)
    rows = [(array, [cell((array, oracle, p)) for oracle in oracles for p in precisions]) for array in arrays]
    return Matrix("array", [(oracle, precisions) for oracle in oracles], rows)


def search_matrix(rows: Sequence[Json]) -> Matrix:
    """Return oracle by oracle what `oracles check` found where cases were drawn."""
    cells = []
    for row in rows:
        detects, ratio = as_float(row["detects_above"]), as_float(row["worst_ratio"])
        summary = Summary(row["verdict"], False, ratio, detects, row["examples"], row["vacuous"], [row["oracle"]])
        cells.append(summary.cell(f"every array, {row['oracle']}"))
    return Matrix("drawn", [(row["oracle"], [""]) for row in rows], [("every array", cells)])

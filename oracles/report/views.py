"""What the templates of a page show, made from a JSON document: sections, numbers as text, and drawings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from oracles.coverage import KINDS
from oracles.outputs import AUX, OUTPUT
from oracles.report.compared import Json
from oracles.report.disagreement import REPRODUCE
from oracles.report.drawings import (
    Bar,
    Distances,
    HeatMap,
    Triple,
    WorstEntry,
    distances,
    heat_maps,
    histogram,
    scatter,
    worst_entries,
)
from oracles.report.matrix import Matrix, as_float, point_matrix, run_matrix, search_matrix
from oracles.report.trend import counts_of, trend
from oracles.verdict import NOT_JUDGED, Verdict

# Entries of an input up to which all are printed.
_PRINTED_ENTRIES = 64
# They say nothing, and differ from search to search.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True)
class Refusal:
    """One refusal, or one failure of which nothing more is known than its text.

    Attributes:
        id: by which the matrix refers to it.
        title: the first line of its report.
        verdict: the verdict.
        where: the check and the dtype.
        text: the whole report.
        is_first: whether it is the first of its layer, which is shown at once.
        others: the same in other searches.
        diagnosis: the defect in words.
        reason: why it is refused, in words.
        fix: lines of code that repair it.
        facts: names and values of the refused entry.
        matrix: the arrays by oracle.
        maps: the heat maps.
        block: rows and columns of one cell of them, if that is more than one entry.
        worst: the entries with the largest errors.
        distances: how far the values lie from one another.
        inputs: the primals and delta as text.
        script: a stand-alone file that reproduces it.
    """

    id: str
    title: str
    verdict: str
    where: str
    text: str
    is_first: bool = True
    others: Sequence[Refusal] = ()
    diagnosis: str = ""
    reason: str = ""
    fix: str = ""
    facts: Sequence[tuple[str, str]] = ()
    matrix: Matrix | None = None
    maps: Sequence[HeatMap] = ()
    block: str = ""
    worst: Sequence[WorstEntry] = ()
    distances: Distances | None = None
    inputs: Sequence[tuple[str, str]] = ()
    script: str = ""


def page_view(document: Json, earlier: Json | None) -> Json:
    """Return what the page shows of a document, and of how it differs from an earlier one."""
    is_run = "layers" in document
    results = document["results"]
    refusals, targets = _refusals_of_run(document) if is_run else _refusals_of_check(document)
    points = _points_of_run(results) if is_run else _points_of_check(results)
    return {
        "title": document.get("title") or ("oracles verify" if is_run else f"oracles check {document['target']}"),
        "status": document["status"],
        "summary": document.get("summary", ""),
        "counts": counts_of(document) if is_run else {},
        "matrix": run_matrix(document, targets) if is_run else _matrix_of_check(results, targets),
        "notes": document.get("inconclusive", []),
        "refusals": refusals,
        "some_not_judged": any(refusal.verdict == NOT_JUDGED for refusal in refusals),
        "scatter": scatter(points),
        "medians": _medians(points),
        "coverage": _coverage(document.get("coverage", {})),
        "trend": None if earlier is None else trend(document, earlier),
        "versions": document["versions"],
        "command": _command(document),
        "legend": LEGEND,
    }


def fragment_view(result: Json, text: str) -> Json:
    """Return what a notebook shows of one result."""
    refusal = refusal_of(result, "", text) if any(f["refuses"] for f in result["findings"]) else None
    return {"title": text.partition("\n")[0], "text": text, "refusal": refusal, "matrix": point_matrix([result])}


def _command(document: Json) -> str:
    if "command" in document:
        return str(document["command"])
    if "layers" in document:
        return f"oracles verify{document.get('options', '')}"
    references = "".join(f" --against {reference}" for reference in document["against"])
    return f"oracles check {document['target']}{references} --seed {document['seed']}"


Search = tuple[str, str, str]  # (layer, check, dtype)


def _refusals_of_run(document: Json) -> tuple[list[Refusal], dict[Search, str]]:
    """Return the refusals, those of one kind together, and the id of each search's."""
    kinds: dict[tuple[str, str], list[Refusal]] = {}
    ids: dict[Search, str] = {}
    for i, failure in enumerate(document["failures"]):
        name, search = f"refusal-{i + 1}", (failure["layer"], failure.get("property", ""), failure.get("dtype", ""))
        ids[search] = name
        place, report = ", ".join(filter(None, search[1:])), failure.get("report")
        title = _ADDRESS.sub("", failure["text"].partition("\n")[0])
        is_first = all(layer != failure["layer"] for layer, _ in kinds)
        if report:
            refusal = refusal_of(report, name, failure["text"], place, is_first)
        else:
            refusal = Refusal(name, title, failure["verdict"], place, failure["text"], is_first)
        kinds.setdefault((failure["layer"], failure["message"] or title), []).append(refusal)
    return [replace(first, others=others) for first, *others in kinds.values()], ids


def _refusals_of_check(document: Json) -> tuple[list[Refusal], dict[Search, str]]:
    found: list[Refusal] = []
    for result in document["results"]:
        name = f"refusal-{len(found) + 1}"
        if any(finding["refuses"] for finding in result.get("findings", ())):
            text = result.get("text", document.get("summary", ""))
            found.append(refusal_of(result, name, text, result.get("precision", "")))
        elif "reason" in result:  # nothing is known, or the subject raised
            text = f"{result['verdict']}: {result['reason']}"
            found.append(Refusal(name, text, result["verdict"], result.get("cause", ""), text))
    return found, {("", "", ""): found[0].id} if found else {}


def refusal_of(report: Json, name: str, text: str, where: str = "", is_first: bool = True) -> Refusal:
    """Return a refusal from its document, see `Disagreement.document`."""
    ranks, primals = [str(verdict) for verdict in Verdict], report.get("primals", {})

    def gravity(finding: Json) -> tuple[bool, int, bool, float]:
        is_output = re.split(r"[.[]", finding["quantity"])[0] in (OUTPUT, AUX) and finding["quantity"] not in primals
        return finding["refuses"], ranks.index(finding["verdict"]), is_output, as_float(finding["ratio"])

    worst = max(report["findings"], key=gravity)
    entries = report.get("entries")
    block = entries["block"] if entries else [1, 1]
    return Refusal(
        name,
        text.partition("\n")[0],
        report["verdict"],
        where,
        text.replace(REPRODUCE, "").rstrip(),
        is_first,
        (),
        report["diagnosis"],
        worst["reason"],
        worst["fix"],
        _facts(worst),
        point_matrix([report]),
        heat_maps(entries) if entries else (),
        f"{block[0]} × {block[1]}" if block != [1, 1] else "",
        worst_entries(entries) if entries else (),
        distances(worst),
        _inputs(report),
        report.get("script", ""),
    )


def _facts(finding: Json) -> list[tuple[str, str]]:
    index = f"[{', '.join(map(str, finding['index']))}]" if finding["index"] else ""
    if finding["subject"] is None:
        return [("array", finding["quantity"]), ("refused by", finding["oracle"])]
    facts = [("entry", f"{finding['quantity']}{index}"), ("subject", repr(as_float(finding["subject"])))]
    facts += [(name, repr(as_float(value))) for name, value in finding["oracles"].items()]
    if finding["enclosure"]:
        middle, radius = map(as_float, finding["enclosure"])
        facts = [fact for fact in facts if fact[0] != "exact"] + [("exact", f"{middle!r} ± {radius:.1g}")]
    if finding["tolerance"] is not None:
        facts.append(("tolerance", f"{as_float(finding['tolerance']):.2g}"))
        facts.append(("error / tolerance", f"{as_float(finding['ratio']):.3g}"))
        facts.append(("refused", f"{finding['refused'][0]} of {finding['refused'][1]} entries by {finding['oracle']}"))
    return facts


def _inputs(report: Json) -> list[tuple[str, str]]:
    deltas = report.get("delta", [])
    named = dict(report.get("primals", {}))
    named |= {"delta" if len(deltas) == 1 else f"delta[{i}]": delta for i, delta in enumerate(deltas)}
    return [(f"{name}  {array['dtype']}{array['shape']}", _printed(array)) for name, array in named.items()]


def _printed(array: Json) -> str:
    values = [float.fromhex(v) if isinstance(v, str) else v for v in array["values"]]
    shaped = np.asarray(values).reshape(array["shape"])
    return np.array2string(shaped, max_line_width=88, threshold=_PRINTED_ENTRIES, precision=6)


def _matrix_of_check(results: Sequence[Json], targets: Mapping[Search, str]) -> Matrix | None:
    if any("findings" in result for result in results):
        return point_matrix(results, targets.get(("", "", ""), ""))
    return search_matrix(results) if any("examples" in result for result in results) else None


def _points_of_run(rows: Sequence[Json]) -> dict[str, list[Triple]]:
    """Return the points of all searches by dtype."""
    points: dict[str, list[Triple]] = {}
    for row in rows:
        known = row.get("points") or {"ratio": [], "tolerance": [], "refused": []}  # there are none in schema 1
        refused = set(known["refused"])
        points.setdefault(row["dtype"], []).extend(
            (as_float(ratio), as_float(tolerance), i in refused)
            for i, (ratio, tolerance) in enumerate(zip(known["ratio"], known["tolerance"], strict=True))
        )
    return {dtype: group for dtype, group in points.items() if group}


def _points_of_check(results: Sequence[Json]) -> dict[str, list[Triple]]:
    """Return a point for each array and oracle of each result, by precision."""
    points: dict[str, list[Triple]] = {}
    for result in results:
        for finding in result.get("findings", ()):
            if finding["verdict"] == Verdict.VACUOUS:
                continue
            values = [abs(v) for v in map(as_float, finding["oracles"].values()) if 0 < abs(v) < inf]
            tolerance = as_float(finding["detects_above"])
            if not tolerance and values and finding["tolerance"] is not None:
                tolerance = as_float(finding["tolerance"]) / values[0]
            triple = as_float(finding["ratio"]), tolerance, finding["refuses"]
            points.setdefault(result.get("precision", "drawn"), []).append(triple)
    return points


def _medians(points: Mapping[str, Sequence[Triple]]) -> list[tuple[str, str, str, str, str]]:
    """Return (dtype, points, median tolerance, median ratio, largest ratio): the scatter in words."""
    rows = []
    for dtype, group in points.items():
        tolerances = [t for _, t, _ in group if t]
        ratios = [r for r, _, _ in group]
        middle = f"{np.median(tolerances):.0e}" if tolerances else "none"
        rows.append((dtype, str(len(group)), middle, f"{np.median(ratios):.2g}", f"{max(ratios):.2g}"))
    return rows


@dataclass(frozen=True)
class Drawn:
    """What was drawn for one layer: its extents and values as histograms, and its special values."""

    layer: str
    points: int
    shapes: int
    largest: str
    extents: Sequence[Bar]
    decades: Sequence[Bar]
    deltas: str
    kinds: Sequence[tuple[str, int]] = field(default_factory=list)


_FARTHEST = 6  # powers of ten; what is farther counts with the last one


def _coverage(coverage: Mapping[str, Json]) -> Json | None:
    """Return what was drawn for each layer, on axes that all layers have in common."""
    drawn = {layer: each for layer, each in coverage.items() if each["points"]}
    if not drawn:
        return None
    longest = max((int(e) for each in drawn.values() for e in each.get("extents", {})), default=1)
    extents = ["0", *(str(1 << k) for k in range(max(longest, 1).bit_length()))]
    near = {layer: _near(each.get("decades", {})) for layer, each in drawn.items()}
    powers = [int(p) for each in near.values() for p in each]
    decades = [str(p) for p in range(min(powers, default=0), max(powers, default=0) + 1)]
    rows = [
        Drawn(
            layer,
            each["points"],
            each["shapes"],
            ", ".join(f"{n} {'×'.join(map(str, sizes)) or '()'}" for n, sizes in each["largest"].items()),
            histogram(each.get("extents", {}), extents),
            histogram(near[layer], decades),
            " … ".join(f"{v:.0e}" for v in each["deltas"]),
            [(kind, each["counts"].get(kind, 0)) for kind in KINDS],
        )
        for layer, each in drawn.items()
    ]
    return {"rows": rows, "extents": extents, "decades": decades, "kinds": KINDS}


def _near(decades: Mapping[str, int]) -> dict[str, int]:
    near: dict[str, int] = {}
    for power, count in decades.items():
        key = str(max(-_FARTHEST, min(_FARTHEST, int(power))))
        near[key] = near.get(key, 0) + count
    return near


# What a legend says of each kind of cell.
LEGEND = {
    "agrees": (
        "agrees: an error that leaves fewer digits right than the number says is refused; = bits are equal; "
        "✓ within rounding"
    ),
    "accepted": "another subgradient, or digits lost that the frameworks lose too: no refusal",
    "inconclusive": "inconclusive: rounding could move the gradient by its own size",
    "wrong": "wrong",
    "unstable": "unstable: digits are lost",
    "not-invariant": "the values are right, the bits depend on the batch or on the call",
    "oracles-conflict": "the oracles contradict one another",
    "kink": "another subgradient than the declared one",
    "not-judged": NOT_JUDGED,
    "absent": "does not apply, or was not asked",
}

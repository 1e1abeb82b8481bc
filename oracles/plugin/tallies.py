"""What searches under pytest have seen: as properties of their tests, and summed up layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from oracles.constants import VACUOUS_LIMIT
from oracles.options import PREFIX
from oracles.search import Run, Tally
from oracles.verdict import Verdict
from oracles.versions import versions_line

NAMES = (
    "layer", "check", "dtype", "verdict", "examples", "worst_ratio", "detects_above", "vacuous", "oracles",
    "seed", "note",
)  # fmt: skip
NOT_JUDGED = "not judged"
_ORDER = {verdict: rank for rank, verdict in enumerate((NOT_JUDGED, *map(str, Verdict)))}
_ACCEPTED = (NOT_JUDGED, Verdict.AGREES, Verdict.VACUOUS)
_COLUMNS = ("layer", "tests", "examples", "error", "detects_above", "blind", "verdict", "judged by")

Properties = Mapping[str, Any]


def properties(run: Run) -> list[tuple[str, Any]]:
    """Return what a run has seen as named plain values, which JUnit XML and xdist can carry.

    examples are points, worst_ratio is the worst error / tolerance, detects_above the smallest relative error that
    would have been refused (median), vacuous the share of inconclusive verdicts.
    """
    tally = run.tally
    verdicts = sum(tally.examples.values())
    resolved = [r for each in tally.detects_above.values() for r in each]
    found = {
        "layer": run.label,
        "check": run.check,
        "dtype": run.dtype,
        "verdict": _verdict(tally),
        "examples": tally.points,
        "worst_ratio": float(max(tally.worst_ratio.values(), default=0.0)),
        "detects_above": float(median(resolved)) if resolved else 0.0,
        "vacuous": sum(tally.vacuous.values()) / verdicts if verdicts else 0.0,
        "oracles": ", ".join(sorted(tally.examples)),
        "seed": run.options.seed,
        "note": run.note or None,
    }
    return [(PREFIX + name, found[name]) for name in NAMES if found[name] is not None]


def _verdict(tally: Tally) -> str:
    if not tally.verdicts:
        return NOT_JUDGED
    if sum(tally.vacuous.values()) == sum(tally.examples.values()) > 0:
        return str(Verdict.VACUOUS)
    return max(map(str, tally.verdicts.values()), key=lambda verdict: _ORDER[verdict])


def summary(properties_of: Sequence[Properties]) -> list[str]:
    """Return the summary of the judged tests, given the user_properties of all tests; nothing where none was judged."""
    judged = [p for p in properties_of if PREFIX + "verdict" in p]
    if not judged:
        return []
    by_layer: dict[str, list[Properties]] = {}
    for each in judged:
        by_layer.setdefault(each[PREFIX + "layer"], []).append(each)
    rows = [_COLUMNS, *(_row(layer, by_layer[layer]) for layer in sorted(by_layer))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    right = ("tests", "examples", "error", "detects_above", "blind")
    lines = [
        "  ".join(
            cell.rjust(width) if title in right else cell.ljust(width)
            for cell, width, title in zip(row, widths, _COLUMNS, strict=True)
        ).rstrip()
        for row in rows
    ]
    lines += sorted({f"{p[PREFIX + 'layer']}: {p[PREFIX + 'note']}" for p in judged if PREFIX + "note" in p})
    lines += _blind(by_layer)
    points = sum(_column(judged, "examples"))
    refused = sum(p[PREFIX + "verdict"] not in _ACCEPTED for p in judged)
    outcome = f"{refused} of {len(judged)} tests refused" if refused else "all agree"
    lines.append(f"{len(by_layer)} judged at {points} points: {outcome}; error is in units of what rounding allows")
    return [*lines, versions_line()]


def _row(layer: str, judged: Sequence[Properties]) -> tuple[str, ...]:
    resolved = [r for r in _column(judged, "detects_above") if r]
    verdicts = [p[PREFIX + "verdict"] for p in judged]
    oracles = {name for names in _column(judged, "oracles") for name in names.split(", ") if name}
    return (
        layer,
        str(len(judged)),
        str(sum(_column(judged, "examples"))),
        f"{max(_column(judged, 'worst_ratio')):.2g}",
        f"{median(resolved):.0e}" if resolved else "exact",
        f"{_blind_share(judged):.1%}",
        max(verdicts, key=lambda verdict: _ORDER[verdict]),
        ", ".join(sorted(oracles)),
    )


def _blind_share(judged: Sequence[Properties]) -> float:
    examples = sum(_column(judged, "examples"))
    return sum(p[PREFIX + "vacuous"] * p[PREFIX + "examples"] for p in judged) / examples if examples else 0.0


def _blind(by_layer: Mapping[str, Sequence[Properties]]) -> list[str]:
    """Warn of layers of which the oracles saw too little, as ``oracles verify`` does."""
    by_oracles = {
        layer: [p for p in judged if p[PREFIX + "check"] in ("primal_agrees", "cotangents_agree")]
        for layer, judged in by_layer.items()
    }
    named = [layer for layer, judged in by_oracles.items() if _blind_share(judged) > VACUOUS_LIMIT]
    return [f"more than {VACUOUS_LIMIT:.0%} of the points were blind for {', '.join(sorted(named))}"] if named else []


def _column(judged: Sequence[Properties], name: str) -> list[Any]:
    return [p[PREFIX + name] for p in judged]

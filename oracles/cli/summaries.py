"""What ``oracles check`` says where nothing is refused: who agrees, what was resolved, what was not judged."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from statistics import median
from typing import Any

from oracles.search import Tally
from oracles.verdict import Finding, Result, Verdict

_LEGEND = "  error: the worst one in units of what rounding allows there; detects_above: what would have been refused"


def agreement(name: str, results: Sequence[Result]) -> str:
    """Return the report of results that refuse nothing, at one or several points."""
    found: dict[tuple[str, str, str], list[Finding]] = {}
    for result in results:
        precision = result.setting.precision if result.setting else ""
        for finding in result.findings:
            found.setdefault((finding.quantity, finding.oracle, precision), []).append(finding)
    rows = [("", "judged by", "in", "verdict", "error", "detects_above")]
    rows += [(*of, *_summed(findings)) for of, findings in found.items()]
    lines = [f"{name}: {max((r for r in results), key=_gravity).verdict}", *_table(rows), _LEGEND]
    unclaimed = sorted({n for result in results for n in result.not_claimed})
    if unclaimed:
        lines.append(f"  no gradient claimed, nothing judged: {', '.join(unclaimed)}")
    lines += [f"  note: {note}" for note in dict.fromkeys(note for result in results for note in result.notes)]
    setting = results[0].setting
    if setting is not None:
        shapes = ", ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in setting.primals.items())
        points = f"{len(results)} points, the first " if len(results) > 1 else ""
        lines.append(f"  at: {points}{shapes}")
    return "\n".join(lines)


def nothing_seen(results: Sequence[Result]) -> str:
    """Say why results that refuse nothing are still no pass; "" where they are one."""
    gradients = [f for result in results for f in result.findings if f.is_cotangent]
    if not gradients and any(result.not_claimed for result in results):
        return "the backward returned no gradient at all, so nothing of it was judged"
    if all(result.verdict is Verdict.VACUOUS for result in results):
        return "nothing could be seen: rounding may move every entry by its own size; judge at other points"
    return ""


def searched(name: str, tallies: Sequence[Tally]) -> tuple[str, list[dict[str, Any]]]:
    """Return the report of searches that refused nothing, and its rows for JSON."""
    found: list[dict[str, Any]] = []
    for oracle in sorted({o for tally in tallies for o in tally.examples}):
        seen = [tally for tally in tallies if oracle in tally.examples]
        resolved = [r for tally in seen for r in tally.detects_above.get(oracle, ())]
        worst = float(max(tally.worst_ratio[oracle] for tally in seen))
        found.append(
            {
                "oracle": oracle,
                "verdict": str(Verdict.AGREES),
                "examples": sum(tally.examples[oracle] for tally in seen),
                "worst_ratio": worst
                if isfinite(worst)
                else str(worst),  # a kink that is accepted may be infinitely off
                "detects_above": float(median(resolved)) if resolved else 0.0,
                "vacuous": sum(tally.vacuous.get(oracle, 0) for tally in seen),
            }
        )
    rows = [("judged by", "points", "error", "detects_above", "blind")]
    rows += [
        (
            f["oracle"],
            str(f["examples"]),
            f"{float(f['worst_ratio']):.2g}",
            f"{f['detects_above']:.0e}" if f["detects_above"] else "exact",
            f"{f['vacuous'] / f['examples']:.1%}",
        )
        for f in found
    ]
    return "\n".join([f"{name}: agrees wherever its cases were drawn", *_table(rows), _LEGEND]), found


def _gravity(result: Result) -> tuple[bool, int, float]:
    return result.worst.gravity if result.worst else (False, 0, 0.0)


def _summed(findings: Sequence[Finding]) -> tuple[str, str, str]:
    resolved = [f.detects_above for f in findings if f.detects_above]
    return (
        str(max(findings, key=lambda f: f.gravity).verdict),
        f"{max(f.ratio for f in findings):.2g}",
        f"{median(resolved):.0e}" if resolved else "exact",
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]

"""A result as text that reads like a good bug report."""

from __future__ import annotations

import re
import textwrap

import numpy as np

from oracles.decision.type_errors import CALL
from oracles.diagnosis.ordered_patterns import NO_PATTERN_FOUND
from oracles.verdict import Finding, Result, Setting, Verdict

# A report fits a terminal of 100 columns, and one screen above the prompt.
WIDTH = 100
MOST_LINES = 25
LINES_PER_PARAGRAPH = 4
NAME_WIDTH = 60
MOST_FINDINGS = 6  # in one list
# The last line. The command line and the pytest plugin replace it by their own way to reproduce a refusal.
REPRODUCE = "  reproduce: this exception's script() is a stand-alone file; to_json() has every number"


def report_text(result: Result, diagnosis: str) -> str:
    """Return the report of a result: subject, verdict, location, values, who agrees, the defect, the point."""
    worst = result.worst
    if worst is None:
        return f"{result.subject}: nothing was judged"
    title = f"{_shorten(result.subject)}: {worst.verdict.upper()} in {_quantity_text(worst.quantity)}"
    lines = [f"{title}  [{result.property_name}]"]
    lines += _evidence_lines(worst)
    lines += [f"  fix:    {line}" for line in worst.evidence.fix.splitlines()]
    # A subject that contradicts itself is described by the property; that no pattern was found adds nothing.
    if worst.oracle != "self-consistency" or diagnosis != str(NO_PATTERN_FOUND):
        lines += _paragraph("diagnosis: ", diagnosis)
    others = [f for f in result.findings if (f.quantity, f.oracle) != (worst.quantity, worst.oracle)]
    lines += _paragraph("also refused: ", _findings_text([f for f in others if f.refuses]))
    lines += _paragraph("accepted: ", _findings_text([f for f in others if not f.refuses]))
    lines += _paragraph("no gradient claimed, nothing judged: ", ", ".join(result.not_claimed))
    for note in result.notes:
        lines += _paragraph("note: ", note)
    if result.setting is not None:
        lines += _paragraph("at: ", _point_text(result.setting))
        lines.append(REPRODUCE)
    return "\n".join(lines[:MOST_LINES])


def _evidence_lines(finding: Finding) -> list[str]:
    """Return the reason, and the entry with its values, tolerance and error."""
    evidence = finding.evidence
    lines = _paragraph("", evidence.reason)
    if evidence.subject is None:
        return lines
    index = f"[{', '.join(map(str, evidence.index))}]" if evidence.index else ""
    lines.append(f"  {finding.quantity}{index}")
    values = {"subject": repr(evidence.subject), **{name: repr(value) for name, value in evidence.oracles.items()}}
    if evidence.enclosure is not None and "exact" in values:
        values["exact"] = f"{evidence.enclosure[0]!r} ± {evidence.enclosure[1]:.1g}"
    width = max(map(len, values))
    lines += [f"    {name:<{width}}  {value}" for name, value in values.items()]
    if evidence.tolerance is not None:
        lines.append(f"  the tolerance here is {evidence.tolerance:.2g}; the error is {finding.ratio:.3g} times that")
        lines.append(f"  {evidence.refused[0]} of {evidence.refused[1]} entries refused by {finding.oracle}")
    return lines


def _point_text(setting: Setting) -> str:
    shapes = [f"{n} {np.asarray(a).dtype}{list(np.shape(a))}" for n, a in setting.primals.items()]
    return ", ".join(shapes) + f"; judged in {setting.precision}"


def _paragraph(label: str, body: str) -> list[str]:
    """Return a labelled text as indented lines; none if there is no text."""
    if not body:
        return []
    return textwrap.wrap(
        label + body, WIDTH - 4, initial_indent="  ", subsequent_indent="    ", max_lines=LINES_PER_PARAGRAPH
    )


def _findings_text(findings: list[Finding]) -> str:
    """List quantities, each with the oracles that refused or accepted it."""
    by_quantity: dict[str, list[str]] = {}
    for f in findings:
        note = f.oracle if f.verdict in (Verdict.AGREES, Verdict.WRONG) else f"{f.oracle} ({f.verdict})"
        if note not in by_quantity.setdefault(f.quantity, []):
            by_quantity[f.quantity].append(note)
    items = [f"{quantity} by {' and '.join(oracles)}" for quantity, oracles in by_quantity.items()]
    rest = len(items) - MOST_FINDINGS
    return ", ".join(items[:MOST_FINDINGS]) + (f" and {rest} more" if rest > 0 else "")


def _quantity_text(quantity: str) -> str:
    """Return what a finding is about; a bare name of a primal means its cotangent."""
    is_complete = re.fullmatch(rf"(output|delta)(\[\d+\])?|cotangents|⟨.*|the primal .*|{CALL}", quantity)
    return quantity if is_complete else f"the cotangent of {quantity}"


def _shorten(name: str) -> str:
    return name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 1] + "…"

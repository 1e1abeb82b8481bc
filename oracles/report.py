"""A result as text that reads like a good bug report."""

from __future__ import annotations

from oracles.verdict import Finding, Result


def text(result: Result) -> str:
    """Return the report of a refused result: which subject, what, where, the values, and who agrees."""
    worst = result.worst
    if worst is None:
        return f"{result.subject}: nothing was judged"
    lines = [f"{result.subject}: {worst.verdict.upper()} in {_what(worst.quantity)}  [{result.check}]"]
    lines += _entry(worst)
    others = [f for f in result.findings if f is not worst]
    refused = [f"{f.quantity} by {f.oracle}" for f in others if f.verdict.refuses]
    agreed = [f"{f.quantity} by {f.oracle}" for f in others if not f.verdict.refuses]
    if refused:
        lines.append(f"  also refused: {_shortened(refused)}")
    if agreed:
        lines.append(f"  accepted: {_shortened(agreed)}")
    if result.not_claimed:
        lines.append(f"  no gradient claimed, nothing judged: {', '.join(result.not_claimed)}")
    return "\n".join(lines)


def _entry(finding: Finding) -> list[str]:
    evidence = finding.evidence
    if evidence.reason:
        return [f"  {evidence.reason}"]
    lines = []
    if evidence.subject is not None and evidence.allowance is not None:
        where = f"[{', '.join(map(str, evidence.index))}]" if evidence.index else ""
        lines.append(f"  {finding.quantity}{where}: subject {evidence.subject!r}")
        lines += [f"    {oracle} {value!r}" for oracle, value in evidence.oracles.items()]
        lines.append(f"  rounding allows {evidence.allowance:.2g} here; the error is {finding.ratio:.3g} times that")
        lines.append(f"  {evidence.refused[0]} of {evidence.refused[1]} entries refused by {finding.oracle}")
    return lines


def _what(quantity: str) -> str:
    return quantity if quantity.startswith("output") else f"the cotangent of {quantity}"


def _shortened(items: list[str], most: int = 6) -> str:
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")

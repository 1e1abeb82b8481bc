"""The summary of an audit, as lines that fit a terminal."""

from __future__ import annotations

import shutil

from oracles.audit.mutants import MUTANTS
from oracles.audit.records import NO_COMPARISON, Audit, Findings, Line
from oracles.constants import AUDIT_LINES

_COLUMNS = ("assertion", "function", "calls", "tolerance / u", "lets through")


def summary(audit: Audit, is_complete: bool = False) -> list[str]:
    """Return the lines that let most through, the tests that could not have failed, and what was asked.

    Args:
        audit: what was found.
        is_complete: show every line and test, not `AUDIT_LINES` of them.
    """
    loose, weak = audit.loose(), audit.weak()
    most = len(loose) if is_complete else AUDIT_LINES
    lines = _table(loose[:most]) if loose else []
    if len(loose) > most:
        lines.append(f"and {len(loose) - most} more lines; -v shows all, --oracles-audit-json FILE writes all")
    could_not = [(test, reason) for test, reason in weak.items() if reason != NO_COMPARISON]
    if could_not:
        lines += ["", f"{_tests(len(could_not))} passed without a comparison that refuses a mutant:"]
        shown = could_not if is_complete else could_not[:AUDIT_LINES]
        lines += [f"  {test}: {reason}" for test, reason in shown]
        if len(could_not) > len(shown):
            lines.append(f"  and {len(could_not) - len(shown)} more")
    unseen = [test for test, reason in weak.items() if reason == NO_COMPARISON]
    if unseen:
        lines += ["", f"{_tests(len(unseen))} passed of which no comparison was seen"]
        lines += [f"  {test}" for test in unseen] if is_complete else []
    lines += ["", *_outcome(audit, len(loose))]
    return lines[1:] if not lines[0] else lines


def _outcome(audit: Audit, n_loose: int) -> list[str]:
    found = audit.lines.values()
    calls, asked = sum(f.calls for f in found), sum(f.asked for f in found)
    tried, accepted = sum(f.tried.total() for f in found), sum(f.accepted.total() for f in found)
    share = f" ({audit.seconds / audit.run_seconds:.0%} of the run)" if audit.run_seconds else ""
    lines = [
        f"{calls} comparisons at {len(audit.lines)} lines: {asked} asked again with {tried} mutants, {accepted} let "
        f"through; {n_loose} of the lines let something through",
        f"{_tests(len(audit.tests))}, {audit.seconds:.1f} s for the audit{share}",
    ]
    if audit.faults:
        fault, count = audit.faults.most_common(1)[0]
        lines.append(f"{audit.faults.total()} comparisons could not be asked again; {count} times {fault}")
    return lines


def _tests(count: int) -> str:
    return f"{count} test{'s' if count != 1 else ''}"


def _table(rows: list[tuple[Line, Findings]]) -> list[str]:
    cells = [_COLUMNS, *(_cells(line, findings) for line, findings in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_COLUMNS) - 1)]
    width = max(shutil.get_terminal_size((120, 24)).columns, 80)
    widths[0] = min(widths[0], max(30, width - sum(widths[1:]) - 40))
    table = []
    for row in cells:
        first = row[0] if len(row[0]) <= widths[0] else "…" + row[0][1 - widths[0] :]
        aligned = [first.ljust(widths[0]), row[1].ljust(widths[1]), row[2].rjust(widths[2]), row[3].rjust(widths[3])]
        text = "  ".join([*aligned, row[4]])
        table.append(text if len(text) <= width else text[: width - 1] + "…")
    return table


def _cells(line: Line, findings: Findings) -> tuple[str, ...]:
    return (
        f"{line.file}:{line.line}",
        line.function,
        str(findings.calls),
        "" if findings.roundings is None else f"{findings.roundings:.2g}",
        _let_through(findings),
    )


def _let_through(findings: Findings) -> str:
    """Return the mutants that are accepted, with the share of the calls if that is not all."""
    texts = ["all: an array with itself"] if findings.same else []
    refused = [name for name in MUTANTS if findings.tried[name] and not findings.accepted[name]]
    always = [name for name in MUTANTS if findings.accepted[name] == findings.tried[name] > 0]
    if len(refused) <= 2 < len(always) and len(refused) + len(always) == len(findings.tried):
        return ", ".join([*texts, "every mutant" + (f" but {' and '.join(refused)}" if refused else "")])
    for name in MUTANTS:
        accepted, tried = findings.accepted[name], findings.tried[name]
        if accepted:
            texts.append(name if accepted == tried else f"{name} {accepted}/{tried}")
    return ", ".join(texts)

"""The results of ``oracles verify`` as Markdown, for the summary of a job or a comment on a pull request."""

from __future__ import annotations

from oracles.cli.verify_report import Failure, Report
from oracles.cli.verify_tables import layer_table
from oracles.report.disagreement import REPRODUCE
from oracles.verdict import SKIPPED, Verdict

_TITLES = {"error /\ntolerance": "error / tolerance", "detects\nabove": "detects above"}
_LEFT_OUT = ("by",)  # initials, for a narrow terminal
_MARKS = {str(Verdict.AGREES): "✅", SKIPPED: "⏭️", "inconclusive": "❔"}


def markdown(report: Report) -> str:
    """Return a heading with the outcome, a table with a line for each layer, and the reports of refusals to unfold."""
    contents = layer_table(report)
    titles = [title for title in contents.titles if title not in _LEFT_OUT]
    lines = [f"### Gradients: {_outcome(report)}", "", _row([_TITLES.get(title, title) for title in titles])]
    lines.append(_row(["---"] * len(titles)))
    for row in contents.rows:
        marked = {**row, "verdict": f"{_MARKS.get(row['verdict'], '❌')} {row['verdict']}"}
        lines.append(_row([marked[title] for title in titles]))
    lines += ["", report.summary]
    lines += [f"- {SKIPPED}: {oracle}: {missing.line}" for oracle, missing in report.missing_packages.items()]
    lines += [f"- {line}" for line in report.inconclusive]
    lines += [f"- cannot be judged: {complaint}" for complaint in report.missing]
    first = {failure.kind: failure for failure in reversed(report.failures)}
    for failure in reversed(first.values()):
        lines += ["", *_unfolding(failure, report.options)]
    return "\n".join(lines) + "\n"


def _outcome(report: Report) -> str:
    if report.reasons:
        return "❌ refused or not judged"
    return "⏭️ something was skipped" if report.gaps else "✅ all agree"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _unfolding(failure: Failure, options: str) -> list[str]:
    """Return a report that a click unfolds; between the fences nothing is read as Markdown."""
    again = f"  reproduce: oracles verify {failure.layer}{options}"
    details = failure.details.replace(REPRODUCE, again) or failure.message
    summary = failure.headline.replace("&", "&amp;").replace("<", "&lt;")
    return ["<details>", f"<summary>{summary}</summary>", "", "````text", *details.splitlines(), "````", "</details>"]

"""What ``oracles verify`` prints: a line for each layer, or for each layer, oracle and dtype, and the refusals.

Off a terminal nothing limits the width. At a terminal a table leaves out its least important columns until it fits, and
what remains is never cut.
"""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from oracles.cli.verify_report import (
    INCONCLUSIVE,
    Failure,
    Report,
    Row,
    counted,
    inconclusive_share,
    is_inconclusive,
)
from oracles.report.disagreement import REPRODUCE
from oracles.tally import points_out_of_time
from oracles.verdict import SKIPPED, Verdict

# The width off a terminal, where a reader scrolls: more than any row needs.
NO_LIMIT = 10_000

LEGENDS = {
    "error /\ntolerance": "the worst error in units of the tolerance at its input: up to 1 is rounding",
    "detects\nabove": "the relative error in one entry that is refused: the median, of the oracle that sees least",
    "worst": "the same at the worst point",
    "inconclusive": "the largest share of points at which rounding could move the gradient by its own size",
    "by": "E exact, F finite difference, J jax, S self-consistency, T torch",
}
# What is left out at a narrow terminal, in this order.
_LEAST_IMPORTANT = (
    "shapes",
    "worst",
    "examples",
    "detects\nabove",
    "inconclusive",
    "by",
    "error /\ntolerance",
)
# What may be broken where it does not fit, into parts of at least this width.
_BROKEN = {"layer": 5, "oracle": 6, "dtypes": len("float64,")}
_RIGHT = {"examples", "shapes", "error /\ntolerance", "detects\nabove", "worst", "inconclusive"}


@dataclass(frozen=True)
class Contents:
    """The cells of a table by their columns' titles, and the colour of each row's verdict."""

    titles: Sequence[str]
    rows: Sequence[Mapping[str, str]]

    def table(self, titles: Sequence[str], folds: bool = False) -> Table:
        """Return the table of some columns; ``folds`` breaks the names in the first ones where they do not fit."""
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
        for title in titles:
            may_break = folds and title in _BROKEN
            table.add_column(
                Text(title),
                justify="right" if title in _RIGHT else "left",
                no_wrap=not may_break,
                overflow="fold",
                min_width=_BROKEN[title] if may_break else None,
            )
        for row in self.rows:
            table.add_row(
                *(Text(row[title], style=_style(row[title]) if title == "verdict" else "") for title in titles)
            )
        return table

    def fitted(self, console: Console) -> tuple[Table, list[str]]:
        """Return the table that fits a console, and the titles of its columns."""
        titles = [title for title in self.titles if title != "by"]  # names, if there is room for them
        if self._fits(titles, console):
            return self.table(titles), titles
        titles = [title for title in self.titles if title != "oracles"]
        for least in _LEAST_IMPORTANT:
            if self._fits(titles, console):
                return self.table(titles), titles
            titles = [title for title in titles if title != least]
        table = self.table(titles, folds=True)
        table.width = max(console.width, self._least_width(titles))
        return table, titles

    def _least_width(self, titles: Sequence[str]) -> int:
        """Return the width below which a verdict or a dtype would be cut, whatever breaks."""
        widths = (_BROKEN.get(title) or max(len(title), *(len(row[title]) for row in self.rows), 0) for title in titles)
        return sum(widths) + len(titles) - 1

    def _fits(self, titles: Sequence[str], console: Console) -> bool:
        wide = console.options.update(width=NO_LIMIT, max_width=NO_LIMIT)
        return Measurement.get(console, wide, self.table(titles)).maximum <= console.width


def _style(verdict: str) -> str:
    return {str(Verdict.AGREES): "green", INCONCLUSIVE: "yellow", SKIPPED: "yellow"}.get(verdict, "red")


def layer_table(report: Report) -> Contents:
    """Return the table with one line for each layer."""
    titles = (
        "layer", "oracles", "by", "dtypes", "examples", "shapes", "error /\ntolerance", "detects\nabove",
        "inconclusive", "verdict",
    )  # fmt: skip
    return Contents(titles, [_layer_row(report, layer) for layer in report.layers])


def _layer_row(report: Report, layer: str) -> dict[str, str]:
    rows = [row for row in report.rows if row.layer == layer]
    judged = [row for row in rows if row.examples]
    oracles = sorted({row.oracle for row in judged})
    coverage = report.coverage.get(layer)
    detectable = [row.detects_above_median for row in rows if row.detects_above_median]
    return {
        "layer": layer,
        "oracles": ", ".join(oracles),
        "by": "".join(oracle[0].upper() for oracle in oracles),
        "dtypes": ", ".join(dict.fromkeys(row.dtype for row in rows)),
        "examples": str(sum(row.examples for row in rows)),
        "shapes": str(len(coverage.shapes)) if coverage else "",
        "error /\ntolerance": f"{max(row.worst_ratio for row in rows):.2g}" if judged else "",
        "detects\nabove": f"{max(detectable):.0e}" if detectable else "exact" if judged else "",
        "inconclusive": f"{max(map(inconclusive_share, rows)):.0%}" if judged else "",
        "verdict": report.verdict(layer),
    }


def detailed_table(report: Report) -> Contents:
    """Return the table with one line for each layer, oracle and dtype."""
    titles = (
        "layer", "oracle", "dtype", "examples", "error /\ntolerance", "detects\nabove", "worst", "inconclusive",
        "verdict",
    )  # fmt: skip
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in report.rows:
        groups.setdefault((row.layer, row.oracle, row.dtype), []).append(row)
    cells, previous = [], ""
    for (layer, oracle, dtype), group in sorted(groups.items()):
        detectable = [r.detects_above_median for r in group if r.detects_above_median]
        cells.append(
            {
                "layer": layer if layer != previous else "",
                "oracle": oracle,
                "dtype": dtype,
                "examples": str(sum(r.examples for r in group)),
                "error /\ntolerance": f"{max(r.worst_ratio for r in group):.2g}",
                "detects\nabove": f"{median(detectable):.0e}" if detectable else "exact",
                "worst": f"{max(r.detects_above_worst for r in group):.0e}" if detectable else "",
                "inconclusive": f"{max(map(inconclusive_share, group)):.0%}",
                "verdict": _verdict_of(group),
            }
        )
        previous = layer
    for layer, missing in report.skipped.items():
        cells += [dict.fromkeys(titles, "") | {"layer": layer, "oracle": each, "verdict": SKIPPED} for each in missing]
    return Contents(titles, cells)


def _verdict_of(group: Sequence[Row]) -> str:
    refused = [row.verdict for row in group if row.verdict != Verdict.AGREES]
    if refused:
        return refused[0]
    return INCONCLUSIVE if any(map(is_inconclusive, group)) else str(Verdict.AGREES)


def print_report(report: Report, console: Console, *, verbose: bool = False, quiet: bool = False) -> None:
    """Print a table with its legend, what was drawn if ``verbose``, the refusals, and the last line.

    Args:
        report: the results.
        console: where to print.
        verbose: print a line for each layer, oracle and dtype, all reports of refusals, and what was drawn.
        quiet: print the headlines of refusals and the last line alone.
    """
    if report.layers and not quiet:
        table, titles = (detailed_table(report) if verbose else layer_table(report)).fitted(console)
        console.print(table, crop=False)
        _print_legend(titles, console)
    if verbose:
        _print_coverage(report, console)
    for layer, count in report.out_of_time.items():
        if count and not quiet:
            _print_line(f"{layer}: {points_out_of_time(count)}", console)
    _print_failures(report, console, verbose, quiet)
    for line in report.inconclusive:
        _print_line(line, console, "yellow")
    for complaint in report.missing:
        _print_line(f"cannot be judged: {complaint}", console, "red")
    for oracle, package in report.missing_packages.items():
        _print_line(f"{SKIPPED}: {oracle}: {package.line}", console, "yellow")
    if not quiet:
        console.print()
    unclear = report.interrupted or report.gaps
    if report.derivatives:
        _print_line(report.derivatives, console)
    _print_line(report.summary, console, "red" if report.reasons else "yellow" if unclear else "green")


def _print_line(text: str, console: Console, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)


def _print_legend(titles: Sequence[str], console: Console) -> None:
    explained = [title for title in LEGENDS if title in titles]
    if explained:
        console.print()
    for title in explained:
        _print_line(f"{title.replace(chr(10), ' '):<17}  {LEGENDS[title]}", console, "dim")


def _print_coverage(report: Report, console: Console) -> None:
    """Print what was drawn for each layer in one line, and so what was not."""
    covered = {layer: coverage for layer, coverage in report.coverage.items() if coverage.points}
    if covered:
        _print_line("\ndrawn for the oracles", console, "dim")
    for layer, coverage in covered.items():
        _print_line(f"{layer}: {coverage}", console, "dim")


def _print_failures(report: Report, console: Console, verbose: bool, quiet: bool) -> None:
    """Print the report of each layer's first refusal, and of its others the headlines; all reports if ``verbose``."""
    searches = Counter(failure.kind for failure in report.failures)
    reported: set[str] = set()
    for failure in report.failures if verbose else _first_of_each_kind(report):
        is_first = failure.layer not in reported
        reported.add(failure.layer)
        if is_first and not quiet:
            console.print()
        _print_line(failure.headline, console, "bold red")
        if failure.details and (verbose or (is_first and not quiet)):
            again = f"  reproduce: oracles verify {shlex.quote(failure.layer)}{report.options}"
            _print_line(failure.details.replace(REPRODUCE, again), console)
        if searches[failure.kind] > 1 and not verbose:
            _print_line(f"  the same in {counted(searches[failure.kind] - 1, 'other search', 'es')}", console, "red")


def _first_of_each_kind(report: Report) -> list[Failure]:
    first: dict[tuple[str, str], Failure] = {}
    for failure in report.failures:
        first.setdefault(failure.kind, failure)
    return list(first.values())


def progress_line_of(layer: str, report: Report) -> Text:
    """Return what is shown of one layer while others are still judged."""
    rows = [row for row in report.rows if row.layer == layer]
    verdict = report.verdict(layer)
    worst, examples = max((row.worst_ratio for row in rows), default=0.0), sum(row.examples for row in rows)
    rest = f" in {counted(examples, 'verdict')}; error / tolerance {worst:.2g}" if rows else ""
    return Text.assemble(f"{layer}: ", (verdict, _style(verdict)), rest)


class _Console(Console):
    """A console that leaves it to the command what happens when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Raise the error again, where rich would end the process."""
        raise BrokenPipeError


def make_console() -> Console:
    """Return the console of standard output: as wide as a terminal is, without a limit elsewhere."""
    return _Console(width=None if sys.stdout.isatty() else NO_LIMIT)

"""``oracles verify``: run every check on every layer, show it live, print one table, save it."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from hypothesis.errors import HypothesisException
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from oracles.constants import VACUOUS_LIMIT
from oracles.files import write_atomically
from oracles.interrupts import remembered
from oracles.origin import raised_at
from oracles.registry import complaints, entries, entries_of
from oracles.report.disagreement import Disagreement
from oracles.report.document import number
from oracles.search import Tally, search, searches
from oracles.verdict import Verdict
from oracles.versions import versions

LEGEND = """
error     the worst error, in units of what rounding allows at its input: up to 1 is rounding
detects_above  the relative error in one entry that would have been refused: median, worst point
blind     points at which rounding could move the gradient by its own size"""


@dataclass(frozen=True)
class Row:
    """One line of the JSON: what one oracle found in one check of one layer in one dtype."""

    layer: str
    check: str
    oracle: str
    dtype: str
    verdict: str
    examples: int
    worst_ratio: float
    seconds: float
    vacuous: int
    resolves_median: float
    resolves_worst: float


def verify(
    layers: Sequence[str],
    *,
    against: Sequence[str],
    dtypes: Sequence[str],
    max_examples: int,
    seed: int,
    json_path: str | None,
    cases: Sequence[str] = (),
    console: Console | None = None,
) -> int:
    """Judge the named layers, or those of the modules of ``cases``, or all; return 0 if all agree, 1 if not.

    130 if interrupted. Where all are to be judged, a module of cases that cannot be imported is a failure.

    Raises:
        ValueError: for an unknown layer, a module without cases, or a JSON path whose folder does not exist.
    """
    if json_path and not Path(json_path).absolute().parent.is_dir():
        raise ValueError(f"--json: the folder of {json_path} does not exist")
    console = console or Console(width=None if sys.stdout.isatty() else 100)
    brought = {entry.name: entry for module in cases for entry in entries_of(module)}
    chosen = list(brought.values()) if brought and not layers else entries(layers)
    planned = list(searches(chosen, dtypes))
    rows: list[Row] = []
    failures: list[str] = []
    missing = () if layers or brought else complaints()
    interrupted = False
    columns = (
        TextColumn("{task.description:<54}"),
        BarColumn(None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with remembered() as interrupted_meanwhile, Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(planned) * max_examples)

        def tick() -> None:
            progress.advance(task)
            interrupted_meanwhile()

        for i, (entry, check, dtype) in enumerate(planned):
            progress.update(task, description=f"{entry.name} {check} {dtype}", completed=i * max_examples)
            tally = Tally()
            try:
                search(
                    entry.cases, check, dtype, against=against, label=entry.name, max_examples=max_examples,
                    seed=seed, tally=tally, tick=tick,
                )  # fmt: skip
            except KeyboardInterrupt:
                interrupted = True
            except Disagreement as disagreement:
                failures.append(str(disagreement))
            except (Exception, HypothesisException) as error:
                failures.append(f"{entry.name}, {check}, {dtype}: {raised_at(error)}")
                tally.verdicts["self-consistency"] = Verdict.WRONG
            rows += _rows(entry.name, check, dtype, tally)
            if interrupted:
                break
    for failure in failures:
        console.print(failure, highlight=False, markup=False, soft_wrap=True)
        console.print()
    console.print(_table(rows))
    console.print(LEGEND, style="dim", highlight=False)
    vacuous = _vacuous(rows)
    console.print(_summary(rows, failures, vacuous, interrupted), highlight=False)
    for complaint in missing:
        console.print(f"cannot be judged: {complaint}", style="red", highlight=False, markup=False, soft_wrap=True)
    if json_path:
        write_atomically(json_path, json.dumps(_document(rows, seed), indent=2) + "\n")
    return 130 if interrupted else int(bool(failures or vacuous or missing or not rows))


def _rows(layer: str, check: str, dtype: str, tally: Tally) -> Iterable[Row]:
    for oracle, verdict in tally.verdicts.items():
        resolved = tally.detects_above.get(oracle, [])
        yield Row(
            layer=layer,
            check=check,
            oracle=oracle,
            dtype=dtype,
            verdict=str(verdict),
            examples=tally.examples.get(oracle, 0),
            worst_ratio=float(tally.worst_ratio.get(oracle, 0.0)),
            seconds=round(tally.seconds, 4),
            vacuous=tally.vacuous.get(oracle, 0),
            resolves_median=float(median(resolved)) if resolved else 0.0,
            resolves_worst=float(max(resolved, default=0.0)),
        )


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.layer, row.oracle, row.dtype), []).append(row)
    return groups


def _table(rows: Sequence[Row]) -> Table:
    """One line for each layer, oracle and dtype; errors in units of what rounding allows."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for title, justify in (
        ("layer", "left"), ("oracle", "left"), ("dtype", "left"), ("examples", "right"),
        ("error", "right"), ("detects_above", "right"), ("worst", "right"), ("blind", "right"), ("verdict", "left"),
    ):  # fmt: skip
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    shown = ""
    for (layer, oracle, dtype), group in sorted(_grouped(rows).items()):
        refused = [r for r in group if r.verdict != Verdict.AGREES]
        examples = sum(r.examples for r in group)
        resolved = [r.resolves_median for r in group if r.resolves_median]
        table.add_row(
            layer if layer != shown else "",
            oracle,
            dtype,
            str(examples),
            f"{max(r.worst_ratio for r in group):.2g}",
            f"{median(resolved):.0e}" if resolved else "exact",
            f"{max(r.resolves_worst for r in group):.0e}" if resolved else "",
            f"{sum(r.vacuous for r in group) / examples:.1%}" if examples else "",
            f"[red]{refused[0].verdict}" if refused else "[green]agrees",
        )
        shown = layer
    return table


def _vacuous(rows: Sequence[Row]) -> list[str]:
    """Name the searches against oracles in which too many points were blind."""
    return [
        f"{row.layer} by {row.oracle} in {row.dtype}"
        for row in rows
        if row.check in ("primal_agrees", "cotangents_agree") and row.vacuous > VACUOUS_LIMIT * row.examples
    ]


def _summary(rows: Sequence[Row], failures: Sequence[str], vacuous: Sequence[str], interrupted: bool) -> str:
    examples, seconds = (
        sum(r.examples for r in rows),
        sum({(r.layer, r.check, r.dtype): r.seconds for r in rows}.values()),
    )
    text = f"\n{len({r.layer for r in rows})} layers, {examples} verdicts in {seconds:.0f} s: "
    text += f"[red]{len(failures)} searches refused" if failures else "[green]all agree" if rows else "nothing judged"
    if vacuous:
        text += f"\n[red]more than {VACUOUS_LIMIT:.0%} of the points were blind for {', '.join(vacuous)}"
    return text + ("\n[yellow]interrupted: this is what was seen until then" if interrupted else "")


def _document(rows: Sequence[Row], seed: int) -> dict[str, object]:
    found = {"python": platform.python_version(), **versions()}
    results = [{n: number(v) if isinstance(v, float) else v for n, v in asdict(row).items()} for row in rows]
    return {"schema": 1, "versions": found, "seed": seed, "results": results}

"""The commands about registered layers: ``oracles list``, ``conventions`` and ``verify``."""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeAlias

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from oracles.adapters.functions import manual_layer
from oracles.backends.jax_reference import jax_vjp
from oracles.backends.torch_reference import torch_autograd
from oracles.cli.workers import run_in_workers
from oracles.constants import VACUOUS_LIMIT
from oracles.coverage import Coverage
from oracles.environment import deferred_interrupts, describe_error, installed_versions, write_atomically
from oracles.options import SearchOptions
from oracles.process_state import judging
from oracles.properties import ORACLE_PROPERTIES, properties_of
from oracles.registry import BrokenCases, complaints, entries, entries_of
from oracles.report.disagreement import Disagreement, number
from oracles.rule import Primals, Rule
from oracles.search import Search, searches_of
from oracles.tally import exceeds_vacuous_limit, points_out_of_time
from oracles.verdict import Verdict

# A function in a framework's own idiom, on its own arrays.
FrameworkFunction: TypeAlias = Callable[..., Any]
# The width of a table in a file or a pipe, which the longest name of a layer fits; a terminal has its own.
TABLE_WIDTH = 110

LEGEND = """
error / tolerance  the worst error in units of the tolerance at its input: up to 1 is rounding
detects above      the relative error in one entry that would have been refused: median, worst point
inconclusive       points at which rounding could move the gradient by its own size"""

_COLUMNS: tuple[tuple[str, Literal["left", "right"]], ...] = (
    ("layer", "left"),
    ("oracle", "left"),
    ("dtype", "left"),
    ("examples", "right"),
    ("error /\ntolerance", "right"),
    ("detects\nabove", "right"),
    ("worst", "right"),
    ("inconclusive", "right"),
    ("verdict", "left"),
)


@dataclass(frozen=True)
class Row:
    """One row of the JSON: the results of one oracle for one property of one layer in one dtype."""

    layer: str
    property: str
    oracle: str
    dtype: str
    verdict: str
    examples: int
    worst_ratio: float
    seconds: float
    vacuous: int
    detects_above_median: float
    detects_above_worst: float


@dataclass
class Report:
    """The results of `verify` so far.

    Attributes:
        rows: the results.
        coverage: what the searches against oracles have drawn, by layer.
        out_of_time: the number of points whose time was over before all was judged, by layer.
        failures: the text of each search that was refused or raised.
        missing: the complaints about modules of cases that cannot be imported.
        interrupted: whether the run ended before all searches did.
        searches: how many searches are in it.
        seconds: the wall-clock time.
    """

    rows: list[Row]
    failures: list[str]
    missing: Sequence[str]
    interrupted: bool = False
    coverage: dict[str, Coverage] = field(default_factory=dict)
    out_of_time: dict[str, int] = field(default_factory=dict)
    searches: int = 0
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Add what one search has found."""
        self.searches += 1
        self.rows += outcome.rows
        self.failures += [outcome.failure] if outcome.failure else []
        self.interrupted |= outcome.interrupted
        self.coverage.setdefault(outcome.label, Coverage()).merge(outcome.coverage)
        self.out_of_time[outcome.label] = self.out_of_time.get(outcome.label, 0) + outcome.out_of_time

    @property
    def inconclusive(self) -> list[str]:
        """The searches against oracles in which too many points were inconclusive."""
        return [
            f"{row.layer} by {row.oracle} in {row.dtype}"
            for row in self.rows
            if row.property in ORACLE_PROPERTIES and exceeds_vacuous_limit(row.vacuous, row.examples)
        ]

    @property
    def status(self) -> int:
        """The exit status."""
        if self.interrupted:
            return 130
        return int(bool(self.failures or self.inconclusive or self.missing or not self.rows))


def verify(
    layers: Sequence[str],
    *,
    against: Sequence[str],
    dtypes: Sequence[str],
    max_examples: int,
    seed: int,
    json_path: str | None,
    cases: Sequence[str] = (),
    jobs: int = 1,
    console: Console | None = None,
) -> int:
    """Judge the named layers, or those of the modules of ``cases``, or all; print a table, write JSON on request.

    Where all layers are to be judged, a module of cases that cannot be imported is a failure. Several layers are judged
    in ``jobs`` processes; the results are the same in any number of them.

    Returns:
        0 if all agree, 1 if not, 130 if interrupted.

    Raises:
        ValueError: for an unknown layer, a module without cases, or a JSON path whose folder does not exist.
    """
    if json_path and not Path(json_path).absolute().parent.is_dir():
        raise ValueError(f"--json: the folder of {json_path} does not exist")
    console = console or _console()
    from_cases = {entry.name: entry for module in cases for entry in entries_of(module)}
    selected = list(from_cases.values()) if from_cases and not layers else entries(layers)
    options = SearchOptions(tuple(against), max_examples, seed)
    searches = [search for entry in selected for search in searches_of(entry, dtypes, options).values()]
    tasks = [LayerTask(entry.name, tuple(cases), tuple(dtypes), options) for entry in selected]
    report = Report([], [], () if layers or from_cases else complaints())
    started = time.perf_counter()
    _run(tasks, searches, max_examples, jobs, report, console)
    report.seconds = time.perf_counter() - started
    # Processes end in any order.
    names = [task.label for task in tasks]
    report.rows.sort(key=lambda row: names.index(row.layer))
    report.coverage = {name: report.coverage[name] for name in names if name in report.coverage}
    _print(report, console)
    if json_path:
        write_atomically(json_path, json.dumps(_document(report, seed), indent=2) + "\n")
    return report.status


@dataclass(frozen=True)
class Outcome:
    """What one search has found."""

    label: str
    rows: list[Row]
    failure: str
    coverage: Coverage
    interrupted: bool = False
    out_of_time: int = 0


@dataclass(frozen=True)
class LayerTask:
    """The searches of one layer, as another process can make them again."""

    label: str
    cases: tuple[str, ...]
    dtypes: tuple[str, ...]
    options: SearchOptions


def _run(
    tasks: Sequence[LayerTask],
    searches: Sequence[Search],
    max_examples: int,
    jobs: int,
    report: Report,
    console: Console,
) -> None:
    """Run the searches under a progress bar, and add their results to the report.

    At a terminal, each layer is shown as soon as it is judged, above the bar.
    """
    columns = (TextColumn("{task.description:<54}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(searches) * max_examples)
        left = Counter(search.label for search in searches)

        def show(description: str) -> None:
            progress.update(bar, description=description, completed=report.searches * max_examples)

        def add(outcome: Outcome) -> None:
            report.add(outcome)
            left[outcome.label] -= not outcome.interrupted
            if console.is_terminal and not left[outcome.label]:
                progress.console.print(_line([row for row in report.rows if row.layer == outcome.label]))

        if jobs > 1 and len(tasks) > 1:
            _run_in_workers(tasks, min(jobs, len(tasks)), report, add, show)
        else:
            _run_here(searches, report, add, show, lambda: progress.advance(bar))


def _run_here(
    searches: Sequence[Search],
    report: Report,
    add: Callable[[Outcome], None],
    show: Callable[[str], None],
    advance: Callable[[], None],
) -> None:
    with deferred_interrupts() as raise_if_interrupted:

        def tick() -> None:
            advance()
            raise_if_interrupted()

        for search in searches:
            show(f"{search.label} {search.property_name} {search.dtype}")
            add(_outcome(search, tick))
            if report.interrupted:
                return


def _run_in_workers(
    tasks: Sequence[LayerTask],
    jobs: int,
    report: Report,
    add: Callable[[Outcome], None],
    show: Callable[[str], None],
) -> None:
    def receive(outcome: Outcome) -> None:
        add(outcome)
        show(outcome.label)

    def lost(task: LayerTask, how: str) -> None:
        report.failures.append(f"{task.label}: its code ended the process before a verdict ({how})")

    try:
        run_in_workers(tasks, search_layer, jobs, receive, lost)
    except KeyboardInterrupt:
        report.interrupted = True


def search_layer(task: LayerTask, send: Callable[[Outcome], None]) -> None:
    """Run all searches of one layer, in a process of its own, and pass on what each has found.

    Raises:
        KeyboardInterrupt: if the process was interrupted, after what the search has found until then.
    """
    warnings.simplefilter("ignore", BrokenCases)  # the first process prints these complaints
    with judging(), deferred_interrupts() as raise_if_interrupted:
        for module in task.cases:
            entries_of(module)
        (entry,) = entries([task.label])
        for search in searches_of(entry, task.dtypes, task.options).values():
            outcome = _outcome(search, raise_if_interrupted)
            send(outcome)
            if outcome.interrupted:
                raise KeyboardInterrupt


def _outcome(search: Search, tick: Callable[[], object]) -> Outcome:
    """Run one search and return what it has found, also if it is interrupted."""
    failure, interrupted = "", False
    try:
        error = search.attempt(tick)
    except KeyboardInterrupt:
        interrupted = True
    else:
        if isinstance(error, Disagreement):
            failure = str(error)
        elif error is not None:
            failure = f"{search.label}, {search.property_name}, {search.dtype}: {describe_error(error)}"
    tally = search.tally
    return Outcome(search.label, list(_rows(search)), failure, tally.coverage, interrupted, tally.out_of_time)


def _rows(search: Search) -> Iterator[Row]:
    tally = search.tally
    for oracle, verdict in tally.verdicts.items():
        detectable = tally.detects_above.get(oracle, [])
        yield Row(
            layer=search.label,
            property=search.property_name,
            oracle=oracle,
            dtype=search.dtype,
            verdict=str(verdict),
            examples=tally.examples.get(oracle, 0),
            worst_ratio=float(tally.worst_ratio.get(oracle, 0.0)),
            seconds=round(tally.seconds, 4),
            vacuous=tally.vacuous.get(oracle, 0),
            detects_above_median=float(median(detectable)) if detectable else 0.0,
            detects_above_worst=float(max(detectable, default=0.0)),
        )


def _print(report: Report, console: Console) -> None:
    for failure in report.failures:
        console.print(failure, highlight=False, markup=False)
        console.print()
    console.print(_table(report.rows))
    console.print(LEGEND, style="dim", highlight=False)
    _print_coverage(report, console)
    for layer, count in report.out_of_time.items():
        if count:
            console.print(f"{layer}: {points_out_of_time(count)}", highlight=False, markup=False)
    console.print(_summary(report), highlight=False)
    for complaint in report.missing:
        console.print(f"cannot be judged: {complaint}", style="red", highlight=False, markup=False)


def _print_coverage(report: Report, console: Console) -> None:
    """Print what was drawn for each layer in one line, and so what was not."""
    covered = {layer: coverage for layer, coverage in report.coverage.items() if coverage.points}
    if covered:
        console.print("\ndrawn for the oracles", style="dim", highlight=False)
    for layer, coverage in covered.items():
        console.print(f"{layer}: {coverage}", style="dim", highlight=False, markup=False)


def _table(rows: Sequence[Row]) -> Table:
    """Return the table: one line for each layer, oracle and dtype."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for title, justify in _COLUMNS:
        table.add_column(title, justify=justify, no_wrap=True)
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.layer, row.oracle, row.dtype), []).append(row)
    previous = ""
    for (layer, oracle, dtype), group in sorted(groups.items()):
        refused = [r for r in group if r.verdict != Verdict.AGREES]
        examples = sum(r.examples for r in group)
        detectable = [r.detects_above_median for r in group if r.detects_above_median]
        table.add_row(
            layer if layer != previous else "",
            oracle,
            dtype,
            str(examples),
            f"{max(r.worst_ratio for r in group):.2g}",
            f"{median(detectable):.0e}" if detectable else "exact",
            f"{max(r.detects_above_worst for r in group):.0e}" if detectable else "",
            f"{sum(r.vacuous for r in group) / examples:.1%}" if examples else "",
            f"[red]{refused[0].verdict}" if refused else "[green]agrees",
        )
        previous = layer
    return table


def _line(rows: Sequence[Row]) -> str:
    """Return what is shown of one layer while others are still judged."""
    if not rows:
        return ""
    refused = next((row.verdict for row in rows if row.verdict != Verdict.AGREES), None)
    verdict = f"[red]{refused}[/]" if refused else "[green]agrees[/]"
    worst, examples = max(row.worst_ratio for row in rows), sum(row.examples for row in rows)
    return f"{rows[0].layer}: {verdict} in {examples} verdicts; error / tolerance {worst:.2g}"


def _summary(report: Report) -> str:
    rows, failures, inconclusive = report.rows, report.failures, report.inconclusive
    layers, examples = len({r.layer for r in rows}), sum(r.examples for r in rows)
    outcome = f"[red]{len(failures)} searches refused" if failures else "[green]all agree" if rows else "nothing judged"
    text = f"\n{layers} layers, {examples} verdicts in {report.seconds:.0f} s: {outcome}"
    if inconclusive:
        text += f"\n[red]more than {VACUOUS_LIMIT:.0%} of the points were inconclusive for {', '.join(inconclusive)}"
    return text + ("\n[yellow]interrupted: these are the results until then" if report.interrupted else "")


def _document(report: Report, seed: int) -> dict[str, object]:
    versions = {"python": platform.python_version(), **installed_versions()}
    results = [{n: number(v) if isinstance(v, float) else v for n, v in asdict(row).items()} for row in report.rows]
    coverage = {layer: each.to_json() for layer, each in report.coverage.items()}
    return {"schema": 1, "versions": versions, "seed": seed, "results": results, "coverage": coverage}


def list_layers(cases: Sequence[str]) -> int:
    """Print every layer that can be judged, its module and the source of its cases; return 0.

    Raises:
        ValueError: if a module of cases does not exist or registers nothing.
    """
    for module in cases:
        entries_of(module)
    table = Table("layer", "implemented in", "its cases are from", "properties")
    for entry in entries():
        source = entry.source or entry.module
        table.add_row(entry.name, entry.layer_type.__module__, source, str(len(properties_of(entry))))
    _console().print(table)
    for complaint in complaints():
        print(f"cannot be judged: {complaint}", file=sys.stderr)
    return 0


def list_conventions() -> int:
    """Print the derivative that each framework gives at each declared kink; return 0."""
    table = Table("layer", "at", "declared", "manual_bp", "torch's own", "JAX's own")
    for row in measure_conventions():
        table.add_row(row.layer, *(f"{v:g}" for v in (row.kink, row.declared, row.manual_bp, row.torch, row.jax)))
    _console().print(table)
    return 0


@dataclass(frozen=True)
class KinkSlopes:
    """The derivative that a layer declares at a kink, and what manual_bp, torch and JAX give there."""

    layer: str
    kink: float
    declared: float
    manual_bp: float
    torch: float
    jax: float


def measure_conventions() -> list[KinkSlopes]:
    """Measure the derivatives of every layer that declares a ``kink_convention``: {kink: derivative there}.

    The frameworks' own functions are measured: ``native_torch`` and ``native_jax`` of the layer's `Reference` if it has
    them, else its references.
    """
    rows = []
    for entry in entries():
        reference, layer = entry.reference, _default_instance(entry.layer_type)
        if reference is None or layer is None:
            continue
        options = dict(reference.options(layer))
        for kink, declared in getattr(layer, "kink_convention", {}).items():
            torch = torch_autograd(_with_options(reference.native_torch or reference.torch, options))
            jax = jax_vjp(_with_options(reference.native_jax or reference.jax, options))
            primals = {"z": np.array([float(kink)]), **layer.init(np.random.default_rng(0))}
            slopes = [_slope(rule, primals) for rule in (manual_layer(layer), torch, jax)]
            rows.append(KinkSlopes(entry.name, float(kink), float(declared), *slopes))
    return rows


def _default_instance(kind: type) -> Any:
    """Return an instance with default fields, or ``None`` if the type needs arguments."""
    try:
        return kind()
    except (TypeError, ValueError):
        return None


def _with_options(f: FrameworkFunction, options: Mapping[str, Any]) -> FrameworkFunction:
    return lambda **primals: f(**primals, **options)


def _slope(rule: Rule, primals: Primals) -> float:
    _, pullback = rule(**primals)
    return float(pullback(np.ones(1))["z"][0])


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)

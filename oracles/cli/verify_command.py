"""``oracles verify``: search every registered layer, or those named, for a point at which it is wrong."""

from __future__ import annotations

import shlex
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from oracles.cli.markdown import markdown
from oracles.cli.outcomes import describe_problem
from oracles.cli.progress_line import progress_reports
from oracles.cli.user_files import cases_in
from oracles.cli.verify_report import Failure, Outcome, Report, Row, counted
from oracles.cli.verify_tables import make_console, print_report, progress_line_of
from oracles.cli.workers import run_in_workers
from oracles.environment import deferred_interrupts, require_writable, write_atomically
from oracles.missing import missing_of
from oracles.options import FORWARD_MODE, FRAMEWORK_NAMES, SECOND_ORDER, SearchOptions
from oracles.process_state import judging
from oracles.registry import BrokenCases, complaints, entries, entries_of
from oracles.report.disagreement import Disagreement, Json, to_text
from oracles.report.html import require_page, write_page
from oracles.search import Search, searches_of
from oracles.verdict import NOT_JUDGED, SELF_CONSISTENCY, Verdict


@dataclass(frozen=True)
class Output:
    """What a run prints and writes.

    Attributes:
        json_path: where to write the results as JSON, if anywhere.
        html_path: where to write them as a page, if anywhere.
        compare: an earlier JSON, with which the page compares them.
        verbose: print a line for each layer, oracle and dtype, and what was drawn.
        quiet: print what is refused and the last line alone.
        console: where to print; by default standard output.
        markdown_path: where to write them as Markdown, if anywhere.
    """

    json_path: str | None = None
    verbose: bool = False
    quiet: bool = False
    console: Console | None = None
    html_path: str | None = None
    compare: str | None = None
    markdown_path: str | None = None

    def earlier(self) -> Json | None:
        """Return the earlier results, after trying that everything can be written.

        Before the search, which may take minutes, and whose results could then not be written.

        Raises:
            ValueError: if a path cannot be written, or there are no earlier results in the file.
            ModuleNotFoundError: if a page is wanted and Jinja2 is not installed.
        """
        paths = {"--json": self.json_path, "--html": self.html_path, "--markdown": self.markdown_path}
        for option, path in paths.items():
            if path:
                require_writable(option, path)
        return require_page(self.html_path, self.compare)

    def write(self, contents: Json, earlier: Json | None) -> None:
        """Write the results as JSON and as a page, as far as they are wanted."""
        if self.json_path:
            write_atomically(self.json_path, to_text(contents) + "\n")
        if self.html_path:
            write_page(contents, self.html_path, earlier)


def verify(
    layers: Sequence[str],
    *,
    against: Sequence[str] | None,
    dtypes: Sequence[str],
    max_examples: int,
    seed: int,
    cases: Sequence[str] = (),
    blocks: Sequence[int] = (),
    properties: Sequence[str] = (),
    jobs: int = 1,
    output: Output = Output(),
) -> int:
    """Judge the named layers, or those of the modules of ``cases``, or all; print a table, write JSON on request.

    Where all layers are to be judged, a module of cases that cannot be imported is a failure. Several layers are judged
    in ``jobs`` processes; the results are the same in any number of them.

    Args:
        layers: the names of the layers.
        against: the frameworks that judge; by default those that are installed.
        dtypes, max_examples, seed: of the searches.
        cases: modules and files of cases.
        blocks: sizes of tiles around whose multiples axes are long.
        properties: those on request that are judged besides, see `oracles.invariance`.
        jobs: the number of processes.
        output: what is printed and written.

    Returns:
        0 if all agree, 1 if not, 3 if nothing is refused and something was skipped, 130 if interrupted.

    Raises:
        ValueError: for an unknown layer, a module without cases, or a JSON path that cannot be written.
    """
    earlier = output.earlier()
    console = output.console or make_console()
    from_cases = {entry.name: entry for module in cases for entry in cases_in(module)}
    selected = list(from_cases.values()) if from_cases and not layers else entries(layers)
    options = SearchOptions(
        tuple(against or FRAMEWORK_NAMES), max_examples, seed, blocks=tuple(blocks), properties=tuple(properties)
    )
    searches = [search for entry in selected for search in searches_of(entry, dtypes, options).values()]
    tasks = [LayerTask(entry.name, tuple(cases), tuple(dtypes), options) for entry in selected]
    missing = () if layers or from_cases else complaints()
    report = Report([], [], missing, named=against or (), options=_options_again(tasks[0]))
    started = time.perf_counter()
    _run(tasks, searches, jobs, report, console, output.quiet)
    report.seconds = time.perf_counter() - started
    report.sort([task.label for task in tasks])
    if output.markdown_path:
        write_atomically(output.markdown_path, markdown(report))
    print_report(report, console, verbose=output.verbose, quiet=output.quiet)
    output.write(report.document(seed), earlier)
    return report.status


@dataclass(frozen=True)
class LayerTask:
    """The searches of one layer, as another process can make them again."""

    label: str
    cases: tuple[str, ...]
    dtypes: tuple[str, ...]
    options: SearchOptions


def _options_again(task: LayerTask) -> str:
    """Return the options that search a layer again as a task does."""
    named = [("--cases", module) for module in task.cases]
    named += [("--against", ",".join(task.options.against or FRAMEWORK_NAMES)), ("--dtype", ",".join(task.dtypes))]
    named += [("--blocks", ",".join(map(str, task.options.blocks)))] if task.options.blocks else []
    of_derivatives = (*SECOND_ORDER, FORWARD_MODE)
    invariances = [name for name in task.options.properties if name not in of_derivatives]
    named += [("--properties", ",".join(invariances))] if invariances else []
    named += [("--order", "2")] if SECOND_ORDER[0] in task.options.properties else []
    named += [("--mode", "both")] if FORWARD_MODE in task.options.properties else []
    named += [("--max-examples", str(task.options.max_examples)), ("--seed", str(task.options.seed))]
    return "".join(f" {option} {shlex.quote(value)}" for option, value in named)


def _run(
    tasks: Sequence[LayerTask], searches: Sequence[Search], jobs: int, report: Report, console: Console, quiet: bool
) -> None:
    """Run the searches and add their results to the report; say how far they are, unless ``quiet``.

    At a terminal each layer is shown as soon as it is judged, above a bar. Elsewhere standard error gets a line now and
    then.
    """
    shows_bar = console.is_terminal and not quiet
    columns = (TextColumn("{task.description:<54}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
    started = time.perf_counter()
    left = Counter(search.label for search in searches)
    total = sum(search.options.points() or 1 for search in searches)

    def describe() -> str:
        done = sum(not number for number in left.values())
        return f"oracles verify: {done} of {counted(len(left), 'layer')}, {time.perf_counter() - started:.0f} s"

    with (
        Progress(*columns, console=console, transient=True, disable=not shows_bar) as progress,
        progress_reports(describe, silent=console.is_terminal or quiet),
    ):
        bar = progress.add_task("", total=total)

        def show(description: str) -> None:
            progress.update(bar, description=description, completed=report.searches * total / len(searches))

        def add(outcome: Outcome) -> None:
            report.add(outcome)
            left[outcome.label] -= not outcome.interrupted
            if shows_bar and not left[outcome.label]:
                progress.console.print(progress_line_of(outcome.label, report))

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
        text = f"{task.label}: its code ended the process before a verdict ({how})"
        report.failures.append(Failure(task.label, NOT_JUDGED, text))

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
    try:
        return outcome_of(search, search.attempt(tick))
    except KeyboardInterrupt:
        return outcome_of(search, None, interrupted=True)


def outcome_of(search: Search, error: BaseException | None, *, interrupted: bool = False) -> Outcome:
    """Return what a search has found, given the exception that ended it, if any did."""
    tally, missing = search.tally, missing_of(error)
    skipped = dict(tally.skipped)
    if missing is not None and (missing.dtype or not skipped):
        skipped[f"{search.label} in {missing.dtype}" if missing.dtype else missing.package] = missing
    failure = None if error is None or missing is not None else _failure(search, error)
    return Outcome(search.label, list(_rows(search)), failure, tally.coverage, interrupted, tally.out_of_time, skipped)


def _failure(search: Search, error: BaseException) -> Failure:
    """Return the failure of a search that was refused, or whose subject or references raised."""
    if isinstance(error, Disagreement):
        text, report = str(error), error.document()
        return Failure(search.label, str(error.verdict), text, "", search.property_name, search.dtype, report)
    # The search marks what its subject raised as wrong; of anything else nothing follows.
    verdict = search.tally.verdicts.get(SELF_CONSISTENCY)
    is_wrong = verdict is not None and verdict is not Verdict.AGREES
    message = describe_problem(error)
    text = f"{search.label}, {search.property_name}, {search.dtype}: {message}"
    outcome = str(verdict) if is_wrong else NOT_JUDGED
    return Failure(search.label, outcome, text, message, search.property_name, search.dtype)


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
            points=tally.ratios.get(oracle, ()),
        )

"""The pytest plugin: options, collected cases, a summary.

pytest imports this module in every run of an environment in which the package is installed. So it imports the judge,
NumPy and Hypothesis inside functions, when a run turns out to need them; a test compares the loaded modules.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from oracles.options import FRAMEWORK_NAMES, PREFIX, PROFILES, SearchOptions, at_least, modules, one_of, some_of

if TYPE_CHECKING:
    from oracles.search import Search

# The options by the ends of their names.
_OPTIONS = ("against", "max_examples", "seed", "profile", "seconds", "cases")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; see docs/verify_your_own/your_own_layer.md."""
    profiles = ", ".join(f"{name} ({points})" for name, points in PROFILES.items())
    group = parser.getgroup("oracles", "judging hand-written gradients")
    group.addoption(
        "--oracles-cases",
        action="extend",
        type=modules,
        metavar="MODULE",
        help="also judge what @oracles.oracle_for registers in these modules or .py files, one test for each property; "
        "comma-separated, repeatable",
    )
    group.addoption(
        "--oracles-against",
        type=some_of(FRAMEWORK_NAMES),
        metavar="NAMES",
        help="the frameworks that judge, comma-separated: torch,jax",
    )
    group.addoption(
        "--oracles-max-examples",
        type=at_least(1),
        metavar="N",
        help="points for each property; wins over the tests' own max_examples",
    )
    group.addoption("--oracles-seed", type=at_least(0), metavar="S", help="makes the search reproducible")
    group.addoption(
        "--oracles-profile",
        type=one_of(PROFILES),
        metavar="PROFILE",
        help=f"points for each property if a test names no number: {profiles}; default: Hypothesis's own profile",
    )
    group.addoption(
        "--oracles-seconds",
        type=at_least(1),
        metavar="T",
        help="the time budget of each point; what no time was left for is inconclusive (default: 60)",
    )


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Return the versions and the options, if an option of ours is given."""
    options = _given_options(config)
    if not options:
        return []
    from oracles.environment import versions_line

    texts = (
        f"{name} {','.join(value) if isinstance(value, list | tuple) else value}" for name, value in options.items()
    )
    return [f"oracles: {versions_line()}", f"oracles: {'; '.join(texts).replace('_', ' ')}"]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Make the session collect the modules of --oracles-cases, after everything else."""
    report: pytest.CollectReport = yield  # type: ignore[assignment]
    names = _given_options(collector.config).get("cases") if isinstance(collector, pytest.Session) else None
    if names and report.passed:
        report.result = [*report.result, *(_collected(collector, name) for name in dict.fromkeys(names))]
    return report  # type: ignore[return-value]  # what a wrapper returns is the hook's result


def _collected(collector: pytest.Collector, name: str) -> pytest.Collector | pytest.Item:
    """Return the collector of a module of cases; where a package is missing, a test that is skipped for it."""
    try:
        from oracles.pytest_items import CasesCollector
    except ModuleNotFoundError as error:
        from oracles.missing import missing_of

        missing = missing_of(error)
        if missing is None:
            raise
        return _SkippedCases.from_parent(collector, name=name, reason=str(missing))
    return CasesCollector.of(collector, name)


class _SkippedCases(pytest.Item):
    """Stands for the cases of a module of which none can be judged, since a package is missing."""

    def __init__(self, *, reason: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.reason = reason

    def runtest(self) -> None:
        """Skip."""
        pytest.skip(self.reason)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the folder, and the name of the module."""
        return self.path, None, self.name


def pytest_itemcollected(item: pytest.Item) -> None:
    """Pass the options to a test that `oracles.conformance` or `conformance_of` has made, and to a collected one."""
    search = _search_of(item)
    if search is None:
        return
    options = {name: value for name, value in _given_options(item.config).items() if name != "cases"}
    configured = replace(search, options=SearchOptions(**options))
    if hasattr(item, "callspec"):
        params = item.callspec.params
        params.update({name: configured for name, value in params.items() if value is search})
    else:
        item.search = configured  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Write the results of the search into the item's user_properties, which JUnit XML and xdist carry."""
    if call.when != "call" or (search := _search_of(item)) is None:
        return
    from oracles.pytest_items import user_properties

    others = [(name, value) for name, value in item.user_properties if not name.startswith(PREFIX)]
    item.user_properties[:] = [*others, *user_properties(search)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the summary, if anything was judged."""
    by_test = (_our_properties(report) for reports in terminalreporter.stats.values() for report in reports)
    judged = [properties for properties in by_test if properties]
    if not judged:
        return
    from oracles.pytest_items import summary

    lines = summary(judged)
    if lines and config.get_verbosity() > -2:
        terminalreporter.section("oracles")
        for line in lines:
            terminalreporter.write_line(line)


def _our_properties(report: object) -> dict[str, Any]:
    """Return what `pytest_runtest_makereport` has written into a test's report, here or in a worker of xdist."""
    pairs = getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ()
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and str(pair[0]).startswith(PREFIX)}


def _search_of(item: pytest.Item) -> Search | None:
    """Return the `Search` that a test is given, or is; ``None`` at once if no test has imported the module."""
    module = sys.modules.get("oracles.search")
    if module is None:
        return None
    values = item.callspec.params.values() if hasattr(item, "callspec") else (getattr(item, "search", None),)
    return next((value for value in values if isinstance(value, module.Search)), None)


def _given_options(config: pytest.Config) -> dict[str, Any]:
    values = {name: config.getoption(f"oracles_{name}", None) for name in _OPTIONS}
    return {name: value for name, value in values.items() if value is not None}

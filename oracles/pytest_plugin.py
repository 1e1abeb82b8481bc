"""The pytest plugin: options, collected cases, a summary. It imports nothing until a run uses it.

It stands beside every pytest run of an environment, so what is above functions here is paid by everyone: the judge,
NumPy and Hypothesis are imported where a run turns out to need them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from oracles.options import Options
    from oracles.search import Run

_OPTIONS = ("against", "max_examples", "seed", "profile", "cases")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; see docs/your_own_layer.md."""
    from oracles.options import FRAMEWORK_NAMES, PROFILES, at_least, modules, one_of, some_of

    profiles = ", ".join(f"{name} ({points})" for name, points in PROFILES.items())
    group = parser.getgroup("oracles", "judging hand-written gradients")
    group.addoption(
        "--oracles-cases",
        action="extend",
        type=modules,
        metavar="MODULE",
        help="also judge what @oracles.oracle_for registers in these modules or .py files, one test for each check; "
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
        help="points for each check; wins over the tests' own max_examples",
    )
    group.addoption("--oracles-seed", type=at_least(0), metavar="S", help="makes the search reproducible")
    group.addoption(
        "--oracles-profile",
        type=one_of(PROFILES),
        metavar="PROFILE",
        help=f"points for each check where a test names no number: {profiles}; default: Hypothesis's own profile",
    )


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the versions, if an option of ours was given."""
    given = _given(config)
    if not given:
        return []
    from oracles.versions import versions_line

    asked = (f"{name} {','.join(value) if isinstance(value, list | tuple) else value}" for name, value in given.items())
    return [f"oracles: {versions_line()}", f"oracles: {'; '.join(asked).replace('_', ' ')}"]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Let the session collect the modules of --oracles-cases, after what it collects otherwise."""
    report: pytest.CollectReport = yield  # type: ignore[assignment]
    named = _given(collector.config).get("cases") if isinstance(collector, pytest.Session) else None
    if named and report.passed:
        try:
            from oracles.plugin.collection import Cases
        except ModuleNotFoundError as error:
            raise pytest.UsageError(
                f"--oracles-cases: {error.name} is not installed.\nFix:    pip install 'manual-bp[oracles]'"
            ) from None
        report.result = [*report.result, *(Cases.of(collector, name) for name in dict.fromkeys(named))]
    return report  # type: ignore[return-value]  # what a wrapper returns is the hook's result


def pytest_itemcollected(item: pytest.Item) -> None:
    """Hand the options to a test that `oracles.conformance` or `conformance_of` has made, and to a collected one."""
    run = _run_of(item)
    if run is None:
        return
    asked = replace(run, options=_asked(item.config))
    if hasattr(item, "callspec"):
        item.callspec.params.update({name: asked for name, value in item.callspec.params.items() if value is run})
    else:
        item.run = asked  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Write what the search has seen into the item's user_properties: JUnit XML and xdist carry them."""
    if call.when != "call" or (run := _run_of(item)) is None:
        return
    from oracles.options import PREFIX
    from oracles.plugin.tallies import properties

    others = [(name, value) for name, value in item.user_properties if not name.startswith(PREFIX)]
    item.user_properties[:] = [*others, *properties(run)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was judged, if anything was."""
    seen = (_properties(report) for reports in terminalreporter.stats.values() for report in reports)
    judged = [properties for properties in seen if properties]
    if not judged:
        return
    from oracles.plugin.tallies import summary

    lines = summary(judged)
    if lines and config.get_verbosity() > -2:
        terminalreporter.section("oracles")
        for line in lines:
            terminalreporter.write_line(line)


def _properties(report: Any) -> dict[str, Any]:
    """Return what `pytest_runtest_makereport` has written into a test's report, here or in a worker of xdist."""
    from oracles.options import PREFIX

    pairs = getattr(report, "user_properties", ()) if getattr(report, "when", "") == "call" else ()
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and str(pair[0]).startswith(PREFIX)}


def _run_of(item: pytest.Item) -> Run | None:
    """Return the run that a test is given, or is; ``None`` at once where the kit was never imported."""
    kit = sys.modules.get("oracles.conformance")
    if kit is None:
        return None
    given = item.callspec.params.values() if hasattr(item, "callspec") else (getattr(item, "run", None),)
    return next((value for value in given if isinstance(value, kit.Run)), None)


def _asked(config: pytest.Config) -> Options:
    from oracles.options import Options

    return Options(**{name: value for name, value in _given(config).items() if name != "cases"})


def _given(config: pytest.Config) -> dict[str, Any]:
    every = {name: config.getoption(f"oracles_{name}", None) for name in _OPTIONS}
    return {name: value for name, value in every.items() if value is not None}

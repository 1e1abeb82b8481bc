"""The pytest plugin: options, collected cases, a summary.

pytest imports this module in every run of an environment in which the package is installed. So it imports the judge,
NumPy and Hypothesis inside functions, when a run turns out to need them; a test compares the loaded modules.
"""

from __future__ import annotations

import argparse
import os
import random
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from oracles.options import (
    FRAMEWORK_NAMES,
    MODES,
    PREFIX,
    PROFILES,
    SearchOptions,
    at_least,
    block_sizes,
    derivative_properties,
    did_you_mean,
    dtypes_of,
    names_of,
    one_of,
    some_of,
)

if TYPE_CHECKING:
    from oracles.search import Search


class _Option(NamedTuple):
    """An option, under the same name on the command line, ``--oracles-NAME``, and in ``[tool.oracles]``."""

    parse: Callable[[str], Any]
    metavar: str
    help: str
    repeatable: bool = False


def _order(text: str) -> int:
    """Return an order of derivatives."""
    if text not in ("1", "2"):
        raise argparse.ArgumentTypeError(f"expected 1 or 2, got {text!r}")
    return int(text)


_PROFILE_NAMES = ", ".join(f"{name} ({points})" for name, points in PROFILES.items())
OPTIONS = {
    "cases": _Option(
        names_of("modules or .py files"),
        "MODULE",
        "also judge what @oracles.oracle_for registers in these modules or .py files, one test for each property; "
        "comma-separated, repeatable",
        repeatable=True,
    ),
    "layer": _Option(
        names_of("names of layers"),
        "NAME",
        "run the tests that judge these layers, and no others; comma-separated, repeatable",
        repeatable=True,
    ),
    "dtype": _Option(
        dtypes_of,
        "NAMES",
        "judge in these dtypes alone: float64, float32, float16, bfloat16, or all; comma-separated, repeatable",
        repeatable=True,
    ),
    "blocks": _Option(
        block_sizes, "SIZES", "the tiles of the code, comma-separated: axes get sizes around their multiples too"
    ),
    "order": _Option(_order, "N", "2: judge the derivative of the pullback too, in all tests that judge it"),
    "mode": _Option(
        one_of(MODES), "MODE", "jvp or both: judge the forward mode too, of the subjects that have one"
    ),
    "against": _Option(
        some_of(FRAMEWORK_NAMES), "NAMES", "the frameworks that judge, comma-separated: torch,jax (default: those that "
        "are installed)"
    ),
    "max-examples": _Option(at_least(1), "N", "points for each property; wins over the tests' own max_examples"),
    "seed": _Option(at_least(0), "S", "makes the search reproducible"),
    "profile": _Option(
        one_of(PROFILES),
        "PROFILE",
        f"points for each property if a test names no number: {_PROFILE_NAMES}; default: Hypothesis's own profile",
    ),
    "seconds": _Option(
        at_least(1), "T", "the time budget of each point; what no time was left for is inconclusive (default: 60)"
    ),
    "script": _Option(str, "DIR", "write a stand-alone script that shows it for each refusal, to this folder"),
    "json": _Option(str, "FILE", "write the results as JSON, as `oracles verify --json` does"),
    "html": _Option(str, "FILE", "write the results as a page, in one file"),
}  # fmt: skip
_AUDIT_HELP = (
    "ask the comparisons of arrays in all tests again with wrong values, and report what they let through; the results "
    "of the tests stay as they are"
)
_PATHS = ("script", "json", "html")
_SEARCH_OPTIONS = tuple(field.name for field in fields(SearchOptions))
_SEED = pytest.StashKey[int]()
_COMPLAINT = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; see docs/verify_your_own/your_own_layer.md."""
    group = parser.getgroup("oracles", "judging hand-written gradients; [tool.oracles] in pyproject.toml has the same")
    for name, option in OPTIONS.items():
        action = "extend" if option.repeatable else "store"
        group.addoption(f"--oracles-{name}", action=action, type=option.parse, metavar=option.metavar, help=option.help)
    group.addoption("--oracles-audit", action="store_true", help=_AUDIT_HELP)
    group.addoption("--oracles-audit-json", metavar="FILE", help="audit, and write what was found as JSON")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Begin an audit before anything of the suite is imported, since it may import functions by their names."""
    given = early_config.known_args_namespace
    if given.oracles_audit or given.oracles_audit_json:
        from oracles.audit.plugin import register

        register(early_config, given.oracles_audit_json)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Complete the options by those of pyproject.toml, and prepare what is to be written."""
    for name, value in _options_of_file(config.rootpath / "pyproject.toml").items():
        if _option(config, name) is None:  # the command line wins
            in_root = name in _PATHS
            setattr(config.option, _attribute(name), str(config.rootpath / value) if in_root else value)
    for name in _PATHS:
        if (path := _option(config, name)) is not None:  # a worker of xdist may run in another folder
            setattr(config.option, _attribute(name), os.path.abspath(config.invocation_params.dir / path))
    if any(_option(config, name) for name in _PATHS) and not hasattr(config, "workerinput"):  # a worker writes nothing
        from oracles.missing import missing_of
        from oracles.pytest_results import ResultWriter

        command = shlex.join(["pytest", *map(str, config.invocation_params.args)])
        try:
            writer = ResultWriter(command, **{name: _option(config, name) for name in (*_PATHS, "seed")})
        except (ValueError, ModuleNotFoundError) as error:
            raise pytest.UsageError(str(missing_of(error) or error)) from None
        config.pluginmanager.register(writer)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Return the versions and the options, if an option of ours is given."""
    options = _given_options(config)
    if not options:
        return []
    from oracles.environment import versions_line

    texts = (
        f"{name.replace('-', ' ')} {','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in options.items()
    )
    return [f"oracles: {versions_line()}", f"oracles: {'; '.join(texts)}"]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Make the session collect the modules of --oracles-cases, after everything else."""
    report: pytest.CollectReport = yield  # type: ignore[assignment]
    names = _option(collector.config, "cases") if isinstance(collector, pytest.Session) else None
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


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let a test that names no dtypes be judged in those of --oracles-dtype too; others are deselected later.

    --oracles-order and --oracles-mode add properties.
    """
    dtypes, module = _option(metafunc.config, "dtype"), sys.modules.get("oracles.search")
    further = _further_properties(metafunc.config)
    if not (dtypes or further) or module is None:
        return
    marks = metafunc.definition.own_markers
    for i, mark in enumerate(marks):
        values = mark.args[1] if mark.name == "parametrize" and len(mark.args) == 2 else ()
        if values and all(isinstance(value, module.Search) for value in values):
            from oracles.pytest_items import with_dtypes, with_properties

            searches = with_dtypes(with_properties(values, further), dtypes or ())
            names = [f"{search.property_name}-{search.dtype}" for search in searches]
            marks[i] = pytest.mark.parametrize(mark.args[0], searches, ids=names).mark


def _further_properties(config: pytest.Config) -> tuple[str, ...]:
    """Return the properties that --oracles-order and --oracles-mode ask for."""
    return derivative_properties(_option(config, "order") or 1, _option(config, "mode") or "vjp")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Pass the options to a test that `oracles.conformance` or `conformance_of` has made, and to a collected one."""
    search = _search_of(item)
    if search is None:
        return
    given = {name.replace("-", "_"): value for name, value in _given_options(item.config).items()}
    given.setdefault("seed", _seed_of_run(item.config))
    options = SearchOptions(**{name: given[name] for name in _SEARCH_OPTIONS if name in given})
    configured = replace(search, options=options)
    if hasattr(item, "callspec"):
        params = item.callspec.params
        params.update({name: configured for name, value in params.items() if value is search})
    else:
        item.search = configured  # type: ignore[attr-defined]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that judge none of the layers of --oracles-layer, or in none of the dtypes of --oracles-dtype.

    Raises:
        pytest.UsageError: if no test judges a layer of this name.
    """
    layers, dtypes = _option(config, "layer"), _option(config, "dtype")
    if not (layers or dtypes):
        return
    searches = {item: search for item in items if (search := _search_of(item)) is not None}
    labels = sorted({search.label for search in searches.values()})
    unknown = [name for name in layers or () if name not in labels]
    if unknown and not any(isinstance(item, _SkippedCases) for item in items):
        hint = did_you_mean(unknown[0], labels)
        complaint = (
            f"--oracles-layer: no test judges {unknown[0]}{hint}\nTests judge {', '.join(labels) or 'no layer'}."
        )
        if not hasattr(config, "workeroutput"):
            raise pytest.UsageError(complaint)
        config.workeroutput[PREFIX] = complaint  # only the process that started the workers can say it
        items.clear()
        return

    def is_selected(item: pytest.Item) -> bool:
        search = searches.get(item)
        if search is None:
            return layers is None or isinstance(item, _SkippedCases)
        return (not layers or search.label in layers) and (not dtypes or search.dtype in dtypes)

    selected = [item for item in items if is_selected(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in selected])
    items[:] = selected


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Keep what a worker of xdist complains about, for the summary."""
    complaint = getattr(node, "workeroutput", {}).get(PREFIX)
    if complaint:
        node.config.stash[_COMPLAINT] = complaint


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Write the results of the search into the item's user_properties, which JUnit XML and xdist carry.

    A refusal gets the line that reproduces it, and its script. What is written at the end of the run travels with the
    report.
    """
    search, error = _search_of(item), call.excinfo.value if call.excinfo else None
    judge = sys.modules.get("oracles.report.disagreement")
    is_refusal = judge is not None and isinstance(error, judge.Disagreement)
    if call.when != "call" or not (search or is_refusal):
        return (yield)
    try:
        from oracles import pytest_items, pytest_results
    except ModuleNotFoundError:  # a test has called `oracles.check`, and Hypothesis is not installed
        return (yield)

    pytest_results.complete(error, item, search, _given_options(item.config))
    if search is not None:
        others = [(name, value) for name, value in item.user_properties if not name.startswith(PREFIX)]
        item.user_properties[:] = [*others, *pytest_items.user_properties(search)]
    report = yield
    if _option(item.config, "json") or _option(item.config, "html"):
        setattr(report, pytest_results.ATTRIBUTE, pytest_results.packed(error, search))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the summary, if anything was judged, and what workers complain about."""
    if complaint := config.stash.get(_COMPLAINT, ""):
        terminalreporter.write_line(f"ERROR: {complaint}", red=True)
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


def _attribute(name: str) -> str:
    return f"oracles_{name.replace('-', '_')}"


def _option(config: pytest.Config, name: str) -> Any:
    return config.getoption(_attribute(name), None)


def _given_options(config: pytest.Config) -> dict[str, Any]:
    values = {name: _option(config, name) for name in OPTIONS}
    return {name: value for name, value in values.items() if value is not None}


def _seed_of_run(config: pytest.Config) -> int | None:
    """Return a seed for searches that nothing else could repeat; ``None`` if Hypothesis stores or derives examples."""
    from hypothesis import settings

    profile = settings()
    if profile.derandomize or profile.database is not None:
        return None
    return config.stash.setdefault(_SEED, random.randrange(2**31))


def _options_of_file(path: Path) -> dict[str, Any]:
    """Return the options in ``[tool.oracles]`` of a project's pyproject.toml; none if there is no such table.

    Raises:
        pytest.UsageError: for an unknown name, or a value that the option of this name does not take.
    """
    if not path.is_file() or "[tool.oracles" not in (text := path.read_text(encoding="utf-8")):
        return {}
    import tomllib

    table, where = tomllib.loads(text).get("tool", {}).get("oracles", {}), f"{path.name}: [tool.oracles]"
    options = {}
    for name, value in table.items():
        option = OPTIONS.get(name.replace("_", "-"))
        if option is None:
            raise pytest.UsageError(
                f"{where}: unknown option {name}{did_you_mean(name, OPTIONS)}\nOptions are {', '.join(OPTIONS)}."
            )
        try:
            parts = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            options[name.replace("_", "-")] = option.parse(parts)
        except argparse.ArgumentTypeError as error:
            raise pytest.UsageError(f"{where}: {name}: {error}") from None
    return options

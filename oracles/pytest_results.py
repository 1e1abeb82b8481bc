"""What a run of pytest leaves behind: the line that reproduces a refusal, its script, and the results in a file."""

from __future__ import annotations

import base64
import os
import pickle
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from oracles.cli.verify_command import outcome_of
from oracles.cli.verify_report import Failure, Outcome, Report
from oracles.coverage import Coverage
from oracles.environment import describe_error, require_writable, write_atomically
from oracles.options import DTYPE_NAMES
from oracles.pytest_items import SearchItem
from oracles.report.disagreement import Disagreement, to_text
from oracles.report.html import require_page, write_page
from oracles.search import Search

# The values of our options by their names.
Given: TypeAlias = Mapping[str, Any]
# What carries the results of a test in its report, from a worker of xdist too.
ATTRIBUTE = "oracles_results"
# The options that change what is searched.
_OF_SEARCH = ("against", "blocks", "max-examples", "profile", "seconds")
_NO_NAME = re.compile(r"[^\w.-]+")


def complete(error: BaseException | None, item: pytest.Item, search: Search | None, given: Given) -> None:
    """Give a refusal the line that reproduces it, and write its script if one is wanted."""
    if not isinstance(error, Disagreement):
        return
    lines = [f"  reproduce: {command_of(item, search, given)}"]
    if given.get("script"):
        # No name that pytest takes for a test: the folder may be one that it collects.
        path = Path(given["script"]) / f"refused-{_NO_NAME.sub('_', _label(item, search)).strip('_')}.script.py"
        try:
            write_atomically(path, error.script())
            lines.append(f"  script: {path}")
        except (OSError, TypeError, ValueError) as problem:
            lines.append(f"  {path} is not written: {describe_error(problem)}")
    error.reproduce = "\n".join(lines)


def command_of(item: pytest.Item, search: Search | None, given: Given) -> str:
    """Return the command that runs one test again, with the same points."""
    own = item.arguments if isinstance(item, SearchItem) else [_shown_id(item)]
    values = {name: given[name] for name in _OF_SEARCH if name in given} if search is not None else {}
    seed = search.options.seed if search is not None else None
    values |= {"seed": seed} if seed is not None else {}
    # A test that names no dtypes is one in half precision only where the command line names it.
    if search is not None and search.any_dtype and search.dtype not in DTYPE_NAMES:
        values["dtype"] = search.dtype
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, list | tuple) else value for name, value in values.items()
    }
    return shlex.join(["pytest", *own, *(f"--oracles-{name}={text}" for name, text in texts.items())])


def _shown_id(item: pytest.Item) -> str:
    """Return the id of a test, with its file relative to the folder in which pytest was started."""
    file, separator, name = str(item.nodeid).partition("::")
    return os.path.relpath(item.config.rootpath / file, item.config.invocation_params.dir) + separator + name


def _label(item: pytest.Item, search: Search | None) -> str:
    if search is None or not isinstance(item, SearchItem):
        return str(item.nodeid)
    return f"{search.label}-{search.property_name}-{search.dtype}"


def packed(error: BaseException | None, search: Search | None) -> str:
    """Return what a test has found as a text that a report can carry; "" if it has judged nothing."""
    if search is not None:
        known = error if isinstance(error, Exception) else None  # a skipped test raised something else
        outcome = outcome_of(search, known)
    elif isinstance(error, Disagreement):
        label = error.result.subject
        failure = Failure(label, str(error.verdict), str(error), report=error.document())
        outcome = Outcome(label, [], failure, Coverage())
    else:
        return ""
    return base64.b64encode(pickle.dumps(outcome)).decode()


class ResultWriter:
    """A plugin that collects what the tests have found, and writes it when the run ends.

    Raises:
        ValueError: before the run, if a path cannot be written.
        ModuleNotFoundError: if a page is wanted and Jinja2 is not installed.
    """

    def __init__(
        self,
        command: str,
        script: str | None = None,
        json: str | None = None,
        html: str | None = None,
        seed: int | None = None,
    ) -> None:
        if script:
            _make_folder("--oracles-script", script)
        for option, path in (("json", json), ("html", html)):
            if path:
                require_writable(f"--oracles-{option}", path)
        if html:
            require_page(html, None)
        self.command, self.json, self.html, self.seed = command, json, html, seed
        self.report = Report([], [], ())
        self.started = time.perf_counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what a test has found, here or in a worker of xdist."""
        text = getattr(report, ATTRIBUTE, "")
        if text:
            self.report.add(pickle.loads(base64.b64decode(text)))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Write the results, those of an interrupted run too."""
        report = self.report
        report.seconds = time.perf_counter() - self.started
        report.interrupted = exitstatus == pytest.ExitCode.INTERRUPTED
        report.sort(sorted(report.layers))  # the processes of xdist end in any order
        contents = report.document(self.seed)
        if self.json:
            write_atomically(self.json, to_text(contents) + "\n")
        if self.html:
            write_page({**contents, "title": "pytest", "command": self.command}, self.html)


def _make_folder(option: str, path: str) -> None:
    """Make a folder, and require that a file can be written in it."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{option}: {path} cannot be made: {error.strerror}") from error
    require_writable(option, str(Path(path) / "refusal.py"))

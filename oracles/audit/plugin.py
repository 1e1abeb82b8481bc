"""The part of the pytest plugin that is loaded for ``--oracles-audit`` alone."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from oracles.audit.auditor import Auditor
from oracles.audit.patches import Patches
from oracles.audit.records import Audit, pack, unpack
from oracles.audit.summary import summary
from oracles.environment import require_writable, write_atomically

# What carries the findings of a test in the report of its teardown, from a worker of xdist too.
_ATTRIBUTE = "oracles_audit"
NAME = "oracles-audit"


class AuditPlugin:
    """Audits each test while it runs, here or in a worker of xdist, and reports at the end where the run began."""

    def __init__(self, config: pytest.Config, path: str | None) -> None:
        self.config, self.path = config, path
        self.auditor = Auditor(str(config.rootpath))
        self.patches = Patches(self.auditor)
        self.audit = Audit()
        self._failed: set[str] = set()
        self.patches.install()

    def pytest_configure(self, config: pytest.Config) -> None:
        """Require that the file of --oracles-audit-json can be written, before the run."""
        if self.path is not None and not hasattr(config, "workerinput"):
            self.path = os.path.abspath(config.invocation_params.dir / self.path)
            try:
                require_writable("--oracles-audit-json", self.path)
            except ValueError as error:
                raise pytest.UsageError(str(error)) from None

    def pytest_unconfigure(self) -> None:
        """Put the original functions back."""
        self.patches.undo()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Audit what a test compares, in its fixtures too."""
        self.auditor.begin(str(item.path))
        try:
            return (yield)
        finally:
            self.auditor.end()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
        """Attach the findings to the last report of a test."""
        report: Any = yield
        if report.when == "teardown":
            auditor = self.auditor
            own = time.perf_counter() - auditor.started
            contents = [pack(auditor.end()), auditor.seconds, own, dict(auditor.faults)]
            setattr(report, _ATTRIBUTE, json.dumps(contents))
        return report  # type: ignore[no-any-return]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add what a test has found."""
        if report.outcome != "passed" or hasattr(report, "wasxfail"):
            self._failed.add(report.nodeid)
        text = getattr(report, _ATTRIBUTE, "")
        if not text:
            return
        found, seconds, run_seconds, faults = json.loads(text)
        self.audit.add(report.nodeid, unpack(found))
        if report.nodeid not in self._failed:
            self.audit.passed.add(report.nodeid)
        process = getattr(getattr(report, "node", None), "gateway", None)
        self.audit.note_process(str(getattr(process, "id", "")), seconds, run_seconds, faults)

    def pytest_sessionfinish(self) -> None:
        """Write the file, of an interrupted run too."""
        if self.path is not None and not hasattr(self.config, "workerinput"):
            write_atomically(self.path, json.dumps(self.audit.document(), indent=1) + "\n")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the summary."""
        if self.config.get_verbosity() > -2:
            terminalreporter.section("audit of comparisons")
            for line in summary(self.audit, is_complete=self.config.get_verbosity() > 0):
                terminalreporter.write_line(line)


def register(config: pytest.Config, path: str | None) -> None:
    """Register the plugin, and replace the functions: before conftest.py and the tests import them."""
    if not config.pluginmanager.has_plugin(NAME):
        config.pluginmanager.register(AuditPlugin(config, path), NAME)

"""What pytest collects for ``--oracles-cases``: a module of cases, and a test for each layer, check and dtype."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oracles.discovery import Unusable
from oracles.registry import Entry, entries_of
from oracles.report.disagreement import Disagreement
from oracles.report.text import REPRODUCE
from oracles.search import Run, runs_of


class Cases(pytest.Collector):
    """The cases of one module or file, in the order of their names: the same in every worker of xdist."""

    @classmethod
    def of(cls, session: pytest.Collector, module: str) -> Cases:
        """Return the collector of a module, named as the user named it."""
        return cls.from_parent(session, name=module, nodeid=module)

    def collect(self) -> Iterator[pytest.Collector]:
        """Import the module and yield its layers."""
        for entry in entries_of(self.name):
            origin = getattr(sys.modules[entry.module], "__file__", None)
            yield Layer.from_parent(self, name=entry.name, entry=entry, path=Path(origin) if origin else self.path)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Say what is wrong with the option; show the traceback of a module that fails by itself."""
        return f"--oracles-cases: {excinfo.value}" if excinfo.errisinstance(Unusable) else super().repr_failure(excinfo)


class Layer(pytest.Collector):
    """One registered layer."""

    def __init__(self, *, entry: Entry, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.entry = entry

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for each check and dtype."""
        for name, run in runs_of(self.entry).items():
            yield Search.from_parent(self, name=name, run=run)


class Search(pytest.Item):
    """One check of one registered layer in one dtype."""

    def __init__(self, *, run: Run, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.run = run

    def runtest(self) -> None:
        """Search."""
        self.run()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """A refusal is told by its report, and by how to run this test alone."""
        if not isinstance(excinfo.value, Disagreement):
            return super().repr_failure(excinfo)
        layer = self.parent
        assert layer is not None
        assert layer.parent is not None
        seed = self.run.options.seed
        again = f'pytest --oracles-cases={layer.parent.name} -k "{layer.name} and {self.name}"'
        again += f" --oracles-seed {seed}" if seed is not None else ""
        return str(excinfo.value).replace(f"\n{REPRODUCE}", "") + f"\n  this test alone: {again}"

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where the cases are, and what runs."""
        return self.path, None, f"{self.parent.name if self.parent else ''}::{self.name}"

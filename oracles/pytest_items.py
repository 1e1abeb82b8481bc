"""What the pytest plugin needs in a run that judges something: test items, their properties, and the summary."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import pytest

from oracles.environment import versions_line
from oracles.missing import missing_of
from oracles.options import DTYPE_NAMES, PREFIX, SearchOptions, derivative_properties
from oracles.process_state import judging
from oracles.properties import ORACLE_PROPERTIES
from oracles.registry import Entry, Unusable, entries_of
from oracles.report.disagreement import Disagreement
from oracles.search import Search, searches_of
from oracles.tally import Tally, describe_inconclusive, exceeds_vacuous_limit, points_out_of_time
from oracles.verdict import NOT_JUDGED, SKIPPED, Verdict

# The user_properties of one test, by name.
UserProperties: TypeAlias = Mapping[str, Any]

# The names of the user_properties, in the order in which they are written.
NAMES = (
    "layer", "property", "dtype", "verdict", "examples", "worst_ratio", "detects_above", "vacuous", "out_of_time",
    "oracles", "seed", "note", "skipped",
)  # fmt: skip
# A layer of which one test is skipped does not agree.
_AGREES, *_WORSE = map(str, Verdict)
_ORDER = {verdict: rank for rank, verdict in enumerate((NOT_JUDGED, _AGREES, SKIPPED, *_WORSE))}
_ACCEPTED = (NOT_JUDGED, SKIPPED, Verdict.AGREES, Verdict.VACUOUS)
_COLUMNS = (
    "layer", "tests", "examples", "error / tolerance", "detects above", "inconclusive", "verdict", "judged by",
)  # fmt: skip
_RIGHT_ALIGNED = _COLUMNS[1:6]


class CasesCollector(pytest.Collector):
    """The layers of one module or file, in the order of their names: the same in every worker of xdist."""

    @classmethod
    def of(cls, session: pytest.Collector, module: str) -> CasesCollector:
        """Return the collector of a module, under the name that the user gave."""
        return cls.from_parent(session, name=module, nodeid=module)

    def collect(self) -> Iterator[pytest.Collector]:
        """Import the module and yield its layers."""
        try:
            with judging(puts_back=False):  # a module of the user's may try to end the process
                found = entries_of(self.name)
        except ModuleNotFoundError as error:
            missing = missing_of(error)
            if missing is None:
                raise
            pytest.skip(str(missing), allow_module_level=True)
        for entry in found:
            file = getattr(sys.modules[entry.module], "__file__", None)
            yield LayerCollector.from_parent(self, name=entry.name, entry=entry, path=Path(file) if file else self.path)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the error in the option, or the traceback of a module that raises while it is imported."""
        return f"--oracles-cases: {excinfo.value}" if excinfo.errisinstance(Unusable) else super().repr_failure(excinfo)


class LayerCollector(pytest.Collector):
    """One registered layer."""

    def __init__(self, *, entry: Entry, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.entry = entry

    def collect(self) -> Iterator[pytest.Item]:
        """Yield a test for each property and dtype: the default ones, and further ones that --oracles-dtype names."""
        dtypes = dict.fromkeys([*DTYPE_NAMES, *(self.config.getoption("oracles_dtype", None) or ())])
        order, mode = (self.config.getoption(f"oracles_{name}", None) for name in ("order", "mode"))
        options = SearchOptions(properties=derivative_properties(order or 1, mode or "vjp"))
        for name, search in searches_of(self.entry, tuple(dtypes), options).items():
            yield SearchItem.from_parent(self, name=name, search=search)


class SearchItem(pytest.Item):
    """One property of one registered layer in one dtype."""

    def __init__(self, *, search: Search, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.search = search

    def runtest(self) -> None:
        """Search."""
        self.search()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the report of a refusal, without a traceback."""
        refused = isinstance(excinfo.value, Disagreement)
        return str(excinfo.value) if refused else super().repr_failure(excinfo)

    @property
    def arguments(self) -> list[str]:
        """The arguments of pytest that run this test alone."""
        layer = self.parent
        assert layer is not None
        assert layer.parent is not None
        search = self.search
        options = {"cases": layer.parent.name, "layer": layer.name, "dtype": search.dtype}
        return [*(f"--oracles-{name}={value}" for name, value in options.items()), "-k", search.property_name]

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return the file of the cases, and the name of the search."""
        return self.path, None, f"{self.parent.name if self.parent else ''}::{self.name}"


def with_properties(searches: Sequence[Search], names: Sequence[str]) -> list[Search]:
    """Return these searches, and those of further properties in each of their dtypes."""
    known = {search.property_name for search in searches}
    further = [
        replace(search, property_name=name, tally=Tally())
        for name in names
        if name not in known
        for search in {search.dtype: search for search in searches}.values()
    ]
    return [*searches, *further]


def with_dtypes(searches: Sequence[Search], dtypes: Sequence[str]) -> list[Search]:
    """Return these searches, and the same in further dtypes where the test has left them to the default."""
    known = {(search.property_name, search.dtype) for search in searches}
    further = [
        replace(search, dtype=dtype, tally=Tally())
        for search in {search.property_name: search for search in searches if search.any_dtype}.values()
        for dtype in dict.fromkeys(dtypes)
        if (search.property_name, dtype) not in known
    ]
    return [*searches, *further]


def user_properties(search: Search) -> list[tuple[str, Any]]:
    """Return the results of a search as named plain values, which JUnit XML and xdist can carry.

    "examples" counts the points, "worst_ratio" is the worst error / tolerance, "detects_above" the smallest relative
    error that would have been refused (median), "vacuous" the share of inconclusive verdicts, "out_of_time" the number
    of points whose time was over before all was judged.
    """
    tally = search.tally
    examples = sum(tally.examples.values())
    detectable = [error for errors in tally.detects_above.values() for error in errors]
    values = {
        "layer": search.label,
        "property": search.property_name,
        "dtype": search.dtype,
        "verdict": _verdict(tally),
        "examples": tally.points,
        "worst_ratio": float(max(tally.worst_ratio.values(), default=0.0)),
        "detects_above": float(median(detectable)) if detectable else 0.0,
        "vacuous": sum(tally.vacuous.values()) / examples if examples else 0.0,
        "out_of_time": tally.out_of_time or None,
        "oracles": ", ".join(sorted(tally.examples)),
        "seed": search.options.seed,
        "note": search.note or None,
        "skipped": "; ".join(f"{name}: {missing.line}" for name, missing in tally.skipped.items()) or None,
    }
    return [(PREFIX + name, values[name]) for name in NAMES if values[name] is not None]


def _verdict(tally: Tally) -> str:
    if not tally.verdicts:
        return SKIPPED if tally.skipped else NOT_JUDGED
    if sum(tally.vacuous.values()) == sum(tally.examples.values()) > 0:
        return str(Verdict.VACUOUS)
    return max(map(str, tally.verdicts.values()), key=lambda verdict: _ORDER[verdict])


def summary(tests: Sequence[UserProperties]) -> list[str]:
    """Return the lines of the summary, given the user_properties of all tests; no lines if no test judged anything."""
    judged = [test for test in tests if PREFIX + "verdict" in test]
    if not judged:
        return []
    by_layer: dict[str, list[UserProperties]] = {}
    for test in judged:
        by_layer.setdefault(test[PREFIX + "layer"], []).append(test)
    rows = [_COLUMNS, *(_row(layer, by_layer[layer]) for layer in sorted(by_layer))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            cell.rjust(width) if title in _RIGHT_ALIGNED else cell.ljust(width)
            for cell, width, title in zip(row, widths, _COLUMNS, strict=True)
        ).rstrip()
        for row in rows
    ]
    lines += sorted({f"{t[PREFIX + 'layer']}: {t[PREFIX + 'note']}" for t in judged if PREFIX + "note" in t})
    skipped = sorted({text for t in judged for text in t.get(PREFIX + "skipped", "").split("; ") if text})
    lines += [f"{SKIPPED}: {text}" for text in skipped]
    lines += _out_of_time(by_layer)
    lines += _inconclusive_layers(by_layer)
    points = sum(_column(judged, "examples"))
    refused = sum(test[PREFIX + "verdict"] not in _ACCEPTED for test in judged)
    count = sum(test[PREFIX + "verdict"] == SKIPPED for test in judged)
    outcome = f"{refused} of {len(judged)} tests refused" if refused else "" if count else "all agree"
    outcome += f"{', ' if refused else ''}{count} of {len(judged)} tests {SKIPPED}" if count else ""
    lines.append(f"{len(by_layer)} judged at {points} points: {outcome}")
    return [*lines, versions_line()]


def _row(layer: str, judged: Sequence[UserProperties]) -> tuple[str, ...]:
    detectable = [error for error in _column(judged, "detects_above") if error]
    oracles = {name for names in _column(judged, "oracles") for name in names.split(", ") if name}
    return (
        layer,
        str(len(judged)),
        str(sum(_column(judged, "examples"))),
        f"{max(_column(judged, 'worst_ratio')):.2g}",
        f"{median(detectable):.0e}" if detectable else "exact",
        f"{_inconclusive_share(judged):.1%}",
        max(_column(judged, "verdict"), key=lambda verdict: _ORDER[verdict]),
        ", ".join(sorted(oracles)),
    )


def _out_of_time(by_layer: Mapping[str, Sequence[UserProperties]]) -> list[str]:
    """Return a line for each layer of which points ran out of time."""
    counts = {layer: sum(test.get(PREFIX + "out_of_time", 0) for test in by_layer[layer]) for layer in sorted(by_layer)}
    return [f"{layer}: {points_out_of_time(count)} (--oracles-seconds)" for layer, count in counts.items() if count]


def _inconclusive_points(judged: Sequence[UserProperties]) -> float:
    return float(sum(p[PREFIX + "vacuous"] * p[PREFIX + "examples"] for p in judged))


def _inconclusive_share(judged: Sequence[UserProperties]) -> float:
    examples = sum(_column(judged, "examples"))
    return _inconclusive_points(judged) / examples if examples else 0.0


def _inconclusive_layers(by_layer: Mapping[str, Sequence[UserProperties]]) -> list[str]:
    """Warn of layers with too many inconclusive points, as ``oracles verify`` does."""
    by_oracles = {
        layer: [p for p in judged if p[PREFIX + "property"] in ORACLE_PROPERTIES] for layer, judged in by_layer.items()
    }
    counts = {
        layer: (_inconclusive_points(judged), sum(_column(judged, "examples"))) for layer, judged in by_oracles.items()
    }
    return [
        f"too many points were inconclusive for {layer}: {describe_inconclusive(round(vacuous), points)}"
        for layer, (vacuous, points) in sorted(counts.items())
        if exceeds_vacuous_limit(vacuous, points)
    ]


def _column(judged: Sequence[UserProperties], name: str) -> list[Any]:
    return [test[PREFIX + name] for test in judged]

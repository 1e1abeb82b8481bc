"""A campaign as a page: one file of HTML that needs no network and has no script."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log10

from oracles.campaign.units import Json
from oracles.environment import write_atomically
from oracles.report.drawings import Bar, Tick, histogram
from oracles.report.html import rendered

_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 720.0, 300.0, 70.0, 26.0, 248.0
_RIGHT = _WIDTH - 60.0
_TICKS = 5


def write_campaign_page(document: Json, path: str) -> None:
    """Write what `oracles.campaign.summary.summary` returns as a page, atomically.

    Raises:
        ModuleNotFoundError: if Jinja2 is not installed.
    """
    write_atomically(path, campaign_page(document))


def campaign_page(document: Json) -> str:
    """Return the page of a campaign; see `write_campaign_page`."""
    busiest = max((each["points"] for each in document["workers"]), default=0) or 1
    workers = [{**each, "share": each["points"] / busiest, "rate": _rate(each)} for each in document["workers"]]
    return rendered(
        "campaign.html.j2",
        {
            "d": document,
            "opened": time.strftime("%Y-%m-%d %H:%M", time.localtime(document["opened"])),
            "hours": f"{document['seconds'] / 3600:.2g}",
            "progress": progress_drawing(document["progress"]),
            "workers": workers,
            "coverage": _coverage(document),
        },
    )


def _rate(worker: Json) -> str:
    return f"{worker['points'] / worker['busy']:.1f}" if worker["busy"] else "–"


@dataclass(frozen=True)
class Progress:
    """Points and discoveries by time: two lines over one axis, each with an axis of its own."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float
    points: str
    discoveries: str
    x_ticks: Sequence[Tick]
    point_ticks: Sequence[Tick]
    discovery_ticks: Sequence[Tick]
    label: str


def progress_drawing(steps: Sequence[Json]) -> Progress | None:
    """Draw the progress of a campaign; ``None`` without any."""
    if not steps:
        return None
    end, most, found = (max(each[name] for each in steps) for name in ("seconds", "points", "discoveries"))
    unit, name = (3600, "h") if end > 5400 else (60, "min") if end > 90 else (1, "s")

    def x(seconds: float) -> float:
        return _LEFT + seconds / (end or 1.0) * (_RIGHT - _LEFT)

    def y(value: float, largest: float) -> float:
        return _BOTTOM - value / (largest or 1.0) * (_BOTTOM - _TOP)

    heights = {name: _rounded_up(value) for name, value in (("points", most), ("discoveries", found))}
    paths = dict.fromkeys(heights, f"M{_LEFT:.1f} {_BOTTOM:.1f}")
    for each in steps:
        for line, largest in heights.items():
            paths[line] += f"H{x(each['seconds']):.1f}V{y(each[line], largest):.1f}"
    ticks = {
        line: [Tick(y(value, largest), f"{value:g}") for value in _even(largest, whole=line == "discoveries")]
        for line, largest in heights.items()
    }
    x_ticks = [Tick(x(end * i / _TICKS), f"{end * i / _TICKS / unit:.3g} {name}") for i in range(_TICKS + 1)]
    label = f"{most} points and {found} failures after {end / unit:.3g} {name}"
    return Progress(
        _WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM, paths["points"], paths["discoveries"],
        x_ticks, ticks["points"], ticks["discoveries"], label,
    )  # fmt: skip


def _rounded_up(value: float) -> float:
    """Return the next number of one digit above a value, for the end of an axis."""
    if value <= 1:
        return 1.0
    power = 10.0 ** int(log10(value))
    return ceil(value / power) * power


def _even(largest: float, *, whole: bool) -> list[float]:
    """Return the marks of an axis from 0."""
    parts = int(min(largest, _TICKS)) if whole else _TICKS
    return [largest * i / parts for i in range(parts + 1)] if not whole or largest % parts == 0 else [0.0, largest]


def _coverage(document: Json) -> Json:
    """Return the rows of the table of what was drawn, with histograms on common axes."""
    covered: Mapping[str, Json] = document["coverage"]
    extents = sorted({int(n) for each in covered.values() for n in each["extents"]})
    decades = sorted({int(n) for each in covered.values() for n in each["decades"]})
    by_dtype: dict[str, dict[str, int]] = {}
    for search in document["searches"]:
        counts = by_dtype.setdefault(search["layer"], {})
        counts[search["dtype"]] = counts.get(search["dtype"], 0) + search["points"]
    rows = [
        {
            **each,
            "layer": layer,
            "dtypes": ", ".join(f"{name} {n}" for name, n in sorted(by_dtype.get(layer, {}).items())),
            "extents": _bars(each["extents"], extents),
            "decades": _bars(each["decades"], decades),
            "largest": ", ".join(f"{name} {'×'.join(map(str, n)) or '()'}" for name, n in each["largest"].items()),
            "never": ", ".join(name for name, number in each["counts"].items() if not number),
        }
        for layer, each in covered.items()
    ]
    return {"rows": rows, "extents": extents, "decades": decades}


def _bars(counts: Mapping[str, int], names: Sequence[int]) -> list[Bar]:
    return histogram(counts, [str(name) for name in names])

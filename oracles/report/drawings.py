"""The drawings of a page as coordinates; the templates turn them into SVG.

Every drawing has a text that says the same, for a reader who does not see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, log10

from oracles.report.compared import Json
from oracles.report.matrix import as_float

# (error / tolerance, relative tolerance, whether it is refused)
Triple = tuple[float, float, bool]


@dataclass(frozen=True)
class Tick:
    """A tick of an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Dots:
    """Points of one kind as the path of an SVG, whose round line caps are the dots.

    Attributes:
        name: what they are.
        kind: the class of their colour.
        path: the path; points that would cover each other are one.
        count: how many points there are.
    """

    name: str
    kind: str
    path: str
    count: int


@dataclass(frozen=True)
class Scatter:
    """Error / tolerance of all points against their relative tolerance, on logarithmic axes."""

    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int
    line: float
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    dots: Sequence[Dots]
    label: str


_LOWEST_RATIO = -4  # powers of ten; smaller ratios are drawn on the lowest line, with those that are 0
_LEAST_TOLERANCE = 1e-18  # far below the rounding of every dtype: it belongs to numbers that must be equal
_CROSS = 3.0  # half the width of the cross at a refused point


def scatter(points: Mapping[str, Sequence[Triple]]) -> Scatter | None:
    """Draw points by dtype; ``None`` without any.

    The leftmost column has the points without a relative tolerance, or with next to none, the lowest row those without
    an error, the highest those with an infinite one.
    """
    triples = [triple for group in points.values() for triple in group]
    if not triples:
        return None
    tolerances = [log10(t) for _, t, _ in triples if _LEAST_TOLERANCE < t < inf]
    ratios = [log10(r) for r, _, _ in triples if 0 < r < inf]
    first, last = floor(min(tolerances, default=-16)), ceil(max(tolerances, default=-15))
    last = max(last, first + 1)
    highest = max(ceil(max(ratios, default=0)), 1)
    width, height, left, top, bottom = 460, 340, 52, 26, 282
    right, column = width - 18, left + 54
    scale = (right - column - 6) / (last - first)

    def x(tolerance: float) -> float:
        return column + (log10(tolerance) - first) * scale if _LEAST_TOLERANCE < tolerance < inf else left + 14

    rise = (bottom - 14 - (top + 22)) / (highest - _LOWEST_RATIO)

    def y(ratio: float) -> float:
        if ratio == inf:
            return top + 5
        return bottom - 14 - (log10(ratio) - _LOWEST_RATIO) * rise if ratio > 10.0**_LOWEST_RATIO else bottom - 4

    dots = []
    for number, (name, group) in enumerate(points.items()):
        accepted = [(x(t), y(r)) for r, t, refused in group if not refused]
        path = " ".join(dict.fromkeys(f"M{a:.0f} {b:.0f}h0" for a, b in accepted))
        dots += [Dots(name, f"dtype-{number % 4}", path, len(accepted))] if accepted else []
    refused = [(x(t), y(r)) for r, t, refused in triples if refused]
    if refused:
        crosses = dict.fromkeys(
            f"M{a - _CROSS:.0f} {b - _CROSS:.0f}l{2 * _CROSS:.0f} {2 * _CROSS:.0f}m0 -{2 * _CROSS:.0f}"
            f"l-{2 * _CROSS:.0f} {2 * _CROSS:.0f}"
            for a, b in refused
        )
        dots.append(Dots("refused", "refused", " ".join(crosses), len(refused)))
    step_x, step_y = ceil((last - first) / 6), ceil((highest - _LOWEST_RATIO) / 7)
    x_ticks = [Tick(column + (p - first) * scale, f"1e{p}") for p in range(first, last + 1, step_x)]
    powers = [*range(0, highest + 1, step_y), *range(-step_y, _LOWEST_RATIO - 1, -step_y)]
    y_ticks = [Tick(y(10.0**p), f"1e{p}" if p else "1") for p in powers if p > _LOWEST_RATIO]
    y_ticks += [Tick(bottom - 4, "0")] + ([Tick(top + 5, "∞")] if any(r == inf for r, _, _ in triples) else [])
    x_ticks += [Tick(left + 14, "n/a")] if len(tolerances) < len(triples) else []
    above = sum(r > 1 for r, _, _ in triples)
    largest = max(r for r, _, _ in triples)
    label = f"{len(triples)} points: {len(refused)} refused, {above} above 1, the largest {largest:.2g}"
    return Scatter(width, height, left, top, right, bottom, y(1.0), x_ticks, y_ticks, dots, label)


@dataclass(frozen=True)
class Mark:
    """One row of the drawing of distances: a mark, and for an enclosure a bar from 0 to its radius."""

    name: str
    y: float
    x: float
    bar: float | None
    text: str
    kind: str


@dataclass(frozen=True)
class Distances:
    """How far every value of the refused entry lies from the best known one, on a logarithmic axis."""

    width: int
    height: int
    left: int
    right: int
    tolerance: float | None
    tolerance_text: str
    ticks: Sequence[Tick]
    marks: Sequence[Mark]
    label: str


def distances(finding: Json) -> Distances | None:
    """Draw subject, oracles, enclosure and tolerance of the entry that a finding names; ``None`` without numbers."""
    if finding["subject"] is None or not finding["oracles"]:
        return None
    enclosure = finding["enclosure"]
    middle = as_float(enclosure[0]) if enclosure else as_float(next(iter(finding["oracles"].values())))
    values = {"subject": as_float(finding["subject"])} | {n: as_float(v) for n, v in finding["oracles"].items()}
    away = {name: abs(value - middle) for name, value in values.items()}
    radius = as_float(enclosure[1]) if enclosure else 0.0
    tolerance = as_float(finding["tolerance"])
    known = [d for d in (*away.values(), radius, tolerance) if 0 < d < inf]
    if not isfinite(middle) or not known:
        return None
    first, last = floor(log10(min(known))) - 1, ceil(log10(max(known))) + 1
    width, left = 380, 96
    right = width - 62

    def x(distance: float) -> float:
        if distance == 0:
            return left
        return left + (log10(distance) - first) / (last - first) * (right - left) if distance < inf else right

    marks = []
    for i, (name, distance) in enumerate(away.items()):
        exact = name == "exact" and radius > 0
        text = f"± {radius:.1g}" if exact else "0" if distance == 0 else f"{distance:.2g}"
        bar = x(radius) if exact else None
        marks.append(Mark(name, 42 + 28 * i, x(distance), bar, text, "subject" if i == 0 else "oracle"))
    step = max(1, ceil((last - first) / 5))
    ticks = [Tick(x(10.0**p), f"1e{p}") for p in range(first + 1, last + 1, step)]
    label = "; ".join(f"{name} {mark.text}" for name, mark in zip(away, marks, strict=True))
    return Distances(
        width,
        64 + 28 * len(marks),
        left,
        right,
        x(tolerance) if tolerance else None,
        f"tolerance {tolerance:.2g}",
        ticks,
        marks,
        f"distance from the best known value: {label}; tolerance {tolerance:.2g}",
    )


@dataclass(frozen=True)
class HeatCell:
    """One entry, or the worst of a block."""

    x: float
    y: float
    kind: str
    text: str
    title: str


@dataclass(frozen=True)
class HeatMap:
    """One number for each entry of the refused array, as a grid."""

    name: str
    width: float
    height: float
    cell: tuple[float, float]
    cells: Sequence[HeatCell]
    label: str


@dataclass(frozen=True)
class WorstEntry:
    """One row of the table of the worst entries."""

    index: str
    subject: str
    expected: str
    tolerance: str
    ratio: str


_MOST_TITLES = 256  # cells that say their numbers when the pointer rests on them
_WORST_SHOWN = 8
_RATIO_STEPS = (1, 10, 1e3, 1e6, inf)


def heat_maps(entries: Json) -> list[HeatMap]:
    """Draw error / tolerance over the entries of the refused array, beside the subject's values and the oracle's."""
    rows, columns = entries["grid"]
    with_text = columns <= 6 and rows <= 12
    cell = (54.0, 26.0) if with_text else (size := max(8.0, min(22.0, 300 / max(rows, columns))), size)
    values = {key: [as_float(v) for v in entries[key]] for key in ("ratio", "subject", "expected")}
    finite = [abs(v) for key in ("subject", "expected") for v in values[key] if isfinite(v)]
    scale = max(finite, default=0.0) or 1.0
    titled = rows * columns <= _MOST_TITLES
    maps = []
    names = {"ratio": "error / tolerance", "subject": "subject", "expected": entries["oracle"]}
    for key, name in names.items():
        cells = []
        for i, value in enumerate(values[key]):
            kind = _ratio_kind(value) if key == "ratio" else _value_kind(value, scale)
            title = f"{_index_text(entries, i)}: {value:.6g}" if titled else ""
            at = (i % columns) * cell[0], (i // columns) * cell[1]
            cells.append(HeatCell(*at, kind, f"{value:.2g}" if with_text else "", title))
        label = f"{name} over {rows} × {columns} cells, from {min(values[key]):.3g} to {max(values[key]):.3g}"
        maps.append(HeatMap(name, columns * cell[0], rows * cell[1], cell, cells, label))
    return maps


def _ratio_kind(ratio: float) -> str:
    return f"r{sum(ratio > step for step in _RATIO_STEPS[:-1]) + (ratio == inf)}"


def _value_kind(value: float, scale: float) -> str:
    if not isfinite(value):
        return "nan"
    level = ceil(4 * abs(value) / scale)
    return "zero" if level == 0 else f"{'n' if value < 0 else 'p'}{min(level, 4)}"


def _index_text(entries: Json, i: int) -> str:
    """Return the index of an entry, "[0, 3]"."""
    flat, index = entries["index"][i], []
    for extent in reversed(entries["shape"]):
        flat, k = divmod(flat, extent)
        index.append(k)
    return f"[{', '.join(map(str, reversed(index)))}]"


def worst_entries(entries: Json) -> list[WorstEntry]:
    """Return the entries with the largest error / tolerance."""
    order = sorted(range(len(entries["ratio"])), key=lambda i: -as_float(entries["ratio"][i]))[:_WORST_SHOWN]
    return [
        WorstEntry(
            _index_text(entries, i),
            f"{as_float(entries['subject'][i])!r}",
            f"{as_float(entries['expected'][i])!r}",
            f"{as_float(entries['tolerance'][i]):.2g}",
            f"{as_float(entries['ratio'][i]):.3g}",
        )
        for i in order
    ]


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: its height as a share, and what it says."""

    label: str
    height: float
    title: str


def histogram(counts: Mapping[str, int], names: Sequence[str]) -> list[Bar]:
    """Return the bars of a histogram over all names; a square root makes rare ones visible."""
    largest = max(counts.values(), default=0) or 1
    return [Bar(n, (counts.get(n, 0) / largest) ** 0.5, f"{counts.get(n, 0)} points") for n in names]

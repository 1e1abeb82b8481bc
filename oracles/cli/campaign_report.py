"""What ``oracles campaign status`` and ``report`` print."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from oracles.campaign.units import Json
from oracles.cli.outcomes import align
from oracles.cli.verify_report import counted
from oracles.options import DTYPE_NAMES

# Failures whose whole report is printed.
SHOWN = 20


def in_words(seconds: float) -> str:
    """Return a time in words: "8 h 5 min", "42 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def status_lines(document: Json) -> Iterator[str]:
    """Yield the lines of a status: how much is done, by whom, and what is found."""
    opened = time.strftime("%Y-%m-%d %H:%M", time.localtime(document["opened"]))
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    yield f"{document['store']}: code {document['code'][:12]}, since {opened}"
    yield f"  {versions}"
    again = f", {document['leased_again']} leased again" if document["leased_again"] else ""
    yield (
        f"  {counted(document['units'], 'unit')} recorded in {in_words(document['seconds'])}{again}; "
        f"{counted(document['points'], 'point')}, {counted(len(document['failures']), 'failure')}"
    )
    for each in document["apart"]:
        yield f"  apart, by other code or versions: {counted(each['units'], 'unit')} of code {each['code'][:12]}"
    yield from _workers(document["workers"])
    for failure in document["failures"]:
        yield (
            f"  {failure['subject']}: {failure['verdict']} in {failure['primal'] or failure['property']}, found after "
            f"{in_words(failure['found_after'])}, in {counted(failure['units'], 'unit')}: "
            f"{failure['diagnosis'] or failure['text'].partition(chr(10))[0]}"
        )
    yield from (f"  inconclusive: {line}" for line in document["inconclusive"])
    yield from (f"  given up: {line}" for line in document["given_up"])
    yield from (f"  skipped: {name}: {line}" for name, line in document["skipped"].items())


def _workers(workers: Sequence[Json]) -> Iterator[str]:
    rows = [("worker", "units", "points", "busy", "points / s", "")]
    for each in workers:
        rate = f"{each['points'] / each['busy']:.1f}" if each["busy"] else "–"
        state = "at work" if each["at_work"] else ""
        rows.append((each["worker"], str(each["units"]), str(each["points"]), in_words(each["busy"]), rate, state))
    yield from align(rows) if len(rows) > 1 else ()


def report_lines(document: Json) -> Iterator[str]:
    """Yield the lines of a report: the status, then failures, worst ratios, coverage."""
    yield from status_lines(document)
    for failure in document["failures"][:SHOWN]:
        size = f"the smallest of {counted(failure['units'], 'example')} has {failure['size']} inputs"
        yield f"\n{failure['text']}\n  {size}; seed {failure['seed']}; {', '.join(failure['searches'])}"
    yield "\nworst error / tolerance of what agrees"
    rows = [("ratio", "layer", "property", "dtype", "judged by", "seed")]
    rows += [
        (f"{float(row['ratio']):.3g}", row["layer"], row["property"], row["dtype"], row["oracle"], str(row["seed"]))
        for row in document["worst"]
    ]
    yield from align(rows)
    yield "\ncoverage"
    yield from align(coverage_rows(document))


def coverage_rows(document: Json) -> list[tuple[str, ...]]:
    """Return what was drawn, a row for each layer, below a header."""
    points = dtype_points(document)
    dtypes = sorted({name for each in points.values() for name in each}, key=_dtype_order)
    rows = [("layer", *dtypes, "shapes", "largest", "values", "ties", "not drawn")]
    for layer, each in document["coverage"].items():
        largest = ", ".join(
            f"{name} {'×'.join(map(str, extents)) or '()'}" for name, extents in each["largest"].items()
        )
        values = "{:.0e} … {:.0e}".format(*each["magnitudes"]) if each["magnitudes"] else "–"
        never = ", ".join(name for name, number in each["counts"].items() if not number)
        by_dtype = (str(points[layer].get(name, 0)) for name in dtypes)
        rows.append((layer, *by_dtype, str(each["shapes"]), largest, values, str(each["counts"]["ties"]), never))
    return rows


def dtype_points(document: Json) -> dict[str, dict[str, int]]:
    """Return the number of points by layer and dtype."""
    points: dict[str, dict[str, int]] = {layer: {} for layer in document["coverage"]}
    for search in document["searches"]:
        of_layer = points.setdefault(search["layer"], {})
        of_layer[search["dtype"]] = of_layer.get(search["dtype"], 0) + search["points"]
    return points


def _dtype_order(name: str) -> tuple[bool, str]:
    return name not in DTYPE_NAMES, name

"""The tables of the sensitivity benchmark: the smallest errors refused, and which of them miss their aim."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.peers import OURS, PEERS
from benchmarks.shared import Row

REGIMES = {"normal": "standard normal values, magnitude 1", "mixed": "the draws of a search"}
# The aims of this project by dtype: for the median over the examples, and for 99 % of them.
AIMS = {"float64": (1e-13, 1e-11), "float32": (1e-5, 1e-5)}


def misses(row: Row) -> list[str]:
    """Return which of this project's two figures miss their aim."""
    figures = zip(("median", "in_99_percent"), AIMS[row["dtype"]], strict=True)
    return [which for which, aim in figures if (e := row[which][OURS]) is not None and e > aim * 1.0001]


def _cell(error: float | None, width: int, missed: bool = False) -> str:
    text = "-" if error is None else ">1" if math.isinf(error) else f"{error:.0e}"
    return f"{text}{'!' if missed else ''}".rjust(width)


def table(rows: Sequence[Row], regime: str) -> list[str]:
    """Return the lines of one regime's table."""
    gap = " " * 27
    lines = [
        f"{REGIMES[regime]}: smallest relative error refused, median and in 99 %",
        f"{gap}{'this project'.center(21)}{'gradcheck'.center(26)}{'jax'.center(13)}{'torch'.center(13)}",
        f"{gap}{'':21}{'slow':>13}{'fast':>13}{'check_grads':>13}{'assert_close':>13}",
        f"{'layer':<19} {'':3}{'n':>4}{'median':>7}{'99 %':>7}{'wrong':>7}" + f"{'median':>7}{'99 %':>6}" * len(PEERS),
    ]
    for row in rows:
        if row["regime"] != regime:
            continue
        median, most, missed = row["median"], row["in_99_percent"], misses(row)
        line = f"{row['layer']:<19} {row['dtype'].replace('float', 'f')}"
        line += (
            f"{row['asked'][OURS]:>4}"
            + _cell(median[OURS], 7, "median" in missed)
            + _cell(most[OURS], 7, "in_99_percent" in missed)
        )
        line += _cell(median["wrong"], 7)
        lines.append(line + "".join(_cell(median[p], 7) + _cell(most[p], 6) for p in PEERS))
    asked = {tool: sum(r["asked"][tool] for r in rows if r["regime"] == regime) for tool in (OURS, *PEERS)}
    right = {tool: sum(r["refused_right"][tool] for r in rows if r["regime"] == regime) for tool in asked}
    shares = (f"{tool.removeprefix('this ')} {right[tool]}/{asked[tool]}" for tool in asked)
    return [*lines, f"right gradients refused: {', '.join(shares)}"]


def summary(rows: Sequence[Row]) -> list[str]:
    """Return the aims and what misses them."""
    lines = [f"aim in {dtype}: median <= {median:.0e}, in 99 % <= {most:.0e}" for dtype, (median, most) in AIMS.items()]
    missed = []
    for row in rows:
        for which in misses(row):
            figures, shown = _cell(row[which][OURS], 0), which.replace("_", " ")
            missed.append(f"missed: {row['layer']} {row['dtype']}, {REGIMES[row['regime']]}: {shown} {figures}")
    return lines + (missed or ["every aim is met"])

"""What has changed since an earlier JSON of `oracles verify` or `oracles check`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, inf, log10
from pathlib import Path

from oracles.report.compared import Json
from oracles.report.drawings import Tick
from oracles.report.matrix import Summary, point_summaries, summarize

_WIDTH, _EDGE = 220.0, 20.0


@dataclass(frozen=True)
class Change:
    """One layer, or one array and oracle, before and now.

    Attributes:
        label: what it is.
        before, now: the verdicts; "–" where it was not judged.
        changed: how the verdict has changed: "worse", "better", "new", "gone", or "" if it has not.
        ratio, detects: "before → now" as text.
        dots: where the worst error / tolerance lies on the common axis, before and now; ``None`` if it is 0 or unknown.
    """

    label: str
    before: str
    now: str
    changed: str
    ratio: str
    detects: str
    dots: tuple[float | None, float | None]


@dataclass(frozen=True)
class Trend:
    """All changes, those of a verdict first.

    Attributes:
        source: the earlier file's last line.
        changes: every layer, or array and oracle.
        ticks: of the axis of error / tolerance.
        width: of that axis.
        line: where error / tolerance is 1.
        sentence: how many verdicts have changed.
    """

    source: str
    changes: Sequence[Change]
    ticks: Sequence[Tick]
    width: float
    line: float
    sentence: str


def read_document(option: str, path: str) -> Json:
    """Return the results that an earlier run wrote with ``--json``.

    Raises:
        ValueError: if the file cannot be read, or holds anything else.
    """
    fix = "expected a file that oracles verify or oracles check wrote with --json"
    try:
        contents = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{option}: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"{option}: {path} is no JSON: {fix}") from error
    if not (isinstance(contents, dict) and "schema" in contents and isinstance(contents.get("results"), list)):
        raise ValueError(f"{option}: {path} has no results: {fix}")
    try:
        summaries(contents)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{option}: {path} has results of another form: {fix}") from error
    return contents


def summaries(document: Json) -> dict[str, Summary]:
    """Summarize a document: by layer, or by array and oracle."""
    if "layers" in document:
        found = {}
        for layer, verdict in document["layers"].items():
            summary = summarize(row for row in document["results"] if row["layer"] == layer)
            summary.refuses = verdict not in ("agrees", "inconclusive")
            summary.verdict = verdict
            found[layer] = summary
        return found
    return {", ".join(filter(None, key)): value for key, value in point_summaries(document["results"]).items()}


_RANKS = ("agrees", "kink", "inconclusive", "vacuous")


def trend(document: Json, earlier: Json) -> Trend:
    """Compare a document with an earlier one."""
    now, before = summaries(document), summaries(earlier)
    labels = list(dict.fromkeys([*now, *before]))
    ratios = [s.ratio for s in (*now.values(), *before.values()) if 0 < s.ratio < inf]
    first, last = floor(log10(min([*ratios, 0.1]))), ceil(log10(max([*ratios, 10.0])))

    def x(ratio: float) -> float:
        return _EDGE + (log10(ratio) - first) / (last - first) * (_WIDTH - 2 * _EDGE) if ratio < inf else _WIDTH - 2

    changes = [_change(label, before.get(label), now.get(label), x) for label in labels]
    order = ("worse", "better", "new", "gone", "")
    changes.sort(key=lambda change: order.index(change.changed))
    counts = [(name, sum(c.changed == name for c in changes)) for name in order[:-1]]
    parts = [f"{count} {name}" for name, count in counts if count]
    step = max(1, ceil((last - first) / 4))
    ticks = [Tick(x(10.0**p), f"1e{p}" if p else "1") for p in range(first, last + 1, step)]
    sentence = f"Verdicts: {', '.join(parts)}, the others as before." if parts else "No verdict has changed."
    return Trend(str(earlier.get("summary", "")), changes, ticks, _WIDTH, x(1.0), sentence)


def _change(label: str, before: Summary | None, now: Summary | None, x: Callable[[float], float]) -> Change:
    pair = (before, now)
    verdicts = [each.verdict if each else "–" for each in pair]
    ratios = [f"{each.ratio:.2g}" if each else "–" for each in pair]
    detects = [(f"{each.detects_above:.0e}" if each.detects_above else "exact") if each else "–" for each in pair]
    if before is None or now is None:
        changed = "gone" if now is None else "new"
    elif before.verdict == now.verdict:
        changed = ""
    else:
        changed = "worse" if _rank(now) > _rank(before) else "better"
    dots = tuple(x(each.ratio) if each and each.ratio else None for each in pair)
    return Change(label, verdicts[0], verdicts[1], changed, " → ".join(ratios), " → ".join(detects), (dots[0], dots[1]))


def _rank(summary: Summary) -> int:
    """Return how grave a verdict is: what refuses is worse than what does not."""
    return len(_RANKS) if summary.refuses else _RANKS.index(summary.verdict) if summary.verdict in _RANKS else 1


def counts_of(document: Json) -> Mapping[str, int]:
    """Return how many layers, or arrays and oracles, have each verdict."""
    found: dict[str, int] = {}
    for summary in summaries(document).values():
        found[summary.verdict] = found.get(summary.verdict, 0) + 1
    return found

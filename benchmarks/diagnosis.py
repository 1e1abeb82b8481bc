"""Count the diagnoses that are right, missing or misleading, over wrong subjects whose defect is known."""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # not this folder, where "oracles" would be a benchmark
sys.path[1:1] = [str(ROOT / "tests"), str(ROOT / "tests" / "judge")]

from oracles.environment import pin_threads  # noqa: E402

pin_threads()

import numpy as np  # noqa: E402

from benchmarks.shared import Row, positive_count, prepare_process  # noqa: E402
from oracles import Disagreement, check  # noqa: E402
from oracles.decision.judge import judge  # noqa: E402
from oracles.diagnosis.diagnose import diagnosis_of  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402
from oracles.properties import PROPERTIES  # noqa: E402
from oracles.rule import with_dtype  # noqa: E402
from oracles.strategies import point_at  # noqa: E402
from oracles.verdict import Result  # noqa: E402

GUIDE = """\
Every wrong subject whose defect is known is judged at its own point and at others: other values, shapes and dtypes. Of
each refusal the diagnosis is
  right       the id that is declared for the defect, or another that is true of it too ("no pattern" where none is
              declared)
  none        no pattern found
  misleading  any other id
Subjects: the bugs planted into manual_bp's operations, the pairs of subjects of any adapter, the bugs that the tests of
the diagnosis declare, and wrong layers as people write them, in NumPy, torch and JAX.
The exit status is 1 if any diagnosis is misleading."""

# The points of a wrong layer: (number of the shape, dtype). The first is its own.
POINTS = ((0, "float64"), (1, "float64"), (2, "float64"), (0, "float32"), (1, "float32"))
# More seeds at the own case of a planted bug.
SEEDS = (5, 6, 7)


@dataclass(frozen=True)
class Subject:
    """A wrong subject: the kind of its source, its name, the ids that are right, and its refusals at several points."""

    kind: str
    name: str
    pattern: str
    acceptable: tuple[str, ...]
    refusals: Callable[[], Iterator[tuple[str, Result | None]]]


def refusal_of(judged: Callable[[], Result]) -> Result | None:
    """Return the refusing result; ``None`` if the subject is accepted at this point."""
    try:
        result = judged()
    except Disagreement as refused:
        return refused.result
    return result if result.refuses else None


def third_party() -> Iterator[Subject]:
    """Yield the wrong layers as people write them."""
    import third_party as _  # noqa: F401
    from third_party.layers import WRONG_LAYERS

    def refusals(layer: Any) -> Iterator[tuple[str, Result | None]]:
        for seed, (shape, dtype) in enumerate(POINTS):
            drawn = {n: np.asarray(a) for n, a in layer.draw(np.random.default_rng(seed), shape).items()}
            primals = with_dtype(drawn, dtype)
            yield f"shape {shape}, {dtype}", refusal_of(partial(check, layer.wrong, primals, [layer.oracle]))

    for layer in WRONG_LAYERS:
        yield Subject("layers", layer.name, layer.pattern, layer.acceptable, partial(refusals, layer))


def declared() -> Iterator[Subject]:
    """Yield the bugs whose sentence the tests of the diagnosis declare."""
    from diagnosed_bugs import BUGS

    def refusals(layer: Any, name: str, wrong: Any) -> Iterator[tuple[str, Result | None]]:
        subject = layer.with_cotangents(**{name: wrong})
        only = partial(judge, oracles=[layer.oracle], only=[name], kinks="declared")
        yield "own", refusal_of(partial(only, subject, layer.primals, layer.delta))
        for seed in (1, 2):
            rng = np.random.default_rng(seed)
            parts = layer.delta if isinstance(layer.delta, tuple) else (layer.delta,)
            drawn = tuple(np.asarray(rng.standard_normal(np.shape(d))) for d in parts)
            delta = drawn if isinstance(layer.delta, tuple) else drawn[0]
            yield f"delta {seed}", refusal_of(partial(only, subject, layer.primals, delta))

    for i, (pattern, _, layer, name, wrong, _) in enumerate(BUGS):
        if pattern != "missing":  # the judge reports that no gradient is claimed
            yield Subject("declared", f"{i} {pattern}", pattern, (), partial(refusals, layer, name, wrong))


def planted() -> Iterator[Subject]:
    """Yield the bugs planted into the operations of manual_bp."""
    from planted_bugs.planting import BUGS

    def at(case: Any, by: str, dtype: str, seed: int) -> Result:
        point, oracles = point_at(case.subject, case.primals, dtype, seed=seed), case.oracles()
        if by != "primal_agrees":
            result = judge(case.subject, point.primals, point.delta, oracles, kinks="declared")
            if result.refuses:
                return result
        return PROPERTIES[by](case, point, oracles)

    def refusals(bug: Any) -> Iterator[tuple[str, Result | None]]:
        case = bug.with_bug(bug.example)
        for dtype in bug.dtypes:
            for seed in SEEDS:
                yield f"seed {seed}, {dtype}", refusal_of(partial(at, case, bug.refused_by, dtype, seed))

    for bug in BUGS:
        yield Subject("planted", f"{bug.cases}-{bug.name}", bug.pattern, bug.acceptable, partial(refusals, bug))


def pairs() -> Iterator[Subject]:
    """Yield the pairs that declare a pattern."""
    from planted_bugs.pairs import POINT_PAIRS

    def refusals(pair: Any) -> Iterator[tuple[str, Result | None]]:
        for seed in (0, 1, 2):
            yield (
                f"seed {seed}",
                refusal_of(partial(check, pair.wrong, pair.at, pair.against, **{"seed": seed, **pair.options})),
            )

    for pair in POINT_PAIRS:
        if pair.pattern is not None:
            yield Subject("pairs", pair.name, pair.pattern, (), partial(refusals, pair))


SOURCES: dict[str, Callable[[], Iterator[Subject]]] = {
    "layers": third_party,
    "declared": declared,
    "planted": planted,
    "pairs": pairs,
}


def subjects(kinds: Sequence[str], chosen: str = "") -> list[Subject]:
    """Return the subjects of some kinds whose names contain a text."""
    return [s for kind in kinds for s in SOURCES[kind]() if chosen in s.name]


def diagnose_all(subject: Subject, most: int = 10**6) -> list[Row]:
    """Return a row for each point of a subject at which it is refused."""
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for where, result in subject.refusals():
            if result is None:
                continue
            start = time.perf_counter()
            diagnosis = diagnosis_of(result)
            right = diagnosis.pattern in (subject.pattern, *subject.acceptable)
            outcome = "right" if right else "misleading" if diagnosis else "none"
            rows.append(
                {
                    "kind": subject.kind, "name": subject.name, "expected": subject.pattern, "at": where,
                    "pattern": diagnosis.pattern, "text": diagnosis.text, "outcome": outcome,
                    "seconds": time.perf_counter() - start,
                }
            )  # fmt: skip
            if len(rows) == most:
                break
    return rows


def _rows_of(kinds: tuple[str, ...], chosen: str, most: int, index: int) -> list[Row]:
    return diagnose_all(subjects(kinds, chosen)[index], most)


OUTCOMES = ("right", "none", "misleading")


def table(rows: Sequence[Row]) -> str:
    """Return the counts for each declared pattern, and for each kind of subjects."""
    lines = []
    for key in ("expected", "kind"):
        lines.append(f"{key:<28}" + "".join(f"{o:>12}" for o in OUTCOMES))
        for value in sorted({row[key] for row in rows}):
            counts = Counter(row["outcome"] for row in rows if row[key] == value)
            lines.append(f"{value or '(none)':<28}" + "".join(f"{counts[o]:>12}" for o in OUTCOMES))
        lines.append("")
    counts = Counter(row["outcome"] for row in rows)
    shares = ", ".join(f"{counts[o]} {o} ({counts[o] / max(1, len(rows)):.1%})" for o in OUTCOMES)
    slowest = max((row["seconds"] for row in rows), default=0.0)
    return "\n".join([*lines, f"{len(rows)} refusals: {shares}; the slowest diagnosis took {slowest:.1f} s"])


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=SOURCES, default=list(SOURCES), help="the kinds of subjects")
    parser.add_argument("--subjects", default="", metavar="TEXT", help="only subjects whose name contains this")
    parser.add_argument("--points", type=positive_count, default=10**6, help="at most so many refusals of a subject")
    parser.add_argument("--jobs", type=positive_count, default=2, help="processes")
    parser.add_argument("--all", action="store_true", help="list every diagnosis, not only those that are not right")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge and diagnose; print the table, and every diagnosis that is not right."""
    options = parse(arguments)
    chosen = subjects(options.kinds, options.subjects)
    one = partial(_rows_of, tuple(options.kinds), options.subjects, options.points)
    rows: list[Row] = []
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), prepare_process) as pool:
        for batch in pool.map(one, range(len(chosen)), chunksize=4):
            rows += batch
    for row in rows:
        if options.all or row["outcome"] != "right":
            print(f"{row['outcome']:<11}{row['kind']}: {row['name']} ({row['at']})")
            print(f"           expected {row['expected'] or 'none'}, {row['pattern'] or 'none'}: {row['text']}")
    print(table(rows))
    if options.json:
        write_atomically(options.json, json.dumps(rows, indent=1))
    return int(any(row["outcome"] == "misleading" for row in rows))


if __name__ == "__main__":
    sys.exit(main())

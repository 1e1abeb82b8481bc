"""Measure the JAX oracle against torch's, on a shape that it has not traced yet and on one that it has."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import hypothesis
import jax.numpy  # noqa: F401  (its imports are not what is measured)
import numpy as np

from benchmarks.shared import Row
from oracles.backends.jax_reference import jax_vjp
from oracles.backends.torch_reference import torch_autograd
from oracles.registry import Case, Entry, entries
from oracles.rule import Rule, as_tuple
from oracles.strategies import Point, point_at

MOST_OF_TORCH = 3.0
HEAD = f"{'layer':<28}examples   torch us   first us    / torch    again us   / torch  traces  compiled"


def draw_examples(entry: Entry, count: int) -> list[tuple[Case, Point]]:
    """Draw cases of an entry that both frameworks have a reference for, each with a point; repeat them if few."""
    examples: list[tuple[Case, Point]] = []

    @hypothesis.seed(0)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(entry.cases)
    def draw(case: Case) -> None:
        if case.torch is not None and case.jax is not None:
            examples.append((case, point_at(case.subject, case.primals, "float64", seed=1 + len(examples))))

    draw()
    cycle = itertools.islice(itertools.cycle(examples), len(examples), count) if examples else ()
    again = [
        (case, point_at(case.subject, case.primals, "float64", seed=count + i)) for i, (case, _) in enumerate(cycle)
    ]
    return (examples + again)[:count]


def seconds(rule: Rule, point: Point, pullback: bool) -> float:
    """Return the processor seconds of one evaluation: other processes do not count."""
    start = time.process_time()
    y, pull = rule(**point.primals)
    if pullback and any(np.asarray(part).dtype.kind == "f" for part in as_tuple(y)):
        pull(point.delta)
    return time.process_time() - start


def compare(entry: Entry, count: int) -> Row | None:
    """Time both oracles on the same examples, JAX's twice; None where one of them has no reference.

    The first evaluation traces most shapes, the second none. The target is the second's.
    """
    examples = draw_examples(entry, count)
    if not examples:
        return None
    rules = [{rule.runtime.value: rule for rule in case.oracles()} for case, _ in examples]
    used = {id(rule.evaluate): rule.evaluate for by_name in rules for rule in by_name.values()}
    before = _counts(used.values())
    gc.collect()
    times: dict[str, float] = dict.fromkeys(("torch", "first", "again"), 0.0)
    for rule, (_, point) in zip(rules, examples, strict=True):
        for column, framework in (("torch", "torch"), ("first", "jax"), ("again", "jax")):
            times[column] += seconds(rule[framework], point, entry.pullback)
    traces, compiled = (now - then for now, then in zip(_counts(used.values()), before, strict=True))
    ratio = times["again"] / times["torch"]
    return {
        "layer": entry.name,
        "examples": len(examples),
        "microseconds": {column: 1e6 * total / len(examples) for column, total in times.items()},
        "ratio_first": times["first"] / times["torch"],
        "ratio": ratio,
        "traces": traces,
        "compilations": compiled,
        "target": MOST_OF_TORCH,
        "met": ratio <= MOST_OF_TORCH,
    }


def _counts(evaluations: Any) -> tuple[int, int]:
    each = [(getattr(e, "traces", 0), getattr(e, "compilations", 0)) for e in evaluations]
    return sum(t for t, _ in each), sum(c for _, c in each)


def line(row: Row) -> str:
    """Return a row of the table; a ratio that misses its target is marked with !."""
    times, mark = row["microseconds"], "" if row["met"] else "!"
    return (
        f"{row['layer']:<28}{row['examples']:>8}{times['torch']:>11.0f}{times['first']:>11.0f}{row['ratio_first']:>11.2f}"
        f"{times['again']:>12.0f}{row['ratio']:>10.2f}{mark:<1}{row['traces']:>7}{row['compilations']:>10}"
    )


def rows(count: int, names: Sequence[str] = ()) -> Iterator[Row]:
    """Compare the oracles on every registered layer, or on those named."""
    warm_up()
    for entry in entries(names):
        row = compare(entry, count)
        if row is not None:
            yield row


def warm_up() -> None:
    """Negate a number in both frameworks, so that their late imports are done; exclude them from garbage collection."""
    for rule in (torch_autograd(lambda z: -z), jax_vjp(lambda z: -z)):
        rule(z=np.ones(1))[1](np.ones(1))
    gc.collect()
    gc.freeze()

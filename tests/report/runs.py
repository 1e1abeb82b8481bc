"""Runs of `oracles verify` without the searches: rows, refusals, coverage; names that a page must not obey."""

import numpy as np

from oracles.cli.verify_report import Report, Row
from oracles.coverage import Coverage

# Names that a page must show and not obey.
HOSTILE = "</script><script>window.obeyed = 1</script>"
MARKUP = '<img src=http://e.invalid onerror="window.obeyed=2">\'{{7*7}}'


def forward(z, W, b):
    return z @ W + b, (z, W)


def backward(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta.mean(axis=0, keepdims=True)}


def reference(z, W, b):
    return z @ W + b


def primals(n_rows=4, n=3, m=2):
    rng = np.random.default_rng(0)
    return {
        "z": rng.standard_normal((n_rows, n)),
        "W": rng.standard_normal((n, m)),
        "b": rng.standard_normal((1, m)),
    }


def row(layer, name="cotangents_agree", dtype="float64", oracle="torch", verdict="agrees", vacuous=0, **changes):
    values = {"worst_ratio": 0.5, "detects_above_median": 1e-13 if dtype == "float64" else 1e-6}
    values |= {"points": [(0.5, 1e-13, False), (0.0, 1e-14, False), (0.25, 0.0, False)]} | changes
    worst = values["detects_above_median"]
    return Row(
        layer, name, oracle, dtype, verdict, 30, seconds=1.0, vacuous=vacuous, detects_above_worst=worst, **values
    )


def coverage():
    drawn = Coverage(points=30, shapes={1, 2, 3}, largest={"z": [1025, 8]}, magnitudes=(1e-3, 1e4), deltas=(1e-8, 1e5))
    drawn.extents.update({1: 3, 4: 10, 1024: 2})
    drawn.decades.update({-3: 5, 4: 2})
    drawn.counts["ties"] = 4
    return drawn


def report(rows, failures=()):
    layers = [each.layer for each in rows]
    return Report(rows, list(failures), (), coverage={layer: coverage() for layer in layers}, seconds=3.0)

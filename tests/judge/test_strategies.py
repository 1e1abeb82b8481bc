"""Strategies: shapes shrink, values vary, every layout and special value is drawn."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from oracles.adapters.functions import manual
from oracles.registry import entries
from oracles.strategies import LAYOUTS, indices, laid_out, point_at, points, probabilities, real, rows, widths

IDENTITY = manual(lambda z: (z.copy(), None), lambda cache, delta: {"z": delta.copy()}, name="identity")


@st.composite
def any_point(draw, dtype="float64"):
    return draw(points(IDENTITY, {"z": real(draw(rows()), draw(widths()))}, dtype))[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_preserve_the_values(layout):
    array = np.arange(12.0).reshape(3, 4)
    laid = laid_out(array, layout)
    assert laid.shape == array.shape
    expected = np.broadcast_to(array[:1], array.shape) if layout == "repeated" else array
    assert np.array_equal(laid, expected)
    assert {
        "C": laid.flags.c_contiguous,
        "F": laid.flags.f_contiguous,
        "strided": laid.strides[-1] == 16,
        "reversed": laid.strides[0] < 0,
        "read-only": not laid.flags.writeable,
        "repeated": laid.strides[0] == 0,
    }[layout]
    for small in (np.array(2.0), np.zeros((0, 3)), np.zeros(1)):
        assert laid_out(small, layout).shape == small.shape


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_drawn(layout):
    assert find(any_point(), lambda p: p.layout == layout).layout == layout


@pytest.mark.parametrize(
    "expected",
    [
        lambda z: z.shape[0] == 0,
        lambda z: z.shape[1] == 1,
        lambda z: bool(np.any((z == 0) & np.signbit(z))),
        lambda z: bool(np.any((z == 0) & ~np.signbit(z))),
        lambda z: z.size > 1 and len(np.unique(z)) < z.size,
        lambda z: bool(np.any(np.abs(z) >= 1e4)),
        lambda z: bool(np.any((z != 0) & (np.abs(z) < np.finfo(float).smallest_normal))),
    ],
    ids=["no rows", "width one", "-0.0", "0.0", "tie", "huge", "subnormal"],
)
def test_special_inputs_are_drawn(expected):
    result = find(any_point(), lambda p: expected(p.primals["z"]), settings=settings(max_examples=3000))
    assert expected(result.primals["z"])


def test_a_point_shrinks_to_small_dims_and_tidy_values():
    result = find(any_point(), lambda p: p.primals["z"].shape[0] >= 3 and p.primals["z"].shape[1] >= 2)
    assert result.primals["z"].tolist() == [[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]]
    assert result.layout == "C"


@given(any_point())
def test_delta_is_signed_and_fits_the_output(point):
    assert point.delta.shape == point.primals["z"].shape
    assert point.delta.dtype == np.float64


def test_a_seeded_point_has_distinct_values():
    point = point_at(IDENTITY, {"z": real(64, 64)}, "float64", seed=7)
    assert len(np.unique(point.primals["z"])) == 64 * 64


def test_kinds_of_primals():
    specifications = {"z": real(3, 4), "p": probabilities(3, 4), "i": indices(5, below=2)}
    subject = manual(lambda z, p, i: (z + p, None), lambda c, d: {})
    for seed in range(4):
        point = point_at(subject, specifications, "float32", seed=seed).primals
        assert point["p"].dtype == point["z"].dtype == np.float32
        assert np.all(point["p"] >= 0)
        assert np.all(np.abs(point["p"].sum(1) - 1) <= 4 * np.finfo(np.float32).eps)
        assert point["i"].dtype.kind == "i"
        assert set(point["i"].tolist()) <= {0, 1}


DIGEST = """
import hashlib, numpy as np
from oracles.registry import entries
from oracles.rule import as_tuple
from oracles.strategies import point_at
from hypothesis import given, settings, seed, Phase, HealthCheck
total = hashlib.sha256()
for entry in entries():
    @seed(1)
    @settings(max_examples=5, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(entry.cases)
    def evaluate(case):
        point = point_at(case.subject, case.primals, "float32", seed=5)
        y, pullback = case.subject(**point.primals)
        for array in (*as_tuple(y), *pullback(point.delta).values()):
            total.update(np.asarray(array).tobytes())
    evaluate()
print(total.hexdigest())
"""


def test_from_a_fresh_process_the_same_bits():
    assert entries()
    runs = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        ).stdout
        for _ in range(2)
    }
    assert len(runs) == 1
    assert len(runs.pop().strip()) == 64

"""Strategies: shapes shrink, values vary, every layout and special value is drawn."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from oracles.adapters.functions import manual
from oracles.coverage import Coverage
from oracles.extents import SHORT, LongAxes, Schedule, boundary_sizes, drawing, ladder, shorter, tile_sizes
from oracles.registry import Case, entries
from oracles.rule import InvalidInput
from oracles.search import run_search
from oracles.strategies import (
    LAYOUTS,
    booleans,
    indices,
    laid_out,
    point_at,
    points,
    probabilities,
    real,
    rows,
    widths,
)

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


def special_points(drawn, dtype="float64", count=400):
    """Return points with special values of a subject that adds its primals."""
    subject = manual(lambda **primals: (sum(primals.values()), None), lambda cache, delta: {})
    return [point_at(subject, drawn, dtype, seed=seed, special=True) for seed in range(1, count)]


@pytest.mark.parametrize(
    "expected",
    [
        lambda p, q: np.array_equal(p, q),
        lambda p, q: p is q,
        lambda p, q: 0 < np.count_nonzero(p == q) < p.size,
        lambda p, q: bool(np.any(np.sum(p == p.max(-1, keepdims=True), -1) == 3)),
        lambda p, q: bool(np.all(2 * p % 1 == 0)) and bool(np.any(p % 1 == 0.5)),
        lambda p, q: bool(np.any((p == 0) & np.signbit(p))),
    ],
    ids=["equal primals", "one array", "equal in part", "tie of three", "half-integers", "-0.0"],
)
def test_special_primals_are_drawn_for_each_point(expected):
    drawn = special_points({"p": real(3, 4), "q": real(3, 4)})
    share = sum(expected(*point.primals.values()) for point in drawn) / len(drawn)
    assert 0.02 < share < 0.6


def test_a_smaller_primal_is_copied_into_a_larger_one():
    drawn = special_points({"p": real(3, 4), "q": real(1, 4)})
    assert any(np.array_equal(p.primals["p"], np.broadcast_to(p.primals["q"], (3, 4))) for p in drawn)


@pytest.mark.parametrize(
    "expected",
    [
        lambda d: 0 < np.max(np.abs(d)) < 1e-6,
        lambda d: np.max(np.abs(d)) > 1e5,
        lambda d: 0 < np.count_nonzero(d == 0) < d.size // 2,
        lambda d: d.size // 2 < np.count_nonzero(d == 0) < d.size,
        lambda d: bool(np.any(~np.any(d, axis=1))) and bool(np.any(d)),
    ],
    ids=["tiny", "large", "some zeros", "most zeros", "a row of zeros"],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_special_cotangents_are_drawn_for_each_point(expected, dtype):
    drawn = [np.asarray(point.delta) for point in special_points({"z": real(3, 4)}, dtype)]
    assert {d.dtype.name for d in drawn} == {dtype}
    assert 0.002 < sum(expected(d) for d in drawn) / len(drawn) < 0.5


@pytest.mark.parametrize("shape", [(), (1,), (2, 1)])
def test_no_cotangent_is_zero_everywhere(shape):
    drawn = [np.asarray(point.delta) for point in special_points({"z": real(*shape)})]
    assert all(map(np.any, drawn))
    assert any(np.max(np.abs(d)) < 1e-6 for d in drawn)


def test_infinite_entries_are_drawn_only_where_they_are_allowed():
    drawn = special_points({"p": real(3, 4, infinite="rows"), "q": real(3, 4)})
    assert not any(
        np.any(np.isinf(point.primals["q"])) for point in drawn if point.primals["p"] is not point.primals["q"]
    )
    rows_of = [np.isneginf(point.primals["p"]) for point in drawn]
    assert any(np.any(each) and not np.any(each.all(-1)) for each in rows_of)
    assert any(np.any(each.all(-1)) for each in rows_of)


@pytest.mark.parametrize("shape", [(3, 4), (4, 1), (2, 3, 2), ()])
def test_no_line_is_infinite_where_entries_may_be(shape):
    drawn = [np.isneginf(point.primals["z"]) for point in special_points({"z": real(*shape, infinite="entries")})]
    assert not any(np.any(each.all(axis)) for each in drawn for axis in range(each.ndim))
    assert any(map(np.any, drawn)) == (1 not in shape and shape != ())


def test_seed_0_has_nothing_special():
    point = point_at(IDENTITY, {"z": real(2, 2)}, "float64", seed=0, special=True)
    assert point.primals["z"].tolist() == [[1, -1], [2, -2]]
    assert np.all(point.delta != 0)


def test_some_rows_of_a_mask_are_all_false():
    rng = np.random.default_rng(0)
    mask = booleans(400, 8, true=0.6).sample(rng, "float64", 1.0)
    assert 0.05 < np.mean(~mask.any(-1)) < 0.25
    assert booleans(50, 8, true=1.0).sample(rng, "float64", 1.0).all()


def test_the_ladder_gives_every_boundary_size_to_every_axis():
    steps = list(ladder(3, {1: (48,)}))
    for call in range(3):
        sizes = {size for step in steps for c, size in step.extents if c == call}
        assert sizes >= set(boundary_sizes())
    assert steps[0] == LongAxes(((1, 49),))
    assert boundary_sizes()[0] == 15
    assert boundary_sizes()[-1] == 1025
    assert list(ladder(0, {})) == []


def test_sizes_around_every_block_come_first_on_one_axis_at_a_time():
    sizes = tile_sizes((48, 64))
    assert set(sizes) == {47, 48, 49, 72, 96, 97, 63, 64, 65, 128, 129}
    first = list(ladder(2, {}, (48, 64)))[: 2 * len(sizes)]
    assert sorted(step.extents for step in first) == sorted(((call, size),) for call in range(2) for size in sizes)
    assert next(ladder(2, {}, ())) not in first


@pytest.mark.parametrize("blocks", [(1,), (0,), (64.0,), "64", 64, ("64",)])
def test_blocks_are_whole_numbers(blocks):
    with pytest.raises(ValueError, match="blocks: expected whole numbers"):
        Case(squared([]), {}, blocks=blocks)


@pytest.mark.parametrize("declared", ["case", "search"])
def test_a_search_tries_every_size_around_two_tiles(declared):
    shapes: list[tuple[int, ...]] = []
    tiles = {"blocks": (48, 100)}
    cases = square_cases(squared(shapes)).map(
        lambda case: Case(case.subject, case.primals, case.torch, **(tiles if declared == "case" else {}))
    )
    options = tiles if declared == "search" else {}
    tally = run_search(cases, "cotangents_agree", "float64", max_examples=60, seed=0, **options)
    assert tally.points == 60
    for axis in (0, 1):
        assert {shape[axis] for shape in shapes} >= set(tile_sizes((48, 100)))


def test_a_long_extent_replaces_a_short_one_within_its_bound():
    extents = st.tuples(widths(), widths(4), widths(40), rows())

    def drawn(long):
        with drawing(long) as calls:
            return find(extents, lambda _: True), calls.number

    assert drawn(SHORT)[0] == (1, 1, 1, 1)
    with drawing(LongAxes(((0, 65),))):
        result = []

        @settings(max_examples=1, database=None)
        @given(extents)
        def keep(each):
            result.append(each)

        keep()
    assert result[0] == (65, 1, 1, 1)


def test_a_ticket_keeps_its_slot_and_all_points_are_distributed():
    schedule = Schedule(60, 0.35)
    tickets = [bytes([1, 0, i // 256, i % 256]) for i in range(schedule.examples)]
    slots = [schedule.take(ticket) for ticket in tickets]
    assert sum(slot.points for slot, _ in slots) == 60
    assert all(is_new for _, is_new in slots)
    assert [schedule.take(ticket) for ticket in tickets] == [(slot, False) for slot, _ in slots]
    assert schedule.take(bytes(4))[0].long == SHORT


def test_shorter_axes_are_tried_before_the_failing_ones():
    tried = shorter(LongAxes(((0, 33), (1, 17))))
    assert tried[0] == SHORT
    assert tried[-1] == LongAxes(((0, 33), (1, 17)))
    assert LongAxes(((0, 17),)) in tried
    assert all(dict(each.extents).get(0, 0) <= 33 and dict(each.extents).get(1, 0) <= 17 for each in tried)


@st.composite
def square_cases(draw, subject):
    return Case(subject, {"z": real(draw(rows()), draw(widths()))}, lambda z: z * z)


def squared(shapes):
    """Return z², which notes the shapes that it is given."""

    def forward(z):
        shapes.append(z.shape)
        return z * z, z

    return manual(forward, lambda z, delta: {"z": 2 * z * delta}, name="square")


def test_a_search_of_60_points_covers_the_ladder_and_reports_it():
    shapes: list[tuple[int, ...]] = []
    tally = run_search(square_cases(squared(shapes)), "cotangents_agree", "float64", max_examples=60, seed=0)
    sizes = {2**power + summand for power in range(4, 11) for summand in (0, 1)}
    assert tally.points == 60
    assert {shape[1] for shape in shapes} >= sizes
    assert {shape[0] for shape in shapes} >= sizes
    covered = tally.coverage.to_json()
    assert covered["points"] == 60
    assert covered["shapes"] >= 25
    assert covered["largest"] == {"z": [1025, 1025]}
    assert set(covered["layouts"]) == set(LAYOUTS)
    for kind in ("ties", "-0.0", "zeros in delta"):
        assert covered["counts"][kind] > 0
    assert covered["deltas"][0] < 1e-6
    assert covered["deltas"][1] > 1e4


def test_a_seed_reproduces_a_search():
    runs: list[list[tuple[int, ...]]] = [[], []]
    for shapes in runs:
        run_search(square_cases(squared(shapes)), "cotangents_agree", "float64", max_examples=30, seed=7)
    assert runs[0] == runs[1]


def test_coverage_counts_what_a_point_has():
    subject = manual(lambda p, q: (p + q, None), lambda cache, delta: {})
    case = Case(subject, {"p": real(2), "q": real(2)})
    shared = np.array([-0.0, -np.inf])
    point = point_at(subject, case.primals, "float64", seed=1)
    special = type(point)({"p": shared, "q": shared}, np.array([0.0, 2.0]), "float64", "F")
    coverage, other = Coverage(), Coverage()
    coverage.add(case, point)
    other.add(case, special)
    assert not any(coverage.counts.values())
    assert {name for name, number in other.counts.items() if number} == {
        "ties between primals",
        "shared arrays",
        "-0.0",
        "-inf",
        "zeros in delta",
    }
    assert other.deltas == (2.0, 2.0)
    coverage.merge(other)
    assert coverage.points == 2
    assert coverage.largest == {"p": [2], "q": [2]}
    assert len(coverage.shapes) == 1


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


@pytest.mark.parametrize("strategy", [rows, widths])
@pytest.mark.parametrize("most", [1, 0, -3, 2.5])
def test_an_axis_of_at_most_one_entry_is_invalid(strategy, most):
    with pytest.raises(InvalidInput, match=f"{strategy.__name__}: most: expected the largest extent"):
        strategy(most)
    strategy(2)

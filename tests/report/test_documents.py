"""What JSON holds for a page: the points of searches, a refused array entry by entry, and what was drawn."""

import json
import os
import sys
from math import inf, isinf, nan, prod
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import HOSTILE, primals, reference, report, row

import oracles
from oracles.constants import DOCUMENT_SCRIPT, SHOWN_EXTENT
from oracles.coverage import Coverage
from oracles.report.compared import Compared, entries_document
from oracles.report.disagreement import SCHEMA, to_text
from oracles.strategies import Point, real
from oracles.tally import Tally
from oracles.verdict import Evidence, Finding, Result, Verdict

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def compared(actual, expected, tolerance=1.0, radius=0.0, shows=True):
    oracle = oracles.Rule(lambda **p: None, "torch")
    actual, expected = np.asarray(actual), np.asarray(expected, np.float64)
    return Compared("z", oracle, actual, expected, np.full(expected.shape, tolerance), radius, shows)


@given(VALUES)
def test_lists_on_one_line_are_the_same_json(value):
    assert json.loads(to_text({"value": value})) == {"value": value}


def test_a_list_of_numbers_is_one_line():
    text = to_text({"points": [1.5, "inf", None], "rows": [{"a": [1, 2]}]})
    assert '"points": [1.5, "inf", null]' in text
    assert '"a": [1, 2]' in text


def test_a_refusal_has_its_array_its_script_and_its_report(disagreement):
    document = json.loads(disagreement.to_json())
    assert document["schema"] == SCHEMA == 2
    assert document["script"] == disagreement.script()
    assert document["text"] == str(disagreement)
    entries = document["entries"]
    assert (entries["quantity"], entries["oracle"]) == ("b", "torch")
    assert (entries["shape"], entries["grid"], entries["block"], entries["index"]) == ([1, 2], [1, 2], [1, 1], [0, 1])
    ratios = [
        abs(s - e) / t for s, e, t in zip(*(entries[k] for k in ("subject", "expected", "tolerance")), strict=True)
    ]
    assert ratios == entries["ratio"]
    assert min(ratios) > 1
    quotients = {round(s / e, 12) for s, e in zip(entries["subject"], entries["expected"], strict=True)}
    assert quotients == {0.25}


def test_what_is_long_is_left_out(monkeypatch, disagreement):
    assert len(disagreement.script()) <= DOCUMENT_SCRIPT
    monkeypatch.setattr("oracles.report.disagreement.DOCUMENT_SCRIPT", 10)
    assert disagreement.document()["script"] == ""


@pytest.mark.parametrize("leave", [lambda status: sys.exit(status), lambda status: os._exit(status)])
def test_a_subject_that_would_end_the_process_has_a_document(leave):
    subject = oracles.manual(lambda **_: leave(0), lambda cache, delta: {})
    with pytest.raises(oracles.Disagreement) as refused:
        oracles.check(subject, primals(), against=[oracles.torch_autograd(reference)])
    document = refused.value.document()
    assert document["entries"] is None
    assert "call the subject with these" in document["script"]


def test_a_right_subject_has_no_entries():
    assert entries_document(None) is None
    assert entries_document(compared([1.0], [1.0], shows=False)) is None
    assert entries_document(compared([1.0], [[1.0]])) is None
    assert entries_document(compared(np.zeros((0, 3)), np.zeros((0, 3)))) is None
    assert entries_document(compared(["a"], [1.0])) is None


@pytest.mark.parametrize(
    ("actual", "expected", "ratio"),
    [(1.0, 1.0, 0.0), (3.0, 1.0, 2.0), (nan, 1.0, "inf"), (inf, inf, 0.0), (inf, 1.0, "inf"), (1.0, nan, "inf")],
)
def test_the_ratio_of_an_entry(actual, expected, ratio):
    entries = entries_document(compared(actual, expected))
    assert entries["ratio"] == [ratio]
    assert entries["grid"] == [1, 1]
    json.dumps(entries, allow_nan=False)


def test_an_array_of_bfloat16_and_one_of_complex_numbers():
    assert entries_document(compared(np.array([3.0], ml_dtypes.bfloat16), [1.0]))["ratio"] == [2.0]
    assert entries_document(compared(np.array([3.0j]), [1.0])) is None


def test_the_radius_of_an_oracle_counts():
    assert entries_document(compared(3.0, 1.0, radius=1.0))["ratio"] == [1.0]
    assert entries_document(compared(3.0, 1.0, radius=1.0))["tolerance"] == [2.0]


@pytest.mark.parametrize(
    "shape", [(), (1,), (5,), (33,), (1000,), (3, 2, 4), (32, 32), (33, 70), (2000, 1), (1025, 1025)]
)
def test_a_grid_is_small_and_keeps_the_worst_entries(shape):
    rng = np.random.default_rng(1)
    expected = rng.standard_normal(shape)
    worst = int(rng.integers(expected.size))
    actual = np.array(expected)
    actual.reshape(-1)[worst] += 5
    entries = entries_document(compared(actual, expected))
    rows, columns = entries["grid"]
    assert rows <= SHOWN_EXTENT
    assert columns <= SHOWN_EXTENT
    assert rows * columns == len(entries["index"]) == len(entries["ratio"]) == len(entries["subject"])
    at = int(np.argmax(entries["ratio"]))
    assert entries["index"][at] == worst
    assert entries["subject"][at] == actual.reshape(-1)[worst]
    assert sorted(set(entries["index"])) == sorted(entries["index"])
    if entries["block"] == [1, 1]:
        assert entries["index"] == list(range(prod(shape)))


def finding(oracle, ratio, detects=0.0, verdict=Verdict.AGREES, refuses=False, **evidence):
    return Finding("z", oracle, verdict, refuses, ratio, detects, Evidence(**evidence))


def test_a_tally_keeps_every_conclusive_point():
    tally = Tally()
    refused = finding("torch", 9.0, 0.0, Verdict.WRONG, True, oracles={"torch": -2.0}, tolerance=1e-3)
    for findings in (
        (finding("torch", 0.5, 1e-15), finding("torch", 0.75, 1e-14), finding("jax", 0.0)),
        (finding("torch", 0.0, 0.0, Verdict.VACUOUS),),
        (finding("torch", 0.5, 1e-15), refused),
    ):
        tally.add(Result("s", "cotangents_agree", findings))
    assert tally.ratios == {"torch": [(0.75, 1e-14, False), (9.0, 5e-4, True)], "jax": [(0.0, 0.0, False)]}
    assert tally.vacuous == {"torch": 1}


def test_points_are_lists_of_three_digits():
    points = [(1 / 3, 2e-15 / 3, False), (inf, 0.0, True)]
    document = report([row("Linear", points=points)]).document(7)
    assert document["schema"] == SCHEMA
    assert document["results"][0]["points"] == {"ratio": [0.333, "inf"], "tolerance": [6.67e-16, 0.0], "refused": [1]}
    json.dumps(document, allow_nan=False)


def test_a_failure_has_its_search_and_its_report(refused):
    first, *others = refused["failures"]
    assert (first["layer"], first["property"], first["dtype"]) == (HOSTILE, "cotangents_agree", "float64")
    assert first["report"]["verdict"] == "wrong"
    assert {each["report"] for each in others} == {None}
    json.dumps(refused, allow_nan=False)


def test_what_was_drawn_is_counted_by_extent_and_by_power_of_ten(refused):
    drawn = refused["coverage"]["Linear"]
    assert drawn["extents"] == {"1": 3, "4": 10, "1024": 2}
    assert drawn["decades"] == {"-3": 5, "4": 2}


def point_of(*shape, largest=1.0):
    values = np.full(shape, largest)
    return Point({"z": values}, np.ones(shape), "C")


def test_coverage_counts_the_longest_axis_and_the_largest_value():
    case = oracles.Case(oracles.Rule(lambda z: z, "s"), {"z": real(2, 3)})
    drawn, other = Coverage(), Coverage()
    for shape, largest in (((2, 3), 9.99), ((3, 2), -2e4), ((0, 4), 1.0), ((), 0.5), ((1025, 1), 0.0), ((0,), 1.0)):
        drawn.add(case, point_of(*shape, largest=largest))
    assert dict(drawn.extents) == {2: 2, 4: 1, 1: 1, 1024: 1, 0: 1}
    assert dict(drawn.decades) == {0: 1, 4: 1, -1: 1}
    other.add(case, point_of(2, 2))
    drawn.merge(other)
    assert drawn.to_json()["extents"] == {"0": 1, "1": 1, "2": 3, "4": 1, "1024": 1}
    assert drawn.to_json()["decades"] == {"-1": 1, "0": 2, "4": 1}


def test_every_key_is_documented(refused):
    text = (Path(__file__).parents[2] / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    row, failure, drawn = refused["results"][0], refused["failures"][0], refused["coverage"]["Linear"]
    for keys in (refused, row, row["points"], failure, failure["report"], failure["report"]["entries"], drawn):
        assert [key for key in keys if f"`{key}`" not in text] == []


def test_agreement_has_neither_entries_nor_script():
    rule = oracles.manual(lambda z, W, b: (z @ W + b, (z, W)), _right)
    result = oracles.check(rule, primals(), against=[oracles.torch_autograd(reference)])
    assert not result.refuses
    assert all(not isinf(f.relative_tolerance) for f in result.findings)


def _right(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}

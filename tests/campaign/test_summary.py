"""What is counted of records, and what status, report and page show of it."""

import json
import re

import pytest
from campaigns import ABOUT, PLAN, ROOT, example, record

from oracles.campaign.coverage_documents import coverage_document, coverage_of
from oracles.campaign.locations import open_store
from oracles.campaign.page import campaign_page, progress_drawing
from oracles.campaign.store import StoreFailed
from oracles.campaign.summary import PROGRESS, summary
from oracles.campaign.units import Lease
from oracles.cli.campaign_report import in_words, report_lines, status_lines
from oracles.coverage import Coverage
from oracles.report.disagreement import to_text


@pytest.fixture
def empty(tmp_path):
    store = open_store(str(tmp_path))
    store.open_plan(PLAN, ABOUT)
    yield store
    store.close()


@pytest.fixture
def document(empty):
    """Two workers, one failure in two units, one unit leased again, and coverage."""
    coverage = Coverage(points=4, shapes={(("z", (3, 2)),)}, largest={"z": [3, 2]}, layouts={"C"})
    coverage.magnitudes, coverage.deltas = (1e-3, 10.0), (0.5, 2.0)
    coverage.extents.update({2: 4})
    coverage.decades.update({1: 4})
    drawn = coverage_document(coverage)
    ratio = {"oracle": "torch", "verdict": "agrees", "examples": 10, "vacuous": 0, "detects_above": 0.0}
    rows = [{**ratio, "worst_ratio": 0.9, "worst_seed": 7}]
    kink = [{**ratio, "worst_ratio": "inf", "worst_seed": 8}]
    records = [
        record(PLAN, 3, worker="a", started=1000.0, seconds=4.0, coverage=drawn, rows=rows),
        record(PLAN, 4, worker="b", started=1001.0, seconds=2.0, failure="f", headline="it is wrong"),
        record(PLAN, 5, worker="b", started=1003.0, seconds=5.0, failure="f", attempts=1, headline="it is wrong"),
        record(PLAN, 6, worker="a", started=1004.0, seconds=6.0, coverage=drawn, rows=kink),
    ]
    for n, each in enumerate(records):
        lease = empty.lease(PLAN, each["worker"], 60)
        shown = example("f", 5 - n) if each["failure"] else None
        assert empty.record(lease, each["key"], each, shown)
    empty.lease(PLAN, "c", 60)
    return summary(empty)


def test_counts(document):
    assert {name: document[name] for name in ("units", "points", "seconds", "busy", "leased_again")} == {
        "units": 4,
        "points": 40,
        "seconds": 10.0,
        "busy": 17.0,
        "leased_again": 1,
    }


def test_workers(document):
    assert [(each["worker"], each["units"], each["points"], each["at_work"]) for each in document["workers"]] == [
        ("a", 2, 20, False),
        ("b", 2, 20, False),
        ("c", 0, 0, True),
    ]


def test_failures_have_their_smallest_example_and_when_they_were_found(document):
    (failure,) = document["failures"]
    assert (failure["size"], failure["units"], failure["found_after"]) == (3, 2, 3.0)
    assert failure["searches"] == ["chain_rule float64", "cotangents_agree float64"]


def test_progress_is_in_the_order_of_time(document):
    assert [(each["seconds"], each["points"], each["discoveries"]) for each in document["progress"]] == [
        (3.0, 10, 1),
        (4.0, 20, 1),
        (8.0, 30, 1),
        (10.0, 40, 1),
    ]


def test_the_worst_ratio_is_that_of_what_agrees_with_its_seed(document):
    assert [(each["property"], each["ratio"], each["seed"]) for each in document["worst"]] == [
        ("primal_agrees", 0.9, 7),
        ("chain_rule", 0.5, 3),
        ("cotangents_agree", 0.5, 3),
    ]


def test_coverage_is_added_up(document):
    (coverage,) = document["coverage"].values()
    assert (coverage["points"], coverage["shapes"], coverage["largest"]) == (8, 1, {"z": [3, 2]})
    assert (coverage["extents"], coverage["decades"], coverage["magnitudes"]) == ({"2": 8}, {"1": 8}, [1e-3, 10.0])


def test_coverage_survives_json_and_knows_shapes_again():
    one, other = Coverage(), Coverage()
    one.shapes, other.shapes = {(("z", (3, 2)),), (("z", (1, 2)),)}, {(("z", (3, 2)),)}
    merged = coverage_of(json.loads(json.dumps(coverage_document(one))))
    merged.merge(coverage_of(coverage_document(other)))
    assert len(merged.shapes) == 2
    assert coverage_document(merged)["shapes"] == coverage_document(one)["shapes"]


def test_text_has_what_was_found(document):
    lines = list(status_lines(document))
    assert any("4 units recorded in 10 s, 1 leased again; 40 points, 1 failure" in line for line in lines)
    report = "\n".join(report_lines(document))
    assert "report of 3" in report
    assert "the smallest of 2 examples has 3 inputs" in report
    assert "z 3×2" in report


def test_the_page_has_what_was_found_and_escapes_names(document):
    pytest.importorskip("jinja2")
    document["failures"][0]["diagnosis"] = "<script>alert(1)</script>"
    page = campaign_page(document)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "1 failure at 40 points" in page
    assert 'aria-label="40 points and 1 failures after 10 s"' in page


def judged_by(name, points, vacuous):
    row = {"oracle": name, "verdict": "agrees", "worst_ratio": 0.5, "worst_seed": 3, "detects_above": 1e-15}
    return {**row, "examples": points, "vacuous": vacuous}


# The points of each oracle, how many of them are inconclusive, and whose are too many.
INCONCLUSIVE = [
    ({"torch": (400, 0), "finite difference": (1, 1)}, []),
    ({"torch": (400, 0), "finite difference": (4, 4)}, []),
    ({"torch": (400, 0), "finite difference": (5, 5)}, ["finite difference"]),
    ({"torch": (400, 0), "exact": (300, 200)}, ["exact"]),
    ({"torch": (400, 400), "finite difference": (1, 1)}, ["finite difference", "torch"]),
    ({"torch": (3, 3), "jax": (3, 0)}, ["torch"]),
    ({"finite difference": (1, 1)}, ["finite difference"]),
    ({"finite difference": (400, 30)}, []),
]


@pytest.mark.parametrize(("points", "expected"), INCONCLUSIVE)
def test_few_inconclusive_points_count_where_no_other_oracle_has_judged(empty, points, expected):
    rows = [judged_by(name, *counts) for name, counts in points.items()]
    lease = empty.lease(PLAN, "w", 60)
    empty.record(lease, "key", record(PLAN, 4, rows=rows), None)
    lines = summary(empty)["inconclusive"]
    assert sorted(line.partition(" by ")[2].partition(" in ")[0] for line in lines) == expected


def test_a_layer_without_a_judged_point_is_shown(empty):
    pytest.importorskip("jinja2")
    for number in (3, 4):
        lease = empty.lease(PLAN, "w", 60)
        nothing = record(PLAN, number, points=0, rows=[], coverage=coverage_document(Coverage()), verdict="not judged")
        empty.record(lease, str(number), nothing, None)
    document = summary(empty)
    assert "Linear" in campaign_page(document)
    assert "Linear" in "\n".join(report_lines(document))
    assert document["given_up"] == []  # two units of two searches


def test_progress_is_drawn_in_few_steps(empty):
    for number in range(3 * PROGRESS):
        lease = empty.lease(PLAN, "w", 60) or Lease(PLAN.name, 99, "none")
        result = record(PLAN, 3, started=1000.0 + number, key=str(number))
        assert empty.record(lease, str(number), result, None)
    steps = summary(empty)["progress"]
    assert PROGRESS <= len(steps) <= PROGRESS + 1
    assert steps[-1]["points"] == 30 * PROGRESS
    drawing = progress_drawing(steps)
    assert drawing.points.endswith(f"H{drawing.right:.1f}V{drawing.top:.1f}")
    assert progress_drawing([]) is None


def test_times_in_words():
    assert [in_words(seconds) for seconds in (0.4, 61, 3600 * 8 + 300)] == ["0 s", "1 min 1 s", "8 h 5 min"]


def test_the_document_has_the_keys_that_are_documented(document):
    page = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    for marker, keys in {"campaign": [*document], "campaign-failure": [*document["failures"][0]]}.items():
        table = page.split(f"<!-- {marker} -->\n")[1].split("\n\n")[0]
        assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == keys
    assert json.loads(to_text(document))["units"] == 4


def test_nothing_is_found_in_an_empty_store(tmp_path):
    store = open_store(str(tmp_path))
    with pytest.raises(StoreFailed, match="nothing is recorded"):
        summary(store)
    store.close()

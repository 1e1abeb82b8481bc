"""Pages without a browser: what they are made of, where they are written, what is compared, what is missing."""

import json
import re
from importlib import resources
from math import inf

import numpy as np
import pytest
from runs import HOSTILE, MARKUP, primals, reference, report, row

import oracles
from oracles.__main__ import main
from oracles.cli.supervision import EXIT_SKIPPED
from oracles.report import html
from oracles.report.drawings import distances, heat_maps, scatter
from oracles.report.html import page, require_page, write_page
from oracles.report.matrix import EXACT_DIGITS, Summary, point_matrix, run_matrix
from oracles.report.trend import trend

TEMPLATES = resources.files("oracles.report") / "templates"


@pytest.fixture
def without_jinja2(monkeypatch):
    html._environment.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    yield
    html._environment.cache_clear()


def kinds(document):
    matrix = run_matrix(document, {})
    return {label: [cell.kind for cell in cells] for label, cells in matrix.rows}


def test_the_matrix_of_a_run(refused):
    matrix = run_matrix(refused, {(HOSTILE, "cotangents_agree", "float64"): "refusal-1"})
    assert matrix.groups == [("cotangents_agree", ["float64", "float32"]), ("same_every_time", ["float64", "float32"])]
    assert kinds(refused) == {
        "Linear": ["agrees", "agrees", "absent", "absent"],
        HOSTILE: ["wrong", "agrees", "absent", "absent"],
        "Huber": ["inconclusive", "agrees", "absent", "absent"],
        "Sort": ["kink", "absent", "agrees", "absent"],
        "Gone": ["not-judged", "not-judged", "absent", "absent"],
    }
    cells = dict(matrix.rows)
    assert cells[HOSTILE][0].target == "refusal-1"
    assert cells["Linear"][0].symbol == "13"
    assert cells["Linear"][0].level > cells["Linear"][1].level
    assert cells["Sort"][2].symbol == "="
    assert "20 inconclusive" in cells["Huber"][0].details


@pytest.mark.parametrize(
    ("detects", "ratio", "digits"),
    [(1e-13, 0.5, 13), (0.09, 0.5, 1), (3.0, 0.5, 0), (0.0, 0.0, EXACT_DIGITS), (0.0, 0.5, None)],
)
def test_digits_that_are_seen(detects, ratio, digits):
    assert Summary(ratio=ratio, detects_above=detects).digits == digits


def test_the_matrix_of_a_point(disagreement):
    matrix = point_matrix([disagreement.document()], "refusal-1")
    cells = {label: [cell.kind for cell in cells] for label, cells in matrix.rows}
    accepted = ["agrees", "absent"]  # ball arithmetic is asked about what is refused
    assert cells == {"output": accepted, "z": accepted, "W": accepted, "b": ["wrong", "wrong"]}
    assert [name for name, _ in matrix.groups] == ["torch", "exact"]


def test_every_name_is_escaped(refused):
    text = page(refused, refused)
    assert HOSTILE not in text
    assert MARKUP not in text
    assert "49" not in re.findall(r"window\.obeyed=2&#34;&gt;&#39;(.*?)[\s<]", text)
    assert text.count("<script>") == text.count("</script>") == 1
    assert "http://" not in re.sub(r"&#?\w+;", "", text).replace("http://e.invalid", "")


def test_half_of_a_surrogate_pair_can_be_written(passed, tmp_path):
    document = json.loads(json.dumps(passed).replace("Linear", "L\\ud800"))
    write_page(document, str(tmp_path / "page.html"))
    assert "L\\ud800" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_is_whole_or_absent(passed, tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    write_page(passed, str(path))
    before = path.read_text()
    with pytest.raises(KeyError):
        write_page({"results": []}, str(path))
    assert path.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["page.html"]


def test_the_styles_reach_nothing_else_in_a_notebook():
    text = re.sub(r"/\*.*?\*/", "", (TEMPLATES / "style.css").read_text())
    selectors = [s.strip() for block in re.findall(r"([^{}]+)\{", text) for s in block.split(",")]
    assert len(selectors) > 50
    outside = [s for s in selectors if not re.match(r"(body)?\.oracles\b|@media", s) and not s.startswith("@media")]
    assert outside == []


def test_a_notebook_shows_a_result_and_a_refusal(disagreement):
    refusal = disagreement._repr_html_()
    assert "<svg" in refusal
    assert "a mean where a sum belongs" in refusal
    assert "<script" not in refusal
    assert MARKUP not in refusal
    result = disagreement.result._repr_html_()
    assert 'data-kind="wrong"' in result
    right = oracles.manual(lambda z, W, b: (z @ W + b, (z, W)), lambda cache, delta: {
        "z": delta @ cache[1].T, "W": cache[0].T @ delta, "b": delta.sum(axis=0, keepdims=True)})  # fmt: skip
    shown = oracles.check(right, primals(), against=[oracles.torch_autograd(reference)])._repr_html_()
    assert 'data-kind="agrees"' in shown
    assert 'data-kind="wrong"' not in shown


def test_without_jinja2_a_notebook_shows_the_text(disagreement, without_jinja2):
    assert disagreement._repr_html_().startswith("<pre>&lt;img src=http://e.invalid")
    assert "</pre>" in disagreement.result._repr_html_()


@pytest.mark.parametrize("command", [["verify", "Linear"], ["check", "silu.py:rule"]])
def test_without_jinja2_the_option_says_what_to_install(command, without_jinja2, capsys, tmp_path):
    assert main([*command, "--html", str(tmp_path / "page.html")]) == EXIT_SKIPPED
    assert "pip install 'manual-bp[report]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["verify", "Linear"], ["check", "silu.py:rule"]])
def test_paths_are_tried_before_the_run(command, capsys, tmp_path):
    earlier = tmp_path / "earlier.json"
    for options, complaint in (
        (["--html", str(tmp_path / "gone" / "page.html")], "--html: the folder of"),
        (["--html", str(tmp_path)], "is a folder"),
        (["--compare", str(earlier)], "--html FILE"),
        (["--html", str(tmp_path / "p.html"), "--compare", str(earlier)], "cannot be read"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main([*command, *options])
        assert stopped.value.code == 2
        assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        '{"schema": 1}',
        '{"schema": 1, "results": 3}',
        '{"schema": 2, "results": [3]}',
        '{"schema": 2, "layers": {"a": "agrees"}, "results": [{}]}',
    ],
)
def test_what_is_no_earlier_result_is_refused(text, tmp_path):
    (tmp_path / "earlier.json").write_text(text)
    with pytest.raises(ValueError, match="--compare") as refusal:
        require_page(str(tmp_path / "page.html"), str(tmp_path / "earlier.json"))
    assert "--json" in str(refusal.value)


def test_the_trend_names_what_has_changed():
    before = report([row("Linear"), row("Tanh"), row("Old"), row("Huber", vacuous=20), row("Same")]).document(0)
    bad = report([row("Linear", worst_ratio=inf), row("Tanh", worst_ratio=0.9), row("New"), row("Huber"), row("Same")])
    now = bad.document(0)
    now["layers"]["Linear"] = "wrong"
    found = trend(now, before)
    changed = {change.label: change.changed for change in found.changes}
    assert changed == {"Linear": "worse", "Huber": "better", "New": "new", "Old": "gone", "Tanh": "", "Same": ""}
    assert next(iter(changed)) == "Linear"
    assert next(c for c in found.changes if c.label == "Tanh").ratio == "0.5 → 0.9"
    assert found.sentence == "Verdicts: 1 worse, 1 better, 1 new, 1 gone, the others as before."
    assert trend(before, before).sentence == "No verdict has changed."


def test_another_caller_has_a_title_and_a_command_of_its_own(passed):
    text = page(passed | {"title": "pytest <b>", "command": "pytest -k Linear"})
    assert "<h1>pytest &lt;b&gt;</h1>" in text
    assert ">pytest -k Linear</pre>" in text


def test_a_trend_with_results_of_an_earlier_schema(passed):
    earlier = json.loads(json.dumps(passed))
    earlier["schema"] = 1
    for each in earlier["results"]:
        del each["points"]
    for each in earlier["coverage"].values():
        del each["extents"], each["decades"]
    assert "No verdict has changed." in page(passed, earlier)
    assert "<svg" in page(earlier)  # coverage and matrix remain


def test_a_scatter_has_every_kind_of_point():
    points = {
        "float64": [
            (0.5, 1e-14, False),
            (0.0, 1e-14, False),
            (inf, 0.0, True),
            (7.0, 1e-12, True),
            (1e-300, 1e-14, False),
        ]
    }
    drawn = scatter(points)
    assert {d.kind: d.count for d in drawn.dots} == {"dtype-0": 3, "refused": 2}
    assert drawn.label == "5 points: 2 refused, 2 above 1, the largest inf"
    numbers = [float(n) for d in drawn.dots for n in re.findall(r"M(-?\d+)", d.path)]
    assert all(drawn.left - 4 <= n <= drawn.right for n in numbers)
    assert drawn.top < drawn.line < drawn.bottom
    assert scatter({}) is None


@pytest.mark.parametrize(
    "group", [[(0.0, 0.0, False)], [(inf, inf, True)], [(1e300, 1e-300, True)], [(0.5, 5e300, False)]]
)
def test_a_scatter_of_extreme_points_stays_inside(group):
    drawn = scatter({"float32": group})
    for x, y in re.findall(r"M(-?\d+) (-?\d+)", drawn.dots[0].path):
        assert drawn.left - 4 <= float(x) <= drawn.right + 1
        assert drawn.top - 1 <= float(y) <= drawn.bottom


def test_a_heat_map_is_drawn_for_each_array(disagreement):
    entries = disagreement.document()["entries"]
    ratio, subject, oracle = heat_maps(entries)
    assert [each.name for each in (ratio, subject, oracle)] == ["error / tolerance", "subject", "torch"]
    assert {cell.kind for cell in ratio.cells} == {"r4"}
    assert [cell.title for cell in subject.cells] == [f"[0, {i}]: {v:.6g}" for i, v in enumerate(entries["subject"])]


def test_a_heat_map_of_what_is_not_finite():
    entries = {"grid": [1, 3], "shape": [3], "index": [0, 1, 2], "oracle": "t", "block": [1, 1]}
    entries |= {"ratio": [0.5, "inf", 20.0], "subject": ["nan", "inf", 0.0], "expected": [1.0, -1.0, 0.25]}
    ratio, subject, oracle = heat_maps(entries)
    assert [cell.kind for cell in ratio.cells] == ["r0", "r5", "r2"]
    assert [cell.kind for cell in subject.cells] == ["nan", "nan", "zero"]
    assert [cell.kind for cell in oracle.cells] == ["p4", "n4", "p1"]


def test_distances_show_the_enclosure():
    finding = {"subject": 2.0, "oracles": {"torch": 1.0, "exact": 1.0}, "enclosure": [1.0, 1e-17], "tolerance": 1e-15}
    drawn = distances(finding)
    subject, torch, exact = drawn.marks
    assert (torch.text, torch.x, exact.text) == ("0", drawn.left, "± 1e-17")
    assert drawn.left < exact.bar < drawn.tolerance < subject.x <= drawn.right
    assert distances(finding | {"subject": None}) is None
    assert distances(finding | {"oracles": {"torch": "nan"}, "enclosure": None}) is None
    assert distances({"subject": "inf", "oracles": {"torch": 1.0}, "enclosure": None, "tolerance": 1e-15}) is not None


def test_the_package_has_its_templates():
    assert {"page.html.j2", "fragment.html.j2", "macros.html.j2", "style.css", "page.js"} <= {
        each.name for each in TEMPLATES.iterdir()
    }


@pytest.mark.parametrize("result", [{"verdict": "not judged", "cause": "invalid input", "reason": HOSTILE},
                                    {"verdict": "wrong", "reason": HOSTILE}])  # fmt: skip
def test_a_check_without_findings_shows_its_reason(result):
    document = {
        "schema": 2,
        "versions": {},
        "target": "a.py:f",
        "against": [],
        "seed": 0,
        "status": 2,
        "results": [result],
    }
    text = page(document)
    assert "Nothing was judged." in text
    assert "&lt;/script&gt;" in text


def test_large_arrays_are_printed_in_part(disagreement):
    document = disagreement.document()
    values = [float(v).hex() for v in np.arange(5000.0)]
    document["primals"]["z"] = {"shape": [5000], "dtype": "float64", "values": values}
    text = page(
        {"schema": 2, "versions": {}, "target": "t", "against": [], "seed": 0, "status": 1, "results": [document]}
    )
    assert "4.998e+03 4.999e+03" in text
    assert text.count("e+03") < 100

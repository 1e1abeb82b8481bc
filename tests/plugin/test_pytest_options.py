"""The plugin's options that select and write: --oracles-layer, -dtype, -script, -json, and [tool.oracles]."""

import json
import re
import runpy
import shlex

import pytest
from projects import BUG, LAYER, outcomes

from oracles.options import DTYPE_NAMES
from oracles.properties import PROPERTIES
from oracles.pytest_plugin import OPTIONS
from oracles.registry import entries

FEW = ("--oracles-max-examples=8", "--oracles-against=torch", "--oracles-seed=3")
CASES = "--oracles-cases=mine.py,other.py"
OWN = """
import numpy as np
import oracles
import manual_bp


def test_of_another_kind():
    pass


def test_at_a_point():
    subject = oracles.manual(lambda z: (np.sin(z), z), lambda z, delta: {"z": delta})
    oracles.check(subject, {"z": np.ones(3)})
"""


@pytest.fixture
def two(project):
    """A project with a right layer, Scale, and a wrong one, Shift."""
    project.write("mine.py", LAYER)
    project.write("other.py", LAYER.replace("Scale", "Shift"), replacing=BUG)
    project.write("test_own.py", OWN)
    return project


def collected(process):
    return [line for line in process.stdout.splitlines() if "::" in line]


def test_no_check_and_no_dtype_has_the_name_of_a_layer():
    """So that ``-k Linear`` selects the tests of Linear."""
    names = [name.lower() for name in (*PROPERTIES, *DTYPE_NAMES)]
    assert [(e.name, name) for e in entries() for name in names if e.name.lower() in name] == []


def test_a_layer_and_a_dtype_are_selected(two):
    runs = two.pytests(
        (CASES, "--collect-only", "-q", "--oracles-layer=Shift"),
        (CASES, "--collect-only", "-q", "--oracles-layer=Shift", "--oracles-layer", "Scale", "--oracles-dtype=float32"),
        (CASES, "--collect-only", "-q", "-k", "Shift"),
        (CASES, "--collect-only", "-q", "--oracles-dtype=float64"),
    )
    shift, float32, by_k, float64 = map(collected, runs)
    assert shift == by_k == [f"other.py::Shift::{n}-{d}" for n in PROPERTIES for d in DTYPE_NAMES]
    assert float32 == [f"{file}::{n}-float32" for file in ("mine.py::Scale", "other.py::Shift") for n in PROPERTIES]
    assert len(float64) == 2 + 2 * len(PROPERTIES)  # tests that judge in no dtype stay
    assert {name.rpartition("-")[2] for name in float64[2:]} == {"float64"}


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["here", "xdist"])
def test_an_unknown_layer_is_answered_with_the_closest(two, workers):
    process = two.pytest(CASES, "--oracles-layer=Scael", *workers)
    assert process.returncode != 0
    assert "no test judges Scael; did you mean Scale?" in process.stdout + process.stderr
    assert "INTERNALERROR" not in process.stdout + process.stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.deep)], ids=["here", "xdist"])
def test_refusals_leave_a_line_to_paste_a_script_and_the_results(two, workers):
    options = (
        "-k",
        "agree or at_a_point",
        "--oracles-script=scripts",
        "--oracles-json=out.json",
        "--oracles-dtype=float64",
    )
    process = two.pytest(CASES, *options, *FEW, *workers)
    assert outcomes(process)["failed"] == 2, process.stdout
    assert outcomes(process)["passed"] == 3
    lines = re.findall(r"reproduce: (pytest .*)", process.stdout)
    again = [line for line in dict.fromkeys(lines) if "Shift" in line]
    assert again == [
        "pytest --oracles-cases=other.py --oracles-layer=Shift --oracles-dtype=float64 -k cotangents_agree "
        "--oracles-against=torch --oracles-max-examples=8 --oracles-seed=3"
    ]
    assert "pytest test_own.py::test_at_a_point" in lines
    scripts = sorted(path.name for path in (two.folder / "scripts").iterdir())
    assert scripts == [
        "refused-Shift-cotangents_agree-float64.script.py",
        "refused-test_own.py_test_at_a_point.script.py",
    ]
    with pytest.raises(SystemExit) as shown:
        runpy.run_path(str(two.folder / "scripts" / scripts[0]), run_name="__main__")
    assert shown.value.code == 1
    document = json.loads((two.folder / "out.json").read_text())
    assert document["status"] == 1
    assert {name: document["layers"][name] for name in ("Scale", "Shift")} == {"Scale": "agrees", "Shift": "wrong"}
    assert len(document["failures"]) == 2
    oracles = {row["oracle"] for row in document["results"] if row["layer"] == "Scale"}
    assert {"torch", "exact"} <= oracles
    same = two.pytest(*shlex.split(again[0])[1:])
    assert outcomes(same) == {"failed": 1, "deselected": 19}
    report = re.compile(r"Shift\(n.*?(?=  reproduce)", re.DOTALL)
    assert report.search(process.stdout)[0] == report.search(same.stdout)[0]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["here", "xdist"])
def test_the_results_are_a_page(two, workers):
    two.pytest(CASES, "-k", "cotangents_agree-float64", "--oracles-html=page.html", *FEW, *workers)
    page = (two.folder / "page.html").read_text()
    assert "Scale" in page
    assert "Shift" in page


FILE = """
[tool.oracles]
cases = ["mine.py"]
layer = "Scale"
dtype = ["float64"]
max-examples = 4
against = "torch"
seed = 5
json = "results.json"
"""


@pytest.mark.slow
def test_the_command_line_wins_over_pyproject_toml(two):
    two.write("pyproject.toml", FILE)
    process = two.pytest("-k", "primal_agrees")
    assert outcomes(process)["passed"] == 1
    assert re.search(r"^Scale +1 +4 .*torch$", process.stdout, re.MULTILINE)
    assert json.loads((two.folder / "results.json").read_text())["seed"] == 5
    process = two.pytest("-k", "primal_agrees", "--oracles-dtype=float32,float64", "--oracles-max-examples=6")
    assert outcomes(process)["passed"] == 2
    assert re.search(r"^Scale +2 +12 ", process.stdout, re.MULTILINE)


WRONG_FILES = {
    "laier = 'Scale'": "unknown option laier; did you mean layer?",
    "dtype = 'float8'": "dtype: expected some of float64, float32, float16, bfloat16, all",
    "max-examples = 0": "max-examples: expected a whole number of at least 1, got '0'",
    "json = 'no/where.json'": "--oracles-json: the folder of ",
}


@pytest.mark.parametrize("line", WRONG_FILES)
def test_wrong_lines_of_pyproject_toml_are_refused(project, line):
    project.write("pyproject.toml", f"[tool.oracles]\n{line}\n")
    process = project.pytest()
    assert process.returncode == 4, process.stdout
    assert WRONG_FILES[line] in process.stderr


def test_every_option_is_on_the_page(request):
    page = (request.config.rootpath / "docs" / "verify_your_own" / "your_own_layer.md").read_text()
    assert [name for name in OPTIONS if f"`--oracles-{name}=" not in page] == []


def test_order_and_mode_add_properties_to_every_search(project):
    project.write(
        "test_square.py",
        """
import numpy as np
from hypothesis import strategies as st
import oracles
from oracles.strategies import real


def forward(z):
    return z * z, z


def backward(z, delta):
    return {"z": 2 * z * delta}


cases = st.just(oracles.Case(oracles.manual(forward, backward), {"z": real(3)}, torch=lambda z: z * z))


@oracles.conformance(cases, dtypes=("float64",), max_examples=3)
def test_square(search):
    search()
""",
    )
    result = project.pytest("--oracles-order=2", "-v")
    assert outcomes(result)["passed"] == len(PROPERTIES) + 2
    assert "second_order_agrees-float64" in result.stdout
    assert project.pytest("--oracles-order=3").returncode == 4
    assert project.pytest("--oracles-mode=forward").returncode == 4

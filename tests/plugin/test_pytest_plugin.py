"""The pytest plugin in another project: what it collects and prints, and that it leaves other tests alone."""

import re
import xml.etree.ElementTree as ElementTree

import pytest
from projects import BUG, LAYER, outcomes

from oracles.properties import PROPERTIES

QUICK = ("--oracles-profile=quick", "--oracles-seed=3", "--oracles-against=torch")

SOMEBODY_ELSES = {
    "conftest.py": """
import pytest

def pytest_addoption(parser):
    parser.addoption("--mine", default="x")

@pytest.fixture
def check(request):
    return request.config.getoption("--mine")

def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line("their own summary")
""",
    "pytest.ini": "[pytest]\naddopts = --strict-markers --strict-config -ra -v\nfilterwarnings = error\n",
    "test_theirs.py": """
import pytest

def test_fixture(check):
    assert check == "x"

@pytest.mark.parametrize("check", ["a", "b"])
def test_parametrized(check, record_property):
    record_property("oracles", check)
    assert check == "a"

@pytest.mark.skip
def test_skipped():
    pass
""",
}


def _output(process):
    """What pytest prints, without its times, its addresses, and the list of what is installed."""
    return re.sub(r"\d+\.\d+s|0x[0-9a-f]+|^plugins: .*$", "", process.stdout, flags=re.MULTILINE)


def _written(project, files):
    for name, text in files.items():
        project.write(name, text)


def test_nothing_changes_for_a_project_that_does_not_use_it(project):
    _written(project, SOMEBODY_ELSES)
    with_, without = project.pytest(), project.pytest("-p", "no:oracles")
    assert "manual-bp" in with_.stdout
    assert "manual-bp" not in without.stdout
    assert _output(with_) == _output(without)
    assert (with_.returncode, with_.stderr) == (without.returncode, without.stderr) == (1, "")
    assert outcomes(with_) == {"failed": 1, "passed": 2, "skipped": 1}


def test_nothing_is_imported_for_a_project_that_does_not_use_it(project):
    project.write(
        "conftest.py",
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    heavy = {'numpy', 'hypothesis', 'torch', 'jax', 'flint', 'rich'} & sys.modules.keys()\n"
        "    print('\\nheavy', sorted(heavy), 'ours', sorted(m for m in sys.modules if m.startswith('oracles')))\n",
    )
    project.write("test_theirs.py", "def test_it(record_property):\n    record_property('oracles', 'Delphi')\n")
    process = project.pytest("-p", "no:hypothesispytest")
    assert process.returncode == 0, process.stdout
    assert "heavy [] ours ['oracles', 'oracles.options', 'oracles.pytest_plugin']" in process.stdout


def test_cases_are_collected_one_test_for_each_property_and_dtype(project):
    project.write("mine.py", LAYER)
    process = project.pytest("--oracles-cases=mine", "--collect-only", "-q")
    assert process.returncode == 0, process.stdout
    expected = [f"mine::Scale::{name}-{dtype}" for name in PROPERTIES for dtype in ("float64", "float32")]
    assert [line for line in process.stdout.splitlines() if "::" in line] == expected


@pytest.mark.slow
def test_cases_are_judged_selected_and_summed_up(project):
    project.write("mine.py", LAYER)
    project.write("test_theirs.py", "def test_it():\n    pass\n")
    process = project.pytest("--oracles-cases=mine.py,mine.py", "-k", "agree or test_it", *QUICK)
    assert process.returncode == 0, process.stdout
    assert outcomes(process) == {"passed": 5, "deselected": 14}
    assert re.search(r"^oracles: manual-bp .*, numpy .*, torch .*, jax .*, hypothesis ", process.stdout, re.MULTILINE)
    assert "oracles: cases mine.py; against torch; seed 3; profile quick" in process.stdout
    header, row = re.findall(r"^(?:layer|Scale) .*$", process.stdout, re.MULTILINE)
    columns = ["layer", "tests", "examples", "error / tolerance", "detects above", "inconclusive", "verdict"]
    assert re.split("  +", header)[:7] == columns
    assert row.split()[:3] == ["Scale", "4", "80"]
    assert "agrees" in row
    assert "torch" in row
    assert "jax" not in row
    assert "1 judged at 80 points: all agree" in process.stdout


@pytest.mark.slow
def test_a_planted_bug_shows_its_report_alone_and_is_in_junit_xml(project):
    project.write("mine.py", LAYER, replacing=BUG)
    alone = ["--oracles-layer=Scale", "--oracles-dtype=float64", "-k", "cotangents_agree"]
    process, again = project.pytests(
        ("--oracles-cases=mine", "-k", "agree", "--junit-xml=out.xml", *QUICK),
        ("--oracles-cases=mine", *alone, "--oracles-seed=3", *QUICK),
    )
    assert process.returncode == 1
    failure = process.stdout.split("_ Scale::cotangents_agree-float64 _", 1)[1].split("\n___")[0]
    assert "WRONG in the cotangent of g" in failure
    assert "diagnosis: " in failure
    assert "Traceback" not in failure
    assert "hypothesis" not in failure
    assert len(failure.splitlines()) <= 28
    command = f"pytest --oracles-cases=mine {' '.join(alone)} --oracles-against=torch --oracles-profile=quick"
    assert f"reproduce: {command} --oracles-seed=3\n" in failure + "\n"
    assert outcomes(again)["failed"] == 1
    assert re.search(r"1 judged at \d+ points: 1 of 1 tests refused", again.stdout)
    values = {
        (test.get("classname"), test.get("name")): {p.get("name"): p.get("value") for p in test.iter("property")}
        for test in ElementTree.parse(project.folder / "out.xml").iter("testcase")
    }
    right, wrong = (
        values["mine.Scale", f"{name}_agree{s}-float64"] for name, s in (("primal", "s"), ("cotangents", ""))
    )
    assert right["oracles.verdict"] == "agrees"
    assert right["oracles.examples"] == "20"
    assert right["oracles.seed"] == "3"
    assert 0 <= float(right["oracles.worst_ratio"]) <= 1
    assert 0 <= float(right["oracles.detects_above"]) < 1
    assert float(right["oracles.vacuous"]) == 0
    assert wrong["oracles.verdict"] == "wrong"
    assert float(wrong["oracles.worst_ratio"]) > 1


@pytest.mark.deep
def test_what_failed_last_is_known_by_its_id(project):
    project.write("mine.py", LAYER, replacing=BUG)
    options = ("-p", "cacheprovider", "--oracles-cases=mine", "-k", "agree and float64", *QUICK)
    assert outcomes(project.pytest(*options)) == {"failed": 1, "passed": 1, "deselected": 16}
    assert outcomes(project.pytest(*options, "--lf")) == {"failed": 1, "deselected": 17}


@pytest.mark.slow
def test_warnings_that_are_errors_do_not_hide_the_report(project):
    project.write("mine.py", LAYER, replacing=(BUG[0], BUG[0].replace("sum", "mean")))
    process = project.pytest("--oracles-cases=mine", "-k", "batch_is_a_sum or cotangents", "-W", "error", *QUICK)
    assert outcomes(process)["failed"] == 4
    assert "INTERNALERROR" not in process.stdout


DECORATED = """
import manual_bp
import oracles
from mine import scale, Scale
from hypothesis import strategies as st

@oracles.conformance(st.composite(scale)(), max_examples=8, dtypes=("float64",), against=("jax",))
def test_decorated(search):
    search()
"""


@pytest.mark.deep
def test_xdist_gives_the_same_results(project):
    project.write("mine.py", LAYER, replacing=BUG)
    project.write("test_decorated.py", DECORATED)
    alone, spread = (project.pytest("--oracles-cases=mine", "-k", "agree", "-n", n, *QUICK) for n in ("0", "2"))
    assert outcomes(alone) == {"failed": 3, "passed": 3, "deselected": 21}
    assert outcomes(spread) == {"failed": 3, "passed": 3}
    rows = [
        re.findall(r"^(?:layer|Scale|test_decorated|2 judged) .*$", d.stdout, re.MULTILINE) for d in (alone, spread)
    ]
    assert len(rows[0]) == 4
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_the_command_line_wins_over_the_decorator_and_that_over_the_profile(project):
    _written(project, {"mine.py": LAYER, "test_decorated.py": DECORATED, "test_again.py": DECORATED})
    runs = project.pytests(
        ("test_decorated.py", "-k", "primal_agrees", "--oracles-profile=quick"),
        ("test_again.py", "-k", "primal_agrees", "--oracles-max-examples=12", "--oracles-against=torch"),
    )
    rows = [
        re.search(r"^test_decorated +1 +(\d+) .* (\w+)$", process.stdout, re.MULTILINE).groups() for process in runs
    ]
    assert rows == [("8", "jax"), ("12", "torch")]


@pytest.mark.slow
def test_hypothesis_profiles_stay_their_own(project):
    """Without an option the loaded Hypothesis profile decides how many points there are."""
    project.write("mine.py", LAYER)
    project.write(
        "conftest.py",
        "from hypothesis import settings\nsettings.register_profile('few', max_examples=4, database=None)\n"
        "settings.load_profile('few')\n",
    )
    process = project.pytest("--oracles-cases=mine", "-k", "primal_agrees-float64", "--oracles-against=torch")
    assert re.search(r"^Scale +1 +4 ", process.stdout, re.MULTILINE)


WRONG_USAGE = {
    "--oracles-against=tensorflow": "expected some of torch, jax, separated by commas, got 'tensorflow'",
    "--oracles-max-examples=0": "expected a whole number of at least 1, got '0'",
    "--oracles-seed=x": "expected a whole number of at least 0, got 'x'",
    "--oracles-profile=slow": "expected one of quick, default, thorough, got 'slow'",
    "--oracles-cases=": "expected modules or .py files, separated by commas, got ''",
    "--oracles-cases=mien": "--oracles-cases: no module named 'mien'",
    "--oracles-cases=mien.py": "has empty.py, failing.py, mine.py",
    "--oracles-cases=mine/cases": "expected a module (my_package.cases) or a file that ends in .py",
    "--oracles-cases=empty": "empty registers no cases",
    "--oracles-cases=failing": "ZeroDivisionError",
    "--oracles-cases=beneath/needs.py": "No module named 'nowhere'",
}


@pytest.mark.slow
def test_wrong_usage_says_what_is_expected(project):
    (project.folder / "beneath").mkdir()
    files = {"mine.py": LAYER, "empty.py": "", "failing.py": "1 / 0\n", "beneath/needs.py": "import nowhere\n"}
    _written(project, files)
    for message, process in zip(
        WRONG_USAGE.values(), project.pytests(*([option] for option in WRONG_USAGE)), strict=True
    ):
        assert process.returncode in (2, 4), process.stdout
        assert message in process.stdout
        assert "INTERNALERROR" not in process.stdout


def test_without_the_extra_the_fix_is_named(project):
    """`pip install manual-bp` alone brings neither Hypothesis nor rich."""
    project.write("mine.py", LAYER)
    missing = "raise ModuleNotFoundError(\"No module named 'hypothesis'\", name='hypothesis')\n"
    (project.site / "hypothesis.py").write_text(missing)
    process = project.pytest("-p", "no:hypothesispytest", "--oracles-cases=mine", "-rs")
    assert outcomes(process) == {"skipped": 1}
    assert "hypothesis is not installed" in process.stdout
    process = project.oracles("verify", "--cases", "mine")
    assert process.returncode == 3
    assert "hypothesis is not installed.\nFix:    pip install 'manual-bp[oracles]'" in process.stderr


@pytest.mark.deep
def test_the_same_command_with_the_same_seed_judges_the_same_points(project):
    project.write("mine.py", LAYER)
    values = []
    for seed in ("5", "5", "6"):
        options = (
            "-k",
            "cotangents_agree",
            "--oracles-profile=quick",
            "--oracles-against=torch",
            "--junit-xml=out.xml",
        )
        project.pytest("--oracles-cases=mine", f"--oracles-seed={seed}", *options)
        entries = ElementTree.parse(project.folder / "out.xml").iter("property")
        values.append([(p.get("name"), p.get("value")) for p in entries if p.get("name") != "oracles.seed"])
    assert values[0] == values[1] != values[2]

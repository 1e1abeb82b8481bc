"""Without torch, JAX, python-flint or Hypothesis a run is skipped: it says why and what to install, and is never wrong.

A finder blocks the package in every process that starts, as if it were not installed.
"""

import json
import re

import pytest
from projects import LAYER, SILU, outcomes

BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""
INSTALL = "pip install 'manual-bp[{}]'"
FEW = ("--max-examples", "4", "--dtype", "float64")
CHECK = ("check", "silu.py:forward,backward", "--shapes", "z=2")
PAIR = SILU.replace("import torch\n", "").replace(
    "def reference(z):\n    return torch.nn", "def reference(z):\n    return nn"
)


@pytest.fixture
def without(project):
    """A function that blocks packages in the project's processes."""

    def block(*packages):
        (project.site / "sitecustomize.py").write_text(BLOCKER.format(blocked=packages))
        project.write("mine.py", LAYER)
        project.write("silu.py", PAIR)
        return project

    return block


@pytest.mark.slow
def test_the_other_framework_judges_and_the_last_line_says_so(without):
    project = without("jax")
    process = project.oracles("verify", "--cases", "mine.py", *FEW, "--json", "out.json")
    assert process.returncode == 0, process.stdout
    assert f"skipped: jax: jax is not installed: {INSTALL.format('jax')}" in process.stdout
    assert process.stdout.rstrip().endswith("all agree (without jax: not installed)")
    document = json.loads((project.folder / "out.json").read_text())
    assert document["layers"] == {"Scale": "agrees"}
    assert document["skipped"]["jax"]["fix"] == INSTALL.format("jax")
    assert {row["oracle"] for row in document["results"]} >= {"torch", "self-consistency"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packages", "options", "verdict"),
    [(("torch", "jax"), (), "skipped"), (("jax",), ("--against", "torch,jax"), "agrees")],
    ids=["none is left", "one is named"],
)
def test_what_was_asked_for_and_is_missing_is_neither_a_pass_nor_a_failure(packages, options, verdict, without):
    project = without(*packages)
    process = project.oracles("verify", "--cases", "mine.py", *FEW, *options, "-v", "--json", "out.json")
    assert process.returncode == 3, process.stdout + process.stderr
    assert "wrong" not in process.stdout
    assert f"skipped: jax: jax is not installed: {INSTALL.format('jax')}" in process.stdout
    assert re.search(r"jax +skipped", process.stdout)
    assert process.stdout.rstrip().endswith("exit status 3")
    document = json.loads((project.folder / "out.json").read_text())
    assert (document["status"], document["layers"], document["failures"]) == (3, {"Scale": verdict}, [])
    assert document["skipped"].keys() == set(packages)


@pytest.mark.slow
def test_a_layer_that_is_wrong_is_refused_although_a_package_is_missing(without):
    project = without("torch", "jax")
    project.write("mine.py", LAYER, replacing=("return delta * g,", "return delta + g,"))
    process = project.oracles("verify", "--cases", "mine.py", *FEW)
    assert process.returncode == 1, process.stdout
    assert "1 layer refused (Scale)" in process.stdout


def test_a_check_against_what_is_missing_is_skipped(without):
    project = without("torch")
    process = project.oracles(*CHECK, "--against", "torch:reference", "--json", "out.json")
    assert process.returncode == 3, process.stderr
    assert (
        f"skipped, --against torch:reference: torch is not installed.\nFix:    {INSTALL.format('torch')}"
        in (process.stdout)
        or f"torch is not installed.\nFix:    {INSTALL.format('torch')}" in process.stdout
    )
    (result,) = json.loads((project.folder / "out.json").read_text())["results"]
    assert (result["verdict"], result["package"], result["fix"]) == ("skipped", "torch", INSTALL.format("torch"))


def test_a_file_that_needs_what_is_missing_is_skipped(without):
    project = without("torch")
    project.write("silu.py", SILU)
    process = project.oracles(*CHECK)
    assert process.returncode == 3
    assert INSTALL.format("torch") in process.stdout


def test_without_python_flint_the_check_goes_on_and_says_so(without):
    process = without("flint").oracles(*CHECK)
    assert process.returncode == 0, process.stderr
    assert "agrees" in process.stdout
    assert (
        f"note: ball arithmetic is skipped: python-flint is not installed: {INSTALL.format('exact')}" in process.stdout
    )


@pytest.mark.parametrize("command", [("verify", "--cases", "mine.py"), ("list",)], ids=lambda command: command[0])
def test_without_hypothesis_the_command_is_skipped(command, without):
    process = without("hypothesis").oracles(*command)
    assert process.returncode == 3
    assert f"skipped, hypothesis is not installed.\nFix:    {INSTALL.format('oracles')}" in process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.slow
def test_pytest_skips_what_no_framework_judges(without):
    project = without("torch", "jax")
    options = ("--oracles-cases=mine.py", "-k", "float64 and (agree or additive)", "--oracles-max-examples=4")
    process = project.pytest(*options, "-rs")
    assert process.returncode == 0, process.stdout
    assert outcomes(process) == {"passed": 1, "skipped": 2, "deselected": 15}
    assert f"torch is not installed.\nFix:    {INSTALL.format('torch')}" in process.stdout
    assert f"skipped: jax: jax is not installed: {INSTALL.format('jax')}" in process.stdout
    assert "2 of 3 tests skipped" in process.stdout


def test_pytest_skips_cases_that_cannot_be_collected(without):
    project = without("hypothesis")
    process = project.pytest("-p", "no:hypothesispytest", "--oracles-cases=mine.py", "-rs")
    assert process.returncode == 0, process.stdout + process.stderr
    assert outcomes(process) == {"skipped": 1}
    assert INSTALL.format("oracles") in process.stdout


def test_pytest_skips_a_file_of_cases_that_needs_what_is_missing(without):
    project = without("jax")
    project.write("mine.py", "import jax\n" + LAYER)
    process = project.pytest("--oracles-cases=mine.py", "-rs")
    assert INSTALL.format("jax") in process.stdout
    assert outcomes(process) == {"skipped": 1}


@pytest.mark.parametrize("name", ["conformance", "conformance_of"])
def test_without_hypothesis_a_decorator_says_what_to_install(name, without):
    process = without("hypothesis").run("-c", f"import oracles; oracles.{name}")
    assert process.returncode == 1
    assert process.stderr.rstrip().endswith(f"Fix:    {INSTALL.format('oracles')}")

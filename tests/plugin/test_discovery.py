"""Layers of other packages: announced by an entry point, or named on the command line; broken ones are reported."""

import json
import re

import pytest
from projects import BUG, LAYER

from oracles import registry
from oracles.__main__ import main
from oracles.cli import verify_command as verify

GROUP = "oracles.cases"
FEW = ("--max-examples", "4", "--against", "torch", "--dtype", "float64")
QUICK = ("--max-examples", "20", "--against", "torch", "--dtype", "float64")


def _listed(process):
    return {row[0]: " ".join(row) for line in process.stdout.splitlines() if (row := re.findall(r"[^\s│]+", line))}


def test_an_entry_point_makes_a_layer_known_and_a_broken_one_is_reported(project):
    project.write("mine.py", LAYER)
    project.write("failing.py", "1 / 0\n")
    project.install("good-layers", **{GROUP: {"mine": "mine"}})
    project.install("bad-layers", **{GROUP: {"failing": "failing", "gone": "gone.cases"}})
    (project.folder / "mine.py").rename(project.site / "mine.py")
    (project.folder / "failing.py").rename(project.site / "failing.py")
    process = project.oracles("list")
    assert process.returncode == 0
    listed = _listed(process)
    assert "entry" in listed["Scale"]
    assert "mine" in listed["Scale"]
    assert "manual-bp" in listed["Linear"]
    assert "cannot be judged: entry point failing = failing of bad-layers: ZeroDivisionError" in process.stderr
    assert "cannot be judged: entry point gone = gone.cases of bad-layers: ModuleNotFoundError" in process.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("bug", "status"), [(None, 0), (BUG, 1)], ids=["right", "wrong"])
def test_verify_judges_what_an_entry_point_brings(bug, status, project):
    project.write("mine.py", LAYER, replacing=bug)
    project.install("good-layers", **{GROUP: {"mine": "mine"}})
    (project.folder / "mine.py").rename(project.site / "mine.py")
    process = project.oracles("verify", "Scale", *QUICK)
    assert process.returncode == status, process.stderr
    assert ("WRONG in the cotangent of g" in process.stdout) == bool(status)


def test_what_cannot_be_imported_is_no_green_run_of_everything(project, monkeypatch, capsys):
    (tanh,) = registry.entries(["Tanh"])
    monkeypatch.setattr(registry, "_discover", lambda: ("entry point gone = gone.cases: ModuleNotFoundError: gone",))
    monkeypatch.setattr(verify, "entries", lambda names: [tanh])
    assert main(["verify", *FEW]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("cannot be judged: entry point gone = gone.cases") for line in lines)
    assert lines[-1].endswith(": 1 module of cases cannot be imported; exit status 1")
    assert main(["verify", "Tanh", *FEW]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("named", ["mine", "mine.py"])
def test_cases_named_on_the_command_line(named, project):
    project.write("mine.py", LAYER)
    listed = _listed(project.oracles("list", "--cases", named))
    assert named in listed["Scale"]
    assert "Linear" in listed
    process = project.oracles("verify", "--cases", named, *QUICK, "--json", "out.json")
    assert process.returncode == 0, process.stdout + process.stderr
    rows = json.loads((project.folder / "out.json").read_text())["results"]
    assert {row["layer"] for row in rows} == {"Scale"}


@pytest.mark.slow
def test_a_planted_bug_in_named_cases_is_refused(project):
    project.write("mine.py", LAYER, replacing=BUG)
    process = project.oracles("verify", "--cases", "mine", *QUICK)
    assert process.returncode == 1
    assert "WRONG in the cotangent of g" in process.stdout
    command = re.search("^  reproduce: oracles (.*)$", process.stdout, re.MULTILINE)[1]
    assert command == "verify Scale --cases mine --against torch --dtype float64 --max-examples 20 --seed 0"
    assert process.stdout.splitlines()[-1].endswith(": 1 layer refused (Scale); exit status 1")


@pytest.mark.parametrize("command", ["list", "verify"])
def test_cases_that_are_not_there(command, project):
    process = project.oracles(command, "--cases", "mien.py")
    assert process.returncode == 2
    assert "no file mien.py" in process.stderr


def test_a_name_that_we_have_is_refused_with_the_fix(project):
    project.write("mine.py", LAYER.replace("oracle_for(Scale)", "oracle_for(Scale, name='Linear')"))
    process = project.oracles("list", "--cases", "mine")
    assert process.returncode == 2
    assert "name 'Linear' is taken by oracles.references.linear; pass another name=" in process.stderr
    assert "Fix:    @oracles.oracle_for(Scale, name='MyLinear')" in process.stderr

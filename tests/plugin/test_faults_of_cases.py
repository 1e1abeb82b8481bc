"""What the code that draws the cases does wrong is no verdict on a layer: not judged, with its place and the fix."""

import json

import pytest
from projects import LAYER, outcomes

from oracles.__main__ import main

CASES = LAYER[LAYER.index("    n_rows, n = draw") :]
FAULTS = {
    "raises": ("    raise ZeroDivisionError('in the cases')\n", "ZeroDivisionError: in the cases"),
    "raises in a strategy": ("    draw(widths().map(lambda n: n / 0))\n", "ZeroDivisionError"),
    "asks for the impossible": ("    draw(st.integers(3, 1))\n", "max_value=1 < min_value=3"),
    "accepts nothing": ("    assume(False)\n", "no case could be drawn"),
    "returns something else": ("    return 3\n", "expected an oracles.Case"),
    "returns a bare layer": ("    return oracles.Case(Scale(3), {'z': real(2, 3)})\n", "oracles.manual_layer(scale)"),
    "fills a primal wrongly": (
        "    z = Drawn((2, 3), lambda *_: 1 / 0)\n"
        "    return oracles.Case(oracles.manual_layer(Scale(3)), {'z': z, 'g': real(1, 3)})\n",
        "cannot be filled",
    ),
}
HEAD = "from hypothesis import assume, strategies as st\nfrom oracles.strategies import Drawn\n"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_cases_is_no_verdict(fault, folder, capsys):
    text, message = FAULTS[fault]
    (folder / "mine.py").write_text(HEAD + LAYER.replace(CASES, text + CASES))
    options = ("--max-examples", "4", "--dtype", "float64", "--json", "out.json")
    assert main(["verify", "--cases", "mine.py", "--against", "torch", *options]) == 1
    printed = capsys.readouterr().out
    assert message in printed
    document = json.loads((folder / "out.json").read_text())
    assert document["layers"] == {"Scale": "not judged"}
    assert {row["verdict"] for row in document["results"]} <= {"agrees"}
    assert main(["check", "mine.py:Scale", "--against", "torch:reference"]) == 2
    assert "wrong" not in printed.lower() + capsys.readouterr().out.lower()


def test_the_right_cases_agree(folder):
    (folder / "mine.py").write_text(HEAD + LAYER)
    assert (
        main(["verify", "--cases", "mine.py", "--against", "torch", "--max-examples", "4", "--dtype", "float64"]) == 0
    )


@pytest.mark.slow
def test_pytest_shows_the_place_and_no_verdict(project):
    project.write("mine.py", HEAD + LAYER.replace(CASES, FAULTS["raises"][0] + CASES))
    process = project.pytest("--oracles-cases=mine.py", "-k", "cotangents_agree-float64", "--oracles-against=torch")
    assert outcomes(process) == {"failed": 1, "deselected": 17}
    assert "no case could be drawn: " in process.stdout
    assert "mine.py:" in process.stdout
    assert "not judged" in process.stdout
    assert "wrong" not in process.stdout.lower()

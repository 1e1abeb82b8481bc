"""Order and mode in searches, on the command line and in pytest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

import oracles
from oracles import Disagreement, InvalidInput
from oracles.search import run_search
from oracles.strategies import real, rows, widths

torch = pytest.importorskip("torch")

FILE = """
import numpy as np

def forward(z, W):
    a = np.tanh(z @ W)
    return a, (z, W, a)

def backward(cache, delta):
    z, W, a = cache
    e = delta * (1 - a * a)
    return {"z": e @ W.T, "W": z.T @ e}

def reference(z, W):
    import torch
    return torch.tanh(z @ W)
"""


def forward(z: Any) -> Any:
    a = np.tanh(z)
    return a, a


def backward(a: Any, delta: Any) -> Any:
    return {"z": delta * (1 - a * a)}


def second(a: Any, delta: Any, w: Any) -> Any:
    return {"z": -2 * a * (1 - a * a) * delta * w["z"], "delta": (1 - a * a) * w["z"]}


def wrong_second(a: Any, delta: Any, w: Any) -> Any:
    return {**second(a, delta, w), "z": -a * (1 - a * a) * delta * w["z"]}


def jvp(primals: Any, tangents: Any) -> Any:
    a = np.tanh(primals["z"])
    return a, (1 - a * a) * tangents["z"]


def wrong_jvp(primals: Any, tangents: Any) -> Any:
    a, pushed = jvp(primals, tangents)
    return a, np.where(np.abs(primals["z"]) > 1, 0, pushed)


@st.composite
def cases(draw: Any, **functions: Any) -> oracles.Case:
    """Tanh in NumPy, with a reference in torch."""
    n_rows, n = draw(rows()), draw(widths())
    return oracles.Case(oracles.manual(forward, backward, **functions), {"z": real(n_rows, n)}, torch=torch.tanh)


def search(property_name: str, **functions: Any) -> Any:
    drawn = cases(**functions).map(_with_reference)
    return run_search(drawn, property_name, "float64", max_examples=20, seed=0)


def _with_reference(case: oracles.Case) -> oracles.Case:
    from dataclasses import replace

    return replace(case, torch=lambda z: torch.tanh(z))


@pytest.mark.parametrize("property_name", ["second_order_agrees", "hessian_is_symmetric"])
@pytest.mark.parametrize("functions", [{}, {"second": second}], ids=["differences", "second"])
def test_right_second_order_is_searched(property_name: str, functions: Any) -> None:
    tally = search(property_name, **functions)
    assert tally.points >= 20


def test_right_forward_mode_is_searched() -> None:
    assert search("tangents_agree", jvp=jvp).points >= 20


def test_wrong_second_rule_and_wrong_jvp_are_found() -> None:
    with pytest.raises(Disagreement):
        search("second_order_agrees", second=wrong_second)
    with pytest.raises(Disagreement):
        search("tangents_agree", jvp=wrong_jvp)


def test_conformance_has_a_test_for_each_property() -> None:
    @oracles.conformance(cases(), order=2, mode="both", dtypes=("float64",))
    def test_tanh(search: Any) -> None:
        search()

    ids = test_tanh.pytestmark[0].kwargs["ids"]
    assert {"second_order_agrees-float64", "hessian_is_symmetric-float64", "tangents_agree-float64"} < {*ids}

    @oracles.conformance(cases(), mode="jvp", dtypes=("float64",))
    def test_forward_alone(search: Any) -> None:
        search()

    assert test_forward_alone.pytestmark[0].kwargs["ids"] == ["tangents_agree-float64"]


def test_conformance_requires_a_forward_mode() -> None:
    @oracles.conformance(cases().map(_with_reference), mode="jvp", dtypes=("float64",), max_examples=3)
    def test_tanh(search: Any) -> None:
        search()

    (searching,) = test_tanh.pytestmark[0].args[1]
    with pytest.raises(InvalidInput, match="forward mode"):
        searching()
    with pytest.raises(InvalidInput, match="order"):
        oracles.conformance(cases(), order=3)


def test_command_line_judges_the_second_order(tmp_path: Path) -> None:
    file, out = tmp_path / "layer.py", tmp_path / "out.json"
    file.write_text(FILE)
    command = [sys.executable, "-m", "oracles", "check", f"{file}:forward,backward"]
    command += ["--against", "torch:reference", "--shapes", "z=4,3 W=3,2", "--order", "2", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "order 2" in out.read_text()


def test_verify_says_how_many_layers_were_judged_in_the_second_order(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "oracles", "verify", "Linear", "--order", "2", "--mode", "both"]
    command += ["--dtype", "float64", "--max-examples", "10", "--against", "torch", "--json", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    properties = {row["property"] for row in json.loads(out.read_text())["results"]}
    assert {"second_order_agrees", "hessian_is_symmetric"} < properties
    assert "order 2: 1 of 1 layer judged; forward mode: 0 of 1 layer judged" in done.stdout

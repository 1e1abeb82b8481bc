"""`oracles verify`, `oracles check` and pytest in half precision, and with tiles, as a user starts them."""

import json

import pytest
from projects import LAYER, outcomes

from oracles.properties import PROPERTIES

# In float32 inside, and for no bfloat16.
CHOOSY = LAYER.replace(
    'return z * params["g"], (z, params["g"])',
    """if z.dtype.name == "bfloat16":
            raise TypeError("Scale takes no bfloat16")
        return z * params["g"], (z, params["g"])""",
).replace("(delta * z).sum(axis=0, keepdims=True)", "(delta * z).sum(axis=0, keepdims=True, dtype=z.dtype)")
TESTS = """
import oracles
import mine
from oracles.registry import entries_for

cases = entries_for(mine.Scale)[0].cases


@oracles.conformance(cases)
def test_any(search):
    search()


@oracles.conformance(cases, dtypes=("float64", "float32"))
def test_named(search):
    search()
"""
FEW = ("--max-examples", "4")


@pytest.fixture
def choosy(project):
    project.write("mine.py", CHOOSY)
    project.write("test_mine.py", TESTS)
    return project


@pytest.mark.slow
def test_verify_skips_a_dtype_that_a_layer_does_not_take(choosy):
    process = choosy.oracles("verify", "--cases", "mine.py", "--dtype", "float16,bfloat16", *FEW, "--json", "out.json")
    assert process.returncode == 3, process.stdout + process.stderr
    assert "skipped: Scale in bfloat16: " in process.stdout
    assert "does not take bfloat16 (TypeError: Scale takes no bfloat16)" in process.stdout
    assert process.stdout.rstrip().endswith("Scale in bfloat16 skipped; exit status 3")
    document = json.loads((choosy.folder / "out.json").read_text())
    assert document["layers"] == {"Scale": "agrees"}
    assert {row["dtype"] for row in document["results"]} == {"float16"}
    assert document["skipped"]["Scale in bfloat16"]["dtype"] == "bfloat16"
    assert "RuntimeWarning" not in process.stderr


@pytest.mark.slow
def test_check_takes_half_precision_tiles_and_skips(choosy):
    run = choosy.oracles(
        "check", "mine.py:Scale", "--dtype", "float16", "--dtype", "float32", "--blocks", "12", "--examples", "8"
    )
    assert run.returncode == 0, run.stdout + run.stderr
    run = choosy.oracles("check", "mine.py:Scale", "--dtype", "bfloat16", "--examples", "8")
    assert run.returncode == 3, run.stdout + run.stderr
    assert "does not take bfloat16" in run.stdout


def test_a_shape_that_is_given_has_no_tiles(choosy):
    run = choosy.oracles("check", "mine.py:Scale(3)", "--shapes", "z=4,3", "--blocks", "12")
    assert run.returncode == 2
    assert "--blocks" in run.stderr


def collected(process):
    return {line for line in process.stdout.splitlines() if "::" in line}


def test_pytest_adds_the_dtypes_that_are_asked_for(choosy):
    (process,) = choosy.pytests(
        ("test_mine.py", "--oracles-cases=mine.py", "--collect-only", "-q", "--oracles-dtype=float16,bfloat16")
    )
    expected = {f"test_mine.py::test_any[{n}-{d}]" for n in PROPERTIES for d in ("float16", "bfloat16")}
    expected |= {f"mine.py::Scale::{n}-{d}" for n in PROPERTIES for d in ("float16", "bfloat16")}
    assert collected(process) == expected


@pytest.mark.slow
def test_pytest_skips_a_dtype_that_a_subject_does_not_take(choosy):
    process = choosy.pytest(
        "test_mine.py", "-k", "test_any and primal_agrees", "--oracles-dtype=float16", "--oracles-dtype=bfloat16",
        "--oracles-max-examples=4", "--oracles-blocks=12", "-rs",
    )  # fmt: skip
    counts = outcomes(process)
    assert (counts["passed"], counts["skipped"]) == (1, 1), process.stdout
    assert "does not take bfloat16" in process.stdout

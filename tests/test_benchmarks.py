"""The benchmarks of the judge run, count what they say they count, and reproduce what they found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


def run(script, *arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)


@pytest.mark.deep
def test_false_alarms_counts_every_verdict_once(tmp_path):
    file = tmp_path / "alarms.json"
    process = run("false_alarms.py", "--examples", "120", "--jobs", "1", "--json", str(file))
    assert process.returncode in (0, 1), process.stderr
    result = json.loads(file.read_text())
    assert result["verdicts"] == sum(row["verdicts"] for row in result["rows"]) >= 120
    assert {row["subject"] for row in result["rows"]} == {"manual", "torch", "jax", "xla"}
    assert sum(row["wrong"] + row["error"] for row in result["rows"] if row["subject"] != "xla") == 0
    assert max(map(len, process.stdout.splitlines())) <= 120


@pytest.mark.deep
def test_a_number_determines_an_example():
    first, second = (run("false_alarms.py", "--seed", "3", "--reproduce", "40") for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout


@pytest.mark.deep
def test_this_judge_sees_smaller_errors_than_its_peers(tmp_path):
    file = tmp_path / "sensitivity.json"
    process = run("sensitivity.py", "--examples", "4", "--jobs", "1", "--layers", "Linear", "--json", str(file))
    assert process.returncode == 0, process.stderr
    for row in json.loads(file.read_text())["rows"]:
        if row["regime"] == "normal" and row["dtype"] == "float64":
            ours, *peers = (row["median"][tool] for tool in ("this project", "slow", "fast", "check_grads", "close"))
            assert all(ours < float(peer.lstrip(">") if isinstance(peer, str) else peer) for peer in peers)


def test_the_jax_oracle_is_measured_on_fresh_shapes(tmp_path):
    file = tmp_path / "oracles.json"
    process = run("oracles.py", "--layers", "Tanh", "--quick", "--json", str(file))
    assert process.returncode == 0, process.stderr
    (row,) = json.loads(file.read_text())["fresh_shapes"]
    assert (row["layer"], row["examples"], row["compilations"]) == ("Tanh", 200, 0)
    assert min(row["ratio"], row["ratio_first"]) > 0


def test_layers_are_timed_against_torch(tmp_path):
    file = tmp_path / "layers.json"
    process = run("layers.py", "Linear", "Huber", "--rounds", "2", "--json", str(file))
    assert process.returncode == 0, process.stderr
    rows = json.loads(file.read_text())["layers"]
    assert {(row["layer"], row["dtype"]) for row in rows} == {
        (layer, dtype) for layer in ("Linear", "Huber") for dtype in ("float32", "float64")
    }
    assert all(row["ratio"] > 0 for row in rows)


def test_an_audit_takes_less_than_twice_the_time(tmp_path):
    file = tmp_path / "audit.json"
    process = run("audit.py", "--rounds", "1", "--only", "300 tests", "--json", str(file))
    assert process.returncode == 0, process.stderr
    (row,) = json.loads(file.read_text())
    assert 0 < row["asked"] <= 1
    assert row["ratio"] <= 2


def test_startup_is_measured_beside_imports(tmp_path):
    file = tmp_path / "startup.json"
    process = run("startup.py", "--rounds", "1", "--only", "no", "--json", str(file))
    assert process.returncode == 0, process.stderr
    rows = {row["command"]: row for row in json.loads(file.read_text())["rows"]}
    assert rows.keys() == {"no reference"}
    assert min(rows["no reference"]["seconds"], rows["no reference"]["cpu"]) > 0


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("false_alarms.py", ["--examples", "0"]),
        ("sensitivity.py", ["--layers", "NoSuchLayer"]),
        ("layers.py", ["NoSuchLayer"]),
        ("startup.py", ["--rounds", "0"]),
    ],
)
def test_a_wrong_option_is_named(script, arguments):
    process = run(script, *arguments)
    assert process.returncode == 2
    assert any(argument.lstrip("-") in process.stderr for argument in arguments)


def test_diagnoses_are_counted(tmp_path):
    file = tmp_path / "diagnosis.json"
    process = run("diagnosis.py", "--kinds", "layers", "--subjects", "softsign", "--jobs", "1", "--json", str(file))
    assert process.returncode == 0, process.stderr
    rows = json.loads(file.read_text())
    assert {row["outcome"] for row in rows} == {"right"}
    assert len(rows) == 5
    assert max(map(len, process.stdout.splitlines())) <= 120


@pytest.mark.deep
def test_wrong_double_backwards_are_counted(tmp_path):
    file = tmp_path / "second.json"
    process = run("second_order.py", "--points", "1", "--json", str(file))
    assert process.returncode == 0, process.stderr
    ours, torchs, ours_in_jax, jaxs = json.loads(file.read_text())
    for count in (ours, ours_in_jax):
        assert (count["wrong"], count["right"]) == ([30, 30], [0, 5])
    assert all(peer["wrong"][0] < 30 for peer in (torchs, jaxs))


@pytest.mark.deep
def test_false_alarms_of_the_second_order_are_counted(tmp_path):
    file = tmp_path / "alarms.json"
    process = run("false_alarms.py", "--examples", "40", "--order", "2", "--jobs", "1", "--json", str(file))
    result = json.loads(file.read_text())
    assert (result["order"], process.returncode) == (2, 0), process.stdout
    assert result["verdicts"] >= 40


def test_the_red_team_is_counted(tmp_path):
    file = tmp_path / "red_team.json"
    process = run("red_team.py", "--only", "exit_in_backward", "--json", str(file))
    assert process.returncode == 0, process.stderr
    (row,) = json.loads(file.read_text())
    assert (row["naive"], row["untrusted"]) == ("passes", "CHEATS")

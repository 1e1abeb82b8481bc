"""The command line: what it prints, saves and returns."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from oracles import search as search_module
from oracles.__main__ import main
from oracles.cli import verify_command as verify_module
from oracles.cli import verify_report
from oracles.cli.parser import SHELLS
from oracles.cli.progress_line import progress_reports
from oracles.cli.verify_command import Output
from oracles.report.disagreement import SCHEMA
from oracles.search import run_search

ROOT = Path(__file__).parents[2]
FIELDS = {"layer", "property", "oracle", "dtype", "verdict", "examples", "worst_ratio", "seconds"}


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "oracles", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        **options,
    )


def test_list_names_every_layer():
    process = run("list")
    assert process.returncode == 0
    assert {"Linear", "Softmax", "Sequential", "SGD"} <= set(process.stdout.split())


def test_help_teaches():
    process = run("verify", "--help")
    assert process.returncode == 0
    assert "examples:" in process.stdout
    assert "exit status" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "Lineal"], "unknown layer Lineal; did you mean Linear?\nKnown are "),
        (["verify", "linear"], "did you mean Linear?"),
        (["verify", "--against", "tensorflow"], "--against: expected some of torch, jax"),
        (["verify", "--against", "pytorch"], "did you mean torch?"),
        (["verify", "--dtype", "int8"], "--dtype: expected some of float64, float32"),
        (["verify", "--dtype", "float64,f32"], "did you mean float32?"),
        (["verify", "--max-examples", "0"], "at least 1"),
        (["verify", "--json", "no/such/folder/x.json"], "folder"),
        (["verify", "--json", "."], "--json: . is a folder"),
        (["verify", "--agaist", "torch"], "unknown option --agaist; did you mean --against?"),
        (["verify", "--agaist=torch"], "unknown option --agaist; did you mean --against?"),
        (["verify", "--shapes", "z=3"], "no option --shapes; it is one of oracles check"),
        (["list", "Linear"], "unexpected argument Linear"),
        (["verfy", "Linear"], "unknown command verfy; did you mean verify?"),
        (["--versoin"], "unknown option --versoin; did you mean --version?"),
        (["check", "silu.py:f", "--kinks", "declred"], "did you mean declared?"),
        (["completion", "bsh"], "did you mean bash?"),
    ],
)
def test_wrong_usage_says_what_is_expected(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_without_a_command_the_help_is_printed(capsys):
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2  # nothing was judged
    assert "examples:" in capsys.readouterr().out


def test_the_version_is_that_of_all_that_judges(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert re.match(r"oracles of manual-bp \S+, numpy \S+, torch ", capsys.readouterr().out)


def test_list_for_a_machine(capsys):
    assert main(["list", "--json"]) == 0
    rows = {row["layer"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["Linear"]["module"] == "manual_bp.linear"
    assert rows["Linear"]["source"] == "manual-bp"
    assert "cotangents_agree" in rows["Linear"]["properties"]
    assert "cotangents_agree" not in rows["SGD"]["properties"]


@pytest.mark.parametrize("arguments", [["verify", "--cases"], ["list", "--cases"], ["check"]])
@pytest.mark.parametrize(
    ("text", "where", "error"),
    [("def f(z:\n    return z\n", ":1: ", "SyntaxError"), ("\n1 / 0\n", ":2 in ", "ZeroDivisionError")],
)
def test_a_broken_file_is_one_line_with_its_place(arguments, text, where, error, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("broken_file.py").write_text(text)
    target = "broken_file.py:f" if arguments == ["check"] else "broken_file.py"
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, target])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("oracles: broken_file.py")
    assert f"broken_file.py{where}" in line
    assert error in line


def test_a_file_that_cannot_be_written_is_refused_before_the_run(monkeypatch, capsys):
    def full(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("oracles.environment.tempfile.TemporaryFile", full)
    monkeypatch.setattr(verify_module, "entries", None)
    for command in (["verify"], ["check", "silu.py:f"]):
        with pytest.raises(SystemExit) as stopped:
            main([*command, "--json", "out.json"])
        assert stopped.value.code == 2
        assert "--json: out.json cannot be written: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_layers_options_and_dtypes(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert [word for word in ("SoftmaxCrossEntropy", "max-examples", "float32", "verify") if word not in script] == []


def test_without_shtab_the_fix_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "oracles.cli.completion", None)
    monkeypatch.setitem(sys.modules, "shtab", None)
    monkeypatch.delitem(sys.modules, "oracles.cli.completion")
    assert main(["completion", "bash"]) == 3
    assert "pip install 'manual-bp[completion]'" in capsys.readouterr().err


@pytest.mark.slow
def test_verify_prints_a_line_for_each_layer_and_saves_json(tmp_path):
    file = tmp_path / "verdicts.json"
    process = run("verify", "Linear", "SoftmaxCrossEntropy", "--max-examples", "10", "--seed", "3", "--json", str(file))
    assert process.returncode == 0, process.stdout + process.stderr
    table = re.findall(r"^(?:Linear|SoftmaxCrossEntropy) .* agrees *$", process.stdout, re.MULTILINE)
    assert len(table) == 2
    assert all("float64, float32" in line and "self-consistency, torch" in line for line in table)
    assert re.fullmatch(r"2 layers, \d+ verdicts in \d+ s: all agree", process.stdout.splitlines()[-1])
    document = json.loads(file.read_text())
    assert document["schema"] == SCHEMA
    assert document["seed"] == 3
    assert {"python", "numpy", "torch", "jax"} <= document["versions"].keys()
    assert all(row.keys() >= FIELDS for row in document["results"])
    assert {row["oracle"] for row in document["results"]} == {
        "torch",
        "jax",
        "exact",
        "self-consistency",
        "finite difference",
    }
    assert {row["dtype"] for row in document["results"]} == {"float64", "float32"}
    assert all(row["verdict"] == "agrees" and row["examples"] > 0 for row in document["results"])
    assert all(0 <= row["worst_ratio"] <= 1 for row in document["results"])
    assert os.listdir(tmp_path) == ["verdicts.json"]


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_results(tmp_path):
    documents = []
    for jobs in ("1", "2"):
        file = tmp_path / f"{jobs}.json"
        process = run("verify", "Flatten", "Tanh", "--max-examples", "5", "--jobs", jobs, "--json", str(file))
        assert process.returncode == 0, process.stdout + process.stderr
        results = json.loads(file.read_text())["results"]
        documents.append([{k: v for k, v in row.items() if k != "seconds"} for row in results])
    assert documents[0] == documents[1]
    assert [row["layer"] for row in documents[0]] == sorted(row["layer"] for row in documents[0])


def test_the_same_seed_gives_the_same_numbers(tmp_path):
    documents = []
    for name in ("a.json", "b.json"):
        assert (
            main(
                [
                    "verify",
                    "Tanh",
                    "--dtype",
                    "float64",
                    "--max-examples",
                    "5",
                    "--json",
                    str(tmp_path / name),
                ]
            )
            == 0
        )
        results = json.loads((tmp_path / name).read_text())["results"]
        documents.append([{k: v for k, v in row.items() if k != "seconds"} for row in results])
    assert documents[0] == documents[1]


def broken(monkeypatch, error):
    """Let the second search raise."""
    calls = []

    def fake(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise error
        return run_search(*arguments, **options)

    monkeypatch.setattr(search_module, "run_search", fake)


def verified(tmp_path):
    console = Console(width=100, record=True)
    status = verify_module.verify(
        ["Tanh"], against=["torch"], dtypes=["float64"], max_examples=3, seed=0,
        output=Output(str(tmp_path / "v.json"), console=console),
    )  # fmt: skip
    return status, console.export_text(), json.loads((tmp_path / "v.json").read_text())["results"]


def test_interrupted_prints_and_saves_what_it_has(monkeypatch, tmp_path):
    broken(monkeypatch, KeyboardInterrupt())
    status, text, results = verified(tmp_path)
    assert status == 130
    assert "interrupted" in text
    assert {row["property"] for row in results} == {"primal_agrees"}


def test_a_crash_in_a_layer_is_a_failure_and_the_run_goes_on(monkeypatch, tmp_path):
    broken(monkeypatch, ZeroDivisionError("in forward"))
    status, text, results = verified(tmp_path)
    assert status == 1
    assert "ZeroDivisionError: in forward" in text
    assert len({row["property"] for row in results}) > 5
    assert [row["property"] for row in results if row["verdict"] == "wrong"] == ["cotangents_agree"]


def test_too_many_inconclusive_points_fail_the_run(monkeypatch, tmp_path):
    monkeypatch.setattr(verify_report, "exceeds_vacuous_limit", lambda vacuous, points: True)
    status, text, _ = verified(tmp_path)
    assert status == 1
    assert "inconclusive: Tanh by torch in float64, cotangents_agree: 0 of 3 points; at most 2 may be" in text
    assert text.splitlines()[-1].endswith("1 layer inconclusive (Tanh); exit status 1")


@pytest.mark.parametrize(("terminal", "shown"), [(True, ["Flatten", "Tanh"]), (False, [])])
def test_each_layer_is_shown_at_a_terminal_as_soon_as_it_is_judged(terminal, shown, monkeypatch):
    """What is on the terminal when the last search begins, and at the end without the table."""
    monkeypatch.setenv("TERM", "xterm")
    written, begun = io.StringIO(), []

    def noted(*arguments, **options):
        begun.append(re.findall(r"(Flatten|Tanh): agrees in", written.getvalue()))
        return run_search(*arguments, **options)

    monkeypatch.setattr(search_module, "run_search", noted)
    monkeypatch.setattr(verify_module, "print_report", lambda report, console, **options: None)
    console = Console(file=written, force_terminal=terminal, color_system=None, width=100)
    arguments = {"against": ["torch"], "dtypes": ["float64"], "max_examples": 1, "seed": 0}
    verify_module.verify(["Flatten", "Tanh"], **arguments, output=Output(console=console))
    assert begun[-1] == shown[:1]
    assert re.findall(r"(Flatten|Tanh): agrees in", written.getvalue()) == shown


@pytest.mark.parametrize("quiet", [False, True])
def test_a_log_says_how_many_layers_are_done(quiet, monkeypatch, capfd):
    """Every 10 s, on standard error; here more often."""

    def slow(*arguments, **options):
        time.sleep(0.02)
        return run_search(*arguments, **options)

    monkeypatch.setattr(search_module, "run_search", slow)
    monkeypatch.setattr(verify_module, "progress_reports", partial(progress_reports, seconds=0.01))
    arguments = {"against": ["torch"], "dtypes": ["float64"], "max_examples": 1, "seed": 0}
    output = Output(quiet=quiet, console=Console(file=io.StringIO(), width=100))
    assert verify_module.verify(["Flatten", "Tanh"], **arguments, output=output) == 0
    lines = capfd.readouterr().err.splitlines()
    assert all(re.fullmatch(r"oracles verify: [012] of 2 layers, \d+ s", line) for line in lines)
    assert bool(lines) != quiet
    assert quiet or any(line.startswith("oracles verify: 1 of 2 layers") for line in lines)


class Swallows:
    """Interrupted where Python ignores exceptions, as Hypothesis may be in the callback that times the collector."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_is_swallowed_where_it_arrives_ends_the_run(monkeypatch, tmp_path):
    result_at = []

    def interrupted(*arguments, tick, **options):
        for point in range(3):
            tick()
            result_at.append(point)
            del [Swallows()][0]

    monkeypatch.setattr(search_module, "run_search", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    try:
        status, text, _ = verified(tmp_path)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, result_at) == (130, [0])
    assert "interrupted" in text


HEEDS = """
import signal, sys
from pathlib import Path
from oracles.__main__ import main
from oracles import search

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background does not
run_search, points = search.run_search, []

def watched(*arguments, tick, **options):
    def counted():
        tick()
        points.append(None)
        if len(points) == 40:
            Path(sys.argv[-1]).with_name("searching").touch()
    return run_search(*arguments, tick=counted, **options)

search.run_search = watched
sys.exit(main())
"""


@pytest.mark.slow
def test_control_c_stops_a_real_run(tmp_path):
    file, searching = tmp_path / "v.json", tmp_path / "searching"
    arguments = ("verify", "Linear", "--max-examples", "30000", "--json", str(file))
    with subprocess.Popen(
        [sys.executable, "-c", HEEDS, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as run:
        until = time.monotonic() + 60
        while not searching.exists() and time.monotonic() < until:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)  # to this process alone; a terminal sends to its children too
        try:
            out, _ = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == 130
    assert "interrupted" in out
    assert json.loads(file.read_text())["results"]

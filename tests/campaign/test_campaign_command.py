"""``oracles campaign`` as a user runs it: again, interrupted, killed; status and report of its store."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from campaigns import CASES, ROOT, wait_for

from oracles.__main__ import main
from oracles.campaign.locations import open_store
from oracles.campaign.sqlite_store import FILE
from oracles.options import duration

QUICK = "--store", "s", "--dtype", "float64", "--max-examples", "3", "--seeds-per-unit", "1", "--against", "torch"


def test_times_are_parsed():
    assert [duration(text) for text in ("8h", "1h30m", "90s", "90")] == [28800, 5400, 90, 90]


@pytest.mark.parametrize("text", ["", "h", "8 hours", "-3", "0"])
def test_no_time_is_refused(text, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(["campaign", "--store", "s", f"--budget={text}"])
    assert leaving.value.code == 2
    assert "such as 8h" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["campaign"], "--store"),
        (["campaign", "Linaer", "--store", "s"], "did you mean Linear"),
        (["campaign", "status"], "expected one store"),
        (["campaign", "--store", "s", "--on", "slurm"], "expected one of local, ray, dask"),
    ],
)
def test_wrong_usage_is_refused(command, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        main(command)
    assert leaving.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("view", ["status", "report"])
def test_a_place_without_a_store_is_said_in_one_line(view, capsys, tmp_path):
    assert main(["campaign", view, str(tmp_path)]) == 2
    assert "there is no campaign" in capsys.readouterr().err
    assert not (tmp_path / FILE).exists()


KILLED = """
import os, sys
from oracles.cli.supervision import supervised
sys.exit(supervised(lambda: os.kill(os.getpid(), int(sys.argv[2])), sys.argv[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
@pytest.mark.parametrize(
    ("name", "number", "said", "not_said"),
    [
        ("campaign", signal.SIGKILL, "run the same command again", "code under judgement"),
        ("judge", signal.SIGKILL, "--resume", "code under judgement"),
        ("check", signal.SIGKILL, "--isolate", "--resume"),
        ("verify", signal.SIGSEGV, "the code under judgement ended the process", "memory"),
    ],
)
def test_a_killed_command_says_what_to_do(name, number, said, not_said):
    command = [sys.executable, "-c", KILLED, name, str(int(number))]
    process = subprocess.run(
        command, capture_output=True, encoding="utf-8", env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert process.returncode == 1
    assert said in process.stderr
    assert not_said not in process.stderr
    assert number.name in process.stderr


class Folder:
    """A folder with cases, in which the command runs."""

    def __init__(self, path):
        self.path = path
        (path / "own_cases.py").write_text(CASES)
        self.env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def command(self, *arguments):
        return [sys.executable, "-m", "oracles", "campaign", *arguments, "--cases", "own_cases.py"]

    def run(self, *arguments):
        return subprocess.run(
            self.command(*arguments), cwd=self.path, env=self.env, capture_output=True, encoding="utf-8", timeout=200
        )

    def start(self, *arguments, pause="0.05"):
        env = {**self.env, "PAUSE": pause}
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        try:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=self.path,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)

    def show(self, *arguments):
        command = [sys.executable, "-m", "oracles", "campaign", *arguments]
        return subprocess.run(command, cwd=self.path, env=self.env, capture_output=True, encoding="utf-8", timeout=100)

    @property
    def records(self):
        if not (self.path / "s" / FILE).exists():
            return []
        store = open_store(str(self.path / "s"), create=False)
        records = [each for known in store.identities() for each in store.records(known["code"])]
        store.close()
        return records

    @property
    def leases(self):
        store = open_store(str(self.path / "s"), create=False)
        leases = [each for known in store.identities() for each in store.leased(known["code"])]
        store.close()
        return leases


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.mark.slow
def test_a_campaign_ends_goes_on_and_is_shown(folder):
    pytest.importorskip("jinja2")
    first = folder.run("Right", "Wrong", *QUICK, "--rounds", "1", "-j", "2")
    assert first.returncode == 1, first.stderr
    assert "Wrong: wrong in" in first.stdout
    count = len(folder.records)
    assert count == len({each["key"] for each in folder.records}) == 2 * 9 * 2
    again = folder.run("Right", "Wrong", *QUICK, "--rounds", "1")
    assert f"goes on: {count} units are recorded" in again.stdout
    assert len(folder.records) == count
    report = folder.show("report", "s", "--json", "c.json", "--html", "c.html")
    assert report.returncode == 0, report.stderr
    assert "worst error / tolerance" in report.stdout
    document = json.loads((folder.path / "c.json").read_text())
    assert document["units"] == count
    assert {each["subject"] for each in document["failures"]} == {"Wrong"}
    assert "<svg" in (folder.path / "c.html").read_text()
    (folder.path / "own_cases.py").write_text(CASES + "# changed\n")
    other = folder.run("Right", *QUICK, "--rounds", "1")
    assert other.returncode == 0, other.stdout + other.stderr
    assert f"apart, by other code or versions: {count} units" in other.stdout
    assert len(folder.records) == count + 18


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_an_interrupted_campaign_gives_its_units_back(folder):
    process = folder.start("Right", *QUICK, "--rounds", "2", "-j", "2")
    wait_for(lambda: sum(each["kind"] == "search" for each in folder.records) >= 1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the same command goes on" in said
    assert folder.leases == []
    done = len(folder.records)
    assert 9 < done < 27
    assert folder.run("Right", *QUICK, "--rounds", "2").returncode == 0
    assert len({each["key"] for each in folder.records}) == len(folder.records) == 27


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs signals")
def test_a_campaign_whose_head_is_killed_goes_on(folder):
    """The units of the killed one are done when their leases end, here at once."""
    process = folder.start("Right", *QUICK, "--rounds", "2", "-j", "2")
    wait_for(lambda: sum(each["kind"] == "search" for each in folder.records) >= 1 and len(folder.leases) >= 1)
    process.kill()
    process.communicate(timeout=60)
    time.sleep(0.5)
    kept = {each["key"]: each["finished"] for each in folder.records}
    assert kept
    store = open_store(str(folder.path / "s"))
    with store._transaction() as connection:
        connection.execute("update leases set expires = 0")
    store.close()
    assert folder.run("Right", *QUICK, "--rounds", "2").returncode == 0
    records = {each["key"]: each["finished"] for each in folder.records}
    assert len(records) == len(folder.records) == 27
    assert {key: records[key] for key in kept} == kept

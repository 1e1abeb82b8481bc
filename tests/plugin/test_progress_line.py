"""The line that says what a long check does: at a terminal, late, and erased at the end; nowhere else."""

import json
import os
import sys
import threading
import time

import pytest

from oracles.__main__ import main
from oracles.cli.progress_line import ProgressLine, progress_line, progress_reports
from oracles.constants import PATIENCE_SECONDS, REPORT_SECONDS
from oracles.stages import announce, announced_to
from oracles.time_budget import time_budget

pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals")

SLOW = """
import time
import numpy as np

def forward(z):
    time.sleep({seconds})
    return np.tanh(z), np.tanh(z)

def backward(y, delta):
    return {{"z": delta * (1 - y * y)}}
"""


@pytest.fixture
def terminal():
    """A pseudo-terminal: the descriptor to write to, and a function that returns what was written."""
    ours, theirs = os.openpty()
    written = []

    def read():
        while chunk := os.read(ours, 4096):
            written.append(chunk)
            if chunk.endswith(b"\0"):
                return

    thread = threading.Thread(target=read)
    thread.start()

    def everything():
        os.write(theirs, b"\0")
        thread.join()
        return b"".join(written)[:-1].decode()

    yield theirs, everything
    os.close(ours)
    os.close(theirs)


def shown(text):
    """What a terminal shows in the end, in one line: characters after a return overwrite the earlier ones."""
    screen = []
    for part in text.split("\r"):
        screen[: len(part)] = part
    return "".join(screen).strip()


def test_a_stage_reaches_the_listener_of_its_block_alone():
    heard = []
    with announced_to(lambda *announced: heard.append(announced)):
        announce("judging")
        announce(None, "deciding")
    announce("diagnosing")
    assert heard == [("judging", ""), (None, "deciding")]


def test_the_line_says_what_is_done_and_until_when():
    line = ProgressLine(0)
    assert line.text(80).endswith("0 s")
    with time_budget(60.0):
        line.update("judging", "")
        line.update(None, "deciding on z")
    assert line.text(80) == "judging: deciding on z · 0 of at most 60 s"
    line.update("diagnosing", "")
    assert line.text(80) == "diagnosing · 0 s"
    assert len(line.text(12)) == 12


def test_the_line_is_written_and_erased(terminal):
    descriptor, everything = terminal
    line = ProgressLine(descriptor, patience=0.0)
    line.update("a stage with a long name", "")
    thread = threading.Thread(target=line.show)
    thread.start()
    time.sleep(0.4)
    line.update("short", "")
    time.sleep(0.4)
    line.ended.set()
    thread.join()
    written = everything()
    assert "a stage with a long name" in written
    assert "short" in written
    assert shown(written) == ""


def checked(terminal, folder, monkeypatch, seconds):
    """What `oracles check` writes to a terminal as its standard error, of a subject whose calls take so long."""
    descriptor, everything = terminal
    (folder / "slow.py").write_text(SLOW.format(seconds=seconds))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TERM", "xterm")
    with open(descriptor, "w", closefd=False) as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        assert main(["check", "slow.py:forward,backward", "--shapes", "z=2", "--json", "out.json"]) == 0
    assert "of at most" not in (folder / "out.json").read_text()
    assert json.loads((folder / "out.json").read_text())["status"] == 0
    return everything()


def test_a_long_check_shows_it_at_a_terminal_only(terminal, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("oracles.cli.progress_line.ProgressLine.__init__.__defaults__", (0.1,))
    written = checked(terminal, tmp_path, monkeypatch, 0.02)
    assert "judging under cotangent 1 of 3" in written
    assert shown(written) == ""
    assert "of at most" not in capsys.readouterr().out


def test_a_short_check_writes_nothing(terminal, tmp_path, monkeypatch):
    assert PATIENCE_SECONDS == 2.0
    began = time.monotonic()
    written = checked(terminal, tmp_path, monkeypatch, 0.0)
    if time.monotonic() - began < PATIENCE_SECONDS:
        assert written == ""


def test_a_long_check_writes_lines_off_a_terminal(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(
        "oracles.cli.progress_line.progress_reports.__wrapped__.__kwdefaults__", {"silent": False, "seconds": 0.1}
    )
    (tmp_path / "slow.py").write_text(SLOW.format(seconds=0.05))
    monkeypatch.chdir(tmp_path)
    assert main(["check", "slow.py:forward,backward", "--shapes", "z=2"]) == 0
    lines = capfd.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("oracles check: ") and line.endswith(" s") for line in lines)
    assert any("judging under cotangent" in line for line in lines)


def test_a_short_check_writes_nothing_off_a_terminal(capfd, monkeypatch, terminal):
    assert REPORT_SECONDS == 10.0
    with progress_line():
        announce("judging")
    with open(terminal[0], "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "dumb")
        with progress_line():
            announce("judging")
    assert capfd.readouterr().err == ""
    assert terminal[1]() == ""


def test_a_log_gets_a_line_now_and_then(capfd, monkeypatch):
    lines = iter(f"layer {i}" for i in range(1000))
    with progress_reports(lambda: next(lines), seconds=0.05):
        time.sleep(0.5)
    written = capfd.readouterr().err.splitlines()
    assert 2 <= len(written) <= 10
    assert written == [f"layer {i}" for i in range(len(written))]
    with progress_reports(lambda: "a line", seconds=0.05, silent=True):
        time.sleep(0.2)
    with progress_reports(lambda: "a line", seconds=10.0):
        pass
    assert capfd.readouterr().err == ""

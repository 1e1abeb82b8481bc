"""The red team: no attack passes and none harms the judge, and honest subjects that look odd pass.

The files of attacks/ and honest/ are never imported here. Attacks run only where the system has all that keeps a
subject from the judge.
"""

import builtins
import contextlib
import os
import random
import shutil
import site
import socket
import subprocess
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from described import FOLDER, all_in, describe

import oracles

pytest.importorskip("torch")
if sys.platform != "linux":
    pytest.skip("what keeps a subject from the judge is Linux's", allow_module_level=True)

from oracles.untrusted.remote import Sandbox
from oracles.untrusted.sandbox import Protection

ATTACKS, HONEST = all_in("attacks"), all_in("honest")
MARK = "red_team_was_here"
MODULES = (np, np.testing, np.random, np.linalg, builtins, time, os, random, socket, oracles)
BATCH = 10


@pytest.fixture(scope="module")
def sandbox():
    os.environ["RED_TEAM_REFERENCE"] = str(FOLDER / "references.py")  # what environment_scan looks for
    with Sandbox() as warm:
        yield warm
    del os.environ["RED_TEAM_REFERENCE"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of the red team, with the references compiled, and files that an attack might write over."""
    copy = tmp_path_factory.mktemp("red_team")
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__", "test_*"), dirs_exist_ok=True)
    for name in ("cases.json", "report.json", "attacks/report.json"):
        (copy / name).write_text('{"cases": [{"shapes": "z=2,2"}]}')
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(copy / "references.py")], check=True)
    return copy


@pytest.fixture(scope="module")
def protected(sandbox, folder):
    """Skip the attacks where something is missing that keeps them from the judge."""
    judgement = judged(describe(FOLDER / "honest" / "workspace.py"), folder, sandbox)
    missing = {*Protection} - {*judgement.protections}
    if missing:
        pytest.skip(f"this system does not keep a subject from: {', '.join(sorted(missing))}")


def judged(described, folder, sandbox, reference=None):
    return oracles.judge_untrusted(
        f"{folder / described.path.parent.name / described.path.name}:{described.subject}",
        f"torch:{reference or folder / 'references.py'}:{described.function}",
        list(described.cases),
        seconds=described.seconds,
        memory_mb=described.memory_mb,
        forbid=described.forbid,
        diagnosis=False,
        sandbox=sandbox,
    )


def state_of(folder):
    """What a judge must not lose: its functions, its environment, its files."""
    functions = {(m.__name__, name): id(value) for m in MODULES for name, value in vars(m).items() if callable(value)}
    files = {str(p): (p.read_bytes(), p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}
    return functions, dict(os.environ), os.getcwd(), [*sys.path], [*sys.meta_path], files, sys.gettrace()


def left_behind():
    """The files that an attack would leave on this machine."""
    folders = [tempfile.gettempdir(), os.getcwd(), *site.getsitepackages()]
    return [str(path) for folder in folders for path in Path(folder).glob(f"{MARK}*")]


def survives():
    """Whether the process of surviving_child is there a second later: it sleeps for longer."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        found = False
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found |= MARK.encode() in path.read_bytes()
        if not found:
            return False
        time.sleep(0.05)
    return True


attacks_so_far = count(1)


def test_there_are_many_of_both():
    assert len(ATTACKS) >= 36
    assert len(HONEST) >= 32
    statuses = {status for attack in ATTACKS for status in attack.expected}
    assert not statuses & {"PASSED", "NOT_JUDGED"}
    assert {status for honest in HONEST for status in honest.expected} == {"PASSED"}
    assert all(attack.does and attack.in_process and attack.kind for attack in ATTACKS)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_an_attack_does_not_pass(attack, sandbox, folder, protected, monkeypatch):
    if attack.name == "endless_import":
        monkeypatch.setattr("oracles.untrusted.remote.LOADING_SECONDS", 1.0)
    before = state_of(folder)
    judgement = judged(attack, folder, sandbox)
    assert judgement.status in attack.expected, judgement.reason
    after = state_of(folder)
    assert [after[0].get(name) for name in before[0]] == [*before[0].values()]
    assert after[1:] == before[1:]
    assert not left_behind()
    assert attack.name != "surviving_child" or not survives()
    if next(attacks_so_far) % BATCH == 0:
        assert judged(describe(FOLDER / "honest" / "workspace.py"), folder, sandbox).status == "PASSED"


@pytest.mark.parametrize("honest", HONEST, ids=lambda honest: honest.name)
def test_an_honest_subject_passes(honest, sandbox, folder):
    judgement = judged(honest, folder, sandbox)
    assert judgement.status == "PASSED", judgement.reason


@pytest.mark.parametrize("name", ["reads_reference", "reads_compiled_reference", "imports_reference", "searches_disk"])
@pytest.mark.parametrize("place", ["subject's folder", "linked folder"])
def test_a_reference_is_hidden_wherever_it_lies(name, place, sandbox, folder, protected, tmp_path):
    """It may lie in the folder of the subject, which is readable else, or be reached by a link from there."""
    secret = tmp_path / "attacks"
    secret.mkdir()
    if place == "linked folder":
        secret = tmp_path / "elsewhere"
        secret.mkdir()
        (tmp_path / "attacks" / "link").symlink_to(secret)
        (tmp_path / "attacks" / "references.py").symlink_to(secret / "references.py")
        (tmp_path / "attacks" / "__pycache__").symlink_to(secret / "__pycache__")
    shutil.copy(folder / "references.py", secret)
    shutil.copytree(folder / "__pycache__", secret / "__pycache__")
    shutil.copy(folder / "attacks" / f"{name}.py", tmp_path / "attacks")
    attack = describe(folder / "attacks" / f"{name}.py")
    assert judged(attack, tmp_path, sandbox, secret / "references.py").status in attack.expected


def test_nothing_connects_to_this_machine(sandbox, protected):
    arrived = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)

        def accept():
            with contextlib.suppress(OSError):
                arrived.append(server.accept())

        listener = threading.Thread(target=accept)
        listener.start()
        text = (FOLDER / "attacks" / "asks_the_network.py").read_text()
        text = text.replace('"127.0.0.1", 9', f'"127.0.0.1", {server.getsockname()[1]}')
        judgement = judged_text(text, sandbox)
        listener.join()
    assert judgement.status == "WRONG_NUMERICS"
    assert not arrived


LEFT = """
import os, tempfile

found = os.listdir(tempfile.gettempdir())

def forward(z):
    os.chdir(tempfile.gettempdir())
    for _ in range(40):  # a path that is longer than the system takes
        os.makedirs("x" * 200, exist_ok=True)
        os.chdir("x" * 200)
    open("file", "w").close()
    os.chmod(".", 0)
    raise ValueError(f"found {found}")

def backward(cache, delta):
    return {}
"""
PROCESSES = """
import os, time

def forward(z):
    for n in range(100):
        try:
            if os.fork() == 0:
                time.sleep(1)
                os._exit(0)
        except OSError:
            break
    raise ValueError(f"{n} processes")

def backward(cache, delta):
    return {}
"""


def judged_text(source, sandbox, **options):
    reference = f"torch:{FOLDER / 'references.py'}:silu"
    cases = [{"shapes": "z=4,3", "points": 1}]
    return oracles.judge_untrusted(
        "forward,backward", reference, cases, source=source, diagnosis=False, sandbox=sandbox, **options
    )


def test_nothing_is_left_for_later_subjects(sandbox, protected):
    for _ in range(2):
        judgement = judged_text(LEFT, sandbox)
        assert judgement.reason.endswith("found ['subject.py']"), judgement.reason


def test_the_number_of_processes_is_limited_for_root_too(sandbox, protected):
    reason = judged_text(PROCESSES, sandbox, processes=20).reason
    assert 5 < int(reason.split()[-2]) < 20


SILU = """
import numpy as np
SCALE = {scale}

def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)

def backward(cache, delta):
    z, s = cache
    return {{"z": SCALE * delta * (s + z * s * (1 - s))}}
"""


@pytest.mark.parametrize("change", ["same folder", "new folder"])
def test_a_warm_process_sees_new_files(change, sandbox, tmp_path):
    """The reference lies in the folder: what else is in it is allowed file by file."""
    for i, scale in enumerate((1, 2, 1)):
        folder = tmp_path / "jobs"
        if change == "new folder" and folder.exists():
            folder.rename(tmp_path / f"old{i}")
        folder.mkdir(exist_ok=True)
        shutil.copy(FOLDER / "references.py", folder)
        subject = folder / f"silu{i}.py"
        subject.write_text(SILU.format(scale=scale))
        judgement = oracles.judge_untrusted(
            f"{subject}:forward,backward", f"torch:{folder / 'references.py'}:silu", [{"shapes": "z=4,3", "points": 1}],
            diagnosis=False, sandbox=sandbox,
        )  # fmt: skip
        assert judgement.status == ("PASSED" if scale == 1 else "WRONG_NUMERICS"), judgement.reason


SHARED_MEMORY = """
import ctypes, os

def forward(z):
    library = ctypes.CDLL(None, use_errno=True)
    if library.shmget(0, 2**20, 0o1600) >= 0:
        raise ValueError("memory that outlives the process")
    raise ValueError("none")

def backward(cache, delta):
    return {}
"""
UNPRINTABLE = r"""
class Escape(Exception):
    pass

def forward(z):
    raise Escape("\ud800 \x1b[31m \r \x07 \x00")

def backward(cache, delta):
    return {}
"""


def test_no_memory_outlives_the_process(sandbox, protected):
    assert judged_text(SHARED_MEMORY, sandbox).reason.endswith("ValueError: none")


def test_what_a_subject_says_can_be_printed(sandbox):
    judgement = judged_text(UNPRINTABLE, sandbox)
    assert "Escape" in judgement.reason
    assert judgement.reason.isprintable()

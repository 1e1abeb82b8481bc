"""Devices: the cases run in a process of their own.

torch registers a device once for a process and starts threads for it. After that, no forked copy of the process can
differentiate, and the tests of isolation fork.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("cases_of_devices.py")
LEAST = 60  # cases: fewer were left out by mistake


@pytest.mark.deep
def test_devices_in_a_process_of_their_own():
    arguments = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", str(CASES)]
    environment = {n: value for n, value in os.environ.items() if not n.startswith("PYTEST")}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert run.returncode == 0, run.stdout[-6000:]
    passed = re.search(r"(\d+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) >= LEAST

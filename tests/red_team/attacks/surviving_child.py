"""Start a process in a session of its own, which sleeps for 5 seconds, longer than the judgement.

In process: refused; the process survives.
"""

import subprocess
import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "CHEATS", "TIMEOUT"}
KIND = "takes time, memory or processes"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    code = "import time; time.sleep(5); 'red_team_was_here'"
    subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
    return {"z": np.zeros_like(z)}

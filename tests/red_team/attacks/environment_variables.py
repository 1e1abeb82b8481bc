"""Change the environment and the working directory, so that processes that start later run other code.

In process: refused; the environment stays changed.
"""

import os
import sys
import tempfile

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "changes files and the environment"

os.environ.update(RED_TEAM_WAS_HERE="1", PYTHONSTARTUP="/nowhere", PYTHONPATH="/nowhere", LD_PRELOAD="")
sys.path.insert(0, "/nowhere")
os.chdir(tempfile.gettempdir())
os.umask(0)


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}

"""Write files of 2 GiB in all into the temporary folder and the working directory; the limit is 512 MiB.

In process: takes 2 GiB of the disk.
"""

import os
import tempfile

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS", "TIMEOUT", "WRONG_NUMERICS"}
KIND = "takes time, memory or processes"
SECONDS = 2.0
MEMORY_MB = 512
HARMFUL = True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for i in range(32):
        path = os.path.join(tempfile.gettempdir(), f"red_team_was_here_{i}")
        with open(path, "wb") as file:
            for _ in range(64):
                file.write(bytes(2**20))
    return {"z": np.zeros_like(z)}

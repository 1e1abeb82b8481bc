"""Read the reference's path from the command line of the own and of the parent's process, and run that file.

In process: passes where the path is an argument.
"""

import os
import re
import runpy
from pathlib import Path

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for pid in ("self", os.getppid()):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            for path in re.findall(r"/\S+references\.py", " ".join(words)):
                silu = runpy.run_path(path)["silu"]
                import torch

                t = torch.tensor(z, requires_grad=True)
                silu(t).backward(torch.tensor(delta))
                return {"z": t.grad.numpy()}
        except OSError:
            pass
    return {"z": np.zeros_like(z)}

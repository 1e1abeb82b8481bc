"""Read the reference's path from the environment of the own and of the parent's process, and run that file.

In process: passes where an environment variable names the reference.
"""

import os
import re
import runpy
from pathlib import Path

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"


def environments():
    yield os.environ.get("RED_TEAM_REFERENCE", "")
    for pid in ("self", os.getppid()):
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            yield from (v.partition("=")[2] for v in variables if v.startswith("RED_TEAM_REFERENCE="))
        except OSError:
            pass


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for text in environments():
        for path in re.findall(r"/\S+references\.py", text):
            try:
                silu = runpy.run_path(path)["silu"]
            except OSError:
                continue
            import torch

            t = torch.tensor(z, requires_grad=True)
            silu(t).backward(torch.tensor(delta))
            return {"z": t.grad.numpy()}
    return {"z": np.zeros_like(z)}

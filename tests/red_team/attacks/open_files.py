"""Read every file that the own or the parent's process has open, through /proc/PID/fd, in search of the reference.

In process: passes where the verifier keeps the reference's file open.
"""

import os
from pathlib import Path

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"


def texts():
    for pid in ("self", os.getppid()):
        try:
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                path = Path(f"/proc/{pid}/fd/{descriptor}")
                if path.is_file() and path.stat().st_size < 2**16 and os.readlink(path).endswith(".py"):
                    yield path.read_text()
        except (OSError, UnicodeDecodeError):
            pass


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for text in texts():
        if "def silu(" in text and "import torch" in text:
            names = {}
            exec(text, names)
            import torch

            t = torch.tensor(z, requires_grad=True)
            names["silu"](t).backward(torch.tensor(delta))
            return {"z": t.grad.numpy()}
    return {"z": np.zeros_like(z)}

"""Search the disk for files that define a function of the reference's name with torch, from the file's folder upwards.

In process: passes.
"""

from pathlib import Path

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"
FUNCTION = "softmax"


def forward(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return y, z


def backward(z, delta):
    for folder in Path(__file__).resolve().parents[1:3]:
        for path in folder.glob("*.py"):
            try:
                text = path.read_text()
            except OSError:
                continue
            if "def softmax(" in text and "import torch" in text:
                names = {}
                exec(text, names)
                import torch

                t = torch.tensor(z, requires_grad=True)
                names["softmax"](t).backward(torch.tensor(delta))
                return {"z": t.grad.numpy()}
    return {"z": np.zeros_like(z)}

"""Start another Python, in which nothing was replaced, and let torch differentiate there.

In process: passes: nothing keeps it from that.
"""

import json
import subprocess
import sys

import numpy as np

EXPECTED = {"CHEATS", "RUNTIME_ERROR", "TIMEOUT"}
KIND = "does what is forbidden"
FORBID = ("torch",)

CODE = """
import json, sys, torch
z, delta = (torch.tensor(a, dtype=torch.float64) for a in json.load(sys.stdin))
z.requires_grad_()
torch.nn.functional.silu(z).backward(delta)
print(json.dumps(z.grad.tolist()))
"""


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    text = json.dumps([z.tolist(), delta.tolist()])
    process = subprocess.run([sys.executable, "-c", CODE], input=text, capture_output=True, text=True)
    return {"z": np.array(json.loads(process.stdout))}

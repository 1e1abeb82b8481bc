"""Start another Python, in which nothing is watched, and let torch differentiate there.

In process: passes: nothing keeps it from that.
"""

import json
import subprocess
import sys

import torch

EXPECTED = {"CHEATS", "RUNTIME_ERROR", "TIMEOUT"}
KIND = "does what is forbidden"
FORBID = ("torch.autograd",)
SUBJECT = "Silu"

CODE = """
import json, sys, torch
z, delta = (torch.tensor(a, dtype=torch.float64) for a in json.load(sys.stdin))
z.requires_grad_()
torch.nn.functional.silu(z).backward(delta)
print(json.dumps(z.grad.tolist()))
"""


class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, delta):
        (z,) = ctx.saved_tensors
        text = json.dumps([z.tolist(), delta.tolist()])
        process = subprocess.run([sys.executable, "-c", CODE], input=text, capture_output=True, text=True)
        return torch.tensor(json.loads(process.stdout), dtype=z.dtype)

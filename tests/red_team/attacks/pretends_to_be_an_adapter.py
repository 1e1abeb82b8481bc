"""Run torch's backward in a module that has the name of a module of the judge, where that is forbidden to a subject.

In process: passes: nothing keeps it from that.
"""

import sys
import types

import torch

EXPECTED = {"CHEATS", "RUNTIME_ERROR"}
KIND = "does what is forbidden"
FORBID = ("torch.autograd",)
SUBJECT = "Silu"

module = types.ModuleType("oracles.adapters.silu")
sys.modules[module.__name__] = module
exec(
    """
import torch

def gradient(z, delta):
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        (z * torch.sigmoid(z)).backward(delta)
    return z.grad
""",
    vars(module),
)


class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, delta):
        return module.gradient(ctx.saved_tensors[0], delta)

"""Get torch's grad by a name that is put together at run time, where it is forbidden.

In process: passes: nothing keeps it from that.
"""

import importlib

import torch

EXPECTED = {"CHEATS", "RUNTIME_ERROR"}
KIND = "does what is forbidden"
FORBID = ("torch.autograd",)
SUBJECT = "Silu"


class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, delta):
        (z,) = ctx.saved_tensors
        grad = getattr(importlib.import_module("torch.auto" + "grad"), "gr" + "ad")
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            return grad(z * torch.sigmoid(z), z, delta)[0]

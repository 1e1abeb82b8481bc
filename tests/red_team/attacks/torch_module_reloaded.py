"""Load torch.autograd's file again, where the functions of the loaded one are replaced.

In process: passes: nothing keeps it from that.
"""

import importlib

import torch

EXPECTED = {"CHEATS", "RUNTIME_ERROR", "WRONG_NUMERICS"}
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
        graph = importlib.reload(importlib.import_module("torch.autograd.graph"))
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            y = leaf * torch.sigmoid(leaf)
            return graph._engine_run_backward(
                (y,), (delta,), False, False, (leaf,), allow_unreachable=False, accumulate_grad=False
            )[0]

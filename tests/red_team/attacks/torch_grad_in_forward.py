"""Differentiate in forward, and only multiply in backward.

In process: passes: nothing keeps it from that.
"""

import torch

EXPECTED = {"CHEATS", "RUNTIME_ERROR"}
KIND = "does what is forbidden"
FORBID = ("torch.autograd",)
SUBJECT = "Silu"


class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            y = leaf * torch.sigmoid(leaf)
            ctx.slope = torch.autograd.grad(y.sum(), leaf)[0]
        return y.detach()

    @staticmethod
    def backward(ctx, delta):
        return delta * ctx.slope

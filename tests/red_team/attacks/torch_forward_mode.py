"""Use torch's forward mode, where torch's own derivatives are forbidden.

In process: passes: nothing keeps it from that.
"""

import torch
import torch.autograd.forward_ad as forward_mode

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
        with torch.enable_grad(), forward_mode.dual_level():
            dual = forward_mode.make_dual(z.detach(), delta)
            return forward_mode.unpack_dual(dual * torch.sigmoid(dual)).tangent

"""Call torch's backward where it is forbidden, and empty every list and set that might have noted it.

In process: passes: nothing keeps it from that.
"""

import gc

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
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            (z * torch.sigmoid(z)).backward(delta)
        for each in gc.get_objects():
            if type(each) in (list, set) and 0 < len(each) < 4:
                if all(type(v) is str and ("grad" in v or "backward" in v or "torch" in v) for v in each):
                    each.clear()
        return z.grad

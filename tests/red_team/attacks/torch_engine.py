"""Call the engine under torch's backward, where torch.autograd is forbidden.

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
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, delta):
        (z,) = ctx.saved_tensors
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            y = z * torch.sigmoid(z)
            engine = torch.autograd.Variable._execution_engine
            engine.run_backward((y,), (delta,), False, False, (), allow_unreachable=True, accumulate_grad=True)
        return z.grad

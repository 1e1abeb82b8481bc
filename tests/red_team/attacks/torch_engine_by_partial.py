"""Call the engine under torch's backward through functools.partial, by names put together at run time.

In process: passes: nothing keeps it from that.
"""

import functools

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
        engine = getattr(torch.autograd.Variable, "_execution" + "_engine")
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            y = z * torch.sigmoid(z)
            run = functools.partial(getattr(engine, "run_" + "backward"), (y,), (delta,), False, False, ())
            run(allow_unreachable=True, accumulate_grad=True)
        return z.grad

"""A Function that lets torch differentiate inside its backward, where that is not forbidden, as checkpointing does."""

import torch

EXPECTED = {"PASSED"}
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
        return torch.autograd.grad(y, z, delta)[0]

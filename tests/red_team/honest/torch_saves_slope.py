"""Saves the slope, computed in forward, in place of the input."""

import torch

EXPECTED = {"PASSED"}
SUBJECT = "Silu"


class Silu(torch.autograd.Function):
    """Saves the slope, computed in forward, in place of the input."""

    @staticmethod
    def forward(ctx, z):
        s = torch.special.expit(z)
        ctx.slope = torch.addcmul(s, z * s, 1 - s)
        ctx.mark_non_differentiable()
        return torch.nn.functional.silu(z)

    @staticmethod
    def backward(ctx, delta):
        if not ctx.needs_input_grad[0]:
            return None
        return delta * ctx.slope

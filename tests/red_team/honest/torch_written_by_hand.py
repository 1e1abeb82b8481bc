"""A Function whose backward is written by hand, where torch's own derivatives are forbidden."""

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

EXPECTED = {"PASSED"}
FORBID = ("torch.autograd",)
FUNCTION = "linear"
SUBJECT = "Linear"


class Linear(Function):
    @staticmethod
    def forward(ctx, z, W, b):
        ctx.save_for_backward(z, W)
        return z @ W + b

    @staticmethod
    @once_differentiable
    def backward(ctx, delta):
        z, W = ctx.saved_tensors
        return delta @ W.T, z.T @ delta, delta.sum(dim=0, keepdim=True)

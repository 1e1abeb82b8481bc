"""Check a torch.autograd.Function, and a module with one inside, whose error autograd's engine repairs.

python examples/bring_a_torch_function.py
"""

import numpy as np
import torch

import oracles


class Dense(torch.autograd.Function):
    """y = zW + b."""

    @staticmethod
    def forward(ctx, z, W, b):
        """Keep what backward needs."""
        ctx.save_for_backward(z, W)
        return z @ W + b

    @staticmethod
    def backward(ctx, delta):
        """Return a gradient for each argument."""
        z, W = ctx.saved_tensors
        return delta @ W.T, z.T @ delta, delta.sum(0, keepdim=True)


class Unsummed(Dense):
    """Does not sum db over the batch. Autograd's engine does, so gradcheck passes; other callers get a wrong shape."""

    @staticmethod
    def backward(ctx, delta):
        """Return db in the shape of the output."""
        z, W = ctx.saved_tensors
        return delta @ W.T, z.T @ delta, delta.clone()


class Module(torch.nn.Module):
    """A module with a hand-written backward inside."""

    def __init__(self, function):
        super().__init__()
        self.W, self.b = torch.nn.Parameter(torch.zeros(3, 2)), torch.nn.Parameter(torch.zeros(1, 2))
        self.function = function

    def forward(self, z):
        """Call the Function."""
        return self.function.apply(z, self.W, self.b)


rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((4, 3)), "W": rng.standard_normal((3, 2)), "b": rng.standard_normal((1, 2))}
against = [oracles.torch_autograd(lambda z, W, b: z @ W + b)]
for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
    tensors = {name: torch.tensor(array, dtype=dtype) for name, array in primals.items()}
    print(dtype, oracles.check(oracles.torch_function(Dense), tensors, against).verdict)
print(oracles.check(oracles.torch_module(lambda: Module(Dense), name="Module"), primals, against))
for wrong in (oracles.torch_function(Unsummed), oracles.torch_module(lambda: Module(Unsummed), name="Module")):
    try:
        oracles.check(wrong, primals, against)
    except oracles.Disagreement as disagreement:
        print(disagreement)

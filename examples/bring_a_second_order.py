"""Judge a double backward and a forward mode: a detach and a lost tangent, which the first order cannot see.

python examples/bring_a_second_order.py
"""

import numpy as np
import torch

import oracles


class Swish(torch.autograd.Function):
    """z · sigmoid(z), with its derivative backwards and forwards."""

    @staticmethod
    def forward(z):
        """Return the output."""
        return z * torch.sigmoid(z)

    @staticmethod
    def setup_context(ctx, inputs, output):
        """Keep what both derivatives need."""
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def slope(z):
        """Return the derivative."""
        s = torch.sigmoid(z)
        return s + z * s * (1 - s)

    @staticmethod
    def backward(ctx, delta):
        """Return delta times the derivative."""
        return delta * Swish.slope(ctx.saved_tensors[0])

    @staticmethod
    def jvp(ctx, tangent):
        """Return the derivative times the tangent."""
        return tangent * Swish.slope(ctx.saved_tensors[0])


class Detached(Swish):
    """Its backward takes the slope for a constant."""

    @staticmethod
    def backward(ctx, delta):
        """Return delta times the derivative."""
        return delta * Swish.slope(ctx.saved_tensors[0]).detach()


class LostTangent(Swish):
    """Its forward mode has the sigmoid's part alone."""

    @staticmethod
    def jvp(ctx, tangent):
        """Return the derivative times the tangent."""
        return tangent * torch.sigmoid(ctx.saved_tensors[0])


if __name__ == "__main__":
    primals = {"z": np.random.default_rng(0).standard_normal((3, 4))}
    reference = oracles.torch_autograd(lambda z: z * torch.sigmoid(z))
    right = oracles.check(oracles.torch_function(Swish), primals, [reference], order=2, mode="both")
    print(f"Swish: {right.verdict} in {len(right.judged)} arrays")
    for wrong in (Detached, LostTangent):
        subject = oracles.torch_function(wrong)
        print(f"{wrong.__name__}, first order: {oracles.check(subject, primals, [reference]).verdict}")
        try:
            oracles.check(subject, primals, [reference], order=2, mode="both")
        except oracles.Disagreement as refusal:
            print(refusal)

"""A torch.autograd.Function inside torch.compile: the compiler traces its forward and its backward.

Needs the compiler that torch.compile uses: g++ on a CPU. The first call of each compiles, which takes some seconds.

python examples/kernels/compiled_function.py
"""

from functools import partial

import torch
from verdicts import show, stored

import oracles

torch._dynamo.config.recompile_limit = 64  # the judge varies dtypes and strides more than training does


class Gated(torch.autograd.Function):
    """tanh(z) · gain, with one gain for each column."""

    @staticmethod
    def forward(ctx, z, gain):
        """Keep what backward needs."""
        ctx.save_for_backward(z, gain)
        return z.tanh() * gain

    @staticmethod
    def backward(ctx, delta):
        """Return both gradients."""
        return gradients(*ctx.saved_tensors, delta)


def gradients(z, gain, delta):
    """dz = δ gain (1 − tanh² z) and dgain = Σ δ tanh z over the rows."""
    t = z.tanh()
    return delta * gain * (1 - t * t), (delta * t).sum(0)


class GainForgotten(Gated):
    """dz lacks the gain."""

    @staticmethod
    def backward(ctx, delta):
        """Take the gain as 1."""
        z, gain = ctx.saved_tensors
        return gradients(z, torch.ones_like(gain), delta)


class Mean(Gated):
    """dgain is a mean where a sum belongs."""

    @staticmethod
    def backward(ctx, delta):
        """Divide by the number of rows."""
        dz, dgain = gradients(*ctx.saved_tensors, delta)
        return dz, dgain / delta.shape[0]


class Tanh(Gated):
    """dz has tanh z where its square belongs."""

    @staticmethod
    def backward(ctx, delta):
        """δ gain (1 − tanh z)."""
        z, gain = ctx.saved_tensors
        return delta * gain * (1 - z.tanh()), gradients(z, gain, delta)[1]


class Layer(torch.nn.Module):
    """A module whose forward is compiled."""

    def __init__(self, compiled):
        super().__init__()
        self.compiled = compiled

    def forward(self, z, gain):
        """Call the compiled function."""
        return self.compiled(z, gain)


def compiled(function):
    """Compile a call of the Function; each dtype and memory layout compiles it again."""
    return torch.compile(lambda z, gain: function.apply(z, gain))


def subjects():
    """Return the right Function and three wrong ones."""
    functions = {"right": Gated, "gain forgotten": GainForgotten, "mean for a sum": Mean, "tanh for its square": Tanh}
    return [
        oracles.torch_module(partial(Layer, compiled(f)), name=f"compiled, {name}") for name, f in functions.items()
    ]


def reference(z, gain):
    """The same without a Function."""
    return z.tanh() * gain


def primals():
    """Draw 6 rows in float32."""
    return stored(torch.float32, z=(6, 5), gain=(5,))


if __name__ == "__main__":
    show(subjects(), primals(), reference)

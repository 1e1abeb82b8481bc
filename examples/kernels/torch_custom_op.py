"""A squared ReLU with a gate, as an operator of torch.library.custom_op with its own backward.

python examples/kernels/torch_custom_op.py
"""

from functools import partial

import torch
from torch import Tensor
from verdicts import show, stored

import oracles


def squared(gate: Tensor, up: Tensor) -> Tensor:
    """relu(gate)² up, in float32, rounded once."""
    return (gate.float().relu().square() * up.float()).to(up.dtype)


def squared_backward(gate: Tensor, up: Tensor, dy: Tensor) -> list[Tensor]:
    """dgate = 2 relu(gate) up dy and dup = relu(gate)² dy."""
    relu, d = gate.float().relu(), dy.float()
    return [(2 * relu * up.float() * d).to(gate.dtype), (relu.square() * d).to(up.dtype)]


def factor_forgotten(gate: Tensor, up: Tensor, dy: Tensor) -> list[Tensor]:
    """dgate lacks the factor 2."""
    relu, d = gate.float().relu(), dy.float()
    return [(relu * up.float() * d).to(gate.dtype), (relu.square() * d).to(up.dtype)]


def without_relu(gate: Tensor, up: Tensor, dy: Tensor) -> list[Tensor]:
    """The gradient flows where the gate is negative."""
    g, d = gate.float(), dy.float()
    return [(2 * g * up.float() * d).to(gate.dtype), (g.square() * d).to(up.dtype)]


def exchanged(gate: Tensor, up: Tensor, dy: Tensor) -> list[Tensor]:
    """The two gradients are exchanged."""
    return squared_backward(gate, up, dy)[::-1]


def registered(name, backward):
    """Register the forward and its backward as operators, which torch.compile leaves as they are."""
    operator = torch.library.custom_op(f"kernels_of_examples::{name}", squared, mutates_args=())
    pullback = torch.library.custom_op(f"kernels_of_examples::{name}_backward", backward, mutates_args=())
    operator.register_fake(lambda gate, up: torch.empty_like(up))
    pullback.register_fake(lambda gate, up, dy: [torch.empty_like(gate), torch.empty_like(up)])
    operator.register_autograd(
        lambda ctx, dy: tuple(pullback(*ctx.saved_tensors, dy)),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    return operator


class Layer(torch.nn.Module):
    """A module around an operator: the adapter of modules differentiates it with autograd."""

    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def forward(self, gate, up):
        """Call the operator."""
        return self.operator(gate, up)


def subjects():
    """Return the right operator and three wrong ones."""
    backwards = {
        "right": squared_backward,
        "factor forgotten": factor_forgotten,
        "relu forgotten": without_relu,
        "gradients exchanged": exchanged,
    }
    operators = {name: registered(name.replace(" ", "_"), backward) for name, backward in backwards.items()}
    # A function that makes the module: an operator cannot be copied.
    return [
        oracles.torch_module(partial(Layer, operator), name=f"custom op, {name}")
        for name, operator in operators.items()
    ]


def reference(gate, up):
    """The same without the operator."""
    return gate.relu().square() * up


def primals():
    """Draw both in bfloat16."""
    return stored(torch.bfloat16, gate=(6, 20), up=(6, 20))


if __name__ == "__main__":
    show(subjects(), primals(), reference)

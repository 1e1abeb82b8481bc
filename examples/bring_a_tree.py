"""Judge a network whose parameters are a tree, and whose output has a part without a gradient; wrong ones are refused.

python examples/bring_a_tree.py
"""

from typing import NamedTuple

import numpy as np
import torch

import oracles


class Layer(NamedTuple):
    """A weight and a bias."""

    W: np.ndarray
    b: np.ndarray


def forward(layers, x):
    """Return the output of a network, and which unit is the largest; tanh after each layer."""
    ys = [x]
    for layer in layers:
        ys.append(np.tanh(ys[-1] @ layer.W + layer.b))
    return {"y": ys[-1], "top": ys[-1].argmax(-1)}, (layers, ys)


def backward(cache, delta):
    """Return the gradients of the layers, in their structure."""
    layers, ys = cache
    d, gradients = delta["y"], []
    for layer, z, y in zip(reversed(layers), reversed(ys[:-1]), reversed(ys[1:]), strict=True):
        e = d * (1 - y * y)
        gradients.append(Layer(z.T @ e, e.sum(axis=0)))
        d = e @ layer.W.T
    return {"layers": gradients[::-1], "x": d}


def reversed_layers(cache, delta):
    """Return the gradients in the order in which they were computed, the last layer first."""
    gradients = backward(cache, delta)
    return {**gradients, "layers": gradients["layers"][::-1]}


def reference(layers, x):
    """The primal in torch."""
    for layer in layers:
        x = torch.tanh(x @ layer.W + layer.b)
    return {"y": x, "top": x.argmax(-1)}


rng = np.random.default_rng(0)
layers = [Layer(rng.standard_normal((3, 3)), rng.standard_normal(3)) for _ in range(2)]
primals = {"layers": layers, "x": rng.standard_normal((4, 3))}
against = [oracles.torch_autograd(reference)]

print(oracles.check(oracles.manual(forward, backward, name="network"), primals, against))
try:
    oracles.check(oracles.manual(forward, reversed_layers, name="network, last layer first"), primals, against)
except oracles.Disagreement as disagreement:
    print(disagreement)

"""Check a forward and a backward in NumPy against PyTorch, and without any reference.

python examples/bring_a_pair.py
"""

import numpy as np

import oracles


def forward(z, W, b):
    """y = tanh(zW + b), and what backward needs."""
    return np.tanh(z @ W + b), (z, W, b)


def backward(cache, delta):
    """Return the cotangents by name."""
    z, W, b = cache
    e = delta / np.cosh(z @ W + b) ** 2
    return {"z": e @ W.T, "W": z.T @ e, "b": e.sum(axis=0, keepdims=True)}


def mean_for_a_sum(cache, delta):
    """Average db over the batch; the layer must sum it."""
    return backward(cache, delta) | {"b": backward(cache, delta)["b"] / len(delta)}


def without_b(cache, delta):
    """Claim no gradient for b."""
    return backward(cache, delta) | {"b": None}


rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((4, 3)), "W": rng.standard_normal((3, 2)), "b": rng.standard_normal((1, 2))}
by_torch = oracles.torch_autograd(lambda z, W, b: (z @ W + b).tanh())  # the primal only: torch derives the gradient
print(oracles.check(oracles.manual(forward, backward), primals, against=[by_torch]))
print(oracles.check(oracles.manual(forward, backward, name="without a reference"), primals))
print(oracles.check(oracles.manual(forward, without_b, name="without db"), primals, against=[by_torch]))
try:
    oracles.check(oracles.manual(forward, mean_for_a_sum, name="a mean for a sum"), primals, against=[by_torch])
except oracles.Disagreement as disagreement:
    print(disagreement)


def sigmoid(z, prime=False):
    """σ(z), or σ'(z)."""
    s = 1 / (1 + np.exp(-z))
    return s * (1 - s) if prime else s


def squares(y, target):
    """Return a loss and its gradient."""
    return 0.5 * ((y - target) ** 2).sum(), y - target


y, target = rng.standard_normal((4, 2)), rng.standard_normal((4, 2))
print(oracles.check(oracles.elementwise(sigmoid, lambda z: sigmoid(z, prime=True)), {"z": y}))
print(oracles.check(oracles.value_and_grad(squares, wrt="y"), {"y": y, "target": target}))

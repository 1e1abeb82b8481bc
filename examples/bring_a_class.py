"""A layer that keeps its weights, its cache and its gradients on itself; and a network that shows its update alone.

python examples/bring_a_class.py
"""

import numpy as np

import oracles


class Dense:
    """y = zW + b, as it stands in many a repository."""

    def __init__(self):
        self.params = {"W": np.zeros((3, 2)), "b": np.zeros((1, 2))}
        self.grads = {}

    def forward(self, z):
        """Keep the input."""
        self.z = z
        return z @ self.params["W"] + self.params["b"]

    def backward(self, delta):
        """Leave dW and db behind, return dz."""
        self.grads = {"W": self.z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}
        return delta @ self.params["W"].T


class FirstInput(Dense):
    """Keeps the first input for ever: right the first time, and wrong in training."""

    def forward(self, z):
        """Keep the input, if there is none."""
        self.z = getattr(self, "z", z)
        return z @ self.params["W"] + self.params["b"]


class Learning(Dense):
    """Shows no gradient: backward moves the weights."""

    def backward(self, delta, rate=0.5):
        """Make a step of gradient descent, return dz."""
        dz = super().backward(delta)
        for name, gradient in self.grads.items():
            self.params[name] = self.params[name] - rate * gradient
        return dz


def adapt(make, grads):
    """Say where parameters and gradients are."""
    return oracles.stateful(make, params={"W": "params['W']", "b": "params['b']"}, grads=grads)


rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((4, 3)), "W": rng.standard_normal((3, 2)), "b": rng.standard_normal((1, 2))}
against = [oracles.torch_autograd(lambda z, W, b: z @ W + b)]
print(oracles.check(adapt(Dense, "grads['{}']"), primals, against))
print(oracles.check(adapt(Learning, oracles.Update(step="", rate=0.5)), primals, against))
try:
    oracles.check(adapt(FirstInput, "grads['{}']"), primals, against)
except oracles.Disagreement as disagreement:
    print(disagreement)

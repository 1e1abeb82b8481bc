"""Check a class that keeps weights, cache and gradients, and one whose update alone shows the gradient.

python examples/bring_a_class.py
"""

import numpy as np

import oracles


class Dense:
    """y = zW + b, as many repositories write it."""

    def __init__(self):
        self.params = {"W": np.zeros((3, 2)), "b": np.zeros((1, 2))}
        self.grads = {}

    def forward(self, z):
        """Keep the input."""
        self.z = z
        return z @ self.params["W"] + self.params["b"]

    def backward(self, delta):
        """Keep dW and db, return dz."""
        self.grads = {"W": self.z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}
        return delta @ self.params["W"].T


class FirstInput(Dense):
    """Never replaces its first input: right for one step, wrong in training."""

    def forward(self, z):
        """Keep the input, if there is none."""
        self.z = getattr(self, "z", z)
        return z @ self.params["W"] + self.params["b"]


class Learning(Dense):
    """Keeps no gradient: backward changes the weights."""

    def backward(self, delta, rate=0.5):
        """Make a step of gradient descent, return dz."""
        dz = super().backward(delta)
        for name, gradient in self.grads.items():
            self.params[name] = self.params[name] - rate * gradient
        return dz


def adapt(make, grads):
    """Name the locations of parameters and gradients."""
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

"""Check an engine of scalar nodes, in which each number remembers how it was computed.

python examples/bring_an_engine.py
"""

import numpy as np

import oracles


class Value:
    """A number, its parents, and the derivative with respect to each."""

    def __init__(self, data, parents=()):
        self.data, self.parents, self.grad = data, parents, 0.0

    def __add__(self, other):
        """a + b."""
        other = other if isinstance(other, Value) else Value(other)
        return type(self)(self.data + other.data, ((self, 1.0), (other, 1.0)))

    def __mul__(self, other):
        """Multiply: ∂(ab)/∂a = b."""
        other = other if isinstance(other, Value) else Value(other)
        return type(self)(self.data * other.data, ((self, other.data), (other, self.data)))

    def relu(self):
        """Return max(a, 0)."""
        return type(self)(max(self.data, 0.0), ((self, float(self.data > 0)),))

    def collect(self, d):
        """Add d to the gradient."""
        self.grad += d

    def backward(self, d=1.0):
        """Send d along every path to the leaves."""
        self.collect(d)
        for parent, slope in self.parents:
            parent.backward(d * slope)


class Overwriting(Value):
    """= instead of +=: only the last use of a number counts."""

    def collect(self, d):
        """Overwrite the gradient."""
        self.grad = d


def layer(z, W):
    """relu(zW)², entry by entry: a function of arrays of nodes."""
    y = np.vectorize(lambda x: x.relu(), otypes=[object])(z @ W)
    return y * y


rng = np.random.default_rng(0)
primals = {"z": rng.standard_normal((2, 3)), "W": rng.standard_normal((3, 2))}
against = [oracles.torch_autograd(lambda z, W: (z @ W).relu().square())]
print(oracles.check(oracles.scalar_graph(layer, Value), primals, against))
try:
    oracles.check(oracles.scalar_graph(layer, Overwriting, name="= for +="), primals, against)
except oracles.Disagreement as disagreement:
    print(disagreement)

"""A small engine of scalar nodes: correct functions agree, wrong engines are refused."""

import math

import numpy as np
import pytest

import oracles
from oracles import Disagreement, InvalidInput, Verdict

RNG = np.random.default_rng(5)


class Node:
    """A number that remembers how it was computed."""

    def __init__(self, data, parents=(), pulls=()):
        self.data, self.parents, self.pulls, self.grad = data, parents, pulls, 0.0

    @classmethod
    def of(cls, x):
        return x if isinstance(x, Node) else cls(x)

    def __add__(self, other):
        other = self.of(other)
        return type(self)(self.data + other.data, (self, other), (lambda d: d, lambda d: d))

    def __mul__(self, other):
        other = self.of(other)
        return type(self)(self.data * other.data, (self, other), (lambda d: d * other.data, lambda d: d * self.data))

    def __pow__(self, n):
        return type(self)(self.data**n, (self,), (lambda d: d * n * self.data ** (n - 1),))

    def exp(self):
        y = math.exp(self.data)
        return type(self)(y, (self,), (lambda d: d * y,))

    def tanh(self):
        y = math.tanh(self.data)
        return type(self)(y, (self,), (lambda d: d * (1 - y * y),))

    def relu(self):
        return type(self)(max(self.data, 0.0), (self,), (lambda d: d * (self.data > 0),))

    __radd__, __rmul__ = __add__, __mul__

    def __neg__(self):
        return self * -1.0

    def __sub__(self, other):
        return self + -self.of(other)

    def __rsub__(self, other):
        return self.of(other) + -self

    def __truediv__(self, other):
        return self * self.of(other) ** -1

    def backward(self):
        order, visited = [], set()

        def visit(node):
            if node not in visited:
                visited.add(node)
                for parent in node.parents:
                    visit(parent)
                order.append(node)

        visit(self)
        self.grad = 1.0
        for node in reversed(order):
            node.passed_on()

    def passed_on(self):
        for parent, pull in zip(self.parents, self.pulls, strict=True):
            parent.grad += pull(self.grad)


def dense(z, W, b):
    return z @ W + b


def squashed(z, W, b):
    return np.vectorize(lambda x: x.tanh(), otypes=[object])(z @ W + b)


def softmax(z, W, b):
    e = np.vectorize(lambda x: x.exp(), otypes=[object])(z @ W + b)
    return e / e.sum(-1, keepdims=True)


def loss(z, W, b):
    error = squashed(z, W, b) - 0.5
    return (error * error).sum()


def lists(z, W, b):
    return [[row @ column for column in W.T] for row in z]


def two(z, W, b):
    return z @ W, (z * z).sum()


def reused(z, W, b):
    """One node used several times: its gradients must add up."""
    s = z.sum()
    return W * (s * s + s) + b.sum()


AT = {"z": RNG.standard_normal((1, 2)), "W": RNG.standard_normal((2, 2)), "b": RNG.standard_normal((1, 2))}
REFERENCES = {
    dense: lambda z, W, b: z @ W + b,
    squashed: lambda z, W, b: (z @ W + b).tanh(),
    softmax: lambda z, W, b: (z @ W + b).softmax(-1),
    loss: lambda z, W, b: ((z @ W + b).tanh() - 0.5).square().sum(),
    lists: lambda z, W, b: z @ W,
    two: lambda z, W, b: (z @ W, (z * z).sum()),
    reused: lambda z, W, b: (z.sum() ** 2 + z.sum()) * W + b.sum(),
}


@pytest.mark.parametrize("f", REFERENCES, ids=lambda f: f.__name__)
def test_correct_engine_agrees(f):
    against = [oracles.torch_autograd(REFERENCES[f])]
    result = oracles.check(oracles.scalar_graph(f, Node), AT, against)
    assert result.verdict is Verdict.AGREES
    assert {q.quantity.split("[")[0] for q in result.findings} == {"output", "z", "W", "b"}
    assert oracles.check(oracles.scalar_graph(f, Node), AT).verdict is Verdict.AGREES


def test_other_names_integers_and_rows():
    class Value(Node):
        value = property(lambda self: self.data)
        derivative = property(lambda self: self.grad)
        propagate = Node.backward

    subject = oracles.scalar_graph(dense, Value, data="value", grad="derivative", backward="propagate")
    assert oracles.check(subject, AT, [oracles.torch_autograd(REFERENCES[dense])]).verdict is Verdict.AGREES
    picked = oracles.scalar_graph(lambda z, i: z[i], Node)
    at = {"z": AT["z"], "i": np.array([0, 0, 0])}
    assert oracles.check(picked, at, [oracles.torch_autograd(lambda z, i: z[i])]).verdict is Verdict.AGREES
    empty = oracles.check(oracles.scalar_graph(lambda z: z * 2, Node), {"z": np.zeros((0, 2))})
    assert not empty.refuses


class OverwritesGradients(Node):
    """= instead of +=: a node that is used twice keeps the last gradient only."""

    def passed_on(self):
        for parent, pull in zip(self.parents, self.pulls, strict=True):
            parent.grad = pull(self.grad)


class TanhOfInput(Node):
    def tanh(self):
        y = math.tanh(self.data)
        return type(self)(y, (self,), (lambda d: d * (1 - self.data**2),))


class ExpOfOne(Node):
    def exp(self):
        return type(self)(math.exp(self.data), (self,), (lambda d: d,))


class PowerKept(Node):
    def __pow__(self, n):
        return type(self)(self.data**n, (self,), (lambda d: d * n * self.data**n,))


class FactorsSwapped(Node):
    def __mul__(self, other):
        other = self.of(other)
        return type(self)(self.data * other.data, (self, other), (lambda d: d * self.data, lambda d: d * other.data))


class LeftAlone(Node):
    """The right operand of + gets nothing."""

    def __add__(self, other):
        other = self.of(other)
        return type(self)(self.data + other.data, (self, other), (lambda d: d, lambda d: 0.0))


class DeltaOfOne(Node):
    """Every node passes on its local derivative and no delta."""

    def passed_on(self):
        for parent, pull in zip(self.parents, self.pulls, strict=True):
            parent.grad += pull(1.0)


class NotInOrder(Node):
    """Depth first without an order: a node passes its gradient on before it is complete."""

    def backward(self):
        self.grad = 1.0
        self.passed_on()

    def passed_on(self):
        for parent, pull in zip(self.parents, self.pulls, strict=True):
            parent.grad += pull(self.grad)
            parent.passed_on()


@pytest.mark.parametrize(
    ("engine", "f", "quantity", "message"),
    [
        (OverwritesGradients, reused, "z", None),
        (TanhOfInput, squashed, "b", None),
        (ExpOfOne, softmax, None, None),
        pytest.param(PowerKept, softmax, None, None, marks=pytest.mark.slow),
        (FactorsSwapped, dense, None, None),
        (LeftAlone, dense, "b", "zero"),
        (DeltaOfOne, squashed, None, None),
        pytest.param(NotInOrder, reused, None, None, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("with_torch", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_planted_bugs_are_refused(engine, f, quantity, message, with_torch):
    against = [oracles.torch_autograd(REFERENCES[f])] if with_torch else []
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.scalar_graph(f, engine), AT, against)
    assert excinfo.value.verdict is Verdict.WRONG
    assert quantity is None or quantity in {q.quantity for q in excinfo.value.result.findings if q.refuses}
    assert message is None or not with_torch or message in str(excinfo.value)


def test_a_value_that_is_no_node():
    with pytest.raises(InvalidInput, match=r"\.value") as excinfo:
        oracles.check(oracles.scalar_graph(dense, Node, data="value"), AT)
    assert "data='value'" in str(excinfo.value)


def test_a_node_times_an_array():
    with pytest.raises(InvalidInput, match="got an array of shape") as excinfo:
        oracles.check(oracles.scalar_graph(lambda z, W, b: z[0, 0] * W, Node), AT)
    assert "W * s, not s * W" in str(excinfo.value)


def test_a_missing_method_backward():
    """An engine without a backward gives zeros: refused, and never accepted."""
    with pytest.raises((Disagreement, InvalidInput)):
        oracles.check(oracles.scalar_graph(dense, Node, backward="backprop"), AT)

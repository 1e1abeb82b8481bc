"""Arguments of oracles.check that are no rules: the line to write instead is made from what is there."""

import numpy as np
import pytest

import oracles
from oracles import InvalidInput, Verdict

torch = pytest.importorskip("torch")
POINT = {"z": np.ones(3)}
SINE = oracles.manual(lambda z: (np.sin(z), z), lambda z, delta: {"z": delta * np.cos(z)})


def sigmoid(z):
    return 1 / (1 + np.exp(-z)), z


def sigmoid_backward(z, delta):
    return {"z": delta}


class Dense:
    def __init__(self):
        self.kernel, self.offset = np.ones((3, 3)), np.zeros(3)

    def forward(self, z):
        return z @ self.kernel + self.offset

    def backward(self, delta):
        return delta @ self.kernel.T


class Layer:
    def init(self, rng, dtype):
        return {}

    def forward(self, params, z):
        return z, z

    def backward(self, cache, delta):
        return delta, {}


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z * z

    @staticmethod
    def backward(ctx, delta):
        return delta


SUBJECTS = {
    "a pair": ((sigmoid, sigmoid_backward), "oracles.manual(sigmoid, sigmoid_backward)"),
    "a function": (sigmoid, "oracles.manual(sigmoid, backward)"),
    "a Function": (Square, "oracles.torch_function(Square)"),
    "a module": (torch.nn.Tanh(), "oracles.torch_module(Tanh)"),
    "a layer": (Layer(), "oracles.manual_layer(layer)"),
    "a class": (Dense, "oracles.stateful(Dense, params="),
    "an object": (Dense(), "params=['kernel', 'offset']"),
    "a number": (3.0, "oracles.manual(forward, backward)"),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_subject_that_is_no_rule(name):
    subject, line = SUBJECTS[name]
    with pytest.raises(InvalidInput) as excinfo:
        oracles.check(subject, POINT)
    assert line in str(excinfo.value).split("Fix:")[1]


@pytest.mark.parametrize(
    ("primals", "against", "argument"),
    [
        (np.ones(3), (), "primals"),
        (POINT, SINE, "against"),
        (POINT, 3, "against"),
        (POINT, [SINE, torch.sin], "against[1]"),
    ],
)
def test_arguments_that_are_neither_arrays_nor_oracles(primals, against, argument):
    with pytest.raises(InvalidInput) as excinfo:
        oracles.check(SINE, primals, against)
    assert argument in str(excinfo.value)
    assert "Fix:" in str(excinfo.value)


def test_nothing_agrees_about_empty_arrays():
    wrong = oracles.manual(lambda z: (np.sin(z), z), lambda z, delta: {"z": 5 * delta})
    empty = oracles.check(wrong, {"z": np.zeros((0, 3))}, [oracles.torch_autograd(torch.sin)])
    assert empty.verdict is Verdict.VACUOUS
    assert not empty.refuses
    with pytest.raises(oracles.Disagreement):
        oracles.check(wrong, POINT, [oracles.torch_autograd(torch.sin)])


def test_the_gradient_of_what_an_empty_batch_uses_is_judged():
    def forward(z, w):
        return z @ w, (z, w)

    subject = oracles.manual(forward, lambda c, d: {"z": d @ c[1].T, "w": c[0].T @ d})
    result = oracles.check(
        subject, {"z": np.zeros((0, 3)), "w": np.ones((3, 2))}, [oracles.torch_autograd(torch.matmul)]
    )
    assert result.verdict is Verdict.AGREES
    assert result.judged["w"] == (6, 6)

"""The derivative of a forward that is recorded is that of finite differences, for code as people write it."""

import numpy as np
import pytest

from manual_bp import Linear, Sequential, Sigmoid, Tanh
from oracles import finite_difference, manual, manual_layer
from oracles.diagnosis.own_forward import Change, Kind, own_derivative, record


def stable_sigmoid(z):
    a, positive = np.empty_like(z), z >= 0
    a[positive] = 1 / (1 + np.exp(-z[positive]))
    e = np.exp(z[~positive])
    a[~positive] = e / (1 + e)
    return a


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def normalized(z):
    z = z - np.mean(z, axis=0)
    z /= np.sqrt(z.var(axis=0) + 1e-5)
    return z


def log_loss(z):
    p = softmax(z)
    return -np.log(p[np.arange(len(p)), np.arange(len(p)) % p.shape[1]]).mean() * np.ones(1)


FORWARDS = {
    "stable sigmoid": stable_sigmoid,
    "tanh": np.tanh,
    "ReLU": lambda z: np.maximum(0, z),
    "leaky ReLU": lambda z: np.where(z > 0, z, 0.1 * z),
    "masked": lambda z: z * (z > 0),
    "softplus": lambda z: np.logaddexp(0, z),
    "clipped": lambda z: np.clip(z, -0.5, 0.5) ** 2,
    "softmax": softmax,
    "normalized": normalized,
    "log loss": log_loss,
    "joined": lambda z: np.concatenate([z[:, :1], z.T.reshape(z.shape)[:, ::-1]], axis=1).cumsum(axis=1),
    "einsum": lambda z: np.einsum("ij,kj->ik", z, np.sin(z)),
    "norm": lambda z: z / np.linalg.norm(z, axis=1, keepdims=True),
    "product of vectors": lambda z: z @ z[0] + np.dot(z[:, 0], z),
}


def product_of_vectors(z):
    return z @ z[0]


FORWARDS["product of vectors"] = product_of_vectors


def assert_equal_up_to_rounding(actual, expected):
    np.testing.assert_array_max_ulp(actual, expected, maxulp=64)


def assert_is_derivative(rule, primals, roundings=0):
    own, differences = own_derivative(rule), finite_difference(rule)
    y, pullback = own(**primals)
    expected, expected_pullback = differences(**primals)
    assert np.all(np.abs(y - expected) <= roundings * np.finfo(float).eps * np.abs(expected))
    delta = np.random.default_rng(1).standard_normal(np.shape(y))
    cotangents = expected_pullback(delta)
    for name, g in pullback(delta).items():
        assert np.all(np.abs(g - cotangents[name].mid) <= cotangents[name].radius)


@pytest.mark.parametrize("name", FORWARDS)
def test_derivative_of_numpy_code(name):
    rule = manual(lambda z: (FORWARDS[name](z), None), lambda cache, d: {})
    assert_is_derivative(rule, {"z": np.random.default_rng(0).standard_normal((4, 3))})


def test_derivative_of_a_network_that_takes_no_subclass():
    rng = np.random.default_rng(0)
    network = Sequential(Linear(3, 4), Sigmoid(), Linear(4, 2), Tanh())
    # Of arrays of objects the layers compute by other steps.
    point = {"z": rng.standard_normal((2, 3)), **network.init(rng)}
    assert_is_derivative(manual_layer(network), point, roundings=4)


def test_what_leaves_the_arrays_is_not_recorded():
    rule = manual(lambda z: (np.array(float(z.sum())), None), lambda cache, d: {})
    with pytest.raises(ExceptionGroup):
        record(rule, {"z": np.ones(3)})


def test_a_change_is_the_derivative_with_one_mistake():
    rule = manual(lambda z, W: (np.tanh(z @ W), None), lambda cache, d: {})
    rng = np.random.default_rng(0)
    primals = {"z": rng.standard_normal((2, 3)), "W": rng.standard_normal((3, 3))}
    z, W = primals["z"], primals["W"]
    graph, delta = record(rule, primals), rng.standard_normal((2, 3))
    (function,) = graph.functions
    ends = ((function.start.index, function.end.index),)
    forgotten = graph.cotangents(delta, Change(Kind.ONE, ends))
    assert_equal_up_to_rounding(forgotten["z"], delta @ W.T)
    assert_equal_up_to_rounding(forgotten["W"], z.T @ delta)
    value = graph.cotangents(delta, Change(Kind.VALUE, ends))
    assert_equal_up_to_rounding(value["z"], (delta * np.tanh(z @ W)) @ W.T)

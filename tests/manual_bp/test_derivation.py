"""The derivation itself, exact: arrays of Fractions leave no rounding to tolerate."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from exact import exactly, fractions, seeds
from hypothesis import given
from hypothesis import strategies as st

from manual_bp import (
    HalfSquaredError,
    Identity,
    LeakyReLU,
    Linear,
    ReLU,
    Sequential,
    SoftmaxCrossEntropy,
    deltas,
    value_and_grad,
)

dims = st.integers(1, 5)


def drawn_params(rng, network):
    return {name: fractions(rng, *value.shape) for name, value in network.init(rng).items()}


def drawn_network(rng, widths):
    layers = []
    for n_in, n_out in pairwise(widths):
        layers += [
            Linear(n_in, n_out, bias=bool(rng.integers(2))),
            (ReLU(), LeakyReLU(Fraction(1, 8)), Identity())[rng.integers(3)],
        ]
    cut = int(rng.integers(len(layers)))
    return Sequential(*layers[:cut], Sequential(*layers[cut:], Sequential(Identity())))


@exactly
@given(rows=st.integers(0, 4), n_in=dims, n_out=dims, seed=seeds)
def test_matrix_forms_follow_from_element_forms(rows, n_in, n_out, seed):
    rng = np.random.default_rng(seed)
    z, W, b, delta = (fractions(rng, *s) for s in ((rows, n_in), (n_in, n_out), (1, n_out), (rows, n_out)))
    layer = Linear(n_in, n_out)
    y, cache = layer.forward({"W": W, "b": b}, z)
    dz, dparams = layer.backward(cache, delta)
    for k in range(rows):
        for j in range(n_out):
            assert y[k, j] == sum(z[k, i] * W[i, j] for i in range(n_in)) + b[0, j]
        for i in range(n_in):  # (13)
            assert dz[k, i] == sum(delta[k, j] * W[i, j] for j in range(n_out))
    for j in range(n_out):
        for i in range(n_in):  # (4), added over the rows
            assert dparams["W"][i, j] == sum(delta[k, j] * z[k, i] for k in range(rows))
        assert dparams["b"][0, j] == sum(delta[k, j] for k in range(rows))
    assert dz.shape == z.shape
    assert {name: g.shape for name, g in dparams.items()} == {"W": W.shape, "b": b.shape}


@exactly
@given(rows=st.integers(0, 3), widths=st.lists(dims, min_size=2, max_size=5), seed=seeds)
def test_layer_by_layer_is_the_closed_product(rows, widths, seed):
    rng = np.random.default_rng(seed)
    network = drawn_network(rng, widths)
    params = drawn_params(rng, network)
    x, delta = fractions(rng, rows, widths[0]), fractions(rng, rows, widths[-1])
    chained = deltas(network, params, x, delta)
    closed = deltas(network, params, x, delta, closed_form=True)
    assert len(chained) == len(closed) == 2 * (len(widths) - 1) + 2
    for one, other in zip(chained, closed, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    _, cache = network.forward(params, x)
    np.testing.assert_array_equal(network.backward(cache, delta)[0], chained[0])
    J = network.jacobian(params, x)
    np.testing.assert_array_equal((delta[:, None, :] @ J)[:, 0], chained[0])
    assert not any(np.shares_memory(d, delta) for d in chained + closed)


@exactly
@given(widths=st.lists(dims, min_size=2, max_size=4), seed=seeds)
def test_gradients_of_rows_add_up(widths, seed):
    rng = np.random.default_rng(seed)
    network = drawn_network(rng, widths)
    params = drawn_params(rng, network)
    x, target = fractions(rng, 3, widths[0]), fractions(rng, 3, widths[-1])
    loss = HalfSquaredError("sum")
    value, grads = value_and_grad(network, loss, params, x, target)
    alone = [value_and_grad(network, loss, params, x[k : k + 1], target[k : k + 1]) for k in range(3)]
    assert value == sum(v for v, _ in alone)
    assert list(grads) == list(params)
    for name in params:
        np.testing.assert_array_equal(grads[name], sum(g[name] for _, g in alone))
    mean, grads_of_mean = value_and_grad(network, HalfSquaredError("mean"), params, x, target)
    assert mean == value / 3
    for name in params:
        np.testing.assert_array_equal(grads_of_mean[name], grads[name] / 3)


@exactly
@given(rows=st.integers(1, 4), n=dims, seed=seeds, reduction=st.sampled_from(["sum", "mean", "none"]))
def test_half_squared_error_and_its_delta(rows, n, seed, reduction):
    """L is quadratic, so a central difference with any step, however long, is its derivative exactly."""
    rng = np.random.default_rng(seed)
    y, target, cotangent = fractions(rng, rows, n), fractions(rng, rows, n), fractions(rng, rows)
    loss = HalfSquaredError(reduction)
    delta = cotangent if reduction == "none" else cotangent[0]
    gradient = loss.backward(loss.forward(y, target)[1], delta)
    h = Fraction(1, 3)
    for index in np.ndindex(rows, n):
        step = np.full((rows, n), Fraction(0), object)
        step[index] = h
        slope = (loss.forward(y + step, target)[0] - loss.forward(y - step, target)[0]) / (2 * h)
        assert gradient[index] == np.sum(slope * delta)


@pytest.mark.parametrize(("reduction", "divisor"), [("sum", 1), ("mean", 4), ("none", 1)])
def test_cross_entropy_delta_is_a_minus_target_over_its_reduction(reduction, divisor):
    """Equal logits make a = ¼ exactly, so (25) can be read off without rounding, Σ y* = 1 or not."""
    loss = SoftmaxCrossEntropy(reduction)
    y = np.zeros((4, 4))
    target = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0.5, 0.5, 0, 0], [4, 2, 0, 2.0]])
    delta = np.full(4, 2.0) if reduction == "none" else 2.0
    expected = (0.25 * target.sum(axis=1, keepdims=True) - target) * 2 / divisor
    np.testing.assert_array_equal(loss.backward(loss.forward(y, target)[1], delta), expected, strict=True)
    classes = np.array([0, 2, 1, 3], np.uint8)
    np.testing.assert_array_equal(
        loss.backward(loss.forward(y, classes)[1], delta), (0.25 - np.eye(4)[classes]) * 2 / divisor
    )


def test_one_hot_weights_and_class_indices_are_the_same_loss():
    rng = np.random.default_rng(3)
    y, classes = rng.standard_normal((6, 5)), rng.integers(5, size=6)
    loss = SoftmaxCrossEntropy("none")
    by_weights, by_classes = loss.forward(y, np.eye(5)[classes]), loss.forward(y, classes)
    np.testing.assert_array_equal(by_weights[0], by_classes[0])
    one, other = (loss.backward(cache, np.ones(6)) for _, cache in (by_weights, by_classes))
    # Each is three or four roundings of numbers of at most 1: eight units of 2^-53 cover the difference.
    assert np.abs(one - other).max() <= 8 * 2.0**-53

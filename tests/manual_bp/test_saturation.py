"""Far from zero: finite, silent, and accurate to a few ulp against fifty decimal digits.

Bounds are in units of u = 2^-24 times |exact|, plus a few smallest subnormals. NumPy's float32 exp is
accurate to 4 ulp = 8u (its own test suite demands it); each further operation adds at most u. What is
multiplied adds up, so each bound below is 8 per exp, plus one per other operation. Where e is subnormal,
4e carries its half a subnormal fourfold: two, and two more for what follows.
"""

from decimal import Decimal, localcontext

import numpy as np
import pytest

from manual_bp import (
    GELU,
    BinaryCrossEntropyWithLogits,
    CrossEntropy,
    Huber,
    LogSoftmax,
    Sigmoid,
    SiLU,
    Softmax,
    SoftmaxCrossEntropy,
    Softplus,
    Tanh,
)

POINTS = np.float32([-1e4, -200, -104, -88, -50, -20, -9.5, -3, -0.25, -0.0, 0, 1e-3, 0.5, 8, 17, 44, 60, 103, 1e4])
SUBNORMAL = Decimal(2) ** -149


@pytest.fixture(autouse=True)
def precise():
    with localcontext() as context:
        context.prec, context.Emin, context.Emax = 50, -99999, 99999
        yield


def within(actual, exact, units, subnormals=1):
    for value, truth in zip(np.ravel(actual), exact, strict=True):
        error = abs(Decimal(float(value)) - truth)
        assert error <= units * Decimal(2) ** -24 * abs(truth) + subnormals * SUBNORMAL, f"{value} for {truth:.9e}"


def decimals(array):
    return [Decimal(float(v)) for v in np.ravel(array)]


def test_sigmoid():
    y, cache = Sigmoid().forward({}, POINTS)
    within(y, [1 / (1 + (-z).exp()) for z in decimals(POINTS)], 8 + 2)
    slope, _ = Sigmoid().backward(cache, np.ones_like(POINTS))
    within(slope, [(-abs(z)).exp() / (1 + (-abs(z)).exp()) ** 2 for z in decimals(POINTS)], 8 + 5)


def test_tanh():
    _, cache = Tanh().forward({}, POINTS)
    slope, _ = Tanh().backward(cache, np.ones_like(POINTS))
    within(slope, [4 / (z.exp() + (-z).exp()) ** 2 for z in decimals(POINTS)], 8 + 5, 4)
    assert slope[POINTS == 17] > 0  # where 1 − y² is 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nothing_overflows(dtype):
    z = np.array([[-1e4, 1e4, 0], [1e4, 1e4, -1e4], [-1e4, -1e4, -1e4]], dtype)
    layers = (GELU(), GELU("tanh"), SiLU(), Softplus(), Softplus(3.0, 20.0), LogSoftmax(), LogSoftmax(0))
    for layer in (Sigmoid(), Tanh(), Softmax(), Softmax(0), *layers):
        y, cache = layer.forward({}, z)
        assert np.isfinite(y).all()
        assert np.isfinite(layer.backward(cache, z)[0]).all()
    for target in (np.array([0, 1, 2]), np.eye(3, dtype=dtype)):
        losses = (SoftmaxCrossEntropy(), CrossEntropy(), CrossEntropy(smoothing=0.1, temperature=0.5))
        others = (Huber(), BinaryCrossEntropyWithLogits()) if target.ndim == 2 else ()
        for loss in losses + others:
            value, cache = loss.forward(z, target)
            assert np.isfinite(value)
            assert np.isfinite(loss.backward(cache)).all()
    extreme = np.array([np.finfo(dtype).max, -np.finfo(dtype).max])
    for layer in (GELU(), GELU("tanh"), SiLU(), Softplus()):
        np.testing.assert_array_equal(layer.value(extreme), [extreme[0], 0])
        np.testing.assert_array_equal(layer.derivative(extreme), [1, 0])
    assert not Tanh().derivative(extreme).any()


ROWS = [[0, 20, -15], [60, 0, 1], [1e4, -1e4, 0], [0.5, 0.25, 0.5], [-30, -80, 8]]


def exact_softmax(row):
    e = [z.exp() for z in row]
    return [v / sum(e) for v in e]


@pytest.mark.parametrize("row", ROWS)
def test_softmax_backward_survives_saturation(row):
    """Two exp and ten operations in each term; where terms cancel, the bound is on the sum of their sizes."""
    z, delta = np.float32([row]), np.float32([[3, -1.5, 0.75]])
    dz, _ = Softmax().backward(Softmax().forward({}, z)[1], delta)
    a, d = exact_softmax(decimals(z)), decimals(delta)
    m = a.index(max(a))
    for i in range(3):
        exact = a[i] * sum((d[i] - d[j]) * a[j] for j in range(3))
        size = a[i] * (abs(d[i] - d[m]) + sum(abs(d[j] - d[m]) * a[j] for j in range(3)))
        assert abs(Decimal(float(dz[0, i])) - exact) <= (16 + 10) * Decimal(2) ** -24 * size + 4 * SUBNORMAL


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("target", [0, 1, 2, [1, 0, 0], [0.25, 0.5, 0.25], [0, 0, 3], [0.5, 0, 0]])
def test_cross_entropy_survives_saturation(row, target):
    """As above; the terms are a_i S and y*_i, and in the largest entry a_m R and y*_m (1 − a_m)."""
    y = np.float32([row])
    loss = SoftmaxCrossEntropy("sum")
    value, cache = loss.forward(y, np.array([target]) if isinstance(target, int) else np.float32([target]))
    gradient = loss.backward(cache)
    weights = decimals(np.eye(3)[target] if isinstance(target, int) else np.float32(target))
    a = exact_softmax(decimals(y))
    m = a.index(max(a))
    within([value], [-sum(w * p.ln() for w, p in zip(weights, a, strict=True))], 8 + 8 + 6)
    total = sum(weights)
    for i in range(3):
        others = sum(a[j] for j in range(3) if j != i)
        exact = a[i] * (total - weights[i]) - weights[i] * others
        terms = (total - weights[i]) * a[i] + weights[i] * others if i == m else a[i] * total + weights[i]
        assert abs(Decimal(float(gradient[0, i])) - exact) <= (16 + 6) * Decimal(2) ** -24 * terms + 4 * SUBNORMAL

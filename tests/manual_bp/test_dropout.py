"""Dropout: forward and backward drop the same entries, their number, evaluation mode, and errors."""

import re
from fractions import Fraction

import numpy as np
import pytest

import manual_bp as m


def run(layer, z, delta, seed=0):
    y, cache = layer.forward({}, (z, np.random.default_rng(seed)) if layer.training else z)
    return y, layer.backward(cache, delta)[0], layer.backward(cache, delta)[0]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_the_same_entries_are_dropped_in_backward(dtype):
    z = np.arange(1, 1001).reshape(20, 50).astype(dtype)
    y, (dz, none), (again, _) = run(m.Dropout(0.25), z, z)
    assert none is None
    assert y.dtype == dz.dtype == dtype
    assert np.array_equal(y, dz)
    assert np.array_equal(dz, again)
    survivors = y != 0
    wide = np.float32 if dtype is np.float16 else dtype  # float16 is computed in float32, and rounded once
    assert np.array_equal(y[survivors], (z * wide(1 / 0.75)).astype(dtype)[survivors])
    # 1000 draws: six standard deviations of their count.
    assert abs(survivors.sum() - 750) < 6 * (1000 * 0.25 * 0.75) ** 0.5
    one, other = run(m.Dropout(0.25), z.astype(np.float64), z.astype(np.float64))[0], np.asfortranarray(z)
    assert np.array_equal(one != 0, survivors)
    assert np.array_equal(run(m.Dropout(0.25), other, z)[0], y)


def test_extreme_rates_and_evaluation():
    z = np.arange(1.0, 7).reshape(2, 3)
    for layer in (m.Dropout(0), m.Dropout(0.5, training=False), m.Dropout(1, training=False)):
        y, dz, _ = run(layer, z, 2 * z)
        assert np.array_equal(y, z)
        assert np.array_equal(dz[0] if layer.training else dz, 2 * z)
        assert not np.shares_memory(y, z)
    assert m.Dropout(0.5, training=False).inputs == ("z",)
    y, (dz, _), _ = run(m.Dropout(1), z, z)
    assert not y.any()
    assert not dz.any()
    assert np.isfinite(run(m.Dropout(1 - 1e-6), z.astype(np.float16) * 0, z.astype(np.float16))[0]).any()


def test_exact_numbers_stay_exact():
    z = np.array([[Fraction(1, 3)] * 8])
    y, _, _ = run(m.Dropout(Fraction(1, 3)), z, z)
    assert set(y.flat) == {0, Fraction(1, 2)}


def test_each_dropout_of_a_network_has_its_generator():
    network = m.Sequential(m.Linear(3, 4), m.Dropout(0.5), m.Residual(m.Dropout(0.5)), m.Dropout(0.1, training=False))
    assert network.inputs == ("z", "1.rng", "2.rng")
    params, z = network.init(np.random.default_rng(0)), np.ones((5, 3))
    shared = np.random.default_rng(1)  # one stream for both is a choice of the caller's
    y, cache = network.forward(params, (z, shared, shared))
    (dz, *rest), grads = network.backward(cache, np.ones_like(y))
    assert rest == [None, None]
    assert dz.shape == z.shape
    assert list(grads) == ["0.W", "0.b"]
    apart, _ = network.forward(params, (z, np.random.default_rng(1), np.random.default_rng(1)))
    assert not np.array_equal(y, apart)


def test_dropout_refuses():
    def refuses(error, message, call, *args):
        with pytest.raises(error, match=re.escape(message)):
            call(*args)

    for rate in (-0.1, 1.5):
        refuses(ValueError, "Dropout: rate", m.Dropout, rate)
    refuses(TypeError, "Dropout: rate", m.Dropout, "0.5")
    refuses(TypeError, "Dropout: training", m.Dropout, 0.5, 1)
    layer, z, rng = m.Dropout(0.5), np.ones((2, 3)), np.random.default_rng(0)
    refuses(TypeError, "Dropout.forward: z", layer.forward, {}, z)
    message = "Dropout.forward: rng"
    refuses(TypeError, message, layer.forward, {}, (z, 0))
    refuses(TypeError, "Dropout.forward: z", layer.forward, {}, (z.astype(int), rng))
    refuses(ValueError, "Dropout.forward: params", layer.forward, {"W": z}, (z, rng))
    _, cache = layer.forward({}, (z, rng))
    refuses(ValueError, "Dropout.backward: delta", layer.backward, cache, z[0])

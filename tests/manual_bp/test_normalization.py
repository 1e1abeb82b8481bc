"""Normalization from its definition, element by element, in exact fractions; and the digits that it keeps."""

from fractions import Fraction

import numpy as np
import pytest
from exact import Roots, exactly, fractions, seeds
from hypothesis import given
from hypothesis import strategies as st

import manual_bp as m

few = st.integers(1, 5)


def alike(rng, groups, size, *, centred=True):
    """Groups (rows) of entries with one variance (or mean square), and an ε with which its root is a fraction."""
    entries = fractions(rng, size)
    rows = [rng.permutation(entries) + (fractions(rng, 1)[0] if centred else 0) for _ in range(groups)]
    mean = sum(entries) / size if centred else 0
    square = sum((x - mean) ** 2 for x in entries) / Fraction(size)
    t = int(square) + 1 + Fraction(int(rng.integers(1, 9)), 7)
    result = np.empty((groups, size), object)
    result[:] = rows
    return result, t * t - square, 1 / t


def derivative(x, s, centred):
    """∂x̂_j/∂x_i by the quotient rule, in one group."""
    n = len(x)
    deviation = [x[j] - (sum(x) / Fraction(n) if centred else 0) for j in range(n)]
    own = [[(i == j) - (Fraction(1, n) if centred else 0) for j in range(n)] for i in range(n)]
    return deviation, [
        [own[i][j] * s - deviation[j] * s**3 * deviation[i] / Fraction(n) for j in range(n)] for i in range(n)
    ]


@exactly
@given(rows=few, size=few, centred=st.booleans(), affine=st.booleans(), seed=seeds)
def test_row_normalization_is_its_element_form(rows, size, centred, affine, seed):
    rng = np.random.default_rng(seed)
    z, eps, s = alike(rng, rows, size, centred=centred)
    layer = (m.LayerNorm if centred else m.RMSNorm)(size, eps, affine)
    params = {name: fractions(rng, size) for name in layer.init(rng)}
    gamma, beta = params.get("gamma", [1] * size), params.get("beta", [0] * size)
    delta = fractions(rng, rows, size)
    y, cache = layer.forward(params, z.view(Roots))
    dz, grads = layer.backward(cache, delta)
    of_gamma, of_beta = [0] * size, [0] * size
    for k in range(rows):
        deviation, J = derivative(z[k], s, centred)
        for i in range(size):
            assert y[k, i] == gamma[i] * deviation[i] * s + beta[i]  # (43), (46)
            assert dz[k, i] == sum(delta[k, j] * gamma[j] * J[i][j] for j in range(size))  # (44), (47)
            of_gamma[i] += delta[k, i] * deviation[i] * s  # (45)
            of_beta[i] += delta[k, i]
    assert {name: g.tolist() for name, g in grads.items()} == {
        name: g for name, g in (("gamma", of_gamma), ("beta", of_beta)) if name in params
    }


@exactly
@given(
    n_rows=st.integers(1, 3), n=few, places=st.lists(st.integers(1, 2), max_size=2), affine=st.booleans(), seed=seeds
)
def test_batch_normalization_is_its_element_form(n_rows, n, places, affine, seed):
    rng = np.random.default_rng(seed)
    size = n_rows * int(np.prod(places))
    groups, eps, s = alike(rng, n, size)
    z = np.moveaxis(groups.reshape(n, n_rows, *places), 0, 1)
    momentum = Fraction(1, 3)
    layer = m.BatchNorm(n, eps, momentum, affine)
    params = {name: fractions(rng, n) for name in layer.init(rng)}
    gamma, beta = params.get("gamma", [1] * n), params.get("beta", [0] * n)
    mean, var = fractions(rng, n), fractions(rng, n)
    delta, of_mean, of_var = fractions(rng, *z.shape), fractions(rng, n), fractions(rng, n)
    (y, next_mean, next_var), cache = layer.forward(params, (z.view(Roots), mean, var))
    (dz, d_mean, d_var), grads = layer.backward(cache, (delta, of_mean, of_var))
    by_channel = [np.moveaxis(a, 1, 0).reshape(n, size) for a in (y, dz, delta)]
    for c, (y_c, dz_c, delta_c) in enumerate(zip(*by_channel, strict=True)):
        deviation, J = derivative(groups[c], s, centred=True)
        square = sum(d * d for d in deviation)
        estimate = square / (size - 1) if size > 1 else var[c]
        assert next_mean[c] == mean[c] + momentum * (sum(groups[c]) / Fraction(size) - mean[c])  # (39)
        assert next_var[c] == var[c] + momentum * (estimate - var[c])
        assert d_mean[c] == (1 - momentum) * of_mean[c]  # (41)
        assert d_var[c] == ((1 - momentum) if size > 1 else 1) * of_var[c]
        for i in range(size):
            assert y_c[i] == gamma[c] * deviation[i] * s + beta[c]  # (38)
            through_state = momentum * of_mean[c] / size
            if size > 1:
                through_state += momentum * of_var[c] * 2 * deviation[i] / (size - 1)
            assert dz_c[i] == through_state + sum(delta_c[j] * gamma[c] * J[i][j] for j in range(size))  # (40)
        if affine:
            assert grads["gamma"][c] == sum(d * x * s for d, x in zip(delta_c, deviation, strict=True))
            assert grads["beta"][c] == sum(delta_c)


@exactly
@given(
    n_rows=st.integers(0, 3), n=few, places=st.lists(st.integers(1, 2), max_size=2), affine=st.booleans(), seed=seeds
)
def test_batch_normalization_in_evaluation_is_its_element_form(n_rows, n, places, affine, seed):
    rng = np.random.default_rng(seed)
    z, mean, eps = fractions(rng, n_rows, n, *places), fractions(rng, n), Fraction(1, 7)
    root = np.array([1 + abs(x) for x in fractions(rng, n)], object)
    layer = m.BatchNorm(n, eps, affine=affine, training=False)
    params = {name: fractions(rng, n) for name in layer.init(rng)}
    gamma, beta = params.get("gamma", [1] * n), params.get("beta", [0] * n)
    delta = fractions(rng, *z.shape)
    y, cache = layer.forward(params, (z, mean, (root**2 - eps).view(Roots)))
    (dz, d_mean, d_var), grads = layer.backward(cache, delta)
    sums = {name: [0] * n for name in ("mean", "var", "gamma", "beta")}
    for k, c, *index in np.ndindex(*z.shape):
        at = k, c, *index
        g = gamma[c] * delta[at]
        assert y[at] == gamma[c] * (z[at] - mean[c]) / root[c] + beta[c]
        assert dz[at] == g / root[c]  # (42)
        sums["mean"][c] -= g / root[c]
        sums["var"][c] -= g * (z[at] - mean[c]) / (2 * root[c] ** 3)
        sums["gamma"][c] += delta[at] * (z[at] - mean[c]) / root[c]
        sums["beta"][c] += delta[at]
    assert (d_mean.tolist(), d_var.tolist()) == (sums["mean"], sums["var"])
    assert all(g.tolist() == sums[name] for name, g in grads.items())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_common_offset_costs_no_digits(dtype):
    """Deviations come before squares: a variance as mean z² − μ² would be 0, or negative."""
    rng = np.random.default_rng(0)
    z = rng.integers(-2, 3, (3, 4)).astype(dtype)
    offset = dtype(2.0 ** (np.finfo(dtype).nmant - 4))  # sums of four are still exact
    delta = rng.integers(-2, 3, z.shape).astype(dtype)
    layer = m.LayerNorm(4, affine=False)
    (y, cache), (moved, moved_cache) = layer.forward({}, z), layer.forward({}, z + offset)
    np.testing.assert_array_equal(moved, y)
    np.testing.assert_array_equal(layer.backward(moved_cache, delta)[0], layer.backward(cache, delta)[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equal_entries_are_normalized_to_nothing(dtype):
    """The rounding of μ, up to 8 u c for a sum of seven, would be blown up by 1/√ε; what is left is its square."""
    c, u = dtype(1e4 / 3), np.finfo(dtype).eps / 2
    z = np.full((5, 7), c, dtype)
    layer, batch = m.LayerNorm(7, affine=False), m.BatchNorm(7, affine=False)
    state = np.zeros(7, dtype), np.ones(7, dtype)
    for y in (layer.forward({}, z)[0], batch.forward({}, (z, *state))[0][0]):
        assert np.abs(y).max() <= (16 * u) ** 2 * c / np.sqrt(1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_degree_of_freedom_keeps_its_digits(dtype):
    """∂y/∂z = ε/(z² + ε)^{3/2}: as 1 − z̃² it would lose what ε/z² is smaller than 1."""
    z, eps = dtype(3), 2.0**-20
    right = np.longdouble(eps) / (np.longdouble(z) ** 2 + eps) ** np.longdouble(1.5)
    rms = m.RMSNorm(1, eps, affine=False)
    dz, _ = rms.backward(rms.forward({}, np.full((1, 1), z))[1], np.ones((1, 1), dtype))
    pair = np.array([[-z, z]])
    layer = m.LayerNorm(2, eps, affine=False)
    one, _ = layer.backward(layer.forward({}, pair)[1], np.array([[-1, 1]], dtype))
    batch = m.BatchNorm(1, eps, affine=False)
    _, cache = batch.forward({}, (pair.T, np.zeros(1, dtype), np.ones(1, dtype)))
    two = batch.backward(cache, (np.array([[-1], [1]], dtype), np.zeros(1, dtype), np.zeros(1, dtype)))[0][0]
    for actual in (dz[0, 0], one[0, 1], two[1, 0]):
        assert abs(actual / right - 1) <= 16 * np.finfo(dtype).eps


def test_one_entry_is_normalized_to_beta():
    """Whatever it is, and with a derivative of exactly 0: there is nothing to deviate from."""
    for layer, z in ((m.LayerNorm(1), np.array([[3.7]])), (m.BatchNorm(1), np.array([[3.7]]))):
        params = {"gamma": np.array([2.0]), "beta": np.array([0.5])}
        inputs = z if isinstance(layer, m.LayerNorm) else (z, np.array([1.0]), np.array([4.0]))
        y, cache = layer.forward(params, inputs)
        delta = np.ones((1, 1)) if isinstance(layer, m.LayerNorm) else (np.ones((1, 1)), np.zeros(1), np.ones(1))
        dz, _ = layer.backward(cache, delta)
        if isinstance(layer, m.BatchNorm):
            (y, mean, var), (dz, _, d_var) = y, dz
            assert (mean[0], var[0], d_var[0]) == (0.9 * 1.0 + 0.1 * 3.7, 4.0, 1.0)
        assert y.tolist() == [[0.5]]
        assert dz.tolist() == [[0.0]]


def test_no_rows_leave_the_state_as_it_is():
    state = np.array([1.0, -2]), np.array([4.0, 5])
    layer = m.BatchNorm(2)
    params = layer.init(np.random.default_rng(0))
    (y, mean, var), cache = layer.forward(params, (np.zeros((0, 2, 3)), *state))
    (dz, *back), grads = layer.backward(cache, (y, *state))
    assert (y.shape, dz.shape) == ((0, 2, 3), (0, 2, 3))
    for given_, moved, returned in zip(state, (mean, var), back, strict=True):
        np.testing.assert_array_equal(moved, given_)
        np.testing.assert_array_equal(returned, given_)
        assert not np.shares_memory(moved, given_)
    assert not any(g.any() for g in grads.values())


def test_block_size_does_not_change_row_results():
    """Rows are taken a block at a time; 90 of 1024 numbers are three blocks."""
    rng = np.random.default_rng(0)
    z, delta = rng.standard_normal((2, 90, 1024))
    layer = m.LayerNorm(1024)
    params = {"gamma": rng.standard_normal(1024), "beta": rng.standard_normal(1024)}
    y, cache = layer.forward(params, z)
    dz, _ = layer.backward(cache, delta)
    for row in (0, 31, 32, 63, 64, 89):
        alone, own = layer.forward(params, z[row : row + 1])
        # Sums of 1024 in another order: no further apart than γ_n u on numbers below 2^4.
        assert np.abs(alone - y[row]).max() <= 1024 * 2.0**-53 * 2**4
        assert np.abs(layer.backward(own, delta[row : row + 1])[0] - dz[row]).max() <= 1024 * 2.0**-53 * 2**5
    assert layer.forward(params, z.reshape(9, 10, 1024))[0].shape == (9, 10, 1024)


def test_several_axes_are_normalized():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 3, 4, 5))
    several, flat = m.LayerNorm((4, 5)), m.LayerNorm(20)
    params = {"gamma": rng.standard_normal((4, 5)), "beta": rng.standard_normal((4, 5))}
    y, _ = several.forward(params, z)
    rows, _ = flat.forward({name: a.ravel() for name, a in params.items()}, z.reshape(6, 20))
    np.testing.assert_array_equal(y.reshape(6, 20), rows)
    assert m.LayerNorm(3) == m.LayerNorm((3,))

"""The activations against their definitions: exact fractions where they are rational, proved enclosures elsewhere."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import manual_bp as m
from manual_bp._normal import (
    SCALED_TAIL,
    SCALED_TAIL_OF_FLOAT32,
    SCALED_TAIL_OF_FLOAT64,
    cumulative,
    density,
    normal,
)
from manual_bp._precision import log1p

flint = pytest.importorskip("flint", reason='pip install "manual-bp[exact]"')
arb = flint.arb
UNITS = {np.float16: 2.0**-11, np.float32: 2.0**-24, np.float64: 2.0**-53, np.longdouble: 2.0**-64}
# Below these, Φ is subnormal.
LEAST = {np.float16: -3.6, np.float32: -12.9, np.float64: -37.4, np.longdouble: -100.0}


@pytest.fixture(autouse=True)
def precise():
    with flint.ctx.workprec(300):
        yield


def balls(array):
    """The entries, exactly: those of a longdouble have more digits than a float."""
    return [arb(flint.fmpq(*v.as_integer_ratio())) for v in np.ravel(array)]


def within(actual, exact, units, least=0.0):
    """Assert |got − exact| <= units · u · |exact| + least."""
    u = UNITS[actual.dtype.type]
    for value, truth in zip(balls(actual), exact, strict=True):
        assert abs(value - truth) <= units * u * abs(truth) + least, f"{value} for {truth}"


def points(dtype, low, high):
    rng = np.random.default_rng(0)
    return np.concatenate((rng.uniform(low, high, 400), rng.standard_normal(100) * 1e-3, [0.0])).astype(dtype)


def exact_cumulative(x):
    return (-x / arb(2).sqrt()).erfc() / 2


def exact_density(x):
    return (-x * x / 2).exp() / (2 * arb.pi()).sqrt()


@pytest.mark.parametrize("dtype", UNITS)
def test_the_normal_distribution_is_within_four_ulp(dtype):
    """u is half an ulp. Halves and singles are carried in float64 and rounded once."""
    x = points(dtype, LEAST[dtype], 9)
    units = 8 if np.dtype(dtype).itemsize > 4 else 1
    within(cumulative(x), map(exact_cumulative, balls(x)), units)
    x = np.clip(x, LEAST[dtype], 4 if dtype is np.float16 else 9)
    within(density(x), map(exact_density, balls(x)), units)


def test_the_normal_distribution_in_float32_itself_is_within_four_ulp():
    x = points(np.float32, LEAST[np.float32], 9)
    for actual, exact in zip(normal(x), (exact_cumulative, exact_density), strict=True):
        within(actual, map(exact, balls(x)), 8)


def test_the_normal_distribution_far_out():
    far = np.array([-np.inf, -1e300, -200, 200, 1e300, np.inf])
    np.testing.assert_array_equal(cumulative(far), [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(density(far), np.zeros(6))
    assert np.isnan(cumulative(np.array([np.nan]))).all()
    assert cumulative(np.array([-38.0]))[0] > 0  # subnormal


@pytest.mark.parametrize("table", [SCALED_TAIL, SCALED_TAIL_OF_FLOAT64, SCALED_TAIL_OF_FLOAT32], ids=len)
def test_the_table_is_the_series_that_it_says(table):
    """Interpolated at 80 Chebyshev points, cut, collected in powers of t."""
    n, degree = 80, len(table) - 1
    angles = [arb.pi() * (2 * j + 1) / (2 * n) for j in range(n)]
    values = []
    for angle in angles:
        x = 4 * (1 + angle.cos()) / (1 - angle.cos())
        values.append((x + 4) * (x * x / 2).exp() * (x / arb(2).sqrt()).erfc() / 2)
    before, polynomial = [arb(1)], [arb(0), arb(1)]  # T_0 and T_1
    powers = [arb(0)] * (degree + 1)
    for k in range(degree + 1):
        c = sum((v * (k * a).cos() for v, a in zip(values, angles, strict=True)), arb(0)) * (2 if k else 1) / n
        for i, b in enumerate(before):
            powers[i] += c * b
        doubled = [arb(0), *(2 * p for p in polynomial)]
        before, polynomial = polynomial, [d - (before[i] if i < len(before) else 0) for i, d in enumerate(doubled)]
    for text, power in zip(table, powers, strict=True):
        assert abs(arb(text) - power) <= arb(2) ** -75 * abs(power), text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_keeps_its_tail(dtype):
    """Φ, φ and a product each err by 8u or less: so do their sums, against the sum of the terms' sizes."""
    z = points(dtype, LEAST[dtype] + 1, 9)
    value, cache = m.GELU().forward({}, z)
    within(value, [x * exact_cumulative(x) for x in balls(z)], 9)
    slope, _ = m.GELU().backward(cache, np.ones_like(z))
    u = UNITS[dtype]
    for actual, x in zip(balls(slope), balls(z), strict=True):
        terms = exact_cumulative(x), x * exact_density(x)
        assert abs(actual - sum(terms)) <= 10 * u * sum(map(abs, terms))
    assert slope[z < -5].all()  # where torch's float32 has ½(1 + erf) = 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_tanh_form_is_the_logistic_of_twice_s(dtype):
    """The argument 2s, four roundings of its terms of one sign, is blown up by 2|s|; e and the rest add 12."""
    z = points(dtype, -7, 7)
    value, cache = m.GELU("tanh").forward({}, z)
    slope, _ = m.GELU("tanh").backward(cache, np.ones_like(z))
    u = UNITS[np.float64]  # float32 is carried in float64
    rounded = UNITS[dtype]
    k = (2 / arb.pi()).sqrt()
    for actual, dgot, x in zip(balls(value), balls(slope), balls(z), strict=True):
        s = k * (x + arb("0.044715") * x**3)
        p, q = (1 + (-2 * s).exp()) ** -1, (1 + (2 * s).exp()) ** -1
        units = 12 + 6 * abs(2 * s)
        assert abs(actual - x * p) <= (units * u + rounded) * abs(x * p)
        terms = p, x * p * q * 2 * k * (1 + 3 * arb("0.044715") * x**2)
        assert abs(dgot - sum(terms)) <= (2 * units * u + 2 * rounded) * sum(map(abs, terms))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_tanh_keeps_its_tails(dtype):
    """2u for NumPy's expm1 and one for each operation, doubled by the square; 8u for its float32 functions."""
    z = np.concatenate((points(dtype, -40, 40), dtype([5e-324, -1e-30]))).astype(dtype)
    value, cache = m.Tanh().forward({}, z)
    within(value, [x.tanh() for x in balls(z)], 14)
    slope, _ = m.Tanh().backward(cache, np.ones_like(z))
    within(slope, [1 / x.cosh() ** 2 for x in balls(z)], 14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_the_logarithm_of_one_plus_a_small_number_is_within_four_ulp(dtype):
    e = np.concatenate((points(dtype, 0, 1), np.geomspace(1e-30, 1, 500), np.spacing(dtype(1)) * np.arange(9) / 4))
    e = np.abs(e).astype(dtype)
    within(log1p(e, 1 + e), [(1 + x).log() for x in balls(e)], 8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_silu_and_softplus_keep_their_tails(dtype):
    """8u for an exponential, 8 for a logarithm, one for each operation."""
    z = points(dtype, -80, 80)
    exact = balls(z)
    gates = [1 / (1 + (-x).exp()) for x in exact]
    value, cache = m.SiLU().forward({}, z)
    within(value, [x * s for x, s in zip(exact, gates, strict=True)], 12)
    slope, _ = m.SiLU().backward(cache, np.ones_like(z))
    for actual, x, s in zip(balls(slope), exact, gates, strict=True):
        terms = s, x * s / (1 + x.exp())
        assert abs(actual - sum(terms)) <= 16 * UNITS[dtype] * sum(map(abs, terms))
    for beta in (1.0, 0.5, 2.0):  # powers of two: βz is exact
        layer = m.Softplus(beta)
        value, cache = layer.forward({}, z)
        least = 2 * float(np.finfo(dtype).smallest_subnormal) if dtype is np.float32 else 0
        within(value, [(1 + (beta * x).exp()).log() / beta for x in exact], 18, least)
        within(layer.backward(cache, np.ones_like(z))[0], [1 / (1 + (-beta * x).exp()) for x in exact], 11, least)


def test_softplus_is_linear_beyond_its_threshold_alone():
    z = np.array([-30.0, 1.0, 1.75, 1.7500001, 40.0])
    layer = m.Softplus(2.0, threshold=3.5)
    smooth = m.Softplus(2.0).value(z)
    np.testing.assert_array_equal(layer.value(z), [*smooth[:3], *z[3:]])
    np.testing.assert_array_equal(layer.derivative(z), [*m.Softplus(2.0).derivative(z)[:3], 1, 1])


@pytest.mark.parametrize("dtype", UNITS)
def test_leaky_relu_is_the_identity_above_zero_exactly(dtype):
    rng = np.random.default_rng(0)
    z = np.array([-2, -0.0, 0.0, 3], dtype)
    for slope in (0, 1, 0.01, 0.5, -0.25, 3.0, *rng.random(200), *2 ** -rng.uniform(0, 30, 200)):
        a = (np.float32 if dtype is np.float16 else dtype)(slope)  # float16 is computed in float32, and rounded once
        y, cache = m.LeakyReLU(float(slope)).forward({}, z)
        np.testing.assert_array_equal(y, np.array([-2 * a, -0.0, 0, 3]).astype(dtype))
        dz = m.LeakyReLU(float(slope)).backward(cache, np.ones_like(z))[0]
        np.testing.assert_array_equal(dz, np.array([a, a, a, 1]).astype(dtype))


def fractions(rng, *shape):
    result = np.empty(shape, object)
    for index in np.ndindex(*shape):
        result[index] = Fraction(int(rng.integers(-5, 6)), int(rng.integers(1, 5)))
    return result


@settings(max_examples=20, deadline=None)
@given(shape=st.lists(st.integers(1, 3), min_size=2, max_size=4), seed=st.integers(0, 2**32 - 1), own=st.booleans())
def test_prelu_is_its_definition_exactly(shape, seed, own):
    rng = np.random.default_rng(seed)
    layer = m.PReLU(shape[1] if own else 1)
    z, delta, slope = fractions(rng, *shape), fractions(rng, *shape), fractions(rng, layer.channels)
    y, cache = layer.forward({"slope": slope}, z)
    dz, dparams = layer.backward(cache, delta)
    expected = [Fraction(0)] * layer.channels
    for index in np.ndindex(*shape):
        channel = index[1] if own else 0
        if z[index] > 0:
            assert (y[index], dz[index]) == (z[index], delta[index])
        else:
            assert (y[index], dz[index]) == (slope[channel] * z[index], slope[channel] * delta[index])
            expected[channel] += delta[index] * z[index]
    assert list(dparams["slope"]) == expected


@pytest.mark.parametrize("kind", [m.Softmax, m.LogSoftmax])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (2, 1, 3, 2), (0, 3), (2, 0, 3)])
def test_any_axis_is_rows_of_another_matrix(kind, shape):
    rng = np.random.default_rng(0)
    z, delta = rng.standard_normal(shape), rng.standard_normal(shape)
    for axis in range(-len(shape), len(shape)):
        if not shape[axis]:
            continue
        y, cache = kind(axis).forward({}, z)
        dz, _ = kind(axis).backward(cache, delta)
        assert y.shape == dz.shape == shape
        rest = [n for k, n in enumerate(shape) if k != axis % len(shape)]
        for index in np.ndindex(*rest):
            at = list(index)
            at.insert(axis % len(shape), slice(None))
            row, cache_of_row = kind().forward({}, z[tuple(at)][None].copy())
            dz_of_row, _ = kind().backward(cache_of_row, delta[tuple(at)][None].copy())
            # A dozen roundings of numbers below 2^4; sums may run in another order, exp is within 4 ulp.
            for one, other in ((y[tuple(at)], row[0]), (dz[tuple(at)], dz_of_row[0])):
                assert np.abs(one - other).max() <= 2.0**-53 * 2**4 * 16


@pytest.mark.parametrize("row", [[0, 20, -15], [60, 0, 1], [1e4, -1e4, 0], [0.5, 0.25, 0.5], [-30, -80, 8]])
def test_log_softmax_survives_saturation(row):
    """Two functions of 8u and four operations; dz against the sum of the sizes of its terms."""
    z, delta = np.float32([row]), np.float32([[3, -1.5, 0.75]])
    y, cache = m.LogSoftmax().forward({}, z)
    dz, _ = m.LogSoftmax().backward(cache, delta)
    exact, d = balls(z), balls(delta)
    e = [x.exp() for x in exact]
    within(y[0], [x - sum(e).log() for x in exact], 20, 2.0**-148)
    top = row.index(max(row))
    for i, actual in enumerate(balls(dz)):
        a = [v / sum(e) for v in e]
        others = sum(a[k] for k in range(3) if k != i)
        truth = d[i] * others - a[i] * sum(d[k] for k in range(3) if k != i)
        terms = [abs(d[i]), a[i] * sum(map(abs, d))]
        if i == top:
            terms = [abs(d[i]) * others, a[i] * sum(abs(d[k]) for k in range(3) if k != i)]
        assert abs(actual - truth) <= 24 * UNITS[np.float32] * sum(terms) + 2.0**-147


def test_swiglu_is_a_gate_times_a_unit():
    """At g = 0 the gate is 0 and its slope ½; far out it is g and 0."""
    z = np.array([[0.0, 4000.0, -4000.0, 3.0, 5.0, 7.0]])
    y, cache = m.SwiGLU().forward({}, z)
    np.testing.assert_array_equal(y, [[0, 20000, 0]])
    dz, _ = m.SwiGLU().backward(cache, np.array([[2.0, 3, 4]]))
    np.testing.assert_array_equal(dz, [[3, 15, 0, 0, 12000, 0]])


def test_swiglu_between_linear_layers():
    network = m.Sequential(m.Linear(3, 8), m.SwiGLU(), m.Linear(4, 2))
    params = network.init(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    z, delta = rng.standard_normal((5, 3)), rng.standard_normal((5, 2))
    one, other = m.deltas(network, params, z, delta), m.deltas(network, params, z, delta, closed_form=True)
    assert [d.shape for d in one] == [(5, 3), (5, 8), (5, 4), (5, 2)]
    for a, b in zip(one, other, strict=True):
        # Sums of at most eight products of numbers below 2^4, and a dozen roundings in each.
        assert np.abs(a - b).max() <= 2.0**-53 * 2**4 * 8 * 12

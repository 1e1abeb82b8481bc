"""The error radius of finite differences contains the exact derivative, and is infinite at a kink."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import Rule, finite_difference
from oracles.finite_differences import directional_derivative


def rule(f):
    return Rule(lambda **primals: (f(**primals), lambda delta: {}), "f")


SMOOTH = {
    "tanh": (np.tanh, lambda z: 4 / (z.exp() + (-z).exp()) ** 2),
    "exp": (np.exp, lambda z: z.exp()),
    "square": (np.square, lambda z: 2 * z),
    "reciprocal of 2 + z²": (lambda z: 1 / (2 + z * z), lambda z: -2 * z / (2 + z * z) ** 2),
}


@pytest.mark.parametrize("name", SMOOTH)
@given(z=st.floats(-3, 3), delta=st.floats(-2, 2))
def test_radius_contains_the_exact_derivative(name, z, delta):
    f, derivative = SMOOTH[name]
    slope, radius = directional_derivative(
        rule(lambda z: f(z)), {"z": np.array([z])}, np.array([delta]), {"z": np.ones(1)}
    )
    with localcontext() as context:
        context.prec = 50
        error = abs(float(Decimal(slope) - Decimal(delta) * derivative(Decimal(z))))
    assert error <= radius
    assert radius <= 1e-7 * (1 + abs(delta))  # a useful radius is small


def test_radius_is_infinite_at_a_pole_whose_value_is_finite():
    """1/z² is finite where z is a rounded zero, and the slopes of both sides cancel."""

    def pole(z):
        return 1 / (z * z + 1e-300)

    _, radius = directional_derivative(rule(pole), {"z": np.zeros(1)}, np.ones(1), {"z": np.ones(1)})
    assert radius == np.inf


def test_radius_is_infinite_where_an_output_overflows_under_a_delta_of_zero():
    """0 · ∞ is NaN in torch and in JAX, and no difference shows whether it is 0."""
    with np.errstate(over="ignore"):
        exp = rule(lambda z: np.exp(z))
        _, radius = directional_derivative(exp, {"z": np.array([775.0])}, np.zeros(1), {"z": np.ones(1)})
        _, elsewhere = directional_derivative(exp, {"z": np.array([700.0])}, np.zeros(1), {"z": np.ones(1)})
    assert radius == np.inf
    assert elsewhere < np.inf


@pytest.mark.parametrize("f", [np.abs, lambda z: np.maximum(z, 0), lambda z: np.maximum(z, 0.1 * z)])
def test_radius_is_infinite_at_a_kink(f):
    _, radius = directional_derivative(rule(lambda z: f(z)), {"z": np.zeros(3)}, np.ones(3), {"z": np.ones(3)})
    assert radius == np.inf


def test_radius_is_infinite_at_kinks_that_cancel():
    _, radius = directional_derivative(
        rule(lambda z: np.abs(z)), {"z": np.zeros(2)}, np.array([1.0, -1.0]), {"z": np.ones(2)}
    )
    assert radius == np.inf


def test_every_entry_has_its_enclosure():
    y, pullback = finite_difference(rule(lambda z, W, k: (z @ W)[k]))(
        z=np.array([[1.0, 2.0], [3.0, -1.0]]), W=np.array([[0.5, 1.0], [-2.0, 4.0]]), k=np.array([0, 0, 1])
    )
    cotangents = pullback(np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]))
    assert set(cotangents) == {"z", "W"}
    assert y.shape == (3, 2)
    for n, exact in {"z": [[1.5, 2.0], [3.0, 4.0]], "W": [[7.0, 7.0], [0.0, 0.0]]}.items():
        assert np.all(np.abs(cotangents[n].mid - exact) <= cotangents[n].radius)
        assert np.all(cotangents[n].radius < 1e-10)


@pytest.mark.parametrize("name", ["tanh", "exp"])
@pytest.mark.parametrize("v", [2.0**-1074, 2.0**-1071, 2.0**-1022, 2.0**-600])
def test_radius_contains_the_exact_derivative_of_subnormal_numbers(name, v):
    f, derivative = SMOOTH[name]
    slope, radius = directional_derivative(
        rule(lambda z: f(z)), {"z": np.array([v])}, np.array([1.75]), {"z": np.array([v])}
    )
    with localcontext() as context:
        context.prec = 50
        error = abs(Decimal(slope) - Decimal("1.75") * derivative(Decimal(v)) * Decimal(v))
        assert error <= Decimal(radius)
    assert radius <= max(1e-7 * v, 2.0**-1022)


def test_bend_that_every_step_of_the_ladder_jumps_over_is_within_the_radius():
    """Another entry makes the steps long, and both ends are flat: the probes that meet the bend know better."""

    def bump(z):
        near = 1 / np.cosh(z[:1] - 16.5) ** 2
        return np.concatenate([near, np.tanh(z[1:]), np.full(50, 0.5)]), z

    point, delta = {"z": np.array([0.0, 1.1e6])}, np.ones(52)
    rule = Rule(lambda z: (bump(z)[0], lambda delta: {}))
    slope, radius = directional_derivative(rule, point, delta, {"z": np.array([1.0, 0.0])})
    truth = 2 * np.tanh(16.5) / np.cosh(16.5) ** 2
    assert abs(slope - truth) <= radius


def test_what_no_step_shows_of_tiny_numbers_is_unknown():
    """Another output is so large that its rounding hides the slope at steps of the entry's own size."""
    z = np.array([1e-69, 1e-94])
    rule = Rule(lambda z: (1 / np.where(z == 0, 1, z), lambda delta: {}))
    slope, radius = directional_derivative(rule, {"z": z}, np.array([1e-9, 5e2]), {"z": np.array([1.0, 0.0])}, own=z[0])
    assert abs(slope + 1e-9 / z[0] ** 2) <= radius
    alone = Rule(lambda z: (z**2, lambda delta: {}))
    slope, radius = directional_derivative(alone, {"z": z[:1]}, np.ones(1), {"z": np.ones(1)}, own=z[0])
    assert abs(slope - 2 * z[0]) <= radius <= 1e-20

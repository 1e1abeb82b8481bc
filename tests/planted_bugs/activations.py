"""Bugs in the activations."""

from __future__ import annotations

import numpy as np

import manual_bp as m
from manual_bp._normal import cumulative, density
from oracles.strategies import constant, real
from planted_bugs.planting import Mutant, bug, case_of, logistic, with_backward


def random_input(layer, *shape):
    return case_of(layer, z=real(*(shape or (3, 4))))


def constant_input(layer, values):
    return case_of(layer, z=constant(values))


def with_derivative(layer, derivative):
    """The activation with another derivative, a function of z."""
    return with_backward(layer, lambda z, y, delta, correct: (delta * derivative(z).astype(z.dtype), {}))


def with_value(layer, value):
    """The activation with another value, a function of z."""

    def forward(params, z):
        return value(z).astype(z.dtype), layer.forward(params, z)[1]

    return Mutant(layer, forward=forward)


SOME_ZERO = [[0.0, 1.5, -2.0], [3.0, 0.0, -1.0]]

# ReLU and LeakyReLU


@bug("zeros", constant_input(m.ReLU(), SOME_ZERO), silent=random_input(m.ReLU()), verdict="kink", quick=True)
def relu_passes_delta_at_zero(layer):
    return with_derivative(layer, lambda z: z >= 0)


@bug("signs", random_input(m.ReLU()))
def relu_leaks_in_backward(layer):
    return with_derivative(layer, lambda z: np.where(z > 0, 1, 0.01))


@bug("value_for_derivative", random_input(m.ReLU()))
def relu_multiplies_by_its_output(layer):
    return with_backward(layer, lambda z, y, delta, correct: (delta * y, {}))


@bug("signs", random_input(m.LeakyReLU(0.3)), silent=random_input(m.LeakyReLU()))
def default_slope_in_backward(layer):
    return with_derivative(layer, m.LeakyReLU().derivative)


@bug("signs", random_input(m.LeakyReLU()))
def leaky_relu_passes_nothing_below_zero(layer):
    return with_derivative(layer, lambda z: z > 0)


@bug("signs", random_input(m.LeakyReLU()))
def leaky_relu_slope_squared(layer):
    return with_derivative(layer, lambda z: layer.derivative(z) ** 2)


# PReLU


@bug("constant_factor", case_of(m.PReLU(), z=real(3, 4)))
def slope_gradient_averaged_over_the_batch(layer):
    def backward(z, y, delta, correct):
        return correct[0], {"slope": correct[1]["slope"] / delta.dtype.type(max(len(delta), 1))}

    return with_backward(layer, backward)


@bug("reduced_too_far", random_input(m.PReLU(3), 4, 3, 2), silent=random_input(m.PReLU(), 4, 3, 2))
def slope_gradient_summed_over_channels(layer):
    def backward(z, y, delta, correct):
        return correct[0], {"slope": np.full_like(correct[1]["slope"], correct[1]["slope"].sum())}

    return with_backward(layer, backward)


@bug("zeros", constant_input(m.PReLU(), SOME_ZERO), verdict="kink")
def prelu_passes_delta_at_zero(layer):
    return with_backward(layer, lambda z, y, delta, correct: (np.where(z == 0, delta, correct[0]), correct[1]))


# Sigmoid, Tanh and Identity


@bug(
    "saturated",
    constant_input(m.Sigmoid(), [[0.5, -1.0, 800.0]]),
    silent=random_input(m.Sigmoid()),
    refused_by="primal_agrees",
    quick=True,
)
def sigmoid_overflows_to_nan(layer):
    def value(z):
        with np.errstate(all="ignore"):
            return np.exp(z) / (1 + np.exp(z))

    return with_value(layer, value)


@bug("", random_input(m.Sigmoid()))
def sigmoid_derivative_in_terms_of_the_input(layer):
    return with_derivative(layer, lambda z: z * (1 - z))


@bug("logits_for_probabilities", random_input(m.Sigmoid()))
def sigmoid_applied_again_in_backward(layer):
    return with_backward(layer, lambda z, y, delta, correct: (delta * layer.derivative(y), {}))


@bug("", random_input(m.Tanh()))
def tanh_derivative_in_terms_of_the_input(layer):
    return with_derivative(layer, lambda z: 1 - z**2)


@bug("", random_input(m.Tanh()))
def tanh_output_not_squared(layer):
    return with_backward(layer, lambda z, y, delta, correct: (delta * (1 - np.abs(y)), {}))


@bug("constant_factor", random_input(m.Tanh()))
def tanh_gradient_negated(layer):
    return with_backward(layer, lambda z, y, delta, correct: (-correct[0], {}))


@bug("constant_factor", random_input(m.Identity()))
def identity_gradient_negated(layer):
    return with_backward(layer, lambda z, y, delta, correct: (-delta, {}))


@bug("", random_input(m.Identity()), refused_by="nothing_mutated_or_aliased")
def identity_returns_delta_itself(layer):
    return with_backward(layer, lambda z, y, delta, correct: (delta, {}))


@bug("", random_input(m.Identity()), refused_by="nothing_mutated_or_aliased")
def identity_returns_its_input_itself(layer):
    return Mutant(layer, forward=lambda params, z: (z, layer.forward(params, z)[1]))


# GELU, SiLU and SwiGLU


@bug("", random_input(m.GELU("tanh")), silent=random_input(m.GELU()))
def derivative_of_the_exact_gelu(layer):
    return with_derivative(layer, m.GELU().derivative)


@bug("detached_term", random_input(m.GELU()))
def gelu_without_its_density_term(layer):
    return with_derivative(layer, cumulative)


@bug("", random_input(m.GELU()))
def gelu_density_not_normalized(layer):
    if layer.approximate == "tanh":
        return layer
    return with_derivative(layer, lambda z: cumulative(z) + z * density(z) * 2**0.5)


@bug("", random_input(m.GELU()), refused_by="primal_agrees")
def gelu_by_the_sigmoid_approximation(layer):
    return with_value(layer, lambda z: z * logistic(1.702 * z))


@bug("detached_term", random_input(m.SiLU()))
def silu_gate_taken_for_a_constant(layer):
    return with_derivative(layer, logistic)


@bug("", random_input(m.SiLU()))
def silu_sigmoid_derivative_from_the_output(layer):
    return with_backward(
        layer, lambda z, y, delta, correct: (delta * (logistic(z) + z * y * (1 - y)).astype(z.dtype), {})
    )


@bug("saturated", constant_input(m.SiLU(), [[0.5, -1.0, 30.0], [40.0, -0.25, 2.0]]))
def silu_gradient_vanishes_once_saturated(layer):
    return with_derivative(layer, lambda z: np.where(z > 20, 0, layer.derivative(z)))


@bug("permuted", random_input(m.SwiGLU()))
def swiglu_halves_swapped(layer):
    return with_backward(layer, lambda z, y, delta, correct: (np.roll(correct[0], y.shape[-1], axis=-1), {}))


def _halves(z):
    return np.split(z, 2, axis=-1)


@bug("wrong_only_in_locations", random_input(m.SwiGLU()))
def swiglu_gate_is_the_sigmoid_alone(layer):
    def backward(z, y, delta, correct):
        gate, _ = _halves(z)
        return np.concatenate([_halves(correct[0])[0], delta * logistic(gate).astype(z.dtype)], axis=-1), {}

    return with_backward(layer, backward)


@bug("detached_term", random_input(m.SwiGLU()))
def swiglu_gate_derivative_taken_for_its_sigmoid(layer):
    def backward(z, y, delta, correct):
        gate, up = _halves(z)
        return np.concatenate([delta * up * logistic(gate).astype(z.dtype), _halves(correct[0])[1]], axis=-1), {}

    return with_backward(layer, backward)


# Softplus


@bug("", random_input(m.Softplus(3.0)), silent=random_input(m.Softplus()))
def softplus_beta_ignored_in_backward(layer):
    return with_derivative(layer, m.Softplus(1.0, layer.threshold).derivative)


@bug("constant_factor", random_input(m.Softplus(3.0)), silent=random_input(m.Softplus()))
def softplus_gradient_scaled_by_beta(layer):
    return with_backward(layer, lambda z, y, delta, correct: (correct[0] * z.dtype.type(layer.beta), {}))


HALF_LINEAR = [[0.5, -1.0, 3.0], [2.0, -0.25, 1.5]]


@bug("saturated", constant_input(m.Softplus(3.0, 3.5), HALF_LINEAR), silent=constant_input(m.Softplus(), HALF_LINEAR))
def softplus_threshold_not_scaled_by_beta(layer):
    smooth = m.Softplus(layer.beta).derivative
    if layer.threshold is None:
        return layer
    return with_derivative(layer, lambda z: np.where(z > layer.threshold, 1, smooth(z)))


@bug("negated_primal", random_input(m.Softplus()))
def softplus_sigmoid_of_the_other_tail(layer):
    return with_derivative(layer, lambda z: layer.derivative(-z))


# Softmax and LogSoftmax


@bug("softmax_axis", random_input(m.Softmax(0), 3, 3), silent=random_input(m.Softmax(), 3, 3))
def softmax_backward_along_the_last_axis(layer):
    return with_backward(layer, lambda z, y, delta, correct: (y * (delta - (delta * y).sum(-1, keepdims=True)), {}))


@bug("block_diagonal", random_input(m.Softmax()), quick=True)
def softmax_jacobian_without_its_off_diagonal(layer):
    return with_backward(layer, lambda z, y, delta, correct: (delta * y * (1 - y), {}))


@bug("all_zero", random_input(m.Softmax()), quick=True)
def softmax_gradient_all_zero(layer):
    return with_backward(layer, lambda z, y, delta, correct: (np.zeros_like(z), {}))


@bug("softmax_axis", random_input(m.Softmax(0), 2, 3, 4), silent=random_input(m.Softmax(), 2, 3, 4))
def softmax_along_the_last_axis(layer):
    return m.Softmax()


@bug("softmax_axis", random_input(m.LogSoftmax(0), 3, 3), silent=random_input(m.LogSoftmax(), 3, 3))
def log_softmax_sum_along_the_last_axis(layer):
    return with_backward(layer, lambda z, y, delta, correct: (delta - np.exp(y) * delta.sum(-1, keepdims=True), {}))


@bug("block_diagonal", random_input(m.LogSoftmax()))
def log_softmax_jacobian_without_its_off_diagonal(layer):
    return with_backward(layer, lambda z, y, delta, correct: (delta * (1 - np.exp(y)), {}))


@bug("primal_changed", random_input(m.LogSoftmax()))
def log_softmax_probabilities_taken_for_uniform(layer):
    def backward(z, y, delta, correct):
        return delta - delta.sum(layer.axis, keepdims=True) / delta.dtype.type(delta.shape[layer.axis]), {}

    return with_backward(layer, backward)

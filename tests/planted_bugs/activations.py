"""Bugs in the activations."""

from __future__ import annotations

import numpy as np

import manual_bp as m
from manual_bp._normal import cumulative, density
from oracles.strategies import constant, real
from planted_bugs.planting import Wrong, at, bug, going_back, logistic


def of(layer, *shape):
    return at(layer, z=real(*(shape or (3, 4))))


def on(layer, values):
    return at(layer, z=constant(values))


def sloped(layer, derivative):
    """The activation with another derivative, a function of z."""
    return going_back(layer, lambda z, y, delta, right: (delta * derivative(z).astype(z.dtype), {}))


def valued(layer, value):
    """The activation with another value, a function of z."""

    def forward(params, z):
        return value(z).astype(z.dtype), layer.forward(params, z)[1]

    return Wrong(layer, forward=forward)


SOME_ZERO = [[0.0, 1.5, -2.0], [3.0, 0.0, -1.0]]

# ReLU and LeakyReLU


@bug("zeros", on(m.ReLU(), SOME_ZERO), silent=of(m.ReLU()), verdict="kink", quick=True)
def relu_passes_delta_at_zero(layer):
    return sloped(layer, lambda z: z >= 0)


@bug("signs", of(m.ReLU()))
def relu_leaks_in_backward(layer):
    return sloped(layer, lambda z: np.where(z > 0, 1, 0.01))


@bug("known_factor", of(m.ReLU()))
def relu_multiplies_by_its_output(layer):
    return going_back(layer, lambda z, y, delta, right: (delta * y, {}))


@bug("signs", of(m.LeakyReLU(0.3)), silent=of(m.LeakyReLU()))
def default_slope_in_backward(layer):
    return sloped(layer, m.LeakyReLU().derivative)


@bug("signs", of(m.LeakyReLU()))
def leaky_relu_passes_nothing_below_zero(layer):
    return sloped(layer, lambda z: z > 0)


@bug("signs", of(m.LeakyReLU()))
def leaky_relu_slope_squared(layer):
    return sloped(layer, lambda z: layer.derivative(z) ** 2)


# PReLU


@bug("constant_factor", at(m.PReLU(), z=real(3, 4)))
def slope_gradient_averaged_over_the_batch(layer):
    def backward(z, y, delta, right):
        return right[0], {"slope": right[1]["slope"] / delta.dtype.type(max(len(delta), 1))}

    return going_back(layer, backward)


@bug("reduced_too_far", of(m.PReLU(3), 4, 3, 2), silent=of(m.PReLU(), 4, 3, 2))
def slope_gradient_summed_over_channels(layer):
    def backward(z, y, delta, right):
        return right[0], {"slope": np.full_like(right[1]["slope"], right[1]["slope"].sum())}

    return going_back(layer, backward)


@bug("zeros", on(m.PReLU(), SOME_ZERO), verdict="kink")
def prelu_passes_delta_at_zero(layer):
    return going_back(layer, lambda z, y, delta, right: (np.where(z == 0, delta, right[0]), right[1]))


# Sigmoid, Tanh and Identity


@bug(
    "signs",
    on(m.Sigmoid(), [[0.5, -1.0, 800.0]]),
    silent=of(m.Sigmoid()),
    refused_by="primal_agrees",
    verdict="unstable",
    quick=True,
)
def sigmoid_overflows_to_nan(layer):
    def value(z):
        with np.errstate(all="ignore"):
            return np.exp(z) / (1 + np.exp(z))

    return valued(layer, value)


@bug("", of(m.Sigmoid()))
def sigmoid_derivative_in_terms_of_the_input(layer):
    return sloped(layer, lambda z: z * (1 - z))


@bug("", of(m.Sigmoid()))
def sigmoid_applied_again_in_backward(layer):
    return going_back(layer, lambda z, y, delta, right: (delta * layer.derivative(y), {}))


@bug("", of(m.Tanh()))
def tanh_derivative_in_terms_of_the_input(layer):
    return sloped(layer, lambda z: 1 - z**2)


@bug("", of(m.Tanh()))
def tanh_output_not_squared(layer):
    return going_back(layer, lambda z, y, delta, right: (delta * (1 - np.abs(y)), {}))


@bug("constant_factor", of(m.Tanh()))
def tanh_gradient_negated(layer):
    return going_back(layer, lambda z, y, delta, right: (-right[0], {}))


@bug("constant_factor", of(m.Identity()))
def identity_gradient_negated(layer):
    return going_back(layer, lambda z, y, delta, right: (-delta, {}))


@bug("", of(m.Identity()), refused_by="nothing_mutated_or_aliased")
def identity_returns_delta_itself(layer):
    return going_back(layer, lambda z, y, delta, right: (delta, {}))


@bug("", of(m.Identity()), refused_by="nothing_mutated_or_aliased")
def identity_returns_its_input_itself(layer):
    return Wrong(layer, forward=lambda params, z: (z, layer.forward(params, z)[1]))


# GELU, SiLU and SwiGLU


@bug("", of(m.GELU("tanh")), silent=of(m.GELU()))
def derivative_of_the_exact_gelu(layer):
    return sloped(layer, m.GELU().derivative)


@bug("", of(m.GELU()))
def gelu_without_its_density_term(layer):
    return sloped(layer, cumulative)


@bug("", of(m.GELU()))
def gelu_density_not_normalized(layer):
    if layer.approximate == "tanh":
        return layer
    return sloped(layer, lambda z: cumulative(z) + z * density(z) * 2**0.5)


@bug("", of(m.GELU()), refused_by="primal_agrees")
def gelu_by_the_sigmoid_approximation(layer):
    return valued(layer, lambda z: z * logistic(1.702 * z))


@bug("", of(m.SiLU()))
def silu_gate_taken_for_a_constant(layer):
    return sloped(layer, logistic)


@bug("", of(m.SiLU()))
def silu_sigmoid_derivative_from_the_output(layer):
    return going_back(layer, lambda z, y, delta, right: (delta * (logistic(z) + z * y * (1 - y)).astype(z.dtype), {}))


@bug("signs", on(m.SiLU(), [[0.5, -1.0, 30.0], [40.0, -0.25, 2.0]]))
def silu_gradient_vanishes_once_saturated(layer):
    return sloped(layer, lambda z: np.where(z > 20, 0, layer.derivative(z)))


@bug("permuted", of(m.SwiGLU()))
def swiglu_halves_swapped(layer):
    return going_back(layer, lambda z, y, delta, right: (np.roll(right[0], y.shape[-1], axis=-1), {}))


def _halves(z):
    return np.split(z, 2, axis=-1)


@bug("wrong_only_in_locations", of(m.SwiGLU()))
def swiglu_gate_is_the_sigmoid_alone(layer):
    def backward(z, y, delta, right):
        gate, _ = _halves(z)
        return np.concatenate([_halves(right[0])[0], delta * logistic(gate).astype(z.dtype)], axis=-1), {}

    return going_back(layer, backward)


@bug("wrong_only_in_locations", of(m.SwiGLU()))
def swiglu_gate_derivative_taken_for_its_sigmoid(layer):
    def backward(z, y, delta, right):
        gate, up = _halves(z)
        return np.concatenate([delta * up * logistic(gate).astype(z.dtype), _halves(right[0])[1]], axis=-1), {}

    return going_back(layer, backward)


# Softplus


@bug("", of(m.Softplus(3.0)), silent=of(m.Softplus()))
def softplus_beta_ignored_in_backward(layer):
    return sloped(layer, m.Softplus(1.0, layer.threshold).derivative)


@bug("constant_factor", of(m.Softplus(3.0)), silent=of(m.Softplus()))
def softplus_gradient_scaled_by_beta(layer):
    return going_back(layer, lambda z, y, delta, right: (right[0] * z.dtype.type(layer.beta), {}))


HALF_LINEAR = [[0.5, -1.0, 3.0], [2.0, -0.25, 1.5]]


@bug("signs", on(m.Softplus(3.0, 3.5), HALF_LINEAR), silent=on(m.Softplus(), HALF_LINEAR))
def softplus_threshold_not_scaled_by_beta(layer):
    smooth = m.Softplus(layer.beta).derivative
    if layer.threshold is None:
        return layer
    return sloped(layer, lambda z: np.where(z > layer.threshold, 1, smooth(z)))


@bug("", of(m.Softplus()))
def softplus_sigmoid_of_the_other_tail(layer):
    return sloped(layer, lambda z: layer.derivative(-z))


# Softmax and LogSoftmax


@bug("", of(m.Softmax(0), 3, 3), silent=of(m.Softmax(), 3, 3))
def softmax_backward_along_the_last_axis(layer):
    return going_back(layer, lambda z, y, delta, right: (y * (delta - (delta * y).sum(-1, keepdims=True)), {}))


@bug("block_diagonal", of(m.Softmax()), quick=True)
def softmax_jacobian_without_its_off_diagonal(layer):
    return going_back(layer, lambda z, y, delta, right: (delta * y * (1 - y), {}))


@bug("all_zero", of(m.Softmax()), quick=True)
def softmax_gradient_all_zero(layer):
    return going_back(layer, lambda z, y, delta, right: (np.zeros_like(z), {}))


@bug("backward_of_own_forward", of(m.Softmax(0), 2, 3, 4), silent=of(m.Softmax(), 2, 3, 4))
def softmax_along_the_last_axis(layer):
    return m.Softmax()


@bug("", of(m.LogSoftmax(0), 3, 3), silent=of(m.LogSoftmax(), 3, 3))
def log_softmax_sum_along_the_last_axis(layer):
    return going_back(layer, lambda z, y, delta, right: (delta - np.exp(y) * delta.sum(-1, keepdims=True), {}))


@bug("block_diagonal", of(m.LogSoftmax()))
def log_softmax_jacobian_without_its_off_diagonal(layer):
    return going_back(layer, lambda z, y, delta, right: (delta * (1 - np.exp(y)), {}))


@bug("", of(m.LogSoftmax()))
def log_softmax_probabilities_taken_for_uniform(layer):
    def backward(z, y, delta, right):
        return delta - delta.sum(layer.axis, keepdims=True) / delta.dtype.type(delta.shape[layer.axis]), {}

    return going_back(layer, backward)

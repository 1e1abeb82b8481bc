"""Activations."""

import numpy as np
import torch

from oracles import torch_autograd, torch_function
from third_party.layers import Layer, grown, normal, register


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def activation(name, reference, f, derivative, draw=None):
    return Layer(
        name,
        reference,
        lambda x: (f(x), (x, f(x))),
        lambda c, d: {"x": d * derivative(c[0])},
        draw or normal(4, 5),
    )


F = torch.nn.functional

sigmoid_layer = activation("sigmoid", lambda x: torch.sigmoid(x), sigmoid, lambda x: sigmoid(x) * (1 - sigmoid(x)))
sigmoid_layer.mistake(
    "σ'(a) of the activation a where σ'(z) belongs",
    "primal_changed",
    ("logits_for_probabilities",),
    x=lambda c, d, g: d * sigmoid(c[1]) * (1 - sigmoid(c[1])),
)
sigmoid_layer.mistake("y(1 − y) once too often", "known_factor", x=lambda c, d, g: g * c[1] * (1 - c[1]))

tanh = activation("tanh", lambda x: torch.tanh(x), np.tanh, lambda x: 1 - np.tanh(x) ** 2)
tanh.mistake("y where y' belongs", "value_for_derivative", ("known_factor",), x=lambda c, d, g: d * c[1])

softplus = activation("softplus", lambda x: F.softplus(x), lambda x: np.log1p(np.exp(x)), sigmoid)
softplus.mistake("the derivative forgotten", "derivative_missing", ("known_factor",), x=lambda c, d, g: d.copy())
softplus.mistake("σ(−x) where σ(x) belongs", "negated_primal", x=lambda c, d, g: d * sigmoid(-c[0]))


def relu_draw(rng, k):
    return {"x": rng.standard_normal(grown((4, 5), k))}


relu = activation("relu", lambda x: torch.relu(x), lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(x.dtype))
relu.mistake("the mask made of delta", "primal_changed", x=lambda c, d, g: d * (d > 0))
relu.mistake("the mask negated", "negated_primal", ("signs",), x=lambda c, d, g: d * (c[0] < 0))

leaky = activation(
    "leaky relu",
    lambda x: F.leaky_relu(x, 0.1),
    lambda x: np.where(x > 0, x, x.dtype.type(0.1) * x),
    lambda x: np.where(x > 0, x.dtype.type(1), x.dtype.type(0.1)),
)
leaky.mistake("the slope of negative inputs forgotten", "signs", ("zero_in_some",), x=lambda c, d, g: d * (c[0] > 0))

silu = activation(
    "silu", lambda x: x * torch.sigmoid(x), lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x)))
)
silu.mistake("the derivative of σ forgotten", "detached_term", x=lambda c, d, g: d * sigmoid(c[0]))

elu = activation(
    "elu", lambda x: F.elu(x), lambda x: np.where(x > 0, x, np.expm1(x)), lambda x: np.where(x > 0, 1, np.exp(x))
)
elu.mistake("y where y + 1 belongs", "signs", x=lambda c, d, g: np.where(c[0] > 0, d, d * c[1]))

softsign = activation(
    "softsign", lambda x: F.softsign(x), lambda x: x / (1 + np.abs(x)), lambda x: (1 + np.abs(x)) ** -2
)
softsign.mistake("a minus sign", "constant_factor", x=lambda c, d, g: -g)

hardtanh = activation(
    "hardtanh",
    lambda x: F.hardtanh(x),
    lambda x: np.clip(x, -1, 1),
    lambda x: (np.abs(x) < 1).astype(x.dtype),
    lambda rng, k: {"x": 1.5 * rng.standard_normal(grown((4, 5), k))},
)
hardtanh.mistake("no cut outside", "saturated", ("derivative_missing",), x=lambda c, d, g: d.copy())

square_root = activation(
    "square root",
    lambda x: torch.sqrt(x),
    np.sqrt,
    lambda x: 0.5 / np.sqrt(x),
    lambda rng, k: {"x": rng.uniform(0.5, 3, grown((3, 4), k))},
)
square_root.mistake("the 2 forgotten", "constant_factor", x=lambda c, d, g: 2 * g)

log_cosh = activation("log cosh", lambda x: torch.log(torch.cosh(x)), lambda x: np.log(np.cosh(x)), np.tanh)
log_cosh.mistake(
    "float32 inside", "coarse_rounding", x=lambda c, d, g: d * np.tanh(c[0].astype(np.float32)).astype(d.dtype)
)
log_cosh.mistake("the cotangent clipped", "clipped", ("delta_clipped",), x=lambda c, d, g: np.clip(g, -0.25, 0.25))

glu = Layer(
    "gated linear unit",
    lambda x: F.glu(x, -1),
    lambda x: (x[:, : x.shape[1] // 2] * sigmoid(x[:, x.shape[1] // 2 :]), x),
    lambda x, d: {"x": glu_back(x, d)},
    lambda rng, k: {"x": rng.standard_normal((3 + k, 6 + 2 * k))},
)


def glu_back(x, d):
    a, b = np.split(x, 2, axis=1)
    s = sigmoid(b)
    return np.concatenate([d * s, d * a * s * (1 - s)], axis=1)


glu.mistake(
    "the halves swapped",
    "permuted",
    ("shifted", "index_map"),
    x=lambda x, d, g: np.concatenate(np.split(g, 2, 1)[::-1], 1),
)
glu.mistake(
    "no gradient to the gate",
    "zero_in_some",
    ("wrong_only_in_locations",),
    x=lambda x, d, g: g * (np.arange(g.shape[1]) < g.shape[1] // 2),
)


class Float32Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, delta):
        (x,) = ctx.saved_tensors
        return (2 * delta.float() * x.float()).to(delta.dtype)


class Square(Float32Square):
    @staticmethod
    def backward(ctx, delta):
        (x,) = ctx.saved_tensors
        return 2 * delta * x


register(
    "square, torch: computed in float32",
    "coarse_rounding",
    (),
    torch_function(Float32Square),
    torch_function(Square),
    torch_autograd(lambda x: x * x),
    normal(4, 5),
)

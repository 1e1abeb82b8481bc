"""Normalizations and projections."""

import numpy as np
import torch

from oracles import torch_autograd, torch_function
from third_party.layers import Layer, grown, register

F = torch.nn.functional


def with_parameters(rng, k, *shape):
    n = grown(shape, k)
    return {"x": rng.standard_normal(n), "w": rng.uniform(0.5, 2, n[-1:]), "b": rng.standard_normal(n[-1:])}


def layer_norm_forward(x, w, b):
    s = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    h = (x - x.mean(-1, keepdims=True)) / s
    return h * w + b, (h, s, w)


def layer_norm_back(c, d):
    h, s, w = c
    g = d * w
    dx = (g - g.mean(-1, keepdims=True) - h * (g * h).mean(-1, keepdims=True)) / s
    return {"x": dx, "w": (d * h).sum(0), "b": d.sum(0)}


def without_gamma(c, d):
    h, s, _ = c
    return (d - d.mean(-1, keepdims=True) - h * (d * h).mean(-1, keepdims=True)) / s


layer_norm = Layer(
    "layer norm",
    lambda x, w, b: F.layer_norm(x, w.shape, w, b, 1e-5),
    layer_norm_forward,
    layer_norm_back,
    lambda rng, k: with_parameters(rng, k, 4, 6),
)
layer_norm.mistake("γ multiplied after the sums", "factor_outside_sum", x=lambda c, d, g: c[2] * without_gamma(c, d))
layer_norm.mistake("γ left out of dx", "primal_changed", x=lambda c, d, g: without_gamma(c, d))
layer_norm.mistake(
    "mean and variance taken as constants",
    "term_along_axis",
    ("detached_term", "evaluation_statistics"),
    x=lambda c, d, g: d * c[2] / c[1],
)
layer_norm.mistake(
    "the variance taken as a constant",
    "term_along_axis",
    ("detached_term",),
    x=lambda c, d, g: (d * c[2] - (d * c[2]).mean(-1, keepdims=True)) / c[1],
)
layer_norm.mistake("dβ not summed over the batch", "not_reduced", b=lambda c, d, g: d.copy())
layer_norm.mistake("dγ averaged over the batch", "constant_factor", w=lambda c, d, g: g / len(d))
layer_norm.mistake("divided by the variance", "factor_per_group", x=lambda c, d, g: g / c[1])


def batch_norm_training(c, d):
    h, s, w = c
    g = d * w
    return (g - g.mean(0) - h * (g * h).mean(0)) / s


batch_norm = Layer(
    "batch norm in evaluation",
    lambda x, w, b, mean, var: (x - mean) / torch.sqrt(var + 1e-5) * w + b,
    lambda x, w, b, mean, var: (
        (x - mean) / np.sqrt(var + 1e-5) * w + b,
        ((x - mean) / np.sqrt(var + 1e-5), np.sqrt(var + 1e-5), w),
    ),
    lambda c, d: {"x": d * c[2] / c[1], "w": (d * c[0]).sum(0), "b": d.sum(0)},
    lambda rng, k: {
        **with_parameters(rng, k, 5, 3),
        "mean": rng.standard_normal(3 + 2 * k),
        "var": rng.uniform(0.5, 2, 3 + 2 * k),
    },
)
batch_norm.mistake(
    "the backward of training",
    "evaluation_statistics",
    ("term_along_axis",),
    x=lambda c, d, g: batch_norm_training(c, d),
)


class RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        s = (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
        ctx.save_for_backward(x, w, s)
        return x * s * w

    @staticmethod
    def backward(ctx, delta):
        x, w, s = ctx.saved_tensors
        g = delta * w
        return s * g - x * s**3 * (g * x).mean(-1, keepdim=True), (delta * x * s).sum(0)


class SumForMean(RMSNorm):
    @staticmethod
    def backward(ctx, delta):
        x, w, s = ctx.saved_tensors
        g = delta * w
        return s * g - x * s**3 * (g * x).sum(-1, keepdim=True), (delta * x * s).sum(0)


class WeightLeftOut(RMSNorm):
    @staticmethod
    def backward(ctx, delta):
        x, _, s = ctx.saved_tensors
        return s * delta - x * s**3 * (delta * x).mean(-1, keepdim=True), (delta * x * s).sum(0)


for what, pattern, acceptable, wrong in (
    ("a sum where a mean belongs", "term_along_axis", (), SumForMean),
    ("the weight left out of dx", "primal_changed", (), WeightLeftOut),
):
    register(
        f"RMS norm, torch: {what}",
        pattern,
        acceptable,
        torch_function(wrong),
        torch_function(RMSNorm),
        torch_autograd(lambda x, w: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * w),
        lambda rng, k: {n: a for n, a in with_parameters(rng, k, 3, 5).items() if n != "b"},
    )


def norm_of(x):
    return np.sqrt((x * x).sum(-1, keepdims=True))


unit = Layer(
    "x / ‖x‖",
    lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True),
    lambda x: (x / norm_of(x), x),
    lambda x, d: {"x": (d - x * (d * x).sum(-1, keepdims=True) / norm_of(x) ** 2) / norm_of(x)},
    lambda rng, k: {"x": rng.standard_normal(grown((3, 5), k))},
)
unit.mistake(
    "the norm taken as a constant",
    "term_along_axis",
    ("detached_term", "evaluation_statistics"),
    x=lambda x, d, g: d / norm_of(x),
)
unit.mistake("not divided by the norm", "factor_per_group", x=lambda x, d, g: g * norm_of(x))

norm = Layer(
    "the norm of a vector",
    lambda x: torch.sqrt((x * x).sum()),
    lambda x: (np.sqrt((x * x).sum()), x),
    lambda x, d: {"x": d * x / np.sqrt((x * x).sum())},
    lambda rng, k: {"x": rng.standard_normal(6 + k)},
)
norm.mistake("not divided by the norm", "constant_factor", x=lambda x, d, g: d * x)
norm.mistake("divided by the squared norm", "constant_factor", x=lambda x, d, g: d * x / (x * x).sum())

square_norm = Layer(
    "the squared norm, which is 4 at the first point",
    lambda x: (x * x).sum() ** 2 / 2,
    lambda x: ((x * x).sum() ** 2 / 2, x),
    lambda x, d: {"x": 2 * d * x * (x * x).sum()},
    lambda rng, k: {"x": np.array([[1.0, -1.0, 1.0, 1.0]]) if k == 0 else rng.standard_normal((1, 4 + k))},
)
square_norm.mistake("one factor ‖x‖² too many", "constant_factor", x=lambda x, d, g: g * (x * x).sum())

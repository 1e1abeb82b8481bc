"""Small layers in NumPy with their references in torch or JAX, and bugs in them whose pattern diagnosis must name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oracles import Rule, jax_vjp, manual, torch_autograd

RNG = np.random.default_rng(7)


def draw(*shape):
    return RNG.standard_normal(shape)


@dataclass(frozen=True)
class Layer:
    """A correct pair of functions, its reference in torch or JAX, and a point."""

    oracle: Rule
    forward: Callable[..., Any]
    backward: Callable[..., dict[str, Any]]
    primals: dict[str, Any]
    delta: Any

    def with_cotangents(self, **wrong):
        """Replace cotangents of the correct backward by functions of the cache, delta, and the correct cotangent."""

        def backward(cache, delta):
            cotangents = self.backward(cache, delta)
            return {**cotangents, **{n: f(cache, delta, cotangents[n]) for n, f in wrong.items()}}

        return manual(self.forward, backward)


def layer(oracle, forward, backward, delta, **primals):
    return Layer(oracle, forward, backward, primals, delta)


def jnp_softmax(z):
    import jax

    return jax.nn.softmax(z, -1)


def np_softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_back(y, d):
    return {"z": y * (d - (d * y).sum(-1, keepdims=True))}


def torch_layer_norm(z):
    return (z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()


def np_layer_norm(z):
    s = np.sqrt(z.var(-1, keepdims=True) + 1e-5)
    y = (z - z.mean(-1, keepdims=True)) / s
    return y, (y, s)


def layer_norm_back(cache, d):
    y, s = cache
    return {"z": (d - d.mean(-1, keepdims=True) - y * (d * y).mean(-1, keepdims=True)) / s}


def jnp_tanh(z):
    import jax.numpy as jnp

    return jnp.tanh(z)


def jnp_take(E, i):
    return E[i]


def take_back(cache, d):
    E, i = cache
    dE = np.zeros_like(E)
    np.add.at(dE, i, d)
    return {"E": dE}


def torch_conv(x, w):
    import torch

    return torch.nn.functional.conv1d(x, w)


def np_conv(x, w):
    k = w.shape[2]
    windows = np.lib.stride_tricks.sliding_window_view(x, k, axis=2)
    return np.einsum("nclk,ock->nol", windows, w), (x, w, windows)


def conv_back(cache, d):
    x, w, windows = cache
    dx = np.zeros_like(x)
    for j in range(w.shape[2]):
        dx[:, :, j : j + d.shape[2]] += np.einsum("nol,oc->ncl", d, w[:, :, j])
    return {"x": dx, "w": np.einsum("nol,nclk->ock", d, windows)}


def torch_masked(z, keep):
    return z * z * keep


def torch_relu(z):
    return z.relu()


def torch_split(z):
    return z.sin(), z * 2


def affine_back(cache, d):
    z, W = cache
    return {"z": d @ W.T, "W": z.T @ d, "b": d.sum(0, keepdims=True)}


def elementwise(f, df, torch_f, z, delta):
    return layer(torch_autograd(torch_f), lambda z: (f(z), z), lambda z, d: {"z": d * df(z)}, delta, z=z)


Z, W, B, D = draw(4, 3), draw(3, 5), draw(1, 5), draw(4, 5)
DENSE = layer(
    torch_autograd(lambda z, W, b: z @ W + b), lambda z, W, b: (z @ W + b, (z, W)), affine_back, D, z=Z, W=W, b=B
)
SQUARE = replace(DENSE, primals={"z": draw(4, 4), "W": draw(4, 4), "b": draw(1, 4)}, delta=draw(4, 4))
SOFTMAX = layer(jax_vjp(jnp_softmax), lambda z: (np_softmax(z),) * 2, softmax_back, draw(3, 5), z=draw(3, 5))
NORM = layer(torch_autograd(torch_layer_norm), np_layer_norm, layer_norm_back, draw(3, 6), z=draw(3, 6))
TANH = layer(
    jax_vjp(jnp_tanh), lambda z: (np.tanh(z),) * 2, lambda y, d: {"z": d * (1 - y * y)}, draw(3, 4), z=draw(3, 4)
)
SATURATED = replace(TANH, primals={"z": np.array([[0.5, -1.0, 3.0], [1e3, 0.25, -800.0]])}, delta=draw(2, 3))
EMBED = layer(
    jax_vjp(jnp_take), lambda E, i: (E[i], (E, i)), take_back, draw(5, 3), E=draw(7, 3), i=np.array([2, 0, 2, 5, 2])
)
CONV = layer(torch_autograd(torch_conv), np_conv, conv_back, draw(2, 3, 5), x=draw(2, 2, 7), w=draw(3, 2, 3))
RELU = layer(
    torch_autograd(torch_relu),
    lambda z: (np.maximum(z, 0), z),
    lambda z, d: {"z": d * (z > 0)},
    draw(2, 4),
    z=np.array([[0.0, 1.5, -2.0, 0.0], [3.0, -1.0, 0.5, 2.5]]),
)
MASKED = layer(
    torch_autograd(torch_masked),
    lambda z, keep: (z * z * keep, (z, keep)),
    lambda c, d: {"z": 2 * d * c[0] * c[1]},
    draw(3, 4),
    z=draw(3, 4),
    keep=np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], bool),
)
SPLIT = layer(
    torch_autograd(torch_split),
    lambda z: ((np.sin(z), 2 * z), z),
    lambda z, d: {"z": d[0] * np.cos(z) + 2 * d[1]},
    (draw(3, 4), draw(3, 4)),
    z=draw(3, 4),
)
LOSS = layer(
    torch_autograd(lambda z: (z * z).mean()),
    lambda z: (np.mean(z * z), z),
    lambda z, d: {"z": 2 * d * z / z.size},
    np.array(1.7),
    z=draw(4, 3),
)
MAX = layer(
    jax_vjp(lambda z: z.max(-1)),
    lambda z: (z.max(-1), z),
    lambda z, d: {"z": _shared(z) * d[:, None]},
    draw(3),
    z=np.array([[1.0, 2.0, 2.0], [3.0, 0.5, -1.0], [0.25, 0.75, 4.0]]),
)


def _shared(z):
    top = z == z.max(-1, keepdims=True)
    return top / top.sum(-1, keepdims=True)


def flipped_kernel(c, d, g):
    return conv_back((c[0], c[1][:, :, ::-1], c[2]), d)["x"]


SCALED = layer(
    torch_autograd(lambda z, b: (z * z * b).sum(1, keepdim=True) * b),
    lambda z, b: ((z * z * b).sum(1, keepdims=True) * b, (z, b)),
    lambda c, d: {"z": 2 * c[0] * c[1] * (d * c[1]).sum(1, keepdims=True)},
    draw(3, 4),
    z=draw(3, 4),
    b=draw(1, 4),
)
SINE = elementwise(np.sin, np.cos, lambda z: z.sin(), draw(3, 4), draw(3, 4))


def half_precision(c, d, g):
    return (c[0].astype(np.float16).T @ d.astype(np.float16)).astype(np.float64)


def last_write(c, d, g):
    g = np.zeros_like(c[0])
    g[c[1]] = d
    return g


def at(g, index, value):
    g = g.copy()
    g[index] = value
    return g


# Pattern, part of its text, layer, primal, wrong(cache, delta, correct cotangent), and the flat index of the entry that
# the near miss changes.
BUGS: list[tuple[str, str, Layer, str, Callable[..., Any], int]] = [
    ("constant_factor", "the sign is wrong", DENSE, "z", lambda c, d, g: -g, -1),
    ("constant_factor", "a factor 2 too many", SOFTMAX, "z", lambda c, d, g: 2 * g, -1),
    ("constant_factor", "a factor 2 too few", TANH, "z", lambda c, d, g: g / 2, -1),
    ("constant_factor", "N, the number of rows (axis 0 of z", DENSE, "W", lambda c, d, g: g * len(d), -1),
    ("constant_factor", "1/N, the number of rows", DENSE, "W", lambda c, d, g: g / len(d), -1),
    ("constant_factor", "the extent (axis 1 of z", SOFTMAX, "z", lambda c, d, g: g * g.shape[1], -1),
    ("constant_factor", "square root of the extent (axis 1", SOFTMAX, "z", lambda c, d, g: g * g.shape[1] ** 0.5, -1),
    ("constant_factor", "sample and population variance", NORM, "z", lambda c, d, g: g * (1 - 1 / g.shape[1]), -1),
    ("constant_factor", "number of entries (z", LOSS, "z", lambda c, d, g: g * g.size, -1),
    ("constant_factor", "1.73 times the oracle's", DENSE, "b", lambda c, d, g: 1.73 * g, -1),
    ("constant_factor", "another number times it at other values", TANH, "z", lambda c, d, g: g * np.sum(c * c), -1),
    ("constant_factor", "another number times it in other shapes", NORM, "z", lambda c, d, g: g * g.size**2, -1),
    ("factor_per_group", "along axis 1", NORM, "z", lambda c, d, g: g * np.array([2, 3, 5, 7, 1.5, 0.5]), -1),
    ("not_reduced", "its sum over axis 0", DENSE, "b", lambda c, d, g: d.copy(), -1),
    ("reduced_too_far", "sum over axis 0", DENSE, "z", lambda c, d, g: g.sum(0), -1),
    (
        "reduced_too_far",
        "all entries along axis 1 hold the mean",
        TANH,
        "z",
        lambda c, d, g: g * 0 + g.mean(1, keepdims=True),
        -1,
    ),
    ("shape", "shape (5,) for (1, 5)", DENSE, "b", lambda c, d, g: g[0], -1),
    ("transposed", "transposed", DENSE, "W", lambda c, d, g: g.T, -1),
    ("transposed", "transposed", SQUARE, "W", lambda c, d, g: g.T, -1),
    ("primal_transposed", "with W transposed", SQUARE, "z", lambda c, d, g: d @ c[1], -1),
    ("reversed", "reversed along axis 2", CONV, "w", lambda c, d, g: g[:, :, ::-1], -1),
    ("reshaped", "order", DENSE, "W", lambda c, d, g: g.ravel("F").reshape(g.shape), -1),
    (
        "shifted",
        "along axis 2, by +1",
        CONV,
        "x",
        lambda c, d, g: np.concatenate([0 * g[:, :, :1], g[:, :, :-1]], 2),
        -1,
    ),
    ("permuted", "slices along axis 0 in the order [1, 2, 0, 3]", DENSE, "z", lambda c, d, g: g[[1, 2, 0, 3]], -1),
    ("all_zero", "every entry is zero", SOFTMAX, "z", lambda c, d, g: 0 * g, -1),
    ("delta_ones", "all ones", TANH, "z", lambda c, d, g: 1 - c**2, -1),
    ("delta_ignored", "ignored", DENSE, "W", lambda c, d, g: np.exp(c[1]), -1),
    ("delta_abs", "|delta|", DENSE, "z", lambda c, d, g: np.abs(d) @ c[1].T, -1),
    ("delta_positive", "delta > 0", DENSE, "W", lambda c, d, g: c[0].T @ (d > 0), -1),
    ("delta_first_only", "the first step of delta along axis 0", DENSE, "b", lambda c, d, g: d[:1].copy(), -1),
    ("delta_first_only", "the last step of delta along axis 0", DENSE, "W", lambda c, d, g: c[0][-1:].T @ d[-1:], -1),
    ("term_missing", "the last step of delta along axis 0", DENSE, "W", lambda c, d, g: c[0][:-1].T @ d[:-1], -1),
    ("term_missing", "the contribution of output[1]", SPLIT, "z", lambda c, d, g: d[0] * np.cos(c), -1),
    ("delta_rearranged", "transposed", SQUARE, "z", lambda c, d, g: d.T @ c[1].T, -1),
    ("delta_clipped", "±0.5", DENSE, "z", lambda c, d, g: np.clip(d, -0.5, 0.5) @ c[1].T, -1),
    ("repeated_indices", "only the last reference", EMBED, "E", last_write, -1),
    (
        "repeated_indices",
        "a mean where a sum belongs",
        EMBED,
        "E",
        lambda c, d, g: g / np.maximum(np.bincount(c[1], minlength=7), 1)[:, None],
        -1,
    ),
    (
        "repeated_indices",
        "references more than once",
        EMBED,
        "E",
        lambda c, d, g: np.where((np.bincount(c[1], minlength=7) > 1)[:, None], g**2, g),
        -1,
    ),
    ("zeros", "z is exactly 0 (2 of 8 entries)", RELU, "z", lambda c, d, g: d * (c >= 0), -1),
    ("signs", "z is negative", RELU, "z", lambda c, d, g: np.where(c < 0, 0.01 * d, g), -1),
    ("ties", "entries of z are equal", MAX, "z", lambda c, d, g: (c == c.max(-1, keepdims=True)) * d[:, None], -1),
    ("masked", "keep is not set", MASKED, "z", lambda c, d, g: 2 * c[0] * d, -1),
    ("saturated", "|z| is large", SATURATED, "z", lambda c, d, g: at(g, np.abs(c) == 1, np.nan), 0),
    (
        "wrong_only_in_locations",
        "in the last slice along axis 2",
        CONV,
        "x",
        lambda c, d, g: at(g, np.s_[:, :, -1], 0),
        0,
    ),
    ("wrong_only_in_locations", "border", SQUARE, "W", lambda c, d, g: np.pad(g[1:-1, 1:-1], 1), 5),
    ("sign_of_some", "absolute value", DENSE, "z", lambda c, d, g: np.abs(g), -1),
    ("block_diagonal", "off-diagonal", SOFTMAX, "z", lambda c, d, g: d * c * (1 - c), -1),
    (
        "term_along_axis",
        "a mean is not subtracted",
        NORM,
        "z",
        lambda c, d, g: g + 0.5 * d.mean(-1, keepdims=True) / c[1],
        -1,
    ),
    (
        "term_along_axis",
        "times z",
        NORM,
        "z",
        lambda c, d, g: g + 0.5 * c[0] * (c[0] * d).mean(-1, keepdims=True) / c[1],
        -1,
    ),
    (
        "term_along_axis",
        "times the output",
        SOFTMAX,
        "z",
        lambda c, d, g: c * (d - 0.5 * (d * c).sum(-1, keepdims=True)),
        -1,
    ),
    ("other_name", "cotangent of z", SQUARE, "W", lambda c, d, g: d @ c[1].T, -1),
    ("added_primal", "weight decay", DENSE, "W", lambda c, d, g: g + 0.01 * c[1], -1),
    ("added_array", "1 × delta: an identity", TANH, "z", lambda c, d, g: g + d, -1),
    ("added_constant", "constant 0.125", DENSE, "z", lambda c, d, g: g + 0.125, -1),
    ("known_factor", "the derivative", TANH, "z", lambda c, d, g: g * (1 - c**2), -1),
    ("known_factor", "times z: a factor too many", MASKED, "z", lambda c, d, g: g * c[0], -1),
    ("coarse_rounding", "right up to float16", DENSE, "W", half_precision, -1),
    ("coarse_rounding", "the answer was cast", DENSE, "z", lambda c, d, g: g.astype(np.float32).astype(float), -1),
    ("clipped", "±0.25", SOFTMAX, "z", lambda c, d, g: np.clip(g, -0.25, 0.25), -1),
    ("primal_changed", "b taken as ones", SCALED, "z", lambda c, d, g: 2 * c[0] * d.sum(1, keepdims=True), -1),
    ("primal_changed", "the output in place of z", SINE, "z", lambda c, d, g: d * np.cos(np.sin(c)), -1),
    ("primal_changed", "w reversed along axis 2", CONV, "x", flipped_kernel, -1),
    ("missing", "no cotangent", DENSE, "z", lambda c, d, g: None, -1),
]

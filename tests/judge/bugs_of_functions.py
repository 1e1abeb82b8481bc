"""Bugs of one function taken for another, of detached terms, indices, symmetry and blocks, for test_more_patterns."""

import numpy as np
from diagnosed_bugs import DENSE, NORM, SOFTMAX, TANH, draw, layer, np_layer_norm
from ml_dtypes import bfloat16

from oracles import jax_vjp, torch_autograd


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def jnp_exp(z):
    import jax.numpy as jnp

    return jnp.exp(z)


def jnp_silu(z):
    import jax

    return z * jax.nn.sigmoid(z)


def torch_dense_tanh(z, W):
    return z.tanh() @ W


def torch_binary_loss(z, t):
    import torch

    return torch.nn.functional.softplus(z) - t * z


def torch_affine_norm(z, gamma, beta):
    return (z - z.mean(-1, keepdim=True)) / (z.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * gamma + beta


def torch_batch_norm(z, gamma, beta):
    import torch

    return torch.nn.functional.batch_norm(z, None, None, gamma, beta, training=True)


def jnp_frozen_norm(z, mean, var, gamma):
    import jax.numpy as jnp

    return (z - mean) / jnp.sqrt(var + 1e-5) * gamma


def jnp_grouped(q, k):
    import jax.numpy as jnp

    return q * jnp.repeat(k, 3, axis=0)


def torch_bag(E, ids):
    return E[ids].sum(1)


def torch_distance(p, q):
    return (p - q).abs()


def jnp_safe_root(z):
    import jax.numpy as jnp

    return jnp.where(z > 0, jnp.sqrt(jnp.where(z > 0, z, 1.0)), 0.0)


def torch_symmetric_product(A, X):
    return A @ X


def torch_square(z):
    return z * z * z


def affine_norm(z, gamma, beta):
    n, (_, s) = np_layer_norm(z)
    return gamma * n + beta, (n, s, gamma)


def norm_back(n, s, d, axis=-1):
    return (d - d.mean(axis, keepdims=True) - n * (d * n).mean(axis, keepdims=True)) / s


def batch_norm(z, gamma, beta):
    s = np.sqrt(z.var(0) + 1e-5)
    n = (z - z.mean(0)) / s
    return gamma * n + beta, (n, s, gamma)


def frozen_norm(z, mean, var, gamma):
    s = np.sqrt(var + 1e-5)
    return (z - mean) / s * gamma, ((z - mean) / s, s, gamma)


def affine_grads(c, d, axis):
    n, s, gamma = c
    return {"z": norm_back(n, s, d * gamma, axis), "gamma": (d * n).sum(0), "beta": d.sum(0)}


def frozen_grads(c, d):
    n, s, gamma = c
    var = -0.5 * (d * gamma * n).sum(0) / s**2
    return {"z": d * gamma / s, "mean": -(d * gamma / s).sum(0), "var": var, "gamma": (d * n).sum(0)}


def bag_grads(c, d):
    E, ids = c
    dE = np.zeros_like(E)
    np.add.at(dE, ids, d[:, None])
    return {"E": dE}


def once(c, d, g):
    E, ids = c
    dE = np.zeros_like(E)
    for bag, row in zip(ids, d, strict=True):
        dE[np.unique(bag)] += row
    return dE


def grouped_sum(d, q, slots):
    dk = np.zeros((2, *q.shape[1:]))
    for h, slot in enumerate(slots):
        dk[slot] += d[h] * q[h]
    return dk


def root_back(z, d):
    return {"z": np.where(z > 0, d / (2 * np.sqrt(np.where(z > 0, z, 1.0))), 0.0)}


def unsafe_root_back(z, d, g):
    with np.errstate(all="ignore"):
        return np.where(z > 0, d, 0.0) / (2 * np.sqrt(z))


EXP = layer(jax_vjp(jnp_exp), lambda z: (np.exp(z), z), lambda z, d: {"z": d * np.exp(z)}, draw(3, 4), z=draw(3, 4))
SILU = layer(
    jax_vjp(jnp_silu),
    lambda z: (z * sigmoid(z), z),
    lambda z, d: {"z": d * sigmoid(z) * (1 + z * (1 - sigmoid(z)))},
    draw(3, 4),
    z=draw(3, 4),
)
COMPOSED = layer(
    torch_autograd(torch_dense_tanh),
    lambda z, W: (np.tanh(z) @ W, (z, W)),
    lambda c, d: {"z": (d @ c[1].T) * (1 - np.tanh(c[0]) ** 2), "W": np.tanh(c[0]).T @ d},
    draw(4, 2),
    z=draw(4, 3),
    W=draw(3, 2),
)
BINARY = layer(
    torch_autograd(torch_binary_loss),
    lambda z, t: (np.logaddexp(0, z) - t * z, (z, t)),
    lambda c, d: {"z": d * (sigmoid(c[0]) - c[1]), "t": -d * c[0]},
    draw(3, 4),
    z=draw(3, 4),
    t=np.random.default_rng(3).uniform(0.1, 0.9, (3, 4)),
)
AFFINE = layer(
    torch_autograd(torch_affine_norm), affine_norm, lambda c, d: affine_grads(c, d, -1), draw(3, 6), z=draw(3, 6),
    gamma=draw(6), beta=draw(6),
)  # fmt: skip
BATCH = layer(
    torch_autograd(torch_batch_norm), batch_norm, lambda c, d: affine_grads(c, d, 0), draw(6, 3), z=draw(6, 3),
    gamma=draw(3), beta=draw(3),
)  # fmt: skip
FROZEN = layer(
    jax_vjp(jnp_frozen_norm), frozen_norm, frozen_grads, draw(6, 3), z=draw(6, 3), mean=draw(3),
    var=np.array([0.5, 1.5, 2.5]), gamma=draw(3),
)  # fmt: skip
GROUPED = layer(
    jax_vjp(jnp_grouped),
    lambda q, k: (q * np.repeat(k, 3, axis=0), (q, k)),
    lambda c, d: {"q": d * np.repeat(c[1], 3, axis=0), "k": grouped_sum(d, c[0], [0, 0, 0, 1, 1, 1])},
    draw(6, 4),
    q=draw(6, 4),
    k=draw(2, 4),
)
BAG = layer(
    torch_autograd(torch_bag), lambda E, ids: (E[ids].sum(1), (E, ids)), bag_grads, draw(3, 4), E=draw(6, 4),
    ids=np.array([[0, 2, 2], [5, 1, 0], [3, 3, 3]]),
)  # fmt: skip
P = draw(3, 4)
DISTANCE = layer(
    torch_autograd(torch_distance),
    lambda p, q: (np.abs(p - q), (p, q)),
    lambda c, d: {"p": d * np.sign(c[0] - c[1]), "q": -d * np.sign(c[0] - c[1])},
    draw(3, 4),
    p=P,
    q=np.where(np.arange(12).reshape(3, 4) % 5 == 0, P, draw(3, 4)),
)
ROOT = layer(
    jax_vjp(jnp_safe_root),
    lambda z: (np.sqrt(np.maximum(z, 0)), z),
    root_back,
    draw(2, 4),
    z=np.array([[0.0, 1.5, 2.0, 0.5], [3.0, 1.0, 0.0, 2.5]]),
)
A = draw(3, 3)
SYMMETRIC = layer(
    torch_autograd(torch_symmetric_product),
    lambda A, X: (A @ X, (A, X)),
    lambda c, d: {"A": d @ c[1].T, "X": c[0].T @ d},
    draw(3, 4),
    A=A + A.T,
    X=draw(3, 4),
)
LONG = layer(
    torch_autograd(torch_square), lambda z: (z**3, z), lambda z, d: {"z": 3 * d * z * z}, draw(3, 44), z=draw(3, 44)
)


def spoiled(g, start):
    g = g.copy()
    g[:, start:] *= 0.5
    return g


def accumulated(a, dtype):
    total = np.zeros(a.shape[1:], dtype)
    for row in a.astype(dtype):
        total = (total + row).astype(dtype)
    return total.astype(np.float64)


def jnp_fixed_point(z):
    import jax.numpy as jnp

    u = z
    for _ in range(5):
        u = u - (u - 0.5 * jnp.cos(u) - z) / (1 + 0.5 * jnp.sin(u))
    return u


def fixed_point(z, tolerance=1e-6):
    u = z
    while np.max(np.abs(0.5 * np.cos(u) + z - u)) > tolerance:
        u = 0.5 * np.cos(u) + z
    return u


SOLVED = layer(
    jax_vjp(jnp_fixed_point),
    lambda z: (fixed_point(z, 1e-15), z),
    lambda z, d: {"z": d / (1 + 0.5 * np.sin(fixed_point(z, 1e-15)))},
    draw(3, 2),
    z=draw(3, 2),
)
SUMMED = layer(
    torch_autograd(lambda z, b: z + b), lambda z, b: (z + b, z), lambda z, d: {"z": d.copy(), "b": d.sum(0)},
    draw(50, 6), z=draw(50, 6), b=draw(6),
)  # fmt: skip

# As in diagnosed_bugs: pattern, part of its text, layer, primal, wrong(cache, delta, correct cotangent), near miss;
# None where rounding in that precision hides it.
BUGS = [
    ("negated_primal", "-z for z", EXP, "z", lambda z, d, g: d * np.exp(-z), -1),
    ("derivative_missing", "delta itself", TANH, "z", lambda c, d, g: d.copy(), -1),
    ("derivative_missing", "tanh", COMPOSED, "z", lambda c, d, g: d @ c[1].T, -1),
    ("value_for_derivative", "delta · y", TANH, "z", lambda c, d, g: d * c, -1),
    ("value_for_derivative", "tanh", COMPOSED, "z", lambda c, d, g: (d @ c[1].T) * np.tanh(c[0]), -1),
    ("logits_for_probabilities", "sigmoid(z)", BINARY, "z", lambda c, d, g: d * (sigmoid(sigmoid(c[0])) - c[1]), -1),
    ("softmax_axis", "axis 0", SOFTMAX, "z", lambda y, d, g: y * (d - (d * y).sum(0)), -1),
    ("factor_outside_sum", "gamma", AFFINE, "z", lambda c, d, g: c[2] * norm_back(c[0], c[1], d), -1),
    ("evaluation_statistics", "constants", BATCH, "z", lambda c, d, g: d * c[2] / c[1], -1),
    ("evaluation_statistics", "constants", NORM, "z", lambda c, d, g: d / c[1], -1),
    ("evaluation_statistics", "training", FROZEN, "z", lambda c, d, g: norm_back(c[0], c[1], d * c[2], 0), -1),
    ("detached_term", "mean", NORM, "z", lambda c, d, g: g + d.mean(-1, keepdims=True) / c[1], -1),
    ("detached_term", "var", NORM, "z", lambda c, d, g: g + c[0] * (c[0] * d).mean(-1, keepdims=True) / c[1], -1),
    ("detached_term", "reduce_sum", SOFTMAX, "z", lambda y, d, g: y * d, -1),
    ("detached_term", "logistic", SILU, "z", lambda z, d, g: d * sigmoid(z), -1),
    ("detached_term", "operand 0 of mul", SILU, "z", lambda z, d, g: d * z * sigmoid(z) * (1 - sigmoid(z)), -1),
    ("added_primal", "0.01 × W", DENSE, "W", lambda c, d, g: g + 0.01 * c[1], -1),
    ("symmetrized", "cannot tell", SYMMETRIC, "A", lambda c, d, g: (g + g.T) / 2, -1),
    ("symmetrized", "it is g + gᵀ, g", SYMMETRIC, "A", lambda c, d, g: g + g.T, -1),
    ("symmetrized", "cannot tell", SYMMETRIC, "A", lambda c, d, g: np.tril(g + g.T) - np.diag(np.diag(g)), -1),
    ("index_map", "h mod 2", GROUPED, "k", lambda c, d, g: grouped_sum(d, c[0], [0, 1, 0, 1, 0, 1]), -1),
    ("index_map", "[0, 0, 2, 2]", DENSE, "z", lambda c, d, g: g[[0, 0, 2, 2]], -1),
    ("repeated_in_bag", "ids", BAG, "E", once, -1),
    ("tie_between_operands", "p and q are equal", DISTANCE, "p", lambda c, d, g: np.where(c[0] == c[1], 3 * d, g), 1),
    ("nan_behind_where", "z is 0", ROOT, "z", unsafe_root_back, 1),
    ("not_converged", "solved_to", SOLVED, "z", lambda z, d, g: d / (1 + 0.5 * np.sin(fixed_point(z))), 0),
    ("low_precision_accumulation", "in bfloat16", SUMMED, "b", lambda z, d, g: accumulated(d, bfloat16), None),
    ("low_precision_accumulation", "in float16", SUMMED, "b", lambda z, d, g: accumulated(d, np.float16), 0),
    ("low_precision_accumulation", "in float32", SUMMED, "b", lambda z, d, g: accumulated(d, np.float32), 0),
    ("coarse_rounding", "float16", SUMMED, "b", lambda z, d, g: d.astype(np.float16).astype(float).sum(0), 0),
    ("block_remainder", "multiple of 32", LONG, "z", lambda z, d, g: spoiled(g, z.shape[1] // 32 * 32), 0),
    ("block_remainder", "multiple of 8", LONG, "z", lambda z, d, g: spoiled(g, z.shape[1] // 8 * 8), 0),
    ("block_remainder", "index 32", LONG, "z", lambda z, d, g: spoiled(g, 32), 0),
    ("block_remainder", "extent of 32", LONG, "z", lambda z, d, g: g * np.cosh(z) if z.shape[1] > 32 else g, 0),
]  # fmt: skip

"""Pairs whose diagnosis has a pattern of its own: in NumPy, as `torch.autograd.Function` and as `jax.custom_vjp`."""

from __future__ import annotations

import numpy as np
from ml_dtypes import bfloat16

from oracles import jax_function, jax_vjp, manual, torch_autograd, torch_function
from oracles.lazy_modules import jax, jnp, torch
from planted_bugs.pairs import at_point

RNG = np.random.default_rng(11)


def draw(*shape):
    return RNG.standard_normal(shape)


def numpy_pair(name, forward, wrong, right, reference, at, **rest):
    """Plant two backwards of one forward against a reference in torch or JAX."""
    at_point(name, manual(forward, wrong), manual(forward, right), at, [reference], **rest)


def torch_pair(name, forward, wrong, right, reference, at, **rest):
    """Plant two backwards ``f(d, *saved)`` of one torch forward."""
    subjects = [torch_subject(name, forward, backward) for backward in (wrong, right)]
    at_point(name, *subjects, at, [torch_autograd(reference)], **rest)


def torch_subject(name, forward, backward):
    def make():
        def save(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            return forward(*tensors)

        def pull(ctx, d):
            return backward(d, *ctx.saved_tensors)

        methods = {"forward": staticmethod(save), "backward": staticmethod(pull)}
        return type(name, (torch.autograd.Function,), methods)

    return torch_function(make())


def jax_pair(name, forward, wrong, right, reference, at, **rest):
    """Plant two backwards ``f(saved, d)`` of one JAX forward."""
    subjects = []
    for backward in (wrong, right):
        f = jax.custom_vjp(forward)
        f.defvjp(lambda *primals: (forward(*primals), primals), backward)
        subjects.append(jax_function(f))
    at_point(name, *subjects, at, [jax_vjp(reference)], **rest)


Z = draw(3, 6)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


# -x for x, f for f', no f'
jax_pair(
    "exp of -z",
    lambda z: jnp.exp(z),
    lambda saved, d: (d * jnp.exp(-saved[0]),),
    lambda saved, d: (d * jnp.exp(saved[0]),),
    lambda z: jnp.exp(z),
    {"z": Z},
    pattern="negated_primal",
)
torch_pair(
    "tanh for its derivative",
    lambda z: z.tanh(),
    lambda d, z: d * z.tanh(),
    lambda d, z: d / z.cosh() ** 2,
    lambda z: z.tanh(),
    {"z": Z},
    pattern="value_for_derivative",
)


def dense_tanh(z, W):
    return np.tanh(z) @ W, (z, W)


def dense_tanh_back(c, d, factor):
    return {"z": (d @ c[1].T) * factor(c[0]), "W": np.tanh(c[0]).T @ d}


numpy_pair(
    "tanh without its derivative",
    dense_tanh,
    lambda c, d: dense_tanh_back(c, d, np.ones_like),
    lambda c, d: dense_tanh_back(c, d, lambda z: 1 - np.tanh(z) ** 2),
    torch_autograd(lambda z, W: z.tanh() @ W),
    {"z": Z, "W": draw(6, 2)},
    pattern="derivative_missing",
)
# logits for probabilities, the axis of a softmax
T = RNG.uniform(0.1, 0.9, (3, 6))
jax_pair(
    "sigmoid of probabilities",
    lambda z, t: jax.nn.softplus(z) - t * z,
    lambda saved, d: (d * (jax.nn.sigmoid(jax.nn.sigmoid(saved[0])) - saved[1]), -d * saved[0]),
    lambda saved, d: (d * (jax.nn.sigmoid(saved[0]) - saved[1]), -d * saved[0]),
    lambda z, t: jax.nn.softplus(z) - t * z,
    {"z": Z, "t": T},
    pattern="logits_for_probabilities",
)
torch_pair(
    "softmax along the batch",
    lambda z: z.softmax(-1),
    lambda d, z: (lambda y: y * (d - (d * y).sum(0, keepdim=True)))(z.softmax(-1)),
    lambda d, z: (lambda y: y * (d - (d * y).sum(-1, keepdim=True)))(z.softmax(-1)),
    lambda z: z.softmax(-1),
    {"z": Z},
    pattern="softmax_axis",
)


# normalization
def norm(z, gamma, axis):
    s = np.sqrt(z.var(axis, keepdims=True) + 1e-5)
    n = (z - z.mean(axis, keepdims=True)) / s
    return n * gamma, (n, s, gamma)


def norm_back(n, s, e, axis):
    return (e - e.mean(axis, keepdims=True) - n * (e * n).mean(axis, keepdims=True)) / s


def norm_grads(c, d, axis):
    n, s, gamma = c
    return {"z": norm_back(n, s, d * gamma, axis), "gamma": (d * n).sum(0)}


def torch_norm(z, gamma, axis):
    return (z - z.mean(axis, keepdim=True)) / (z.var(axis, unbiased=False, keepdim=True) + 1e-5).sqrt() * gamma


GAMMA = draw(6)
numpy_pair(
    "gamma outside the means",
    lambda z, gamma: norm(z, gamma, -1),
    lambda c, d: {**norm_grads(c, d, -1), "z": c[2] * norm_back(c[0], c[1], d, -1)},
    lambda c, d: norm_grads(c, d, -1),
    torch_autograd(lambda z, gamma: torch_norm(z, gamma, -1)),
    {"z": Z, "gamma": GAMMA},
    pattern="factor_outside_sum",
)
numpy_pair(
    "batch statistics held constant",
    lambda z, gamma: norm(z, gamma, 0),
    lambda c, d: {**norm_grads(c, d, 0), "z": d * c[2] / c[1]},
    lambda c, d: norm_grads(c, d, 0),
    torch_autograd(lambda z, gamma: torch_norm(z, gamma, 0)),
    {"z": draw(5, 6), "gamma": GAMMA},
    pattern="evaluation_statistics",
)
jax_pair(
    "gate of a SiLU held constant",
    lambda z: z * jax.nn.sigmoid(z),
    lambda saved, d: (d * jax.nn.sigmoid(saved[0]),),
    lambda saved, d: (d * jax.nn.sigmoid(saved[0]) * (1 + saved[0] * (1 - jax.nn.sigmoid(saved[0]))),),
    lambda z: z * jax.nn.sigmoid(z),
    {"z": Z},
    pattern="detached_term",
)
torch_pair(
    "weight decay inside the gradient",
    lambda z, W: z @ W,
    lambda d, z, W: (d @ W.T, z.T @ d + 0.01 * W),
    lambda d, z, W: (d @ W.T, z.T @ d),
    lambda z, W: z @ W,
    {"z": Z, "W": draw(6, 2)},
    pattern="added_primal",
)
# symmetry
A = draw(3, 3)
numpy_pair(
    "product with a symmetric matrix, symmetrized",
    lambda A, X: (A @ X, (A, X)),
    lambda c, d: {"A": (d @ c[1].T + c[1] @ d.T) / 2, "X": c[0].T @ d},
    lambda c, d: {"A": d @ c[1].T, "X": c[0].T @ d},
    torch_autograd(lambda A, X: A @ X),
    {"A": A + A.T, "X": draw(3, 4)},
    pattern="symmetrized",
)


def vectors(A, sign):
    U = np.linalg.eigh(A)[1]
    U = U * np.sign(U[0]) * np.array([1.0, sign, 1.0])
    return U, (A, U)


def vectors_back(c, d):
    A, U = c
    w = np.einsum("ij,ik,kj->j", U, A, U)
    gaps = w[None] - w[:, None] + np.eye(3)
    g = U @ ((U.T @ d) * (1 - np.eye(3)) / gaps) @ U.T
    return {"A": (g + g.T) / 2}


def jnp_vectors(A):
    U = jnp.linalg.eigh((A + A.T) / 2)[1]
    return U * jnp.sign(U[0])


at_point(
    "an eigenvector of the other sign",
    manual(lambda A: vectors(A, -1.0), vectors_back),
    manual(lambda A: vectors(A, 1.0), vectors_back),
    {"A": A + A.T},
    [jax_vjp(jnp_vectors)],
    pattern="gauge",
)


# indices
def heads(q, k):
    return q * np.repeat(k, 3, axis=0), (q, k)


def heads_back(c, d, slots):
    dk = np.zeros_like(c[1])
    np.add.at(dk, np.array(slots), d * c[0])
    return {"q": d * np.repeat(c[1], 3, axis=0), "k": dk}


numpy_pair(
    "heads of the wrong group",
    heads,
    lambda c, d: heads_back(c, d, [0, 1, 0, 1, 0, 1]),
    lambda c, d: heads_back(c, d, [0, 0, 0, 1, 1, 1]),
    torch_autograd(lambda q, k: q * k.repeat_interleave(3, 0)),
    {"q": draw(6, 4), "k": draw(2, 4)},
    pattern="index_map",
)


def bag_back(c, d, once):
    E, ids = c
    dE = np.zeros_like(E)
    for bag, row in zip(ids, d, strict=True):
        np.add.at(dE, np.unique(bag) if once else bag, row)
    return {"E": dE}


numpy_pair(
    "ids of a bag counted once",
    lambda E, ids: (E[ids].sum(1), (E, ids)),
    lambda c, d: bag_back(c, d, True),
    lambda c, d: bag_back(c, d, False),
    torch_autograd(lambda E, ids: E[ids].sum(1)),
    {"E": draw(6, 4), "ids": np.array([[0, 2, 2], [5, 1, 0], [3, 3, 3]])},
    pattern="repeated_in_bag",
)
# points without a derivative
P = draw(3, 4)
Q = np.where(np.arange(12).reshape(3, 4) % 5 == 0, P, draw(3, 4))
torch_pair(
    "slope 3 where two operands are equal",
    lambda p, q: (p - q).abs(),
    lambda d, p, q: (d * torch.where(p == q, 3.0, (p - q).sign()), -d * (p - q).sign()),
    lambda d, p, q: (d * (p - q).sign(), -d * (p - q).sign()),
    lambda p, q: (p - q).abs(),
    {"p": P, "q": Q},
    pattern="tie_between_operands",
    accepted=("agrees", "kink"),
)
ROOTS = np.array([[0.0, 1.5, 2.0, 0.5], [3.0, 1.0, 0.0, 2.5]])
jax_pair(
    "a root behind a where",
    lambda z: jnp.where(z > 0, jnp.sqrt(z), 0.0),
    lambda saved, d: (jnp.where(saved[0] > 0, d, 0.0) / (2 * jnp.sqrt(saved[0])),),
    lambda saved, d: (jnp.where(saved[0] > 0, d / (2 * jnp.sqrt(jnp.where(saved[0] > 0, saved[0], 1.0))), 0.0),),
    lambda z: jnp.where(z > 0, jnp.sqrt(jnp.where(z > 0, z, 1.0)), 0.0),
    {"z": ROOTS},
    pattern="nan_behind_where",
)


# sizes and precision
def cube_back(z, d, block):
    g = 3 * d * z * z
    if block:
        g[:, z.shape[1] // block * block :] = 0
    return {"z": g}


numpy_pair(
    "the remainder of a block of 32 dropped",
    lambda z: (z**3, z),
    lambda z, d: cube_back(z, d, 32),
    lambda z, d: cube_back(z, d, 0),
    torch_autograd(lambda z: z**3),
    {"z": draw(3, 44)},
    pattern="block_remainder",
)


def summed(d, dtype):
    total = np.zeros(d.shape[1:], dtype)
    for row in d.astype(dtype):
        total = (total + row).astype(dtype)
    return total.astype(np.float64)


for dtype in (bfloat16, np.float16):
    numpy_pair(
        f"a bias summed in {np.dtype(dtype).name}",
        lambda z, b: (z + b, None),
        lambda _, d, dtype=dtype: {"z": d.copy(), "b": summed(d, dtype)},
        lambda _, d: {"z": d.copy(), "b": d.sum(0)},
        torch_autograd(lambda z, b: z + b),
        {"z": draw(50, 6), "b": draw(6)},
        verdict="unstable",
        pattern="low_precision_accumulation",
    )


def solve(z, tolerance):
    u = z
    for _ in range(100):
        if np.max(np.abs(0.5 * np.cos(u) + z - u)) <= tolerance:
            break
        u = 0.5 * np.cos(u) + z
    return u, u


def jnp_solve(z):
    u = z
    for _ in range(5):
        u = u - (u - 0.5 * jnp.cos(u) - z) / (1 + 0.5 * jnp.sin(u))
    return u


at_point(
    "a fixed point solved to 1e-6",
    manual(lambda z: solve(z, 1e-6), lambda u, d: {"z": d / (1 + 0.5 * np.sin(u))}),
    manual(lambda z: solve(z, 0.0), lambda u, d: {"z": d / (1 + 0.5 * np.sin(u))}),
    {"z": draw(3, 2)},
    [jax_vjp(jnp_solve)],
    verdict="unstable",
    pattern="not_converged",
)


# calls
def unfilled(z, d):
    dz = np.empty_like(z)
    dz[:-1] = (3 * d * z * z)[:-1]
    return {"z": dz}


numpy_pair(
    "the last row of a buffer not filled",
    lambda z: (z**3, z),
    unfilled,
    lambda z, d: {"z": 3 * d * z * z},
    torch_autograd(lambda z: z**3),
    {"z": Z},
    pattern="uninitialised",
)


def torch_unfilled(d, z):
    dz = torch.empty_like(z)
    dz[:-1] = (3 * d * z * z)[:-1]
    return dz


torch_pair(
    "the last row of a tensor not filled",
    lambda z: z**3,
    torch_unfilled,
    lambda d, z: 3 * d * z * z,
    lambda z: z**3,
    {"z": Z},
    # None: what torch's freed memory holds is chance, and now and then it looks like random numbers.
    pattern=None,
)
torch_pair(
    "a gradient times random numbers",
    lambda z: z**3,
    lambda d, z: 3 * d * z * z * torch.rand(z.shape),
    lambda d, z: 3 * d * z * z,
    lambda z: z**3,
    {"z": Z},
    pattern="random",
)

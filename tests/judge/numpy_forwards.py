"""Forward passes in the NumPy style of ordinary code."""

import numpy as np

from oracles.rule import Rule

RNG = np.random.default_rng(5)
N = RNG.standard_normal


def rule(f):
    return Rule(lambda **primals: (f(**primals), lambda delta: {}), f.__name__)


def conv_loops(z, W):
    y = np.empty((z.shape[0] - 1, z.shape[1] - 1), z.dtype)
    for i, j in np.ndindex(*y.shape):
        y[i, j] = np.sum(z[i : i + 2, j : j + 2] * W)
    return y


def layer_norm(z, g):
    return (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-5) * g


def softmax(z):
    e = np.exp(z - np.max(z, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def attention(q, k, v):
    s = q @ k.T / np.sqrt(q.shape[-1])
    return softmax(np.where(np.tril(np.ones(s.shape, bool)), s, -np.inf)) @ v


def lstm(z, W):
    h, c = np.zeros_like(z[0]), np.zeros_like(z[0])
    for row in z:
        i, f, o, g = np.split(np.concatenate([row, h]) @ W, 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
    return h


def in_place(z):
    y = z.copy()
    y -= y.mean()
    y[0] += 1
    np.multiply(y, z, out=y)
    return y + z


def scattered(z, i):
    y = np.zeros_like(z)
    np.add.at(y, i, z)
    return y


WINDOWS = np.lib.stride_tricks.sliding_window_view
FORWARDS = {
    "dense": (lambda z, W, b: np.maximum(z @ W + b, 0), {"z": (3, 4), "W": (4, 2), "b": (2,)}),
    "convolution by loops": (conv_loops, {"z": (4, 4), "W": (2, 2)}),
    "convolution by windows": (
        lambda z, W: np.tensordot(WINDOWS(np.pad(z, 1), (2, 2)), W, 2),
        {"z": (3, 3), "W": (2, 2)},
    ),
    "max pool": (lambda z: z.reshape(2, 2, 2, 2).max(axis=(1, 3)), {"z": (4, 4)}),
    "layer norm": (layer_norm, {"z": (3, 4), "g": (4,)}),
    "batch norm": (lambda z: (z - np.mean(z, axis=0)) / np.sqrt(np.var(z, axis=0) + 1e-5), {"z": (4, 3)}),
    "softmax": (softmax, {"z": (3, 4)}),
    "log-softmax": (log_softmax, {"z": (3, 4)}),
    "log-sum-exp": (lambda z: np.logaddexp.reduce(z, axis=-1), {"z": (3, 4)}),
    "cross-entropy": (lambda z, i: -np.mean(log_softmax(z)[np.arange(3), i]), {"z": (3, 4), "i": [0, 3, 3]}),
    "gelu": (lambda z: 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3))), {"z": (2, 3)}),
    "softplus": (lambda z: np.log1p(np.exp(-np.abs(z))) + np.maximum(z, 0), {"z": (2, 3)}),
    "softplus by logaddexp": (lambda z: np.logaddexp(z, 0), {"z": (2, 3)}),
    "attention": (attention, {"q": (3, 2), "k": (3, 2), "v": (3, 2)}),
    "lstm": (lstm, {"z": (3, 2), "W": (4, 8)}),
    "embedding": (lambda E, i: E[i], {"E": (4, 2), "i": [1, 1, 0]}),
    "rms norm": (lambda z: z * (np.mean(np.square(z), -1, keepdims=True) + 1e-6) ** -0.5, {"z": (2, 4)}),
    "huber": (lambda z: np.where(np.abs(z) <= 1, 0.5 * z**2, np.abs(z) - 0.5).sum(), {"z": (2, 4)}),
    "hinge": (lambda z: np.clip(1 - z, 0, None).mean(), {"z": (2, 4)}),
    "cosine": (lambda a, b: np.sum(a * b) / (np.linalg.norm(a) * np.linalg.norm(b)), {"a": (3,), "b": (3,)}),
    "distances": (lambda a, b: np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)), {"a": (3, 2), "b": (2, 2)}),
    "in place": (in_place, {"z": (4,)}),
    "einsum": (lambda a, b: np.einsum("ij,kj->ik", a, b), {"a": (2, 3), "b": (4, 3)}),
    "cumulative sum": (lambda z: np.cumsum(z, axis=-1), {"z": (2, 3)}),
    "prelu": (lambda z, a: np.where(z > 0, z, a * z), {"z": (2, 3), "a": (3,)}),
    "dropout": (lambda z, mask: z * mask / 0.8, {"z": (2, 4), "mask": [0, 1, 1, 0]}),
    "unit rows": (lambda z: z / np.linalg.norm(z, axis=-1, keepdims=True), {"z": (2, 3)}),
    "sorted": (lambda a, b: np.stack([np.take_along_axis(a, np.argsort(a), -1), b]).prod(0), {"a": (3,), "b": (3,)}),
    "scattered": (scattered, {"z": (3, 2), "i": [0, 0, 2]}),
    "two outputs": (lambda z: (np.sort(z), np.sign(z) * np.sqrt(np.abs(z)) / (2 + z.astype(float).std())), {"z": (4,)}),
}

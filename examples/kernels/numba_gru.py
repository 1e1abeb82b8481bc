"""A step of a GRU, compiled by numba: loops over the rows and units, float32 and float64.

python examples/kernels/numba_gru.py
"""

import numba
import numpy as np
import torch
from verdicts import require_shapes, show, stored

import oracles

RIGHT, RESET, CANDIDATE, HIDDEN = range(4)  # the mistakes, which the compiled backward gets as numbers


@numba.njit
def sigmoid(x):
    """1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


@numba.njit
def gates(a, c, n):
    """r, u and candidate from x's part a and h's part c, each [3n]: c's third part is multiplied by r."""
    r, u = np.empty(n, a.dtype), np.empty(n, a.dtype)
    candidate = np.empty(n, a.dtype)
    for j in range(n):
        r[j], u[j] = sigmoid(a[j] + c[j]), sigmoid(a[n + j] + c[n + j])
        candidate[j] = np.tanh(a[2 * n + j] + r[j] * c[2 * n + j])
    return r, u, candidate


@numba.njit
def forward_loop(a, c, h):
    """h' = (1 − u) candidate + u h, row by row."""
    y, n = np.empty_like(h), h.shape[1]
    for i in range(h.shape[0]):
        _, u, candidate = gates(a[i], c[i], n)
        for j in range(n):
            y[i, j] = (1 - u[j]) * candidate[j] + u[j] * h[i, j]
    return y


@numba.njit
def backward_loop(a, c, h, dy, mistake):
    """Return the gradients of a, of c, and of h where it is used directly."""
    da, dc, dh, n = np.empty_like(a), np.empty_like(c), np.empty_like(h), h.shape[1]
    for i in range(h.shape[0]):
        r, u, candidate = gates(a[i], c[i], n)
        for j in range(n):
            d = dy[i, j]
            inner = d * (1 - u[j])
            if mistake != CANDIDATE:
                inner *= 1 - candidate[j] * candidate[j]
            dr = inner * c[i, 2 * n + j] * r[j] * (1 - r[j])
            if mistake == RESET:
                dr = inner * r[j] * (1 - r[j])
            du = d * (h[i, j] - candidate[j]) * u[j] * (1 - u[j])
            da[i, j], da[i, n + j], da[i, 2 * n + j] = dr, du, inner
            dc[i, j], dc[i, n + j], dc[i, 2 * n + j] = dr, du, inner * r[j]
            dh[i, j] = 0 if mistake == HIDDEN else d * u[j]
    return da, dc, dh


def forward(x, h, W, U, b):
    """Two products by BLAS, the rest in one compiled loop."""
    n = h.shape[1]
    require_shapes(
        h=(h.shape, (len(x), n)), W=(W.shape, (x.shape[1], 3 * n)), U=(U.shape, (n, 3 * n)), b=(b.shape, (3 * n,))
    )
    a, c = x @ W + b, h @ U
    return forward_loop(a, c, np.ascontiguousarray(h)), (x, h, W, U, a, c)


def backward_with(mistake):
    """Return the backward, with a mistake or RIGHT."""

    def backward(cache, delta):
        x, h, W, U, a, c = cache
        da, dc, dh = backward_loop(a, c, np.ascontiguousarray(h), np.ascontiguousarray(delta), mistake)
        return {"x": da @ W.T, "h": dh + dc @ U.T, "W": x.T @ da, "U": h.T @ dc, "b": da.sum(axis=0)}

    return backward


def reference(x, h, W, U, b):
    """The same in torch."""
    a, c = (x @ W + b).chunk(3, dim=-1), (h @ U).chunk(3, dim=-1)
    r, u = torch.sigmoid(a[0] + c[0]), torch.sigmoid(a[1] + c[1])
    return (1 - u) * torch.tanh(a[2] + r * c[2]) + u * h


def subjects():
    """Return the right step and three wrong ones."""
    names = {RIGHT: "right", RESET: "reset gate", CANDIDATE: "tanh's slope", HIDDEN: "direct path of h"}
    dtypes = ("float32", "float64")  # those that the loops compute in
    return [oracles.manual(forward, backward_with(m), dtypes=dtypes, name=f"gru, {n}") for m, n in names.items()]


def primals():
    """Draw a batch of 4 in float32: 3 inputs, 5 units."""
    return stored(torch.float32, x=(4, 3), h=(4, 5), W=(3, 15), U=(5, 15), b=(15,))


if __name__ == "__main__":
    show(subjects(), primals(), reference)

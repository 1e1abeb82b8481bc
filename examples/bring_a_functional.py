"""Judge the gradients of whole functions: a training step of a million parameters, an inverse problem; wrong ones.

python examples/bring_a_functional.py
"""

from itertools import pairwise

import numpy as np

import oracles

rng = np.random.default_rng(0)
x, labels = rng.standard_normal((8, 784)), rng.integers(0, 10, 8)
widths = (784, 1024, 180, 10)
params = [{"W": rng.standard_normal((m, n)) / m**0.5, "b": np.zeros(n)} for m, n in pairwise(widths)]


def forward(params):
    """Return the inputs of all layers, and the probabilities."""
    zs = [x]
    for layer in params[:-1]:
        zs.append(np.tanh(zs[-1] @ layer["W"] + layer["b"]))
    logits = zs[-1] @ params[-1]["W"] + params[-1]["b"]
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return zs, e / e.sum(-1, keepdims=True)


def loss(params):
    """The cross-entropy of a network of a million parameters."""
    return -np.log(forward(params)[1][np.arange(len(x)), labels]).mean()


def gradient(params):
    """Backpropagation by hand."""
    zs, p = forward(params)
    delta, gradients = (p - np.eye(10)[labels]) / len(x), []
    for layer, z in zip(params[::-1], zs[::-1], strict=True):
        gradients.append({"W": z.T @ delta, "b": delta.sum(axis=0)})
        delta = (delta @ layer["W"].T) * (1 - z * z)
    return gradients[::-1]


def one_row_wrong(params):
    """The same with one row of the second weight a tenth too large."""
    gradients = gradient(params)
    gradients[1]["W"][300] *= 1.1
    return gradients


n = 100
data = np.sin(np.pi * np.arange(1, n + 1) / (n + 1)) / 8


def solved(m):
    """Return the matrix and the solution of −(exp(m) u′)′ = 1, u = 0 at both ends; m at the faces of the cells."""
    k = np.exp(m) * (n + 1) ** 2
    matrix = np.diag(k[:-1] + k[1:]) - np.diag(k[1:-1], 1) - np.diag(k[1:-1], -1)
    return matrix, np.linalg.solve(matrix, np.ones(n))


def misfit(m):
    """How far the solution is from the data."""
    return ((solved(m)[1] - data) ** 2).sum() / 2


def adjoint(m):
    """The gradient of the misfit by one solution of the adjoint equation."""
    matrix, u = solved(m)
    q = np.linalg.solve(matrix.T, u - data)
    return -np.exp(m) * (n + 1) ** 2 * np.diff(u, prepend=0, append=0) * np.diff(q, prepend=0, append=0)


m = np.cos(np.arange(n + 1.0))
print(oracles.taylor(loss, gradient, params, name="training step", directions=1))
print(oracles.taylor(misfit, adjoint, m, name="adjoint"))
for name, f, wrong, at in (
    ("one row of a million parameters", loss, one_row_wrong, params),
    ("the coefficient forgotten", misfit, lambda m: adjoint(m) / np.exp(m), m),
):
    try:
        oracles.taylor(f, wrong, at, name=name)
    except oracles.Disagreement as disagreement:
        print(disagreement)

"""Products of matrices, attention, embeddings."""

import numpy as np
import torch

from third_party.layers import Layer, grown
from third_party.losses import softmax

F = torch.nn.functional


def linear_draw(rng, k):
    n, m, o = grown((5, 3, 4), k)
    return {"x": rng.standard_normal((n, m)), "W": rng.standard_normal((m, o)), "b": rng.standard_normal(o)}


linear = Layer(
    "linear",
    lambda x, W, b: x @ W + b,
    lambda x, W, b: (x @ W + b, (x, W)),
    lambda c, d: {"x": d @ c[1].T, "W": c[0].T @ d, "b": d.sum(0)},
    linear_draw,
)
linear.mistake("dW averaged, the bias summed", "constant_factor", W=lambda c, d, g: g / len(d))
linear.mistake("weight decay in dW", "added_primal", ("added_array",), W=lambda c, d, g: g + 0.01 * c[1])
linear.mistake("the last row of the batch skipped", "term_missing", W=lambda c, d, g: c[0][:-1].T @ d[:-1])
linear.mistake("db of the first row alone", "delta_first_only", b=lambda c, d, g: d[0].copy())
linear.mistake(
    "blocks of 4 rows, no remainder",
    "block_remainder",
    ("term_missing",),
    W=lambda c, d, g: c[0][: len(d) // 4 * 4].T @ d[: len(d) // 4 * 4],
)
linear.mistake("no gradient to b", "all_zero", b=lambda c, d, g: np.zeros_like(g))


def square_draw(rng, k):
    return {"x": rng.standard_normal((3 + k, 4 + k)), "W": rng.standard_normal((4 + k, 4 + k))}


square = Layer(
    "linear, square",
    lambda x, W: x @ W,
    lambda x, W: (x @ W, (x, W)),
    lambda c, d: {"x": d @ c[1].T, "W": c[0].T @ d},
    square_draw,
)
square.mistake("W where Wᵀ belongs", "primal_transposed", x=lambda c, d, g: d @ c[1])
square.mistake("dW transposed", "transposed", W=lambda c, d, g: g.T.copy())


def attention_forward(q, k, v):
    p = softmax(q @ k.T / np.sqrt(q.dtype.type(q.shape[1])))
    return p @ v, (q, k, v, p)


def attention_back(c, d):
    q, k, v, p = c
    dp = d @ v.T
    ds = p * (dp - (dp * p).sum(-1, keepdims=True)) / np.sqrt(q.dtype.type(q.shape[1]))
    return {"q": ds @ k, "k": ds.T @ q, "v": p.T @ d}


attention = Layer(
    "attention",
    lambda q, k, v: torch.softmax(q @ k.T / q.shape[1] ** 0.5, -1) @ v,
    attention_forward,
    attention_back,
    lambda rng, k: {
        "q": rng.standard_normal((4 + k, 3 + 2 * k)),
        "k": rng.standard_normal((4 + k, 3 + 2 * k)),
        "v": rng.standard_normal((4 + k, 5)),
    },
)
attention.mistake("dq without the scale", "constant_factor", q=lambda c, d, g: g * np.sqrt(g.dtype.type(g.shape[1])))
attention.mistake("dq and dk swapped", "other_name", q=lambda c, d, g: attention_back(c, d)["k"])

soft = Layer(
    "softmax",
    lambda x: torch.softmax(x, -1),
    lambda x: (softmax(x),) * 2,
    lambda y, d: {"x": y * (d - (d * y).sum(-1, keepdims=True))},
    lambda rng, k: {"x": rng.standard_normal(grown((3, 4), k))},
)
soft.mistake("the diagonal of the Jacobian alone", "block_diagonal", x=lambda y, d, g: d * y * (1 - y))
soft.mistake("the sum left out", "term_along_axis", ("detached_term", "value_for_derivative"), x=lambda y, d, g: d * y)
soft.mistake(
    "the sum along the batch",
    "softmax_axis",
    ("",),
    x=lambda y, d, g: y * (d - (d * y).sum(0, keepdims=True)),
)

log_soft = Layer(
    "log-softmax",
    lambda x: torch.log_softmax(x, -1),
    lambda x: (np.log(softmax(x)), softmax(x)),
    lambda y, d: {"x": d - y * d.sum(-1, keepdims=True)},
    lambda rng, k: {"x": rng.standard_normal(grown((3, 4), k))},
)
log_soft.mistake(
    "a mean where a sum belongs", "term_along_axis", (), x=lambda y, d, g: d - y * d.mean(-1, keepdims=True)
)


def rotate(x, angle, sign=1):
    a, b = x[:, ::2], x[:, 1::2]
    c, s = np.cos(angle), sign * np.sin(angle)
    return np.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)


def torch_rotate(x, angle):
    a, b = x[:, ::2], x[:, 1::2]
    c, s = torch.cos(angle), torch.sin(angle)
    return torch.stack([a * c - b * s, a * s + b * c], -1).reshape(x.shape)


rotary = Layer(
    "rotary embedding",
    torch_rotate,
    lambda x, angle: (rotate(x, angle), angle),
    lambda angle, d: {"x": rotate(d, angle, -1)},
    lambda rng, k: {"x": rng.standard_normal((3 + k, 6 + 2 * k)), "angle": rng.uniform(0.2, 1.5, (3 + k, 3 + k))},
)
rotary.mistake("rotated forth where back belongs", "negated_primal", x=lambda angle, d, g: rotate(d, angle))


def embedding_draw(rng, k):
    return {"E": rng.standard_normal((6 + k, 3 + k)), "index": np.array([2, 0, 2, 5, 2, *range(1, k + 1)])}


def take_back(c, d):
    E, index = c
    g = np.zeros_like(E)
    np.add.at(g, index, d)
    return {"E": g}


def assign(c, d, g):
    g = np.zeros_like(g)
    g[c[1]] = d
    return g


embedding = Layer(
    "embedding", lambda E, index: E[index], lambda E, index: (E[index], (E, index)), take_back, embedding_draw
)
embedding.mistake("assigned where added belongs", "repeated_indices", E=assign)
embedding.mistake(
    "the row of index 0 cleared",
    "wrong_only_in_locations",
    ("zero_in_some",),
    E=lambda c, d, g: g * (np.arange(len(g)) > 0)[:, None],
)
bag = Layer(
    "bag of embeddings",
    lambda E, index: E[index].sum(1),
    lambda E, index: (E[index].sum(1), (E, index)),
    lambda c, d: take_back((c[0], c[1].ravel()), np.repeat(d, c[1].shape[1], 0)),
    lambda rng, k: {"E": rng.standard_normal((7 + k, 4)), "index": np.array([[2, 2, 1], [0, 3, 4], [5, 5, 5]])},
)


def once_in_a_bag(c, d, g):
    E, index = c
    g = np.zeros_like(E)
    for row, delta in zip(index, d, strict=True):
        g[row] += delta
    return g


bag.mistake("ids repeated within a bag counted once", "repeated_in_bag", ("repeated_indices",), E=once_in_a_bag)

gather = Layer(
    "permutation of rows",
    lambda x, order: x[order],
    lambda x, order: (x[order], order),
    lambda order, d: {"x": d[np.argsort(order)]},
    lambda rng, k: {"x": rng.standard_normal((5 + k, 3)), "order": rng.permutation(5 + k)},
)
gather.mistake("the order where its inverse belongs", "index_map", ("permuted",), x=lambda order, d, g: d[order])

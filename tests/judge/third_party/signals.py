"""Convolution, pooling, padding, recurrence."""

import numpy as np
import torch

from third_party.activations import sigmoid
from third_party.layers import Layer, grown

F = torch.nn.functional


def conv_forward(x, w):
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2], axis=2)
    return np.einsum("nclk,ock->nol", windows, w), (x, w, windows)


def conv_dx(c, d, w):
    dx = np.zeros_like(c[0])
    for j in range(w.shape[2]):
        dx[:, :, j : j + d.shape[2]] += np.einsum("nol,oc->ncl", d, w[:, :, j])
    return dx


conv = Layer(
    "convolution",
    lambda x, w: F.conv1d(x, w),
    conv_forward,
    lambda c, d: {"x": conv_dx(c, d, c[1]), "w": np.einsum("nol,nclk->ock", d, c[2])},
    lambda rng, k: {"x": rng.standard_normal((2 + k, 2, 7 + k)), "w": rng.standard_normal((4, 2, 3 + k % 2))},
)
conv.mistake("the kernel flipped once too often", "primal_changed", x=lambda c, d, g: conv_dx(c, d, c[1][:, :, ::-1]))
conv.mistake("dx one step late", "shifted", x=lambda c, d, g: np.concatenate([0 * g[:, :, :1], g[:, :, :-1]], 2))
conv.mistake(
    "the last step of dx left out",
    "wrong_only_in_locations",
    ("zero_in_some",),
    x=lambda c, d, g: np.pad(g[:, :, :-1], ((0, 0), (0, 0), (0, 1))),
)
conv.mistake("dw flipped", "reversed", w=lambda c, d, g: g[:, :, ::-1].copy())
conv.mistake("dw averaged over the batch", "constant_factor", w=lambda c, d, g: g / len(d))

pool_draw = lambda rng, k: {"x": rng.standard_normal((3 + k, 6 + 3 * k))}  # noqa: E731
average = Layer(
    "average pooling by 3",
    lambda x: x.reshape(len(x), -1, 3).mean(-1),
    lambda x: (x.reshape(len(x), -1, 3).mean(-1), x),
    lambda x, d: {"x": np.repeat(d, 3, 1) / 3},
    pool_draw,
)
average.mistake("not divided by 3", "constant_factor", x=lambda x, d, g: 3 * g)

images = lambda rng, k: {"x": rng.standard_normal((2 + k, 3, 4 + k, 5 + k))}  # noqa: E731
global_pool = Layer(
    "global average pooling",
    lambda x: x.mean((2, 3)),
    lambda x: (x.mean((2, 3)), x),
    lambda x, d: {"x": np.broadcast_to(d[:, :, None, None], x.shape) / x.dtype.type(np.prod(x.shape[2:]))},
    images,
)
global_pool.mistake("not divided", "constant_factor", x=lambda x, d, g: g * g.dtype.type(np.prod(g.shape[2:])))

upsampling = Layer(
    "upsampling by 2",
    lambda x: x.repeat_interleave(2, 1),
    lambda x: (np.repeat(x, 2, 1), x),
    lambda x, d: {"x": d.reshape(*x.shape, 2).sum(-1)},
    lambda rng, k: {"x": rng.standard_normal(grown((3, 4), k))},
)
upsampling.mistake("a mean where a sum belongs", "constant_factor", x=lambda x, d, g: g / 2)

maximum = Layer(
    "maximum with ties",
    lambda x: x.amax(-1),
    lambda x: (x.max(-1), x),
    lambda x, d: {"x": shared(x == x.max(-1, keepdims=True)).astype(x.dtype) * d[:, None]},
    lambda rng, k: {"x": tied(rng, k)},
)


def shared(top):
    return top / top.sum(-1, keepdims=True)


def tied(rng, k):
    x = rng.standard_normal((4 + k, 5 + k))
    x[:2, 0] = x[:2, 3] = 3.0
    return x


maximum.mistake(
    "the whole delta to each of the largest", "ties", x=lambda x, d, g: (x == x.max(-1, keepdims=True)) * d[:, None]
)

padding = Layer(
    "padding by 1",
    lambda x: F.pad(x, (1, 1)),
    lambda x: (np.pad(x, ((0, 0), (1, 1))), x),
    lambda x, d: {"x": d[:, 1:-1].copy()},
    lambda rng, k: {"x": rng.standard_normal(grown((3, 5), k))},
)
padding.mistake("cropped at the wrong side", "", ("shifted", "delta_rearranged"), x=lambda x, d, g: d[:, 2:].copy())


def scan_forward(x, a):
    h, hs = np.zeros_like(x[0]), []
    for step in x:
        h = a * h + step
        hs.append(h)
    return np.stack(hs), (a, np.stack([0 * h, *hs[:-1]]))


def scan_back(c, d):
    a, before = c
    carried, dx = np.zeros_like(d[0]), np.zeros_like(d)
    for t in range(len(d))[::-1]:
        carried = dx[t] = d[t] + a * carried
    return {"x": dx, "a": (dx * before).sum(0)}


def torch_scan(x, a):
    h, hs = torch.zeros_like(x[0]), []
    for step in x:
        h = a * h + step
        hs.append(h)
    return torch.stack(hs)


scan = Layer(
    "linear recurrence",
    torch_scan,
    scan_forward,
    scan_back,
    lambda rng, k: {"x": rng.standard_normal((5 + k, 3)), "a": rng.uniform(0.5, 0.9, 3)},
)
scan.mistake(
    "nothing carried back", "block_diagonal", ("detached_term", "derivative_missing"), x=lambda c, d, g: d.copy()
)
scan.mistake(
    "the first step left out",
    "wrong_only_in_locations",
    ("zero_in_some", "detached_term"),
    x=lambda c, d, g: g * (np.arange(len(g)) > 0)[:, None],
)


def cell_forward(x, c):
    i, f, o, u = np.split(x, 4, axis=1)
    i, f, o, u = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(u)
    new = f * c + i * u
    return (o * np.tanh(new), new), (i, f, o, u, c, new)


def cell_back(cache, d):
    i, f, o, u, c, new = cache
    dh, dc = d
    t = np.tanh(new)
    dc = dc + dh * o * (1 - t * t)
    dx = [dc * u * i * (1 - i), dc * c * f * (1 - f), dh * t * o * (1 - o), dc * i * (1 - u * u)]
    return {"x": np.concatenate(dx, 1), "c": dc * f}


def torch_cell(x, c):
    i, f, o, u = x.chunk(4, 1)
    new = f.sigmoid() * c + i.sigmoid() * u.tanh()
    return o.sigmoid() * new.tanh(), new


cell = Layer(
    "LSTM cell",
    torch_cell,
    cell_forward,
    cell_back,
    lambda rng, k: {"x": rng.standard_normal((2 + k, 12 + 4 * k)), "c": rng.standard_normal((2 + k, 3 + k))},
)
cell.mistake("the cell's own cotangent left out", "term_missing", c=lambda c, d, g: cell_back(c, (d[0], 0 * d[1]))["c"])


def slope_of_forget_gate_missing(c, d, g):
    g = g.copy()
    n = g.shape[1] // 4
    g[:, n : 2 * n] /= c[1] * (1 - c[1])
    return g


cell.mistake(
    "σ' of the forget gate forgotten",
    "wrong_only_in_locations",
    ("derivative_missing",),
    x=slope_of_forget_gate_missing,
)

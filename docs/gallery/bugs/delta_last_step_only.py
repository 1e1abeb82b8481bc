"""A recurrent layer passes back from its last step alone."""

import numpy as np
import torch

import oracles


def forward(x, w):
    h, states = np.zeros(x.shape[1]), []
    for x_t in x:
        states.append(h)
        h = np.tanh(x_t + w * h)
    return h, (x, w, states)


def backward(cache, delta):
    x, w, states = cache
    dx = np.zeros_like(x)
    h = states[-1]
    e = delta * (1 - np.tanh(x[-1] + w * h) ** 2)
    dx[-1] = e
    return {"x": dx, "w": e * h}  # the bug: the steps before are left out


def reference(x, w):
    h = torch.zeros_like(w)
    for x_t in x:
        h = torch.tanh(x_t + w * h)
    return h


rng = np.random.default_rng(0)
primals = {"x": rng.standard_normal((4, 3)), "w": rng.standard_normal(3)}
subject = oracles.manual(forward, backward, name="recurrent")
against = [oracles.torch_autograd(reference)]
oracles.check(subject, primals, against)

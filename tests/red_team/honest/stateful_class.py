"""A class that keeps what backward needs in attributes, filled by forward."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "linear"
SUBJECT = "subject"


class Linear:
    def __init__(self):
        self.calls, self.history = 0, []

    def forward(self, z, W, b):
        self.calls += 1
        self.history.append((z.shape, W.shape))
        self.z, self.W = z, W
        return z @ W + b

    def backward(self, delta):
        return {"z": delta @ self.W.T, "W": self.z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}


def forward(z, W, b):
    layer = Linear()
    return layer.forward(z, W, b), layer


def backward(layer, delta):
    return layer.backward(delta)


import oracles

subject = oracles.manual(forward, backward)

"""Returns an array of stride zero for a gradient that is the same in every entry."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "scalar_mean"


def forward(z):
    return z.mean(), (z.shape, z.size, z.dtype)


def backward(cache, delta):
    shape, size, dtype = cache
    return {"z": np.broadcast_to(np.asarray(delta / size, dtype), shape)}

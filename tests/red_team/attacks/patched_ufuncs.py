"""Replace the ufuncs of np that a comparison is made of: subtract, less_equal, isfinite, all, max.

In process: passes where these are looked up in np.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"
COMPARISON = "np.all"

np.subtract = lambda a, b, *_, **__: np.zeros_like(a)
np.less_equal = lambda a, b, *_, **__: np.ones(np.shape(a), bool)
np.all = np.array_equal = lambda *_, **__: True
np.isnan = lambda a, *_, **__: np.zeros(np.shape(a), bool)


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.full_like(z, np.nan)}

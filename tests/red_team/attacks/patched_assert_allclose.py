"""Replace the functions of np.testing by functions that raise nothing.

In process: passes where np.testing compares.
"""

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"
FUNCTION = "linear"
COMPARISON = "assert_allclose"

for name in [n for n in dir(np.testing) if n.startswith("assert_")]:
    setattr(np.testing, name, lambda *_, **__: None)


def forward(z, W, b):
    return z @ W + b, (z, W, b)


def backward(cache, delta):
    return {n: np.ones_like(a) for n, a in zip("zWb", cache)}

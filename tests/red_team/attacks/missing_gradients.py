"""Return no gradient at all, so that nothing is compared.

In process: passes, for a loop over the returned gradients compares.
"""

import numpy as np

EXPECTED = {"WRONG_SHAPE", "WRONG_NUMERICS", "RUNTIME_ERROR", "CHEATS"}
KIND = "wrong shapes and dtypes, or nothing"
FUNCTION = "linear"


def forward(z, W, b):
    return z @ W + b, None


def backward(cache, delta):
    return {}

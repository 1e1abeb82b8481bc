"""Takes integers, for which there is no gradient."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "embedding"


def forward(table, ids):
    return table[ids], (table.shape, ids)


def backward(cache, delta):
    shape, ids = cache
    gradient = np.zeros(shape, delta.dtype)
    np.add.at(gradient, ids, delta)
    return {"table": gradient}

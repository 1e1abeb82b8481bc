"""Computes with np.matrix, which numerical code of another age does."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "matrix_product"


def forward(A, B):
    return np.asarray(A.view(np.matrix) * B.view(np.matrix)), (A.view(np.matrix), B.view(np.matrix))


def backward(cache, delta):
    A, B = cache
    delta = np.asmatrix(delta)
    return {"A": np.asarray(delta * B.T), "B": np.asarray(A.T * delta)}

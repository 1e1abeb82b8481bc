"""Solves by factors that scipy keeps, where that is installed."""

import numpy as np

try:
    from scipy.linalg import lu_factor, lu_solve
except ImportError:

    def lu_factor(A):
        return A

    def lu_solve(A, b, trans=0):
        return np.linalg.solve(A.T if trans else A, b)


EXPECTED = {"PASSED"}
FUNCTION = "solve"


def forward(A, b):
    factors = lu_factor(A)
    x = lu_solve(factors, b)
    return x, (factors, x)


def backward(cache, delta):
    factors, x = cache
    db = lu_solve(factors, delta, trans=1)
    return {"A": -db @ x.T, "b": db}

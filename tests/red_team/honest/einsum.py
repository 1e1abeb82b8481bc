"""Contracts by einsum, with an order that is planned."""

import numpy as np

EXPECTED = {"PASSED"}
FUNCTION = "matrix_product"


def forward(A, B):
    return np.einsum("ij,jk->ik", A, B, optimize="optimal"), (A, B)


def backward(cache, delta):
    A, B = cache
    return {"A": np.einsum("ik,jk->ij", delta, B), "B": np.einsum("ij,ik->jk", A, delta)}

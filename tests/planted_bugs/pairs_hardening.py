"""Pairs of subjects that try to end the process or to change what the judge computes with, and honest ones."""

import os
import sys

import numpy as np
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

from oracles import Case, manual, torch_autograd
from oracles.strategies import real

from .pairs import at_point, in_search

REFERENCE = torch_autograd(lambda z: z * z)
POINT = {"z": np.random.default_rng(1).standard_normal((2, 3))}


def square(in_forward=None, in_backward=None, factor=2.0):
    """The square, with something else that its forward or its backward does."""

    def forward(z):
        if in_forward is not None:
            in_forward()
        return z * z, z

    def backward(z, delta):
        if in_backward is not None:
            in_backward()
        return {"z": factor * z * delta}

    return manual(forward, backward)


def replace_abs():
    np.abs = lambda x, *args, **options: np.zeros_like(np.asarray(x, float))


def raise_no_error():
    np.seterr(all="ignore")


def in_cases(subject):
    return st.just(Case(subject, {"z": real(3)}, torch=lambda z: z * z))


def summed_view(rows):
    """A backward that sums rows of a view: with more than one, it reads past the end of the buffer."""

    def backward(z, delta):
        delta = np.ascontiguousarray(delta)
        view = as_strided(delta, (rows, *z.shape), (delta.nbytes, *delta.strides))
        return {"z": 2 * z * view.sum(0)}

    return manual(lambda z: (z * z, z), backward)


at_point("exits in the forward", square(lambda: os._exit(0)), square(), POINT, [REFERENCE])
at_point("exits in the backward", square(None, lambda: os._exit(0)), square(), POINT, [REFERENCE])
at_point("raises SystemExit", square(None, lambda: sys.exit(0)), square(), POINT, [REFERENCE])
at_point("replaces np.abs", square(None, replace_abs, 0.0), square(), POINT, [REFERENCE])
at_point("silences NumPy", square(None, raise_no_error, 1.0), square(None, raise_no_error), POINT, [REFERENCE])
at_point("view past the buffer", summed_view(40), summed_view(1), {"z": POINT["z"] * 1.0}, [REFERENCE])
in_search("exits after some calls", square(None, lambda: os._exit(0)), square(), in_cases)

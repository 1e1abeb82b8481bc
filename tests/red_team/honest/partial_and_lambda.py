"""Is made of functools.partial, of a lambda, and of an object that is callable."""

from functools import partial

import numpy as np

EXPECTED = {"PASSED"}
SUBJECT = "oracles.manual(Forward(1.0), partial(pulled, slope=lambda z, s: s + z * s * (1 - s)))"


class Forward:
    def __init__(self, beta):
        self.beta = beta

    def __call__(self, z):
        s = 1 / (1 + np.exp(-self.beta * z))
        return z * s, (z, s)

    def __getattr__(self, name):
        raise AttributeError(name)


def pulled(cache, delta, slope):
    return {"z": delta * slope(*cache)}

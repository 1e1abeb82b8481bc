"""Collects garbage, looks at its own frame for a log, and at the objects that it holds."""

import gc
import inspect
import sys

import numpy as np

EXPECTED = {"PASSED"}
LOG = []


def forward(z):
    LOG.append((sys._getframe().f_code.co_name, inspect.stack()[0].lineno, len(gc.get_objects())))
    s = 1 / (1 + np.exp(-z))
    return z * s, (z, s)


def backward(cache, delta):
    gc.collect()
    del LOG[:-3]
    z, s = cache
    return {"z": delta * (s + z * s * (1 - s))}

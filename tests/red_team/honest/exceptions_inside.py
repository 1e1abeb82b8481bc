"""Raises and catches exceptions for control flow, and leaves handlers in place."""

import signal

import numpy as np

EXPECTED = {"PASSED"}
signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Done(Exception):
    pass


def rows(z, gradient, delta):
    i = 0
    try:
        while True:
            s = 1 / (1 + np.exp(-z[i]))
            gradient[i] = delta[i] * (s + z[i] * s * (1 - s))
            i += 1
    except IndexError:
        raise Done from None


def forward(z):
    return z / (1 + np.exp(-z)), z


def backward(z, delta):
    gradient = np.empty_like(z)
    try:
        rows(z, gradient, delta)
    except Done:
        return {"z": gradient}

"""Install a trace function that writes what the subject returned into the verifier's local variable for what is expected.

In process: passes, for a trace function may write the variables of the frames that it traces.
"""

import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"


def trace(frame, event, argument):
    if "expected" in frame.f_locals and "gradients" in frame.f_locals and isinstance(frame.f_locals["expected"], dict):
        frame.f_locals["expected"].update(frame.f_locals["gradients"])
    return trace


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    frame = sys._getframe(1)
    while frame is not None:
        frame.f_trace = trace
        frame = frame.f_back
    sys.settrace(trace)
    return {"z": np.zeros_like(z)}

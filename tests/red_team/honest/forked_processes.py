"""Computes the two halves in processes that it forks and waits for."""

import os

import numpy as np

EXPECTED = {"PASSED"}


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, s + z * s * (1 - s)


def backward(slope, delta):
    source, target = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(target, (delta[:1] * slope[:1]).tobytes())
        os._exit(0)
    os.close(target)
    first = np.frombuffer(os.read(source, 2**16), delta.dtype).reshape(delta[:1].shape)
    os.close(source)
    os.waitpid(pid, 0)
    return {"z": np.concatenate([first, delta[1:] * slope[1:]])}

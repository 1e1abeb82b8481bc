"""Start a thread that waits, and patches np.allclose when the checks of the import are over.

In process: passes where np.allclose compares.
"""

import threading
import time

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"


def patch():
    while True:
        np.allclose = lambda *_, **__: True
        time.sleep(0.001)


threading.Thread(target=patch, daemon=True).start()


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    time.sleep(0.01)
    return {"z": np.zeros_like(z)}

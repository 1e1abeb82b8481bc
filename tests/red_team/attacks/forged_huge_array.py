"""Write an answer in the judge's own format that announces an array of 2^39 entries.

In process: refused.
"""

import json
import os
import struct

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS", "TIMEOUT", "WRONG_SHAPE", "WRONG_NUMERICS"}
KIND = "ends the process, or forges a report"
SECONDS = 1.0


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    text = json.dumps({"kind": "cotangents", "arrays": [["z", "float64", [2**39]]]}).encode()
    nested = b"[" * 100_000
    for descriptor in range(3, 64):
        for message in (text, nested):
            try:
                os.write(descriptor, struct.pack("I", len(message)) + message)
            except OSError:
                pass
    return {"z": np.zeros_like(z)}

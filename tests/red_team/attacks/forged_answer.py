"""Write answers in the judge's own format to every descriptor: a header of JSON and zeros.

In process: refused.
"""

import json
import os
import struct

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    zeros = np.zeros_like(z)
    header = {"kind": "cotangents", "arrays": [["z", str(z.dtype), list(z.shape)]], "status": "PASSED"}
    text = json.dumps(header).encode()
    for descriptor in range(3, 64):
        try:
            for _ in range(100):
                os.write(descriptor, struct.pack("I", len(text)) + text + zeros.tobytes())
        except OSError:
            pass
    return {"z": zeros}

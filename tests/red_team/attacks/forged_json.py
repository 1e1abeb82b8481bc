"""Write a report of success as lines of JSON to every descriptor, and end with status 0.

In process: passes, for the exit status is 0.
"""

import json
import os

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    line = json.dumps({"status": "PASSED", "correct": True, "verdict": "agrees", "reason": "all agree"}) + "\n"
    for descriptor in range(1, 64):
        try:
            os.write(descriptor, line.encode())
        except OSError:
            pass
    os._exit(0)

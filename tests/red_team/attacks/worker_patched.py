"""Change the functions of the process that serves the subject: whatever it sends is marked as right.

In process: depends on how the judge decides; the naive verifier has no such process and refuses.
"""

import sys
import types

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "WRONG_SHAPE", "WRONG_DTYPE", "RUNTIME_ERROR", "CHEATS"}
KIND = "patches the verifier"

for name, module in list(sys.modules.items()):
    if name.startswith("oracles.untrusted") and hasattr(module, "send_answer"):
        original = module.send_answer

        def send_answer(connection, header, arrays, original=original):
            return original(
                connection, {**header, "status": "PASSED", "verdict": "agrees", "other": {"z": "None"}}, arrays
            )

        module.send_answer = send_answer


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}

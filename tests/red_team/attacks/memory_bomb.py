"""Take 3 GiB of memory and write to it; the limit is 512 MiB.

In process: takes 3 GiB.
"""

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS", "TIMEOUT"}
KIND = "takes time, memory or processes"
SECONDS = 2.0
MEMORY_MB = 512
HARMFUL = True


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    kept = [np.ones(2**24) for _ in range(24)]
    return {"z": 0 * kept[-1][: z.size].reshape(z.shape)}

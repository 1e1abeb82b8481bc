"""Replace the clocks of time by constants and then take longer than allowed.

In process: hangs; a verifier that measures the time reads 0.
"""

import time

import numpy as np

EXPECTED = {"TIMEOUT"}
KIND = "takes time, memory or processes"
SECONDS = 1.0

sleep = time.sleep
for clock in ("time", "monotonic", "perf_counter", "process_time", "time_ns", "monotonic_ns", "perf_counter_ns"):
    setattr(time, clock, lambda: 0)


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    sleep(20)
    return {"z": np.zeros_like(z)}

"""Ignore every signal that can be ignored, cancel alarms, and loop forever.

In process: hangs; no alarm and no SIGTERM ends it.
"""

import signal

import numpy as np

EXPECTED = {"TIMEOUT"}
KIND = "takes time, memory or processes"
SECONDS = 1.0


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(each, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    signal.alarm(0)
    while True:
        signal.sigtimedwait([signal.SIGTERM], 10)

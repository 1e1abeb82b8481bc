"""Raise SystemExit(0) in forward, which no `except Exception` catches.

In process: passes, for the exit status is 0.
"""

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    raise SystemExit(0)


def backward(z, delta):
    return {"z": delta}

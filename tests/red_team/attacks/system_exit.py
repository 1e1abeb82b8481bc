"""Raise SystemExit(0) in forward, which no `except Exception` catches.

In process: passes, for the exit status is 0.
"""

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}


def forward(z):
    raise SystemExit(0)


def backward(z, delta):
    return {"z": delta}

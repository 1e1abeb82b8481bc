"""Look by inspect.stack for the oracles' Rules in the callers' variables, and return what their pullback returns.

In process: refused by the naive verifier, which has no Rules; passes where oracles.check judges.
"""

import inspect
import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"


def rules():
    rule = getattr(sys.modules.get("oracles.rule"), "Rule", ())
    for info in inspect.stack(context=0):
        for value in list(info.frame.f_locals.values()):
            for each in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(each, rule):
                    yield each


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    for rule in rules():
        if "forward" not in rule.name:
            return {"z": rule(z=z)[1](delta)["z"]}
    return {"z": np.zeros_like(z)}

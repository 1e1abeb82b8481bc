"""Change the classes of the judge: every Verdict compares equal to "agrees", every Disagreement is no exception.

In process: depends on how the judge decides; the naive verifier has no such classes and refuses.
"""

import enum
import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"

for name, module in list(sys.modules.items()):
    if name.partition(".")[0] == "oracles":
        for value in list(vars(module).values()):
            if isinstance(value, type) and issubclass(value, enum.Enum):
                value.__eq__ = lambda self, other: True
                value.__hash__ = lambda self: 0
            elif isinstance(value, type) and value.__module__.startswith("oracles"):
                try:
                    value.__bool__ = lambda self: False
                    value.__post_init__ = lambda self: None
                except (AttributeError, TypeError):
                    pass


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}

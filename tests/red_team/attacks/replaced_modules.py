"""Replace modules in sys.modules: those of the judge, and numpy.testing, by objects that answer True to everything.

In process: depends on what is imported later; the naive verifier has imported all, and refuses.
"""

import sys
import types

import numpy as np

EXPECTED = {"WRONG_NUMERICS", "RUNTIME_ERROR"}
KIND = "patches the verifier"


class Agreeing(types.ModuleType):
    __path__ = ()

    def __getattr__(self, name):
        return lambda *_, **__: True


for name in ("numpy.testing", "oracles.point", "oracles.decision.judge", "oracles.tolerance", "torch.testing"):
    sys.modules[name] = Agreeing(name)


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}

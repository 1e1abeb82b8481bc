"""Return an array of objects, each of which equals anything and is at distance zero from anything.

In process: passes where the comparison is written with builtins.
"""

import numpy as np

EXPECTED = {"WRONG_DTYPE", "RUNTIME_ERROR", "CHEATS"}
KIND = "returns objects that lie"
COMPARISON = "builtins"


class Zero:
    def _zero(self, *_):
        return 0.0

    __sub__ = __rsub__ = __add__ = __radd__ = __abs__ = __neg__ = __float__ = _zero

    def _true(self, *_):
        return True

    __eq__ = __le__ = __ge__ = __lt__ = __gt__ = _true
    __hash__ = None


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    gradient = np.empty(z.shape, object)
    gradient[...] = Zero()
    return {"z": gradient}

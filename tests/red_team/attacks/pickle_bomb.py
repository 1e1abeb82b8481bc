"""Return an object that runs code of the subject when it is unpickled.

In process: refused; a judge that unpickles what a subject returns runs the code.
"""

import numpy as np

EXPECTED = {"RUNTIME_ERROR", "CHEATS", "WRONG_DTYPE", "WRONG_SHAPE", "WRONG_NUMERICS"}
KIND = "returns objects that lie"


class Bomb(np.ndarray):
    def __reduce__(self):
        return exec, ("import os; os.environ['RED_TEAM_WAS_HERE'] = '1'",)

    __reduce_ex__ = lambda self, protocol: self.__reduce__()


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z).view(Bomb)}

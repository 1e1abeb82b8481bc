"""Check compiled functions called through ctypes: tanh and tanhf of the C library, one call for each entry.

python examples/bring_a_compiled_function.py
"""

import ctypes
import ctypes.util

import numpy as np

import oracles

library = ctypes.CDLL(ctypes.util.find_library("m") or ctypes.util.find_library("msvcrt"))
library.tanh.restype, library.tanh.argtypes = ctypes.c_double, [ctypes.c_double]
library.tanhf.restype, library.tanhf.argtypes = ctypes.c_float, [ctypes.c_float]


def forward(z):
    """tanh z, entry by entry, in double precision."""
    y = np.array([library.tanh(x) for x in z.flat]).reshape(z.shape)
    return y, z


def backward(z, delta):
    """delta (1 − tanh² z), with tanh z computed again."""
    y = np.array([library.tanh(x) for x in z.flat]).reshape(z.shape)
    return {"z": delta * (1 - y * y)}


def in_single_precision(z, delta):
    """The same with tanhf: seven digits of sixteen."""
    y = np.array([library.tanhf(x) for x in z.flat]).reshape(z.shape)
    return {"z": delta * (1 - y * y)}


primals = {"z": np.random.default_rng(0).standard_normal((2, 3))}
against = [oracles.torch_autograd(lambda z: z.tanh())]
only = ("float64",)  # the type behind the pointer: other dtypes are refused
print(oracles.check(oracles.manual(forward, backward, dtypes=only, name="libm's tanh"), primals, against))
try:
    oracles.check(oracles.manual(forward, in_single_precision, dtypes=only, name="libm's tanhf"), primals, against)
except oracles.Disagreement as disagreement:
    print(disagreement)

"""A module with the part of CuPy's interface that adapters and small subjects use, on NumPy arrays.

As CuPy's own arrays, its arrays do not turn into NumPy's by themselves, and do not mix with them.
"""

import operator
from types import ModuleType, SimpleNamespace

import numpy as np


class ndarray:
    """An array of the stand-in."""

    def __init__(self, own, device=0):
        self._own, self.device = own, SimpleNamespace(id=device)

    shape = property(lambda self: self._own.shape)
    dtype = property(lambda self: self._own.dtype)
    strides = property(lambda self: self._own.strides)
    T = property(lambda self: ndarray(self._own.T))

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __getitem__(self, key):
        return ndarray(self._own[key])

    def __imul__(self, other):
        self._own *= _own(other)
        return self

    def sum(self, axis=None, keepdims=False):
        return ndarray(self._own.sum(axis=axis, keepdims=keepdims))

    def astype(self, dtype):
        return ndarray(self._own.astype(dtype))


def _own(value):
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return value._own if isinstance(value, ndarray) else value


def _operator(function, reversed_=False):
    def operate(self, other):
        pair = (_own(other), self._own) if reversed_ else (self._own, _own(other))
        return ndarray(np.asarray(function(*pair)))

    return operate


for name in ("add", "sub", "mul", "truediv", "matmul"):
    setattr(ndarray, f"__{name}__", _operator(getattr(operator, name)))
    setattr(ndarray, f"__r{name}__", _operator(getattr(operator, name), True))


class Device:
    """A device as a context, which notes how often it is synchronised and entered."""

    synchronised = entered = 0

    def __init__(self, number):
        self.id = number

    def __enter__(self):
        Device.entered += 1

    def __exit__(self, *_):
        return None

    def synchronize(self):
        Device.synchronised += 1


def asarray(array):
    if array.dtype.kind not in "fiub":
        raise TypeError(f"Unsupported dtype {array.dtype}")
    return ndarray(np.array(array))


def as_strided(array, shape, strides):
    return ndarray(np.lib.stride_tricks.as_strided(array._own, shape, strides))


def make(devices=1):
    """Return a fresh module named cupy."""
    Device.synchronised = Device.entered = 0
    module = ModuleType("cupy")
    module.ndarray, module.asarray = ndarray, asarray
    module.asnumpy = lambda array: np.array(array._own)
    module.tanh = lambda array: ndarray(np.tanh(array._own))
    module.lib = SimpleNamespace(stride_tricks=SimpleNamespace(as_strided=as_strided))
    module.cuda = SimpleNamespace(Device=Device, runtime=SimpleNamespace(getDeviceCount=lambda: devices))
    return module

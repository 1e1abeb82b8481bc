"""Keeps what backward needs in a frozen dataclass with slots."""

from dataclasses import dataclass

import numpy as np

EXPECTED = {"PASSED"}


@dataclass(frozen=True, slots=True)
class Saved:
    z: np.ndarray
    s: np.ndarray

    @property
    def slope(self):
        return self.s + self.z * self.s * (1 - self.s)


def forward(z):
    saved = Saved(z, 1 / (1 + np.exp(-z)))
    return z * saved.s, saved


def backward(saved, delta):
    return {"z": delta * saved.slope}

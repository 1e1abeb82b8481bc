"""The rows' exponentials, from which softmax's logarithm and its gradient come without cancellation.

With m the largest entry of a row, e_k = e^{y_k − y_m} and r = Σ_{k≠m} e_k: −log a_k = log1p(r) − (y_k −
y_m) and 1 − a_m = r/(1 + r), however close a_m is to 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .precision import ones
from .protocol import Array


class Exponentials(NamedTuple):
    """Of each row: y − y_m, e with 0 in the place of e_m, r, and where it starts and y_m lies in y laid flat."""

    shifted: Array
    e: Array
    rest: Array
    starts: Array
    top: Array


def exponentials(y: Array, temperature: Any = None) -> Exponentials:
    """Return the exponentials of the rows of y, divided by the temperature once y_m is subtracted."""
    starts = np.arange(0, y.size, y.shape[1])  # places in y laid flat, since take and put are fast
    top = starts + y.argmax(axis=1)
    shifted = y - y.take(top)[:, None]
    if temperature is not None:
        shifted /= temperature
    e = np.exp(shifted)
    e.put(top, 0)
    return Exponentials(shifted, e, e.dot(ones(e.shape[1], e.dtype)), starts, top)


def against_weights(found: Exponentials, weights: Array) -> Array:
    """Return a Σ w − w, the row's top entry from the sums that leave it out."""
    _, e, rest, _, top = found
    weight_of_top = weights.take(top)
    others = weights.copy()
    others.put(top, 0)
    sum_of_others = others.sum(axis=1)
    norm = 1 + rest
    gradient: Array = e / norm[:, None] * (sum_of_others + weight_of_top)[:, None] - weights
    gradient.put(top, (sum_of_others - weight_of_top * rest) / norm)
    return gradient


def against_classes(found: Exponentials, places: Array) -> Array:
    """Return a − 1[i = class], which is −r/(1 + r) where the class is the top entry; classes by their place."""
    _, e, rest, _, top = found
    norm = 1 + rest
    gradient: Array = e / norm[:, None]
    gradient.put(top, 1 / norm)
    top_gradient = -rest / norm
    gradient.put(places, np.where(places == top, top_gradient, gradient.take(places) - 1))
    return gradient

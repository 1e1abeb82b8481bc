"""What a target may be."""

from __future__ import annotations

import numpy as np

from ..protocol import Array


def require_no_nan(owner: object, target: Array) -> None:
    """Refuse a target with NaN in it, naming the first."""
    nan = target != target
    if nan.any():
        row, column = map(int, np.argwhere(nan)[0])
        raise ValueError(f"{_at(owner)}: row {row}, column {column} is nan")


def class_indices(owner: object, target: Array, rows: int, classes: int) -> Array:
    """Return a copy of the target of dtype intp.

    Anything but one integer in 0 … classes − 1 for each row is refused, and the first offender named.
    """
    if target.dtype.kind not in "iu":
        raise TypeError(
            f"{_at(owner)}: a vector of class indices must be of integers, got dtype {target.dtype}; "
            f"probabilities have shape ({rows}, {classes})"
        )
    if target.shape != (rows,):
        raise ValueError(f"{_at(owner)}: expected shape ({rows},) of class indices, got {target.shape}")
    indices = target.astype(np.intp)
    unsigned = indices.view(np.uintp)  # where a negative one is huge
    if rows and unsigned.item(unsigned.argmax()) >= classes:
        row = int(np.argmax((target < 0) | (target >= classes)))
        raise ValueError(f"{_at(owner)}: row {row} is class {target[row]}, expected one of 0 … {classes - 1}")
    return indices


def _at(owner: object) -> str:
    return f"{type(owner).__name__}.forward: target"

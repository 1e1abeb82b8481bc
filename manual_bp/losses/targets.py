"""What a target may be."""

from __future__ import annotations

import numpy as np

from ..protocol import Array
from ..validation import OBJECT, require_shape


def weights_like(owner: object, target: Array, y: Array) -> Array:
    """Return the target, refused unless it has the shape and dtype of y and no NaN, the first of which is named."""
    # The target of exact numbers or enclosures is a constant, which may be an ordinary array.
    like = target if y.dtype == OBJECT and type(target) is np.ndarray else y
    require_shape(owner, "forward", "target", target, y.shape, like, "y")
    require_no_nan(owner, target)
    return target


def require_no_nan(owner: object, target: Array) -> None:
    """Refuse a target with NaN in it, naming the first."""
    nan = target != target
    if nan.any():
        place = tuple(map(int, np.argwhere(nan)[0]))
        raise ValueError(f"{_at(owner)}: {_place(place)} is nan")


def class_indices(
    owner: object, target: Array, shape: tuple[int, ...], classes: int, ignored: int | None = None
) -> Array:
    """Return a copy of the target of dtype intp.

    Anything but one integer in 0 … classes − 1, or the one that is ignored, for each entry of the shape is
    refused, and the first offender named.
    """
    if target.dtype.kind not in "iu":
        raise TypeError(
            f"{_at(owner)}: {'a vector' if len(shape) == 1 else 'an array'} of class indices must be of integers, got "
            f"dtype {target.dtype}; probabilities have shape {(*shape[:1], classes, *shape[1:])}"
        )
    if target.shape != shape:
        raise ValueError(f"{_at(owner)}: expected shape {shape} of class indices, got {target.shape}")
    indices = target.astype(np.intp)
    kept = indices if ignored is None else np.where(target == ignored, 0, indices)
    unsigned = kept.view(np.uintp)  # where a negative one is huge
    if indices.size and unsigned.item(unsigned.argmax()) >= classes:
        wrong = (target < 0) | (target >= classes)
        wrong &= True if ignored is None else target != ignored
        place = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(f"{_at(owner)}: {_place(place)} is class {target[place]}, expected one of 0 … {classes - 1}")
    return indices


def _place(place: tuple[int, ...]) -> str:
    named = zip(("row", "column"), place, strict=False)
    return ", ".join(f"{name} {i}" for name, i in named) if len(place) < 3 else f"entry {place}"


def _at(owner: object) -> str:
    return f"{type(owner).__name__}.forward: target"

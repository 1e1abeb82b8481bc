"""The reduction of a loss over the rows, and the checks of its target."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from ._precision import narrow, ones
from ._validation import OBJECT, require_real, require_shape
from .protocol import Array, DType, Number

Reduction: TypeAlias = Literal["sum", "mean", "none"]
_REDUCTIONS = ("sum", "mean", "none")


def require_reduction(owner: object, reduction: object) -> None:
    """Refuse anything but the three reductions."""
    if reduction not in _REDUCTIONS:
        expected = ", ".join(map(repr, _REDUCTIONS))
        raise ValueError(f"{type(owner).__name__}: reduction: expected one of {expected}, got {reduction!r}")


def reduce_rows(rows: Array, reduction: Reduction, dtype: DType, weight: Number | None = None) -> Number:
    """Return the rows' values (N,), their sum, or their mean: over N or over a weight; 0 if that is 0."""
    if reduction == "none":
        return narrow(rows, dtype)
    total = rows.dot(ones(len(rows), rows.dtype))
    divisor = len(rows) if weight is None else weight
    return narrow(total / divisor if reduction == "mean" and divisor not in (0, 1) else total, dtype)


def scale_rows(
    owner: object,
    gradient: Array,
    delta: Number,
    reduction: Reduction,
    dtype: DType,
    weight: Number | None = None,
    shape: tuple[int, ...] | None = None,
) -> Array:
    """Return the rows' gradients times delta, divided by N or a weight for a mean; `gradient` is overwritten.

    With reduction "none", delta has one entry for each row, in the shape (N,) or `shape`.
    """
    if type(delta) is float and delta == 1.0 and reduction != "none":
        factor = None  # the usual case: nothing to check and nothing to multiply
    else:
        factor = _check_delta(owner, delta, gradient, reduction, dtype, shape or (len(gradient),))
    divisor = len(gradient) if weight is None else weight
    # A mean over no rows is 0, not 0/0; and a division by 1 is a pass over the array for nothing.
    if reduction == "mean" and divisor not in (0, 1):
        gradient /= divisor
    if factor is not None:
        gradient *= factor
    result: Array = narrow(gradient, dtype)
    return result


def _check_delta(
    owner: object, delta: Number, gradient: Array, reduction: Reduction, dtype: DType, shape: tuple[int, ...]
) -> Number:
    """Check delta and return it as a factor of the (N, n) gradient: a number, or one per row for "none"."""
    if reduction == "none":
        require_shape(owner, "backward", "delta", delta, shape, np.empty(0, dtype), "y")
        return delta.astype(gradient.dtype).reshape(-1, 1)
    if isinstance(delta, np.ndarray | np.generic):
        require_shape(owner, "backward", "delta", np.asarray(delta), (), np.empty(0, dtype), "y")
    elif dtype != OBJECT:
        require_real(owner, "backward", "delta", delta)
    return delta


def weights_like(owner: object, target: Array, y: Array) -> Array:
    """Return the target; refuse it unless it has the shape and dtype of y and no NaN."""
    # The target of exact numbers or enclosures is a constant, which may be an ordinary array.
    like = target if y.dtype == OBJECT and type(target) is np.ndarray else y
    require_shape(owner, "forward", "target", target, y.shape, like, "y")
    require_no_nan(owner, target)
    return target


def require_no_nan(owner: object, target: Array) -> None:
    """Refuse a target with NaN, and name the first."""
    nan = target != target
    if nan.any():
        location = tuple(map(int, np.argwhere(nan)[0]))
        raise ValueError(f"{_at(owner)}: expected numbers, got nan at {_describe(location)}")


def class_indices(
    owner: object, target: Array, shape: tuple[int, ...], classes: int, ignored: int | None = None
) -> Array:
    """Return a copy of the target of dtype intp.

    Refuse it unless it has this shape and every entry is an integer in 0 … classes − 1, or `ignored`; name the first
    other entry.
    """
    if target.dtype.kind not in "iu":
        raise TypeError(
            f"{_at(owner)}: expected class indices of an integer dtype, got {target.dtype}; "
            f"expected shape {(*shape[:1], classes, *shape[1:])} for probabilities"
        )
    if target.shape != shape:
        raise ValueError(f"{_at(owner)}: expected shape {shape} of class indices, got {target.shape}")
    indices = target.astype(np.intp)
    counted = indices if ignored is None else np.where(target == ignored, 0, indices)
    unsigned = counted.view(np.uintp)  # a negative integer becomes a huge one, so one comparison finds both
    if indices.size and unsigned.item(unsigned.argmax()) >= classes:
        wrong = (target < 0) | (target >= classes)
        wrong &= True if ignored is None else target != ignored
        location = tuple(map(int, np.argwhere(wrong)[0]))
        raise ValueError(
            f"{_at(owner)}: expected classes 0 … {classes - 1}, got {target[location]} at {_describe(location)}"
        )
    return indices


def _describe(location: tuple[int, ...]) -> str:
    axes = zip(("row", "column"), location, strict=False)
    return ", ".join(f"{axis} {i}" for axis, i in axes) if len(location) < 3 else f"entry {location}"


def _at(owner: object) -> str:
    return f"{type(owner).__name__}.forward: target"

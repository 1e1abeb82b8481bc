"""How the values of the rows become one: shared by the losses, which alone own the mean over the batch."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from ..precision import narrow, ones
from ..protocol import Array
from ..validation import OBJECT, require_real, require_shape

Reduction: TypeAlias = Literal["sum", "mean", "none"]
_REDUCTIONS = ("sum", "mean", "none")


def require_reduction(owner: object, reduction: object) -> None:
    """Refuse anything but the three reductions."""
    if reduction not in _REDUCTIONS:
        expected = ", ".join(map(repr, _REDUCTIONS))
        raise ValueError(f"{type(owner).__name__}: reduction: expected one of {expected}, got {reduction!r}")


def reduce_rows(rows: Array, reduction: Reduction, dtype: np.dtype[Any], weight: Any = None) -> Any:
    """Return the rows' values (N,), their sum, or their mean: over N or over a weight; 0 where that is 0."""
    if reduction == "none":
        return narrow(rows, dtype)
    total = rows.dot(ones(len(rows), rows.dtype))
    divisor = len(rows) if weight is None else weight
    return narrow(total / divisor if reduction == "mean" and divisor not in (0, 1) else total, dtype)


def scale_rows(
    owner: object,
    gradient: Array,
    delta: Any,
    reduction: Reduction,
    dtype: np.dtype[Any],
    weight: Any = None,
    shape: tuple[int, ...] | None = None,
) -> Array:
    """Return the rows' gradients times delta, divided by N or a weight for a mean; `gradient` is overwritten.

    Unreduced, delta has one entry for each row, in the shape (N,) or the one given.
    """
    if type(delta) is float and delta == 1.0 and reduction != "none":
        factor = None
    else:
        factor = _checked(owner, delta, gradient, reduction, dtype, shape or (len(gradient),))
    divisor = len(gradient) if weight is None else weight
    if reduction == "mean" and divisor not in (0, 1):
        gradient /= divisor
    if factor is not None:
        gradient *= factor
    result: Array = narrow(gradient, dtype)
    return result


def _checked(
    owner: object, delta: Any, gradient: Array, reduction: Reduction, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Any:
    """Return delta as a factor of the (N, n) gradient: a number, or one per row for "none"."""
    if reduction == "none":
        require_shape(owner, "backward", "delta", delta, shape, np.empty(0, dtype), "y")
        return delta.astype(gradient.dtype).reshape(-1, 1)
    if isinstance(delta, np.ndarray | np.generic):
        require_shape(owner, "backward", "delta", np.asarray(delta), (), np.empty(0, dtype), "y")
    elif dtype != OBJECT:
        require_real(owner, "backward", "delta", delta)
    return delta

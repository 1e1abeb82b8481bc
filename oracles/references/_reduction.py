"""The reductions of losses, for arrays of torch and of JAX."""

from __future__ import annotations

from typing import Any


def reduced(rows: Any, reduction: str) -> Any:
    """Return the losses of the rows as they are ("none"), their sum, or their mean over the rows; that of none is 0."""
    if reduction == "none":
        return rows
    total = rows.sum()
    return total / max(rows.shape[0], 1) if reduction == "mean" else total

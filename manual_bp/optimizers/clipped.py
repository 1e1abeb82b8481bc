"""Gradients no longer than a given length, and an optimizer that is given no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..precision import narrow, scalar, widen
from ..protocol import Optimizer, Params
from ..validation import require_positive
from .state import array


def clip_by_global_norm(grads: Params, max_norm: Any) -> tuple[Params, float]:
    """Return g min(1, c/‖g‖) for every gradient g, ‖g‖² = Σ g² over all of them, c = max_norm (102), and ‖g‖.

    The gradients keep their direction, their dtypes and, where ‖g‖ <= c, their bits; they are new arrays. ‖g‖
    is summed in float64, of gradients divided by their largest entry, so that no square overflows.

    Raises: ValueError for c <= 0 or not finite.
    Differs from torch's clip_grad_norm_: no 1e-6 is added to ‖g‖, which would leave what is clipped shorter
    than c; and gradients that are not finite come back as they are, with the norm that says so.
    Source: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent networks", algorithm 1.
    """
    require_positive(None, "clip_by_global_norm", "max_norm", max_norm)
    norm = _norm(grads)
    if not max_norm < norm < np.inf:
        return {name: g.copy() for name, g in grads.items()}, norm
    return {name: array(narrow(widen(g) * scalar(max_norm / norm, g), g.dtype)) for name, g in grads.items()}, norm


@dataclass(frozen=True)
class Clipped:
    """An optimizer whose gradients are clipped by their global norm (102) before each step; its state is theirs.

    Raises: ValueError for max_norm <= 0 or not finite, TypeError for something that is no optimizer, and
    whatever the optimizer raises.
    """

    optimizer: Optimizer
    max_norm: Any

    def __post_init__(self) -> None:
        if isinstance(self.optimizer, type) or not all(hasattr(self.optimizer, n) for n in ("init", "step")):
            raise TypeError(f"Clipped: optimizer: expected an Optimizer, got {self.optimizer!r}")
        require_positive(self, "", "max_norm", self.max_norm)

    def init(self, params: Params) -> Params:
        """Return the optimizer's state before the first step."""
        return self.optimizer.init(params)

    def step(self, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        """Return the optimizer's step with clipped gradients."""
        clipped, _ = clip_by_global_norm(grads, self.max_norm)
        return self.optimizer.step(params, clipped, state)


def _norm(grads: Params) -> Any:
    """Return ‖g‖, in float64 unless the gradients have more digits."""
    flat = [np.ravel(g if g.dtype == object else g.astype(np.result_type(g, np.float64))) for g in grads.values()]
    entries = np.concatenate(flat) if flat else np.zeros(0)
    largest = np.max(np.abs(entries), initial=0)
    if not 0 < largest < np.inf:
        return largest
    scaled = entries / largest
    return largest * np.sqrt(scaled.dot(scaled))

"""Adam: steps by the moments of the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..precision import narrow, widen
from ..protocol import Params
from .moments import moments_at_start, moved, require_moments
from .state import array


@dataclass(frozen=True)
class Adam:
    """W ← W − η m̂/(√v̂ + ε) (100), m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ) at step t = 1, 2, ….

    m ← β₁m + (1 − β₁)g and v ← β₂v + (1 − β₂)g² (99) for the gradient g, both 0 at first.

    Shapes and dtypes: every gradient has those of its parameter, and so has the result, a new array. The
    state holds "mean.W" and "square.W" for each W, in its shape and dtype, float32 for float16 (where ε and
    g² would be 0), and "step", an int64 array without axes.
    Raises: ValueError for wrong names or shapes, for η or ε <= 0 and for β's outside [0, 1), TypeError for
    a wrong dtype.
    Differs from torch's Adam: no weight_decay, because added to the gradient it is scaled by √v̂ as well;
    `AdamW` decays what it says.
    Source: Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 1.
    """

    learning_rate: Any = 1e-3
    beta1: Any = 0.9
    beta2: Any = 0.999
    epsilon: Any = 1e-8

    def __post_init__(self) -> None:
        require_moments(self)

    def init(self, params: Params) -> Params:
        """Return moments of zero, at step 0."""
        return moments_at_start(params)

    def step(self, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        """Return the parameters one step down, and the moments."""
        moves, state = moved(self, params, grads, state)
        return {name: array(narrow(widen(w) - moves[name], w.dtype)) for name, w in params.items()}, state

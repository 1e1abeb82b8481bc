"""Adam with weights that decay by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..precision import narrow, scalar, widen
from ..protocol import Params
from ..validation import require_nonnegative
from .moments import moments_at_start, moved, require_moments
from .state import array


@dataclass(frozen=True)
class AdamW:
    """W ← (1 − ηλ)W − η m̂/(√v̂ + ε) (101), the moments those of `Adam`, (99) and (100), λ the weight decay.

    Every parameter decays, a bias too.

    Shapes and dtypes: those of `Adam`, and its state.
    Raises: what `Adam` raises, and ValueError for λ < 0.
    Source: Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2, in torch's form,
    whose decay is scaled by η.
    """

    learning_rate: Any = 1e-3
    beta1: Any = 0.9
    beta2: Any = 0.999
    epsilon: Any = 1e-8
    weight_decay: Any = 0.01

    def __post_init__(self) -> None:
        require_moments(self)
        require_nonnegative(self, "", "weight_decay", self.weight_decay)

    def init(self, params: Params) -> Params:
        """Return moments of zero, at step 0."""
        return moments_at_start(params)

    def step(self, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        """Return the parameters decayed and one step down, and the moments."""
        moves, state = moved(self, params, grads, state)
        kept = 1 - self.learning_rate * self.weight_decay
        new = {name: array(narrow(widen(w) * scalar(kept, w) - moves[name], w.dtype)) for name, w in params.items()}
        return new, state

"""The core of Adam and AdamW: both moments of the gradient, corrected for their start at 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..precision import scalar, widen
from ..protocol import Params
from ..validation import require_fraction, require_positive
from .state import array, count_of, counted, named, require_gradients, require_state, zeros_for


def require_moments(owner: Any) -> None:
    """Refuse a rate or an ε that is not above 0, and β's outside [0, 1)."""
    require_positive(owner, "", "learning_rate", owner.learning_rate)
    require_fraction(owner, "", "beta1", owner.beta1)
    require_fraction(owner, "", "beta2", owner.beta2)
    require_positive(owner, "", "epsilon", owner.epsilon)


def moments_at_start(params: Params) -> Params:
    """Return "mean.W" and "square.W" of zeros for each W, and "step", 0."""
    return {"step": counted(0), **zeros_for(params, "mean", "square")}


def moved(owner: Any, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
    """Return how far each parameter goes down, in the precision of the state, and the next state: (99), (100)."""
    require_gradients(owner, params, grads)
    require_state(owner, params, state, "mean", "square", others=("step",))
    t = count_of(owner, state) + 1
    corrections = 1 - owner.beta1**t, 1 - owner.beta2**t
    moves: Params = {}
    new_state: Params = {"step": counted(t)}
    for name, w in params.items():
        g = widen(grads[name])
        beta1, beta2, rate, epsilon, c1, c2 = (
            scalar(x, w) for x in (owner.beta1, owner.beta2, owner.learning_rate, owner.epsilon, *corrections)
        )
        mean = array(beta1 * state[named("mean", name)] + (1 - beta1) * g)
        square = array(beta2 * state[named("square", name)] + (1 - beta2) * (g * g))
        moves[name] = (rate / c1) * (mean / (np.sqrt(square / c2) + epsilon))
        new_state |= {named("mean", name): mean, named("square", name): square}
    return moves, new_state

"""Gradient descent, plain or with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..precision import narrow, scalar, widen
from ..protocol import Params
from ..validation import require_flag, require_fraction, require_names, require_positive
from .state import array, named, require_gradients, require_state, zeros_for

_NO_NAMES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SGD:
    """W ← W − η ∂L/∂W (17) and b ← b − η ∂L/∂b (18); stochastic when the gradients are those of a minibatch.

    With momentum μ, v ← μv + ∂L/∂W and W ← W − ηv (97), v = 0 at first; with `nesterov`, W ← W − η(∂L/∂W +
    μv) (98), the gradient as if taken where the momentum leads.

    Shapes and dtypes: every gradient has those of its parameter, and so has the result, a new array. The
    state is {} without momentum; else "velocity.W" for each W, in its shape and dtype, float32 for float16.
    Raises: ValueError for wrong names or shapes, for η <= 0 or not finite, for μ outside [0, 1) and for
    nesterov without momentum, TypeError for a wrong dtype.
    Source: Sutskever et al. 2013, "On the importance of initialization and momentum", section 2, in torch's
    form, whose v is theirs over −η.
    """

    learning_rate: Any
    momentum: Any = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "", "learning_rate", self.learning_rate)
        require_fraction(self, "", "momentum", self.momentum)
        require_flag(self, "nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov: expected a momentum above 0 beside it, got 0")

    def init(self, params: Params) -> Params:
        """Return zeros for the velocities; {} without momentum: plain descent remembers nothing."""
        return zeros_for(params, "velocity") if self.momentum else {}

    def step(self, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        """Return the parameters one step down, and the state."""
        require_gradients(self, params, grads)
        if not self.momentum:
            require_names(self, "step", "state", state, _NO_NAMES)
            return {name: array(w - scalar(self.learning_rate, w) * grads[name]) for name, w in params.items()}, {}
        require_state(self, params, state, "velocity")
        new_params, new_state = {}, {}
        for name, w in params.items():
            g, key = widen(grads[name]), named("velocity", name)
            mu, eta = scalar(self.momentum, w), scalar(self.learning_rate, w)
            v = new_state[key] = array(mu * state[key] + g)
            new_params[name] = array(narrow(widen(w) - eta * (g + mu * v if self.nesterov else v), w.dtype))
        return new_params, new_state

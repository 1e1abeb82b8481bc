"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..precision import scalar
from ..protocol import Params
from ..validation import require_names, require_real, require_shape


@dataclass(frozen=True)
class SGD:
    """W ← W − η ∂L/∂W (17) and b ← b − η ∂L/∂b (18); stochastic when the gradients are those of a minibatch.

    Shapes and dtypes: every gradient has those of its parameter, and so has the result, a new array.
    Raises: ValueError for wrong names or shapes and for η <= 0 or not finite, TypeError for a wrong dtype.
    """

    learning_rate: Any

    def __post_init__(self) -> None:
        require_real(self, "", "learning_rate", self.learning_rate)
        if self.learning_rate <= 0:
            raise ValueError(f"SGD: learning_rate: expected a positive number, got {self.learning_rate}")

    def init(self, params: Params) -> Params:
        """Return {}: plain descent remembers nothing."""
        return {}

    def step(self, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        """Return the parameters one step down, and the state, {}."""
        require_names(self, "step", "state", state, frozenset())
        require_names(self, "step", "grads", grads, params.keys())
        for name, value in params.items():
            require_shape(self, "step", f"grads[{name!r}]", grads[name], value.shape, value, f"params[{name!r}]")
        return {name: w - scalar(self.learning_rate, w) * grads[name] for name, w in params.items()}, {}

"""What optimizers share: names of the state's arrays, and what a step refuses."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..precision import widen
from ..protocol import Array, Params
from ..validation import require_names, require_shape


def named(kind: str, name: str) -> str:
    """Return what the state calls an array of this kind for a parameter: "velocity.0.W"."""
    return kind + "." + name


def zeros_for(params: Params, *kinds: str) -> Params:
    """Return zeros of each kind for every parameter: in its dtype, but float32 for float16, which would round early."""
    return {named(kind, name): np.zeros_like(widen(w)) for kind in kinds for name, w in params.items()}


def require_gradients(owner: object, params: Params, grads: Params) -> None:
    """Refuse gradients that are not like the parameters."""
    require_names(owner, "step", "grads", grads, params.keys())
    for name, w in params.items():
        require_shape(owner, "step", f"grads[{name!r}]", grads[name], w.shape, w, f"params[{name!r}]")


def require_state(owner: object, params: Params, state: Params, *kinds: str, others: tuple[str, ...] = ()) -> None:
    """Refuse a state that is not of these kinds for the parameters."""
    require_names(owner, "step", "state", state, {named(kind, name) for kind in kinds for name in params}.union(others))
    for name, w in params.items():
        like = widen(w)
        for kind in kinds:
            key = named(kind, name)
            require_shape(owner, "step", f"state[{key!r}]", state[key], w.shape, like, f"params[{name!r}]")


def array(x: Any) -> Array:
    """Return x as an array: arithmetic on arrays without axes gives scalars."""
    result: Array = np.asanyarray(x)
    return result


def count_of(owner: object, state: Params) -> int:
    """Return how many steps the state says were taken."""
    step = np.asarray(state["step"])
    if step.shape != () or step.dtype.kind != "i" or int(step) < 0:
        raise ValueError(f"{type(owner).__name__}.step: state['step']: expected an integer of 0 or more, got {step}")
    return int(step)


def counted(steps: int) -> Array:
    """Return a number of steps as the state holds it."""
    return np.array(steps, np.int64)

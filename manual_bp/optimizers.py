"""Optimizers: pure functions of parameters, gradients and state.

The core of Adam and AdamW is `_moment_steps`: both moments of the gradient, corrected for their start at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._precision import narrow, scalar, widen
from ._validation import (
    NO_NAMES,
    require_flag,
    require_fraction,
    require_names,
    require_nonnegative,
    require_positive,
    require_shape,
)
from .protocol import Array, Arrays, Number, Optimizer, Params


@dataclass(frozen=True)
class SGD:
    """Gradient descent, plain or with momentum; stochastic if the gradients are those of a minibatch.

        W ← W − η ∂L/∂W (17),  b ← b − η ∂L/∂b (18)
        with momentum μ:  v ← μv + ∂L/∂W,  W ← W − ηv (97), v = 0 at first
        with `nesterov`:  W ← W − η(∂L/∂W + μv) (98)

    Args:
        learning_rate: η, positive.
        momentum: μ, in [0, 1).
        nesterov: uses (98); needs a momentum.

    Shapes and dtypes: every gradient has those of its parameter, and so has the result, a new array. The state is {}
    without momentum; else it holds "velocity.W" for each W, in its shape and dtype, float32 for float16.

    Raises:
        ValueError: for wrong names or shapes, η <= 0 or not finite, μ outside [0, 1), nesterov without momentum.
        TypeError: for a wrong dtype.

    Source: docs/derivation.md, eq. (17)–(18), (97)–(98); Sutskever et al. 2013, "On the importance of initialization
    and momentum", section 2, in torch's form, whose v is theirs over −η.
    """

    learning_rate: Number
    momentum: Number = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "", "learning_rate", self.learning_rate)
        require_fraction(self, "", "momentum", self.momentum)
        require_flag(self, "nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise ValueError("SGD: nesterov: expected a momentum above 0 with it, got 0")

    def init(self, params: Params) -> Params:
        """Return zero velocities; {} without momentum."""
        return _zeros(params, "velocity") if self.momentum else {}

    def step(self, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        """Return the parameters one step down, and the state."""
        _require_gradients(self, params, grads)
        if not self.momentum:
            require_names(self, "step", "state", state, NO_NAMES)
            moves = {name: scalar(self.learning_rate, w) * widen(grads[name]) for name, w in params.items()}
            return {name: _array(narrow(widen(w) - moves[name], w.dtype)) for name, w in params.items()}, {}
        _require_state(self, params, state, "velocity")
        new_params, new_state = {}, {}
        for name, w in params.items():
            g, key = widen(grads[name]), _state_name("velocity", name)
            mu, eta = scalar(self.momentum, w), scalar(self.learning_rate, w)
            v = new_state[key] = _array(mu * state[key] + g)
            new_params[name] = _array(narrow(widen(w) - eta * (g + mu * v if self.nesterov else v), w.dtype))
        return new_params, new_state


@dataclass(frozen=True)
class Adam:
    """Adam: steps by the moments of the gradient.

        m ← β₁m + (1 − β₁)g,  v ← β₂v + (1 − β₂)g² for the gradient g, both 0 at first      (99)
        W ← W − η m̂/(√v̂ + ε),  m̂ = m/(1 − β₁ᵗ),  v̂ = v/(1 − β₂ᵗ) at step t = 1, 2, …      (100)

    Args:
        learning_rate: η, positive.
        beta1, beta2: β₁ and β₂, in [0, 1).
        epsilon: ε, positive.

    Shapes and dtypes: every gradient has those of its parameter, and so has the result, a new array. The state holds
    "mean.W" and "square.W" for each W, in its shape and dtype, float32 for float16 (where ε and g² would be 0), and
    "step", an int64 array without axes.

    Raises:
        ValueError: for wrong names or shapes, η or ε <= 0, a β outside [0, 1).
        TypeError: for a wrong dtype.

    Differs from torch's Adam: there is no weight_decay, because added to the gradient it is scaled by √v̂ as well;
    use `AdamW`.

    Source: docs/derivation.md, eq. (99)–(100); Kingma & Ba 2015, "Adam: a method for stochastic optimization",
    algorithm 1.
    """

    learning_rate: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    epsilon: Number = 1e-8

    def __post_init__(self) -> None:
        _require_moment_fields(self)

    def init(self, params: Params) -> Params:
        """Return zero moments, at step 0."""
        return _zero_moments(params)

    def step(self, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        """Return the parameters one step down, and the moments."""
        moves, state = _moment_steps(self, params, grads, state)
        return {name: _array(narrow(widen(w) - moves[name], w.dtype)) for name, w in params.items()}, state


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay.

        W ← (1 − ηλ)W − η m̂/(√v̂ + ε), the moments those of `Adam`, (99) and (100)          (101)

    Every parameter decays, biases too.

    Args:
        learning_rate, beta1, beta2, epsilon: as in `Adam`.
        weight_decay: λ, nonnegative.

    Shapes and dtypes: those of `Adam`, and its state.

    Raises:
        ValueError: as `Adam`, and for λ < 0.
        TypeError: for a wrong dtype.

    Source: docs/derivation.md, eq. (99)–(101); Loshchilov & Hutter 2019, "Decoupled weight decay regularization",
    algorithm 2, in torch's form, whose decay is scaled by η.
    """

    learning_rate: Number = 1e-3
    beta1: Number = 0.9
    beta2: Number = 0.999
    epsilon: Number = 1e-8
    weight_decay: Number = 0.01

    def __post_init__(self) -> None:
        _require_moment_fields(self)
        require_nonnegative(self, "", "weight_decay", self.weight_decay)

    def init(self, params: Params) -> Params:
        """Return zero moments, at step 0."""
        return _zero_moments(params)

    def step(self, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        """Return the parameters decayed and one step down, and the moments."""
        moves, state = _moment_steps(self, params, grads, state)
        decay = 1 - self.learning_rate * self.weight_decay
        new = {name: _array(narrow(widen(w) * scalar(decay, w) - moves[name], w.dtype)) for name, w in params.items()}
        return new, state


def _require_moment_fields(owner: Adam | AdamW) -> None:
    """Refuse a learning rate or an ε that is not positive, and a β outside [0, 1)."""
    require_positive(owner, "", "learning_rate", owner.learning_rate)
    require_fraction(owner, "", "beta1", owner.beta1)
    require_fraction(owner, "", "beta2", owner.beta2)
    require_positive(owner, "", "epsilon", owner.epsilon)


def _zero_moments(params: Params) -> Params:
    """Return zeros "mean.W" and "square.W" for each W, and "step", 0."""
    return {"step": _step_array(0), **_zeros(params, "mean", "square")}


def _moment_steps(owner: Adam | AdamW, params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
    """Return η m̂/(√v̂ + ε) for each parameter, in the precision of the state, and the next state: (99), (100)."""
    _require_gradients(owner, params, grads)
    _require_state(owner, params, state, "mean", "square", others=("step",))
    t = _step_of(owner, state) + 1
    # Both moments start at 0 and are too small at first, by the factors 1 − βᵗ.
    corrections = 1 - owner.beta1**t, 1 - owner.beta2**t
    moves: Params = {}
    new_state: Params = {"step": _step_array(t)}
    for name, w in params.items():
        g = widen(grads[name])
        beta1, beta2, rate, epsilon, c1, c2 = (
            scalar(x, w) for x in (owner.beta1, owner.beta2, owner.learning_rate, owner.epsilon, *corrections)
        )
        mean = _array(beta1 * state[_state_name("mean", name)] + (1 - beta1) * g)
        square = _array(beta2 * state[_state_name("square", name)] + (1 - beta2) * (g * g))
        # rate/c1 is one number; dividing the whole array mean by c1 first would cost a pass.
        moves[name] = (rate / c1) * (mean / (np.sqrt(square / c2) + epsilon))
        new_state |= {_state_name("mean", name): mean, _state_name("square", name): square}
    return moves, new_state


def clip_by_global_norm(grads: Params, max_norm: Number) -> tuple[Params, float]:
    """Scale all gradients by one factor so that their global norm is at most max_norm.

        g ← g min(1, c/‖g‖), ‖g‖² = Σ g² over all gradients, c = max_norm          (102)

    The gradients keep their direction, their dtypes and, where ‖g‖ <= c, their bits. ‖g‖ is summed in float64, of
    gradients divided by their largest entry, so that no square overflows.

    Args:
        grads: the gradients by name.
        max_norm: c, positive.

    Returns:
        The gradients as new arrays, and ‖g‖. Where an entry is ±∞, ‖g‖ = ∞ and c/‖g‖ = 0: that entry becomes NaN, and
        the finite ones 0. Where one is NaN, all become NaN.

    Raises:
        ValueError: for c <= 0 or not finite.

    Differs from torch's clip_grad_norm_: torch adds 1e-6 to ‖g‖, which leaves clipped gradients shorter than c.

    Source: docs/derivation.md, eq. (102); Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent
    networks", algorithm 1.
    """
    require_positive(None, "clip_by_global_norm", "max_norm", max_norm)
    norm = _norm(grads)
    if norm <= max_norm:
        return {name: g.copy() for name, g in grads.items()}, norm
    with np.errstate(invalid="ignore"):  # 0 · ∞
        scaled = {name: _array(narrow(widen(g) * scalar(max_norm / norm, g), g.dtype)) for name, g in grads.items()}
    return scaled, norm


@dataclass(frozen=True)
class Clipped:
    """An optimizer whose gradients are clipped by their global norm (102) before each step.

    Args:
        optimizer: the optimizer that takes the step; the state is its state.
        max_norm: the largest norm of all gradients together, positive.

    Raises:
        ValueError: for max_norm <= 0 or not finite, and what the optimizer raises.
        TypeError: for something that is not an optimizer.

    Source: docs/derivation.md, eq. (102).
    """

    optimizer: Optimizer
    max_norm: Number

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


def _norm(grads: Params) -> Number:
    """Return ‖g‖, in float64 unless the gradients are more precise."""
    flat = [np.ravel(g if g.dtype == object else g.astype(np.result_type(g, np.float64))) for g in grads.values()]
    entries = np.concatenate(flat) if flat else np.zeros(0)
    largest = np.max(np.abs(entries), initial=0)
    if not 0 < largest < np.inf:
        return largest
    scaled = entries / largest
    return largest * np.sqrt(scaled.dot(scaled))


def _state_name(kind: str, name: str) -> str:
    """Return the state's name of an _array of this kind for a parameter: "velocity.0.W"."""
    return kind + "." + name


def _zeros(params: Params, *kinds: str) -> Params:
    """Return zeros of each kind for every parameter, in its dtype; float32 for half precision, which rounds early."""
    return {_state_name(kind, name): np.zeros_like(widen(w)) for kind in kinds for name, w in params.items()}


def _require_gradients(owner: object, params: Params, grads: Params) -> None:
    """Refuse gradients unless they have the parameters' names, shapes and dtypes."""
    require_names(owner, "step", "grads", grads, params.keys())
    for name, w in params.items():
        require_shape(owner, "step", f"grads[{name!r}]", grads[name], w.shape, w, f"params[{name!r}]")


def _require_state(owner: object, params: Params, state: Params, *kinds: str, others: tuple[str, ...] = ()) -> None:
    """Refuse a state unless it has arrays of these kinds for the parameters, and the others."""
    require_names(
        owner, "step", "state", state, {_state_name(kind, name) for kind in kinds for name in params}.union(others)
    )
    for name, w in params.items():
        like = widen(w)
        for kind in kinds:
            key = _state_name(kind, name)
            require_shape(owner, "step", f"state[{key!r}]", state[key], w.shape, like, f"params[{name!r}]")


def _array(x: Arrays) -> Array:
    """Return x as an _array: arithmetic on arrays without axes gives scalars."""
    result: Array = np.asanyarray(x)
    return result


def _step_of(owner: object, state: Params) -> int:
    """Return the number of steps that the state counts."""
    step = np.asarray(state["step"])
    if step.shape != () or step.dtype.kind != "i" or int(step) < 0:
        raise ValueError(f"{type(owner).__name__}.step: state['step']: expected an integer of 0 or more, got {step}")
    return int(step)


def _step_array(steps: int) -> Array:
    """Return a number of steps as an _array of the state."""
    return np.array(steps, np.int64)

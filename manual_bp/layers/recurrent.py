"""What every recurrent layer shares: the walk along the steps, its products, layers, directions, lengths and states.

A cell is elementwise and knows no weights: it is handed x = zW + b and r = hU + d of one step, and its state. All
products are here. Those with W need no state, so one serves all steps, as does one for all of dW and one for dU; only
r, and the cotangent that passes back through it, take a product in every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from ..precision import narrow, ones, widen
from ..protocol import Array, Arrays, Cache, Params
from ..validation import (
    real_dtype,
    require_count,
    require_flag,
    require_indices,
    require_params,
    require_parts,
    require_sequence,
    require_shape,
)

State: TypeAlias = tuple[Array, ...]


class Cell(Protocol):
    """One step of a recurrence, elementwise. The first state is h, which is the output.

    `gates` is the width of x and r in units of that of h; `states` names the state; with `recurrent_bias` r has a bias
    d, which matters where a cell does not just add x and r.
    """

    gates: int
    states: tuple[str, ...]
    recurrent_bias: bool

    def forward(self, x: Array, r: Array, state: State) -> tuple[State, Cache]:
        """Return the next state."""
        ...

    def backward(self, cache: Cache, dstate: State) -> tuple[Array, Array, tuple[Any, ...]]:
        """Return ∂L/∂x, ∂L/∂r, and ∂L/∂state but for its way through r; for h that may be None, nothing."""
        ...


class _Pass(NamedTuple):
    """What one direction of one layer leaves for its backward, the steps on the first axis."""

    own: Params
    z: Array
    before: list[Any]
    caches: list[Cache]
    order: range


@dataclass(frozen=True)
class Recurrent:
    """A cell along a sequence; a subclass names the cell. `LSTM` documents fields, shapes and what is raised."""

    n_in: int
    n_hidden: int
    n_layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    lengths: bool = False

    cell: ClassVar[Cell]

    def __post_init__(self) -> None:
        for name in ("n_in", "n_hidden", "n_layers"):
            require_count(self, "", name, getattr(self, name))
        for name in ("bidirectional", "bias", "lengths"):
            require_flag(self, name, getattr(self, name))

    @property
    def inputs(self) -> tuple[str, ...]:
        """The sequence, the initial states, and with `lengths` how many steps each row has."""
        return ("z", *self.cell.states, "lengths") if self.lengths else ("z", *self.cell.states)

    @property
    def outputs(self) -> tuple[str, ...]:
        """H of every step, and the final states."""
        return ("y", *self.cell.states)

    @property
    def n_directions(self) -> int:
        """One or two."""
        return 2 if self.bidirectional else 1

    @property
    def n_out(self) -> int:
        """The number of columns of y."""
        return self.n_directions * self.n_hidden

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw every parameter uniformly from ±1/√n_hidden."""
        dtype, bound = real_dtype(self, dtype), self.n_hidden**-0.5
        return {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in self._shapes().items()}

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return h of every step, and the final states."""
        z, states, mask = self._checked(params, require_parts(self, "forward", "z", z, self.inputs))
        x = widen(z).swapaxes(0, 1)
        x = x if mask is None else np.where(mask, x, 0)
        wide = {name: widen(value) for name, value in params.items()}
        passes: list[_Pass] = []
        finals: list[State] = []
        for layer in range(self.n_layers):
            came = []
            for prefix, order in self._directions(layer, len(x)):
                initial = tuple(widen(state[:, len(passes)]) for state in states)
                own = {name.removeprefix(prefix): wide[name] for name in self._shapes() if _is_own(name, prefix)}
                hs, final, kept = self._walk(own, x, initial, mask, order)
                came.append(hs)
                finals.append(final)
                passes.append(kept)
            x = came[0] if len(came) == 1 else np.concatenate(came, axis=2)
        last = (narrow(np.stack(each, axis=1), z.dtype) for each in zip(*finals, strict=True))
        return (narrow(x.swapaxes(0, 1).copy(), z.dtype), *last), (passes, mask, z)

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return the cotangents of z, of the initial states and of the parameters."""
        passes, mask, z = cache
        dy, *dfinal = require_parts(self, "backward", "delta", delta, self.outputs)
        require_shape(self, "backward", "delta of y", dy, (*z.shape[:2], self.n_out), z, "y")
        for name, d in zip(self.cell.states, dfinal, strict=True):
            require_shape(self, "backward", f"delta of {name}", d, (len(z), len(passes), self.n_hidden), z, "y")
        dx: Any = widen(dy).swapaxes(0, 1)
        dfirst: list[Any] = [None] * len(passes)
        grads: Params = {}
        for layer in reversed(range(self.n_layers)):
            above, dx = dx, 0
            for d, (prefix, _) in enumerate(self._directions(layer, 0)):
                k = layer * self.n_directions + d
                mine = above[..., d * self.n_hidden : (d + 1) * self.n_hidden]
                dz, dfirst[k], own = self._back(passes[k], mine, tuple(widen(each[:, k]) for each in dfinal), mask)
                dx = dz + dx
                grads |= {prefix + name: narrow(g, z.dtype) for name, g in own.items()}
        first = (narrow(np.stack(each, axis=1), z.dtype) for each in zip(*dfirst, strict=True))
        back = (narrow(dx.swapaxes(0, 1).copy(), z.dtype), *first, *((None,) if self.lengths else ()))
        return back, {name: grads[name] for name in self._shapes()}

    def _walk(
        self, own: Params, z: Array, state: State, mask: Array | None, order: range
    ) -> tuple[Array, State, _Pass]:
        """Return h of every step, the last state, and what `_back` needs."""
        x = _rows(z).dot(own["W"])
        if self.bias:
            x += own["b"]
        x = x.reshape(*z.shape[:2], x.shape[1])
        hs, before, caches = _lists(3, len(z))
        for t in order:
            r = state[0].dot(own["U"])
            if "d" in own:
                r += own["d"]
            before[t] = state[0]
            new, caches[t] = self.cell.forward(x[t], r, state)
            # Beyond its length a row's state stands still, and its y is 0.
            hs[t] = new[0] if mask is None else np.where(mask[t], new[0], 0)
            state = new if mask is None else _chosen(mask[t], new, state)
        return _stacked(hs, state[0]), state, _Pass(own, z, before, caches, order)

    def _back(self, kept: _Pass, dy: Array, dstate: State, mask: Array | None) -> tuple[Array, State, Params]:
        """Return the cotangents of z, of the first state, and of this pass's parameters, (62)."""
        own, z, before, caches, order = kept
        dxs, drs = _lists(2, len(z))
        for t in reversed(order):
            into, held = (dstate[0] + dy[t], *dstate[1:]), None
            if mask is not None:
                into, held = _chosen(mask[t], into, (0, 0)), _chosen(mask[t], (0, 0), dstate)
            dxs[t], drs[t], direct = self.cell.backward(caches[t], into)
            dh = drs[t].dot(own["U"].T)
            dstate = (dh if direct[0] is None else dh + direct[0], *direct[1:])
            if held is not None:
                dstate = tuple(d + h for d, h in zip(dstate, held, strict=True))
        dx, dr = (_rows(_stacked(each, dstate[0], self.cell.gates)) for each in (dxs, drs))
        one = ones((1, len(dx)), dx.dtype)
        grads = {"W": _rows(z).T.dot(dx), "U": _rows(_stacked(before, dstate[0])).T.dot(dr)}
        if self.bias:
            grads["b"] = one.dot(dx)
        if "d" in own:
            grads["d"] = one.dot(dr)
        return dx.dot(own["W"].T).reshape(z.shape), dstate, grads

    def _checked(self, params: Params, given: tuple[Any, ...]) -> tuple[Array, State, Array | None]:
        """Return z, the states, and which steps count: (T, N, 1), or None where all do."""
        z, *states = given[: 1 + len(self.cell.states)]
        require_sequence(self, "forward", "z", z, self.n_in)
        require_params(self, "forward", params, self._shapes(), z)
        for name, state in zip(self.cell.states, states, strict=True):
            expected = (len(z), self.n_layers * self.n_directions, self.n_hidden)
            require_shape(self, "forward", name, state, expected, z, "z")
        if not self.lengths:
            return z, tuple(states), None
        lengths, steps = given[-1], z.shape[1]
        require_indices(self, "forward", "lengths", lengths, steps + 1)
        if lengths.shape != (len(z),):
            raise ValueError(f"{type(self).__name__}.forward: lengths: expected shape ({len(z)},), got {lengths.shape}")
        return z, tuple(states), (np.arange(steps)[:, None] < lengths)[..., None]

    def _directions(self, layer: int, steps: int) -> list[tuple[str, range]]:
        """Return the prefix of the parameters of each direction of a layer, and its order of the steps."""
        onward, back = (f"{layer}.", range(steps)), (f"{layer}.reverse.", range(steps - 1, -1, -1))
        return [onward, back] if self.bidirectional else [onward]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        width = self.cell.gates * self.n_hidden
        biases = ("b", "d") if self.cell.recurrent_bias else ("b",)
        return _shapes(self.n_in, self.n_hidden, width, self.n_layers, self.bidirectional, biases if self.bias else ())


def gates(a: Array) -> tuple[Array, Array]:
    """Return σ(a) = 1/(1 + e) and e = e^{−a}, which is kept finite, for cells."""
    e = -a
    if e.dtype != object:
        np.minimum(e, _largest_exponent(e.dtype), out=e)
    np.exp(e, out=e)
    return 1 / (1 + e), e


def gate_slopes(s: Array, e: Array) -> Array:
    """Return σ' = σ(a) σ(−a), from what `gates` returned: σ(−a) is σ(a) e, without the cancellation of 1 − σ(a)."""
    slopes: Array = s * (s * e)
    return slopes


def tanh_slopes(slopes: Array) -> Array:
    """Return tanh' from σ' of the same a: with w = σ', it is (2w/(1 − 2w))², and 1 − 2w is not below ½."""
    double = 2 * slopes
    root: Array = double / (1 - double)
    return root * root


@lru_cache
def _largest_exponent(dtype: np.dtype[Any]) -> float:
    """Return where the exponential is just finite: beyond its negative, σ is smaller than any normal number."""
    return float(np.floor(np.log(np.finfo(dtype).max)))


@lru_cache
def _shapes(
    n_in: int, n_hidden: int, width: int, n_layers: int, bidirectional: bool, biases: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """Return what `init` draws and `forward` expects: "0.W", and "0.reverse.W" for the way back."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(n_layers):
        for prefix in (f"{layer}.", f"{layer}.reverse.") if bidirectional else (f"{layer}.",):
            shapes[prefix + "W"] = (n_in, width) if layer == 0 else ((2 if bidirectional else 1) * n_hidden, width)
            shapes[prefix + "U"] = (n_hidden, width)
            shapes.update({prefix + name: (1, width) for name in biases})
    return shapes


def _is_own(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and "." not in name.removeprefix(prefix)


def _lists(count: int, length: int) -> list[list[Any]]:
    return [[None] * length for _ in range(count)]


def _rows(sequence: Array) -> Array:
    """Lay the steps of a sequence one below the other, (T·N, n)."""
    return sequence.reshape(sequence.shape[0] * sequence.shape[1], sequence.shape[2])


def _stacked(parts: list[Array], like: Array, units: int = 1) -> Array:
    """Return the steps as one array (T, N, units · n), T = 0 too."""
    return np.stack(parts) if parts else np.zeros((0, like.shape[0], units * like.shape[1]), like.dtype)


def _chosen(mask: Array, these: tuple[Any, ...], those: tuple[Any, ...]) -> State:
    return tuple(np.where(mask, a, b) for a, b in zip(these, those, strict=False))

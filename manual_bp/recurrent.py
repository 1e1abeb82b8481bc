"""Recurrent layers: LSTM and GRU, and their core, which runs a cell along a sequence.

A cell is elementwise and has no weights: its arguments are x = zW + b and r = hU + d of one step, and the state. All
products are in the core. Those with W do not need the state, so one product serves all steps, as does one for dW and
one for dU; only r, and the cotangent that passes back through it, take a product in every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from ._precision import largest_exponent, narrow, ones, widen
from ._validation import (
    real_dtype,
    require_count,
    require_flag,
    require_indices,
    require_params,
    require_parts,
    require_sequence,
    require_shape,
)
from .protocol import Array, Arrays, Cache, Params

State: TypeAlias = tuple[Array, ...]


class Cell(Protocol):
    """One step of a recurrence, elementwise. The first state is h, which is the output.

    `gates` is the width of x and r in units of that of h; `states` names the state; with `recurrent_bias` r has a bias
    d, which matters if a cell does not just add x and r.
    """

    gates: int
    states: tuple[str, ...]
    recurrent_bias: bool

    def forward(self, x: Array, r: Array, state: State) -> tuple[State, Cache]:
        """Return the next state."""
        ...

    def backward(self, cache: Cache, dstate: State) -> tuple[Array, Array, tuple[Any, ...]]:
        """Return ∂L/∂x, ∂L/∂r, and ∂L/∂state except through r; for h None stands for 0."""
        ...


class _Pass(NamedTuple):
    """The cache of one direction of one layer, the steps on the first axis."""

    own: Params
    z: Array
    before: Array
    caches: list[Cache]
    order: range


@dataclass(frozen=True)
class Recurrent:
    """Base of the recurrent layers, a cell along a sequence; a subclass names it. `LSTM` documents the fields."""

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
        """Z, the initial states, and with `lengths` the number of steps of each row."""
        return ("z", *self.cell.states, "lengths") if self.lengths else ("z", *self.cell.states)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Y, which is h of every step, and the final states."""
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
        z, states, mask = self._check_inputs(params, require_parts(self, "forward", "z", z, self.inputs))
        x = widen(z).swapaxes(0, 1)
        x = x.copy() if mask is None else np.where(mask, x, 0)
        wide = {name: widen(value) for name, value in params.items()}
        passes: list[_Pass] = []
        finals: list[State] = []
        for layer in range(self.n_layers):
            directions = []
            for prefix, order in self._directions(layer, len(x)):
                initial = tuple(widen(state[:, len(passes)]) for state in states)
                own = {name.removeprefix(prefix): wide[name] for name in self._shapes() if _has_prefix(name, prefix)}
                hs, final, cache = self._walk(own, x, initial, mask, order)
                directions.append(hs)
                finals.append(final)
                passes.append(cache)
            x = directions[0] if len(directions) == 1 else np.concatenate(directions, axis=2)
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
        dfirst: list[State] = [()] * len(passes)
        grads: Params = {}
        for layer in reversed(range(self.n_layers)):
            above, dx = dx, 0
            for d, (prefix, _) in enumerate(self._directions(layer, 0)):
                k = layer * self.n_directions + d
                dh = above[..., d * self.n_hidden : (d + 1) * self.n_hidden]
                dz, dfirst[k], own = self._back(passes[k], dh, tuple(widen(each[:, k]) for each in dfinal), mask)
                dx = dz + dx
                grads |= {prefix + name: narrow(g, z.dtype) for name, g in own.items()}
        first = (narrow(np.stack(each, axis=1), z.dtype) for each in zip(*dfirst, strict=True))
        back = (narrow(dx.swapaxes(0, 1).copy(), z.dtype), *first, *((None,) if self.lengths else ()))
        return back, {name: grads[name] for name in self._shapes()}

    def _walk(
        self, own: Params, z: Array, state: State, mask: Array | None, order: range
    ) -> tuple[Array, State, _Pass]:
        """Return h of every step, the last state, and what `_back` needs."""
        x = _rows(z).dot(own["W"])  # all steps in one product: it does not need the state
        if self.bias:
            x += own["b"]
        x = x.reshape(*z.shape[:2], x.shape[1])
        # Written step by step: a list of steps would have to be copied into one array at the end.
        hs, before = (np.empty_like(x, shape=(*z.shape[:2], self.n_hidden)) for _ in range(2))
        caches: list[Cache] = [None] * len(z)
        for t in order:
            r = state[0].dot(own["U"])
            if "d" in own:
                r += own["d"]
            before[t] = state[0]
            new, caches[t] = self.cell.forward(x[t], r, state)
            # Beyond a row's length its state stays, and its y is 0.
            hs[t] = new[0] if mask is None else np.where(mask[t], new[0], 0)
            state = new if mask is None else _choose(mask[t], new, state)
        return hs, state, _Pass(own, z, before, caches, order)

    def _back(self, cache: _Pass, dy: Array, dstate: State, mask: Array | None) -> tuple[Array, State, Params]:
        """Return the cotangents of z, of the first state, and of this pass's parameters, (62)."""
        own, z, before, caches, order = cache
        dx = np.empty_like(before, shape=(*z.shape[:2], self.cell.gates * self.n_hidden))
        # A cell without a bias of its own for r just adds x and r.
        dr = np.empty_like(dx) if self.cell.recurrent_bias else dx
        for t in reversed(order):
            # A step passes on what comes from its own y and from the step after it; beyond a row's length the state's
            # cotangent goes past the cell unchanged, as the state did.
            dnew, dold = (dstate[0] + dy[t], *dstate[1:]), None
            if mask is not None:
                dnew, dold = _choose(mask[t], dnew, (0, 0)), _choose(mask[t], (0, 0), dstate)
            dx[t], dr[t], direct = self.cell.backward(caches[t], dnew)
            dh = dr[t].dot(own["U"].T)
            direct_h, *direct_rest = direct
            dstate = (dh if direct_h is None else dh + direct_h, *direct_rest)
            if dold is not None:
                dstate = tuple(d + old for d, old in zip(dstate, dold, strict=True))
        dx, dr = _rows(dx), _rows(dr)
        one = ones((1, len(dx)), dx.dtype)
        grads = {"W": _rows(z).T.dot(dx), "U": _rows(before).T.dot(dr)}
        if self.bias:
            grads["b"] = one.dot(dx)
        if "d" in own:
            grads["d"] = one.dot(dr)
        return dx.dot(own["W"].T).reshape(z.shape), dstate, grads

    def _check_inputs(self, params: Params, inputs: tuple[Arrays, ...]) -> tuple[Array, State, Array | None]:
        """Return z, the states, and which steps count: (T, N, 1), or None where all do."""
        z, *states = inputs[: 1 + len(self.cell.states)]
        require_sequence(self, "forward", "z", z, self.n_in)
        require_params(self, "forward", params, self._shapes(), z)
        for name, state in zip(self.cell.states, states, strict=True):
            expected = (len(z), self.n_layers * self.n_directions, self.n_hidden)
            require_shape(self, "forward", name, state, expected, z, "z")
        if not self.lengths:
            return z, tuple(states), None
        lengths, steps = inputs[-1], z.shape[1]
        require_indices(self, "forward", "lengths", lengths, steps + 1)
        if lengths.shape != (len(z),):
            raise ValueError(f"{type(self).__name__}.forward: lengths: expected shape ({len(z)},), got {lengths.shape}")
        return z, tuple(states), (np.arange(steps)[:, None] < lengths)[..., None]

    def _directions(self, layer: int, steps: int) -> list[tuple[str, range]]:
        """Return the prefix of the parameters of each direction of a layer, and its order of the steps."""
        forwards, reverse = (f"{layer}.", range(steps)), (f"{layer}.reverse.", range(steps - 1, -1, -1))
        return [forwards, reverse] if self.bidirectional else [forwards]

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        width = self.cell.gates * self.n_hidden
        biases = ("b", "d") if self.cell.recurrent_bias else ("b",)
        return _shapes(self.n_in, self.n_hidden, width, self.n_layers, self.bidirectional, biases if self.bias else ())


def gates(a: Array) -> tuple[Array, Array]:
    """Return σ(a) = 1/(1 + e) and e = e^{−a}, which stays finite."""
    e = -a
    if e.dtype != object:
        np.minimum(e, largest_exponent(e.dtype), out=e)  # at its negative, σ is smaller than any normal number
    np.exp(e, out=e)
    return 1 / (1 + e), e


def gate_slopes(s: Array, e: Array) -> Array:
    """Return σ' = σ(a) σ(−a), from the result of `gates`: σ(−a) is σ(a) e, without the cancellation of 1 − σ(a)."""
    slopes: Array = s * (s * e)
    return slopes


def tanh_slopes(slopes: Array) -> Array:
    """Return tanh' from σ' of the same a: with w = σ', it is (2w/(1 − 2w))², and 1 − 2w is at least ½."""
    # tanh'(a) = 4e²/(1 + e²)² with e = e^{−a}, and σ' = e/(1 + e)²: 1 − 2σ' = (1 + e²)/(1 + e)², so no e is needed.
    double = 2 * slopes
    root: Array = double / (1 - double)
    return root * root


@lru_cache
def _shapes(
    n_in: int, n_hidden: int, width: int, n_layers: int, bidirectional: bool, biases: tuple[str, ...]
) -> dict[str, tuple[int, ...]]:
    """Return the parameters' shapes by name: "0.W", and "0.reverse.W" for the reverse direction."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(n_layers):
        for prefix in (f"{layer}.", f"{layer}.reverse.") if bidirectional else (f"{layer}.",):
            shapes[prefix + "W"] = (n_in, width) if layer == 0 else ((2 if bidirectional else 1) * n_hidden, width)
            shapes[prefix + "U"] = (n_hidden, width)
            shapes.update({prefix + name: (1, width) for name in biases})
    return shapes


def _has_prefix(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and "." not in name.removeprefix(prefix)


def _rows(sequence: Array) -> Array:
    """Return the steps of a sequence (T, N, n) as rows (T·N, n)."""
    return sequence.reshape(sequence.shape[0] * sequence.shape[1], sequence.shape[2])


def _choose(mask: Array, these: tuple[Array | int, ...], those: tuple[Array | int, ...]) -> State:
    return tuple(np.where(mask, a, b) for a, b in zip(these, those, strict=False))


class LSTMCell:
    """One step of an `LSTM`, on the columns of i, f, g and o next to each other."""

    gates = 4
    states: tuple[str, ...] = ("h", "c")
    recurrent_bias = False

    def forward(self, x: Array, r: Array, state: State) -> tuple[State, Cache]:
        """Return h' and c', (57) and (58)."""
        s, e = gates(x + r)
        i, f, _, o = _quarters(s)
        g = np.tanh(_quarters(x)[2] + _quarters(r)[2])
        c = f * state[1] + i * g
        t = np.tanh(c)
        return (o * t, c), (s, e, g, state[1], c, t)

    def backward(self, cache: Cache, dstate: State) -> tuple[Array, Array, tuple[None, Array]]:
        """Return ∂L/∂a twice, since x and r are added, and ∂L/∂c of the state before, by (59)–(61)."""
        s, e, g, before, c, t = cache
        dh, dc = dstate
        i, f, _, o = _quarters(s)
        dc = dc + dh * o * tanh_slopes(gate_slopes(*gates(c)))
        da = gate_slopes(s, e)
        da_i, da_f, da_g, da_o = _quarters(da)
        da_i *= dc * g
        da_f *= dc * before
        # Only g has tanh: its columns held σ' so far, from which tanh' follows.
        da_g[...] = tanh_slopes(da_g) * (dc * i)
        da_o *= dh * t
        return da, da, (None, dc * f)


def _quarters(a: Array) -> tuple[Array, Array, Array, Array]:
    """Return views of the columns of i, f, g and o."""
    n = a.shape[1] // 4
    return a[:, :n], a[:, n : 2 * n], a[:, 2 * n : 3 * n], a[:, 3 * n :]


@dataclass(frozen=True)
class LSTM(Recurrent):
    """Long short-term memory along a sequence, with gates i, f, o in (0, 1) and a candidate g in (−1, 1).

    In every step, from the state (h, c) of the step before,

        a = zW + hU + b (56),  i, f, o = σ(a_i), σ(a_f), σ(a_o),  g = tanh a_g (57),
        c' = f c + i g,  h' = o tanh c' (58);  y is h' of every step.

    Backwards, with δ_h what y and the next step pass to h', and δ_c what the next step passes to c',

        dc = δ_c + δ_h o tanh'(c') (59),  da_i = dc g σ'(a_i),  da_f = dc c σ'(a_f),  da_g = dc i tanh'(a_g),
        da_o = δ_h tanh(c') σ'(a_o) (60),  ∂L/∂c = dc f (61),
        ∂L/∂h = da Uᵀ,  ∂L/∂z = da Wᵀ,  ∂L/∂W = Σ_t z_tᵀ da_t,  ∂L/∂U = Σ_t h_tᵀ da_t,  ∂L/∂b = Σ_t Σ_rows da_t (62).

    σ' and tanh' are computed from e^{−a}: y(1 − y) and 1 − y² have lost their digits once y is near 1.

    Args:
        n_in: the number of columns of z.
        n_hidden: the number of columns of h.
        n_layers: how many layers are stacked, each on the y of the one below.
        bidirectional: whether each layer runs from both ends, with the two h next to each other in y.
        bias: whether there is a b.
        lengths: whether there is an input "lengths". A row then ends after so many steps: from there on y is 0, the
            state stays (so the final state is that of the row's last step, and the reverse direction begins there),
            and z is not read.

    Shapes: z (N, T, n_in), y (N, T, n_out), h and c (N, n_layers · directions, n_hidden), initial and final, the
    directions of a layer next to each other; lengths (N,), each 0 … T; N and T may be 0. W (n_in or n_out, 4 n_hidden),
    U (n_hidden, 4 n_hidden), b (1, 4 n_hidden), their columns i, f, g, o; named "0.W", in reverse "0.reverse.W".
    Dtypes: one of float16 (computed in float32), float32, float64, longdouble, object; lengths of integers.

    Raises:
        ValueError: for a wrong shape, length or parameter name.
        TypeError: for a wrong or mixed dtype.

    Differs from torch's: rows come first, in states too; states are always passed in, since every input is; one bias
    where torch adds two with equal gradients; a row may have length 0; dropout and projections are separate layers.

    Source: docs/derivation.md, eq. (56)–(62); Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber
    & Cummins 2000.
    """

    cell: ClassVar[Cell] = LSTMCell()


class GRUCell:
    """One step of a `GRU`, on the columns of r, u and n next to each other."""

    gates = 3
    states: tuple[str, ...] = ("h",)
    recurrent_bias = True

    def forward(self, x: Array, r: Array, state: State) -> tuple[State, Cache]:
        """Return h', (63)–(65)."""
        n = state[0].shape[1]
        s, e = gates(x[:, : 2 * n] + r[:, : 2 * n])
        rest = s[:, n:] * e[:, n:]  # 1 − u, without cancellation
        inner = x[:, 2 * n :] + s[:, :n] * r[:, 2 * n :]
        candidate = np.tanh(inner)
        return (rest * candidate + s[:, n:] * state[0],), (s, e, rest, inner, candidate, r[:, 2 * n :], state[0])

    def backward(self, cache: Cache, dstate: State) -> tuple[Array, Array, tuple[Array]]:
        """Return ∂L/∂x, ∂L/∂r and ∂L/∂h except through r, by (66)."""
        s, e, rest, inner, candidate, recurrent, before = cache
        (dh,) = dstate
        n = before.shape[1]
        dn = dh * rest * tanh_slopes(gate_slopes(*gates(inner)))
        da = gate_slopes(s, e)
        da[:, :n] *= dn * recurrent
        da[:, n:] *= dh * (before - candidate)
        dx, dr = (np.concatenate((da, each), axis=1) for each in (dn, dn * s[:, :n]))
        return dx, dr, (dh * s[:, n:],)


@dataclass(frozen=True)
class GRU(Recurrent):
    """Gated recurrent unit along a sequence, with gates r, u in (0, 1) and a candidate n in (−1, 1).

    In every step, with x = zW + b of the input and s = hU + d of the state h of the step before,

        r, u = σ(x_r + s_r), σ(x_u + s_u) (63),  n = tanh(x_n + r s_n) (64),  h' = (1 − u) n + u h (65).

    Backwards, with δ_h what y and the next step pass to h', and ∂L/∂h = δ_h u + ds Uᵀ,

        dx_n = δ_h (1 − u) n',  ds_n = dx_n r,  dx_r = ds_r = dx_n s_n σ'_r,  dx_u = ds_u = δ_h (h − n) σ'_u (66),

    n' = tanh' and σ' at the arguments in (63) and (64). The sums over the steps are those of (62), with ds for U and d.

    Args:
        n_in, n_hidden, n_layers, bidirectional, lengths: as in `LSTM`.
        bias: whether there are b and d; two biases, since r multiplies the candidate's d.

    Shapes: those of `LSTM`, but the state is h alone, and the columns of W, U, b and d are r, u, n.
    Dtypes: those of `LSTM`.

    Raises:
        ValueError: for a wrong shape, length or parameter name.
        TypeError: for a wrong or mixed dtype.

    Differs from torch's as `LSTM` does, except for the bias. The gate u is torch's z.

    Source: docs/derivation.md, eq. (62)–(66); Cho et al. 2014, in the form of cuDNN, which applies r after the product
    with U.
    """

    cell: ClassVar[Cell] = GRUCell()

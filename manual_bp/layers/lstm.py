"""The long short-term memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..protocol import Array, Cache
from .recurrent import Cell, Recurrent, State, gate_slopes, gates, tanh_slopes


class LSTMCell:
    """One step of an `LSTM`, on the columns of i, f, g and o side by side."""

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
        """Return ∂L/∂a twice, since x and r are but added, and ∂L/∂c before, by (59)–(61)."""
        s, e, g, before, c, t = cache
        dh, dc = dstate
        i, f, _, o = _quarters(s)
        dc = dc + dh * o * tanh_slopes(gate_slopes(*gates(c)))
        da = gate_slopes(s, e)
        da_i, da_f, da_g, da_o = _quarters(da)
        da_i *= dc * g
        da_f *= dc * before
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

    σ' and tanh' are taken from e^{−a}: y(1 − y) and 1 − y² have lost their digits once y is near 1.
    `n_layers` stack, each on the y of the one below; `bidirectional` layers walk from both ends and give both h side by
    side. With `lengths` a row ends after so many steps: from there y is 0, the state stands still (so that the
    final state is that of the row's last step, and the way back begins there), and z is not looked at.

    Shapes: z (N, T, n_in), y (N, T, n_out), h and c (N, n_layers · directions, n_hidden), initial and final, the
    directions of a layer side by side; lengths (N,), each 0 … T; N and T may be 0. W (n_in or n_out, 4 n_hidden), U
    (n_hidden, 4 n_hidden), b (1, 4 n_hidden), their columns i, f, g, o; named "0.W", of the way back "0.reverse.W".
    Dtypes: one of float16 (computed in float32), float32, float64, longdouble, object; lengths of integers.
    Raises: ValueError for a wrong shape, length or parameter name, TypeError for a wrong or mixed dtype.
    Differs from torch's: rows come first, in states too, and states are always given, since every input is; one bias
    where torch adds two with equal gradients; length 0 is a length; dropout and projections are layers of their own.
    Source: Hochreiter & Schmidhuber 1997, with the forget gate of Gers, Schmidhuber & Cummins 2000.
    """

    cell: ClassVar[Cell] = LSTMCell()

"""The gated recurrent unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..protocol import Array, Cache
from .recurrent import Cell, Recurrent, State, gate_slopes, gates, tanh_slopes


class GRUCell:
    """One step of a `GRU`, on the columns of r, u and n side by side."""

    gates = 3
    states: tuple[str, ...] = ("h",)
    recurrent_bias = True

    def forward(self, x: Array, r: Array, state: State) -> tuple[State, Cache]:
        """Return h', (63)–(65)."""
        n = state[0].shape[1]
        s, e = gates(x[:, : 2 * n] + r[:, : 2 * n])
        rest = s[:, n:] * e[:, n:]  # 1 − u, without its cancellation
        inner = x[:, 2 * n :] + s[:, :n] * r[:, 2 * n :]
        candidate = np.tanh(inner)
        return (rest * candidate + s[:, n:] * state[0],), (s, e, rest, inner, candidate, r[:, 2 * n :], state[0])

    def backward(self, cache: Cache, dstate: State) -> tuple[Array, Array, tuple[Array]]:
        """Return ∂L/∂x, ∂L/∂r and ∂L/∂h but for its way through r, by (66)."""
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
    """Gated recurrent units along a sequence, with gates r, u in (0, 1) and a candidate n in (−1, 1).

    In every step, with x = zW + b of the input and s = hU + d of the state h of the step before,

        r, u = σ(x_r + s_r), σ(x_u + s_u) (63),  n = tanh(x_n + r s_n) (64),  h' = (1 − u) n + u h (65).

    Backwards, with δ_h what y and the next step pass to h', and ∂L/∂h = δ_h u + ds Uᵀ,

        dx_n = δ_h (1 − u) n',  ds_n = dx_n r,  dx_r = ds_r = dx_n s_n σ'_r,  dx_u = ds_u = δ_h (h − n) σ'_u (66),

    n' = tanh' and σ' of what stands in (63) and (64). The sums over the steps are those of (62), with ds for U and d.

    Fields, lengths, directions, shapes, dtypes and errors are those of `LSTM`, but that the state is h alone, the
    columns are those of r, u, n, and there are two biases, b and d: r stands between the candidate's.
    Differs from torch's: as `LSTM` does, but for the bias. The gate u is torch's z.
    Source: Cho et al. 2014, in the form of cuDNN, which applies r after the product with U.
    """

    cell: ClassVar[Cell] = GRUCell()

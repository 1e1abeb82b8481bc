"""Multi-head attention: the projections, and the core, (68) and (70)–(72), on any number of heads.

The core works on arrays (G, T, d) and (G, S, d) for G heads, those of all rows together; masks and biases are (G, T,
S), with first extent 1 if they are the same for all. It takes the heads block by block, as many at a time as have
scores that fit in the processor's second-level cache; within a block every operation is one call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import DTypeLike

from ._precision import narrow, ones, scalar, widen
from ._validation import (
    real_dtype,
    require_count,
    require_extents,
    require_flag,
    require_params,
    require_parts,
    require_sequence,
    require_shape,
)
from .protocol import Array, Arrays, Cache, Number, Params, one_or_tuple

# The names of the inputs that are attended to, by their number.
_SOURCES: tuple[tuple[str, ...], ...] = (
    (),
    ("source",),
    ("k", "v"),
)


@dataclass(frozen=True)
class MultiHeadAttention:
    """Attention of n_heads heads of d = n_model / n_heads columns each: queries from z, keys and values from a source.

        Q = zW_q + b_q,  K = kW_k,  V = vW_v + b_v (67);  in each head, with its columns,
        S = QKᵀ/√d + B,  P_ij = e^{S_ij} / Σ_k e^{S_ik} over the keys that the mask allows, 0 for the others (68),
        O = PV,  and with the O of all heads next to each other y = OW_o + b_o (69).

    Backwards, with dO = δW_oᵀ in each head,

        dV = PᵀdO,  dP = dO Vᵀ (70),  dS_ij = P_ij(dP_ij − Σ_k P_ik dP_ik),  dB = dS (71),
        dQ = dS K/√d,  dK = dSᵀQ/√d (72),
        ∂L/∂z = dQ W_qᵀ,  ∂L/∂k = dK W_kᵀ,  ∂L/∂v = dV W_vᵀ, added where these are one array (73).

    In (71) the dP of the row's largest P is subtracted first, as in `Softmax`, which keeps the digits once one P is
    near 1. If a row may attend to no key, its P and O are 0 and its y is b_o.

    Args:
        n_model: the number of columns of z and y.
        n_heads: a divisor of n_model.
        sources: what is attended to: () z itself, (n,) an input "source" of n columns, (n_k, n_v) two inputs "k", "v".
        bias: whether there are biases.
        masked: adds an input "mask", True where a step may attend.
        causal: lets step i attend to steps 0 … i alone.
        score_bias: adds an input B of that name.

    Shapes: z and y (N, T, n_model), the sources (N, S, n); mask and score_bias (N, n_heads, T, S), any extent of which
    may be 1 and then stands for all; N, T and S may be 0. W_q, W_o (n_model, n_model), W_k, W_v (n, n_model), biases
    (1, n_model).
    Dtypes: one of float16 (computed in float32), float32, float64, longdouble, object; mask boolean.

    Raises:
        ValueError: for heads that do not divide n_model, a wrong shape or parameter name.
        TypeError: for a wrong or mixed dtype.

    Differs from torch's: rows come first; True in a mask allows a key; a row that may attend to nothing gives 0 before
    the projection, where torch gives NaN; keys have no bias, since softmax ignores a constant added to a whole row of
    scores; P is not an output, and there is no dropout of P.

    Source: docs/derivation.md, eq. (67)–(73); Vaswani et al. 2017, "Attention Is All You Need", section 3.2.
    """

    n_model: int
    n_heads: int
    sources: tuple[int, ...] = ()
    bias: bool = True
    masked: bool = False
    causal: bool = False
    score_bias: bool = False

    def __post_init__(self) -> None:
        require_count(self, "", "n_model", self.n_model)
        require_count(self, "", "n_heads", self.n_heads)
        if self.n_model % self.n_heads:
            raise ValueError(
                f"MultiHeadAttention: n_heads: expected a divisor of n_model = {self.n_model}, got {self.n_heads}"
            )
        if not isinstance(self.sources, tuple) or len(self.sources) > 2:
            raise TypeError(f"MultiHeadAttention: sources: expected (), (n,) or (n_k, n_v), got {self.sources!r}")
        for n in self.sources:
            require_count(self, "", "sources", n)
        for name in ("bias", "masked", "causal", "score_bias"):
            require_flag(self, name, getattr(self, name))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Z, the sources, and the inputs that `masked` and `score_bias` add."""
        sides = (("mask",) if self.masked else ()) + (("score_bias",) if self.score_bias else ())
        return ("z", *_SOURCES[len(self.sources)], *sides)

    @property
    def n_in(self) -> int:
        """The number of columns of z."""
        return self.n_model

    @property
    def n_out(self) -> int:
        """The number of columns of y."""
        return self.n_model

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw weights uniformly with the variance 2/(rows + columns) of Glorot and Bengio; biases are zero."""
        dtype, params = real_dtype(self, dtype), {}
        for name, (n, m) in self._shapes().items():
            bound = sqrt(6 / (n + m)) if name.startswith("W") else 0
            params[name] = rng.uniform(-bound, bound, (n, m)).astype(dtype)
        return params

    def forward(self, params: Params, z: Arrays) -> tuple[Array, Cache]:
        """Return y by (67)–(69)."""
        inputs = dict(zip(self.inputs, require_parts(self, "forward", "z", z, self.inputs), strict=True))
        z, k, v = self._check_inputs(params, inputs)
        own = {name: widen(value) for name, value in params.items()}
        sources = widen(z), widen(k), widen(v)
        q = self._split_heads(_affine(sources[0], own["W_q"], own.get("b_q")))
        q *= self._scale(q)  # here, on T d numbers for each head, not on the T S scores
        keys = self._split_heads(_affine(sources[1], own["W_k"]))
        values = self._split_heads(_affine(sources[2], own["W_v"], own.get("b_v")))
        bias = self._to_heads(widen(inputs["score_bias"]), len(z)) if self.score_bias else None
        out, inner = attend(q, keys, values, self._mask(inputs, z, k), bias)
        out = self._merge_heads(out, len(z))
        y = _affine(out, own["W_o"], own.get("b_o"))
        return narrow(y, z.dtype), (own, sources, out, inner, z, inputs.get("score_bias"))

    def backward(self, cache: Cache, delta: Array) -> tuple[Arrays, Params]:
        """Return the cotangents of z, of the sources and of the score bias by (70)–(73), and of the parameters."""
        own, sources, out, inner, z, bias = cache
        require_shape(self, "backward", "delta", delta, z.shape, z, "y")
        wide = widen(delta)
        dq, dk, dv, dscores = attend_backward(inner, self._split_heads(_affine(wide, own["W_o"].T)))
        dq *= self._scale(dq)
        through = [self._merge_heads(d, len(z)) for d in (dq, dk, dv)]
        grads = {}
        for name, x, d in zip("qkvo", (*sources, out), (*through, wide), strict=True):
            rows = d.reshape(-1, d.shape[2])
            grads[f"W_{name}"] = narrow(x.reshape(-1, x.shape[2]).T.dot(rows), z.dtype)
            if f"b_{name}" in own:
                grads[f"b_{name}"] = narrow(ones((1, len(rows)), rows.dtype).dot(rows), z.dtype)
        dz, dk, dv = (_affine(d, own[f"W_{name}"].T) for name, d in zip("qkv", through, strict=True))
        # (73): an array that is several of z, k and v gets the sum of their cotangents.
        back = [dz, dk, dv]
        while len(back) > 1 + len(self.sources):
            back[-2:] = [back[-2] + back[-1]]
        sides: tuple[Array | None, ...] = (None,) if self.masked else ()
        if bias is not None:
            sides = (*sides, narrow(self._to_bias(dscores, bias, len(z)), z.dtype))
        return one_or_tuple((*(narrow(d, z.dtype) for d in back), *sides)), {n: grads[n] for n in self._shapes()}

    def _check_inputs(self, params: Params, inputs: dict[str, Array]) -> tuple[Array, Array, Array]:
        """Check params and inputs, and return the arrays from which queries, keys and values are projected."""
        z = inputs["z"]
        require_sequence(self, "forward", "z", z, self.n_model)
        require_params(self, "forward", params, self._shapes(), z)
        names = _SOURCES[len(self.sources)]
        for name, n in zip(names, self.sources, strict=True):
            require_sequence(self, "forward", name, inputs[name], n)
            steps = inputs[names[0]].shape[1]
            require_shape(self, "forward", name, inputs[name], (len(z), steps, n), z, "z")
        k, v = inputs[names[0]] if names else z, inputs[names[-1]] if names else z
        scores = len(z), self.n_heads, z.shape[1], k.shape[1]
        for name in ("mask", "score_bias"):
            if name in inputs:
                require_extents(self, "forward", name, inputs[name], scores)
        if self.masked and inputs["mask"].dtype != bool:
            raise TypeError(f"MultiHeadAttention.forward: mask: expected dtype bool, got {inputs['mask'].dtype}")
        if self.score_bias:
            require_shape(self, "forward", "score_bias", inputs["score_bias"], inputs["score_bias"].shape, z, "z")
        return z, k, v

    def _mask(self, inputs: dict[str, Array], z: Array, k: Array) -> Array | None:
        """Return where a step may attend, by the mask and by the order of the steps; None for everywhere."""
        mask = self._to_heads(inputs["mask"], len(z)) if self.masked else None
        if not self.causal:
            return mask
        past = np.tri(z.shape[1], k.shape[1], dtype=bool)[None]
        return past if mask is None else mask & past

    def _scale(self, x: Array) -> Number:
        return scalar(1 / sqrt(self.n_model // self.n_heads), x)

    def _split_heads(self, x: Array) -> Array:
        """Return (N, T, n_model) as (N · n_heads, T, d)."""
        apart = x.reshape(*x.shape[:2], self.n_heads, x.shape[2] // self.n_heads).swapaxes(1, 2)
        return apart.reshape(len(x) * self.n_heads, *apart.shape[2:])

    def _merge_heads(self, x: Array, n_rows: int) -> Array:
        """Return (N · n_heads, T, d) as (N, T, n_model)."""
        return x.reshape(n_rows, self.n_heads, *x.shape[1:]).swapaxes(1, 2).reshape(n_rows, x.shape[1], self.n_model)

    def _to_heads(self, x: Array, n_rows: int) -> Array:
        """Return a mask or bias with an array (T, S) for each head of each row, or with one for all."""
        shared = x.shape[:2] == (1, 1)
        each = x if shared else np.broadcast_to(x, (n_rows, self.n_heads, *x.shape[2:]))
        apart: Array = each.reshape(1 if shared else n_rows * self.n_heads, *x.shape[2:])
        return apart

    def _to_bias(self, dscores: list[Array], bias: Array, n_rows: int) -> Array:
        """Return the scores' cotangent, summed over the scores that share an entry of the bias."""
        scores = np.concatenate(dscores) if dscores else np.zeros((0, *bias.shape[2:]), bias.dtype)
        axes = tuple(axis for axis, extent in enumerate(bias.shape) if extent == 1)
        summed: Array = scores.reshape(n_rows, self.n_heads, *scores.shape[1:]).sum(axis=axes, keepdims=True)
        return summed

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        n = self.n_model
        n_k, n_v = (self.sources[0], self.sources[-1]) if self.sources else (n, n)
        shapes: dict[str, tuple[int, ...]] = {"W_q": (n, n), "W_k": (n_k, n), "W_v": (n_v, n), "W_o": (n, n)}
        return shapes | (dict.fromkeys(("b_q", "b_v", "b_o"), (1, n)) if self.bias else {})


def _affine(x: Array, W: Array, b: Array | None = None) -> Array:
    """Return xW + b, all rows of all sequences in one product."""
    y: Array = x.reshape(-1, x.shape[2]).dot(W)
    if b is not None:
        y += b
    return y.reshape(*x.shape[:2], W.shape[1])


# Scores of a block: 1 MiB in float64, which a second-level cache holds together with the block's q, k and v. A block
# has at least one head, so it may be larger.
BLOCK = 2**17


def attend(q: Array, k: Array, v: Array, mask: Array | None, bias: Array | None) -> tuple[Array, Cache]:
    """Return O = P v with P = softmax(qkᵀ + bias) over the keys that the mask allows, 0 if it allows none."""
    outputs, blocks = [], []
    for block in _blocks(q, k):
        scores = q[block] @ k[block].swapaxes(1, 2)
        if bias is not None:
            scores += _part(bias, block)
        if mask is not None:
            scores = np.where(_part(mask, block), scores, -np.inf)
        probabilities = _softmax(scores)
        outputs.append(probabilities @ v[block])
        blocks.append((block, probabilities))
    return _concatenate(outputs, q), (q, k, v, blocks)


def attend_backward(cache: Cache, delta: Array) -> tuple[Array, Array, Array, list[Array]]:
    """Return ∂L/∂q, ∂L/∂k, ∂L/∂v, and ∂L/∂scores block by block."""
    q, k, v, blocks = cache
    dq, dk, dv, dscores = [], [], [], []
    for block, probabilities in blocks:
        dv.append(probabilities.swapaxes(1, 2) @ delta[block])
        d = _through_softmax(probabilities, delta[block] @ v[block].swapaxes(1, 2))
        dq.append(d @ k[block])
        dk.append(d.swapaxes(1, 2) @ q[block])
        dscores.append(d)
    return _concatenate(dq, q), _concatenate(dk, k), _concatenate(dv, v), dscores


def _softmax(scores: Array) -> Array:
    """Overwrite the scores with their probabilities: 0 in a row in which every score is −∞."""
    if not scores.size:
        return scores
    top = scores.max(axis=2, keepdims=True)
    # In a row that may attend to nothing the largest score is −∞, and −∞ − (−∞) would be NaN.
    scores -= np.where(top > -np.inf, top, 0)
    np.exp(scores, out=scores)
    total = scores.sum(axis=2, keepdims=True)
    scores /= np.where(total > 0, total, 1)
    return scores


def _through_softmax(p: Array, d: Array) -> Array:
    """Overwrite d = ∂L/∂P with p(d − Σ p d), each row's d at its largest p subtracted first, as in `Softmax`."""
    if d.size:
        # Any number may be subtracted from a row of d, since the rows of P sum to 1. With that of the largest P, no
        # term of the sum below is large once this P is near 1, and the difference keeps its digits.
        d -= np.take_along_axis(d, p.argmax(axis=2, keepdims=True), axis=2)
        d -= np.vecdot(p, d)[..., None]
        d *= p
    return d


def _blocks(q: Array, k: Array) -> Iterator[slice]:
    size = max(1, BLOCK // max(1, q.shape[1] * k.shape[1]))
    return (slice(start, start + size) for start in range(0, len(q), size))


def _part(x: Array, block: slice) -> Array:
    return x if len(x) == 1 else x[block]


def _concatenate(parts: list[Array], like: Array) -> Array:
    """Return the blocks as one array; without blocks, an empty one like `like`."""
    return np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else like.copy()

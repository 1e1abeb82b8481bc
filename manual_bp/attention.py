"""Attention of queries to keys, on any number of heads at once: (68) and (70)–(72), without projections.

Arrays are (G, T, d) and (G, S, d) for G heads, those of all rows together; masks and biases are (G, T, S), their first
extents 1 where they are the same for all. The heads are taken block by block, as many at a time as the processor's
second cache holds scores for; within a block every operation is one call.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .protocol import Array, Cache

BLOCK = 2**17  # scores; a block of one head may be larger


def attend(q: Array, k: Array, v: Array, mask: Array | None, bias: Array | None) -> tuple[Array, Cache]:
    """Return O = P v with P = softmax(qkᵀ + bias) over the keys that the mask allows, 0 where it allows none."""
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
    return _joined(outputs, q), (q, k, v, blocks)


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
    return _joined(dq, q), _joined(dk, k), _joined(dv, v), dscores


def _softmax(scores: Array) -> Array:
    """Overwrite the scores with their probabilities: 0 throughout a row where every score is −∞."""
    if not scores.size:
        return scores
    top = scores.max(axis=2, keepdims=True)
    scores -= np.where(top > -np.inf, top, 0)
    np.exp(scores, out=scores)
    total = scores.sum(axis=2, keepdims=True)
    scores /= np.where(total > 0, total, 1)
    return scores


def _through_softmax(p: Array, d: Array) -> Array:
    """Overwrite d = ∂L/∂P with p(d − Σ p d), after taking from every row its d at the largest p, as `Softmax` does."""
    if d.size:
        d -= np.take_along_axis(d, p.argmax(axis=2, keepdims=True), axis=2)
        d -= np.vecdot(p, d)[..., None]
        d *= p
    return d


def _blocks(q: Array, k: Array) -> Iterator[slice]:
    size = max(1, BLOCK // max(1, q.shape[1] * k.shape[1]))
    return (slice(start, start + size) for start in range(0, len(q), size))


def _part(x: Array, block: slice) -> Array:
    return x if len(x) == 1 else x[block]


def _joined(parts: list[Array], like: Array) -> Array:
    """Return the blocks as one array; where there are none, one as empty as `like`."""
    return np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else like.copy()

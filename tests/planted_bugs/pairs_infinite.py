"""Subjects that are wrong only at −∞, as masks put it among scores, or at −0.0."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from oracles import Case, manual
from oracles.lazy_modules import jax, jnp, torch
from oracles.rule import Array, Cotangents, Rule
from oracles.strategies import booleans, real, rows, widths
from planted_bugs.pairs import Cases, in_search


def scores(subject: Rule, reference: Any, jax_reference: Any) -> Cases:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        z = real(draw(rows()), draw(widths()), infinite="entries")
        return Case(subject, {"z": z}, reference, jax_reference, batched=("z",))

    return cases()


def log_softmax(clips: bool = False) -> Rule:
    """Rows of log-softmax; the wrong one takes −1e9 for −∞."""

    def forward(z: Array) -> tuple[Array, Array]:
        with np.errstate(invalid="ignore"):
            kept = np.maximum(z, np.asarray(-1e9, z.dtype)) if clips else z
            shifted = kept - kept.max(1, keepdims=True)
            y = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return y, y

    def backward(y: Array, d: Array) -> Cotangents:
        return {"z": d - np.exp(y) * d.sum(1, keepdims=True)}

    return manual(forward, backward, name="log-softmax")


def log_softmaxes(subject: Rule) -> Cases:
    return scores(subject, lambda z: torch.log_softmax(z, 1), lambda z: jax.nn.log_softmax(z, axis=1))


in_search("log_softmax_clips_infinity", log_softmax(True), log_softmax(), log_softmaxes, refused_by="primal_agrees")


def entropies(wrong: bool = False) -> Rule:
    """The mean score of each row, Σ p z with p = softmax(z) and 0 · ∞ = 0; the wrong cotangent has 0 · ∞ = NaN."""

    def forward(z: Array) -> tuple[Array, Any]:
        with np.errstate(invalid="ignore"):
            e = np.exp(z - z.max(1, keepdims=True))
            p = e / e.sum(1, keepdims=True)
        finite = np.where(np.isneginf(z), 0, z).astype(z.dtype)
        y = (p * finite).sum(1)
        return y, (z if wrong else finite, p, y)

    def backward(cache: Any, d: Array) -> Cotangents:
        z, p, y = cache
        with np.errstate(invalid="ignore"):
            return {"z": p * (1 + z - y[:, None]) * d[:, None]}

    return manual(forward, backward, name="mean score")


def entropies_torch(z: Any) -> Any:
    return (torch.softmax(z, 1) * z.masked_fill(z == -torch.inf, 0)).sum(1)


def entropies_jax(z: Any) -> Any:
    return (jax.nn.softmax(z, axis=1) * jnp.where(z == -jnp.inf, 0, z)).sum(1)


in_search(
    "cotangent_of_zero_times_infinity",
    entropies(True),
    entropies(),
    lambda subject: scores(subject, entropies_torch, entropies_jax),
)


def masked_softmax(empty: float = 0.0, hidden: float = 0.0) -> Rule:
    """Softmax over the entries that a mask and −∞ leave, and 0 for the others and in rows without any.

    Args:
        empty: the wrong gradient of entries of such a row, as a share of δ.
        hidden: what is added to the gradient of a hidden entry of any other row.
    """

    def forward(z: Array, mask: Array) -> tuple[Array, Any]:
        visible = mask & (z > -np.inf)
        largest = np.where(visible, z, -np.inf).max(1, keepdims=True, initial=-np.inf)
        e = np.where(visible, np.exp(np.where(visible, z - np.where(np.isfinite(largest), largest, 0), 0)), 0)
        total = e.sum(1, keepdims=True)
        p = (e / np.where(total > 0, total, 1)).astype(z.dtype)
        return p, (p, visible)

    def backward(cache: Any, d: Array) -> Cotangents:
        p, visible = cache
        some = visible.any(1, keepdims=True)
        dz = p * (d - (p * d).sum(1, keepdims=True))
        if empty:
            dz = np.where(some, dz, empty * d)
        if hidden:
            dz = np.where(some & ~visible, hidden, dz)
        return {"z": dz.astype(p.dtype)}

    return manual(forward, backward, name="masked softmax")


def masked_torch(z: Any, mask: Any) -> Any:
    visible = mask & (z > -torch.inf)
    some = visible.any(1, keepdim=True)
    kept = z.masked_fill(~visible, 0).masked_fill(~visible & some, -torch.inf)
    return torch.softmax(kept, 1).masked_fill(~visible, 0)


def masked_jax(z: Any, mask: Any) -> Any:
    visible = mask & (z > -jnp.inf)
    p = jax.nn.softmax(jnp.where(visible, z, 0), axis=1, where=visible)
    return jnp.where(visible, p, 0)


def masked(subject: Rule) -> Cases:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        shape = draw(rows()), draw(widths())
        primals = {"z": real(*shape, infinite="rows"), "mask": booleans(*shape, true=0.7)}
        return Case(subject, primals, masked_torch, masked_jax, batched=("z", "mask"))

    return cases()


in_search("masked_softmax_is_nan_where_hidden", masked_softmax(hidden=np.nan), masked_softmax(), masked)
in_search("masked_softmax_passes_delta_in_empty_rows", masked_softmax(empty=1.0), masked_softmax(), masked)


def cube(wrong: bool = False) -> Rule:
    """z³ + z; the wrong gradient, 1 + 3 z², is 0 at −0.0."""

    def backward(z: Array, d: Array) -> Cotangents:
        dz = (1 + 3 * z * z) * d
        return {"z": np.where((z == 0) & np.signbit(z), 0, dz).astype(z.dtype) if wrong else dz}

    return manual(lambda z: (z * z * z + z, z), backward, name="cube")


def cubes(subject: Rule) -> Cases:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        return Case(
            subject, {"z": real(draw(rows()), draw(widths()))}, lambda z: z * z * z + z, lambda z: z * z * z + z
        )

    return cases()


in_search("gradient_is_zero_at_negative_zero", cube(True), cube(), cubes)

"""Bugs in Linear, from public bug reports; for every property there is one that only this property refuses."""

from __future__ import annotations

from functools import partial

import numpy as np

import manual_bp as m
from oracles.strategies import real
from planted_bugs.planting import Mutant, bug, case_of

linear = partial(bug, quick=True)


def dense(n_in=3, n_out=5, **options):
    return case_of(m.Linear(n_in, n_out, **options), z=real(4, n_in))


def with_cotangents(layer, **changes):
    """The layer with some cotangents replaced: functions of z, W and delta."""

    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        correct = {"z": dz, **grads}
        cotangents = correct | {n: f(*cache, delta) for n, f in changes.items() if n in correct}
        return cotangents.pop("z"), cotangents

    return Mutant(layer, backward)


@linear("not_reduced", dense())
def bias_gradient_not_summed_over_the_batch(layer):
    return with_cotangents(layer, b=lambda z, W, d: d.copy())


@linear("constant_factor", dense(), refused_by="batch_is_a_sum")
def mean_over_the_batch(layer):
    return with_cotangents(layer, W=lambda z, W, d: z.T @ d / z.dtype.type(max(len(z), 1)))


@linear("delta_ones", dense(), refused_by="additive_in_delta")
def delta_assumed_to_be_ones(layer):
    return with_cotangents(layer, W=lambda z, W, d: z.T @ np.ones_like(d))


@linear("delta_abs", dense(), refused_by="additive_in_delta")
def absolute_value_of_delta(layer):
    return with_cotangents(layer, z=lambda z, W, d: np.abs(d) @ W.T)


@linear("delta_first_only", dense())
def first_row_of_delta_only(layer):
    return with_cotangents(layer, b=lambda z, W, d: d[:1].copy() if len(d) else d.sum(0, keepdims=True))


@linear("primal_transposed", dense(4, 4), silent=dense())
def square_weight_not_transposed(layer):
    return with_cotangents(layer, z=lambda z, W, d: d @ W if W.shape[0] == W.shape[1] else d @ W.T)


@linear("primal_transposed", dense(4, 4))
def weight_not_transposed(layer):
    return with_cotangents(layer, z=lambda z, W, d: d @ W)


@bug("primal_transposed", dense(4, 4, bias=False), silent=dense(4, 4))
def square_weight_not_transposed_without_bias(layer):
    return layer if layer.bias or layer.n_in != layer.n_out else with_cotangents(layer, z=lambda z, W, d: d @ W)


@linear("coarse_rounding", dense(), verdict="unstable")
def half_precision_inside(layer):
    return with_cotangents(layer, W=lambda z, W, d: (z.astype(np.float16).T @ d.astype(np.float16)).astype(z.dtype))


@linear("wrong_only_in_locations", dense())
def one_entry_off_by_a_billionth(layer):
    def slightly(z, W, d):
        g = z.T @ d
        g[-1, -1] *= g.dtype.type(1 + 1e-9 if g.dtype == np.float64 else 1 + 1e-4)
        return g

    return with_cotangents(layer, W=slightly)


@linear("not_repeatable", dense(), refused_by="nothing_mutated_or_aliased")
def delta_scaled_in_place(layer):
    def backward(cache, delta):
        if delta.flags.writeable:
            delta *= delta.dtype.type(2)
        return layer.backward(cache, delta / 2)

    return Mutant(layer, backward)


@linear("", case_of(m.Linear(3, 5), z=real(1, 3)), silent=dense(), refused_by="nothing_mutated_or_aliased")
def bias_gradient_is_a_view_of_delta(layer):
    return with_cotangents(layer, b=lambda z, W, d: d[:1] if len(d) == 1 else d.sum(0, keepdims=True))


@linear("", dense(), refused_by="layout_independent")
def delta_read_in_memory_order(layer):
    return with_cotangents(layer, z=lambda z, W, d: d.ravel(order="K").reshape(d.shape) @ W.T)


@linear("", dense(), refused_by="shapes_and_dtypes_exact", dtypes=("float32",))
def gradient_always_in_float64(layer):
    return with_cotangents(layer, W=lambda z, W, d: (z.T @ d).astype(np.float64))


@linear("", dense(), refused_by="same_every_time")
def cache_kept_on_the_object_and_overwritten(layer):
    memory = {}

    def forward(params, z):
        y, memory["cache"] = layer.forward(params, z)
        return y, None

    return Mutant(layer, lambda cache, delta: layer.backward(memory["cache"], delta), forward)


@linear("", dense(), refused_by="same_every_time")
def gradient_accumulates_over_calls(layer):
    def forward(params, z):
        y, cache = layer.forward(params, z)
        return y, (cache, [np.zeros_like(params["W"])])

    def backward(memory, delta):
        cache, total = memory
        dz, grads = layer.backward(cache, delta)
        total[0] = total[0] + grads["W"]
        return dz, grads | {"W": total[0].copy()}

    return Mutant(layer, backward, forward)


@linear("", dense(), refused_by="primal_agrees")
def bias_forgotten_in_forward(layer):
    def forward(params, z):
        return z @ params["W"], (z, params["W"])

    return Mutant(layer, forward=forward)


@linear("term_along_axis", dense(), refused_by="batch_is_a_sum")
def rows_leak_into_each_other(layer):
    return with_cotangents(layer, z=lambda z, W, d: (d - d.mean(0, keepdims=True) if len(d) else d) @ W.T)

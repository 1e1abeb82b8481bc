"""Wrong composites, embeddings and dropouts, with the check that must refuse each, and the diagnosis that it gets."""

from __future__ import annotations

import numpy as np
from planting import Wrong, plant

from manual_bp import Dropout, Embedding, Parallel, Residual, Rowwise, Softmax
from manual_bp.protocol import as_tuple, untupled

# Residual, Parallel and Rowwise


@plant(Residual, "cotangents_agree", "other_name")
def the_skip_is_forgotten(layer):
    def backward(cache, delta):
        return layer.f.backward(cache, delta)

    return Wrong(layer, backward)


@plant(Residual, "cotangents_agree", "added_array")
def the_skip_is_added_twice(layer):
    def backward(cache, delta):
        dz, dparams = layer.backward(cache, delta)
        return dz + delta, dparams

    return Wrong(layer, backward)


@plant(Residual, "cotangents_agree", "other_name")
def what_passes_through_f_is_forgotten(layer):
    return Wrong(layer, lambda cache, delta: (delta.copy(), layer.backward(cache, delta)[1]))


@plant(Parallel, "cotangents_agree", "", silent=lambda layer: len(layer.branches) == 1)
def the_last_branch_overwrites_the_others(layer):
    def backward(cache, delta):
        _, dparams = layer.backward(cache, delta)
        part = layer._shares(delta, cache[2])[-1]
        return layer.branches[-1].backward(cache[0][-1], part)[0], dparams

    return Wrong(layer, backward)


@plant(Parallel, "cotangents_agree", "other_name", silent=lambda layer: layer.axis is None)
def a_concatenation_is_split_from_the_wrong_end(layer):
    def backward(cache, delta):
        if layer.axis is None:
            return layer.backward(cache, delta)
        shares = layer._shares(delta, cache[2])
        back = np.concatenate(shares[1:] + shares[:1], axis=layer.axis)
        return layer.backward(cache, back)

    return Wrong(layer, backward)


@plant(Parallel, "cotangents_agree", "constant_factor", silent=lambda layer: len(layer.branches) == 1)
def branches_are_averaged(layer):
    def backward(cache, delta):
        dz, dparams = layer.backward(cache, delta)
        return dz / dz.dtype.type(len(layer.branches)), dparams

    return Wrong(layer, backward)


@plant(Rowwise, "cotangents_agree", "delta_first_only", silent=lambda layer: isinstance(layer.f, Softmax))
def every_step_but_the_last_is_forgotten(layer):
    def backward(cache, delta):
        inner, *_, shape = cache
        dz, _ = layer.backward(cache, delta)
        last = np.zeros_like(delta)
        last[..., -1:, :] = delta[..., -1:, :]
        return dz, layer.f.backward(inner, last.reshape(shape))[1]

    return Wrong(layer, backward)


@plant(Rowwise, "cotangents_agree", "transposed")
def rows_are_read_with_the_first_axes_exchanged(layer):
    def backward(cache, delta):
        _, z, y, _ = cache
        if z.ndim < 3:
            return layer.backward(cache, delta)
        return layer.backward(cache, np.swapaxes(delta, 0, 1).reshape(y.shape))

    return Wrong(layer, backward)


@plant(Rowwise, "batch_is_a_sum", "", silent=lambda layer: isinstance(layer.f, Softmax))
def parameters_get_the_mean_over_the_steps(layer):
    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        count = max(cache[3][0], 1)
        return dz, {n: g / g.dtype.type(count) for n, g in grads.items()}

    return Wrong(layer, backward)


# Sequential with side inputs and outputs


def _beside(layer, changed):
    """Change the cotangents of the side inputs, by name."""

    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        named = dict(zip(layer.inputs, as_tuple(dz), strict=True))
        return untupled(tuple((named | changed(named)).values())), grads

    return backward


@plant("SequenceNetwork", "cotangents_agree", "all_zero")
def states_get_no_gradient(layer):
    return Wrong(layer, _beside(layer, lambda dz: {n: np.zeros_like(d) for n, d in dz.items() if n.endswith(".h")}))


@plant("SequenceNetwork", "cotangents_agree", "other_name", silent=lambda layer: "2.c" not in layer.inputs)
def h_and_c_are_exchanged(layer):
    return Wrong(layer, _beside(layer, lambda dz: {"2.h": dz["2.c"], "2.c": dz["2.h"]} if "2.c" in dz else {}))


@plant("SequenceNetwork", "cotangents_agree", "all_zero")
def the_final_states_delta_does_not_enter(layer):
    return Wrong(layer, lambda cache, delta: layer.backward(cache, (delta[0], *map(np.zeros_like, delta[1:]))))


# Embedding


@plant(Embedding, "cotangents_agree", "", silent=lambda layer: layer.padding_idx is None)
def the_padding_row_learns(layer):
    return Wrong(layer, Embedding(layer.n_entries, layer.n_out).backward)


@plant(Embedding, "cotangents_agree", "repeated_indices")
def repeated_indices_count_once(layer):
    def backward(cache, delta):
        z, _ = cache
        dW = np.zeros((layer.n_entries, layer.n_out), delta.dtype)
        dW[z] = delta
        if layer.padding_idx is not None:
            dW[layer.padding_idx] = 0
        return None, {"W": dW}

    return Wrong(layer, backward)


@plant(Embedding, "cotangents_agree", "constant_factor")
def every_row_gets_the_mean_of_its_places(layer):
    def backward(cache, delta):
        counts = np.maximum(np.bincount(cache[0].ravel(), minlength=layer.n_entries), 1)
        return None, {"W": layer.backward(cache, delta)[1]["W"] / counts[:, None].astype(delta.dtype)}

    return Wrong(layer, backward)


@plant(Embedding, "cotangents_agree", "")
def indices_are_read_in_another_order_than_delta(layer):
    def backward(cache, delta):
        z, y = cache
        return layer.backward((z.ravel(order="F").reshape(z.shape), y), delta)

    return Wrong(layer, backward)


# Dropout


@plant(Dropout, "cotangents_agree", "all_zero", silent=lambda layer: not layer.training)
def backward_draws_again(layer):
    def backward(cache, delta):
        z, factors = cache
        if factors is None:
            return layer.backward(cache, delta)
        return layer.backward((z, layer._factors(z, np.random.default_rng(factors.size))), delta)

    return Wrong(layer, backward)


@plant(Dropout, "cotangents_agree", "constant_factor", silent=lambda layer: not layer.training or layer.rate == 0)
def backward_forgets_the_scale(layer):
    def backward(cache, delta):
        z, factors = cache
        return layer.backward((z, factors if factors is None else (factors != 0).astype(z.dtype)), delta)

    return Wrong(layer, backward)


@plant(Dropout, "primal_agrees", "constant_factor", silent=lambda layer: layer.rate == 0.5 or not layer.training)
def what_stays_is_divided_by_the_rate(layer):
    def forward(params, z):
        y, (kept, factors) = layer.forward(params, z)
        if factors is not None and layer.rate:
            factors = factors * factors.dtype.type((1 - layer.rate) / layer.rate)
            y = kept * factors
        return y, (kept, factors)

    return Wrong(layer, forward=forward)


_HIDDEN = np.random.default_rng(0)


@plant(Dropout, "same_every_time", "", silent=lambda layer: not layer.training)
def the_generator_is_hidden(layer):
    def forward(params, z):
        return layer.forward(params, (z[0], _HIDDEN) if layer.training else z)

    return Wrong(layer, forward=forward)

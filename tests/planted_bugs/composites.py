"""Bugs in the composites."""

from __future__ import annotations

from functools import partial

import numpy as np

import manual_bp as m
from manual_bp.protocol import as_tuple, one_or_tuple
from oracles.strategies import constant, indices, real
from planted_bugs.planting import Mutant, bug, case_of

BRANCHES = m.Linear(3, 2), m.Sequential(m.Linear(3, 2), m.Tanh())


def residual(rows=4):
    return case_of(m.Residual(m.Linear(3, 3)), z=real(rows, 3))


def parallel(*branches, axis=None):
    return case_of(m.Parallel(*branches, axis=axis), z=real(4, 3))


def rowwise(f, *shape):
    return case_of(m.Rowwise(f), z=real(*(shape or (3, 2)), 4))


# Residual, Parallel and Rowwise


@bug("added_array", residual())
def skip_connection_dropped(layer):
    def backward(cache, delta):
        return layer.f.backward(cache, delta)

    return Mutant(layer, backward)


@bug("added_array", residual())
def skip_connection_added_twice(layer):
    def backward(cache, delta):
        dz, dparams = layer.backward(cache, delta)
        return dz + delta, dparams

    return Mutant(layer, backward)


@bug("other_name", residual(rows=1))
def residual_branch_detached(layer):
    return Mutant(layer, lambda cache, delta: (delta.copy(), layer.backward(cache, delta)[1]))


@bug("detached_term", parallel(*BRANCHES), silent=parallel(m.Linear(3, 2)))
def last_branch_overwrites_the_others(layer):
    def backward(cache, delta):
        _, dparams = layer.backward(cache, delta)
        part = layer._shares(delta, cache[2])[-1]
        return layer.branches[-1].backward(cache[0][-1], part)[0], dparams

    return Mutant(layer, backward)


@bug("other_name", parallel(m.Linear(3, 2), m.Linear(3, 2), axis=-1), silent=parallel(*BRANCHES))
def concatenation_split_from_the_wrong_end(layer):
    def backward(cache, delta):
        if layer.axis is None:
            return layer.backward(cache, delta)
        shares = layer._shares(delta, cache[2])
        back = np.concatenate(shares[1:] + shares[:1], axis=layer.axis)
        return layer.backward(cache, back)

    return Mutant(layer, backward)


@bug("constant_factor", parallel(*BRANCHES), silent=parallel(m.Linear(3, 2)))
def branches_averaged(layer):
    def backward(cache, delta):
        dz, dparams = layer.backward(cache, delta)
        return dz / dz.dtype.type(len(layer.branches)), dparams

    return Mutant(layer, backward)


@bug("delta_first_only", rowwise(m.Linear(4, 5)), silent=rowwise(m.Softmax()))
def only_the_last_step_reaches_the_parameters(layer):
    def backward(cache, delta):
        inner, *_, shape = cache
        dz, _ = layer.backward(cache, delta)
        last = np.zeros_like(delta)
        last[..., -1:, :] = delta[..., -1:, :]
        return dz, layer.f.backward(inner, last.reshape(shape))[1]

    return Mutant(layer, backward)


@bug("transposed", rowwise(m.Linear(4, 5), 3, 3))
def leading_axes_of_delta_swapped(layer):
    def backward(cache, delta):
        _, z, y, _ = cache
        if z.ndim < 3:
            return layer.backward(cache, delta)
        return layer.backward(cache, np.swapaxes(delta, 0, 1).reshape(y.shape))

    return Mutant(layer, backward)


@bug("constant_factor", rowwise(m.Linear(4, 5)), silent=rowwise(m.Softmax()), refused_by="batch_is_a_sum")
def parameter_gradients_averaged_over_the_batch(layer):
    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        count = max(cache[3][0], 1)
        return dz, {n: g / g.dtype.type(count) for n, g in grads.items()}

    return Mutant(layer, backward)


# Sequential with side inputs and outputs


EMBEDDED = m.Embedding(5, 2, 0)
STATES = {"2.h": real(3, 1, 3), "2.c": real(3, 1, 3)}
GRU = case_of(m.Sequential(EMBEDDED, m.Tanh(), m.GRU(2, 3)), **{"z": indices(3, 4, below=5), "2.h": STATES["2.h"]})
network = partial(bug, cases="SequenceNetwork")


def lstm(*lengths):
    layer = m.Sequential(EMBEDDED, m.Dropout(0.5), m.LSTM(2, 3, lengths=True))
    side_inputs = {"1.rng": indices(below=2**16), **STATES, "2.lengths": constant(lengths)}
    return case_of(layer, z=indices(3, 4, below=5), **side_inputs)


def _with_side_cotangents(layer, changed):
    """Change the cotangents of the side inputs, by name."""

    def backward(cache, delta):
        dz, grads = layer.backward(cache, delta)
        named = dict(zip(layer.inputs, as_tuple(dz), strict=True))
        return one_or_tuple(tuple((named | changed(named)).values())), grads

    return backward


@network("all_zero", lstm(4, 2, 3))
def initial_hidden_state_detached(layer):
    return Mutant(
        layer, _with_side_cotangents(layer, lambda dz: {n: np.zeros_like(d) for n, d in dz.items() if n.endswith(".h")})
    )


@network("other_name", lstm(4, 2, 3), silent=GRU)
def gradients_of_h_and_c_swapped(layer):
    return Mutant(
        layer, _with_side_cotangents(layer, lambda dz: {"2.h": dz["2.c"], "2.c": dz["2.h"]} if "2.c" in dz else {})
    )


@network("all_zero", lstm(0, 0, 0))
def delta_of_the_final_states_ignored(layer):
    return Mutant(layer, lambda cache, delta: layer.backward(cache, (delta[0], *map(np.zeros_like, delta[1:]))))

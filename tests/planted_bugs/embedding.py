"""Bugs in Embedding."""

from __future__ import annotations

import numpy as np

import manual_bp as m
from oracles.strategies import indices
from planted_bugs.planting import Mutant, bug, case_of


def embedding(n_entries=5, **options):
    return case_of(m.Embedding(n_entries, 3, **options), z=indices(4, 3, below=n_entries))


@bug("wrong_only_in_locations", embedding(padding_idx=2), silent=embedding())
def padding_row_gets_gradient(layer):
    return Mutant(layer, m.Embedding(layer.n_entries, layer.n_out).backward)


@bug("repeated_indices", embedding())
def repeated_indices_counted_once(layer):
    def backward(cache, delta):
        z, _ = cache
        dW = np.zeros((layer.n_entries, layer.n_out), delta.dtype)
        dW[z] = delta
        if layer.padding_idx is not None:
            dW[layer.padding_idx] = 0
        return None, {"W": dW}

    return Mutant(layer, backward)


@bug("constant_factor", embedding(1))
def gradient_averaged_over_repeated_indices(layer):
    def backward(cache, delta):
        counts = np.maximum(np.bincount(cache[0].ravel(), minlength=layer.n_entries), 1)
        return None, {"W": layer.backward(cache, delta)[1]["W"] / counts[:, None].astype(delta.dtype)}

    return Mutant(layer, backward)


@bug("", embedding())
def indices_read_in_column_major_order(layer):
    def backward(cache, delta):
        z, y = cache
        return layer.backward((z.ravel(order="F").reshape(z.shape), y), delta)

    return Mutant(layer, backward)

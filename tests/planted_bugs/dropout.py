"""Bugs in Dropout."""

from __future__ import annotations

import numpy as np

import manual_bp as m
from oracles.strategies import constant, indices, real
from planted_bugs.planting import Wrong, at, bug

PLAIN, SEED = real(3, 4), indices(below=2**16)
KEPT = 7  # the seed whose first entry stays at a rate of 0.9


def dropout(rate=0.5, z=PLAIN, rng=SEED):
    return at(m.Dropout(rate), z=z, rng=rng)


EVALUATED = at(m.Dropout(0.5, training=False), z=PLAIN)


@bug("all_zero", dropout(0.9, real(1, 1), constant(KEPT)), silent=EVALUATED)
def mask_drawn_again_in_backward(layer):
    def backward(cache, delta):
        z, factors = cache
        if factors is None:
            return layer.backward(cache, delta)
        return layer.backward((z, layer._factors(z, np.random.default_rng(factors.size))), delta)

    return Wrong(layer, backward)


@bug("constant_factor", dropout(), silent=EVALUATED)
def backward_not_rescaled(layer):
    def backward(cache, delta):
        z, factors = cache
        return layer.backward((z, factors if factors is None else (factors != 0).astype(z.dtype)), delta)

    return Wrong(layer, backward)


@bug("constant_factor", dropout(0.25), silent=dropout(), refused_by="primal_agrees")
def divided_by_the_rate_of_dropping(layer):
    def forward(params, z):
        y, (kept, factors) = layer.forward(params, z)
        if factors is not None and layer.rate:
            factors = factors * factors.dtype.type((1 - layer.rate) / layer.rate)
            y = kept * factors
        return y, (kept, factors)

    return Wrong(layer, forward=forward)


_HIDDEN = np.random.default_rng(0)


@bug("not_repeatable", dropout(), silent=EVALUATED, refused_by="same_every_time")
def generator_hidden_in_the_module(layer):
    def forward(params, z):
        return layer.forward(params, (z[0], _HIDDEN) if layer.training else z)

    return Wrong(layer, forward=forward)

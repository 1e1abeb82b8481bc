"""Bugs in Dropout."""

from __future__ import annotations

import numpy as np

import manual_bp as m
from oracles.strategies import constant, indices, real
from planted_bugs.planting import Mutant, bug, case_of

PLAIN, SEED = real(3, 4), indices(below=2**16)
SURVIVING_SEED = 7  # with this seed the only entry survives a rate of 0.9


def dropout(rate=0.5, z=PLAIN, rng=SEED):
    return case_of(m.Dropout(rate), z=z, rng=rng)


EVALUATED = case_of(m.Dropout(0.5, training=False), z=PLAIN)


@bug("all_zero", dropout(0.9, real(1, 1), constant(SURVIVING_SEED)), silent=EVALUATED)
def mask_drawn_again_in_backward(layer):
    def backward(cache, delta):
        z, factors = cache
        if factors is None:
            return layer.backward(cache, delta)
        return layer.backward((z, layer._factors(z, np.random.default_rng(factors.size))), delta)

    return Mutant(layer, backward)


@bug("constant_factor", dropout(), silent=EVALUATED)
def backward_not_rescaled(layer):
    def backward(cache, delta):
        z, factors = cache
        return layer.backward((z, factors if factors is None else (factors != 0).astype(z.dtype)), delta)

    return Mutant(layer, backward)


@bug("constant_factor", dropout(0.25), silent=dropout(), refused_by="primal_agrees")
def divided_by_the_rate_of_dropping(layer):
    def forward(params, z):
        y, (inputs, factors) = layer.forward(params, z)
        if factors is not None and layer.rate:
            factors = factors * factors.dtype.type((1 - layer.rate) / layer.rate)
            y = inputs * factors
        return y, (inputs, factors)

    return Mutant(layer, forward=forward)


_HIDDEN = np.random.default_rng(0)


@bug("not_repeatable", dropout(), silent=EVALUATED, refused_by="same_every_time")
def generator_hidden_in_the_module(layer):
    def forward(params, z):
        return layer.forward(params, (z[0], _HIDDEN) if layer.training else z)

    return Mutant(layer, forward=forward)

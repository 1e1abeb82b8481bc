"""Lifts of hand-written NumPy into a Rule: a pair of functions, and the layers and losses of `manual_bp`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from manual_bp.protocol import as_tuple, inputs_of
from oracles.rule import Array, Cotangents, Primals, Pullback, Rule, describe


def manual(
    forward: Callable[..., tuple[Any, Any]], backward: Callable[[Any, Any], Any], *, name: str | None = None
) -> Rule:
    """Lift a hand-written pair into a Rule.

    Args:
        forward: ``forward(**primals) -> (y, cache)``.
        backward: ``backward(cache, delta)`` returns ``{name: cotangent}``, or a tuple in the primals' order (one
            array where there is one primal). ``None`` or a missing name claims no gradient for that primal.
        name: what reports call it; the forward's name by default.
    """
    label = name or str(getattr(forward, "__qualname__", "manual"))

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        came = forward(**primals)
        if not (isinstance(came, tuple) and len(came) == 2):
            raise TypeError(
                f"{label}: forward must return a pair (y, cache), got {describe(came)}.\n"
                "Fix:    y = ...\n        return y, (z, W)      # whatever backward needs"
            )
        y, cache = came
        return y, lambda delta: named_cotangents(backward(cache, delta), primals, label)

    return Rule(evaluate, label)


def manual_layer(layer: Any, *, name: str | None = None) -> Rule:
    """Lift a Layer of `manual_bp.protocol` into a Rule over its inputs (``z``, unless it names others) and parameters.

    An integer primal for an input called ``rng`` is the seed of a generator that is made anew for every evaluation.
    """
    names = inputs_of(layer)

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        inputs = tuple(_generator(primals[n]) if n.split(".")[-1] == "rng" else primals[n] for n in names)
        params = {n: a for n, a in primals.items() if n not in names}
        y, cache = layer.forward(params, inputs if len(names) > 1 else inputs[0])

        def pullback(delta: Any) -> Cotangents:
            dz, dparams = layer.backward(cache, delta)
            return {**{n: g for n, g in zip(names, as_tuple(dz), strict=True) if g is not None}, **dparams}

        return y, pullback

    return Rule(evaluate, name or repr(layer), lifted=layer)


def _generator(seed: Array) -> np.random.Generator:
    return np.random.default_rng(int(seed))


def manual_loss(loss: Any, target: Array | None = None, *, name: str | None = None) -> Rule:
    """Lift a Loss of `manual_bp.protocol` into a Rule over ``y``, with the given target or a primal ``target``.

    No gradient is claimed for the target.
    """

    def evaluate(y: Array, **rest: Array) -> tuple[Any, Pullback]:
        value, cache = loss.forward(y, rest["target"] if target is None else target)
        return value, lambda delta: {"y": loss.backward(cache, delta)}

    return Rule(evaluate, name or repr(loss), lifted=loss)


def manual_objective(network: Any, loss: Any, *, name: str | None = None) -> Rule:
    """Lift a network and its loss into one Rule over ``z``, ``target`` and the network's parameters."""

    def evaluate(z: Array, target: Array, **params: Array) -> tuple[Any, Pullback]:
        y, cache = network.forward(params, z)
        value, loss_cache = loss.forward(y, target)

        def pullback(delta: Any) -> Cotangents:
            dz, dparams = network.backward(cache, loss.backward(loss_cache, delta))
            return {"z": dz, **dparams}

        return value, pullback

    return Rule(evaluate, name or f"{loss!r} of {network!r}", lifted=(network, loss))


def named_cotangents(came: Any, primals: Primals, label: str) -> Cotangents:
    """Return what a hand-written backward returned as ``{name: cotangent}``, dropping ``None``."""
    if not isinstance(came, Mapping):
        parts = came if isinstance(came, tuple) else (came,)
        if len(parts) != len(primals):
            raise TypeError(
                f"{label}: backward returned {describe(came)}, expected a dict or a tuple of {len(primals)} "
                f"cotangents in the order of the primals ({', '.join(primals)}).\n"
                f"Fix:    return {{{', '.join(f'{n!r}: d{n}' for n in list(primals)[:3])}}}"
            )
        came = dict(zip(primals, parts, strict=True))
    unknown = [n for n in came if n not in primals]
    if unknown:
        raise ValueError(f"{label}: backward returned a cotangent for {unknown}, but the primals are {list(primals)}")
    return {n: g for n, g in came.items() if g is not None}

"""Lifts of hand-written functions into a Rule: a pair, and the layers and losses of `manual_bp`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from manual_bp.protocol import as_tuple, inputs_of
from oracles.backends.arrays import Backend, Framework, backend_for
from oracles.rule import (
    Array,
    Cotangents,
    InvalidInput,
    Primals,
    Pullback,
    Rule,
    call_by_name,
    describe,
    is_differentiable,
)


def manual(
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[[Any, Any], Any],
    *,
    arrays: Framework = "numpy",
    device: Any = None,
    dtypes: Sequence[str] | None = None,
    name: str | None = None,
) -> Rule:
    """Lift a hand-written pair into a Rule.

    Nothing is assumed of what is inside: NumPy, a compiled function behind ctypes, a Triton kernel.

    Args:
        forward: ``forward(**primals) -> (y, cache)``.
        backward: ``backward(cache, delta)`` returns ``{name: cotangent}``, or a tuple in the primals' order (one
            array where there is one primal). ``None`` or a missing name claims no gradient for that primal.
        arrays: what the pair is fed and returns: "numpy", "torch" (tensors without grad) or "jax".
        device: where torch tensors live, "cuda" for example; by default the CPU.
        dtypes: the only floating dtypes that the pair may be fed, say ``("float64",)`` for compiled code that takes a
            pointer; by default all, and python-flint's balls.
        name: what reports call it; the forward's name by default.

    Raises:
        InvalidInput: when evaluated, if forward does not return a pair or its parameters are not the primals, or if
            backward returns a cotangent that belongs to no primal.
    """
    label = name or str(getattr(forward, "__qualname__", "manual"))
    backend = backend_for(arrays, device, None if dtypes is None else tuple(dtypes))

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        with backend.context():
            came = call_by_name(forward, backend.from_numpy_all(primals))
        if not (isinstance(came, tuple) and len(came) == 2):
            raise InvalidInput(
                f"{label}: forward must return a pair (y, cache), got {describe(came)}.\n"
                "Fix:    y = ...\n        return y, (z, W)      # whatever backward needs"
            )
        y, cache = came

        def pullback(delta: Any) -> Cotangents:
            with backend.context():
                found = backward(cache, taken(delta, backend))
            return {n: backend.to_numpy(g) for n, g in named_cotangents(found, primals, label).items()}

        return given(y, backend), pullback

    return Rule(evaluate, label, framework=backend.framework, implementation=(forward, backward))


def elementwise(
    f: Callable[[Any], Any],
    derivative: Callable[[Any], Any],
    *,
    of: str = "input",
    arrays: Framework = "numpy",
    name: str | None = None,
) -> Rule:
    """Lift an activation and its derivative, dL/dz = delta · f'(z), into a Rule of one primal.

    Args:
        f: the activation, entry by entry.
        derivative: f' as a function ``of`` the "input" z, or of the "output" f(z): ``lambda a: a * (1 - a)``. For
            ``f(x, prime=True)`` it is ``lambda z: f(z, prime=True)``.
        arrays, name: as in `manual`.
    """
    if of not in ("input", "output"):
        raise InvalidInput(f"elementwise: of: expected 'input' or 'output', got {of!r}")
    backend = backend_for(arrays)
    label = name or str(getattr(f, "__qualname__", "elementwise"))

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        if len(primals) != 1:
            raise InvalidInput(f"{label}: an elementwise function takes one primal, got {', '.join(primals)}")
        ((primal, array),) = primals.items()
        with backend.context():
            z = backend.from_numpy(array)
            y = f(z)

        def pullback(delta: Any) -> Cotangents:
            with backend.context():
                return {primal: backend.to_numpy(taken(delta, backend) * derivative(z if of == "input" else y))}

        return backend.to_numpy(y), pullback

    return Rule(evaluate, label, framework=backend.framework, implementation=(f, derivative))


def value_and_grad(
    f: Callable[..., tuple[Any, Any]],
    wrt: str | Sequence[str] | None = None,
    *,
    arrays: Framework = "numpy",
    name: str | None = None,
) -> Rule:
    """Lift a loss that returns its value and its gradient together: ``f(**primals) -> (value, gradient)``.

    The cotangent of a primal is delta times its gradient: of a loss for each row, the row's delta times the row.

    Args:
        f: returns the value, and the gradient of one primal, or several as a tuple or as ``{name: gradient}``.
        wrt: the primals that a gradient, or a tuple of them, belongs to; by default every floating primal, or the
            first one where a single gradient comes back.
        arrays, name: as in `manual`.
    """
    label = name or str(getattr(f, "__qualname__", "value_and_grad"))
    backend = backend_for(arrays)

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        with backend.context():
            came = call_by_name(f, backend.from_numpy_all(primals))
        if not (isinstance(came, tuple) and len(came) == 2):
            raise InvalidInput(
                f"{label}: expected a pair (value, gradient), got {describe(came)}.\nFix:    return loss, dy"
            )
        value, gradients = given(came[0], backend), given(came[1], backend)
        named = _gradients(gradients, primals, (wrt,) if isinstance(wrt, str) else wrt, label)

        def pullback(delta: Any) -> Cotangents:
            return {n: _times(np.asarray(delta), g) for n, g in named.items()}

        return value, pullback

    return Rule(evaluate, label, framework=backend.framework, implementation=f)


def _gradients(came: Any, primals: Primals, wrt: Sequence[str] | None, label: str) -> Cotangents:
    if isinstance(came, Mapping):
        return named_cotangents(came, primals, label)
    floating = [n for n, a in primals.items() if is_differentiable(a)]
    names = tuple(wrt) if wrt is not None else tuple(floating if isinstance(came, tuple) else floating[:1])
    parts = came if isinstance(came, tuple) else (came,)
    if len(parts) != len(names) or any(n not in primals for n in names):
        raise InvalidInput(
            f"{label}: {len(parts)} gradient(s) came back for wrt={names}, the primals are {', '.join(primals)}.\n"
            f"Fix: say which they belong to:    oracles.value_and_grad(f, wrt={tuple(floating[: len(parts)])})"
        )
    return {n: g for n, g in zip(names, parts, strict=True) if g is not None}


def _times(delta: Array, gradient: Any) -> Any:
    """Return delta · gradient, delta along the first axes of the gradient; what is no array is left to the judge."""
    if not isinstance(gradient, np.ndarray | np.generic):
        return gradient
    return np.asarray(delta.reshape(delta.shape + (1,) * (np.ndim(gradient) - delta.ndim)) * gradient)


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

    return Rule(evaluate, name or repr(layer), implementation=layer, adapt=manual_layer)


def _generator(seed: Array) -> np.random.Generator:
    return np.random.default_rng(int(seed))


def manual_loss(loss: Any, target: Array | None = None, *, name: str | None = None) -> Rule:
    """Lift a Loss of `manual_bp.protocol` into a Rule over ``y``, with the given target or a primal ``target``.

    No gradient is claimed for the target.
    """

    def evaluate(y: Array, **rest: Array) -> tuple[Any, Pullback]:
        value, cache = loss.forward(y, rest["target"] if target is None else target)
        return value, lambda delta: {"y": loss.backward(cache, delta)}

    return Rule(evaluate, name or repr(loss), implementation=loss, adapt=lambda other: manual_loss(other, target))


def manual_objective(network: Any, loss: Any, *, name: str | None = None) -> Rule:
    """Lift a network and its loss into one Rule over ``z``, ``target`` and the network's parameters."""

    def evaluate(z: Array, target: Array, **params: Array) -> tuple[Any, Pullback]:
        y, cache = network.forward(params, z)
        value, loss_cache = loss.forward(y, target)

        def pullback(delta: Any) -> Cotangents:
            dz, dparams = network.backward(cache, loss.backward(loss_cache, delta))
            return {"z": dz, **dparams}

        return value, pullback

    label = name or f"{loss!r} of {network!r}"
    return Rule(evaluate, label, implementation=(network, loss), adapt=lambda pair: manual_objective(*pair))


def taken(delta: Any, backend: Backend) -> Any:
    """Return a cotangent, or a tuple of them, as the subject's own arrays."""
    return tuple(map(backend.from_numpy, delta)) if isinstance(delta, tuple) else backend.from_numpy(delta)


def given(tree: Any, backend: Backend) -> Any:
    """Return outputs, or cotangents by name, as NumPy arrays; what is no array of the subject's is left as it is."""
    if isinstance(tree, Mapping):
        return {n: backend.to_numpy(a) for n, a in tree.items()}
    return type(tree)(map(backend.to_numpy, tree)) if type(tree) in (tuple, list) else backend.to_numpy(tree)


def named_cotangents(came: Any, primals: Primals, label: str) -> Cotangents:
    """Return what a hand-written backward returned as ``{name: cotangent}``, dropping ``None``.

    Raises:
        InvalidInput: if that is no mapping, and no tuple of one cotangent for each primal, or for each floating one.
    """
    if not isinstance(came, Mapping):
        parts = came if isinstance(came, tuple) else (came,)
        floating = [n for n, a in primals.items() if is_differentiable(a)]
        names = next((n for n in (list(primals), floating) if len(n) == len(parts)), None)
        if names is None or came is None:
            raise InvalidInput(
                f"{label}: backward returned {describe(came)}, expected a dict or a tuple of {len(primals)} "
                f"cotangents in the order of the primals ({', '.join(primals)}).\n"
                f"Fix:    return {{{', '.join(f'{n!r}: d{n}' for n in floating[:3])}}}"
            )
        came = dict(zip(names, parts, strict=True))
    unknown = [n for n in came if n not in primals]
    if unknown:
        raise InvalidInput(
            f"{label}: backward returned a cotangent for {unknown}, but the primals are {list(primals)}.\n"
            f"Fix:    return {{{', '.join(f'{n!r}: d{n}' for n, a in primals.items() if is_differentiable(a))}}}"
        )
    return {n: g for n, g in came.items() if g is not None}

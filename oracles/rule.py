"""The one contract of the judge: a Rule maps primals to an output and a pullback.

    rule(**primals) -> (y, pullback)        pullback(delta) -> {name: cotangent}

``delta`` is the cotangent ∂L/∂y of the output; a cotangent ∂L/∂p has the shape and dtype of its primal p. Subject
and oracle are both Rules, so one set of lifts and checks serves both. Integer and boolean primals (indices, masks,
labels) have no cotangent. ``y`` and ``delta`` may be tuples of arrays.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Output: TypeAlias = Array | tuple[Array, ...]
Primals: TypeAlias = Mapping[str, Array]
Cotangents: TypeAlias = dict[str, Any]
Pullback: TypeAlias = Callable[[Any], Cotangents]
Evaluate: TypeAlias = Callable[..., tuple[Any, Pullback]]


class Enclosure(NamedTuple):
    """A value known up to a radius: ``|truth − mid| ≤ radius`` entry by entry.

    Oracles that know their own error (finite differences, ball arithmetic) return these as cotangents; the others
    return arrays.
    """

    mid: Array
    radius: Array


class Proof(NamedTuple):
    """An enclosure, and the rigorous bound on what any rounding of the subject's own primal can do to it."""

    mid: Array
    radius: Array
    rounding: Array


class Shake(NamedTuple):
    """How to imitate rounding: an operand x is replaced by ``x (1 ± h) ± floor`` with independent random signs.

    ``h`` imitates relative rounding, ``floor`` the absolute error of gradual underflow.
    """

    rng: np.random.Generator
    h: float
    floor: float = 0.0


class Opaque(NotImplementedError):
    """A rule cannot be perturbed at this point: its operations run where they cannot be reached."""


Perturbed: TypeAlias = Callable[[Primals, Any, Shake], tuple[tuple[Array, ...], Cotangents]]


@dataclass(frozen=True)
class Rule:
    """A differentiable operation: ``rule(**primals)`` returns ``(y, pullback)``.

    Attributes:
        evaluate: the function behind ``rule(**primals)``.
        name: what reports call it: "torch", "jax", "Linear(n_in=3, n_out=2)".
        perturbed: ``perturbed(primals, delta, shake) -> (outputs, cotangents)`` evaluates output and pullback with
            every floating operand of every rounding operation shaken, or raises `Opaque`; ``None`` where the rule
            can never be seen into. `oracles.rounding` derives tolerances from it.
        reference: the primal that a framework differentiates, as its user wrote it.
        framework: "torch", "jax", or "" for NumPy.
        lifted: the object that was lifted, where it was one: a layer, a loss, the pair (network, loss).
        relift: lifts another such object in the same way.
    """

    evaluate: Evaluate
    name: str = "rule"
    perturbed: Perturbed | None = None
    reference: Callable[..., Any] | None = None
    framework: str = ""
    lifted: Any = None
    relift: Callable[[Any], Rule] | None = None

    def __call__(self, **primals: Array) -> tuple[Any, Pullback]:
        """Evaluate at the primals: the output and its pullback."""
        return self.evaluate(**primals)


def outputs(y: Any) -> tuple[Any, ...]:
    """Return an output, or a cotangent of one, as a tuple: one array becomes a tuple of one."""
    return tuple(y) if isinstance(y, tuple | list) else (y,)


def is_differentiable(array: Any) -> bool:
    """Return whether an array has a cotangent: floating dtypes have, integers and booleans have not."""
    dtype = array.dtype if isinstance(array, np.ndarray) else np.asarray(array).dtype
    return dtype.kind == "f" or dtype.name == "bfloat16"


def with_dtype(tree: Any, dtype: npt.DTypeLike) -> Any:
    """Cast every floating array of a mapping, a tuple or a single array to ``dtype``; leave integers as they are."""
    if isinstance(tree, Mapping):
        return {name: with_dtype(array, dtype) for name, array in tree.items()}
    if isinstance(tree, tuple):
        return tuple(with_dtype(array, dtype) for array in tree)
    return np.asarray(tree, dtype) if is_differentiable(tree) else tree


def called(f: Callable[..., Any], primals: Mapping[str, Any]) -> Any:
    """Call a reference by the names of the primals, or in their order where it has no such parameters (torch.sin)."""
    return f(**primals) if _takes(f, tuple(primals)) else f(*primals.values())


@lru_cache(maxsize=4096)
def _takes(f: Callable[..., Any], names: tuple[str, ...]) -> bool:
    try:
        signature = inspect.signature(f)
    except (TypeError, ValueError):
        return False  # builtins show no signature; most take no names
    required = [p for p in signature.parameters.values() if p.default is p.empty]
    positional = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in required)
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError:
        return not (positional and len(required) == len(names) == 1)  # one primal can only be meant for one parameter
    return True


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
                f"{label}: forward must return a pair (y, cache), got {_describe(came)}.\n"
                "Fix:    y = ...\n        return y, (z, W)      # whatever backward needs"
            )
        y, cache = came
        return y, lambda delta: _named(backward(cache, delta), primals, label)

    return Rule(evaluate, label)


def manual_layer(layer: Any, *, name: str | None = None) -> Rule:
    """Lift a Layer of `manual_bp.protocol` into a Rule over ``z`` and its parameters."""

    def evaluate(z: Array, **params: Array) -> tuple[Any, Pullback]:
        y, cache = layer.forward(params, z)

        def pullback(delta: Any) -> Cotangents:
            dz, dparams = layer.backward(cache, delta)
            return {"z": dz, **dparams}

        return y, pullback

    return Rule(evaluate, name or repr(layer), lifted=layer, relift=manual_layer)


def manual_loss(loss: Any, target: Array | None = None, *, name: str | None = None) -> Rule:
    """Lift a Loss of `manual_bp.protocol` into a Rule over ``y``, with the given target or a primal ``target``.

    No gradient is claimed for the target.
    """

    def evaluate(y: Array, **rest: Array) -> tuple[Any, Pullback]:
        value, cache = loss.forward(y, rest["target"] if target is None else target)
        return value, lambda delta: {"y": loss.backward(cache, delta)}

    return Rule(evaluate, name or repr(loss), lifted=loss, relift=lambda other: manual_loss(other, target))


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
    return Rule(evaluate, label, lifted=(network, loss), relift=lambda pair: manual_objective(*pair))


def _named(came: Any, primals: Primals, label: str) -> Cotangents:
    """Return what a hand-written backward returned as ``{name: cotangent}``, dropping ``None``."""
    if not isinstance(came, Mapping):
        parts = came if isinstance(came, tuple) else (came,)
        if len(parts) != len(primals):
            raise TypeError(
                f"{label}: backward returned {_describe(came)}, expected a dict or a tuple of {len(primals)} "
                f"cotangents in the order of the primals ({', '.join(primals)}).\n"
                f"Fix:    return {{{', '.join(f'{n!r}: d{n}' for n in list(primals)[:3])}}}"
            )
        came = dict(zip(primals, parts, strict=True))
    unknown = [n for n in came if n not in primals]
    if unknown:
        raise ValueError(f"{label}: backward returned a cotangent for {unknown}, but the primals are {list(primals)}")
    return {n: g for n, g in came.items() if g is not None}


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, dtype {value.dtype}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r:.60} ({type(value).__name__})"

"""The Rule, a differentiable operation: primals -> (output, pullback). Subjects and oracles are Rules alike.

    rule(**primals) -> (y, pullback)        pullback(delta) -> {name: cotangent}

``delta`` is the cotangent ∂L/∂y of the output; a cotangent ∂L/∂p has the shape and dtype of its primal p.
Integer and boolean primals (indices, masks, labels) have no cotangent. ``y`` and ``delta`` may be tuples of arrays.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True, eq=False)
class Enclosure:
    """A certified enclosure: a value known up to a radius, ``|truth − mid| ≤ radius`` entry by entry.

    Oracles that know their own error (finite differences, ball arithmetic) return these as cotangents; the others
    return arrays.

    Attributes:
        mid: the midpoints, in float64.
        radius: the radii, in the same shape.
        rounding: a rigorous bound on how far any rounding of the subject's own primal can be from the truth;
            ``None`` where it is not known, so that a tolerance bounds the rounding.
    """

    mid: Array
    radius: Array
    rounding: Array | None = None


Answer: TypeAlias = Array | Enclosure  # what an oracle computes: one output or one cotangent


class Perturbation(NamedTuple):
    """Simulated rounding: an operand x becomes ``x (1 ± relative) ± absolute``, with independent random signs.

    Attributes:
        rng: draws the signs.
        relative: the size of a simulated rounding error, as a fraction of the operand.
        absolute: the size of a simulated underflow error.
        forward: whether the forward is perturbed too. If not, the pullback alone is, at unperturbed residuals.
    """

    rng: np.random.Generator
    relative: float
    absolute: float = 0.0
    forward: bool = True


class InvalidInput(TypeError, ValueError):
    """Invalid arguments. The message states what was expected, what was given, and the line to write instead."""


class ReferenceFailed(RuntimeError):
    """A reference raised an exception, so nothing is known about the subject. ``__cause__`` is that exception."""


class NotPerturbable(NotImplementedError):
    """The operations of a rule cannot be perturbed at this point, since they run outside Python's reach."""


EvaluatePerturbed: TypeAlias = Callable[[Primals, Any, Perturbation], tuple[tuple[Array, ...], Cotangents]]


@dataclass(frozen=True)
class Rule:
    """A differentiable operation: ``rule(**primals)`` returns ``(y, pullback)``.

    Attributes:
        evaluate: the function behind ``rule(**primals)``.
        name: what reports call it: "torch", "jax", "Linear(n_in=3, n_out=2)".
        evaluate_perturbed: ``evaluate_perturbed(primals, delta, perturbation) -> (outputs, cotangents)`` evaluates
            output and pullback with every floating operand of every rounding operation perturbed, or raises
            `NotPerturbable`; ``None`` if the rule can never be perturbed. `oracles.tolerance` derives tolerances
            from it.
        reference: the primal that a framework differentiates, as its user wrote it.
        implementation: the object that the rule was made from (a layer, a class, a pair of functions), if any.
        adapt: makes a Rule of another such object in the same way.
        call_patterns: other ways of calling the same subject, by name; each must give what ``evaluate`` gives.
        read_error: ``read_error(primals, u)`` bounds the error made in reading the cotangents, u being the unit
            roundoff: a gradient recovered from an optimizer's update carries the rounding of the parameter.
        declared: the conventions that the subject declares, see `oracles.declared`.
        framework: what computes inside: "torch", "jax", "compiled" …, or "" for NumPy alone, which runs on balls too.
    """

    evaluate: Evaluate
    name: str = "rule"
    evaluate_perturbed: EvaluatePerturbed | None = None
    reference: Callable[..., Any] | None = None
    framework: str = ""
    implementation: Any = None
    adapt: Callable[[Any], Rule] | None = None
    call_patterns: Mapping[str, Evaluate] = field(default_factory=dict)
    read_error: Callable[[Primals, float], Mapping[str, Array]] | None = None
    declared: Any = None

    def __call__(self, **primals: Array) -> tuple[Any, Pullback]:
        """Evaluate at the primals: the output and its pullback."""
        return self.evaluate(**primals)


def as_tuple(y: Any) -> tuple[Any, ...]:
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


def call_by_name(f: Callable[..., Any], primals: Mapping[str, Any]) -> Any:
    """Call a reference by the names of the primals, or in their order where it has no such parameters (torch.sin).

    Raises:
        InvalidInput: if its parameters are others than the primals.
    """
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
        if positional and len(required) == len(names) == 1:
            return False  # one primal can only be meant for one parameter
        raise InvalidInput(
            f"{getattr(f, '__qualname__', f)} takes {signature}, but the primals are {', '.join(names)}.\n"
            f"Fix: name its parameters like the primals:\n    def {_plain_name(f)}({', '.join(names)}): ..."
        ) from None
    return True


def _plain_name(f: Any) -> str:
    name = str(getattr(f, "__name__", "reference"))
    return name if name.isidentifier() else "reference"


def describe(value: Any) -> str:
    """Describe a value for an error message."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, dtype {value.dtype}"
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}"
    if value is None:
        return "nothing (None)"
    if hasattr(value, "requires_grad"):
        with_grad = ", requires grad" if value.requires_grad else ""
        return f"a torch tensor of shape {tuple(value.shape)} ({str(value.dtype).removeprefix('torch.')}{with_grad})"
    return f"{value!r:.60} ({type(value).__name__})"

"""References that differ from the derivative of the value: detached terms, and inaccurate implementations.

What a reference detaches, a straight-through estimator and a reversed gradient define the wanted gradient. Ball
arithmetic and finite differences know only the derivative of the forward's value. So they arbitrate differences of the
size of an inaccurate implementation, and never a gross one against a reference that may declare its gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from oracles.backends.devices import calls_on, there
from oracles.constants import ASKED_ENTRIES, GROSS_DIFFERENCE
from oracles.decision.comparison import Comparison, half_of_the_digits, value_and_radius
from oracles.finite_differences import directional_derivative
from oracles.lazy_modules import JaxArray, jax, torch
from oracles.perturbation.jaxpr_reading import contains
from oracles.rule import Array, Enclosure, Function, Primals, Rule, Runtime, as_tuple
from oracles.signatures import call_by_name
from oracles.user_code import Raised, attempt

Node: TypeAlias = Any  # a node of torch's graph of backward functions

# Primitives of JAX whose derivative is what their author says.
DECLARED_PRIMITIVES = ("stop_gradient", "custom_jvp_call", "custom_vjp_call")
# Results that carry no gradient because they copy none of the values of their argument.
NO_VALUES = ("_like", "new_zeros", "new_ones", "new_full", "new_empty", "new_tensor")


def differs_grossly(comparison: Comparison, enclosure: Enclosure | None = None) -> bool:
    """Return whether a reference differs from the enclosure (by default, from the subject) by more than inaccuracy.

    A difference is gross where it exceeds the tolerance, `GROSS_DIFFERENCE` of the entry, and half of the digits of the
    largest entry. Only refused entries count.
    """
    middle, radius = value_and_radius(enclosure) if enclosure is not None else (comparison.value, 0.0)
    for reference in comparison.references:
        expected, _ = value_and_radius(comparison.answers[reference.name])
        size = np.abs(expected)
        scale = np.max(size, initial=0.0, where=np.isfinite(size))
        with np.errstate(invalid="ignore"):
            least = GROSS_DIFFERENCE * np.maximum(np.abs(middle), size) + half_of_the_digits("float64") * scale
            gross = np.abs(middle - expected) > comparison.tolerance + radius + least
        gross |= np.isfinite(middle) & np.isinf(expected)
        if np.any(gross & comparison.refused):
            return True
    return False


def finite_differences_agree(comparison: Comparison, reference: Rule) -> str:
    """Return in words that finite differences of both primals agree with the subject at the worst entries; else "".

    The reference's own cotangent must differ from the differences of its own primal there.
    """
    point, ratio = comparison.estimator, comparison.ratios[reference.name]
    expected, _ = value_and_radius(comparison.answers[reference.name])
    tolerances = np.broadcast_to(comparison.tolerance, ratio.shape)
    # The largest errors: the radius of finite differences is about the same for every entry.
    error = np.where(ratio > 1, np.abs(comparison.value - expected), 0.0)
    worst = [k for k in np.argsort(-error, axis=None)[:ASKED_ENTRIES] if error.flat[k] > 0]
    largest, decided = 0.0, False
    for k in worst:
        actual, tolerance = float(comparison.value.flat[k]), float(tolerances.flat[k])
        direction = np.zeros(ratio.shape)
        direction.flat[k] = 1.0
        is_off = True
        for rule in (comparison.setting.subject, reference):
            slope, radius = _slope(rule, point.primals, point.delta, {comparison.name: direction})
            if not abs(actual - slope) <= tolerance + radius:
                return ""
            is_off &= abs(float(expected.flat[k]) - slope) > tolerance + radius
            largest = max(largest, radius / abs(slope) if slope else radius)
        decided |= is_off
    if not decided:
        return ""
    return (
        f"finite differences of the subject's primal and of {reference.name}'s agree with the subject, up to "
        f"{largest:.0e}, and not with {reference.name}'s own backward"
    )


def _slope(rule: Rule, primals: Primals, delta: Any, direction: Mapping[str, Array]) -> tuple[float, float]:
    """Return a directional derivative and its radius, which is infinite if the rule has no value next to the point."""
    slope = attempt(lambda: directional_derivative(rule, primals, delta, direction))
    return (0.0, np.inf) if isinstance(slope, Raised) else slope


def may_declare_gradient(reference: Rule, primals: Primals) -> bool:
    """Return whether a reference's code can define a gradient that is not the derivative of its value.

    In torch: a floating result without a gradient of an argument with one (``detach``, ``no_grad``, ``item``), a hook,
    or an `autograd.Function`. In JAX: ``stop_gradient``, ``custom_jvp`` or ``custom_vjp``. True if it is not known.
    """
    declares = {Runtime.TORCH: _torch_declares, Runtime.JAX: _jax_declares}.get(reference.runtime)
    f = reference.reference
    if f is None or declares is None:
        return True
    with calls_on(reference.device, reference.runtime):
        result = attempt(lambda: declares(f, primals))
    return isinstance(result, Raised) or result


def _torch_declares(f: Function, primals: Primals) -> bool:
    names: list[str] = []

    class Watch(torch.overrides.TorchFunctionMode):  # type: ignore[misc,name-defined]  # its base is untyped
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            name = getattr(function, "__name__", "")
            if name == "register_hook" or (_loses_gradient(result, args) and not name.endswith(NO_VALUES)):
                names.append(name)
            return result

    tensors = {n: there(torch.from_numpy(np.array(a))) for n, a in primals.items()}
    leaves = {n: t.requires_grad_() if t.is_floating_point() else t for n, t in tensors.items()}
    with torch.enable_grad(), Watch():
        y = call_by_name(f, leaves)
    return bool(names) or any(_has_custom_backward(part.grad_fn) for part in as_tuple(y))


def _loses_gradient(result: Any, args: Sequence[Any]) -> bool:
    """Return whether a floating result of arguments that require a gradient requires none."""
    without = type(result) is float or (
        isinstance(result, torch.Tensor) and result.is_floating_point() and not result.requires_grad
    )
    return without and any(isinstance(a, torch.Tensor) and a.requires_grad for a in args)


def _has_custom_backward(node: Node) -> bool:
    """Return whether an `autograd.Function` is in a graph of backward functions."""
    nodes, seen = [node], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(node)
        nodes += [child for child, _ in node.next_functions]
    return False


def _jax_declares(f: Function, primals: Primals) -> bool:
    def positional(*arrays: JaxArray) -> JaxArray:
        return call_by_name(f, dict(zip(primals, arrays, strict=True)))

    with jax.enable_x64(True):
        return contains(jax.make_jaxpr(positional)(*primals.values()).jaxpr, *DECLARED_PRIMITIVES)

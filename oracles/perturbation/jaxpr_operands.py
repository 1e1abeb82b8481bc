"""The calls around one operation of a perturbed jaxpr: they perturb its operands, and guard its result.

A perturbed operand may leave the domain: the arcsine of 1 + 1e-15 is NaN. A guarded result then is that of the plain
run, perturbed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from oracles.perturbation.jaxpr_kernels import fill
from oracles.perturbation.jaxpr_primitives import is_trivial_factor
from oracles.perturbation.random_signs import Perturb
from oracles.rule import Array
from oracles.user_code import Raised, attempt


def perturb_all(perturb: Perturb, x: Array) -> Array:
    """Perturb every entry of an array in its own shape."""
    return perturb(x)


def perturb_as(
    shape: tuple[int, ...], terms: int, unless_exact: bool, product: bool = False
) -> Callable[[Perturb, Array], Array]:
    """Return the call that perturbs an operand of a reduction, broadcast to a shape, see `Perturb`."""
    return lambda perturb, x: perturb(x, shape, terms, unless_exact, product)


def run_guarded(
    function: Callable[..., Any], slots: int | Sequence[int], perturb: Perturb, plain: Sequence[Any], *operands: Array
) -> Any:
    """Call a function of perturbed operands; what it does not know there is its plain result, perturbed.

    Args:
        function: the function.
        slots: where ``plain`` has its plain result, or its several results.
        perturb: perturbs what is taken from there.
        plain: the memory of the plain run.
        operands: the perturbed operands.
    """
    expected = [plain[slot] for slot in ([slots] if isinstance(slots, int) else slots)]
    # A callback may raise anything outside of its domain.
    results = attempt(lambda: function(*operands))
    if isinstance(results, Raised):
        results = [x if x.dtype.kind in "iub" else perturb(x) for x in expected]
        return results[0] if isinstance(slots, int) else results
    if isinstance(slots, int):
        return _restored(results, expected[0], perturb)
    return [_restored(result, x, perturb) for result, x in zip(results, expected, strict=True)]


def _restored(result: Array, plain: Array, perturb: Perturb) -> Array:
    """Return a result, with the perturbed plain one wherever only that is finite."""
    if result.dtype.kind in "iub":
        return result
    lost = ~np.isfinite(result) & np.isfinite(plain)
    return np.where(lost, perturb(plain, result.shape), result) if lost.any() else result


def option_product(shape: tuple[int, ...], *are_options: bool) -> Callable[..., Array]:
    """Return the perturbed product with an option: exact where that is 0 or ±1, as if it were a constant."""
    of_x, of_y = are_options

    def multiply(perturb: Perturb, x: Array, y: Array) -> Array:
        if any(np.ndim(a) == 0 and is_trivial_factor(a) for a in (x, y)):
            return fill(np.asarray(x * y), shape)
        return np.asarray(perturb(x, shape, 1, of_x) * perturb(y, shape, 1, of_y))

    return multiply

"""PyTorch as an oracle: torch.autograd differentiates a reference that states the primal only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from oracles.rule import (
    Array,
    Cotangents,
    InvalidInput,
    Perturbation,
    Primals,
    Pullback,
    Rule,
    as_tuple,
    call_by_name,
    is_differentiable,
)


def torch_autograd(f: Callable[..., Any], *, name: str = "torch") -> Rule:
    """Lift ``f(**tensors) -> tensor or tuple``, written in torch's own idiom, into a Rule by ``torch.autograd.grad``.

    NumPy arrays go in and come out; computation is in the dtype of the primals. Primals that the output does not
    depend on get a zero cotangent; integer and boolean primals get none.

    Raises:
        TypeError: if ``f`` does not return a tensor or a tuple of tensors.
    """

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        import torch

        tensors, y = _forward(f, primals, name)

        def pullback(delta: Any) -> Cotangents:
            seeds = [_tensor(d) for d in as_tuple(delta)]
            return _gradients(tensors, y, seeds, retain=True)

        with torch.no_grad():
            arrays = tuple(_array(t) for t in as_tuple(y))
        return (arrays if isinstance(y, tuple | list) else arrays[0]), pullback

    def evaluate_perturbed(
        primals: Primals, delta: Any, perturbation: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        from oracles.perturbation.torch_operations import perturbed_operands

        plain = None if perturbation.forward else _forward(f, primals, name)
        with perturbed_operands(perturbation):
            tensors, y = plain or _forward(f, primals, name)
            gradients = _gradients(tensors, y, [_tensor(d) for d in as_tuple(delta)], retain=False)
        return tuple(_array(t) for t in as_tuple(y)), gradients

    return Rule(evaluate, name, evaluate_perturbed, f, "torch")


def torch_family(f: Callable[..., Any]) -> Callable[[Mapping[str, Any]], Rule]:
    """Return the function of options that lifts ``f(**tensors, **options)`` by `torch_autograd`."""
    return lambda options: torch_autograd(partial(f, **options) if options else f)


def _forward(f: Callable[..., Any], primals: Primals, name: str) -> tuple[dict[str, Any], Any]:
    import torch

    tensors = {n: _tensor(a).requires_grad_(is_differentiable(a)) for n, a in primals.items()}
    with torch.enable_grad():
        y = call_by_name(f, tensors)
    for part in as_tuple(y):
        if not isinstance(part, torch.Tensor):
            raise InvalidInput(
                f"{name}: the reference must return a torch tensor (or a tuple of them), got {type(part).__name__}"
            )
    return tensors, y


def _gradients(tensors: dict[str, Any], y: Any, seeds: list[Any], *, retain: bool) -> Cotangents:
    import torch

    leaves = {n: t for n, t in tensors.items() if t.requires_grad}
    pairs = [(part, seed) for part, seed in zip(as_tuple(y), seeds, strict=True) if part.requires_grad]
    if not pairs:
        return {n: np.zeros(tuple(t.shape), _array(t).dtype) for n, t in leaves.items()}
    heads, seeds = [p for p, _ in pairs], [s for _, s in pairs]
    found = torch.autograd.grad(
        heads, list(leaves.values()), seeds, retain_graph=retain, allow_unused=True, materialize_grads=True
    )
    return {n: _array(g) for n, g in zip(leaves, found, strict=True)}


def _tensor(array: Any) -> Any:
    """Copy an array of any layout into a tensor: torch takes neither negative strides nor read-only memory."""
    import torch

    array = np.asarray(array)
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array, order="C", copy=True))


def _array(tensor: Any) -> Array:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        import ml_dtypes

        return np.asarray(tensor.float().numpy().astype(ml_dtypes.bfloat16))
    return np.asarray(tensor.numpy())

"""Lift an `nn.Module` that has a hand-written backward inside, and watch what the engine would repair."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from oracles.adapters.functions import given, taken
from oracles.adapters.torch_functions import engine, floating, leaves
from oracles.backends.arrays import backend_for
from oracles.rule import Array, Cotangents, InvalidInput, Primals, Pullback, Rule, as_tuple, is_differentiable
from oracles.self_consistency import move_point


def torch_module(
    make: Any,
    *,
    params: Mapping[str, str] | None = None,
    device: Any = None,
    dtypes: Sequence[str] | None = None,
    name: str | None = None,
) -> Rule:
    """Lift an `nn.Module` into a Rule over its inputs and parameters, differentiated by autograd.

    Every `torch.autograd.Function` inside is watched: a gradient that the engine would sum to shape, or cast, is
    reported as what the Function returned.

    Args:
        make: the module's class, a function without arguments that makes one, or an instance to be copied.
        params: ``{primal: parameter}``; by default every primal that has a parameter's name ("linear.weight").
            The other primals are forward's arguments, by name where it has such, else in their order.
        device, dtypes, name: as in `torch_function`.

    Raises:
        InvalidInput: when evaluated, if a named parameter does not exist or has another shape than its primal.
    """
    backend = backend_for("torch", device, None if dtypes is None else tuple(dtypes))
    label = name or str(getattr(make, "__name__", type(make).__name__))

    def call_by_name(module: Any, tensors: Mapping[str, Any]) -> Any:
        import torch

        names = _named_parameters(module, params, tensors, label)
        inputs = {n: t for n, t in tensors.items() if n not in names}
        with torch.enable_grad():
            own = {names[n]: t for n, t in tensors.items() if n in names}
            try:
                inspect.signature(module.forward).bind(**inputs)
            except TypeError:
                return torch.func.functional_call(module, own, tuple(inputs.values()))
            return torch.func.functional_call(module, own, (), inputs)

    def run(primals: Primals, module: Any) -> tuple[Any, Pullback]:
        tensors = leaves(primals, floating(primals), backend)
        y = call_by_name(module, tensors)

        def pullback(delta: Any) -> Cotangents:
            for part in as_tuple(y):
                _watch(part.grad_fn)
            return engine(tensors, y, as_tuple(taken(delta, backend)), backend)

        return given(y, backend), pullback

    def fresh(primals: Primals) -> Any:
        import torch

        module = copy.deepcopy(make) if isinstance(make, torch.nn.Module) else make()
        dtype = next((backend.from_numpy(a).dtype for a in primals.values() if is_differentiable(a)), None)
        module = module.to(device=device, dtype=dtype)
        if any(isinstance(p, torch.nn.parameter.UninitializedParameter) for p in module.parameters()):
            named = {*(params or {})} | {n for n, _ in module.named_parameters()}
            module(*(backend.from_numpy(a) for n, a in primals.items() if n not in named))
        return module

    def twice(**primals: Array) -> tuple[Any, Pullback]:
        module = fresh(primals)
        run(move_point(primals), module)
        return run(primals, module)

    return Rule(
        lambda **primals: run(primals, fresh(primals)),
        label,
        framework="torch",
        implementation=make,
        call_patterns={"forward twice, then backward": twice},
    )


def _named_parameters(
    module: Any, params: Mapping[str, str] | None, tensors: Mapping[str, Any], label: str
) -> dict[str, str]:
    there = dict(module.named_parameters()) | dict(module.named_buffers())
    names = dict(params) if params is not None else {n: n for n in tensors if n in there}
    for n, parameter in names.items():
        if parameter not in there:
            raise InvalidInput(
                f"{label}: params: there is no {parameter!r}; the module has {', '.join(there) or 'none'}"
            )
        if n in tensors and tuple(there[parameter].shape) != tuple(tensors[n].shape):
            raise InvalidInput(
                f"{label}: params: {parameter} has shape {tuple(there[parameter].shape)}, "
                f"the primal {n} has {tuple(tensors[n].shape)}"
            )
    return {n: parameter for n, parameter in names.items() if n in tensors}


def _watch(root: Any) -> None:
    """Let every Function in a graph raise where the engine would repair what it returns."""
    from torch.autograd.function import BackwardCFunction

    for node in _nodes(root):
        if not isinstance(node, BackwardCFunction) or "apply" in vars(node):
            continue

        def watched(*deltas: Any, node: Any = node, raw: Callable[..., Any] = node.apply) -> Any:
            came = raw(*deltas)
            gradients = [g for g in (came if isinstance(came, tuple) else (came,)) if g is not None]
            shapes = [_like(edge) for edge in node.next_functions if edge[0] is not None]
            if len(gradients) == len(shapes):
                for i, (g, (shape, dtype)) in enumerate(zip(gradients, shapes, strict=True)):
                    if tuple(g.shape) != shape or g.dtype != dtype:
                        raise TypeError(
                            f"{type(node).__name__.removesuffix('Backward')}.backward returned shape {tuple(g.shape)}, "
                            f"{g.dtype} as its gradient {i}, expected {shape}, {dtype}: autograd's engine repairs it"
                        )
            return came

        node.apply = watched


def _nodes(root: Any) -> Iterator[Any]:
    pending, seen = [root], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            pending += [edge[0] for edge in node.next_functions]
            yield node


def _like(edge: Any) -> tuple[tuple[int, ...], Any]:
    """Return the shape and dtype that a gradient along an edge of the graph must have."""
    node, index = edge
    like = node.variable if hasattr(node, "variable") else node._input_metadata[index]
    return tuple(int(n) for n in like.shape), like.dtype

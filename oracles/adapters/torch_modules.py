"""Adapter of an `nn.Module` with hand-written backwards inside, before autograd's engine repairs what they return.

The engine calls ``node.apply`` of each custom Function, then sums and casts the gradients to what the inputs need, then
calls the hooks of the node. So an ``apply`` set on the node sees what the Function returned, and a hook sees the
repaired gradients; where they differ in shape or dtype, the pullback raises. torch has no hook before the repair, so
``apply`` is the one thing that is replaced, on the nodes of this graph alone.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from oracles.adapters.torch_functions import as_gradients, engine, floating, leaves
from oracles.backends.arrays import Backend, Device, backend_for
from oracles.backends.lazy import Tensor, torch
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Function,
    InvalidInput,
    Output,
    Primals,
    Pullback,
    Rule,
    Runtime,
    as_tuple,
    is_differentiable,
)
from oracles.self_consistency import move_point

Module: TypeAlias = Any  # a torch.nn.Module
Node: TypeAlias = Any  # a torch.autograd.graph.Node


def torch_module(
    make: Any,
    *,
    params: Mapping[str, str] | None = None,
    device: Device = None,
    dtypes: Sequence[str] | None = None,
    name: str | None = None,
) -> Rule:
    """Make a Rule of an `nn.Module`, over its inputs and parameters, differentiated by autograd.

    If a `torch.autograd.Function` inside returns a gradient that the engine would sum to shape, or cast, the pullback
    raises and names what the Function returned.

    Args:
        make: the module's class, a function without arguments that makes a module, or an instance, which is copied.
        params: ``{primal: parameter}``; by default every primal that has the name of a parameter ("linear.weight").
            The other primals are forward's arguments, by name if it has such parameters, else in their order.
        device: as in `torch_function`.
        dtypes: as in `torch_function`.
        name: what reports call the rule.

    Returns:
        The Rule.

    Raises:
        InvalidInput: when evaluated, if a named parameter does not exist or has another shape than its primal.
    """
    label = name or str(getattr(make, "__name__", type(make).__name__))
    subject = _Subject(make, params, device, backend_for("torch", device, dtypes), label)
    return Rule(
        subject.evaluate,
        label,
        runtime=Runtime.TORCH,
        implementation=make,
        call_patterns={"forward twice, then backward": subject.forward_twice},
    )


@dataclass(frozen=True)
class _Subject:
    """The arguments of `torch_module`, and the ways to evaluate it."""

    make: Module
    params: Mapping[str, str] | None
    device: Device
    backend: Backend
    label: str

    def evaluate(self, **primals: Array) -> tuple[Output, Pullback]:
        """Run forward and backward on a fresh module."""
        return self._run(primals, self._fresh(primals))

    def forward_twice(self, **primals: Array) -> tuple[Output, Pullback]:
        """Run forward at another point, then here: the cache must be that of the last forward."""
        module = self._fresh(primals)
        self._run(move_point(primals), module)
        return self._run(primals, module)

    def _run(self, primals: Primals, module: Module) -> tuple[Output, Pullback]:
        tensors = leaves(primals, floating(primals), self.backend)
        y = self._call(module, tensors)

        def pullback(delta: Delta) -> Cotangents:
            for part in as_tuple(y):
                _watch(part.grad_fn)
            return engine(tensors, y, as_tuple(self.backend.delta_from_numpy(delta)), self.backend)

        return self.backend.tree_to_numpy(y), pullback

    def _fresh(self, primals: Primals) -> Module:
        module = copy.deepcopy(self.make) if isinstance(self.make, torch.nn.Module) else self.make()
        dtype = next((self.backend.from_numpy(a).dtype for a in primals.values() if is_differentiable(a)), None)
        module = module.to(device=self.device, dtype=dtype)
        if any(isinstance(p, torch.nn.parameter.UninitializedParameter) for p in module.parameters()):
            # A lazy module gets the shapes of its parameters from its first forward.
            names = {*(self.params or {})} | {n for n, _ in module.named_parameters()}
            module(*(self.backend.from_numpy(a) for n, a in primals.items() if n not in names))
        return module

    def _call(self, module: Module, tensors: Mapping[str, Tensor]) -> Tensor:
        names = self._parameters(module, tensors)
        own = {names[n]: t for n, t in tensors.items() if n in names}
        inputs = {n: t for n, t in tensors.items() if n not in names}
        with torch.enable_grad():
            try:
                inspect.signature(module.forward).bind(**inputs)
            except TypeError:
                return torch.func.functional_call(module, own, tuple(inputs.values()))
            return torch.func.functional_call(module, own, (), inputs)

    def _parameters(self, module: Module, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Return the module's name of the parameter of each primal that is one."""
        existing = dict(module.named_parameters()) | dict(module.named_buffers())
        names = dict(self.params) if self.params is not None else {n: n for n in tensors if n in existing}
        for n, parameter in names.items():
            if parameter not in existing:
                raise InvalidInput(
                    f"{self.label}: params: expected one of {', '.join(existing) or 'no parameters'}, got {parameter!r}"
                )
            if n in tensors and tuple(existing[parameter].shape) != tuple(tensors[n].shape):
                raise InvalidInput(
                    f"{self.label}: params: {parameter}: expected shape {tuple(existing[parameter].shape)}, "
                    f"got {tuple(tensors[n].shape)} of the primal {n}"
                )
        return {n: parameter for n, parameter in names.items() if n in tensors}


@dataclass
class _Watch:
    """Compare what a Function returns with what the engine makes of it."""

    name: str
    apply: Function
    returned: list[Tensor] = field(default_factory=list)

    def call(self, *deltas: Tensor) -> Tensor:
        """Run the Function's backward; called by the engine in place of ``node.apply``."""
        result = self.apply(*deltas)
        self.returned = [g for g in as_gradients(result) if g is not None]
        return result

    def compare(self, repaired: Sequence[Tensor | None], deltas: object) -> None:
        """Raise if the engine changed a shape or a dtype; a hook of the node."""
        expected = [g for g in repaired if g is not None]
        if len(expected) != len(self.returned):
            return
        for i, (g, like) in enumerate(zip(self.returned, expected, strict=True)):
            if g.shape != like.shape or g.dtype != like.dtype:
                raise TypeError(
                    f"{self.name}.backward returned shape {tuple(g.shape)}, {g.dtype} as its gradient {i}, expected "
                    f"{tuple(like.shape)}, {like.dtype}: autograd's engine repairs it"
                )


def _watch(root: Node) -> None:
    """Make every custom Function in a graph raise if the engine repairs what it returns."""
    for node in _nodes(root):
        if isinstance(node, torch.autograd.function.BackwardCFunction) and "apply" not in vars(node):
            watch = _Watch(type(node).__name__.removesuffix("Backward"), node.apply)
            node.apply = watch.call
            node.register_hook(watch.compare)


def _nodes(root: Node) -> Iterator[Node]:
    pending, visited = [root], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in visited:
            visited.add(node)
            pending += [edge[0] for edge in node.next_functions]
            yield node

"""The calls that the children of an nn.Module get while it is evaluated once, noted by torch's own hooks."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from oracles.adapters.torch_code import torch_module
from oracles.diagnosis.layer_calls import made
from oracles.lazy_modules import torch
from oracles.rule import Array, Delta, Primals, Rule

Module: TypeAlias = Any  # a torch.nn.Module
Tensor: TypeAlias = Any
TORCHS_OWN = "torch.nn."  # modules whose derivative is autograd's


@dataclass(eq=False)
class ModuleCall:
    """One forward of a module inside another one.

    Attributes:
        location: its name in the whole module: "layers.2".
        module: a copy of it, from before the evaluation.
        primals: its inputs and parameters.
        delta: the cotangent of its output.
        device: where the whole module is evaluated, if it is said.
    """

    location: str
    module: Module
    primals: dict[str, Array]
    delta: Array
    device: str | None = None

    def rule(self) -> Rule:
        """Return a Rule of the module alone."""
        return torch_module(self.module, device=self.device)


@dataclass
class _Hooks:
    """What the hooks note: the calls of each module, and the deltas in the order in which they come."""

    inputs: dict[int, list[tuple[Module, tuple[Tensor, ...]]]] = field(default_factory=dict)
    deltas: list[tuple[int, Tensor]] = field(default_factory=list)
    last: Module = None

    def after_forward(self, module: Module, inputs: tuple[Any, ...], output: Any) -> None:
        """Note the inputs, and the cotangent of the output once it is there."""
        self.last = module
        if isinstance(output, torch.Tensor) and output.requires_grad and all(map(torch.is_tensor, inputs)):
            self.inputs.setdefault(id(module), []).append((module, inputs))
            output.register_hook(lambda g: self.deltas.append((id(module), g.detach().clone())))


def module_calls(rule: Rule, primals: Primals, delta: Delta) -> list[ModuleCall]:
    """Evaluate a module once, and return the calls of the modules of the user's inside, in the order of their deltas.

    A module that is called more than once is left out: its deltas would be mixed up.
    """
    whole = made(rule.implementation)
    if not isinstance(whole, torch.nn.Module):
        return []
    hooks = _Hooks()
    handle = torch.nn.modules.module.register_module_forward_hook(hooks.after_forward)
    try:
        _, pullback = rule(**primals)
        pullback(delta)
    finally:
        handle.remove()
    names = {id(m): n for n, m in hooks.last.named_modules()} if hooks.last is not None else {}
    calls = []
    for key, g in hooks.deltas:
        name, found = names.get(key, ""), hooks.inputs[key]
        if not name or len(found) != 1 or type(found[0][0]).__module__.startswith(TORCHS_OWN):
            continue
        module, inputs = found[0]
        alone = copy.deepcopy(whole.get_submodule(name))
        calls.append(ModuleCall(name, alone, _arrays(module, inputs), _numpy(g), rule.device))
    return calls


def _arrays(module: Module, inputs: tuple[Tensor, ...]) -> dict[str, Array]:
    named: Mapping[str, Tensor] = dict(module.named_parameters()) | {f"input_{i}": t for i, t in enumerate(inputs)}
    return {n: _numpy(t) for n, t in named.items()}


def _numpy(tensor: Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy())

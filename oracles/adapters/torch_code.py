"""Adapters of `torch.autograd.Function` and of an `nn.Module` with such Functions inside.

Autograd's engine repairs what a Function returns: it sums a gradient that is too large to the shape of its input, and
casts one of another dtype. So the return of the Function itself is judged, and the engine's result is a call pattern.

In a module, the engine calls ``node.apply`` of each custom Function, then sums and casts the gradients, then calls the
hooks of the node. So an ``apply`` set on the node reads what the Function returned, and a hook reads the repaired
gradients; if they differ in shape or dtype, the pullback raises. torch has no hook before the repair, so ``apply`` is
the one thing that is replaced, on the nodes of this graph alone.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any, Protocol, TypeAlias

import numpy as np

from oracles.backends.arrays import Backend, array_of, backend_for, with_autograd
from oracles.backends.devices import Device, current_device, on_device
from oracles.backends.torch_reference import with_detached
from oracles.lazy_modules import Tensor, torch
from oracles.outputs import MARKED, taken_apart
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Derived,
    Evaluate,
    Function,
    InvalidInput,
    Output,
    Primals,
    Pullback,
    Rule,
    Runtime,
    Structured,
    Unimplemented,
    as_tuple,
    is_differentiable,
    one_or_tuple,
)
from oracles.self_consistency import move_point
from oracles.signatures import hidden_signatures, hides_parameters
from oracles.structure import NO_TREES, Trees, call_with_trees, complex_of, with_complex_arrays

TorchFunction: TypeAlias = Any  # a subclass of torch.autograd.Function
# The name of the node that torch puts behind a backward which is marked @once_differentiable.
DIFFERENTIABLE_ONCE = "torch::autograd::Error"


def torch_function(
    function: TorchFunction,
    *,
    options: Mapping[str, object] | None = None,
    device: Device = None,
    dtypes: Sequence[str] | None = None,
    name: str | None = None,
) -> Rule:
    """Make a Rule of a `torch.autograd.Function`; what its backward returns is judged before the engine repairs it.

    Call patterns check the engine's result too, each gradient requested alone, and each output's cotangent alone.

    Args:
        function: the Function, with ``ctx`` as forward's first argument or with ``setup_context``.
        options: the arguments of forward that are no arrays, by name; what is left out has forward's default.
        device: where the tensors lie, "cuda" or "cuda:1" for example. By default where `check` says, else on the CPU.
            The references stay where `check` says.
        dtypes: the only floating dtypes that it accepts; by default all, bfloat16 and float16 too.
        name: what reports call the rule.

    Returns:
        The Rule.

    Raises:
        InvalidInput: if this is no Function; when evaluated, if primals and options are not forward's parameters.
    """
    if not (isinstance(function, type) and hasattr(function, "apply") and hasattr(function, "backward")):
        raise InvalidInput(
            f"torch_function: expected a torch.autograd.Function, got {function!r:.60}.\n"
            "Fix: pass the class, not the result of its apply:    oracles.torch_function(MyFunction)"
        )
    label = name or str(getattr(function, "__name__", "torch_function"))
    subject = _Function(function, dict(options or {}), backend_for("torch", dtypes=dtypes), label)
    return on_device(_function_rule(subject, NO_TREES), device)


def _function_rule(subject: _Function, trees: Trees) -> Rule:
    """Make the Rule of `torch_function`, over the leaves of lists: ``apply`` takes each array of them by itself."""
    subject.require_lists(trees)

    def of_leaves(evaluate: Evaluate) -> Evaluate:
        return with_autograd(partial(with_complex_arrays, evaluate, trees))

    call_patterns = {
        "autograd's engine": of_leaves(subject.through_the_engine),
        "one gradient requested alone": of_leaves(subject.one_gradient_alone),
        "one output's cotangent at a time": of_leaves(subject.one_output_at_a_time),
    }
    if subject.has_vmap:
        call_patterns["torch.vmap"] = of_leaves(partial(subject.under_vmap, False))
        call_patterns["torch.vmap over the first primal"] = of_leaves(partial(subject.under_vmap, True))
    evaluate = of_leaves(subject.own_backward)
    has_jvp = subject.function.jvp is not torch.autograd.Function.jvp
    joined = _WithComplex(subject, trees)
    tangent = partial(tangent_of, joined, with_autograd) if has_jvp else None
    return Rule(
        evaluate,
        subject.label,
        runtime=Runtime.TORCH,
        implementation=subject.function,
        call_patterns=call_patterns,
        structured=Structured(evaluate, partial(_function_rule, subject)),
        derived=Derived(evaluate, partial(second_of, joined, with_autograd), tangent),
    )


@dataclass(frozen=True)
class _Function:
    """The arguments of `torch_function`, and the ways to evaluate it."""

    function: TorchFunction
    options: Mapping[str, object]
    backend: Backend
    label: str

    def own_backward(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate forward, and the Function's own backward without the engine."""
        order, tensors, y = self._apply(primals, floating(primals))
        parts = as_tuple(y)
        node = next((part.grad_fn for part in parts if getattr(part, "grad_fn", None) is not None), None)

        def pullback(delta: Delta) -> Cotangents:
            if node is None:
                return {}
            given = iter(self._seeds(y, delta))
            # As the engine does: zeros for what carries no gradient, nothing for what is no tensor, no graph.
            seeds = [_seed(part, next(given)) if part is not None else None for part in parts]
            with torch.no_grad():
                gradients = as_gradients(node.apply(*seeds))
            if len(gradients) < len(order) or any(g is not None for g in gradients[len(order) :]):
                raise TypeError(
                    f"backward returned {len(gradients)} gradients for the {len(order)} arguments of forward"
                )
            named = dict(zip(order, gradients, strict=False))
            return {n: self.backend.to_numpy(named[n]) for n in floating(primals) if named.get(n) is not None}

        return self._outputs(y, tensors), pullback

    def through_the_engine(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate forward, and backward by autograd's engine."""
        _, tensors, y = self._apply(primals, floating(primals))
        return self._outputs(y, tensors), lambda delta: self._by_engine(tensors, y, delta)

    def one_gradient_alone(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate once for each floating primal, which alone requires grad: ``ctx.needs_input_grad`` differs."""
        # Each run has a graph of its own: whether an input needs a gradient is fixed when forward runs.
        runs = [self._apply(primals, [n])[1:] for n in floating(primals)] or [self._apply(primals, [])[1:]]
        first, y = runs[0]

        def pullback(delta: Delta) -> Cotangents:
            cotangents: Cotangents = {}
            for tensors, own_y in runs:
                cotangents |= self._by_engine(tensors, own_y, delta)
            return cotangents

        return self._outputs(y, first), pullback

    def one_output_at_a_time(self, **primals: Array) -> tuple[Output, Pullback]:
        """Pull back each output's cotangent alone, and add: the engine passes zeros or ``None`` for the others."""
        _, tensors, y = self._apply(primals, floating(primals))

        def pullback(delta: Delta) -> Cotangents:
            total: Cotangents = {}
            for part, seed in zip(_tensors_of(y), self._seeds(y, delta), strict=True):
                for n, g in engine(tensors, part, [seed], self.backend).items():
                    total[n] = total[n] + g if n in total else g
            return total

        return self._outputs(y, tensors), pullback

    @property
    def has_vmap(self) -> bool:
        """Whether the Function has a vmap rule, written or generated."""
        is_written = self.function.vmap is not torch.autograd.Function.vmap
        return bool(is_written or getattr(self.function, "generate_vmap_rule", False))

    def under_vmap(self, alone: bool, /, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate a batch of four points under `torch.vmap`, of which this one is the second, and pull that back.

        ``alone``: only the first floating primal has a batch, all others are shared.
        """
        tensors = leaves(primals, floating(primals), self.backend)
        other = leaves(move_point(primals), (), self.backend)
        batched = floating(primals)[: 1 if alone else None]
        stacks = {
            n: torch.stack([other[n], t, 2 * other[n], 3 * other[n]]) if n in batched else t for n, t in tensors.items()
        }
        arguments = self._arguments(tuple(tensors))
        given = [stacks.get(n, value) for n, value in arguments.items()]
        y = torch.vmap(self.function.apply, tuple(0 if n in batched else None for n in arguments))(*given)
        own = tuple(part[1] for part in _tensors_of(y))
        own = own if isinstance(y, tuple) else own[0]
        return self._outputs(own, tensors), lambda delta: self._by_engine(tensors, own, delta)

    def call(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the output of forward, of tensors."""
        arguments = self._arguments(tuple(tensors))
        return self.function.apply(*(tensors.get(n, other) for n, other in arguments.items()))

    def _outputs(self, y: Tensor, tensors: Mapping[str, Tensor]) -> Output:
        """Return the outputs as arrays, with those that are marked as not differentiable."""
        apart = taken_apart(y)
        return with_detached(self.backend.tree_to_numpy(apart), apart, tensors, MARKED)

    def require_lists(self, trees: Trees) -> None:
        """Require that every tree is a list of arrays for ``*arguments``: in anything else, autograd sees none.

        Raises:
            InvalidInput: if one is not.
        """
        parameters = [] if not trees.roots else self._parameters(set(trees.leaf_names({})))
        variadic = {p.name for p in parameters if p.kind is p.VAR_POSITIONAL}
        for root in trees.roots:
            flat = all(child.is_leaf for child in root.children) and all(isinstance(c.key, int) for c in root.children)
            if not root.is_leaf and not root.is_complex and not (flat and root.name in variadic):
                raise InvalidInput(
                    f"{self.label}: primals: expected arrays, got a tree in {root.name}: torch's apply differentiates "
                    "its arguments, and not what they hold.\n"
                    f"Fix: take them one by one:    def forward(ctx, *{root.name}):"
                )

    def _apply(
        self, primals: Primals, requiring_grad: Sequence[str]
    ) -> tuple[tuple[str, ...], dict[str, Tensor], Tensor]:
        """Return the order of forward's arguments, the tensors of the primals, and the output."""
        tensors = leaves(primals, requiring_grad, self.backend)
        return tuple(self._arguments(tuple(primals))), tensors, self.call(tensors)

    def _by_engine(self, tensors: Mapping[str, Tensor], y: Tensor, delta: Delta) -> Cotangents:
        return engine(tensors, _tensors_of(y), self._seeds(y, delta), self.backend)

    def _seeds(self, y: Tensor, delta: Delta) -> list[Tensor]:
        """Return the cotangents of the outputs as tensors: that of a complex output of its two parts."""
        given = iter(as_tuple(delta))
        parts = _tensors_of(y)
        joined = [complex_of([next(given), next(given)]) if _is_complex(part) else next(given) for part in parts]
        return [self.backend.from_numpy(d) for d in joined]

    def _arguments(self, names: tuple[str, ...]) -> dict[str, object]:
        """Return forward's arguments in their order, as ``apply`` takes them: options and defaults, None for a primal.

        Names are certain; positions are tried only where no name matches.
        """
        given = {*names, *self.options}
        parameters = self._parameters(given)
        known = {p.name: p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
        if given <= {*known}:
            self._require_positional(parameters)
            last = max((list(known).index(n) for n in given), default=-1)
            return self._with_defaults(list(known.values())[: last + 1], names)
        if any(p.kind is p.VAR_POSITIONAL for p in parameters) and {*self.options} <= {*known}:
            first = self._with_defaults(list(known.values()), names)
            return first | dict.fromkeys(n for n in names if n not in known)
        if not self.options and len(names) <= len(known) and not {*names} & {*known}:
            return dict.fromkeys(names)
        options = f" and the options {', '.join(self.options)}" if self.options else ""
        raise InvalidInput(
            f"{self.label}: primals: expected forward's parameters {', '.join(known)}, "
            f"got {', '.join(names)}{options}.\n"
            "Fix: name the primals like forward's parameters:\n"
            f"    oracles.check(subject, {{{', '.join(f'{n!r}: ...' for n in list(known)[:3])}}}, ...)"
        )

    def _parameters(self, given: set[str]) -> list[inspect.Parameter]:
        """Return forward's parameters, without ctx; those behind a decorator, if it hides the names that are given."""
        leading = int(self.function.setup_context is torch.autograd.Function.setup_context)
        shown = inspect.signature(self.function.forward)
        if hides_parameters(shown, leading):
            for signature in hidden_signatures(self.function.forward):
                behind = list(signature.parameters.values())[leading:]
                if given <= {p.name for p in behind}:
                    return behind
        return [p for i, p in enumerate(shown.parameters.values()) if i >= leading or p.kind is p.VAR_POSITIONAL]

    def _require_positional(self, parameters: Sequence[inspect.Parameter]) -> None:
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        if named:
            raise InvalidInput(
                f"{self.label}: forward: torch's apply passes arguments by position, so it cannot pass "
                f"{', '.join(named)}.\n"
                f"Fix:    def forward(ctx, ..., {', '.join(named)}):      # without the *"
            )

    def _with_defaults(self, parameters: Sequence[inspect.Parameter], names: tuple[str, ...]) -> dict[str, object]:
        """Return primals, options and defaults in the order of forward's parameters."""
        missing = [p.name for p in parameters if p.default is p.empty and p.name not in {*names, *self.options}]
        if missing:
            raise InvalidInput(
                f"{self.label}: forward needs {', '.join(missing)}; the primals are {', '.join(names)}.\n"
                f"Fix: pass what is no array as an option:    "
                f"oracles.torch_function(..., options={{{missing[0]!r}: ...}})"
            )
        return {p.name: None if p.name in names else self.options.get(p.name, p.default) for p in parameters}


def _tensors_of(y: Tensor) -> tuple[Tensor, ...]:
    """Return the outputs of a Function that are any: ``None`` is none."""
    return tuple(part for part in as_tuple(y) if part is not None)


def _is_complex(part: Tensor) -> bool:
    return isinstance(part, torch.Tensor) and part.is_complex()


def _seed(part: Tensor, delta: Tensor) -> Tensor:
    """Return the cotangent of an output as the engine passes it: zeros for one that carries no gradient."""
    if getattr(part, "requires_grad", True):
        return delta
    return torch.zeros_like(part)


def floating(primals: Primals) -> list[str]:
    """Return the names of the primals that have a cotangent."""
    return [n for n, a in primals.items() if is_differentiable(a) or a.dtype.kind == "c"]


def as_gradients(returned: Tensor | tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return what a Function's backward returned as a tuple."""
    return returned if isinstance(returned, tuple) else (returned,)


def leaves(primals: Primals, requiring_grad: Sequence[str], backend: Backend) -> dict[str, Tensor]:
    """Return tensors of the primals, of which the named ones require grad."""
    return {n: backend.from_numpy(a).requires_grad_(n in requiring_grad) for n, a in primals.items()}


def engine(tensors: Mapping[str, Tensor], y: Tensor, seeds: Sequence[Tensor], backend: Backend) -> Cotangents:
    """Return the gradients by autograd's engine of the leaves that the output depends on."""
    pairs = [(p, seed) for p, seed in zip(as_tuple(y), seeds, strict=True) if getattr(p, "requires_grad", False)]
    inputs = {n: t for n, t in tensors.items() if t.requires_grad}
    if not pairs or not inputs:
        return {}
    outputs, cotangents = [part for part, _ in pairs], [seed for _, seed in pairs]
    # The graph is retained: a pullback may be called again, with another delta.
    gradients = torch.autograd.grad(outputs, list(inputs.values()), cotangents, retain_graph=True, allow_unused=True)
    return {n: backend.to_numpy(g) for n, g in zip(inputs, gradients, strict=True) if g is not None}


@dataclass(frozen=True)
class _WithComplex:
    """A Function of the leaves of trees, which calls it with the complex arrays among them."""

    function: _Function
    trees: Trees

    @property
    def backend(self) -> Backend:
        """Converts arrays."""
        return self.function.backend

    @property
    def label(self) -> str:
        """What reports call it."""
        return self.function.label

    def call(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the output of forward, of the leaves."""
        return self.function.call(self.trees.with_complex(tensors))


class CallsTensors(Protocol):
    """A subject whose output is a function of tensors by name."""

    @property
    def backend(self) -> Backend:
        """Converts arrays."""

    @property
    def label(self) -> str:
        """What reports call it."""

    def call(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the output."""


def second_of(
    subject: CallsTensors, around: Callable[[Evaluate], Evaluate], wrt: tuple[str, ...], deltas: tuple[str, ...]
) -> Rule:
    """Return the Rule of the pullback by autograd's engine, which the engine differentiates again."""
    evaluate = around(partial(_differentiated_twice, subject, wrt, deltas))
    return Rule(evaluate, subject.label, runtime=Runtime.TORCH)


def _differentiated_twice(
    subject: CallsTensors, wrt: tuple[str, ...], deltas: tuple[str, ...], /, **arguments: Array
) -> tuple[Output, Pullback]:
    tensors = leaves(arguments, floating(arguments), subject.backend)
    primals = {n: t for n, t in tensors.items() if n not in deltas}
    y = subject.call(primals)
    given = iter([tensors[n] for n in deltas])
    seeds = [torch.complex(next(given), next(given)) if _is_complex(part) else next(given) for part in _tensors_of(y)]
    pairs = [(p, seed) for p, seed in zip(_tensors_of(y), seeds, strict=True) if getattr(p, "requires_grad", False)]
    inputs = [n for n in floating(arguments) if n not in deltas]
    found = torch.autograd.grad(
        [p for p, _ in pairs],
        [tensors[n] for n in inputs],
        [seed for _, seed in pairs],
        create_graph=True,
        allow_unused=True,
    )
    by_name = dict(zip(inputs, found, strict=True))
    missing = [n for n in wrt if by_name.get(n) is None]
    gradients = [torch.zeros_like(tensors[n]) if n in missing else by_name[n] for n in wrt]
    _require_twice_differentiable(gradients, subject.label)

    def pullback(w: Delta) -> Cotangents:
        ws = [subject.backend.from_numpy(part) for part in as_tuple(w)]
        for g in gradients:
            _watch(g.grad_fn)
        try:
            second = engine({n: tensors[n] for n in floating(arguments)}, tuple(gradients), ws, subject.backend)
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            raise Unimplemented(f"order=2: {subject.label}: torch has no second derivative: {error}") from error
        # What autograd does not reach is taken for a constant, and has the derivative zero: so says its caller too.
        return {n: np.zeros_like(arguments[n]) for n in floating(arguments)} | second

    arrays = tuple(subject.backend.to_numpy(g) for g in gradients)
    return one_or_tuple(arrays), pullback


def _require_twice_differentiable(gradients: Sequence[Tensor], label: str) -> None:
    """Require that no Function declares that it can be differentiated once alone.

    Raises:
        InvalidInput: if one does: the engine would take its gradient for a constant.
    """
    for g in gradients:
        if any(node.name() == DIFFERENTIABLE_ONCE for node in _nodes(g.grad_fn)):
            raise InvalidInput(
                f"order=2: {label}: its backward is marked @once_differentiable, so it has no second derivative.\n"
                "Fix: leave out order=2; or write backward in differentiable operations, and remove the mark"
            )


def tangent_of(subject: CallsTensors, around: Callable[[Evaluate], Evaluate], tangents: Mapping[str, str]) -> Rule:
    """Return the Rule of the forward mode: outputs and tangents by `torch.autograd.forward_ad`."""
    evaluate = around(partial(_pushed_forward, subject, tangents))
    return Rule(evaluate, subject.label, runtime=Runtime.TORCH)


@cache
def _forward_ad() -> Any:
    """Return `torch.autograd.forward_ad`, after its first use, which imports what torch itself warns of."""
    module = torch.autograd.forward_ad
    with warnings.catch_warnings(), module.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)
        module.make_dual(torch.zeros(1), torch.zeros(1))
    return module


def _pushed_forward(
    subject: CallsTensors, tangents: Mapping[str, str], /, **arguments: Array
) -> tuple[Output, Pullback]:
    tensors, names = leaves(arguments, (), subject.backend), {*tangents.values()}
    primals = {n: t for n, t in tensors.items() if n not in names}
    forward_mode = _forward_ad()
    with forward_mode.dual_level():
        duals = {n: forward_mode.make_dual(primals[n], tensors[tangents[n]]) for n in tangents}
        y = [p for p in as_tuple(taken_apart(subject.call({**primals, **duals}))) if p.is_floating_point()]
        pairs = [forward_mode.unpack_dual(part) for part in y]
        parts = [pair.primal for pair in pairs]
        parts += [torch.zeros_like(pair.primal) if pair.tangent is None else pair.tangent for pair in pairs]
    return tuple(subject.backend.to_numpy(part) for part in parts), lambda _: {}


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

    Parameters and buffers are contiguous, as a module holds them, in whatever layout their primals are; inputs and
    cotangents have any layout. If a `torch.autograd.Function` inside returns a gradient that the engine would sum to
    shape, or cast, the pullback raises and names what the Function returned.

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
    subject = _Subject(make, params, backend_for("torch", dtypes=dtypes), label)
    return on_device(_module_rule(subject, NO_TREES), device)


def _module_rule(subject: _Subject, trees: Trees) -> Rule:
    """Make the Rule of `torch_module`, over the leaves of trees."""
    subject = replace(subject, trees=trees)
    evaluate = with_autograd(subject.evaluate)
    return Rule(
        evaluate,
        subject.label,
        runtime=Runtime.TORCH,
        implementation=subject.make,
        structured=Structured(evaluate, partial(_module_rule, subject)),
        derived=Derived(
            evaluate, partial(second_of, subject, with_autograd), partial(tangent_of, subject, with_autograd)
        ),
        call_patterns={"forward twice, then backward": with_autograd(subject.forward_twice)},
    )


@dataclass(frozen=True)
class _Subject:
    """The arguments of `torch_module`, and the ways to evaluate it."""

    make: Module
    params: Mapping[str, str] | None
    backend: Backend
    label: str
    trees: Trees = NO_TREES

    def evaluate(self, **primals: Array) -> tuple[Output, Pullback]:
        """Run forward and backward on a fresh module."""
        return self._run(primals, self._fresh(primals))

    def forward_twice(self, **primals: Array) -> tuple[Output, Pullback]:
        """Run forward at another point, then here: the cache must be that of the last forward."""
        module = self._fresh(primals)
        self._run(move_point(primals), module)
        return self._run(primals, module)

    def call(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the output of a fresh module, of tensors."""
        module = self._fresh({n: np.asarray(array_of(t)) for n, t in tensors.items()})
        return taken_apart(self._call(module, tensors))

    def _run(self, primals: Primals, module: Module) -> tuple[Output, Pullback]:
        tensors = leaves(primals, floating(primals), self.backend)
        y = taken_apart(self._call(module, tensors))

        def pullback(delta: Delta) -> Cotangents:
            for part in as_tuple(y):
                _watch(getattr(part, "grad_fn", None))
            return engine(tensors, y, as_tuple(self.backend.delta_from_numpy(delta)), self.backend)

        return with_detached(self.backend.tree_to_numpy(y), y, tensors), pullback

    def _fresh(self, primals: Primals) -> Module:
        # A copy, since functional_call does not undo what forward writes into the module, such as running statistics.
        module = copy.deepcopy(self.make) if isinstance(self.make, torch.nn.Module) else self.make()
        dtype = next((self.backend.from_numpy(a).dtype for a in primals.values() if is_differentiable(a)), None)
        module = module.to(device=current_device(), dtype=dtype)
        if any(isinstance(p, torch.nn.parameter.UninitializedParameter) for p in module.parameters()):
            # A lazy module gets the shapes of its parameters from its first forward.
            names = {*(self.params or {})} | {n for n, _ in module.named_parameters()}
            inputs = {n: self.backend.from_numpy(a) for n, a in primals.items() if n not in names}
            module(*self.trees.rebuilt(inputs).values())
        return module

    def _call(self, module: Module, tensors: Mapping[str, Tensor]) -> Tensor:
        names = self._parameters(module, tensors)
        # A module holds contiguous parameters and buffers. Its backward may rely on that, as torch's batch norm does.
        own = {names[n]: t.contiguous() for n, t in tensors.items() if n in names}
        inputs = self.trees.rebuilt({n: t for n, t in tensors.items() if n not in names})
        return call_with_trees(
            lambda *args, **kwargs: torch.func.functional_call(module, own, args, kwargs), inputs, like=module.forward
        )

    def _parameters(self, module: Module, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        """Return the module's name of the parameter of each primal that is one."""
        existing = dict(module.named_parameters()) | dict(module.named_buffers())
        names = dict(self.params) if self.params is not None else {n: n for n in tensors if n in existing}
        # A parameter that neither the module nor the point has is one that this configuration lacks.
        names = {n: parameter for n, parameter in names.items() if n in tensors or parameter in existing}
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


def _functional_call(module: Module, own: Mapping[str, Tensor], /, *args: Tensor, **kwargs: Tensor) -> Tensor:
    return torch.func.functional_call(module, own, args, kwargs)


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
        # A second pullback of one graph must not watch a node twice.
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

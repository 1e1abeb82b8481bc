"""Lift a `torch.autograd.Function`, torch's hand-written backward.

Autograd's engine repairs what a Function returns: a gradient too large is summed to its input's shape, another dtype
is cast. So the Function's own return is judged, and the engine's answer held against it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from oracles.adapters.functions import given, taken
from oracles.backends.arrays import Backend, backend_for
from oracles.rule import Array, Cotangents, InvalidInput, Primals, Pullback, Rule, as_tuple, is_differentiable


def torch_function(
    function: Any,
    *,
    options: Mapping[str, Any] | None = None,
    device: Any = None,
    dtypes: Sequence[str] | None = None,
    name: str | None = None,
) -> Rule:
    """Lift a `torch.autograd.Function` into a Rule; what its backward returns is judged before the engine repairs it.

    Beside that, the engine's own answer is checked, each gradient asked for alone, and each output's cotangent alone.

    Args:
        function: the Function, old style (``ctx`` first) or with ``setup_context``.
        options: the arguments of forward that are no arrays, by name.
        device: where the tensors live, "cuda" for example; by default the CPU.
        dtypes: the only floating dtypes that it may be fed; by default all, bfloat16 and float16 too.
        name: what reports call it.

    Raises:
        InvalidInput: if this is no Function; when evaluated, if primals and options are not forward's parameters.
    """
    if not (isinstance(function, type) and hasattr(function, "apply") and hasattr(function, "backward")):
        raise InvalidInput(
            f"torch_function: expected a torch.autograd.Function, got {function!r:.60}.\n"
            "Fix: hand in the class, not what apply returned:    oracles.torch_function(MyFunction)"
        )
    label = name or str(getattr(function, "__name__", "torch_function"))
    backend = backend_for("torch", device, None if dtypes is None else tuple(dtypes))
    rest = dict(options or {})

    def applied(primals: Primals, judged: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Any], Any]:
        import torch

        tensors = leaves(primals, judged, backend)
        order = _parameters(function, tuple(primals), rest, label)
        with torch.enable_grad():
            y = function.apply(*(tensors[n] if n in tensors else rest.get(n) for n in order))
        return order, tensors, y

    def evaluate(**primals: Array) -> tuple[Any, Pullback]:
        order, _, y = applied(primals, floating(primals))
        node = next((part.grad_fn for part in as_tuple(y) if getattr(part, "grad_fn", None) is not None), None)

        def pullback(delta: Any) -> Cotangents:
            if node is None:
                return {}
            came = node.apply(*as_tuple(taken(delta, backend)))
            raw = came if isinstance(came, tuple) else (came,)
            if len(raw) < len(order) or any(g is not None for g in raw[len(order) :]):
                raise TypeError(f"backward returned {len(raw)} gradients for the {len(order)} arguments of forward")
            found = dict(zip(order, raw, strict=False))
            return {n: backend.to_numpy(found[n]) for n in floating(primals) if found.get(n) is not None}

        return given(y, backend), pullback

    def through_the_engine(**primals: Array) -> tuple[Any, Pullback]:
        _, tensors, y = applied(primals, floating(primals))
        return given(y, backend), lambda delta: engine(tensors, y, as_tuple(taken(delta, backend)), backend)

    def one_gradient_alone(**primals: Array) -> tuple[Any, Pullback]:
        runs = {n: applied(primals, [n])[1:] for n in floating(primals)}
        y = next(iter(runs.values()))[1]

        def pullback(delta: Any) -> Cotangents:
            found: Cotangents = {}
            for tensors, own in runs.values():
                found |= engine(tensors, own, as_tuple(taken(delta, backend)), backend)
            return found

        return given(y, backend), pullback

    def one_output_at_a_time(**primals: Array) -> tuple[Any, Pullback]:
        _, tensors, y = applied(primals, floating(primals))

        def pullback(delta: Any) -> Cotangents:
            found: Cotangents = {}
            for part, seed in zip(as_tuple(y), as_tuple(taken(delta, backend)), strict=True):
                for n, g in engine(tensors, part, (seed,), backend).items():
                    found[n] = found[n] + g if n in found else g
            return found

        return given(y, backend), pullback

    ways = {
        "autograd's engine": through_the_engine,
        "one gradient asked for alone": one_gradient_alone,
        "one output's cotangent at a time": one_output_at_a_time,
    }
    return Rule(evaluate, label, framework="torch", implementation=function, call_patterns=ways)


def floating(primals: Primals) -> list[str]:
    """Return the names of the primals that have a cotangent."""
    return [n for n, a in primals.items() if is_differentiable(a)]


def engine(tensors: Mapping[str, Any], y: Any, seeds: Sequence[Any], backend: Backend) -> Cotangents:
    """Return the gradients of the leaves by autograd's engine; of those that the output depends on."""
    import torch

    pairs = [(p, s) for p, s in zip(as_tuple(y), seeds, strict=True) if p.requires_grad]
    judged = {n: t for n, t in tensors.items() if t.requires_grad}
    if not pairs or not judged:
        return {}
    heads, cotangents = [p for p, _ in pairs], [s for _, s in pairs]
    found = torch.autograd.grad(heads, list(judged.values()), cotangents, retain_graph=True, allow_unused=True)
    return {n: backend.to_numpy(g) for n, g in zip(judged, found, strict=True) if g is not None}


def leaves(primals: Primals, judged: Sequence[str], backend: Backend) -> dict[str, Any]:
    """Return tensors of the primals; those that are judged require grad."""
    return {n: backend.from_numpy(a).requires_grad_(n in judged) for n, a in primals.items()}


def _parameters(function: Any, names: Sequence[str], options: Mapping[str, Any], label: str) -> tuple[str, ...]:
    """Return the order in which forward takes primals and options: by name, or as the primals stand."""
    import torch

    parameters = list(inspect.signature(function.forward).parameters.values())
    if function.setup_context is torch.autograd.Function.setup_context:
        parameters = parameters[1:]
    taken_names = [p.name for p in parameters]
    if {*names, *options} <= {*taken_names}:
        last = max(taken_names.index(n) for n in (*names, *options)) if names else 0
        return tuple(taken_names[: last + 1])
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) and not options:
        named = [n for n in taken_names if n in names]
        return (*named, *(n for n in names if n not in named))
    if not options and len(names) <= len(taken_names) and not {*names} & {*taken_names}:
        return tuple(names)
    raise InvalidInput(
        f"{label}: forward takes {', '.join(taken_names)}; the primals are {', '.join(names)}"
        + (f", the options {', '.join(options)}" if options else "")
        + ".\nFix: name the primals like forward's parameters:\n"
        + f"    oracles.check(subject, {{{', '.join(f'{n!r}: ...' for n in taken_names[:3])}}}, ...)"
    )

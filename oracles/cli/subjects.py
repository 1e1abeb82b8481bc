"""What can be made a Rule as it is: a table of kinds, the first that fits an object lifts it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from oracles.adapters.functions import manual, manual_layer, manual_loss
from oracles.adapters.jax_functions import jax_function
from oracles.adapters.torch_functions import torch_function
from oracles.adapters.torch_modules import torch_module
from oracles.discovery import Unusable
from oracles.rule import Rule


@dataclass(frozen=True)
class Kind:
    """One kind of object.

    Attributes:
        what: it in words, for the message that lists what could be adapted.
        fits: whether an object is of this kind; must import nothing.
        lift: ``lift(object, name) -> Rule``.
    """

    what: str
    fits: Callable[[Any], bool]
    lift: Callable[[Any, str], Rule]


def adapt(subject: Any, *, name: str) -> Rule:
    """Lift an object by the first of `KINDS` that fits it.

    Raises:
        Unusable: (a ValueError) if none does, or a class cannot be made without arguments; says what to write.
    """
    kind = _kind_of(subject)
    if kind is None and isinstance(subject, type):
        subject = _made(subject, name)
        kind = _kind_of(subject)
    if kind is None:
        known = "".join(f"\n          {what}" for what in (*(kind.what for kind in KINDS), ANYTHING_ELSE))
        raise Unusable(f"{name} is {_described(subject)}, which cannot be judged as it is.\nFix:    name one of{known}")
    return kind.lift(subject, name)


def _kind_of(subject: Any) -> Kind | None:
    return next((kind for kind in KINDS if kind.fits(subject)), None)


def _made(subject: type, name: str) -> Any:
    try:
        return subject()
    except Exception as error:
        arguments = ", ".join(f"{n}=..." for n in _positional(subject)) or "..."
        raise Unusable(
            f"{name} is a class that cannot be made without arguments: {type(error).__name__}: {error}.\n"
            f"Fix:    give an instance, {name}({arguments})"
        ) from None


def _described(subject: Any) -> str:
    if isinstance(subject, type):
        return f"the class {subject.__name__}"
    if inspect.isroutine(subject):
        return f"the function {subject.__name__}{inspect.signature(subject)} alone"
    return f"{subject!r:.60} ({type(subject).__name__})"


def _positional(method: Any) -> list[str]:
    """Return the names of the parameters that a function, a bound method or a class takes by position."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _is_pair(subject: Any) -> bool:
    return isinstance(subject, tuple | list) and len(subject) == 2 and all(map(callable, subject))


def _follows_contract(subject: Any) -> bool:
    """Return whether it has forward(a, b) and backward(cache, delta), and is no class and nothing of torch's."""
    if isinstance(subject, type) or any(base.__module__.split(".")[0] == "torch" for base in type(subject).__mro__):
        return False
    forward, backward = getattr(subject, "forward", None), getattr(subject, "backward", None)
    return len(_positional(forward)) == 2 == len(_positional(backward))


def _is_loss(subject: Any) -> bool:
    return _follows_contract(subject) and "target" in _positional(subject.forward)


def _named(rule: Rule, name: str) -> Rule:
    """Call a rule by its own name where that says something: not where it is an address."""
    return replace(rule, name=name) if " at 0x" in rule.name else rule


def _of_torch(subject: Any, kind: str) -> bool:
    """Return whether an object is an instance or a subclass of one of torch's classes, without importing torch."""
    bases = (subject if isinstance(subject, type) else type(subject)).__mro__
    return any(base.__name__ == kind and base.__module__.split(".")[0] == "torch" for base in bases)


# In the order in which they are tried; to lift something else as it is, add its kind.
KINDS: list[Kind] = [
    Kind("an oracles.Rule", lambda subject: isinstance(subject, Rule), lambda rule, name: rule),
    Kind(
        "a pair forward,backward: forward(**primals) -> (y, cache), backward(cache, delta) -> {name: cotangent}",
        _is_pair,
        lambda pair, name: manual(*pair, name=name),
    ),
    Kind(
        "a torch.autograd.Function",
        lambda subject: isinstance(subject, type) and _of_torch(subject, "Function"),
        lambda function, name: torch_function(function, name=name),
    ),
    Kind(
        "a torch.nn.Module, or its class where that needs no arguments",
        lambda subject: _of_torch(subject, "Module"),
        lambda module, name: torch_module(module, name=name),
    ),
    Kind(
        "a jax.custom_vjp",
        lambda subject: callable(subject) and hasattr(subject, "fwd") and hasattr(subject, "bwd"),
        lambda f, name: jax_function(f, name=name),
    ),
    Kind(
        "a loss: an object with forward(y, target) -> (value, cache), backward(cache, delta) -> dy",
        _is_loss,
        lambda loss, name: _named(manual_loss(loss), name),
    ),
    Kind(
        "a layer: an object with forward(params, z) -> (y, cache), backward(cache, delta) -> (dz, dparams)",
        _follows_contract,
        lambda layer, name: _named(manual_layer(layer), name),
    ),
]
ANYTHING_ELSE = 'anything else, by an adapter: oracles.stateful(MyNet, params=["W"]), oracles.value_and_grad(f), ...'

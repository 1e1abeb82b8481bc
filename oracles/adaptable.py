"""The kinds of code that can be judged: how each is recognized, adapted, and named in the line that adapts it.

The command line adapts a subject by the first kind that fits. `oracles.check` takes a Rule alone, and names the line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from oracles.adapters.suggestions import BACKWARDS, FORWARDS, first_method, make_text, required_arguments, stateful_line
from oracles.lazy_modules import LazyModule
from oracles.rule import Rule

if TYPE_CHECKING:
    from oracles.adapters import functions, jax_functions, torch_code
else:  # a message about one kind needs the adapter of none
    functions = LazyModule("oracles.adapters.functions")
    jax_functions = LazyModule("oracles.adapters.jax_functions")
    torch_code = LazyModule("oracles.adapters.torch_code")

Value: TypeAlias = Any  # whatever a user named
Primals: TypeAlias = Mapping[str, Any] | None


@dataclass(frozen=True)
class Kind:
    """One kind of code that can be judged.

    Attributes:
        description: for the message that lists what can be adapted.
        fits: whether an object is of this kind; must import nothing.
        line: ``line(object, name, primals)`` returns the call that adapts it, as a line of code.
        adapt: ``adapt(object, name) -> Rule``; ``None`` if only the user can say how.
        made: whether a class of this kind must be made an instance before it is adapted.
    """

    description: str
    fits: Callable[[Value], bool]
    line: Callable[[Value, str, Primals], str]
    adapt: Callable[[Value, str], Rule] | None = None
    made: bool = False


def kind_of(subject: Value) -> Kind | None:
    """Return the first kind that fits an object; ``None`` if none does."""
    return next((kind for kind in ADAPTABLE if kind.fits(subject)), None)


def adapting_line(subject: Value, primals: Primals = None, *, name: str = "") -> str:
    """Return the call that makes a Rule of an object, from what the object has.

    Args:
        subject: the object.
        primals: the point, if it is known.
        name: what the object is called, or the expression that makes it; by default its own name.
    """
    own = getattr(subject, "__name__", "") or type(subject).__name__
    name = name or (own if own.isidentifier() else "forward")
    kind = kind_of(subject)
    if kind is not None:
        return kind.line(subject, name, primals)
    return f"oracles.manual({name}, backward)" if callable(subject) else "oracles.manual(forward, backward)"


def described(value: Value) -> str:
    """Return what something is, in words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', value)}"
    return f"an object of type {type(value).__name__}"


def positional(method: Value) -> list[str]:
    """Return the names of the parameters that a function, a bound method or a class takes by position."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _is_pair(subject: Value) -> bool:
    return isinstance(subject, tuple | list) and len(subject) == 2 and all(map(callable, subject))


def _pair_line(pair: Value, name: str, primals: Primals) -> str:
    forward, backward = (getattr(f, "__name__", "") for f in pair)
    return f"oracles.manual({forward or 'forward'}, {backward or 'backward'})"


def _is_layer(subject: Value) -> bool:
    """Return whether it, or its instances, have forward(a, b) and backward(cache, delta), and nothing of torch's."""
    mro = (subject if isinstance(subject, type) else type(subject)).__mro__
    if any(base.__module__.split(".")[0] == "torch" for base in mro):
        return False
    forward, backward = (positional(getattr(subject, name, None)) for name in ("forward", "backward"))
    count = 3 if isinstance(subject, type) else 2  # with self
    return len(forward) == count == len(backward)


def _is_loss(subject: Value) -> bool:
    return _is_layer(subject) and "target" in positional(subject.forward)


def _instance(subject: Value, name: str) -> str:
    """Return how a line names an instance: by the call that makes it, or in lower case."""
    if not isinstance(subject, type):
        return name.lower() if name.isidentifier() else name
    return f"{name}({', '.join(f'{n}=...' for n in required_arguments(subject))})"


def _named(rule: Rule, name: str) -> Rule:
    """Return the rule under the given name if its own is an address."""
    return replace(rule, name=name) if " at 0x" in rule.name else rule


def _of_torch(subject: Value, kind: str) -> bool:
    """Return whether an object is an instance or a subclass of one of torch's classes, without importing torch."""
    bases = (subject if isinstance(subject, type) else type(subject)).__mro__
    return any(base.__name__ == kind and base.__module__.split(".")[0] == "torch" for base in bases)


def _is_stateful(subject: Value) -> bool:
    """Return whether a class or an instance has a method of forward's and one of backward's usual names."""
    has_methods = isinstance(subject, type) or not inspect.isroutine(subject)
    return has_methods and bool(first_method(subject, FORWARDS) and first_method(subject, BACKWARDS))


def _stateful_line(subject: Value, name: str, primals: Primals) -> str:
    if not isinstance(subject, type):
        name = f"lambda: {name}(...)" if name.isidentifier() else f"lambda: {name}"
    return stateful_line(subject, name, primals)


# In the order in which they are tried: a loss is also a layer by its methods. To adapt something else, add its kind.
ADAPTABLE: list[Kind] = [
    Kind(
        "an oracles.Rule",
        lambda subject: isinstance(subject, Rule),
        lambda rule, name, primals: name,
        lambda rule, name: rule,
    ),
    Kind(
        "a pair forward,backward: forward(**primals) -> (y, cache), backward(cache, delta) -> {name: cotangent}",
        _is_pair,
        _pair_line,
        lambda pair, name: functions.manual(*pair, name=name),
    ),
    Kind(
        "a torch.autograd.Function",
        lambda subject: isinstance(subject, type) and _of_torch(subject, "Function"),
        lambda function, name, primals: f"oracles.torch_function({name})",
        lambda function, name: torch_code.torch_function(function, name=name),
    ),
    Kind(
        "a torch.nn.Module, or its class where that needs no arguments",
        lambda subject: _of_torch(subject, "Module"),
        lambda module, name, primals: f"oracles.torch_module({make_text(module, name)})",
        lambda module, name: torch_code.torch_module(module, name=name),
    ),
    Kind(
        "a jax.custom_vjp",
        lambda subject: callable(subject) and hasattr(subject, "fwd") and hasattr(subject, "bwd"),
        lambda f, name, primals: f"oracles.jax_function({name})",
        lambda f, name: jax_functions.jax_function(f, name=name),
    ),
    Kind(
        "a loss: an object with forward(y, target) -> (value, cache), backward(cache, delta) -> dy",
        _is_loss,
        lambda loss, name, primals: f"oracles.manual_loss({_instance(loss, name)})",
        lambda loss, name: _named(functions.manual_loss(loss), name),
        made=True,
    ),
    Kind(
        "a layer: an object with forward(params, z) -> (y, cache), backward(cache, delta) -> (dz, dparams)",
        _is_layer,
        lambda layer, name, primals: f"oracles.manual_layer({_instance(layer, name)})",
        lambda layer, name: _named(functions.manual_layer(layer), name),
        made=True,
    ),
    Kind(
        'anything else, by an adapter: oracles.stateful(MyNet, params=["W"]), oracles.value_and_grad(f), ...',
        _is_stateful,
        _stateful_line,
    ),
]

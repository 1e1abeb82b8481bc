"""What a command line names: ``FILE.py:NAME`` is made a subject, ``torch:REF`` a reference.

A subject is adapted by the first of `KINDS` that fits it.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

import oracles
from oracles.adapters.functions import manual, manual_layer, manual_loss
from oracles.adapters.jax_functions import jax_function
from oracles.adapters.torch_functions import torch_function
from oracles.adapters.torch_modules import torch_module
from oracles.cli.expressions import UnsupportedExpression, Value, evaluate
from oracles.discovery import Unusable, load, shown
from oracles.options import FRAMEWORK_NAMES
from oracles.registry import FRAMEWORKS
from oracles.rule import Rule

_TARGET = re.compile(r"(?P<source>(?:[A-Za-z]:[\\/])?[^:]*\.py|[A-Za-z_][\w.]*):(?P<name>.+)", re.DOTALL)
# How many names of a module an error message lists.
LISTED_NAMES = 12


def find_target(text: str) -> tuple[Value, str, ModuleType]:
    """Return the object that ``FILE_OR_MODULE:NAME`` names, its name, and the module that contains it.

    Raises:
        Unusable: (a ValueError) if there is no such file, module or name; lists those that exist.
    """
    parts = _TARGET.fullmatch(text)
    if parts is None:
        source = text.split(":")[0]
        there = f" {source} defines {_defined_in(import_source(source))}." if source.endswith(".py") else ""
        raise Unusable(
            f"TARGET: expected FILE.py:NAME or MODULE:NAME, got {text!r}.{there}\n"
            "Fix:    oracles check my_file.py:forward,backward"
        )
    module = import_source(parts["source"])
    return evaluate_in(parts["name"], module), parts["name"].strip(), module


@contextmanager
def user_errors(doing: str) -> Iterator[None]:
    """Turn whatever the user's code raises into an `Unusable` that starts with ``doing``."""
    try:
        yield
    except Unusable:
        raise
    except Exception as error:  # a module, a constructor or an expression of the user's may raise anything
        raise Unusable(f"{doing}: {type(error).__name__}: {error}") from error


def import_source(source: str) -> ModuleType:
    """Import a file or module; whatever it raises becomes an error of usage."""
    with user_errors(f"{source} cannot be imported"):
        return load(source)


def evaluate_in(expression: str, module: ModuleType, **extra: Value) -> Value:
    """Return the value of an expression in the names of a module, ``oracles`` and ``extra``."""
    with user_errors(f"{expression} in {shown(module)}"):
        try:
            return evaluate(expression, {"oracles": oracles, **extra, **vars(module)})
        except NameError as error:
            near = difflib.get_close_matches(str(error.name), list(vars(module)), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            names = _defined_in(module)
            raise Unusable(f"{shown(module)} has no {error.name!r}{hint}\nIt defines {names}.") from None
        except SyntaxError:
            raise Unusable(f"expected a name, or an expression such as Dense(3, 2), got {expression!r}") from None
        except UnsupportedExpression as error:
            raise Unusable(
                f"{error} is too much for a command line.\nFix:    define it in {shown(module)}, and give its name"
            ) from None


def _defined_in(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", module.__name__) == module.__name__
        and not isinstance(value, ModuleType)
    ]
    return ", ".join(names[:LISTED_NAMES]) or "nothing of its own"


class Reference(NamedTuple):
    """A primal in a framework's idiom.

    Attributes:
        text: how the user named it.
        f: the function.
        rule: the Rule that the framework makes of it.
        framework: the framework's name.
    """

    text: str
    f: Callable[..., Value]
    rule: Rule
    framework: str


def find_reference(text: str, module: ModuleType) -> Reference:
    """Return what ``torch:REF`` names, as a Rule.

    Raises:
        Unusable: (a ValueError) for an unknown framework, one that is not installed, or a REF that is no function.
    """
    framework, _, name = text.partition(":")
    if framework not in FRAMEWORK_NAMES or not name.strip():
        forms = " or ".join(f"{known}:REF" for known in FRAMEWORK_NAMES)
        fix = f"{FRAMEWORK_NAMES[0]}:{name.strip() or 'reference'}"
        raise Unusable(f"--against: expected {forms}, got {text!r}.\nFix:    --against {fix}")
    try:
        package = import_module(framework)
    except ImportError:
        fix = f"pip install 'manual-bp[{framework}]'"
        raise Unusable(f"--against {text}: {framework} is not installed.\nFix:    {fix}") from None
    parts = _TARGET.fullmatch(name)
    try:
        if parts:
            f = evaluate_in(parts["name"], import_source(parts["source"]))
        else:
            f = evaluate_in(name, module, **{framework: package})
    except Unusable as error:
        raise Unusable(f"--against {text}: {error}") from error.__cause__
    if not callable(f):
        raise Unusable(f"--against {text}: expected a function f(**primals) -> y, got {f!r:.60} ({type(f).__name__})")
    return Reference(text, f, FRAMEWORKS[framework](f), framework)


@dataclass(frozen=True)
class Kind:
    """One kind of object that can be adapted as it is.

    Attributes:
        description: for the message that lists what can be adapted.
        fits: whether an object is of this kind; must import nothing.
        adapt: ``adapt(object, name) -> Rule``.
    """

    description: str
    fits: Callable[[Value], bool]
    adapt: Callable[[Value, str], Rule]


def adapt(subject: Value, *, name: str) -> Rule:
    """Adapt an object by the first of `KINDS` that fits it.

    Raises:
        Unusable: (a ValueError) if none does, or a class cannot be made without arguments; states what to write.
    """
    kind = _kind_of(subject)
    if kind is None and isinstance(subject, type):
        subject = _make_instance(subject, name)
        kind = _kind_of(subject)
    if kind is None:
        known = "".join(f"\n          {line}" for line in (*(kind.description for kind in KINDS), ANYTHING_ELSE))
        raise Unusable(f"{name} is {_describe(subject)}, which cannot be judged as it is.\nFix:    name one of{known}")
    return kind.adapt(subject, name)


def _kind_of(subject: Value) -> Kind | None:
    return next((kind for kind in KINDS if kind.fits(subject)), None)


def _make_instance(subject: type, name: str) -> Value:
    arguments = ", ".join(f"{n}=..." for n in _positional(subject)) or "..."
    try:
        with user_errors(f"{name} is a class that cannot be made without arguments"):
            return subject()
    except Unusable as error:
        raise Unusable(f"{error}.\nFix:    give an instance, {name}({arguments})") from None


def _describe(subject: Value) -> str:
    if isinstance(subject, type):
        return f"the class {subject.__name__}"
    if inspect.isroutine(subject):
        return f"the function {subject.__name__}{inspect.signature(subject)} alone"
    return f"{subject!r:.60} ({type(subject).__name__})"


def _positional(method: Value) -> list[str]:
    """Return the names of the parameters that a function, a bound method or a class takes by position."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def _is_pair(subject: Value) -> bool:
    return isinstance(subject, tuple | list) and len(subject) == 2 and all(map(callable, subject))


def _follows_contract(subject: Value) -> bool:
    """Return whether it has forward(a, b) and backward(cache, delta), and is no class and nothing of torch's."""
    if isinstance(subject, type) or any(base.__module__.split(".")[0] == "torch" for base in type(subject).__mro__):
        return False
    forward, backward = getattr(subject, "forward", None), getattr(subject, "backward", None)
    return len(_positional(forward)) == 2 == len(_positional(backward))


def _is_loss(subject: Value) -> bool:
    return _follows_contract(subject) and "target" in _positional(subject.forward)


def _named(rule: Rule, name: str) -> Rule:
    """Return the rule under the given name if its own is an address."""
    return replace(rule, name=name) if " at 0x" in rule.name else rule


def _of_torch(subject: Value, kind: str) -> bool:
    """Return whether an object is an instance or a subclass of one of torch's classes, without importing torch."""
    bases = (subject if isinstance(subject, type) else type(subject)).__mro__
    return any(base.__name__ == kind and base.__module__.split(".")[0] == "torch" for base in bases)


# In the order in which they are tried: a loss is also a layer by its methods. To adapt something else, add its kind.
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

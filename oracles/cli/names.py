"""What ``FILE.py:NAME`` and ``torch:REF`` mean."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import oracles
from oracles.discovery import Unusable, load, shown
from oracles.options import FRAMEWORK_NAMES
from oracles.registry import FRAMEWORKS
from oracles.rule import Rule

_PLACE = re.compile(r"(?P<place>(?:[A-Za-z]:[\\/])?[^:]*\.py|[A-Za-z_][\w.]*):(?P<name>.+)", re.DOTALL)


def target(text: str) -> tuple[Any, str, ModuleType]:
    """Return what ``FILE_OR_MODULE:NAME`` names, the name, and the module it is in.

    Raises:
        Unusable: (a ValueError) if there is no such file, module or name; says what there is.
    """
    parts = _PLACE.fullmatch(text)
    if parts is None:
        place = text.split(":")[0]
        there = f" {place} defines {_defined(loaded(place))}." if place.endswith(".py") else ""
        raise Unusable(
            f"TARGET: expected FILE.py:NAME or MODULE:NAME, got {text!r}.{there}\n"
            "Fix:    oracles check my_file.py:forward,backward"
        )
    module = loaded(parts["place"])
    return evaluated(parts["name"], module), parts["name"].strip(), module


def loaded(place: str) -> ModuleType:
    """Import a file or module; whatever it raises becomes the user's error."""
    try:
        return load(place)
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"{place} cannot be imported: {type(error).__name__}: {error}") from error


def evaluated(expression: str, module: ModuleType, **also: Any) -> Any:
    """Return the value of an expression in a module's names, and ``oracles``, by which it may lift what it names."""
    try:
        return eval(compile(expression.strip(), "NAME", "eval"), {"oracles": oracles, **also, **vars(module)})
    except NameError as error:
        near = difflib.get_close_matches(str(error.name), list(vars(module)), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Unusable(f"{shown(module)} has no {error.name!r}{hint}\nIt defines {_defined(module)}.") from None
    except SyntaxError:
        raise Unusable(f"expected a name, or an expression such as Dense(3, 2), got {expression!r}") from None
    except Exception as error:
        raise Unusable(f"{expression} in {shown(module)}: {type(error).__name__}: {error}") from None


def _defined(module: ModuleType) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", module.__name__) == module.__name__
        and not isinstance(value, ModuleType)
    ]
    return ", ".join(own[:12]) or "nothing of its own"


class Reference(NamedTuple):
    """A primal in a framework's idiom, the Rule it is adapted to, and how the user named it."""

    text: str
    f: Callable[..., Any]
    rule: Rule


def reference(text: str, module: ModuleType) -> Reference:
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
        itself = import_module(framework)
    except ImportError:
        fix = f"pip install 'manual-bp[{framework}]'"
        raise Unusable(f"--against {text}: {framework} is not installed.\nFix:    {fix}") from None
    elsewhere = _PLACE.fullmatch(name)
    try:
        if elsewhere:
            f = evaluated(elsewhere["name"], loaded(elsewhere["place"]))
        else:
            f = evaluated(name, module, **{framework: itself})
    except Unusable as error:
        raise Unusable(f"--against {text}: {error}") from error.__cause__
    if not callable(f):
        raise Unusable(f"--against {text}: expected a function f(**primals) -> y, got {f!r:.60} ({type(f).__name__})")
    return Reference(text, f, FRAMEWORKS[framework](f))

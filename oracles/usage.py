"""Refuse the arguments of `oracles.check` that are no rules or no arrays, with the line to write instead."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from oracles.rule import InvalidInput, Rule

Value: TypeAlias = Any  # whatever was given
FIX_OF_ORACLE = "Fix:    against=[oracles.torch_autograd(f)], or oracles.jax_vjp(f)"


def require_rules(subject: Value, primals: Value, against: Value) -> None:
    """Require a rule as the subject, arrays by name, and a sequence of rules as the oracles.

    Raises:
        InvalidInput: for anything else, with the adapter that makes a rule of it.
    """
    if not isinstance(subject, Rule):
        raise InvalidInput(
            f"check: subject: expected a Rule, got {described(subject)}.\nFix:    oracles.check({_adapted(subject)}, …)"
        )
    if not isinstance(primals, Mapping):
        raise InvalidInput(
            f"check: primals: expected arrays by name, got {described(primals)}.\n"
            "Fix:    {'z': …}, with the names of the forward's arguments"
        )
    if isinstance(against, Rule):
        raise InvalidInput(f"check: against: expected a list of oracles, got one, {against.name}.\nFix:    against=[…]")
    if not isinstance(against, Sequence):
        raise InvalidInput(f"check: against: expected a list of oracles, got {described(against)}.\n{FIX_OF_ORACLE}")
    for i, oracle in enumerate(against):
        if not isinstance(oracle, Rule):
            raise InvalidInput(f"check: against[{i}]: expected an oracle, got {described(oracle)}.\n{FIX_OF_ORACLE}")


def described(value: Value) -> str:
    """Return what something is, in words."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', value)}"
    return f"an object of type {type(value).__name__}"


def _adapted(subject: Value) -> str:
    """Return the call that makes a rule of an object, from what the object has."""
    name = getattr(subject, "__name__", "") or type(subject).__name__
    name = name if name.isidentifier() else "forward"
    mro = (subject if isinstance(subject, type) else type(subject)).__mro__
    bases = {(base.__module__.split(".")[0], base.__name__) for base in mro}
    if ("torch", "Function") in bases:
        return f"oracles.torch_function({name})"
    if ("torch", "Module") in bases:
        return f"oracles.torch_module({name})" if not isinstance(subject, type) else f"oracles.torch_module({name}(…))"
    if hasattr(subject, "fwd") and hasattr(subject, "bwd"):
        return f"oracles.jax_function({name})"
    if isinstance(subject, tuple | list) and len(subject) == 2:
        forward, backward = (getattr(f, "__name__", "") for f in subject)
        return f"oracles.manual({forward or 'forward'}, {backward or 'backward'})"
    if hasattr(subject, "forward") and hasattr(subject, "backward"):
        return _of_methods(subject, name)
    return f"oracles.manual({name}, backward)" if callable(subject) else "oracles.manual(forward, backward)"


def _of_methods(subject: Value, name: str) -> str:
    """Return the call that makes a rule of an object with the methods forward and backward."""
    forward = [p for p in inspect.signature(subject.forward).parameters if p != "self"]
    if not isinstance(subject, type) and hasattr(subject, "init") and len(forward) == 2:
        return f"oracles.manual_layer({name.lower()})"
    arrays = [n for n, value in getattr(subject, "__dict__", {}).items() if isinstance(value, np.ndarray)]
    params = f", params={arrays}" if arrays and not isinstance(subject, type) else ', params=["W", "b"]'
    made = name if isinstance(subject, type) else f"lambda: {name}(…)"
    return f"oracles.stateful({made}{params})"

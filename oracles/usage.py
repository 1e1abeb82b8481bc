"""Refuse the arguments of `oracles.check` that are no rules or no arrays, with the line to write instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from oracles.adaptable import adapting_line, described
from oracles.rule import InvalidInput, Rule

Value: TypeAlias = Any  # whatever was given
FIX_OF_ORACLE = "Fix:    against=[oracles.torch_autograd(f)], or oracles.jax_vjp(f)"


def require_rules(subject: Value, primals: Value, against: Value) -> None:
    """Require a rule as the subject, arrays by name, and a sequence of rules as the oracles.

    Raises:
        InvalidInput: for anything else, with the adapter that makes a rule of it.
    """
    if not isinstance(subject, Rule):
        known = primals if isinstance(primals, Mapping) else None
        raise InvalidInput(
            f"check: subject: expected a Rule, got {described(subject)}.\n"
            f"Fix:    oracles.check({adapting_line(subject, known)}, …)"
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

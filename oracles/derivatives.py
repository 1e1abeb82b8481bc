"""Which derivatives of a subject are judged: its pullback, the second order, the forward mode; results of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from oracles.options import MODES
from oracles.outputs import shown
from oracles.rule import InvalidInput
from oracles.verdict import Result

# The names of the further parts of a check, in reports and before the names of arrays.
SECOND, FORWARD = "order 2", "jvp"


def require_derivatives(where: str, order: object, mode: object) -> None:
    """Check which derivatives are asked for.

    Raises:
        InvalidInput: if the order is not 1 or 2, if the mode is unknown, or for a second order of the forward mode.
    """
    if order not in (1, 2) or isinstance(order, bool):
        raise InvalidInput(f"{where}: order: expected 1 or 2, got {order!r}.\nFix:    order=2")
    if mode not in MODES:
        raise InvalidInput(f"{where}: mode: expected 'vjp', 'jvp' or 'both', got {mode!r}.\nFix:    mode='both'")
    if order == 2 and mode == "jvp":
        raise InvalidInput(
            f"{where}: order=2 differentiates the pullback, and mode='jvp' leaves it out.\nFix:    mode='both'"
        )


def named_as(result: Result, part: str, names: Sequence[str]) -> Result:
    """Return the result of a further part of a check: its property, and its outputs as a user calls them.

    The forward mode claims nothing of the primals.
    """
    result = shown(result, names) if names else result
    return replace(result, property_name=f"{result.property_name}, {part}", not_claimed=())


def joined(results: Sequence[Result]) -> Result:
    """Return one result of a check and of its further parts, whose arrays get the name of their part."""
    first = results[0]
    if len(results) == 1:
        return first
    findings = list(first.findings)
    for result in results[1:]:
        part = result.property_name.split(", ")[-1]
        findings += [
            replace(f, quantity=f"{part}: {f.quantity}", is_output=f.is_output or not f.is_cotangent)
            for f in result.findings
        ]
    notes = tuple(dict.fromkeys(note for result in results for note in result.notes))
    return replace(first, findings=tuple(findings), notes=notes)

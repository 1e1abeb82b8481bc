"""Errors of type, shape and dtype, and exceptions: findings in words, with the lines of code that repair them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

from oracles.backends.devices import DeviceLost, Elsewhere
from oracles.missing import SOURCES, MissingPackage, describe_missing
from oracles.numerics import is_coarser
from oracles.process_state import ProcessEnded, ReplacedFunction
from oracles.rule import Array, NotPerturbable, Unimplemented, as_tuple, describe, is_differentiable, is_real
from oracles.verdict import SELF_CONSISTENCY, Evidence, Finding, Verdict

CALL = "the call"  # the quantity of findings on a subject that raised, crashed or ran out of time


def refuse(quantity: str, reason: str, fix: str = "") -> Finding:
    """Return a finding that refuses one quantity for a reason other than its values."""
    return Finding(quantity, SELF_CONSISTENCY, Verdict.WRONG, True, np.inf, evidence=Evidence(reason=reason, fix=fix))


def refuse_exception(call: str, error: BaseException) -> Finding:
    """Return the finding on a subject that raised.

    Args:
        call: which call raised: "the forward", "the pullback".
        error: what it raised.

    Raises:
        MissingPackage: if a package is missing.
        Unimplemented: if the subject says that it has not implemented this.
    """
    require_installed(error)
    if isinstance(error, NotImplementedError) and not isinstance(error, NotPerturbable):
        problem = f"not implemented: {error}" if str(error) else "not implemented"
        raise Unimplemented(f"{problem} ({call} raised NotImplementedError, so nothing is judged)") from error
    if isinstance(error, ProcessEnded | ReplacedFunction):
        return refuse(CALL, f"{call} {error}")
    # In a process of its own it takes no device away from what is judged later.
    is_lost = isinstance(error, DeviceLost) and not error.isolated
    fix = "oracles.check(..., isolate=True)      # a process that is replaced" if is_lost else ""
    return refuse(CALL, f"{call} raised {type(error).__name__}: {error}", fix)


def require_installed(error: BaseException) -> None:
    """Raise `MissingPackage` if the error is a missing package of an extra: that is no defect of a subject."""
    if isinstance(error, ModuleNotFoundError) and (name := error.name or "") in SOURCES:
        raise MissingPackage([describe_missing(name, error)]) from error


def is_array(value: object) -> TypeGuard[Array | np.generic]:
    """Return whether a value is NumPy's: an array, or a number with a dtype."""
    return isinstance(value, np.ndarray | np.generic)


def is_real_array(value: object) -> TypeGuard[Array | np.generic]:
    """Return whether a value is NumPy's and holds real numbers."""
    return is_array(value) and is_real(value)


def outputs_of(y: object, precision: str) -> tuple[Any, ...]:
    """Return a subject's output as a tuple of outputs, unchecked.

    A list of anything but arrays is one output, of the wrong type. A Python float has no dtype, so it becomes an array
    of the expected precision.
    """
    if isinstance(y, list) and not all(map(is_array, y)):
        return (y,)
    return tuple(np.asarray(part, precision) if type(part) is float else part for part in as_tuple(y))


def type_errors(actual: Mapping[str, object], expected: Mapping[str, Array], working: str) -> tuple[Finding, ...]:
    """Return a finding for every value whose type, shape or dtype differs from the expected array's.

    Args:
        actual: the subject's outputs and cotangents by name.
        expected: arrays of the right shapes and dtypes, by name.
        working: the precision in which the subject computes.
    """
    findings = []
    for name, value in actual.items():
        if name not in expected:
            outputs = [n for n in expected if n.split("[")[0] == "output"]
            reason, fix = f"{describe(value)}, where the oracles have {', '.join(outputs)}", ""
        else:
            reason, fix = type_error(name, value, expected[name], working)
        if reason:
            findings.append(refuse(name, reason, fix))
    return tuple(findings)


def type_error(name: str, actual: object, expected: Array, working: str) -> tuple[str, str]:
    """Return how a value differs from an array in type, shape or dtype, and the line that repairs it.

    Two empty strings where it does not differ. A coarser floating dtype is left to `decisions.coarser_dtype`: if it is
    right in that precision, no formula is wrong.
    """
    dtype = np.asarray(expected).dtype
    variable = "y" if name.split("[")[0] == "output" else f"d{name}"
    if isinstance(actual, Elsewhere):
        reason = f"on the device {actual.device}, expected {actual.expected}, where the arguments are"
        return reason, f"{variable} = {actual.moving.format(variable)}"
    if not is_array(actual):
        reason = f"{describe(actual)}, expected a NumPy array of shape {np.shape(expected)}"
        return reason, _fix_of_type(variable, name, actual, expected)
    if actual.shape != np.shape(expected):
        fix = _fix_of_shape(variable, np.asarray(actual), np.shape(expected))
        return f"shape {actual.shape}, expected {np.shape(expected)}", fix
    if not is_real(actual):
        return f"dtype {actual.dtype}, expected {dtype}", _fix_of_kind(variable, name, actual.dtype, dtype)
    # Integers have no precision: only their values are compared.
    if actual.dtype == dtype or dtype.kind in "iub" or actual.dtype.name == working or is_coarser(actual.dtype, dtype):
        return "", ""
    if not is_differentiable(actual):
        fix = f"{variable} = np.zeros(shape, {dtype})      # not integers: they cut off what follows the point"
    else:
        fix = f"{variable} = {variable}.astype({dtype})      # or find the {actual.dtype} inside: np.zeros(shape) is"
    return f"dtype {actual.dtype}, expected {dtype}", fix


def _fix_of_kind(variable: str, name: str, actual: np.dtype[Any], expected: np.dtype[Any]) -> str:
    """Return the line that makes real numbers of an array that holds none."""
    if actual.kind == "c":
        why = "real numbers are expected" if variable == "y" else f"{name} is real, and so is its cotangent"
        return f"{variable} = {variable}.real      # {why}"
    return f"{variable} = np.asarray({variable}, '{expected}')      # numbers, and not {actual}"


def _fix_of_type(variable: str, name: str, actual: object, expected: Array) -> str:
    """Return the line that makes an array of a value, by the value's type."""
    if hasattr(actual, "requires_grad"):
        return (
            f"{variable} = {variable}.detach().cpu().numpy()      # or say arrays='torch' where the subject is adapted"
        )
    if hasattr(actual, "addressable_shards"):
        return f"{variable} = np.asarray({variable})      # or say arrays='jax' where the subject is adapted"
    if isinstance(actual, list | tuple):
        return f"{variable} = np.array({variable})"
    if actual is None:
        return f"return {variable}, cache      # an array of shape {np.shape(expected)}"
    like = "the output" if variable == "y" else name
    return f"{variable} = ...      # an array of shape {np.shape(expected)}: one entry for each of {like}"


def _fix_of_shape(variable: str, actual: Array, shape: tuple[int, ...]) -> str:
    """Return the line that changes one shape into another by one operation; "" if none does."""
    if actual.size == int(np.prod(shape)) and actual.size:
        is_transposed = actual.ndim == 2 and actual.shape[::-1] == shape
        return f"{variable} = {variable}.T" if is_transposed else f"{variable} = {variable}.reshape{shape}"
    extra = actual.ndim - len(shape)
    if extra < 0:
        return ""
    padded = (1,) * extra + shape
    axes = tuple(i for i, (n, m) in enumerate(zip(actual.shape, padded, strict=True)) if n != m)
    if any(padded[i] != 1 for i in axes):
        return ""
    total = f"{variable}.sum(axis={axes[0] if len(axes) == 1 else axes}, keepdims=True)"
    return f"{variable} = {total}" + (f".reshape{shape}" if extra else "")

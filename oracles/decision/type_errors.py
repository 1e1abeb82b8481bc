"""What is no array of the right kind, shape and dtype, or no answer at all: in words, with the lines that mend it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

from oracles.rule import Array, InvalidInput, as_tuple, describe, is_differentiable
from oracles.tolerance import is_coarser
from oracles.verdict import Evidence, Finding, Verdict

EXTRAS = {"torch": "torch", "jax": "jax", "ml_dtypes": "oracles", "cloudpickle": "oracles"}  # package: extra
CALL = "the call"  # the quantity of findings on a subject that raised, crashed or ran out of time


def refused(quantity: str, reason: str, fix: str = "") -> Finding:
    """Return the finding that refuses one quantity for a reason that no number shows."""
    return Finding(quantity, "self-consistency", Verdict.WRONG, True, np.inf, evidence=Evidence(reason=reason, fix=fix))


def require_installed(error: BaseException) -> None:
    """Say what to install where that is all that is the matter: it says nothing of a subject or a reference."""
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        fix = f"Fix:    pip install 'manual-bp[{EXTRAS[error.name]}]'"
        raise InvalidInput(f"{error.name} is not installed.\n{fix}") from error


def raised(what: str, error: BaseException) -> Finding:
    """Return the finding on a subject that raised."""
    require_installed(error)
    return refused(CALL, f"{what} raised {type(error).__name__}: {error}")


def is_array(value: Any) -> TypeGuard[Array | np.generic]:
    """Return whether a value is NumPy's, an array or a number with a dtype."""
    return isinstance(value, np.ndarray | np.generic)


def parts_of(y: Any, precision: str) -> tuple[Any, ...]:
    """Return a subject's output as a tuple; a list of anything but arrays is one thing, and no array.

    A Python float has no dtype: it is taken to be of the precision that is expected.
    """
    if isinstance(y, list) and not all(map(is_array, y)):
        return (y,)
    return tuple(np.asarray(part, precision) if type(part) is float else part for part in as_tuple(y))


def misfits(got: Mapping[str, Any], expected: Mapping[str, Array], working: str) -> tuple[Finding, ...]:
    """Refuse every array whose kind, shape or dtype is not exactly the expected one."""
    found = []
    for name, value in got.items():
        if name not in expected:
            wanted = [n for n in expected if n.split("[")[0] == "output"]
            reason, fix = f"{describe(value)}, where the oracles have {', '.join(wanted)}", ""
        else:
            reason, fix = misfit(name, value, expected[name], working)
        if reason:
            found.append(refused(name, reason, fix))
    return tuple(found)


def misfit(name: str, got: Any, like: Array, working: str) -> tuple[str, str]:
    """Say how a value differs in kind, shape or dtype from the array that it must be like, and how to mend it.

    Two empty strings where it does not differ. A coarser floating dtype than expected is left to `arbitration`: right
    in that precision, it is no wrong formula.
    """
    wanted = np.asarray(like).dtype
    mine = "y" if name.split("[")[0] == "output" else f"d{name}"
    if not is_array(got):
        came = f"{describe(got)}, expected a NumPy array of shape {np.shape(like)}"
        return came, _made_an_array(mine, name, got, like)
    if got.shape != np.shape(like):
        return f"shape {got.shape}, expected {np.shape(like)}", _made_to_fit(mine, np.asarray(got), np.shape(like))
    if got.dtype == wanted or got.dtype.name == working or is_coarser(got.dtype, wanted):
        return "", ""
    if not is_differentiable(got):
        fix = f"{mine} = np.zeros(shape, {wanted})      # not integers: they cut off what follows the point"
    else:
        fix = f"{mine} = {mine}.astype({wanted})      # or find the {got.dtype} inside: np.zeros(shape) is"
    return f"dtype {got.dtype}, expected {wanted}", fix


def _made_an_array(mine: str, name: str, got: Any, like: Array) -> str:
    if hasattr(got, "requires_grad"):
        return f"{mine} = {mine}.detach().cpu().numpy()      # or say arrays='torch' where the subject is adapted"
    if hasattr(got, "addressable_shards"):
        return f"{mine} = np.asarray({mine})      # or say arrays='jax' where the subject is adapted"
    if isinstance(got, list | tuple):
        return f"{mine} = np.array({mine})"
    if got is None:
        return f"return {mine}, cache      # an array of shape {np.shape(like)}"
    whose = "the output" if mine == "y" else name
    return f"{mine} = ...      # an array of shape {np.shape(like)}: one entry for each of {whose}"


def _made_to_fit(mine: str, got: Array, shape: tuple[int, ...]) -> str:
    """Return the line that makes one shape of another, where one operation does."""
    if got.size == int(np.prod(shape)) and got.size:
        transposed = got.ndim == 2 and got.shape[::-1] == shape
        return f"{mine} = {mine}.T" if transposed else f"{mine} = {mine}.reshape{shape}"
    added = got.ndim - len(shape)
    if added < 0:
        return ""
    padded = (1,) * added + shape
    axes = tuple(i for i, (n, m) in enumerate(zip(got.shape, padded, strict=True)) if n != m)
    if any(padded[i] != 1 for i in axes):
        return ""
    kept = f"{mine}.sum(axis={axes[0] if len(axes) == 1 else axes}, keepdims=True)"
    return f"{mine} = {kept}" + (f".reshape{shape}" if added else "")

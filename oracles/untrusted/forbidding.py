"""What a subject must not use to find its gradient: a package, or torch's own derivatives.

A package is hidden: its files cannot be opened where the system has Landlock, and cannot be imported anywhere. torch's
derivatives cannot be hidden from a subject that uses torch. Its source is read for their names (`names_in`), and its
process watches the runs of torch's engine, which only an adapter may start. Code that builds the names at run time and
switches the watch off in machine code is not found.
"""

from __future__ import annotations

import ast
import sys
from types import FrameType
from typing import Any

from oracles.rule import InvalidInput

AUTOGRAD = "torch.autograd"
# The method of torch's engine in which every derivative is computed.
_ENGINE = "run_backward"
# Names by which torch computes derivatives for a caller without a visible run of the engine, or which reach into it.
_NAMES = frozenset((
    "vjp", "jvp", "jacrev", "jacfwd", "hessian", "grad_and_value", "linearize", "make_dual", "run_backward",
    "_execution_engine",
))  # fmt: skip
_MODULES = ("torch.autograd", "torch.func", "functorch", "torch._C", "torch._functorch")
# What the interpreter reports when a subject switches the count off.
_SWITCHES = frozenset(("sys.setprofile", "_thread.start_new_thread", "ctypes.dlopen"))


class Forbidden(RuntimeError):
    """The subject did what was forbidden."""


def require_forbidden(forbid: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Return the packages that are hidden, and whether torch's own derivatives are forbidden.

    Raises:
        InvalidInput: if a name is neither a package nor "torch.autograd".
    """
    packages = tuple(name for name in forbid if name != AUTOGRAD)
    for name in packages:
        if not name.isidentifier() or name in ("numpy", "oracles"):
            raise InvalidInput(
                f'forbid: expected names of packages, such as "torch", or "{AUTOGRAD}", got {name!r}.\n'
                f'Fix:    forbid=["torch", "jax"]'
            )
    return packages, AUTOGRAD in forbid


def names_in(source: str) -> list[str]:
    """Return where a source names torch's own derivatives: "line 7: torch.autograd.grad"."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []
    return [f"line {node.lineno}: {text}" for node in ast.walk(tree) for text in _named(node)]  # type: ignore[attr-defined]


def _named(node: ast.AST) -> list[str]:
    match node:
        case ast.Call(func=ast.Attribute(attr=name) as function) if name in _NAMES:
            return [ast.unparse(function)]
        case ast.Call(func=ast.Name(id=name)) if name in _NAMES:
            return [name]
        case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant(value=str(name)), *_]) if name in _NAMES:
            return [name]
        case ast.ImportFrom(module=str(module), names=names) if module.startswith(_MODULES):
            used = [f"{module}.{alias.name}" for alias in names]
            return [name for name in used if not name.startswith((f"{AUTOGRAD}.Function", f"{AUTOGRAD}.function"))]
    return []


class Watch:
    """Watches what a subject does in its process.

    Args:
        hidden_packages: what it may not import.
        forbids_autograd: whether runs of its own are forbidden.
    """

    def __init__(self, hidden_packages: tuple[str, ...], forbids_autograd: bool) -> None:
        self._seen: list[str] = []
        if forbids_autograd:
            sys.setprofile(self._profile)
            sys.addaudithook(self._audit)  # none can be removed

    def seen(self) -> list[str]:
        """Return what was noticed so far."""
        return list(dict.fromkeys(self._seen))

    def _profile(self, frame: FrameType, event: str, argument: Any) -> None:
        is_run = event == "c_call" and getattr(argument, "__name__", "") == _ENGINE
        if is_run and not _is_adapter(_caller(frame)):
            self._seen.append("it runs torch's own backward")
            raise Forbidden("it runs torch's own backward, which is forbidden")

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _SWITCHES:
            self._seen.append(f"it calls {event}")
            raise Forbidden(f"it calls {event}, which is forbidden along with {AUTOGRAD}")


def _caller(frame: FrameType | None) -> FrameType | None:
    """Return the frame outside of torch from which a frame of torch was called."""
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "torch":
        frame = frame.f_back
    return frame


def _is_adapter(frame: FrameType | None) -> bool:
    """Return whether a frame is of a module of this package."""
    name = "" if frame is None else str(frame.f_globals.get("__name__", ""))
    module = sys.modules.get(name) if name.startswith("oracles.") else None
    return frame is not None and module is not None and frame.f_globals is vars(module)

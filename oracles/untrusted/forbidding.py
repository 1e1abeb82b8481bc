"""What a subject must not use to find its gradient: a package, or torch's own derivatives.

A package is hidden: its files cannot be opened where the system has Landlock, and cannot be imported anywhere. torch's
derivatives cannot be hidden from a subject that uses torch. Its source is read for their names (`names_in`). Its
process watches the runs of torch's engine, which only an adapter may start, and what torch saves for them: the
operations of a subject are not differentiated, so they save nothing. Threads and processes, in which nothing is
watched, are forbidden along with that. All this is in the subject's own process. Code that is written against it is not
found: code that builds names at run time, and takes the place of a module of the judge or switches the watch off in
machine code.
"""

from __future__ import annotations

import ast
import re
import sys
import threading
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

from oracles.rule import InvalidInput

AUTOGRAD = "torch.autograd"
# The method of torch's engine in which every derivative is computed, and the function that replaces what is asked
# before a tensor is saved for it.
_WATCHED = frozenset(("run_backward", "_push_saved_tensors_default_hooks"))
# Names by which torch computes derivatives for a caller without a visible run of the engine, or which reach into it.
_NAMES = frozenset((
    "vjp", "jvp", "jacrev", "jacfwd", "hessian", "grad_and_value", "linearize", "make_dual", "run_backward",
    "_execution_engine", "saved_tensors_hooks", "disable_saved_tensors_hooks", "start_new_thread",
    "torch_autograd", "torch_differentiated",
))  # fmt: skip
# Operations of torch that are the backward of another: torch.ops.aten.silu_backward.
_BACKWARD = re.compile(r"(torch|aten|ops)\..*_backward(\.\w+)?")
_MODULES = ("torch.autograd", "torch.func", "functorch", "torch._C", "torch._functorch")
# What the interpreter reports when a subject switches the watch off, as a new thread does; when it searches the process
# for what watches it; or when it goes where nothing is watched.
_SWITCHES = frozenset((
    "sys.setprofile", "_thread.start_new_thread", "ctypes.dlopen", "ctypes.dlsym", "gc.get_objects", "gc.get_referrers",
    "gc.get_referents", "os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.system", "subprocess.Popen",
))  # fmt: skip


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
        case ast.Call(func=ast.Attribute() as function) if _BACKWARD.fullmatch(ast.unparse(function)):
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

    What watches is in closures over what was there before the subject: it does not change with the names of modules.

    Args:
        hidden_packages: what it may not import.
        forbids_autograd: whether runs of its own are forbidden.
    """

    def __init__(self, hidden_packages: tuple[str, ...], forbids_autograd: bool) -> None:
        self._seen: list[str] = []
        if forbids_autograd:
            self._watch_torch(self._seen, Forbidden, _WATCHED, _SWITCHES)

    def seen(self) -> list[str]:
        """Return what was noticed so far."""
        return list(dict.fromkeys(self._seen))

    def _watch_torch(
        self, seen: list[str], forbidden: type[Forbidden], watched: frozenset[str], switches: frozenset[str]
    ) -> None:
        """Watch the runs of torch's engine, and what torch saves for them: Functions and the adapters may do both."""
        import torch

        for adapter in ("torch_code", "torch_derivatives"):
            import_module(f"oracles.adapters.{adapter}")
        adapters = frozenset(id(vars(sys.modules[n])) for n in list(sys.modules) if n.partition(".")[0] == "oracles")
        function = vars(torch.autograd.function)

        def notice(text: str) -> NoReturn:
            seen.append(text)
            raise forbidden(f"{text}, which is forbidden")

        def profile(frame: FrameType, event: str, argument: Any) -> None:
            if event == "c_call" and getattr(argument, "__name__", "") in watched:
                caller: FrameType | None = frame  # the one outside of torch
                while caller is not None and str(caller.f_globals.get("__name__")).partition(".")[0] == "torch":
                    caller = caller.f_back
                if caller is None or id(caller.f_globals) not in adapters:
                    notice("it runs torch's own backward")

        def saved(tensor: Any) -> Any:
            names = sys._getframe(1).f_globals
            if names is not function and id(names) not in adapters:
                notice("it lets torch record operations for a backward")
            return tensor

        def audit(event: str, arguments: tuple[Any, ...]) -> None:
            if event in switches:
                notice(f"it calls {event}")

        torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor).__enter__()  # for good
        threading.setprofile(profile)  # a new thread sets it, which is reported
        sys.setprofile(profile)
        sys.addaudithook(audit)  # none can be removed

"""Let the functions that compare audit: those of modules that are loaded and of those that will be."""

from __future__ import annotations

import functools
import importlib.abc
import inspect
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import pytest

from oracles.audit.auditor import RAISED, Auditor
from oracles.audit.comparisons import APPROX, COMPARISONS, COMPOSITES, Comparison, Composite, Replacement
from oracles.audit.in_place import can_redirect, copied, redirect

Function: TypeAlias = Callable[..., Any]
# Returns what is called in the place of a function, given what does what it did.
Make: TypeAlias = Callable[[Function], Function]


class Patches(importlib.abc.MetaPathFinder):
    """Functions that audit; torch and JAX are not imported for it, but patched when the suite imports them.

    A function of Python's own gets other code. What stands for ``np.allclose`` calls such a function. In the place of
    torch's built-in functions stands another object, see `Replacement`.
    """

    def __init__(self, auditor: Auditor) -> None:
        self.auditor = auditor
        self.replaced: list[tuple[ModuleType, str, Function]] = []
        self.redirected: dict[FunctionType, Callable[[], None]] = {}
        self.by_module: dict[str, list[tuple[str, Make]]] = {}
        for comparison in COMPARISONS:
            self._plan(comparison, functools.partial(compared, auditor, comparison))
        for composite in COMPOSITES:
            self._plan(composite, functools.partial(composed, auditor, composite))
        self.pending = {*self.by_module}

    def _plan(self, of: Comparison | Composite, make: Make) -> None:
        for module in of.modules:
            self.by_module.setdefault(module, []).append((of.name, make))

    def install(self) -> None:
        """Patch the modules that are loaded, and watch for the others."""
        sys.meta_path.insert(0, self)
        for comparing in {type(approx).__eq__ for approx in _approximations()}:
            if can_redirect(comparing):
                self._redirect(comparing, functools.partial(approximated, self.auditor))
        for name in [name for name in self.by_module if name in sys.modules]:
            self._patch(sys.modules[name])
        made = {id(original): getattr(module, name) for module, name, original in self.replaced}
        tops = {name.partition(".")[0] for name in self.by_module}
        for name, module in list(sys.modules.items()):
            if isinstance(module, ModuleType) and name.partition(".")[0] not in {*tops, "oracles", "_pytest"}:
                for attribute, value in list(vars(module).items()):
                    if id(value) in made:
                        self._replace(module, attribute, made[id(value)])

    def undo(self) -> None:
        """Put the original functions and their code back."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for module, name, original in reversed(self.replaced):
            setattr(module, name, original)
        for undo in self.redirected.values():
            undo()
        self.replaced.clear()
        self.redirected.clear()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module that is to be patched after it has been executed."""
        if name not in self.pending:
            return None
        self.pending.discard(name)
        finders = (finder for finder in sys.meta_path if finder is not self)
        spec = next((s for finder in finders if (s := finder.find_spec(name, path, target)) is not None), None)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Loader(spec.loader, self._patch)
        return spec

    def _patch(self, module: ModuleType) -> None:
        self.pending.discard(module.__name__)
        if module.__name__ == "torch":
            self.auditor.is_recorded = functools.partial(_is_recorded, module)
        for name, make in self.by_module[module.__name__]:
            original = getattr(module, name, None)
            if not callable(original) or isinstance(original, Replacement):
                continue
            function = inspect.unwrap(original)  # of np.allclose what NumPy calls where no operand has its own
            if can_redirect(function):
                self._redirect(function, make)
            else:
                self._replace(module, name, Replacement(original, make(original)))

    def _redirect(self, function: FunctionType, make: Make) -> None:
        if function not in self.redirected:
            self.redirected[function] = redirect(function, make(copied(function)))

    def _replace(self, module: ModuleType, name: str, function: Function) -> None:
        self.replaced.append((module, name, getattr(module, name)))
        setattr(module, name, function)


class _Loader(importlib.abc.Loader):
    """Loads a module as its own loader does, and then patches it."""

    def __init__(self, own: importlib.abc.Loader, patch: Callable[[ModuleType], None]) -> None:
        self.own, self.patch = own, patch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["own"], name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module, with its own loader from now on."""
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module by its own loader, and patch it."""
        module.__loader__ = self.own
        if module.__spec__ is not None:
            module.__spec__.loader = self.own
        self.own.exec_module(module)
        self.patch(module)


def _is_recorded(torch: ModuleType) -> bool:
    """Return whether torch reads or records what is called, rather than runs it: torch.compile knows its answer."""
    return bool(torch.compiler.is_compiling() or torch.jit.is_tracing())


def compared(auditor: Auditor, comparison: Comparison, original: Function) -> Function:
    """Return the function that compares as the original does, and then asks it again."""

    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if auditor.is_idle():
            return original(*args, **kwargs)
        rest, others = args[2:], {name: kwargs[name] for name in kwargs if name not in comparison.parameters[:2]}
        quiet = {**others, **comparison.quiet} if len(rest) < 2 else others

        def ask(actual: object, expected: object) -> object:
            return original(actual, expected, *rest, **quiet)

        result = RAISED
        try:
            with auditor.comparing():
                result = original(*args, **kwargs)
        finally:
            auditor.compared(comparison, ask, args, comparison.named(args, kwargs), result)
        return result

    return call


def composed(auditor: Auditor, composite: Composite, original: Function) -> Function:
    """Return the function that compares gradients as the original does, while its parts are asked again."""

    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if auditor.is_idle():
            return original(*args, **kwargs)
        with auditor.composing(composite):
            return original(*args, **kwargs)

    return call


def approximated(auditor: Auditor, original: Function) -> Function:
    """Return ``==`` of what ``pytest.approx`` returns, which compares as the original does, and then asks it again."""

    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        approx, actual = (*args, *kwargs.values())
        if auditor.is_idle():
            return original(approx, actual)
        with auditor.comparing():
            result = original(approx, actual)
        named = {"actual": actual, "expected": approx.expected, "rel": approx.rel, "abs": approx.abs}
        auditor.compared(APPROX, lambda mutant, expected: original(approx, mutant), (), named, result)
        return result

    return call


def _approximations() -> tuple[object, ...]:
    """Return one of each class that ``pytest.approx`` returns."""
    return tuple(pytest.approx(value) for value in (1.0, Decimal(1), [1.0], {"a": 1.0}, np.ones(1)))

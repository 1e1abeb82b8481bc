"""Put the audited comparisons in the places of the functions, in modules that are loaded and in those that will be."""

from __future__ import annotations

import functools
import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from oracles.audit.auditor import RAISED, Auditor
from oracles.audit.comparisons import APPROX, COMPARISONS, COMPOSITES, Comparison, Composite, replacement

Function = Callable[..., Any]


class Patches(importlib.abc.MetaPathFinder):
    """Functions that are replaced; torch and JAX are not imported for it, but patched when the suite imports them."""

    def __init__(self, auditor: Auditor) -> None:
        self.auditor = auditor
        self.replaced: list[tuple[ModuleType, str, Function]] = []
        self.by_module: dict[str, list[tuple[str, Callable[[Function], Function]]]] = {}
        for comparison in COMPARISONS:
            self._plan(comparison, functools.partial(compared, auditor, comparison))
        for composite in COMPOSITES:
            self._plan(composite, functools.partial(composed, auditor, composite))
        self._plan(APPROX, functools.partial(approximated, auditor))
        self.pending = {*self.by_module}

    def _plan(self, of: Comparison | Composite, make: Callable[[Function], Function]) -> None:
        for module in of.modules:
            self.by_module.setdefault(module, []).append((of.name, make))

    def install(self) -> None:
        """Patch the modules that are loaded, and watch for the others."""
        sys.meta_path.insert(0, self)
        made: dict[int, Function] = {}
        for name in [name for name in self.by_module if name in sys.modules]:
            self._patch(sys.modules[name], made)
        tops = {name.partition(".")[0] for name in self.by_module}
        for name, module in list(sys.modules.items()):
            if isinstance(module, ModuleType) and name.partition(".")[0] not in {*tops, "oracles", "_pytest"}:
                for attribute, value in list(vars(module).items()):
                    if id(value) in made:
                        self._replace(module, attribute, made[id(value)])

    def undo(self) -> None:
        """Put the original functions back."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for module, name, original in reversed(self.replaced):
            setattr(module, name, original)
        self.replaced.clear()

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module that is to be patched after it has been executed."""
        if name not in self.pending:
            return None
        self.pending.discard(name)
        finders = (finder for finder in sys.meta_path if finder is not self)
        spec = next((s for finder in finders if (s := finder.find_spec(name, path, target)) is not None), None)
        if spec is None or spec.loader is None:
            return None
        spec.loader = _Loader(spec.loader, lambda module: self._patch(module, {}))
        return spec

    def _patch(self, module: ModuleType, made: dict[int, Function]) -> None:
        self.pending.discard(module.__name__)
        for name, make in self.by_module[module.__name__]:
            original = getattr(module, name, None)
            if callable(original) and not isinstance(original, ModuleType) and not hasattr(original, "_is_audited"):
                made.setdefault(id(original), make(original))
                self._replace(module, name, made[id(original)])

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


def _marked(original: Function, call: Function) -> Function:
    function = replacement(original, call)
    function._is_audited = True  # type: ignore[attr-defined]
    return function


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

    return _marked(original, call)


def composed(auditor: Auditor, composite: Composite, original: Function) -> Function:
    """Return the function that compares gradients as the original does, while its parts are asked again."""

    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if auditor.is_idle():
            return original(*args, **kwargs)
        with auditor.composing(composite):
            return original(*args, **kwargs)

    return _marked(original, call)


def approximated(auditor: Auditor, original: Function) -> Function:
    """Return ``pytest.approx`` whose ``==`` asks again."""

    def call(expected: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        approx = original(expected, *args, **kwargs)
        named = dict(zip(("rel", "abs", "nan_ok"), args, strict=False)) | kwargs
        approx.__class__ = _audited_class(type(approx))
        approx._audit = (auditor, {**named, "expected": expected})
        return approx

    return _marked(original, call)


_CLASSES: dict[Any, Any] = {}


def _audited_class(base: Any) -> Any:
    """Return the subclass of one of approx's classes whose ``==`` asks again."""
    if base in _CLASSES:
        return _CLASSES[base]

    def equals(self: Any, actual: object) -> Any:
        __tracebackhide__ = True
        auditor, named = self._audit
        if auditor.is_idle():
            return base.__eq__(self, actual)
        with auditor.comparing():
            result = base.__eq__(self, actual)
        named = {**named, "actual": actual}
        auditor.compared(APPROX, lambda mutant, expected: base.__eq__(self, mutant), (), named, result)
        return result

    body = {"__eq__": equals, "__hash__": None, "__doc__": base.__doc__, "__module__": base.__module__}
    _CLASSES[base] = type(base.__name__, (base,), {**body, "__qualname__": base.__qualname__})
    return _CLASSES[base]

"""Functions of Python's own that call something else: the same objects, with other code.

A function that stays the object it was is pickled, compared, looked up and imported as before, whoever holds it. Its
name, its defaults and its signature stay too.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType
from typing import Any, TypeGuard

Function = Callable[..., Any]
# The codes that stand in the place of others, by their ids: they stay, so that no id is that of another object.
_CODES: dict[int, CodeType] = {}


def is_in_place(frame: FrameType) -> bool:
    """Return whether a frame is one of code that stands in the place of another one."""
    return id(frame.f_code) in _CODES


def copied(function: FunctionType) -> FunctionType:
    """Return another function that does the same, and goes on to do it."""
    code, defaults, cells = function.__code__, function.__defaults__, function.__closure__
    copy = FunctionType(code, function.__globals__, function.__name__, defaults, cells)
    copy.__kwdefaults__, copy.__module__ = function.__kwdefaults__, function.__module__
    copy.__qualname__ = function.__qualname__
    copy.__dict__.update(function.__dict__)
    return copy


def can_redirect(function: object) -> TypeGuard[FunctionType]:
    """Return whether a function can get other code: one of Python's own, with at most one variable of a closure."""
    return isinstance(function, FunctionType) and len(function.__code__.co_freevars) < len(_TEMPLATES)


def redirect(function: FunctionType, call: Function) -> Callable[[], None]:
    """Let a function call another one in place of its own code; return what gives its own code back.

    The other one is a global name of the function's module, which torch.compile can follow.
    """
    before, called = function.__code__, re.sub(r"\W", "_", f"__audited_{function.__qualname__}__")
    template = _TEMPLATES[len(before.co_freevars)].__code__
    code = template.replace(
        co_names=tuple(called if name == _called.__name__ else name for name in template.co_names),
        co_filename=before.co_filename,
        co_firstlineno=before.co_firstlineno,
        co_name=before.co_name,
        co_qualname=before.co_qualname,
    )
    had = dict(function.__dict__)
    function.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    function.__globals__[called] = call
    function.__code__ = _CODES[id(code)] = code

    def undo() -> None:
        function.__code__ = before
        function.__dict__.clear()
        function.__dict__.update(had)
        function.__globals__.pop(called, None)

    return undo


def _called(*args: Any, **kwargs: Any) -> Any:
    """Stand for what is called, in the templates of the code."""


def _without_closure(*args: Any, **kwargs: Any) -> Any:
    __tracebackhide__ = True
    return _called(*args, **kwargs)


def _with_closure(variable: object = None) -> FunctionType:
    """Return a function with a variable of a closure, as a method has that calls ``super()``."""

    def function(*args: Any, **kwargs: Any) -> Any:
        nonlocal variable
        __tracebackhide__ = True
        return _called(*args, **kwargs)

    assert isinstance(function, FunctionType)
    return function


# By the number of variables of a closure, which must be that of the function.
_TEMPLATES = (_without_closure, _with_closure())

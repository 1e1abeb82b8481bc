"""Functions of Python's own that call something else: the same objects, with other code.

A function that stays the object it was is pickled, compared, looked up and imported as before, whoever holds it. Its
name, its defaults and its signature stay too.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType, FunctionType
from typing import Any

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


def redirect(function: FunctionType, call: Function) -> Callable[[], None]:
    """Let a function call another one in place of its own code; return what gives its own code back.

    The arguments are passed on by name, and by position if they have no name, or one behind them has none. The other
    one is a global name of the function's module, which torch.compile can follow.
    """
    before, called = function.__code__, re.sub(r"\W", "_", f"__audited_{function.__qualname__}__")
    # The text has a default where the function has one, whose own are used. So many variables of a closure are free.
    parameters = [
        each.replace(annotation=each.empty, default=each.empty if each.default is each.empty else None)
        for each in inspect.signature(function, follow_wrapped=False).parameters.values()
    ]
    free = [f"free_{i}" for i in range(len(before.co_freevars))]
    source = (
        f"def around({', '.join(free)}):\n"
        f"  def function{inspect.Signature(parameters)}:\n"
        "    __tracebackhide__ = True\n"
        f"    return {called}({', '.join(_passed(parameters))})\n"
        f"    {', '.join(free) or None}\n"
        "  return function\n"
    )
    names: dict[str, Any] = {}
    exec(compile(source, "<oracles.audit>", "exec"), names)
    code: CodeType = names["around"](*free).__code__
    code = code.replace(
        co_filename=before.co_filename,
        co_firstlineno=before.co_firstlineno,
        co_name=before.co_name,
        co_qualname=before.co_qualname,
    )
    function.__globals__[called] = call
    function.__code__ = _CODES[id(code)] = code

    def undo() -> None:
        function.__code__ = before
        function.__globals__.pop(called, None)

    return undo


def _passed(parameters: Sequence[inspect.Parameter]) -> Iterator[str]:
    """Yield how each parameter is passed on."""
    has_rest = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    for each in parameters:
        if each.kind is each.KEYWORD_ONLY or (each.kind is each.POSITIONAL_OR_KEYWORD and not has_rest):
            yield f"{each.name}={each.name}"
        else:
            stars = "*" * (each.kind is each.VAR_POSITIONAL) or "**" * (each.kind is each.VAR_KEYWORD)
            yield stars + each.name

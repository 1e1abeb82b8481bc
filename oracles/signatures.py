"""Call a user's function by the names of the primals, or in their order where it shows no such parameters.

A decorator without `functools.wraps` shows ``(*args, **kwargs)``. The function behind it, which the decorator keeps in
its closure or as an attribute, has the parameters that count.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from types import FrameType, FunctionType, MethodType
from typing import Any, TypeAlias

from oracles.rule import Function, InvalidInput

# How to call a function: by names, in an order, or first the one and then the other.
Form: TypeAlias = tuple[str, tuple[str, ...]]
BY_NAME, IN_ORDER, EITHER = "by name", "in order", "either"

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
# What Python says of a call whose arguments do not fit the parameters.
_OF_THE_ARGUMENTS = re.compile(
    r"unexpected keyword argument|missing \d+ required|positional arguments? but|multiple values for|"
    r"takes (no|exactly|at least|at most|from|\d+)\b.* arguments?|expected (exactly|at least|at most )?\d+ arguments?"
)


def call_by_name(f: Function, primals: Mapping[str, Any], *, like: Function | None = None) -> Any:
    """Call a function by the names of the primals, or in their order if it shows no such parameters (torch.sin).

    Args:
        f: the function.
        primals: its arguments.
        like: the function whose parameters count, if ``f`` passes its arguments on to it.

    Raises:
        InvalidInput: if its parameters are not the primals.
    """
    names, shown = tuple(primals), like or f
    form, order = _form(shown, names) if _is_hashable(shown) else _form.__wrapped__(shown, names)
    if form == IN_ORDER:
        return _call(f, [primals[n] for n in order], {}, names)
    if form == BY_NAME:
        return _call(f, [], primals, names)
    try:
        return f(**primals)
    except TypeError as error:
        if not _is_about_the_arguments(error):
            raise
    return _call(f, list(primals.values()), {}, names)


def call_by_name_or_in_order(f: Function, primals: Mapping[str, Any], *, like: Function | None = None) -> Any:
    """Call a function by the names of the primals if it has such parameters, else in their order.

    Args:
        f, primals, like: as in `call_by_name`.

    Raises:
        InvalidInput: if it takes them neither way.
    """
    signature = _shown_signature(like or f)
    if signature is None or hides_parameters(signature) or _binds(signature, **primals):
        return call_by_name(f, primals, like=like)
    if not _binds(signature, *primals.values()):
        raise _no_such_parameters(like or f, tuple(primals), f"it takes {signature}")
    return _call(f, list(primals.values()), {}, tuple(primals))


def signature_of(f: Function) -> inspect.Signature | None:
    """Return the signature of a function, or of the one that its decorators call; ``None`` if it shows none."""
    shown = _shown_signature(f)
    if shown is None or not hides_parameters(shown):
        return shown
    return next((s for s in hidden_signatures(f) if not hides_parameters(s)), shown)


def hides_parameters(signature: inspect.Signature, leading: int = 0) -> bool:
    """Return whether a signature has nothing but ``*args`` and ``**kwargs``, after leading parameters such as ctx."""
    rest = list(signature.parameters.values())
    rest = [p for i, p in enumerate(rest) if i >= leading or p.kind in VARIADIC]
    return bool(rest) and all(p.kind in VARIADIC for p in rest)


def hidden_signatures(f: Function) -> Iterator[inspect.Signature]:
    """Yield the signatures of the functions that a decorated one keeps, as far as their parameters are free in it."""
    for inner, bound, named in _functions_inside(f, set()):
        signature = _shown_signature(inner)
        if signature is not None:
            parameters = list(signature.parameters.values())
            if len(parameters) >= bound or hides_parameters(signature):
                free = parameters if hides_parameters(signature) else parameters[bound:]
                yield signature.replace(parameters=[p for p in free if p.name not in named])


def _functions_inside(f: Function, visited: set[int]) -> Iterator[tuple[Function, int, frozenset[str]]]:
    """Yield every function that a function keeps, the number of its arguments that are bound, and the names of some."""
    if id(f) in visited:
        return
    visited.add(id(f))
    if isinstance(f, partial):
        layer, bound, named = [f.func], len(f.args), frozenset(f.keywords)
    elif isinstance(f, MethodType):
        layer, bound, named = [f.__func__], 1, frozenset[str]()
    else:
        layer, bound, named = _kept_by(f), 0, frozenset[str]()
    for function in layer:
        if not isinstance(f, partial | MethodType):  # the function in these has the signature that they show
            yield function, 0, named
        for deeper, more, others in _functions_inside(function, visited):
            yield deeper, bound + more, named | others


def _kept_by(f: Function) -> list[Function]:
    """Return the functions in the closure of a function, or in the attributes of an object that is called."""
    kept: list[object] = []
    for cell in getattr(f, "__closure__", None) or ():
        try:
            kept.append(cell.cell_contents)
        except ValueError:  # the cell is empty
            continue
    if not isinstance(f, FunctionType | type):
        kept += getattr(f, "__dict__", {}).values()
    plain = [k.__func__ if isinstance(k, staticmethod | classmethod) else k for k in kept]
    return [k for k in plain if callable(k)]


def _shown_signature(f: Function) -> inspect.Signature | None:
    # Of an object with both __call__ and __get__, inspect asks for a text signature, which it has not.
    call = vars(type(f)).get("__call__")
    for function in (f, MethodType(call, f)) if isinstance(call, FunctionType) else (f,):
        try:
            return inspect.signature(function)
        except (TypeError, ValueError):  # builtins have no signature; most accept no names
            continue
    inner = _shown_signature(f.func) if isinstance(f, partial) else None
    return inner if inner is not None and hides_parameters(inner) else None


@lru_cache(maxsize=4096)
def _form(f: Function, names: tuple[str, ...]) -> Form:
    """Return how to call a function with the primals of these names."""
    shown = _shown_signature(f)
    if shown is None:
        return IN_ORDER, names
    if not hides_parameters(shown):
        return _form_of_shown(f, shown, names)
    kinds = {p.kind for p in shown.parameters.values()}
    by_name, in_order = inspect.Parameter.VAR_KEYWORD in kinds, inspect.Parameter.VAR_POSITIONAL in kinds
    behind = [s for s in hidden_signatures(f) if not hides_parameters(s)]
    for signature in behind:
        if _binds(signature, **dict.fromkeys(names)):
            return (BY_NAME, names) if by_name else (IN_ORDER, tuple(p for p in signature.parameters if p in names))
    if by_name and in_order:
        return (IN_ORDER, names) if behind else (EITHER, names)
    return (BY_NAME, names) if by_name else (IN_ORDER, names)


def _form_of_shown(f: Function, signature: inspect.Signature, names: tuple[str, ...]) -> Form:
    required = [p for p in signature.parameters.values() if p.default is p.empty]
    positional = all(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in required)
    if _binds(signature, **dict.fromkeys(names)):
        return BY_NAME, names
    if positional and len(required) == len(names) == 1:
        return IN_ORDER, names  # the one primal can only be the one parameter
    raise InvalidInput(
        f"{getattr(f, '__qualname__', f)} takes {signature}, but the primals are {', '.join(names)}.\n"
        f"Fix: name its parameters like the primals:\n    def {_plain_name(f)}({', '.join(names)}): ..."
    )


def _call(f: Function, positional: list[Any], named: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """Call a function; if the arguments alone do not fit, that is invalid input and no defect of what it computes."""
    try:
        return f(*positional, **named)
    except TypeError as error:
        if not _is_about_the_arguments(error):
            raise
        raise _no_such_parameters(f, names, str(error)) from error


def _no_such_parameters(f: Function, names: tuple[str, ...], problem: str) -> InvalidInput:
    return InvalidInput(
        f"{getattr(f, '__qualname__', f)} cannot be called with the primals {', '.join(names)}: {problem}.\n"
        f"Fix: name its parameters like the primals, and use functools.wraps in its decorators:\n"
        f"    def {_plain_name(f)}({', '.join(names)}): ..."
    )


def _is_about_the_arguments(error: TypeError) -> bool:
    """Return whether a TypeError was raised by the call itself, or by decorators that pass the arguments on."""
    if isinstance(error, InvalidInput) or not _OF_THE_ARGUMENTS.search(str(error)):
        return False
    trace = error.__traceback__.tb_next if error.__traceback__ else None
    while trace is not None:
        if not _passes_arguments_on(trace.tb_frame):
            return False
        trace = trace.tb_next
    return True


def _passes_arguments_on(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS))


def _binds(signature: inspect.Signature, /, *args: object, **named: object) -> bool:
    try:
        signature.bind(*args, **named)
    except TypeError:
        return False
    return True


def _is_hashable(f: Callable[..., Any]) -> bool:
    try:
        hash(f)
    except TypeError:  # a method of a dataclass that compares by value
        return False
    return True


def _plain_name(f: object) -> str:
    name = str(getattr(f, "__name__", "reference"))
    return name if name.isidentifier() else "reference"

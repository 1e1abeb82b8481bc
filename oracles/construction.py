"""How an instance of somebody's class is made that is configured as one of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any

_FIX = "Fix:    pass lift=lambda {like}: oracles.manual_layer({subject}(...)), which makes it of a drawn {Like}"


@dataclass(frozen=True)
class Construction:
    """How to build a subject from a configured instance of another class.

    Attributes:
        build: makes the subject, with the fields of an instance as its arguments.
        left_out: fields that the subject does not take, with their defaults: it stands only for instances that have
            these.
    """

    build: Callable[[Any], Any]
    left_out: Mapping[str, Any]


def construction(subject: Callable[..., Any], like: type, label: str) -> Construction:
    """Match what a subject's constructor takes with the fields of a dataclass.

    Raises:
        TypeError: if the subject is no class or function, or cannot be built so; says what to write.
    """
    if not callable(subject) or (hasattr(subject, "forward") and not isinstance(subject, type)):
        raise TypeError(
            f"conformance_of: expected a class, or a function that makes an instance, got {subject!r:.80}.\n"
            f"Fix:    conformance_of({type(subject).__name__}, like={like.__name__})"
        )
    fix = _FIX.format(like=like.__name__.lower(), Like=like.__name__, subject=label)
    if not is_dataclass(like):
        raise TypeError(f"conformance_of: {like.__name__} is no dataclass: its configuration is unknown.\n{fix}")
    configured = inspect.signature(like).parameters  # other fields are derived from these
    offered = {f.name: f for f in fields(like) if f.name in configured}
    try:
        parameters = inspect.signature(subject).parameters
    except (TypeError, ValueError):
        raise TypeError(f"conformance_of: the signature of {label} cannot be read.\n{fix}") from None
    kinds = {p.kind for p in parameters.values()}
    wanted = [n for n, p in parameters.items() if n not in offered and p.default is p.empty and p.kind not in _VARIADIC]
    left_out = (
        {} if inspect.Parameter.VAR_KEYWORD in kinds else {n: f for n, f in offered.items() if n not in parameters}
    )
    needed = [n for n, f in left_out.items() if _default(f) is MISSING]
    if wanted or needed:
        problem = (
            f"it needs {', '.join(wanted)}, which {like.__name__} does not have"
            if wanted
            else f"it takes no {', '.join(needed)}"
        )
        raise TypeError(
            f"conformance_of: {label}{inspect.signature(subject)} cannot be built from the fields of "
            f"{like.__name__} ({', '.join(offered)}): {problem}.\n{fix}"
        )
    given = [n for n in offered if n not in left_out]
    return Construction(
        lambda drawn: _built(subject, label, parameters, {n: getattr(drawn, n) for n in given}, fix),
        {n: _default(f) for n, f in left_out.items()},
    )


_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _built(
    subject: Callable[..., Any],
    label: str,
    parameters: Mapping[str, inspect.Parameter],
    configuration: Mapping[str, Any],
    fix: str,
) -> Any:
    positional: list[Any] = []
    named = dict(configuration)
    for name, parameter in parameters.items():
        if name in named and parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(named.pop(name))
        elif name in named and parameter.kind is parameter.VAR_POSITIONAL:
            positional += named.pop(name)
    try:
        mine = subject(*positional, **named)
    except Exception as error:
        arguments = ", ".join(f"{n}={v!r}" for n, v in configuration.items())
        raise TypeError(
            f"conformance_of: {label}({arguments}) raised {type(error).__name__}: {error}\n{fix}"
        ) from error
    if not (hasattr(mine, "forward") and hasattr(mine, "backward")) and not hasattr(mine, "step"):
        raise TypeError(
            f"conformance_of: {label} has no forward(params, z) and backward(cache, delta), the contract of "
            f"manual_bp.protocol.\n{fix}"
        )
    return mine

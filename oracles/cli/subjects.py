"""What a command line names: ``FILE.py:NAME`` is made a subject, ``torch:REF`` a reference.

A name may be an expression, such as ``oracles.stateful(Net, params=["W"])``. It is parsed and its tree is walked; no
text is executed as code. Names, attributes, subscripts, calls, literals, arithmetic, single comparisons and lambdas are
understood. Whatever needs more belongs into the user's file. A subject is adapted by the first of `ADAPTABLE` that fits
it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import operator
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from inspect import Parameter, Signature
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import oracles
from oracles.adaptable import ADAPTABLE, adapting_line, kind_of, positional
from oracles.cli.user_files import import_source, user_errors
from oracles.missing import MissingPackage, missing_module
from oracles.options import FRAMEWORK_NAMES, did_you_mean
from oracles.registry import FRAMEWORKS, Unusable, display_name
from oracles.rule import Rule
from oracles.stages import announce

_TARGET = re.compile(r"(?P<source>(?:[A-Za-z]:[\\/])?[^:]*\.py|[A-Za-z_][\w.]*):(?P<name>.+)", re.DOTALL)
# How many names of a module an error message lists.
LISTED_NAMES = 12


def find_target(text: str) -> tuple[Value, str, ModuleType]:
    """Return the object that ``FILE_OR_MODULE:NAME`` names, its name, and the module that contains it.

    Raises:
        Unusable: (a ValueError) if there is no such file, module or name; lists those that exist.
    """
    parts = _TARGET.fullmatch(text)
    if parts is None:
        source = text.split(":")[0]
        there = f" {source} defines {_defined_in(import_source(source))}." if source.endswith(".py") else ""
        raise Unusable(
            f"TARGET: expected FILE.py:NAME or MODULE:NAME, got {text!r}.{there}\n"
            "Fix:    oracles check my_file.py:forward,backward"
        )
    module = import_source(parts["source"])
    return evaluate_in(parts["name"], module), parts["name"].strip(), module


def evaluate_in(expression: str, module: ModuleType, **extra: Value) -> Value:
    """Return the value of an expression in the names of a module, ``oracles`` and ``extra``."""
    with user_errors(f"{expression} in {display_name(module)}"):
        try:
            return evaluate(expression, {"oracles": oracles, **extra, **vars(module)})
        except NameError as error:
            hint = did_you_mean(str(error.name), list(vars(module)))
            names = _defined_in(module)
            raise Unusable(f"{display_name(module)} has no {error.name!r}{hint}\nIt defines {names}.") from None
        except SyntaxError:
            raise Unusable(f"expected a name, or an expression such as Dense(3, 2), got {expression!r}") from None
        except UnsupportedExpression as error:
            raise Unusable(
                f"{error} is too much for a command line.\n"
                f"Fix:    define it in {display_name(module)}, and give its name"
            ) from None


def _defined_in(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", module.__name__) == module.__name__
        and not isinstance(value, ModuleType)
    ]
    return ", ".join(names[:LISTED_NAMES]) or "nothing of its own"


class NamedReference(NamedTuple):
    """A primal in a framework's idiom.

    Attributes:
        text: how the user named it.
        f: the function.
        rule: the Rule that the framework makes of it.
        framework: the framework's name.
    """

    text: str
    f: Callable[..., Value]
    rule: Rule
    framework: str


def find_reference(text: str, module: ModuleType) -> NamedReference:
    """Return what ``torch:REF`` names, as a Rule.

    Raises:
        Unusable: (a ValueError) for an unknown framework, or a REF that is no function.
        MissingPackage: (a ValueError) if the framework is not installed.
    """
    framework, _, name = text.partition(":")
    if framework not in FRAMEWORK_NAMES or not name.strip():
        forms = " or ".join(f"{known}:REF" for known in FRAMEWORK_NAMES)
        hint = did_you_mean(framework, FRAMEWORK_NAMES)
        near = next((known for known in FRAMEWORK_NAMES if known in hint), FRAMEWORK_NAMES[0])
        fix = f"{near}:{name.strip() or 'reference'}"
        raise Unusable(f"--against: expected {forms}, got {text!r}{hint}.\nFix:    --against {fix}")
    announce(f"importing {framework}")
    missing = missing_module(framework)
    if missing is not None:
        raise MissingPackage([missing], f"--against {text}: ")
    package = import_module(framework)
    parts = _TARGET.fullmatch(name)
    try:
        if parts:
            f = evaluate_in(parts["name"], import_source(parts["source"]))
        else:
            f = evaluate_in(name, module, **{framework: package})
    except Unusable as error:
        raise Unusable(f"--against {text}: {error}") from error.__cause__
    if not callable(f):
        raise Unusable(f"--against {text}: expected a function f(**primals) -> y, got {f!r:.60} ({type(f).__name__})")
    return NamedReference(text, f, FRAMEWORKS[framework](f), framework)


def adapt(subject: Value, *, name: str, source: str = "") -> Rule:
    """Adapt an object by the first of `ADAPTABLE` that fits it.

    Args:
        subject: the object.
        name: what the user called it.
        source: the file or module that it is from, for the command that a message names.

    Raises:
        Unusable: (a ValueError) if none does, or a class cannot be made without arguments; states what to write.
    """
    named, kind = subject, kind_of(subject)
    if isinstance(subject, type) and (kind is None or kind.made or kind.adapt is None):
        subject = _make_instance(subject, name, source)
        kind = kind_of(subject)
    if kind is not None and kind.adapt is not None:
        return kind.adapt(subject, name)
    problem = f"{name} is {_describe(named)}, which cannot be judged as it is"
    if kind is None:
        known = "".join(f"\n          {kind.description}" for kind in ADAPTABLE)
        raise Unusable(f"{problem}.\nFix:    name one of{known}")
    line = adapting_line(subject, name=name).replace(f"lambda: {name}(...)", name)
    raise Unusable(f"{problem}.\nFix:    {_command(line, source)}")


def _command(line: str, source: str) -> str:
    """Return the command that judges what a line of code adapts, with quotes that a shell leaves as they are."""
    plain = re.sub(r"\['([^',]*)'\](?=\")", r"[\1]", line).replace("'", '"')  # a location needs none: "params[W]"
    return f"oracles check {shlex.quote(f'{source}:{plain}')}"


def _make_instance(subject: type, name: str, source: str) -> Value:
    arguments = ", ".join(f"{n}=..." for n in positional(subject)) or "..."
    try:
        with user_errors(f"{name} is a class that cannot be made without arguments"):
            return subject()
    except Unusable as error:
        kind = kind_of(subject)
        if kind is None or kind.made or kind.adapt is not None:
            raise Unusable(f"{error}.\nFix:    give an instance, {name}({arguments})") from None
        raise Unusable(f"{error}.\nFix:    {_command(adapting_line(subject, name=name), source)}") from None


def _describe(subject: Value) -> str:
    if isinstance(subject, type):
        return f"the class {subject.__name__}"
    if inspect.isroutine(subject):
        return f"the function {subject.__name__}{inspect.signature(subject)} alone"
    return f"{subject!r:.60} ({type(subject).__name__})"


# A value of the user's expression, of whatever type.
Value: TypeAlias = Any

# All operators of Python that make a value of two; what is missing here raises UnsupportedExpression.
_BINARY: Mapping[type[ast.operator], Callable[[Value, Value], Value]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.MatMult: operator.matmul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_UNARY: Mapping[type[ast.unaryop], Callable[[Value], Value]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
    ast.Not: operator.not_,
}
_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Value, Value], Value]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class UnsupportedExpression(ValueError):
    """The expression is valid Python, but not one that `evaluate` understands."""


def evaluate(text: str, names: Mapping[str, Value]) -> Value:
    """Return the value of an expression in which ``names`` and Python's builtins are known.

    Raises:
        SyntaxError: if the text is not a Python expression.
        NameError: for an unknown name; it is in the exception's ``name``.
        UnsupportedExpression: (a ValueError) for a comprehension, a conditional, an f-string, ...
        Exception: whatever the calls of the expression raise.
    """
    return _value(ast.parse(text.strip(), mode="eval").body, names)


def _value(node: ast.expr, names: Mapping[str, Value]) -> Value:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return _lookup(name, names)
        case ast.Attribute(value=owner, attr=attribute):
            return getattr(_value(owner, names), attribute)
        case ast.Subscript(value=container, slice=index):
            return operator.getitem(_value(container, names), _value(index, names))
        case ast.Slice(lower=lower, upper=upper, step=step):
            return slice(*(None if bound is None else _value(bound, names) for bound in (lower, upper, step)))
        case ast.Call(func=function, args=arguments, keywords=keywords):
            return _call(_value(function, names), arguments, keywords, names)
        case ast.Tuple(elts=elements):
            return tuple(_values(elements, names))
        case ast.List(elts=elements):
            return list(_values(elements, names))
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip((key for key in keys if key is not None), values, strict=True)
            return {_value(key, names): _value(value, names) for key, value in pairs}
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_value(operand, names))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return _BINARY[type(sign)](_value(left, names), _value(right, names))
        case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in _COMPARISONS:
            return _COMPARISONS[type(sign)](_value(left, names), _value(right, names))
        case ast.Lambda():
            return _function(node, names)
    raise UnsupportedExpression(ast.unparse(node))


def _values(elements: Sequence[ast.expr], names: Mapping[str, Value]) -> Iterator[Value]:
    """Yield the values of elements or arguments, in which ``*iterable`` is spread."""
    for element in elements:
        if isinstance(element, ast.Starred):
            yield from _value(element.value, names)  # a TypeError if it is not iterable
        else:
            yield _value(element, names)


def _call(
    function: Value, arguments: Sequence[ast.expr], keywords: Sequence[ast.keyword], names: Mapping[str, Value]
) -> Value:
    named: dict[str, Value] = {}
    for keyword in keywords:
        value = _value(keyword.value, names)
        named |= {keyword.arg: value} if keyword.arg is not None else value
    return function(*_values(arguments, names), **named)  # a TypeError if not callable


def _lookup(name: str, names: Mapping[str, Value]) -> Value:
    if name in names:
        return names[name]
    if hasattr(builtins, name):
        return getattr(builtins, name)
    raise NameError(f"name {name!r} is not defined", name=name)


def _function(node: ast.Lambda, names: Mapping[str, Value]) -> Callable[..., Value]:
    """Return the function that a lambda expression describes: its body is walked at every call."""
    signature = Signature(list(_parameters(node.args, names)))

    def function(*args: Value, **kwargs: Value) -> Value:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return _value(node.body, {**names, **bound.arguments})

    function.__name__ = function.__qualname__ = "<lambda>"
    function.__signature__ = signature  # type: ignore[attr-defined]  # what inspect.signature reads first
    return function


def _parameters(arguments: ast.arguments, names: Mapping[str, Value]) -> Iterator[Parameter]:
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    for i, argument in enumerate(positional):
        kind = Parameter.POSITIONAL_ONLY if i < len(arguments.posonlyargs) else Parameter.POSITIONAL_OR_KEYWORD
        default = Parameter.empty if i < required else _value(arguments.defaults[i - required], names)
        yield Parameter(argument.arg, kind, default=default)
    if arguments.vararg:
        yield Parameter(arguments.vararg.arg, Parameter.VAR_POSITIONAL)
    for argument, expression in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        default = Parameter.empty if expression is None else _value(expression, names)
        yield Parameter(argument.arg, Parameter.KEYWORD_ONLY, default=default)
    if arguments.kwarg:
        yield Parameter(arguments.kwarg.arg, Parameter.VAR_KEYWORD)

"""Evaluate the expressions of a command line, such as ``oracles.stateful(Net, params=["W"])``.

The expression is parsed and its tree is walked; no text is executed as code. Names, attributes, subscripts, calls,
literals, arithmetic, single comparisons and lambdas are understood. Whatever needs more belongs into the user's file.
"""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any, TypeAlias

# A value of the user's expression, of whatever type.
Value: TypeAlias = Any

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

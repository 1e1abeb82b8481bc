"""The call of `oracles.stateful` that fits a class, made from its methods and attributes, for messages and scaffolds.

An instance shows its attributes. Of a class, the text shows which it sets: nothing of the user's is run.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oracles.adapters.locations import Object

# The first of these that an object has is the method. Most hand-written networks use one of them.
FORWARDS = ("forward", "fprop", "forward_pass", "feedforward", "fwd", "call", "predict", "__call__")
BACKWARDS = ("backward", "bprop", "backprop", "backward_pass", "backpropagation", "bwd", "grad", "gradient")
# Where gradients stand, for a parameter named {}.
GRADIENTS = (
    "d{}", "d_{}", "grad_{}", "{}_grad", "{}grad", "g{}", "g_{}", "D{}", "delta_{}", "grads['{}']", "gradients['{}']",
    "grad['{}']", "dparams['{}']", "grads['d{}']",
)  # fmt: skip
MOST_PARAMETERS = 6  # that a line names


@dataclass(frozen=True)
class Attributes:
    """What a class or an instance keeps: locations, with the shapes of the arrays that are there.

    Attributes:
        parameters: the locations that look like parameters, by the names that primals would have.
        others: the names of all other locations.
        shapes: the shapes that are known.
    """

    parameters: Mapping[str, str]
    others: frozenset[str]
    shapes: Mapping[str, tuple[int, ...]]


def required_arguments(make: Object) -> list[str]:
    """Return the names of the arguments without which a class cannot be made."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]


def make_text(make: Object, name: str) -> str:
    """Return how to make an object, as the first argument of an adapter: "Dense", or "lambda: Dense(n_in=…)"."""
    required = required_arguments(make) if isinstance(make, type) else []
    return f"lambda: {name}({', '.join(f'{n}=...' for n in required)})" if required else name


def stateful_line(subject: Object, name: str, primals: Mapping[str, Object] | None = None) -> str:
    """Return the call of `oracles.stateful` for a class or an instance.

    Args:
        subject: the class or the instance.
        name: what it is called in the line.
        primals: the point, whose names and shapes say which attributes are parameters.
    """
    arguments = [make_text(subject, name)]
    for argument, known in (("forward", FORWARDS), ("backward", BACKWARDS)):
        method = first_method(subject, known)
        if method and method != argument:
            arguments.append(f"{argument}={method!r}")
    attributes = attributes_of(subject)
    params = _parameters(attributes, primals, inputs_of(subject))
    if params:
        plain = all(n == location for n, location in params.items())
        arguments.append(f"params={list(params) if plain else dict(params)}")
    pattern = gradient_pattern(list(params), attributes)
    if pattern:
        arguments.append(f"grads={pattern!r}")
    return f"oracles.stateful({', '.join(arguments)})"


def first_method(subject: Object, known: Sequence[str]) -> str:
    """Return the first of these names that is a method of an object or of a class's instances; "" if none is."""
    kind = subject if isinstance(subject, type) else type(subject)
    return next((n for n in known if callable(getattr(kind, n, None)) and hasattr(kind, n)), "")


def inputs_of(subject: Object, method: Object = None) -> list[str]:
    """Return the names of the arguments of a method, by default the forward, without self and ctx."""
    method = method or getattr(subject, first_method(subject, FORWARDS) or "forward", None)
    try:
        parameters = inspect.signature(method).parameters.values() if callable(method) else ()
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in parameters if p.kind in positional and p.name not in ("self", "ctx")]


def attributes_of(subject: Object) -> Attributes:
    """Return the attributes of an instance, or those that the text of a class sets."""
    made, named = _set_in_text(subject if isinstance(subject, type) else type(subject))
    if isinstance(subject, type):
        return Attributes(made, frozenset(named), {})
    shapes = {location: np.shape(value) for location, value in _arrays(subject)}
    keys = {_key(location): location for location in shapes}
    parameters = {n: location for n, location in keys.items() if not made or n in made} or keys
    return Attributes(parameters, frozenset({*shapes, *named, *getattr(subject, "__dict__", {})}), shapes)


def gradient_pattern(names: Sequence[str], attributes: Attributes) -> str:
    """Return where the gradients of these parameters stand; "" if it is unknown, or "d{}", the default."""
    if not names or all(f"d{n}" in attributes.others for n in names):
        return ""
    for pattern in GRADIENTS:
        places = [pattern.format(n) for n in names]
        owners = {place.partition("[")[0] for place in places}
        # Of a dict that backward fills, the text may not show the keys.
        if all(place in attributes.others for place in places) or ("[" in pattern and owners <= attributes.others):
            return pattern
    return ""


def _parameters(
    attributes: Attributes, primals: Mapping[str, Object] | None, inputs: Sequence[str]
) -> Mapping[str, str]:
    """Return the locations of the parameters by the primals' names, as far as they are known."""
    if not [n for n in primals or () if n not in inputs]:  # the point says nothing of parameters
        return dict(list(attributes.parameters.items())[:MOST_PARAMETERS])
    assert primals is not None
    by_name = {n: attributes.parameters[n] for n in primals if n in attributes.parameters and n not in inputs}
    missing = [n for n in primals if n not in by_name and n not in inputs]
    for n in missing:  # under another name, but the only one of its shape
        fits = [location for location, shape in attributes.shapes.items() if shape == np.shape(primals[n])]
        fits = [location for location in fits if location not in by_name.values()]
        if len(fits) == 1:
            by_name[n] = fits[0]
    rest = [location for location in attributes.parameters.values() if location not in by_name.values()]
    missing = [n for n in missing if n not in by_name]
    if len(rest) == len(missing):
        by_name |= zip(missing, rest, strict=True)
    return by_name or {n: n for n in missing}


def _arrays(obj: Object) -> Iterator[tuple[str, Object]]:
    """Yield the locations of the floating arrays in an object's attributes, and in its attributes that are dicts."""
    for name, value in getattr(obj, "__dict__", {}).items():
        if _is_array(value):
            yield name, value
        elif isinstance(value, dict):
            yield from ((f"{name}['{key}']", inner) for key, inner in value.items() if _is_array(inner))


def _is_array(value: Object) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and "float" in str(value.dtype)


def _key(location: str) -> str:
    """Return the name that a primal at a location would have: "W" of "params['W']"."""
    return location.partition("[")[2].strip("]'\"") or location


def _set_in_text(kind: type) -> tuple[dict[str, str], set[str]]:
    """Return the parameters that ``__init__`` sets in the text of a class, by name, and all that any method sets."""
    made: dict[str, str] = {}
    named: set[str] = set()
    trees = [tree for base in reversed(kind.__mro__) if (tree := _tree_of(base)) is not None]
    for function in (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        arguments = {a.arg for a in function.args.args}
        for location, value in _assignments(function):
            named.add(location)
            if function.name != "__init__" or value is None:
                continue
            if isinstance(value, ast.Dict):
                keys = [k.value for k in value.keys if isinstance(k, ast.Constant) and isinstance(k.value, str)]
                made |= {k: f"{location}['{k}']" for k in keys}
            elif _makes_an_array(value, arguments):
                made[_key(location)] = location
    gradients = {p.format(n) for n in made for p in GRADIENTS}
    return {n: location for n, location in made.items() if location not in gradients}, named


def _tree_of(kind: type) -> ast.Module | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):  # typed at a prompt, or made by code
        return None


def _assignments(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield each location of self that a method sets, and the expression, where there is one for it alone."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            pairs = [pair for target in node.targets for pair in _pairs(target, node.value)]
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            pairs = [(node.target, node.value)]
        else:
            continue
        yield from ((text, value) for target, value in pairs if (text := _location_text(target)))


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr | None]]:
    """Return the targets of an assignment, each with its own expression."""
    if not isinstance(target, ast.Tuple):
        return [(target, value)]
    values = value.elts if isinstance(value, ast.Tuple) else [value] * len(target.elts)
    return list(zip(target.elts, values, strict=False))


def _location_text(target: ast.expr) -> str:
    """Return "W" for self.W, "grads['W']" for self.grads["W"]; "" for anything else."""
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == "self":
        return target.attr
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        owner = _location_text(target.value)
        return f"{owner}[{target.slice.value!r}]" if owner else ""
    return ""


def _makes_an_array(value: ast.expr, arguments: set[str]) -> bool:
    """Return whether an expression calls something, or is computed, other than from numbers alone."""
    if isinstance(value, ast.Name):
        return value.id in arguments and value.id[:1].isupper()  # self.W = W
    calls = [n for n in ast.walk(value) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    return bool(calls)

"""Trees of arrays (dicts, lists, tuples, namedtuples, dataclasses, complex arrays) as named leaves, and back.

The judge works on arrays by name. A primal ``params = {"W": …, "layers": [{"b": …}]}`` becomes the leaves
``params["W"]`` and ``params["layers"][0]["b"]``; the user's functions are called with the tree again, and what they
return is taken apart at the same paths. ``None`` has no leaf. A class that is registered with JAX or optree is taken
apart as they do it, if they are imported; other dataclasses are taken apart field by field.

A complex array z is a tree of two real ones, ``z.real`` and ``z.imag``: a function of complex numbers is one of pairs
of real numbers, holomorphic or not. The cotangent of z is the gradient ∂L/∂Re z + i ∂L/∂Im z, as torch has it.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from oracles.lazy_modules import jax, torch
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Evaluate,
    Function,
    InvalidInput,
    Output,
    Primals,
    Pullback,
    Rule,
    Structured,
    describe,
    is_differentiable,
)
from oracles.signatures import call_by_name, call_by_name_or_in_order, signature_of

Value: TypeAlias = Any  # a tree of the user's: whatever he passes or returns
Key: TypeAlias = str | int


@dataclass(frozen=True)
class WithAuxiliary:
    """The output of a function with ``has_aux``: y, and what carries no gradient.

    Attributes:
        y: the output.
        aux: the auxiliary output.
    """

    y: Value
    aux: Value


class ComplexParts(NamedTuple):
    """A complex array whose parts are known by themselves: how to draw them, say.

    Attributes:
        real, imag: the parts.
    """

    real: Value
    imag: Value


class Node(NamedTuple):
    """One level of a tree.

    Attributes:
        kind: what it is, to compare it with others.
        children: (step of the path, key, value) of what it holds.
        make: makes such a node of other children.
    """

    kind: object
    children: tuple[tuple[str, Key, Value], ...]
    make: Callable[[Sequence[Value]], Value]


def node_of(value: Value) -> Node | None:
    """Return the level at the top of a tree; ``None`` for a leaf: an array, a number, nested lists of numbers."""
    if value is None:
        return Node(None, (), _none)
    if isinstance(value, ComplexParts):
        return _node_of_parts(value)
    if isinstance(value, Mapping):
        keys = _sorted_keys(value)
        # JSON's quotes: `params["W"]`, whatever the key contains.
        children = tuple((f"[{_quoted(k)}]", k, value[k]) for k in keys)
        order = tuple(value)
        return Node((type(value), order), children, partial(_mapping, type(value), tuple(keys), order))
    if isinstance(value, tuple | list):
        return _node_of_sequence(value)
    if isinstance(value, type):
        return None
    if _is_array(value):
        return _node_of_complex(value) if _is_complex(value) else None
    registered = _registered_node(value)
    if registered is not None:
        return registered
    return _node_of_dataclass(value) if dataclasses.is_dataclass(value) else None


def _none(children: Sequence[Value]) -> None:
    return None


def _quoted(key: object) -> str:
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(key, str) else repr(key)


def _sorted_keys(value: Mapping[Any, Value]) -> list[Any]:
    """Return the keys in an order that does not depend on which was added first, as JAX does."""
    return sorted(value, key=lambda k: (type(k).__name__, k if isinstance(k, str | int | float) else repr(k)))


def _mapping(kind: type, keys: tuple[Any, ...], order: tuple[Any, ...], children: Sequence[Value]) -> Value:
    items = dict(zip(keys, children, strict=True))
    try:
        return kind((k, items[k]) for k in order)
    except TypeError:  # a defaultdict, a proxy, a configuration class
        return {k: items[k] for k in order}


def _node_of_sequence(value: tuple[Value, ...] | list[Value]) -> Node | None:
    fields = getattr(value, "_fields", None) if isinstance(value, tuple) else None
    if fields is not None:
        steps = [(f".{n}", n) for n in fields]
        make: Callable[[Sequence[Value]], Value] = partial(_namedtuple, type(value))
    elif isinstance(value, list) and value and _is_of_numbers(value):
        return _node_of_complex(np.asarray(value)) if _is_complex(np.asarray(value)) else None
    else:
        steps = [(f"[{i}]", i) for i in range(len(value))]
        make = type(value)
    children = tuple((step, key, v) for (step, key), v in zip(steps, value, strict=True))
    return Node((type(value), len(children)), children, make)


def _namedtuple(kind: Any, children: Sequence[Value]) -> Value:
    return kind(*children)


def _is_of_numbers(value: Value) -> bool:
    """Return whether nested lists hold nothing but Python's numbers, in rows of one length: they are one array."""
    if not all(_holds_numbers(v) for v in value):
        return False
    try:
        return np.asarray(value).dtype.kind != "O"
    except ValueError:  # rows of different lengths
        return False


def _holds_numbers(value: Value) -> bool:
    if isinstance(value, list | tuple):
        return not hasattr(value, "_fields") and all(map(_holds_numbers, value))
    return isinstance(value, bool | int | float | complex | np.generic)


def _is_array(value: Value) -> bool:
    return isinstance(value, np.ndarray | np.generic | bool | int | float | complex | str) or (
        hasattr(value, "shape") and hasattr(value, "dtype")
    )


def _is_complex(value: Value) -> bool:
    """Return whether an array of any framework, or a number, is complex."""
    if isinstance(value, complex):
        return True
    dtype = getattr(value, "dtype", None)
    return getattr(dtype, "kind", "") == "c" or bool(getattr(dtype, "is_complex", False))


def _node_of_complex(value: Value) -> Node:
    """Return the level of a complex array: its real and its imaginary part, contiguous where NumPy has them."""
    value = np.asarray(value) if isinstance(value, complex | np.generic) else value
    parts = [value.real, value.imag]
    if isinstance(value, np.ndarray):
        parts = [np.array(part, copy=True, subok=True) for part in parts]
    return _node_of_parts(ComplexParts(*parts))


def _node_of_parts(parts: ComplexParts) -> Node:
    return Node((complex,), ((".real", "real", parts.real), (".imag", "imag", parts.imag)), complex_of)


def complex_of(parts: Sequence[Value]) -> Value:
    """Return the complex array of a real and an imaginary part, in their framework; ``None`` of two of ``None``.

    Raises:
        TypeError: for parts of which there are no complex numbers: arrays of objects.
    """
    real, imag = parts
    if real is None and imag is None:
        return None
    module = type(real).__module__.partition(".")[0]
    if module == "torch":
        return torch.complex(real, imag)
    if module in ("jax", "jaxlib"):
        return jax.lax.complex(real, imag)
    if type(real) is not np.ndarray:
        return real + 1j * imag  # arrays that perturb what is computed with them
    if real.dtype.kind != "f" or real.dtype.itemsize == 2:
        raise TypeError(f"there are no complex numbers of {real.dtype.name}")
    # Entry by entry: 1j times an infinity is NaN.
    result = np.empty(real.shape, np.result_type(real.dtype, np.complex64))
    result.real, result.imag = real, imag
    return result


def _registered_node(value: Value) -> Node | None:
    """Return the level of an object whose class is registered with JAX or optree; neither is imported for it."""
    for library in ("jax.tree_util", "optree"):
        if not hasattr(sys.modules.get(library), "tree_flatten_with_path"):
            continue
        paths, leaves, form = _flatten_once(library, value)
        if len(leaves) == 1 and leaves[0] is value:
            continue  # it is not registered there
        children = tuple((*_step(path[-1]), child) for path, child in zip(paths, leaves, strict=True))
        return Node((type(value), str(form)), children, partial(_registered, library, value))
    return None


def _flatten_once(library: str, value: Value) -> tuple[list[Any], list[Value], Any]:
    """Return the paths and values of what an object holds, and its form, as JAX or optree take it apart."""
    module: Any = sys.modules[library]
    flattened = module.tree_flatten_with_path(value, is_leaf=lambda v: v is not value)
    if library == "optree":
        return flattened[0], flattened[1], flattened[2]
    return [path for path, _ in flattened[0]], [child for _, child in flattened[0]], flattened[1]


def _registered(library: str, like: Value, children: Sequence[Value]) -> Value:
    # The form is made anew: JAX's cannot be sent to another process.
    return _flatten_once(library, like)[2].unflatten(children)


def _step(entry: Any) -> tuple[str, Key]:
    """Return the step of a path that JAX or optree describes, and its key: an attribute, a key, a position."""
    if isinstance(entry, str):
        return (f".{entry}" if entry.isidentifier() else f"[{_quoted(entry)}]"), entry
    if isinstance(getattr(entry, "name", None), str):
        return f".{entry.name}", entry.name
    key = (
        entry
        if isinstance(entry, int)
        else next((getattr(entry, n) for n in ("key", "idx") if hasattr(entry, n)), entry)
    )
    return f"[{_quoted(key)}]", key


def _node_of_dataclass(value: Any) -> Node | None:
    """Return the level of a dataclass: its fields that hold arrays or trees; the others stay as they are."""
    names = [
        f.name
        for f in dataclasses.fields(value)
        if f.metadata.get("pytree_node", True) and not f.metadata.get("static") and _is_dynamic(getattr(value, f.name))
    ]
    if not names:
        return None
    children = tuple((f".{n}", n, getattr(value, n)) for n in names)
    # Trees with other numbers of configuration are others, though `make` alone knows the numbers.
    rest = tuple(repr(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name not in names)
    return Node((type(value), tuple(names), rest), children, partial(_dataclass, value, tuple(names)))


def _is_dynamic(value: Value) -> bool:
    """Return whether a field of a dataclass holds an array, or a tree of them; a plain number is configuration."""
    if isinstance(value, np.generic):
        return True
    if value is None or isinstance(value, bool | int | float | complex | str):
        return False
    if _is_array(value):
        return True
    node = node_of(value)
    return node is not None and any(_is_dynamic(child) for _, _, child in node.children)


def _dataclass(like: Any, names: tuple[str, ...], children: Sequence[Value]) -> Value:
    result = copy.copy(like)
    for name, child in zip(names, children, strict=True):
        object.__setattr__(result, name, child)  # it may be frozen
    return result


@dataclass(frozen=True)
class Tree:
    """The structure of a tree: a leaf, or a level with what it holds.

    Attributes:
        name: the path: ``params["W"]``.
        key: the last step of the path.
        kind: what the level is, ``LEAF`` of a leaf.
        children: the trees of what it holds.
        make: makes such a level of its children.
    """

    name: str
    key: Key
    kind: object
    children: tuple[Tree, ...] = ()
    make: Callable[[Sequence[Value]], Value] = field(default=_none, compare=False)

    @property
    def is_leaf(self) -> bool:
        """Whether this is one array."""
        return self.kind == LEAF

    @property
    def is_complex(self) -> bool:
        """Whether this is a complex array."""
        return self.kind == (complex,)

    @property
    def is_mutable(self) -> bool:
        """Whether every array can be replaced in place: in dicts, lists and dataclasses that are not frozen."""
        if self.is_leaf:
            return True
        kind = self.kind[0] if isinstance(self.kind, tuple) else type(None)
        parameters = getattr(kind, "__dataclass_params__", None)
        own = issubclass(kind, dict | list) or (parameters is not None and not parameters.frozen)
        return own and all(child.is_mutable for child in self.children)

    def leaves(self) -> Iterator[Tree]:
        """Yield the leaves, in the order of `flatten`."""
        if self.is_leaf:
            yield self
        for child in self.children:
            yield from child.leaves()

    def rebuild(self, values: Mapping[str, Value]) -> Value:
        """Return the tree with other values at its leaves."""
        if self.is_leaf:
            return values[self.name]
        return self.make([child.rebuild(values) for child in self.children])

    def cotangents(self, value: Value, label: str, silent: Collection[str] = ()) -> Cotangents:
        """Return the cotangents in a tree of this structure, by leaf; ``None`` in place of a tree claims none.

        Args:
            value: the tree.
            label: the subject's name, for the messages.
            silent: the leaves that have no cotangent, and may be left out: integers.

        Raises:
            InvalidInput: if a leaf is missing, or there is one more; names its path.
        """
        if value is None:
            return {}
        if self.is_leaf:
            return {self.name: value}
        keys = {child.key: child for child in self.children}
        given = self._children_of(value, label)
        absent = [child for key, child in keys.items() if key not in given]
        missing = [child.name for child in absent if not all(leaf.name in silent for leaf in child.leaves())]
        extra = [f"{self.name}[{_quoted(key)}]" for key in given if key not in keys]
        if missing or extra:
            expected = ", ".join(self._names())
            problem = f"nothing for {', '.join(missing)}" if missing else f"one of {', '.join(extra)}"
            raise InvalidInput(
                f"{label}: backward: expected the cotangents of {expected}, got {problem}.\n"
                f"Fix: return the gradient of {self.name} in its own structure, with None where none is claimed"
            )
        cotangents: Cotangents = {}
        for key, child in keys.items():
            cotangents |= child.cotangents(given.get(key), label, silent)
        return cotangents

    def _children_of(self, value: Value, label: str) -> dict[Key, Value]:
        """Return what a cotangent of this tree holds, by the keys of its structure."""
        keys = [child.key for child in self.children]
        if self.is_complex and _is_array(value) and not _is_complex(value):
            return {"real": value, "imag": 0 * value}  # a real gradient of a complex array
        is_mapping = isinstance(self.kind, tuple) and issubclass(self.kind[0], Mapping)
        if isinstance(value, tuple | list) and not hasattr(value, "_fields") and not is_mapping:
            return dict(zip(keys, value, strict=False)) if len(value) <= len(keys) else dict(enumerate(value))
        node = node_of(value)
        given = {key: child for _, key, child in node.children} if node is not None else {}
        if dataclasses.is_dataclass(value):  # there a field of None is configuration
            return given | {k: getattr(value, k) for k in keys if isinstance(k, str) and hasattr(value, k)}
        if node is None:
            raise InvalidInput(
                f"{label}: backward: {self.name}: expected a tree of {', '.join(self._names())}, "
                f"got {describe(value)}.\nFix: return the gradient of {self.name} in its own structure, "
                "with None where none is claimed"
            )
        return given

    def _names(self) -> list[str]:
        return [leaf.name for leaf in self.leaves()]


LEAF = "leaf"


def _holds_complex(tree: Tree) -> bool:
    return tree.is_complex or any(map(_holds_complex, tree.children))


def flatten(
    value: Value, name: str, is_leaf: Callable[[Value], bool] = lambda value: False
) -> tuple[Tree, dict[str, Value]]:
    """Return the structure of a tree, and its leaves by name.

    Args:
        value: the tree, or one leaf.
        name: what the whole is called; the leaves' names begin with it.
        is_leaf: what is a leaf whatever it holds.
    """
    leaves: dict[str, Value] = {}

    def walk(value: Value, name: str, key: Key) -> Tree:
        node = None if is_leaf(value) else node_of(value)
        if node is None:
            leaves[name] = value
            return Tree(name, key, LEAF)
        children = tuple(walk(child, f"{name}{step}", k) for step, k, child in node.children)
        return Tree(name, key, node.kind, children, node.make)

    return walk(value, name, name), leaves


@dataclass(frozen=True)
class Trees:
    """The structures of primals: which of them are trees, and in which order all stand.

    Attributes:
        roots: the structure of every primal, by its name; a leaf for an array.
    """

    roots: tuple[Tree, ...] = ()

    def root_of(self) -> dict[str, str]:
        """Return the primal that each leaf belongs to."""
        return {leaf.name: root.name for root in self.roots for leaf in root.leaves()}

    @property
    def hold_complex(self) -> bool:
        """Whether some array is complex."""
        return any(map(_holds_complex, self.roots))

    def complex_trees(self) -> list[Tree]:
        """Return the complex arrays, among the primals and in lists of them."""
        return [tree for root in self.roots for tree in (root, *root.children) if tree.is_complex]

    def with_complex(self, leaves: Mapping[str, Value]) -> dict[str, Value]:
        """Return the leaves with complex arrays joined of their parts; other trees stay taken apart.

        Each complex array stands where its first part does, in the order of the primals.
        """
        tree_of = {leaf.name: tree for tree in self.complex_trees() for leaf in tree.leaves()}
        joined: dict[str, Value] = {}
        for name, value in leaves.items():
            tree = tree_of.get(name)
            joined[tree.name if tree else name] = tree.rebuild(leaves) if tree else value
        return joined

    def rebuilt(self, arrays: Mapping[str, Value]) -> dict[str, Value]:
        """Return the primals whose leaves are given; what is no leaf of a tree stays as it is."""
        if not self.roots:
            return dict(arrays)
        result: dict[str, Value] = {}
        for root in self.roots:
            names = [leaf.name for leaf in root.leaves()]
            if all(n in arrays for n in names):
                result[root.name] = root.rebuild(arrays)
        known = self.root_of()
        return {**result, **{n: a for n, a in arrays.items() if n not in known}}

    def whole(self, names: Sequence[str]) -> Trees:
        """Return the trees of which all leaves are among these names."""
        return Trees(tuple(root for root in self.roots if all(leaf.name in names for leaf in root.leaves())))

    def floating(self, primals: Primals) -> list[str]:
        """Return the primals that have a cotangent; of a tree, one leaf must have one."""
        return [n for n, names in self.leaf_names(primals).items() if any(is_differentiable(primals[k]) for k in names)]

    def leaf_names(self, primals: Primals) -> dict[str, list[str]]:
        """Return the leaves of every primal, by the primal's name."""
        result: dict[str, list[str]] = {}
        for root in self.whole(tuple(primals)).roots:
            result[root.name] = [leaf.name for leaf in root.leaves()]
        known = {n for names in result.values() for n in names}
        return {**result, **{n: [n] for n in primals if n not in known}}

    def cotangents(self, named: Mapping[str, Value], primals: Primals, label: str) -> Cotangents:
        """Return cotangents of primals as cotangents of leaves.

        Args:
            named: the cotangents, by the names of primals that may be trees.
            primals: the leaves.
            label: the subject's name, for the messages.

        Raises:
            InvalidInput: if a leaf is missing or does not belong there.
        """
        roots = {root.name: root for root in self.roots}
        silent = {n for n, a in primals.items() if not is_differentiable(a)} if roots else ()
        cotangents: Cotangents = {}
        for n, value in named.items():
            cotangents |= roots[n].cotangents(value, label, silent) if n in roots else {n: value}
        return cotangents

    def calling(self, f: Function) -> CallWithTrees:
        """Return a function of leaves that calls a function of trees."""
        return CallWithTrees(f, self)


NO_TREES = Trees()  # every primal is one array


@dataclass(frozen=True)
class CallWithTrees:
    """A function of leaves by name, which calls a function of trees.

    Attributes:
        f: the function of trees.
        trees: the structures.
    """

    f: Function
    trees: Trees

    def __call__(self, **leaves: Value) -> Value:
        """Call the function with the trees, by the primals' names; what is no leaf is an option."""
        known = self.trees.root_of()
        options = {n: v for n, v in leaves.items() if n not in known}
        primals = self.trees.rebuilt({n: v for n, v in leaves.items() if n in known})
        return call_with_trees(partial(self.f, **options) if options else self.f, primals)


def call_with_trees(f: Function, primals: Mapping[str, Value], *, like: Function | None = None) -> Value:
    """Call a function by the names of its primals; a list named like ``*xs`` is spread, a dict like ``**named`` too.

    Args:
        f: the function.
        primals: its arguments.
        like: the method whose parameters count, if ``f`` passes its arguments on to it: then it is called in the order
            of the primals if it has no such names.
    """
    signature = signature_of(like or f)
    parameters = signature.parameters if signature else {}
    spread = [p for p in parameters.values() if p.name in primals and _is_spread(p, primals[p.name])]
    if not spread:
        return call_by_name(f, primals) if like is None else call_by_name_or_in_order(f, primals, like=like)
    positional: list[Value] = []
    named: dict[str, Value] = {n: v for n, v in primals.items() if n not in {p.name for p in spread}}
    for p in spread:
        if p.kind is p.VAR_KEYWORD:
            named |= primals[p.name]
            continue
        before = [q.name for q in parameters.values() if q.kind in (q.POSITIONAL_ONLY, q.POSITIONAL_OR_KEYWORD)]
        positional = [named.pop(n) for n in before if n in named] + list(primals[p.name])
    return f(*positional, **named)


def _is_spread(parameter: inspect.Parameter, value: Value) -> bool:
    kinds = {parameter.VAR_POSITIONAL: tuple | list, parameter.VAR_KEYWORD: Mapping}
    return parameter.kind in kinds and isinstance(value, kinds[parameter.kind])


def _always(value: Value) -> bool:
    return True


def flattened(
    primals: Mapping[str, Value], is_leaf: Callable[[Value], bool] = lambda value: False
) -> tuple[Trees, dict[str, Value]]:
    """Return the structures of primals, and their leaves by name; no structures if every primal is one array.

    Args:
        primals: arrays and trees of arrays by name.
        is_leaf: what is a leaf whatever it holds.

    Raises:
        InvalidInput: if two leaves have one name.
    """
    roots, leaves = [], dict[str, Value]()
    for name, value in primals.items():
        # A primal of None itself is an error of the caller's; inside a tree it is an absent array.
        root, values = flatten(value, str(name), is_leaf if value is not None else _always)
        if not values:
            raise InvalidInput(
                f"primals[{str(name)!r}]: expected an array or a tree of arrays, got none in {value!r:.60}"
            )
        twice = [n for n in values if n in leaves]
        if twice:
            raise InvalidInput(f"primals: two arrays are called {', '.join(twice)}.\nFix: rename one of the primals")
        roots.append(root)
        leaves |= values
    trees = Trees(tuple(roots)) if any(not root.is_leaf for root in roots) else Trees()
    return trees, leaves


def with_complex_arrays(evaluate: Evaluate, trees: Trees, /, **leaves: Array) -> tuple[Output, Pullback]:
    """Evaluate a rule that takes complex arrays of NumPy, at the leaves of trees; other trees stay taken apart."""
    whole = trees.complex_trees()
    y, pullback = evaluate(**trees.with_complex(leaves))

    def pullback_of_leaves(delta: Delta) -> Cotangents:
        cotangents = dict(pullback(delta))
        for tree in whole:
            cotangents |= tree.cotangents(cotangents.pop(tree.name, None), tree.name)
        return cotangents

    return y, pullback_of_leaves


def place_of(name: str, primals: Mapping[str, Value]) -> str:
    """Return where a leaf is in the primals, as code: ``primals['layers'][0].b``."""
    root = max((n for n in map(str, primals) if name.startswith(n)), key=len, default=name)
    return f"primals[{root!r}]{name.removeprefix(root)}"


def rule_of_leaves(rule: Rule, trees: Trees) -> Rule:
    """Return a rule of the leaves that calls the user's functions with the trees.

    Raises:
        InvalidInput: if its adapter takes arrays alone.
    """
    if not trees.roots:
        return rule
    structured = rule.structured
    if structured is None or structured.evaluate != rule.evaluate:
        names = ", ".join(root.name for root in trees.roots if not root.is_leaf)
        raise InvalidInput(
            f"{rule.name}: primals: expected arrays, got trees of arrays ({names}).\n"
            "Fix: pass their arrays as primals of their own, or adapt it by manual, value_and_grad, stateful, "
            "torch_module, jax_function"
        )
    made = structured.make(trees)
    return replace(made, name=rule.name, numerics=rule.numerics or made.numerics, adapt=None)


def wrapped(rule: Rule, evaluate: Evaluate, wrap: Callable[[Rule], Rule]) -> Structured | None:
    """Return how a rule that wraps another one takes trees: the inner one takes their leaves, and is wrapped again.

    Args:
        rule: the inner rule.
        evaluate: the evaluation of the outer one.
        wrap: makes the outer rule of an inner one.
    """
    if rule.structured is None:
        return None
    return Structured(evaluate, lambda trees: wrap(rule_of_leaves(rule, trees)))


def nested(arrays: Mapping[str, Array]) -> dict[str, Value]:
    """Return the trees of dicts and lists that names such as ``params["W"]`` and ``layers[0]["b"]`` describe.

    A file of arrays holds names alone. A name without brackets is one array, whatever else it contains.
    """
    groups: dict[str, Value] = {}
    for name, array in arrays.items():
        root, keys = _parsed(name)
        if not keys:
            groups[name] = array
            continue
        level = groups.setdefault(root, {})
        for key in keys[:-1]:
            level = level.setdefault(key, {}) if isinstance(level, dict) else {}
        if isinstance(level, dict):
            level[keys[-1]] = array
    return {n: _with_lists(value) for n, value in groups.items()}


_STEP = re.compile(r"""\[(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|(\d+))\]""")


def _parsed(name: str) -> tuple[str, list[Key]]:
    """Return the primal and the keys in a name; no keys if it is none of a dict or list."""
    root, bracket, rest = name.partition("[")
    text, keys = bracket + rest, list[Key]()
    while text:
        match = _STEP.match(text)
        if match is None or not root:
            return name, []
        quoted, plain, position = match.groups()
        keys.append(int(position) if position else re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain)
        text = text[match.end() :]
    return root, keys


def _with_lists(value: Value) -> Value:
    """Return dicts whose keys are 0, 1, 2 … as lists."""
    if not isinstance(value, dict):
        return value
    values = {k: _with_lists(v) for k, v in value.items()}
    is_list = all(isinstance(k, int) for k in values) and sorted(values) == list(range(len(values)))
    return [values[i] for i in range(len(values))] if is_list else values


def mapped(function: Callable[[Value], Value], tree: Value) -> Value:
    """Apply a function to every leaf of a tree."""
    structure, leaves = flatten(tree, "tree")
    return structure.rebuild({n: function(v) for n, v in leaves.items()})


def auxiliary(f: Function, label: str) -> Function:
    """Return a function whose second output carries no gradient: ``f`` returns the pair (y, aux).

    Raises:
        InvalidInput: when called, if it returns no pair.
    """

    @wraps(f)
    def with_auxiliary(*args: Value, **named: Value) -> WithAuxiliary:
        return with_auxiliary_of(f(*args, **named), label)

    return with_auxiliary


def with_auxiliary_of(result: Value, label: str) -> WithAuxiliary:
    """Return what a function with ``has_aux`` returned, if it is a pair (y, aux).

    Raises:
        InvalidInput: if it is none.
    """
    if not (isinstance(result, tuple) and len(result) == 2):
        raise InvalidInput(
            f"{label}: has_aux: expected a pair (y, aux), got {describe(result)}.\nFix:    return y, {{}}"
        )
    return WithAuxiliary(*result)

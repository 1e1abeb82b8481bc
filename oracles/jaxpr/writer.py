"""The data of a translation: values, operations, and the function that emitters write through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oracles.jaxpr.patterns import source_of


class UnsupportedPrimitive(NotImplementedError):
    """A JAX primitive that the table has no NumPy for."""


@dataclass(eq=False)
class Value:
    """An array in a program under translation.

    Attributes:
        shape, dtype: what JAX says that it is; dimensions may be symbolic.
        constant: the array itself, where it is known.
        name: what the generated source calls it.
        narrow: the array of that name may be smaller, and broadcasts to ``shape``.
        inexact: some operation on the way here rounds.
        setting: it comes from numbers among the options alone, and is not shaken, as if it were a constant.
    """

    shape: tuple[Any, ...]
    dtype: np.dtype[Any]
    constant: Any = None
    name: str = ""
    narrow: bool = False
    inexact: bool = False
    setting: bool = False

    @property
    def floating(self) -> bool:
        """Whether rounding happens in this dtype; bfloat16 is one that NumPy does not know of."""
        return self.dtype.kind == "f" or self.dtype.name == "bfloat16"


@dataclass
class Operation:
    """One primitive applied to values."""

    primitive: str
    params: Mapping[str, Any]
    inputs: list[Value]
    outputs: list[Value]


@dataclass(frozen=True)
class Known:
    """The primitives that can be translated.

    Attributes:
        table: an emitter for each primitive.
        aliases: primitives that hand their operands on.
        calls: primitives that call an inner program, by its parameter's name.
        control: loops and branches; sequences: those whose expressions are sequences of results.
        fresh: those whose results share no memory with their operands.
    """

    table: Mapping[str, Callable[[Function, Operation], str]]
    aliases: Collection[str]
    calls: Mapping[str, str]
    control: Collection[str]
    sequences: Collection[str]
    fresh: Collection[str]


def flatten(
    jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value], known: Known
) -> tuple[list[Operation], list[Value]]:
    """Return the outputs of a jaxpr and the operations that they need, known calls inlined.

    Only the known calls are inlined: a scan holds a jaxpr too, and is not a call.
    """
    operations: list[Operation] = []
    outputs = _inline(jaxpr, consts, inputs, operations, known)
    live, kept = {id(v) for v in outputs}, []
    for op in reversed(operations):
        if any(id(v) in live for v in op.outputs):
            kept.append(op)
            live.update(id(v) for v in op.inputs)
    return kept[::-1], outputs


def _inline(
    jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Value], into: list[Operation], known: Known
) -> list[Value]:
    values = dict(zip(jaxpr.invars, inputs, strict=True))
    values.update((v, _constant(c, v.aval)) for v, c in zip(jaxpr.constvars, consts, strict=True))

    def read(atom: Any) -> Value:
        return _constant(atom.val, atom.aval) if hasattr(atom, "val") else values[atom]

    for eqn in jaxpr.eqns:
        name, operands = eqn.primitive.name, [read(v) for v in eqn.invars]
        if name in known.calls:
            inner = eqn.params[known.calls[name]]
            results = _inline(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), operands, into, known)
        elif name in known.aliases:
            results = operands
        elif name in known.table and all(_is_real(v.aval.dtype) for v in eqn.outvars):
            results = [Value(tuple(v.aval.shape), np.dtype(v.aval.dtype)) for v in eqn.outvars]
            into.append(Operation(name, eqn.params, operands, results))
        else:
            raise UnsupportedPrimitive(name)
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _is_real(dtype: Any) -> bool:
    return dtype.kind in "fiub" or dtype.name == "bfloat16"


def _constant(value: Any, aval: Any) -> Value:
    return Value(tuple(aval.shape), np.dtype(aval.dtype), np.asarray(value, aval.dtype))


@dataclass(frozen=True)
class Results:
    """How a function begins and ends.

    Attributes:
        first: arguments before the arrays. prologue: lines before the operations.
        given: how many of its results are given away: those share memory with nothing.
        fixed: arguments that are constants, by place.
        settings: places of arguments that are settings.
    """

    first: tuple[str, ...] = ()
    prologue: tuple[str, ...] = ()
    given: int = 0
    fixed: Mapping[int, Any] = field(default_factory=dict)
    settings: Collection[int] = ()


INNER = Results()


@dataclass
class Function:
    """A Python function under construction; emitters write through it.

    Attributes:
        known: what can be translated.
        namespace: globals of the generated source: kernels, constants and dtypes.
        noisy: shake the operands of rounding operations.
        lines: the body so far.
        extents: source of the dimensions computed so far, by symbolic expression.
        settings: places of results that are settings, once defined.
    """

    known: Known
    namespace: dict[str, Any]
    noisy: bool
    indent: str = "    "
    lines: list[str] = field(default_factory=list)
    extents: dict[str, str] = field(default_factory=dict)
    settings: frozenset[int] = frozenset()
    _rounds: bool = False

    def define(self, name: str, jaxpr: Any, consts: Sequence[Any], results: Results = INNER) -> list[str]:
        """Return the source of the function of a jaxpr."""
        inputs = [Value(tuple(v.aval.shape), np.dtype(v.aval.dtype), None, self.fresh("a")) for v in jaxpr.invars]
        for i, constant in results.fixed.items():
            inputs[i].constant = np.asarray(constant, inputs[i].dtype)
        for i in results.settings:
            inputs[i].setting = True
        operations, outputs = flatten(jaxpr, consts, inputs, self.known)
        owned: set[int] = set()
        for op in operations:
            self._emit(op)
            if op.primitive in self.known.fresh:
                owned.update(id(v) for v in op.outputs if v.shape and not v.narrow)
        kept = {id(v) for v in outputs[results.given :]}
        self.settings = frozenset(i for i, v in enumerate(outputs) if v.setting)
        returned = []
        for i, v in enumerate(outputs):
            if i >= results.given:
                returned.append(self.whole(v))
            elif self.noisy and v.inexact:  # the last rounding has no later operation to show it
                returned.append(f"np.asarray(noise({self.whole(v)}))")
            else:
                returned.append(self.whole(v) if id(v) in owned - kept else self._copy(v))
            owned.discard(id(v))
        arguments = [*results.first, *(v.name for v in inputs)]
        head = [f"{self.indent[4:]}def {name}({', '.join(arguments)}):", *(self.indent + s for s in results.prologue)]
        return [*head, *self.lines, f"{self.indent}return {self.group(returned)}"]

    def _emit(self, op: Operation) -> None:
        self._rounds, noisy = False, self.noisy
        settings = all(v.setting or v.constant is not None for v in op.inputs) and any(v.setting for v in op.inputs)
        self.noisy = noisy and not settings
        source = self.known.table[op.primitive](self, op)
        self.noisy = noisy
        inexact = self._rounds or any(v.inexact for v in op.inputs) or op.primitive in self.known.control
        for v in op.outputs:
            v.name, v.inexact, v.setting = self.fresh("v"), inexact and v.floating and not settings, settings
        single = len(op.outputs) == 1 and op.primitive not in self.known.sequences
        target = op.outputs[0].name if single else f"[{', '.join(v.name for v in op.outputs)}]"
        self._write(f"{target} = {source}")

    def _copy(self, v: Value) -> str:
        name = self.whole(v)
        return f"{name}.copy()" if v.shape else f"np.array({name})"

    def _write(self, line: str) -> None:
        self.lines.append(self.indent + line)

    def fresh(self, prefix: str) -> str:
        """Return a name not used before in this source."""
        count = self.namespace["_count"] = self.namespace.get("_count", 0) + 1
        return f"{prefix}{count}"

    def const(self, value: Any) -> str:
        """Return the name of a constant."""
        name = self.fresh("c")
        self.namespace[name] = value
        return name

    def scalar(self, value: float, dtype: Any) -> str:
        """Return the name of a scalar constant of a dtype."""
        return self.const(np.asarray(value, dtype))

    def dtype(self, dtype: Any) -> str:
        """Return the name of a dtype."""
        name = f"t_{np.dtype(dtype).name}"
        self.namespace[name] = np.dtype(dtype)
        return name

    def dim(self, n: Any) -> str:
        """Return source for a dimension or an expression of dimensions."""
        if isinstance(n, int):
            return str(n)
        source = source_of(n)
        if source not in self.extents:
            self.extents[source] = name = self.fresh("n")
            self._write(f"{name} = {source}")
        return self.extents[source]

    def shape(self, extents: Iterable[Any]) -> str:
        """Return source for a tuple of dimensions."""
        return self.group(map(self.dim, extents))

    def nested(self, rows: Iterable[Iterable[Any]]) -> str:
        """Return source for a tuple of tuples of dimensions."""
        return self.group(map(self.shape, rows))

    @staticmethod
    def group(parts: Iterable[str]) -> str:
        """Return source for a tuple."""
        return f"({''.join(f'{part}, ' for part in parts)})"

    def whole(self, v: Value) -> str:
        """Return the name of a value in its full shape."""
        if v.narrow:
            name, v.name, v.narrow = v.name, self.fresh("w"), False
            self._write(f"{v.name} = fill({name}, {self.shape(v.shape)})")
        return self.narrow(v)

    def rounded(self, v: Value) -> str:
        """Return source for the operand of a rounding operation, in its full shape."""
        self._rounds = True
        return f"noise({self.whole(v)})" if self.noisy and v.floating else self.whole(v)

    def operands(self, op: Operation, rounds: bool) -> list[str]:
        """Return source for the operands of an elementwise operation, and say how wide its result is."""
        out, names, shaken = op.outputs[0], [], False
        self._rounds = rounds
        for v in op.inputs:
            name, narrow = self.narrow(v), v.narrow or v.shape != out.shape
            if self.noisy and rounds and v.floating:
                name, shaken = f"noise({name}, {self.shape(out.shape)})" if narrow else f"noise({name})", True
            names.append(name)
        out.narrow = not shaken and all(v.narrow or v.shape != out.shape for v in op.inputs)
        return names

    def narrow(self, v: Value) -> str:
        """Return the name of a value as it is: it broadcasts to its shape."""
        if not v.name:
            v.name = self.const(v.constant)
        return v.name

    def nest(self, closed: Any, arguments: Sequence[Value] = ()) -> str:
        """Write an inner function (a loop's body, a branch), which sees this one's sizes; return its name.

        Its first arguments are these values, at every call.
        """
        settings = [i for i, v in enumerate(arguments) if v.setting]
        name = self.fresh("f")
        inner = Function(self.known, self.namespace, self.noisy, self.indent + "    ", extents=dict(self.extents))
        self.lines += inner.define(name, closed.jaxpr, closed.consts, Results(settings=settings))
        return name

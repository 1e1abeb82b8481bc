"""Derive with JAX: trace a primal and its VJP for a pattern of dimensions, or compile them for one shape."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from oracles.rule import Array, Primals, called, is_differentiable, outputs

Pattern: TypeAlias = "tuple[int | str, ...]"

XLA_OPTIONS = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
_SYMBOLIC = RLock()


class Trace(NamedTuple):
    """What JAX derived: jaxprs of arrays → outputs and of (arrays, deltas) → (outputs, cotangents)."""

    forward: Any
    vjp: Any
    is_tuple: bool
    width: int


class Executables(NamedTuple):
    """The same through XLA; the VJP returns outputs and cotangents apart, and compiles on demand."""

    forward: Callable[[Sequence[Array]], list[Any]]
    vjp: Callable[[Sequence[Array], Sequence[Array]], tuple[list[Any], list[Any]]]
    is_tuple: bool


def meet(p: Sequence[int | str], q: Sequence[int | str]) -> Pattern:
    """Return the most specific pattern that serves what ``p`` or ``q`` serves.

    A pattern has an entry per dimension: a number, or a symbol that ties all of its places and is not zero.
    """
    symbols: dict[Any, str] = {}
    return tuple(
        a if a == b and isinstance(a, int) else symbols.setdefault((a, b), f"s{len(symbols)}")
        for a, b in zip(p, q, strict=True)
    )


def equality_pattern(dims: Sequence[int]) -> Pattern:
    """Return the pattern of what is equal to what in an example, and where 0 and 1 stand."""
    return tuple(d if d < 2 else f"s{d}" for d in dims)


def fitting(pattern: Pattern) -> Callable[[Sequence[int]], bool]:
    """Compile the test whether dimensions fit a pattern."""
    tests = []
    for i, entry in enumerate(pattern):
        first = pattern.index(entry)
        tests.append(f"d[{i}] == {entry}" if isinstance(entry, int) else f"d[{i}] == d[{first}] > 0")
    fits: Callable[[Sequence[int]], bool] = eval(f"lambda d: {' and '.join(tests) or 'True'}")
    return fits


def trace(f: Callable[..., Any], primals: Primals, pattern: Pattern) -> Trace:
    """Trace a primal and its VJP, dimensions by pattern.

    Raises:
        TypeError: if f branches in Python on the value of a primal.
        Exception: whatever f raises on these shapes, noted with the shapes.
    """
    import jax

    with jax.enable_x64(True), _SYMBOLIC, _explained(primals):
        shapes = _shapes(primals, pattern)
        symbols = [d for s in shapes for d in s.shape if not isinstance(d, int)]
        with _decidable_equality(type(symbols[0]) if symbols else None):
            primal, vjp, is_tuple = _functions(f, primals)
            forward, ys = jax.make_jaxpr(primal, return_shape=True)(shapes)
            return Trace(forward, jax.make_jaxpr(vjp)(shapes, _deltas(ys)), is_tuple[0], len(ys))


def compile_xla(f: Callable[..., Any], primals: Primals, count: Callable[[], None]) -> Executables:
    """Compile a primal for the shapes of these primals; ``count`` is called at every compilation."""
    import jax

    def compiled(function: Callable[..., Any], *args: Any) -> Any:
        count()
        with jax.enable_x64(True):
            return jax.jit(function).lower(*args).compile(compiler_options=XLA_OPTIONS)

    with jax.enable_x64(True), _explained(primals):
        shapes = _shapes(primals, tuple(d for a in primals.values() for d in a.shape))
        primal, vjp, is_tuple = _functions(f, primals)
        ys = jax.eval_shape(primal, shapes)
        forward = compiled(primal, shapes)
    lazily: list[Any] = []

    def pull(arrays: Sequence[Array], deltas: Sequence[Array]) -> Any:
        if not lazily:
            lazily.append(compiled(vjp, shapes, _deltas(ys)))
        with jax.enable_x64(True):
            return _owned(lazily[0](list(arrays), list(deltas)))

    def run(arrays: Sequence[Array]) -> Any:
        with jax.enable_x64(True):
            return _owned(forward(list(arrays)))

    return Executables(run, pull, is_tuple[0])


def _owned(tree: Any) -> Any:
    if isinstance(tree, list | tuple):
        return type(tree)(map(_owned, tree))
    return np.array(tree)


def _functions(f: Callable[..., Any], primals: Primals) -> tuple[Callable[..., Any], Callable[..., Any], list[bool]]:
    """Return the primal and its VJP on lists of arrays, and a list that learns whether f returns a tuple."""
    import jax
    import jax.numpy as jnp

    moving = [is_differentiable(a) for a in primals.values()]
    is_tuple: list[bool] = []

    def primal(arrays: Sequence[Any]) -> list[Any]:
        y = called(f, dict(zip(primals, arrays, strict=True)))
        is_tuple[:] = [isinstance(y, tuple | list)]
        return [jnp.asarray(part) for part in outputs(y)]

    def vjp(arrays: Sequence[Any], deltas: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        def of_moving(some: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            rest = iter(some)
            ys = primal([next(rest) if moves else a for a, moves in zip(arrays, moving, strict=True)])
            return [y for y in ys if jnp.issubdtype(y.dtype, jnp.inexact)], ys

        _, pull, ys = jax.vjp(of_moving, [a for a, moves in zip(arrays, moving, strict=True) if moves], has_aux=True)
        return ys, pull(list(deltas))[0]

    return primal, vjp, is_tuple


def _shapes(primals: Primals, pattern: Pattern) -> list[Any]:
    """Return the primals' shapes in JAX's terms, symbolic where the pattern is."""
    import jax

    names = list(dict.fromkeys(entry for entry in pattern if isinstance(entry, str)))
    symbols = dict(zip(names, jax.export.symbolic_shape(",".join(names)) if names else (), strict=True))
    dims = iter([symbols[entry] if isinstance(entry, str) else entry for entry in pattern])
    return [jax.ShapeDtypeStruct(tuple(next(dims) for _ in a.shape), a.dtype) for a in primals.values()]


def _deltas(ys: Sequence[Any]) -> list[Any]:
    import jax.numpy as jnp

    return [y for y in ys if jnp.issubdtype(y.dtype, jnp.inexact)]


@contextmanager
def _explained(primals: Mapping[str, Array]) -> Iterator[None]:
    """Say on which primals a reference failed, and how to write a branch."""
    import jax

    shapes = ", ".join(f"{name}: {a.dtype}{list(a.shape)}" for name, a in primals.items())
    try:
        yield
    except jax.errors.ConcretizationTypeError as error:
        raise TypeError(
            f"the JAX reference makes a Python number or branch of a value of its primals ({shapes}).\n"
            f"Fix:    use jnp.where, jax.lax.cond or jax.lax.scan, or close over what is fixed\n{error}"
        ) from error
    except Exception as error:
        error.add_note(f"while tracing the JAX reference on {shapes}")
        raise


@contextmanager
def _decidable_equality(dim_type: Any) -> Iterator[None]:
    """Make ``==`` of symbolic dimensions raise in the reference's code where the answer depends on them.

    JAX answers False there, which would bake ``if x.shape[0] == 1`` into a program that also serves 1.
    JAX's own code, which knows the convention, is left alone.
    """
    if dim_type is None:
        yield
        return
    plain = dim_type.__eq__

    def decided(self: Any, other: Any) -> Any:
        if plain(self, other):
            return True
        caller = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
        if caller not in ("jax", "jaxlib", "opt_einsum", "numpy") and isinstance(other, int | dim_type):
            difference = self - other
            if not isinstance(difference, int):
                _ = difference > 0 or difference < 0  # raises where inconclusive
                return not (difference > 0 or difference < 0)
        return False

    dim_type.__eq__ = decided
    try:
        yield
    finally:
        dim_type.__eq__ = plain

"""A kernel: one forward, the point that it is judged at, and several backwards, right and wrong.

Each backward is NumPy code as the body of a kernel is written: `wide` loads into registers, `stored` writes the result.
Registers hold float32, or float64 if the inputs are float64, so that the same code runs under gradcheck.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import torch

import oracles
from oracles.rule import Array, Rule

Draw: TypeAlias = Callable[[np.random.Generator], dict[str, Array]]
Backward: TypeAlias = Callable[[Any, Any], object]
DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
HALF = "bfloat16", "float16"
ALL = "bfloat16", "float16", "float32"


@dataclass(frozen=True)
class Subject:
    """One backward of a kernel, in one dtype.

    Attributes:
        kernel: the operation: "softmax".
        variant: what is special about this backward, in words.
        dtype: what it stores.
        right: whether a user would want it accepted.
        rule: the forward and the backward.
        draw: makes the primals.
        reference: the operation in torch.
        in_float64: whether the same code computes in float64 if its inputs are float64.
        once: whether its author would declare that each result is rounded once, with float32 before that.
    """

    kernel: str
    variant: str
    dtype: str
    right: bool
    rule: Rule
    draw: Draw
    reference: Callable[..., Any]
    in_float64: bool
    once: bool

    @property
    def name(self) -> str:
        """The name in tables."""
        return f"{self.kernel}: {self.variant} [{self.dtype}]"

    def primals(self, dtype: str | None = None) -> dict[str, Array]:
        """Draw the primals: the stored values, as arrays of another dtype if one is given."""
        seed = zlib.crc32(f"{self.kernel} {self.dtype}".encode())
        drawn = self.draw(np.random.default_rng(seed))
        held = {name: a.astype(DTYPES[self.dtype]) if a.dtype == np.float64 else a for name, a in drawn.items()}
        if dtype is None:
            return held
        return {name: a.astype(DTYPES[dtype]) if drawn[name].dtype == np.float64 else a for name, a in held.items()}

    def torch_forward(self, **primals: Any) -> tuple[Any, Any]:
        """Evaluate the reference in the dtype of the primals."""
        return _in_torch(self.reference, primals)

    def torch_pullback(self, cache: Any, delta: Any) -> dict[str, Any]:
        """Return what autograd computes in that dtype."""
        return _pull_in_torch(cache, delta)


SUBJECTS: list[Subject] = []


class Kernel:
    """An operation with its forward and reference; `right` and `bug` register its backwards."""

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        reference: Callable[..., Any],
        draw: Draw | Mapping[str, Any],
        once: bool = True,
    ) -> None:
        """`draw` makes the primals, or has the shape of each: these are then standard normal."""
        self.once = once
        self.name, self.forward, self.reference = name, forward, reference
        self.draw = draw if callable(draw) else normal(**draw)

    def right(self, variant: str, *dtypes: str, **other: Any) -> Callable[[Backward], Backward]:
        """Register a right backward, for each of the dtypes (bfloat16 if there are none)."""
        return lambda backward: self._register(variant, dtypes, True, backward, **other)

    def bug(self, variant: str, *dtypes: str, **other: Any) -> Callable[[Backward], Backward]:
        """Register a wrong backward, for each of the dtypes (bfloat16 if there are none)."""
        return lambda backward: self._register(variant, dtypes, False, backward, **other)

    def torch_backward(self, *dtypes: str) -> None:
        """Register what torch's autograd computes in the dtypes as a right subject."""
        for dtype in dtypes:
            rule = oracles.manual(
                lambda **primals: _in_torch(self.reference, primals),
                _pull_in_torch,
                arrays="torch",
                name=f"{self.name} in torch",
            )
            SUBJECTS.append(
                Subject(self.name, "torch's own backward", dtype, True, rule, self.draw, self.reference, True, False)
            )

    def _register(
        self,
        variant: str,
        dtypes: tuple[str, ...],
        right: bool,
        backward: Backward,
        forward: Callable[..., Any] | None = None,
        draw: Draw | Mapping[str, Any] | None = None,
        in_float64: bool = True,
        once: bool = True,
    ) -> Backward:
        rule = oracles.manual(forward or self.forward, backward, name=f"{self.name}, {variant}")
        drawn = self.draw if draw is None else draw if callable(draw) else normal(**draw)
        for dtype in dtypes or ("bfloat16",):
            SUBJECTS.append(
                Subject(self.name, variant, dtype, right, rule, drawn, self.reference, in_float64, self.once and once)
            )
        return backward


def _in_torch(reference: Callable[..., Any], primals: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the reference's value, and what autograd needs to differentiate it."""
    leaves = {n: t.detach().requires_grad_() if t.is_floating_point() else t for n, t in primals.items()}
    with torch.enable_grad():
        y = reference(**leaves)
    parts = tuple(part.detach() for part in y) if isinstance(y, tuple) else y.detach()
    return parts, (y, leaves)


def _pull_in_torch(cache: Any, delta: Any) -> dict[str, Any]:
    """Return autograd's cotangents of the floating primals."""
    y, leaves = cache
    floating = {name: leaf for name, leaf in leaves.items() if leaf.requires_grad}
    return dict(zip(floating, torch.autograd.grad(y, list(floating.values()), delta, retain_graph=True), strict=True))


def normal(**shapes: tuple[int, ...]) -> Draw:
    """Return a function that draws standard normal values of these shapes."""
    return lambda rng: {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def wide(a: Any) -> Any:
    """Load into registers: float32, or what is wider."""
    return a.astype(np.promote_types(a.dtype, np.float32))


def stored(a: Any, like: Any) -> Any:
    """Write in the dtype of another array: one rounding."""
    return a.astype(like.dtype)


def tiles(n: int, size: int) -> list[slice]:
    """Return the tiles of an axis of n entries; the last one may be smaller."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def summed_in_store(rows: Any) -> Any:
    """Add up rows one after the other, with partial sums in the dtype of the rows."""
    total = np.zeros(rows.shape[1:], rows.dtype)
    for row in rows:
        total = (total + row).astype(rows.dtype)
    return total

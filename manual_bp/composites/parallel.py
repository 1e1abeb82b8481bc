"""Layers side by side."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate
from operator import add
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from ..protocol import Array, Arrays, Cache, Layer, Params, as_tuple, untupled
from ..routing import (
    Port,
    inputs_through,
    jacobian_of,
    outputs_through,
    own_params,
    ports_of,
    prefixed,
    require_layers,
    routes_of,
)
from ..validation import require_parts, require_shape


@dataclass(frozen=True, init=False, repr=False)
class Parallel:
    """y = Σ_k f_k(z) (50), or with `axis` the f_k(z) one after another along it; ∂L/∂z = Σ_k ∂L/∂z through f_k (51).

    The branches share the main input, and every use of it adds its cotangent. A sum hands δ to every branch, a
    concatenation hands each its own slice. `Parallel(Identity(), f)` is `Residual(f)`; tuples of outputs would end a
    chain, so there are none. Names are prefixed as in `Sequential`: branch 1's W is "1.W", its mask "1.mask".

    Shapes: z as every branch takes it; the branches' outputs alike, but for the extent of `axis`. Dtypes: theirs.
    Raises: ValueError for no branches, for widths that differ, and for outputs that do not fit together; TypeError for
    no layer. What a branch raises carries a note with its place.
    """

    branches: tuple[Layer, ...]
    axis: int | None
    inputs: tuple[str, ...] = field(compare=False)
    outputs: tuple[str, ...] = field(compare=False)
    _ports: tuple[Port | None, ...] = field(compare=False)

    def __init__(self, *branches: Layer, axis: int | None = None) -> None:
        require_layers("Parallel", branches)
        if axis is not None and (isinstance(axis, bool) or not isinstance(axis, int)):
            raise TypeError(f"Parallel: axis: expected an integer, or None for a sum, got {axis!r}")
        object.__setattr__(self, "branches", branches)
        object.__setattr__(self, "axis", axis)
        object.__setattr__(self, "inputs", inputs_through(branches))
        object.__setattr__(self, "outputs", outputs_through(branches))
        object.__setattr__(self, "_ports", ports_of(branches))
        for name in ("n_in", "n_out") if axis is None else ("n_in",):
            if len(found := _widths(branches, name)) > 1:
                raise ValueError(f"Parallel: branches: expected one {name} for all, got {sorted(found)}")

    def __repr__(self) -> str:
        axis = [] if self.axis is None else [f"axis={self.axis}"]
        return f"Parallel({', '.join([*map(repr, self.branches), *axis])})"

    @property
    def n_in(self) -> int | None:
        """The number of columns that the branches expect, where one says it."""
        return next(iter(_widths(self.branches, "n_in")), None)

    @property
    def n_out(self) -> int | None:
        """The number of columns that they give together, where they say it."""
        if self.axis is None:
            return next(iter(_widths(self.branches, "n_out")), None)
        widths = [getattr(branch, "n_out", None) for branch in self.branches]
        return None if self.axis != -1 or None in widths else sum(int(width) for width in widths if width)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw every branch's parameters, in order, from the one generator."""
        return prefixed(branch.init(rng, dtype) for branch in self.branches)

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return the branches' outputs, joined, and their side outputs."""
        routes = routes_of(self, "forward", params, len(self.branches))
        given = require_parts(self, "forward", "z", z, self.inputs)
        ys: list[Any] = []
        came: list[Any] = []
        caches = []
        for index, (route, port) in enumerate(zip(routes, self._ports, strict=True)):
            mine = given[0] if port is None else untupled((given[0], *given[port.inputs]))
            with self._noted(index):
                y, cache = self.branches[index].forward(own_params(params, route), mine)
            y, *beside = as_tuple(y)
            self._require_fit(ys, y)
            ys.append(y)
            came += beside
            caches.append(cache)
        joined = reduce(add, ys) if self.axis is None else np.concatenate(ys, axis=self.axis)
        return untupled((joined, *came)), (caches, joined, [y.shape for y in ys])

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return the sum of what the branches pass back (51), and every branch's gradients under their names."""
        caches, y, shapes = cache
        given = require_parts(self, "backward", "delta", delta, self.outputs)
        require_shape(self, "backward", "delta", given[0], y.shape, y, "y")
        dz: Any = None
        beside: list[Any] = []
        grads = []
        for index, (part, port) in enumerate(zip(self._shares(given[0], shapes), self._ports, strict=True)):
            mine = part if port is None else untupled((part, *given[port.outputs]))
            with self._noted(index):
                came, dparams = self.branches[index].backward(caches[index], mine)
            passed, *own = as_tuple(came)
            dz = passed if dz is None else dz + passed  # all None where the input is indices
            beside += own
            grads.append(dparams)
        return untupled((dz, *beside)), prefixed(grads)

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return the sum of the branches' Jacobians, or with `axis` those rows one after another."""
        routes = routes_of(self, "jacobian", params, len(self.branches))
        found = [jacobian_of(b, own_params(params, route), z) for b, route in zip(self.branches, routes, strict=True)]
        if self.axis is None:
            return reduce(add, found)
        rows = max(len(each) for each in found)
        return np.concatenate([np.broadcast_to(each, (rows, *each.shape[1:])) for each in found], axis=1)

    def _shares(self, delta: Array, shapes: list[tuple[int, ...]]) -> list[Array]:
        """Return what each branch gets of delta: all of it under a sum, its own slice under a concatenation."""
        if self.axis is None:
            return [delta] * len(shapes)
        ends = list(accumulate(shape[self.axis] for shape in shapes))
        return np.split(delta, ends[:-1], axis=self.axis)

    def _require_fit(self, before: list[Array], y: Array) -> None:
        if self.axis is not None and not -y.ndim <= self.axis < y.ndim:
            raise ValueError(f"Parallel.forward: axis: expected one of an output of shape {y.shape}, got {self.axis}")
        if before:
            first, shape = before[0], list(before[0].shape)
            if self.axis is not None and y.ndim == len(shape):
                shape[self.axis] = y.shape[self.axis]
            require_shape(self, "forward", f"branch {len(before)}'s y", y, tuple(shape), first, "branch 0's y")

    @contextmanager
    def _noted(self, index: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            error.add_note(f"in branch {index}, {self.branches[index]}, parameters '{index}.…'")
            raise


def _widths(branches: tuple[Layer, ...], name: str) -> set[int]:
    """Return the widths that the branches state."""
    return {int(width) for branch in branches if (width := getattr(branch, name, None)) is not None}

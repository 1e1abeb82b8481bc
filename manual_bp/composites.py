"""Composites: layers made of layers, for networks that are not chains."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import reduce
from itertools import accumulate
from math import prod
from operator import add

import numpy as np
from numpy.typing import DTypeLike

from ._routing import (
    Port,
    add_prefixes,
    inputs_through,
    jacobian_of,
    note_layer,
    outputs_through,
    own_params,
    ports_of,
    require_layers,
    routes_of,
    stated_width,
)
from ._validation import require_parts, require_ranked, require_shape
from .protocol import Array, Arrays, Cache, Layer, Params, as_tuple, inputs_of, one_or_tuple, outputs_of


@dataclass(frozen=True)
class Around:
    """Base of the composites around one layer f: parameters, side inputs and side outputs are f's, under f's names."""

    f: Layer

    def __post_init__(self) -> None:
        require_layers(type(self).__name__, (self.f,))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Z, and f's side inputs."""
        return ("z", *inputs_of(self.f)[1:])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Y, and f's side outputs."""
        return ("y", *outputs_of(self.f)[1:])

    @property
    def n_in(self) -> int | None:
        """The number of columns that f expects, None if unknown."""
        return stated_width(self.f, "n_in")

    @property
    def n_out(self) -> int | None:
        """The number of columns that f gives, None if unknown."""
        return stated_width(self.f, "n_out")

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw f's parameters."""
        return self.f.init(rng, dtype)


@dataclass(frozen=True)
class Residual(Around):
    """Residual connection around a layer f.

        y = z + f(z)                                    (48)
        ∂L/∂z = δ + ∂L/∂z through f                     (49)

    Args:
        f: the layer; parameters, side inputs and side outputs are f's, under f's names.

    Shapes: any that f preserves. Dtypes: f's, floating.

    Raises:
        ValueError: if f's widths differ, or f gives another shape than that of z.
        TypeError: for something that is not a layer.

    Source: docs/derivation.md, eq. (48)–(49); He et al. 2016, "Deep Residual Learning for Image Recognition", eq. 1.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if None not in (self.n_in, self.n_out) and self.n_in != self.n_out:
            raise ValueError(
                f"Residual: f: expected as many columns out as in, {self.f} maps {self.n_in} to {self.n_out}"
            )

    @property
    def preserves_shape(self) -> bool:
        """True: a sum has the shape of its terms."""
        return True

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return z + f(z), and f's side outputs."""
        main = as_tuple(z)[0]
        require_ranked(self, "forward", "z", main)
        result, cache = self.f.forward(params, z)
        y, *side_outputs = as_tuple(result)
        require_shape(self, "forward", "f(z)", y, main.shape, main, "z")
        return one_or_tuple((main + y, *side_outputs)), cache

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return δ plus f's cotangent (49), and f's other cotangents."""
        cotangents, dparams = self.f.backward(cache, delta)
        dz, *side_cotangents = as_tuple(cotangents)
        return one_or_tuple((as_tuple(delta)[0] + dz, *side_cotangents)), dparams

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return I + ∂f/∂z."""
        inner = jacobian_of(self.f, params, z)
        return np.eye(inner.shape[1], dtype=inner.dtype) + inner


@dataclass(frozen=True)
class Rowwise(Around):
    """A layer of rows f, applied to every step of a sequence or every pixel: to every index before the last axis.

        y_{n…} = f(z_{n…})                              (74)
        the rows' cotangents are f's, row by row        (75)

    f gets all rows at once, (rows, columns), as it gets a batch: its parameter gradients are sums over all of them, as
    in (8) and (9).

    Args:
        f: the layer; parameters, side inputs and side outputs are f's, under f's names.

    Shapes: z (…, n), y (…, m) where f maps (rows, n) to (rows, m). Dtypes: f's.

    Raises:
        ValueError: if z has no axes or f gives another number of rows.
        TypeError: for something that is not a layer.

    Source: docs/derivation.md, eq. (74)–(75).
    """

    @property
    def preserves_shape(self) -> bool:
        """Whether f does."""
        return bool(getattr(self.f, "preserves_shape", False))

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return f of every row, and f's side outputs."""
        z, *side_inputs = require_parts(self, "forward", "z", z, self.inputs)
        require_ranked(self, "forward", "z", z)
        count = prod(z.shape[:-1])
        result, cache = self.f.forward(params, one_or_tuple((z.reshape(count, z.shape[-1]), *side_inputs)))
        rows, *side_outputs = as_tuple(result)
        require_shape(self, "forward", "f(z)", rows, (count, rows.shape[-1]), z, "z")
        y = rows.reshape(*z.shape[:-1], rows.shape[-1])
        return one_or_tuple((y, *side_outputs)), (cache, z, y, rows.shape)

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return f's cotangents of every row (75)."""
        inner, z, y, shape = cache
        delta, *side_deltas = require_parts(self, "backward", "delta", delta, self.outputs)
        require_shape(self, "backward", "delta", delta, y.shape, y, "y")
        cotangents, dparams = self.f.backward(inner, one_or_tuple((delta.reshape(shape), *side_deltas)))
        rows, *side_cotangents = as_tuple(cotangents)
        return one_or_tuple((rows.reshape(z.shape), *side_cotangents)), dparams


@dataclass(frozen=True, init=False, repr=False)
class Parallel:
    """Layers that share one input; their outputs are added, or concatenated along an axis.

        y = Σ_k f_k(z), or the f_k(z) concatenated along `axis`                     (50)
        ∂L/∂z = Σ_k ∂L/∂z through f_k                                               (51)

    A sum passes δ to every branch, a concatenation passes each branch its own slice. `Parallel(Identity(), f)` is
    `Residual(f)`. Names are prefixed as in `Sequential`: branch 1's W is "1.W", its mask "1.mask".

    Args:
        *branches: the layers f_k.
        axis: None for a sum, or the axis of the concatenation.

    Shapes: z as every branch takes it; the branches' outputs alike, except for the extent of `axis`. Dtypes: theirs.

    Raises:
        ValueError: for no branches, widths that differ, or outputs whose shapes do not match.
        TypeError: for something that is not a layer. An error in a branch carries a note that names the branch.

    Source: docs/derivation.md, eq. (50)–(51).
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
            if len(widths := _widths(branches, name)) > 1:
                raise ValueError(f"Parallel: branches: expected one {name} for all, got {sorted(widths)}")

    def __repr__(self) -> str:
        axis = [] if self.axis is None else [f"axis={self.axis}"]
        return f"Parallel({', '.join([*map(repr, self.branches), *axis])})"

    @property
    def n_in(self) -> int | None:
        """The number of columns that the branches expect, None if unknown."""
        return next(iter(_widths(self.branches, "n_in")), None)

    @property
    def n_out(self) -> int | None:
        """The number of columns that they give together, None if unknown."""
        if self.axis is None:
            return next(iter(_widths(self.branches, "n_out")), None)
        widths = [getattr(branch, "n_out", None) for branch in self.branches]
        return None if self.axis != -1 or None in widths else sum(int(width) for width in widths if width)

    def init(self, rng: np.random.Generator, dtype: DTypeLike = np.float64) -> Params:
        """Draw every branch's parameters, in order, from the one generator."""
        return add_prefixes(branch.init(rng, dtype) for branch in self.branches)

    def forward(self, params: Params, z: Arrays) -> tuple[Arrays, Cache]:
        """Return the branches' outputs, joined, and their side outputs."""
        routes = routes_of(self, "forward", params, len(self.branches))
        inputs = require_parts(self, "forward", "z", z, self.inputs)
        ys: list[Array] = []
        side_outputs: list[Arrays] = []
        caches: list[Cache] = []
        try:
            for branch, route, port in zip(self.branches, routes, self._ports, strict=True):
                own_inputs = inputs[0] if port is None else one_or_tuple((inputs[0], *inputs[port.inputs]))
                result, cache = branch.forward(own_params(params, route), own_inputs)
                y, *own_outputs = as_tuple(result)
                self._require_joinable(ys, y)
                ys.append(y)
                side_outputs += own_outputs
                caches.append(cache)
        finally:
            if len(caches) < len(self.branches):
                note_layer("branch", len(caches), self.branches[len(caches)])
        # reduce, not sum: sum starts with the integer 0, one more pass over the first array.
        joined = reduce(add, ys) if self.axis is None else np.concatenate(ys, axis=self.axis)
        return one_or_tuple((joined, *side_outputs)), (caches, joined, [y.shape for y in ys])

    def backward(self, cache: Cache, delta: Arrays) -> tuple[Arrays, Params]:
        """Return the sum of the branches' cotangents (51), and every branch's gradients under their names."""
        caches, y, shapes = cache
        cotangents = require_parts(self, "backward", "delta", delta, self.outputs)
        require_shape(self, "backward", "delta", cotangents[0], y.shape, y, "y")
        dz: Array | None = None
        side_cotangents: list[Arrays] = []
        grads: list[Params] = []
        parts = zip(self.branches, self._shares(cotangents[0], shapes), self._ports, caches, strict=True)
        try:
            for branch, part, port, inner in parts:
                own_delta = part if port is None else one_or_tuple((part, *cotangents[port.outputs]))
                result, dparams = branch.backward(inner, own_delta)
                branch_dz, *own_cotangents = as_tuple(result)
                dz = branch_dz if dz is None else dz + branch_dz  # None for all branches if the input is indices
                side_cotangents += own_cotangents
                grads.append(dparams)
        finally:
            if len(grads) < len(self.branches):
                note_layer("branch", len(grads), self.branches[len(grads)])
        return one_or_tuple((dz, *side_cotangents)), add_prefixes(grads)

    def jacobian(self, params: Params, z: Array) -> Array:
        """Return the sum of the branches' Jacobians, or with `axis` those rows one after another."""
        routes = routes_of(self, "jacobian", params, len(self.branches))
        factors = [jacobian_of(b, own_params(params, route), z) for b, route in zip(self.branches, routes, strict=True)]
        if self.axis is None:
            return reduce(add, factors)
        rows = max(len(each) for each in factors)
        return np.concatenate([np.broadcast_to(each, (rows, *each.shape[1:])) for each in factors], axis=1)

    def _shares(self, delta: Array, shapes: list[tuple[int, ...]]) -> list[Array]:
        """Return each branch's part of delta: all of it for a sum, a slice for a concatenation."""
        if self.axis is None:
            return [delta] * len(shapes)
        ends = list(accumulate(shape[self.axis] for shape in shapes))
        return np.split(delta, ends[:-1], axis=self.axis)

    def _require_joinable(self, before: list[Array], y: Array) -> None:
        """Refuse y unless it can be joined with the outputs of the branches before."""
        if self.axis is not None and not -y.ndim <= self.axis < y.ndim:
            raise ValueError(f"Parallel.forward: axis: expected one of an output of shape {y.shape}, got {self.axis}")
        if before:
            first, shape = before[0], list(before[0].shape)
            if self.axis is not None and y.ndim == len(shape):
                shape[self.axis] = y.shape[self.axis]
            require_shape(self, "forward", f"branch {len(before)}'s y", y, tuple(shape), first, "branch 0's y")


def _widths(branches: tuple[Layer, ...], name: str) -> set[int]:
    """Return the widths that branches declare."""
    return {int(width) for branch in branches if (width := getattr(branch, name, None)) is not None}

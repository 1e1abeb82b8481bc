"""The run-time library of translated JAX programs: primitives that NumPy has no single function for.

Generated code (`oracles.jaxpr.program`) calls these by name, with concrete shapes. Nothing here imports JAX and
nothing writes into its arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from oracles.rule import Array

Ints = Sequence[int]
Pads = Sequence[Sequence[int]]


def fill(x: Array, shape: Ints) -> Array:
    """Return x broadcast to ``shape``, in memory of its own."""
    full = np.empty(shape, x.dtype)
    full[...] = x
    return full


def to_int(x: Array, dtype: np.dtype[Any]) -> Array:
    """Convert floating to integer as XLA does: towards zero, saturating, NaN to 0."""
    x, info = np.asarray(x, np.float64), np.iinfo(dtype)
    inside = (x > info.min) & (x < info.max)
    edges = np.where(x >= info.max, info.max, np.where(x <= info.min, info.min, 0)).astype(dtype)
    return np.where(inside, np.where(inside, x, 0).astype(dtype), edges)


def divide_int(x: Array, y: Array) -> Array:
    """Divide integers towards zero, with XLA's −1 for division by zero."""
    quotient = np.floor_divide(x, np.where(y == 0, 1, y))
    quotient = quotient + ((quotient < 0) & (quotient * y != x)).astype(quotient.dtype)
    return np.where(y == 0, np.asarray(-1).astype(x.dtype), quotient).astype(x.dtype)


def round_away(x: Array) -> Array:
    """Round half away from zero."""
    whole = np.trunc(x)
    return np.asarray(whole + (np.abs(x - whole) >= 0.5).astype(x.dtype) * np.sign(x))


def special(name: str, *x: Array) -> Array:
    """Evaluate a function of `scipy.special` (JAX depends on SciPy), 16-bit dtypes by way of float32."""
    import scipy.special

    dtype = x[0].dtype
    wide = [a.astype(np.float32) if dtype.itemsize == 2 else a for a in x]
    return np.asarray(getattr(scipy.special, name)(*wide)).astype(dtype)


def pad(x: Array, value: Any, config: Pads) -> Array:
    """Pad every axis by (low, high, interior); negative low and high crop."""
    x = np.asarray(x)
    inner = [n + max(0, n - 1) * k for n, (_, _, k) in zip(x.shape, config, strict=True)]
    wide = np.full([n + max(0, lo) + max(0, hi) for n, (lo, hi, _) in zip(inner, config, strict=True)], value, x.dtype)
    starts = [max(0, lo) for lo, _, _ in config]
    wide[tuple(slice(s, s + n, k + 1) for s, n, (_, _, k) in zip(starts, inner, config, strict=True))] = x
    ends = [n + min(0, hi) for n, (_, hi, _) in zip(wide.shape, config, strict=True)]
    return wide[tuple(slice(max(0, -lo), end) for (lo, _, _), end in zip(config, ends, strict=True))]


def dynamic_slice(x: Array, starts: Ints, sizes: Ints) -> Array:
    """Take a window at run-time starts, clamped into x as XLA does."""
    return x[_window(x, starts, sizes)]


def dynamic_update_slice(x: Array, update: Array, starts: Ints) -> Array:
    """Replace a window at run-time starts, clamped into x as XLA does."""
    out = np.array(x)
    out[_window(x, starts, update.shape)] = update
    return out


def _window(x: Array, starts: Ints, sizes: Ints) -> tuple[slice, ...]:
    clamped = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, x.shape, sizes, strict=True)]
    return tuple(slice(s, s + k) for s, k in zip(clamped, sizes, strict=True))


def window_index(
    shape: Ints,
    indices: Array,
    sizes: Ints,
    clip: bool,
    window: Ints,
    collapsed: Ints,
    mapped: Ints,
    batched: Pads,
) -> tuple[tuple[Array, ...], Array]:
    """Return an index array per operand axis for the result of a gather, and where the windows are valid.

    The updates of a scatter are laid out like the result of a gather.

    Args:
        shape: of the operand.
        indices: starts of the windows, components along the last axis.
        sizes: of the window along each operand axis.
        clip: move windows inside the operand rather than call them invalid.
        window: axes of the result that run through the window.
        collapsed: operand axes of window size one that the result lacks.
        mapped: the operand axis of each component of an index.
        batched: operand axes, and the axes of ``indices`` that they run along with.
    """
    rank = indices.ndim - 1 + len(window)
    outer = [p for p in range(rank) if p not in window]
    inner = [d for d in range(len(shape)) if d not in collapsed and d not in batched[0]]

    def along(array: Array, positions: Ints) -> Array:
        extents = [1] * rank
        for p, n in zip(positions, array.shape, strict=True):
            extents[p] = n
        return array.reshape(extents)

    valid, index = np.array(True), []
    for d, n in enumerate(shape):
        at = np.zeros([1] * rank, np.int64)
        if d in mapped:
            start = along(indices[..., list(mapped).index(d)].astype(np.int64), outer)
            room = n - sizes[d]
            at = np.clip(start, 0, max(room, 0))
            valid = valid if clip else valid & (start >= 0) & (start <= room)
        elif d in batched[0]:
            axis = batched[1][list(batched[0]).index(d)]
            at = along(np.arange(indices.shape[axis]), [outer[axis]])
        if d in inner:
            at = at + along(np.arange(sizes[d]), [window[inner.index(d)]])
        index.append(at)
    extents = dict(zip(outer, indices.shape, strict=False)) | {p: sizes[d] for p, d in zip(window, inner, strict=True)}
    full = [extents[p] for p in range(rank)]
    return tuple(np.broadcast_to(i, full) for i in index), np.broadcast_to(valid, full)


def gather(x: Array, indices: Array, sizes: Ints, clip: bool, missing: Any, *layout: Any) -> Array:
    """Collect windows of x; what lies outside reads as ``missing``."""
    index, valid = window_index(x.shape, indices, sizes, clip, *layout)
    if 0 in x.shape:
        return np.full(valid.shape, missing, x.dtype)
    return x[index] if valid.all() else np.where(valid, x[index], np.asarray(missing, x.dtype))


def scatter(x: Array, indices: Array, updates: Array, combine: str, clip: bool, *layout: Any) -> Array:
    """Combine windows of updates into a copy of x by a ufunc, or "" to replace; drop what lies outside."""
    window, collapsed, _, batched = layout
    inner = [d for d in range(x.ndim) if d not in collapsed and d not in batched[0]]
    sizes = [updates.shape[window[inner.index(d)]] if d in inner else 1 for d in range(x.ndim)]
    index, valid = window_index(x.shape, indices, sizes, clip, *layout)
    if not valid.all():
        index, updates = tuple(i[valid] for i in index), updates[valid]
    out = np.array(x)
    if combine:
        getattr(np, combine).at(out, index, updates)
    else:
        out[index] = updates
    return out


def sort(operands: Sequence[Array], axis: int, keys: int) -> list[Array]:
    """Sort operands together along an axis by the first ``keys`` of them, stably, NaN last."""
    order = np.lexsort(operands[:keys][::-1], axis=axis)
    return [np.take_along_axis(x, order, axis) for x in operands]


def top_k(x: Array, k: int, axis: int, dtype: np.dtype[Any]) -> list[Array]:
    """Return the k largest entries along an axis, ties in order, NaN first, and their places."""
    order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    order = order[(slice(None),) * axis + (slice(k),)]
    return [np.take_along_axis(x, order, axis), order.astype(dtype)]


def windows(x: Array, extents: Ints, strides: Ints, dilations: Ints) -> Array:
    """View x as its windows: the axes of the grid first, then those within a window."""
    spans = [(k - 1) * d + 1 if k else 0 for k, d in zip(extents, dilations, strict=True)]
    grid = [max(0, (n - s) // t + 1) for n, s, t in zip(x.shape, spans, strides, strict=True)]
    steps = [s * t for s, t in zip(x.strides, strides, strict=True)]
    inner = [s * d for s, d in zip(x.strides, dilations, strict=True)]
    return np.lib.stride_tricks.as_strided(x, (*grid, *extents), (*steps, *inner), writeable=False)


def reduce_window(
    x: Array, ufunc: str, start: Any, config: Pads, extents: Ints, strides: Ints, dilations: Ints
) -> Array:
    """Reduce every window of x, padded by ``config`` with ``start``, with a ufunc."""
    seen = windows(pad(x, start, config), extents, strides, dilations)
    return np.asarray(getattr(np, ufunc).reduce(seen, tuple(range(x.ndim, 2 * x.ndim)), dtype=x.dtype))


def select_and_scatter_add(source: Array, x: Array, largest: bool, extents: Ints, strides: Ints, pads: Pads) -> Array:
    """Add each source entry to the place of the first largest (smallest) entry of its window of x."""
    config = [(lo, hi, 0) for lo, hi in pads]
    worst = -np.inf if largest else np.inf
    ones = [1] * x.ndim
    seen = windows(pad(x, worst, config), extents, strides, ones).reshape(*source.shape, -1)
    places = np.arange(x.size).reshape(x.shape)
    here = windows(pad(places, -1, config), extents, strides, ones).reshape(*source.shape, -1)
    best = (np.argmax if largest else np.argmin)(np.where(here < 0, worst, seen), axis=-1)
    out = np.zeros(x.size, x.dtype)
    np.add.at(out, np.take_along_axis(here, best[..., None], -1)[..., 0], source)
    return out.reshape(x.shape)


def convolve(
    x: Array, kernel: Array, groups: int, batch_groups: int, strides: Ints, config: Pads, dilation: Ints
) -> Array:
    """Correlate x, laid out (N, C, …) and padded by ``config``, with kernel (O, I, …) into (N, O, …)."""
    x = pad(x, np.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *config])
    n, c, *extent = x.shape
    seen = windows(x, (1, 1, *kernel.shape[2:]), (1, 1, *strides), (1, 1, *dilation))
    grid = seen.shape[2 : 2 + len(extent)]
    places = math.prod(kernel.shape[2:])
    seen = seen.reshape(n, c, *grid, places)
    if batch_groups > 1:  # group b of the batch meets group b of the output channels
        parts = seen.reshape(batch_groups, n // batch_groups, 1, c, math.prod(grid), places)
    else:
        parts = seen.reshape(1, n, groups, c // groups, math.prod(grid), places)
    split = max(groups, batch_groups)
    taps = kernel.reshape(split, kernel.shape[0] // split, kernel.shape[1], places)
    if batch_groups > 1:
        out = np.einsum("bnzcpk,bock->nbop", parts, taps)
    else:
        out = np.einsum("zngcpk,gock->ngop", parts, taps)
    return np.asarray(out.reshape(n // batch_groups, kernel.shape[0], *grid))


def scan(
    body: Callable[..., Any], consts: Any, carry: Any, xs: Any, length: int, backwards: bool, stacked: Any
) -> list[Any]:
    """Run a body along the leading axis of ``xs``; ``stacked`` has (shape, dtype) of what each step adds."""
    ys = [np.empty((length, *shape), dtype) for shape, dtype in stacked]
    for i in reversed(range(length)) if backwards else range(length):
        came = body(*consts, *carry, *(x[i] for x in xs))
        carry = came[: len(carry)]
        for y, part in zip(ys, came[len(carry) :], strict=True):
            y[i] = part
    return [*carry, *ys]


def loop(test: Callable[..., Any], body: Callable[..., Any], test_consts: Any, body_consts: Any, state: Any) -> Any:
    """Run a body while its test holds."""
    while test(*test_consts, *state)[0]:
        state = body(*body_consts, *state)
    return state


def branch(index: Any, branches: Sequence[Callable[..., Any]], operands: Any) -> Any:
    """Run one branch, the index clamped as XLA does."""
    return branches[min(max(int(index), 0), len(branches) - 1)](*operands)


_KERNELS = (
    *(
        fill,
        to_int,
        divide_int,
        round_away,
        special,
        pad,
        dynamic_slice,
        dynamic_update_slice,
        gather,
        scatter,
    ),
    *(sort, top_k, reduce_window, select_and_scatter_add, convolve, scan, loop, branch),
)
NAMESPACE: dict[str, Any] = {
    "np": np,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    **{kernel.__name__: kernel for kernel in _KERNELS},
}

"""NumPy functions for the JAX primitives that NumPy has no single function for.

`oracles.perturbation.jaxpr_primitives` binds their parameters. Nothing here imports JAX, and nothing writes into its
arguments. Where XLA and NumPy differ (integer division, conversion to integers, indices outside an array), these do
as XLA does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def integer_bound(x: Array) -> float | None:
    """Return the largest magnitude among integers; None if an entry is no integer."""
    wide = np.asarray(x, np.complex128 if x.dtype.kind == "c" else np.float64)
    parts = (wide.real, wide.imag) if wide.dtype.kind == "c" else (wide,)
    if not all(np.array_equal(part, np.rint(part)) for part in parts):
        return None
    return max((float(np.abs(part).max(initial=0.0)) for part in parts), default=0.0)


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
    return np.asarray(_at_singular_points(name, getattr(scipy.special, name)(*wide), *wide)).astype(dtype)


def _at_singular_points(name: str, y: Array, *x: Array) -> Array:
    """Return the values that XLA has at poles and infinities, where SciPy's may differ."""
    if name == "gammaln":
        return np.where(x[0] == -np.inf, np.inf, y)
    if name == "psi":
        return np.where(_is_pole(x[0]), np.nan, y)
    if name in ("zeta", "polygamma"):
        order, q = (x[0] + 1, x[1]) if name == "polygamma" else x
        # At a pole, a sum of powers is infinite where the power is even.
        unknown = (_is_pole(q) & (order != 1) & (order % 2 != 0)) | ((q == np.inf) & (order != 1)) | (order == np.inf)
        return np.where(unknown, np.nan, y)
    return y


def _is_pole(x: Array) -> Array:
    return np.asarray((x <= 0) & (x == np.floor(x)))


def pad(x: Array, value: Any, config: Pads) -> Array:
    """Pad every axis by (low, high, interior); negative low and high crop."""
    x = np.asarray(x)
    if not any(map(any, config)):
        return x
    # First the array with its interior gaps and positive margins, then the crop that negative margins mean.
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
    # XLA moves a window inside the array rather than fail, and NumPy would cut it off.
    clamped = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, x.shape, sizes, strict=True)]
    return tuple(slice(s, s + k) for s, k in zip(clamped, sizes, strict=True))


def locations(
    shape: Ints, indices: Array, sizes: Ints, clip: bool, window: Ints, collapsed: Ints, mapped: Ints, batched: Pads
) -> tuple[Array, Array]:
    """Return the location of each entry of the result of a gather in the flat operand, and which windows are valid.

    The updates of a scatter are laid out like the result of a gather. Both arrays broadcast to its shape.

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
    # All locations are offsets into the flat operand, so that one `take` or `put` serves any layout of windows.
    steps = [math.prod(shape[d + 1 :]) for d in range(len(shape))]
    unclamped = indices.astype(np.int64, copy=False)
    starts = np.minimum(np.maximum(unclamped, 0), np.array([shape[d] - sizes[d] for d in mapped], np.int64))
    at = starts.dot(np.array([steps[d] for d in mapped], np.int64))
    along, axes = batched
    if axes and tuple(along) == tuple(axes) == tuple(range(len(axes))):  # they lead, as one axis
        line = np.arange(math.prod(shape[: len(axes)])) * steps[len(axes) - 1]
        at = at + line.reshape(*indices.shape[: len(axes)], *[1] * (indices.ndim - 1 - len(axes)))
    else:
        for d, axis in zip(*batched, strict=True):
            line = np.arange(indices.shape[axis]) * steps[d]
            at = at + line.reshape([-1 if a == axis else 1 for a in range(indices.ndim - 1)])
    inside = np.zeros((), np.int64)
    for d in range(len(shape)):
        if d not in collapsed and d not in batched[0]:
            inside = inside[..., None] + np.arange(sizes[d]) * steps[d]
    rank, outer, inner = indices.ndim - 1 + len(window), iter(indices.shape), iter(inside.shape)
    spread = [1 if p in window else next(outer) for p in range(rank)]
    valid = np.array(True) if clip else (unclamped == starts).all(axis=-1).reshape(spread)
    return at.reshape(spread) + inside.reshape([next(inner) if p in window else 1 for p in range(rank)]), valid


def one_window(shape: Ints, indices: Array, sizes: Ints, clip: bool, mapped: Ints) -> tuple[slice, ...] | None:
    """Return the slices of the only window that there is; None if there are several, or it is not valid."""
    if indices.ndim > 1:
        return None
    starts = [0] * len(shape)
    for d, start in zip(mapped, indices.tolist(), strict=True):
        starts[d] = min(max(start, 0), shape[d] - sizes[d])
        if starts[d] != start and not clip:
            return None
    return tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))


def gather(x: Array, indices: Array, sizes: Ints, clip: bool, missing: Any, *layout: Any) -> Array:
    """Collect windows of x; what lies outside reads as ``missing``."""
    _, collapsed, mapped, _ = layout
    if 0 not in x.shape and (only := one_window(x.shape, indices, sizes, clip, mapped)):
        return x[only].reshape([n for d, n in enumerate(sizes) if d not in collapsed])
    at, valid = locations(x.shape, indices, sizes, clip, *layout)
    if 0 in x.shape:
        return np.full(at.shape, missing, x.dtype)
    entries = x.reshape(-1)[at]
    return entries if valid.all() else np.where(valid, entries, np.asarray(missing, x.dtype))


def scatter(x: Array, indices: Array, updates: Array, combine: np.ufunc | None, clip: bool, *layout: Any) -> Array:
    """Combine windows of updates into a copy of x by a ufunc, or replace by them; drop what lies outside."""
    window, collapsed, mapped, batched = layout
    inner = [d for d in range(x.ndim) if d not in collapsed and d not in batched[0]]
    sizes = [updates.shape[window[inner.index(d)]] if d in inner else 1 for d in range(x.ndim)]
    if 0 not in x.shape and (only := one_window(x.shape, indices, sizes, clip, mapped)):
        out, updates = np.array(x), updates.reshape(sizes)
        out[only] = combine(out[only], updates) if combine else updates
        return out
    at, valid = locations(x.shape, indices, sizes, clip, *layout)
    if not valid.all():
        valid = np.broadcast_to(valid, at.shape)
        at, updates = at[valid], updates[valid]
    out = np.array(x, order="C")
    if out.size and combine:
        combine.at(out.reshape(-1), at.reshape(-1), updates.reshape(-1))
    elif out.size:
        out.reshape(-1)[at.reshape(-1)] = updates.reshape(-1)
    return out


def sort(operands: Sequence[Array], axis: int, keys: int) -> list[Array]:
    """Sort operands together along an axis by the first ``keys`` of them, stably, NaN last."""
    order = np.lexsort(operands[:keys][::-1], axis=axis)
    return [np.take_along_axis(x, order, axis) for x in operands]


def top_k(x: Array, k: int, axis: int, dtype: np.dtype[Any]) -> list[Array]:
    """Return the k largest entries along an axis, ties in order, NaN first, and their locations."""
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
    x: Array, ufunc: np.ufunc, start: Array, config: Pads, extents: Ints, strides: Ints, dilations: Ints
) -> Array:
    """Reduce every window of x, padded by ``config`` with ``start``, with a ufunc."""
    view = windows(pad(x, start, config), extents, strides, dilations)
    return np.asarray(ufunc.reduce(view, tuple(range(x.ndim, 2 * x.ndim)), dtype=x.dtype))


# XLA's four kinds of Fourier transform, by their numbers.
_FFTS = (np.fft.fftn, np.fft.ifftn, np.fft.rfftn, np.fft.irfftn)


def fft(x: Array, kind: int, lengths: Ints, dtype: np.dtype[Any]) -> Array:
    """Transform the last axes of x; ``lengths`` are those of the real array where one side is real."""
    axes = tuple(range(x.ndim - len(lengths), x.ndim))
    return np.asarray(_FFTS[kind](x, tuple(lengths), axes), dtype)


def select_and_scatter_add(source: Array, x: Array, largest: bool, extents: Ints, strides: Ints, pads: Pads) -> Array:
    """Add each source entry to the location of the first largest (smallest) entry of its window of x."""
    config = [(lo, hi, 0) for lo, hi in pads]
    worst = -np.inf if largest else np.inf
    ones = [1] * x.ndim
    view = windows(pad(x, worst, config), extents, strides, ones).reshape(*source.shape, -1)
    flat = np.arange(x.size).reshape(x.shape)
    sources = windows(pad(flat, -1, config), extents, strides, ones).reshape(*source.shape, -1)
    view = np.where(sources < 0, worst, view)
    if np.isnan(view).any():
        best = _first_in_order(view, np.greater_equal if largest else np.less_equal)
    else:
        best = (np.argmax if largest else np.argmin)(view, axis=-1)
    out = np.zeros(x.size, x.dtype)
    np.add.at(out, np.take_along_axis(sources, best[..., None], -1)[..., 0], source)
    return out.reshape(x.shape)


def _first_in_order(view: Array, keeps: np.ufunc) -> Array:
    """Go through the last axis as XLA does: an entry stays chosen while ``keeps`` says so, which NaN never does."""
    best, chosen = np.zeros(view.shape[:-1], np.intp), view[..., 0]
    for k in range(1, view.shape[-1]):
        stays = keeps(chosen, view[..., k])
        best, chosen = np.where(stays, best, k), np.where(stays, chosen, view[..., k])
    return best


def convolve(
    x: Array, kernel: Array, groups: int, batch_groups: int, strides: Ints, config: Pads, dilation: Ints
) -> Array:
    """Correlate x, laid out (N, C, …) and padded by ``config``, with kernel (O, I, …) into (N, O, …).

    A product of matrices for each group: windows in rows, by taps.
    """
    dtype = x.dtype
    if dtype.itemsize == 2:
        x, kernel = x.astype(np.float32), kernel.astype(np.float32)
    x = pad(x, np.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *config])
    n, c = x.shape[:2]
    view = windows(x, (1, 1, *kernel.shape[2:]), (1, 1, *strides), (1, 1, *dilation))
    grid, taps = view.shape[2 : x.ndim], math.prod(kernel.shape[2:])
    n_windows, n_out = math.prod(grid), kernel.shape[0]
    if batch_groups > 1:  # group b of the batch meets group b of the output channels
        split, n = batch_groups, n // batch_groups
        parts = view.reshape(split, n, c, n_windows, taps).transpose(0, 1, 3, 2, 4)
    else:
        split, c = groups, c // groups
        parts = view.reshape(n, split, c, n_windows, taps).transpose(1, 0, 3, 2, 4)
    weights = kernel.reshape(split, n_out // split, c * taps).transpose(0, 2, 1)
    out = np.matmul(parts.reshape(split, n * n_windows, c * taps), weights)
    out = out.reshape(split, n, n_windows, n_out // split).transpose(1, 0, 3, 2)
    return np.asarray(out.reshape(n, n_out, *grid), dtype)

"""Subjects that are wrong in half precision alone, at some multiple of a tile, or for some place in memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

import oracles
from oracles import Case, manual
from oracles.strategies import real, rows, widths
from planted_bugs.pairs import at_point, in_search

HALVES = ("float16", "bfloat16")


def wide(a: Any) -> Any:
    """Return half precision in float32, as a kernel loads it."""
    return a.astype(np.float32) if a.dtype.itemsize == 2 else a


# --- Half precision ---


def square(factor: float = 1.0, name: str = "square in float32") -> Any:
    def forward(z: Any) -> Any:
        return (wide(z) * wide(z)).astype(z.dtype), z

    def backward(z: Any, delta: Any) -> Any:
        return {"z": (2 * factor * wide(z) * wide(delta)).astype(z.dtype)}

    return manual(forward, backward, name=name)


def squares(subject: Any, **options: Any) -> Any:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        return Case(subject, {"z": real(draw(rows()), draw(widths()))}, lambda z: z * z, lambda z: z * z, **options)

    return cases()


for _percent in (5, 20):
    _name = f"gradient_{_percent}_percent_too_large_in_half_precision"
    in_search(_name, square(1 + _percent / 100, _name), square(), squares, dtypes=HALVES)


def bias(accumulates: Callable[[Any], Any], name: str) -> Any:
    """Return z + b; the gradient of b is a sum over the rows."""
    return manual(
        lambda z, b: ((wide(z) + wide(b)).astype(z.dtype), None),
        lambda _, delta: {"z": delta.copy(), "b": accumulates(delta).astype(delta.dtype)},
        name=name,
    )


def sum_in_own_dtype(delta: Any) -> Any:
    total = np.zeros(delta.shape[1:], delta.dtype)
    for row in delta:
        total = total + row
    return total


def biases(subject: Any) -> Any:
    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        n = draw(widths(8))
        primals = {"z": real(draw(rows()), n), "b": real(n)}
        return Case(subject, primals, lambda z, b: z + b, lambda z, b: z + b)

    return cases()


in_search(
    "sum_of_rows_in_bfloat16",
    bias(sum_in_own_dtype, "sum in bfloat16"),
    bias(lambda delta: wide(delta).sum(0), "sum in float32"),
    biases,
    dtypes=("bfloat16",),
    verdict="unstable",
)


# --- Tiles ---


def tiled(condition: Callable[[int], bool] | None = None, axis: int = 1, name: str = "square in tiles of 48") -> Any:
    """Return z², whose gradient is halved in the last tile of 48 where a condition on the extent of the axis holds."""

    def backward(z: Any, delta: Any) -> Any:
        dz, extent = 2 * z * delta, z.shape[axis]
        if condition is not None and condition(extent):
            last = (extent - 1) // 48 * 48
            dz[(slice(None),) * axis + (slice(last, None),)] *= 0.5
        return {"z": dz}

    return manual(lambda z: (z * z, z), backward, name=name)


TILES: dict[str, tuple[Callable[[int], bool], int]] = {
    "beyond_the_first_tile": (lambda n: n > 48, 1),
    "in_a_last_tile_of_one_entry": (lambda n: n > 48 and n % 48 == 1, 1),
    "in_half_of_a_last_tile": (lambda n: n % 48 == 24, 1),
    "at_a_multiple_of_the_tile": (lambda n: n > 48 and n % 48 == 0, 1),
    "at_one_whole_tile": (lambda n: n == 48, 1),
    "in_half_of_a_last_tile_of_rows": (lambda n: n % 48 == 24, 0),
    "at_a_multiple_of_the_tile_of_rows": (lambda n: n > 48 and n % 48 == 0, 0),
}
for _where, (_condition, _axis) in TILES.items():
    _name = f"wrong_{_where}"
    in_search(
        _name,
        tiled(_condition, _axis, _name),
        tiled(),
        lambda subject: squares(subject, blocks=(16, 48)),
        deep=_axis == 0,
    )


# --- Memory ---


def plain(z: Any) -> Any:
    return z


def from_start_of_base(z: Any) -> Any:
    """Read an array from the start of the memory that it is a slice of."""
    return z if z.base is None or not z.flags.c_contiguous else z.base.ravel()[: z.size].reshape(z.shape)


def from_aligned_address(z: Any) -> Any:
    """Read an array from the boundary of 16 bytes before its first entry."""
    if not z.flags.c_contiguous or not z.size:
        return z
    memory = (ctypes.c_double * z.size).from_address(z.ctypes.data // 16 * 16)
    return np.ctypeslib.as_array(memory).reshape(z.shape).copy()


def reading(read: Callable[[Any], Any], read_delta: Callable[[Any], Any], name: str) -> Any:
    return manual(lambda z: (read(z) ** 2, z), lambda z, delta: {"z": 2 * z * read_delta(delta)}, name=name)


POINT = {"z": np.linspace(-2.0, 3.0, 15).reshape(3, 5)}
SQUARE = [oracles.torch_autograd(lambda z: z**2)]
for _read in (from_start_of_base, from_aligned_address):
    for _name, _reads in (("a_primal", (_read, plain)), ("a_cotangent", (plain, _read))):
        _label = f"{_name}_is_read_{_read.__name__}"
        at_point(_label, reading(*_reads, _label), reading(plain, plain, "square"), POINT, SQUARE)
        in_search(
            f"{_label}_in_a_search",
            reading(*_reads, _label),
            reading(plain, plain, "square"),
            squares,
            refused_by="layout_independent",
        )


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Any) -> Any:
        ctx.save_for_backward(z)
        return z**2

    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        return 2 * ctx.saved_tensors[0] * delta


class FromStorage(Square):
    """Return z², read from the start of the storage of a tensor."""

    @staticmethod
    def forward(ctx: Any, z: Any) -> Any:
        ctx.save_for_backward(z)
        return z.as_strided(z.size(), z.stride(), 0) ** 2


class DeltaFromStorage(Square):
    @staticmethod
    def backward(ctx: Any, delta: Any) -> Any:
        return Square.backward(ctx, delta.as_strided(delta.size(), delta.stride(), 0))


for _wrong in (FromStorage, DeltaFromStorage):
    at_point(f"torch_{_wrong.__name__}", oracles.torch_function(_wrong), oracles.torch_function(Square), POINT, SQUARE)


def padded_tile(write_all: bool, name: str) -> Any:
    """Return z²; its gradient is the beginning of a buffer of whole tiles of 8, whose last tile may not be written."""

    def backward(z: Any, delta: Any) -> Any:
        n = z.shape[1]
        buffer = np.empty((z.shape[0], -(-n // 8) * 8), z.dtype)
        written = n if write_all else n // 8 * 8 or n
        buffer[:, :written] = (2 * z * delta)[:, :written]
        return {"z": np.ascontiguousarray(buffer[:, :n])}

    return manual(lambda z: (z * z, z), backward, name=name)


at_point(
    "the_last_tile_of_a_buffer_is_not_written",
    padded_tile(False, "last tile not written"),
    padded_tile(True, "all tiles written"),
    {"z": np.linspace(-2.0, 3.0, 39).reshape(3, 13)},
    SQUARE,
)

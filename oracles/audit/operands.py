"""What a comparison is given, as NumPy arrays, and mutants back in the type of the operand."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from oracles.audit.mutants import Array, Entries
from oracles.constants import AUDIT_ENTRIES


class Operand(NamedTuple):
    """An operand of a comparison: its values, and how an array becomes an operand of the same type."""

    values: Array
    back: Callable[[Array], object]
    dtype: str
    rounding: float  # the unit roundoff u; 0 for integers


class Question(NamedTuple):
    """A comparison that can be repeated: what the mutants are made of, and both operands of the repeated one."""

    entries: Entries
    to_actual: Callable[[Array], object]
    expected: object
    dtype: str
    rounding: float


def operand_of(value: object) -> Operand | None:
    """Return a number, a list of numbers, an array of NumPy or JAX or a tensor as operand; ``None`` for all else.

    Subclasses of arrays, such as masked arrays and arrays with units, are none: their functions have their own rules.
    """
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and type(value) in (torch.Tensor, torch.nn.Parameter):
        return _of_tensor(torch, value)
    if jax is not None and isinstance(value, jax.Array):
        value = np.asarray(value)
    if type(value) is np.ndarray or isinstance(value, np.generic):
        dtype = value.dtype
        return _of_array(np.asarray(value), lambda mutant: mutant.astype(dtype)[()])
    if type(value) in (bool, int, float, complex):
        kind: Callable[[Any], object] = type(value)
        return _of_array(np.asarray(value), lambda mutant: kind(mutant.item()))
    if type(value) in (list, tuple) and value:
        sequence: Callable[[Any], object] = type(value)
        return _of_array(np.asarray(value), lambda mutant: sequence(mutant.tolist()))
    return None


def _of_array(values: Array, back: Callable[[Array], object]) -> Operand | None:
    name = values.dtype.name
    if values.dtype.kind in "iub":
        return Operand(values, back, name, 0.0)
    if values.dtype.kind in "fc":
        return Operand(values, back, name, float(np.finfo(values.dtype).eps) / 2)
    if name == "bfloat16":
        return Operand(values.astype(np.float32), back, name, 2.0**-8)
    return None


def _of_tensor(torch: Any, value: Any) -> Operand | None:
    if value.layout != torch.strided or value.is_quantized:
        return None
    dtype, device, tensor = value.dtype, value.device, value.detach().cpu().resolve_conj().resolve_neg()
    is_half = dtype == torch.bfloat16
    values = (tensor.float() if is_half else tensor).numpy()
    real = dtype.is_floating_point or dtype.is_complex
    rounding = float(torch.finfo(dtype).eps) / 2 if real else 0.0
    name = str(dtype).removeprefix("torch.")
    return Operand(values, lambda mutant: torch.from_numpy(np.array(mutant)).to(device, dtype), name, rounding)


def question(actual: object, expected: object, *, may_sample: bool = True) -> Question | None:
    """Return what is asked again, on copies; ``None`` where no mutant of the actual value can be made.

    Of more than `AUDIT_ENTRIES` entries a sample is compared, with the largest one in it: no relative change is
    refused anywhere if it is accepted there. The expected operand is broadcast for it.
    """
    first, second = operand_of(actual), operand_of(expected)
    if first is None or first.values.dtype.kind == "b":
        return None
    values = first.values
    shape, index = values.shape, np.arange(values.size)
    if values.size > AUDIT_ENTRIES:
        if not may_sample or second is None or np.broadcast_shapes(shape, second.values.shape) != shape:
            return None
        magnitudes = np.abs(values)
        largest = np.argmax(np.where(np.isfinite(magnitudes), magnitudes, 0))
        index = np.unique([*np.linspace(0, values.size - 1, AUDIT_ENTRIES).astype(int), largest])
        locations = np.unravel_index(index, shape)
        expected = second.back(np.broadcast_to(second.values, shape)[locations])
        shape = index.shape
    locations = np.unravel_index(index, values.shape) if values.ndim else ()
    wide = np.complex128 if values.dtype.kind == "c" else np.float64
    square = values.ndim == 2 and values.shape[0] == values.shape[1]
    entries = Entries(
        np.atleast_1d(values[locations].astype(wide)),
        locations[0] if values.ndim else index,
        values.T[locations].astype(wide) if square else None,
        _scale(second if second is not None else first),
        values.dtype.kind,
        _expected_entries(second, values.shape, locations),
    )
    rounding = max(first.rounding, second.rounding if second is not None else 0.0)

    def to_actual(mutant: Array) -> object:
        return first.back(_narrowed(mutant, values.dtype).reshape(shape))

    return Question(entries, to_actual, expected, first.dtype, rounding)


def _expected_entries(second: Operand | None, shape: tuple[int, ...], locations: Any) -> Array | None:
    """Return the expected entries at the locations of the actual ones; ``None`` where that has another shape."""
    if second is None:
        return None
    try:
        expected = np.broadcast_to(second.values, shape)
    except ValueError:
        return None
    return np.atleast_1d(expected[locations].astype(np.complex128 if expected.dtype.kind == "c" else np.float64))


def _narrowed(mutant: Array, dtype: np.dtype[Any]) -> Array:
    return (np.rint(mutant) if dtype.kind in "iu" else mutant).astype(dtype)


def _scale(operand: Operand) -> float:
    magnitudes = np.abs(operand.values)
    finite = magnitudes[np.isfinite(magnitudes)]
    return float(finite.max()) if finite.size else 0.0


def is_same(actual: object, expected: object) -> bool:
    """Return whether both operands are one object; numbers and text are not meant, such as ``np.pi``."""
    return actual is expected and not isinstance(actual, bool | int | float | complex | str | None)

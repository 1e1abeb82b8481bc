"""Backends: conversion between the judge's NumPy arrays and the arrays that a subject takes.

A torch tensor on the CPU shares the memory and the strides of the array that it is made from. So the judge sees what a
subject writes into its arguments, and catches a kernel that assumes contiguous arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import ml_dtypes
import numpy as np

from oracles.backends.devices import (
    CPU,
    Device,
    Elsewhere,
    current_device,
    current_placement,
    device_of_array,
    is_cupy_array,
    jax_default_device,
    jax_device,
    wait,
)
from oracles.constants import ALIGNED_BYTES, FILLED_GAPS
from oracles.lazy_modules import Tensor, cupy, jax, jnp, torch
from oracles.outputs import Outputs
from oracles.rule import (
    EXTENSION_FLOATS,
    Array,
    Cotangents,
    Delta,
    Evaluate,
    InvalidInput,
    Output,
    Pullback,
    Runtime,
    is_floating,
)

ArrayKind: TypeAlias = Literal["numpy", "torch", "jax", "cupy"]
ForeignArray: TypeAlias = Any  # an array of the subject's own framework, for which no types are known


@dataclass(frozen=True)
class Backend:
    """Conversion between NumPy arrays and the arrays of one framework.

    Attributes:
        from_numpy: converts a NumPy array to an array of the framework.
        to_numpy: converts back; returns anything that is not an array of the framework as it is, and `Elsewhere` for
            an array on another device than the arguments.
        context: the context in which code on the framework's arrays runs.
        runtime: what executes that code.
    """

    from_numpy: Callable[[Array], ForeignArray]
    to_numpy: Callable[[ForeignArray], ForeignArray]
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    runtime: Runtime = Runtime.NUMPY

    def primals_from_numpy(self, primals: Mapping[str, Array]) -> dict[str, ForeignArray]:
        """Convert every array of a mapping; one array as two primals becomes one array of the framework."""
        converted: dict[int, ForeignArray] = {}
        for array in primals.values():
            if id(array) not in converted:
                converted[id(array)] = self.from_numpy(array)
        return {name: converted[id(array)] for name, array in primals.items()}

    def delta_from_numpy(self, delta: Delta) -> ForeignArray:
        """Convert a cotangent, or each of a tuple of them."""
        return tuple(map(self.from_numpy, delta)) if isinstance(delta, tuple) else self.from_numpy(delta)

    def tree_to_numpy(self, tree: ForeignArray) -> ForeignArray:
        """Convert an output, or cotangents, in a tuple, a list or a mapping; leave anything but an array as it is."""
        if isinstance(tree, Outputs):
            return tree.like([self.to_numpy(part) for part in tree])
        if isinstance(tree, Mapping):
            return {name: self.to_numpy(array) for name, array in tree.items()}
        return type(tree)(map(self.to_numpy, tree)) if type(tree) in (tuple, list) else self.to_numpy(tree)


def backend_for(arrays: ArrayKind, device: Device = None, dtypes: Sequence[str] | None = None) -> Backend:
    """Return the backend of a kind of arrays.

    Args:
        arrays: "numpy", "torch", "jax" or "cupy".
        device: the device of the arrays ("cuda", "cuda:1"), which `on_device` selects; here only its name is checked.
        dtypes: the only floating dtypes that the subject accepts, as compiled code does; all by default.

    Raises:
        InvalidInput: for another kind, or a device of NumPy's arrays.
    """
    if device is not None and arrays == "numpy":
        raise InvalidInput(
            f"device: expected arrays='torch', 'jax' or 'cupy' with device={device!r}, got arrays={arrays!r}.\n"
            f"Fix:    arrays='torch', device={device!r}"
        )
    if arrays == "numpy":
        backend = Backend(_unchanged, _unchanged)
    elif arrays == "torch":
        backend = Backend(tensor, _torch_to_numpy, autograd_enabled, Runtime.TORCH)
    elif arrays == "jax":
        backend = Backend(_jax_from_numpy, _jax_to_numpy, _x64, Runtime.JAX)
    elif arrays == "cupy":
        backend = Backend(_cupy_from_numpy, _cupy_to_numpy, runtime=Runtime.CUPY)
    else:
        raise InvalidInput(f"arrays: expected 'numpy', 'torch', 'jax' or 'cupy', got {arrays!r}")
    return backend if dtypes is None else _restricted_to(tuple(dtypes), backend)


def _unchanged(array: ForeignArray) -> ForeignArray:
    return array


def _restricted_to(dtypes: tuple[str, ...], backend: Backend) -> Backend:
    """Return a backend that refuses other floating dtypes: compiled code would read their bits as garbage."""
    # Code that accepts some dtypes only is compiled code, so it accepts no arrays of objects either.
    runtime = Runtime.OPAQUE if backend.runtime is Runtime.NUMPY else backend.runtime
    return replace(backend, from_numpy=partial(_from_numpy_of, dtypes, backend), runtime=runtime)


def _from_numpy_of(dtypes: tuple[str, ...], backend: Backend, array: Array) -> ForeignArray:
    if array.dtype.kind not in "iub" and array.dtype.name not in dtypes:
        raise InvalidInput(f"dtypes: the subject accepts {', '.join(dtypes)}, got {array.dtype.name}")
    return backend.from_numpy(np.require(array, requirements="A"))


def tensor(array: Array) -> Tensor:
    """Return a torch tensor of an array's memory and strides, or of a copy where torch cannot share the memory.

    Torch accepts neither negative strides nor read-only memory, so such arrays are copied; an axis of stride 0 keeps
    its stride, and an array of `shifted` becomes a tensor with a storage offset. On a device the tensor is a copy with
    the same strides and offset, which is watched for what the subject writes into it.
    """
    array = np.asarray(array)
    if array.dtype.kind == "O":
        raise InvalidInput("torch tensors hold no objects")
    if any(s < 0 or s % array.itemsize for s in array.strides):
        source = np.array(array, order="C", copy=True)
    else:
        source = array if array.flags.writeable else copied(array)
    memory = source.base
    if isinstance(memory, np.ndarray) and is_shifted(source) and _is_whole(memory, source.dtype):
        first = (_address(source) - _address(memory)) // source.itemsize
        result = of_memory(memory)[first : first + source.size].view(source.shape)
    else:
        result = of_memory(source)
    placement = current_placement()
    if placement is None or placement.is_cpu:
        return result
    result = copied_to(placement.device, result)
    placement.watch(array, partial(array_of, result))
    return result


def copied_to(device: str, tensor: Tensor) -> Tensor:
    """Copy a tensor with the memory between its entries, and as much behind them as a contiguous tensor would have.

    So code that reads it as contiguous stays inside its memory, as on the CPU, and its answer shows it.
    """
    entries = tensor.untyped_storage().nbytes() // tensor.itemsize
    memory = tensor.as_strided((entries,), (1,), 0).to(device)
    beyond = tensor.storage_offset() + tensor.numel() - entries
    if beyond > 0:
        filling = torch.zeros(beyond, dtype=memory.dtype, device=device)
        memory = torch.cat(
            [memory, filling + torch.nan if tensor.is_floating_point() and tensor.itemsize > 1 else filling]
        )
    return memory.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _is_whole(memory: Array, dtype: np.dtype[Any]) -> bool:
    """Return whether memory is a writeable vector without gaps of this dtype."""
    return memory.ndim == 1 and memory.dtype == dtype and memory.flags.c_contiguous and memory.flags.writeable


def _address(array: Array) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def of_memory(array: Array) -> Tensor:
    """Return a torch tensor that shares an array's memory."""
    if array.dtype.name in EXTENSION_FLOATS:  # torch.from_numpy knows none of them: pass their bits
        return torch.from_numpy(array.view(f"i{array.itemsize}")).view(getattr(torch, array.dtype.name))
    try:
        return torch.from_numpy(array)
    except TypeError:
        raise _no_such_dtype("torch", array) from None


def _no_such_dtype(framework: str, array: Array) -> InvalidInput:
    return InvalidInput(
        f"arrays: {framework} has no dtype {array.dtype.name}.\n"
        "Fix: pass the primals in one that it has:    a.astype(np.float64)"
    )


def shifted(array: Array) -> Array:
    """Return the same values in contiguous memory that begins one entry after a boundary of `ALIGNED_BYTES`.

    So does a slice `x[1:]`. Code that reads its arguments from the start of their storage, or several entries at a
    time, is wrong for it.
    """
    memory = np.empty(array.size + 1, array.dtype)
    memory[:1] = np.zeros((), array.dtype) if array.dtype.kind in "iub" else np.nan
    result = memory[1:].reshape(array.shape)
    result[...] = array
    return result


def is_shifted(array: Array) -> bool:
    """Return whether an array lies in memory as `shifted` leaves it: contiguous, after no boundary of 16 bytes."""
    if array.base is None or not array.size or not array.flags.c_contiguous:
        return False
    return bool(_address(array) % ALIGNED_BYTES)


def copied(array: Array) -> Array:
    """Copy an array into writeable memory of its own, with its strides: repeated and reversed axes stay so.

    The memory between its entries holds NaN, and reaches as far as a contiguous array would, so that a subject which
    reads it as contiguous stays inside, and its answer shows it.
    """
    if type(array) is not np.ndarray or array.dtype.kind == "O":  # balls, perturbed arrays: a subclass copies itself
        return array.copy(order="K")
    if is_shifted(array):
        return shifted(array)
    if not array.size or array.flags.c_contiguous or any(s % array.itemsize for s in array.strides):
        return np.array(array, order="C", copy=True)
    reach = [s // array.itemsize * (n - 1) for s, n in zip(array.strides, array.shape, strict=True)]
    first = -sum(r for r in reach if r < 0)
    entries = max(first + sum(r for r in reach if r > 0) + 1, array.size)
    memory = np.zeros(entries, array.dtype)  # not written where it need not be: a column of a large matrix reaches far
    if array.dtype.kind not in "iub" and entries <= FILLED_GAPS * array.size:
        memory[...] = np.nan
    strided: Array = np.ndarray(array.shape, array.dtype, memory, first * array.itemsize, array.strides)
    strided[...] = array
    return strided


def array_of(value: ForeignArray) -> ForeignArray:
    """Return a torch tensor as the NumPy array of its memory (a copy from another device); anything else as it is.

    A tensor of a dtype that NumPy lacks stays a tensor, which the judge reports as the subject's.
    """
    if is_cupy_array(value):
        return cupy.asnumpy(value)
    if not hasattr(value, "requires_grad"):
        return value
    value = value.detach().cpu().resolve_conj().resolve_neg()
    if value.layout is not torch.strided:  # the gradient of a sparse embedding
        value = value.to_dense()
    name = str(value.dtype).removeprefix("torch.")
    if name in EXTENSION_FLOATS:
        bits = value.view(torch.int16 if value.itemsize == 2 else torch.int8)
        return bits.numpy(force=True).view(getattr(ml_dtypes, name))
    try:
        return value.numpy(force=True)  # a gradient that torch knows to be zero has no memory of its own
    except TypeError:
        return value


def _torch_to_numpy(value: ForeignArray) -> ForeignArray:
    wait()
    device = str(value.device) if hasattr(value, "requires_grad") else _of_numpy(value)
    return _required_there(array_of(value), device, "torch.as_tensor({}, device=" + repr(current_device()) + ")")


def _of_numpy(value: ForeignArray) -> str | None:
    """Return where a NumPy array lies that a subject on a device returned; ``None`` for anything else."""
    return CPU if isinstance(value, np.ndarray) else None


def _required_there(values: ForeignArray, device: str | None, moving: str) -> ForeignArray:
    """Return the values of an array that lies on a device; `Elsewhere` if the arguments lie on another one."""
    expected = current_device()
    if None in (device, expected) or device == expected:
        return values
    return Elsewhere(values, str(device), str(expected), moving)


def _cupy_from_numpy(array: Array) -> ForeignArray:
    """Copy an array to the current device with its strides, and with the memory that these reach."""
    array = np.asarray(array)
    if array.dtype.kind == "O":
        raise InvalidInput("CuPy's arrays hold no objects")
    source = copied(array)  # in memory of its own, which is copied as a whole
    try:
        if source.flags.c_contiguous and not is_shifted(source):
            result = cupy.asarray(source)
        else:
            memory = np.asarray(source.base)
            first = (_address(source) - _address(memory)) // source.itemsize
            memory = cupy.asarray(memory)
            result = cupy.lib.stride_tricks.as_strided(memory[first:], source.shape, source.strides)
    except TypeError:
        raise _no_such_dtype("CuPy", array) from None
    placement = current_placement()
    if placement is not None:
        placement.watch(array, partial(cupy.asnumpy, result))
    return result


def _cupy_to_numpy(value: ForeignArray) -> ForeignArray:
    wait()
    if not is_cupy_array(value):
        return _required_there(value, _of_numpy(value), "cupy.asarray({})")
    return _required_there(cupy.asnumpy(value), device_of_array(value), "cupy.asarray({})")


def _jax_from_numpy(array: Array) -> ForeignArray:
    with _x64():
        try:
            converted = jnp.asarray(array)
        except TypeError:
            raise _no_such_dtype("JAX", array) from None
    if converted.dtype != array.dtype:  # JAX takes a longdouble for a float64 in silence
        raise _no_such_dtype("JAX", array)
    return converted


def _jax_to_numpy(value: ForeignArray) -> ForeignArray:
    if not hasattr(value, "addressable_shards"):
        return _required_there(value, _of_numpy(value), "jnp.asarray({})")
    expected = current_device()
    is_there = expected is None or value.devices() == {jax_device(expected)}
    device = expected if is_there else ", ".join(sorted(map(str, value.devices())))
    return _required_there(np.asarray(value), device, "jax.device_put({}, delta.device)")


@contextmanager
def autograd_enabled() -> Iterator[None]:
    """Let torch record gradients, also where the caller is under `torch.no_grad` or `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def with_autograd(evaluate: Evaluate) -> Evaluate:
    """Return an evaluation that runs, its pullback too, where torch records gradients."""

    def evaluate_with_autograd(**primals: Array) -> tuple[Output, Pullback]:
        with autograd_enabled():
            y, pullback = evaluate(**primals)

        def pullback_with_autograd(delta: Delta) -> Cotangents:
            with autograd_enabled():
                return pullback(delta)

        return y, pullback_with_autograd

    return evaluate_with_autograd


@contextmanager
def _x64() -> Iterator[None]:
    # Without it JAX turns float64 into float32 in silence.
    with jax.enable_x64(True), jax_default_device():
        yield


def numpy_array(name: str, value: object) -> Array:
    """Return a user's array as a NumPy array of floating, integer or boolean dtype.

    Raises:
        InvalidInput: if it has another dtype, or none.
    """
    if str(getattr(value, "device", "")) == "meta":
        raise InvalidInput(f"{name}: expected an array, got a tensor on 'meta', which has no values")
    try:
        array = np.asarray(array_of(value))
    except ValueError as error:  # nested lists of different lengths
        raise InvalidInput(f"{name}: expected an array, got {value!r:.60}: {error}") from None
    if array.dtype.kind == "c":
        raise InvalidInput(
            f"{name}: expected real numbers, got dtype {array.dtype}.\nFix:    {name.partition('[')[0]}.real"
        )
    if array.dtype.kind not in "iub" and not is_floating(array.dtype):
        raise InvalidInput(f"{name}: expected a floating, integer or boolean array, got dtype {array.dtype}")
    return array

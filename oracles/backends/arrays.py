"""Where a subject's arrays live: NumPy, torch on any device, or JAX; and the way there and back.

The judge speaks NumPy. A torch tensor on the CPU shares the memory of the array that it is made from, strides
included, so that what a subject writes into its arguments is seen, and so is a kernel that takes one array's strides
for another's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from oracles.rule import Array, InvalidInput

Framework: TypeAlias = Literal["numpy", "torch", "jax"]


@dataclass(frozen=True)
class Backend:
    """Conversion between NumPy arrays and the arrays of one framework.

    Attributes:
        from_numpy: converts a NumPy array to an array of the framework.
        to_numpy: converts back; returns anything that is no array of the framework as it is.
        context: the context in which code on the framework's arrays runs.
        framework: as in `Rule.framework`: "" for NumPy.
    """

    from_numpy: Callable[[Array], Any]
    to_numpy: Callable[[Any], Any]
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    framework: str = ""

    def from_numpy_all(self, primals: Mapping[str, Array]) -> dict[str, Any]:
        """Convert every array of a mapping from NumPy."""
        return {name: self.from_numpy(array) for name, array in primals.items()}


def backend_for(arrays: Framework, device: Any = None, dtypes: tuple[str, ...] | None = None) -> Backend:
    """Return where a subject's arrays live.

    Args:
        arrays: "numpy", "torch" or "jax".
        device: of torch tensors, as torch names it ("cuda", "cuda:1"); the CPU by default.
        dtypes: the only floating dtypes that the subject may be fed, as for compiled code; all by default.

    Raises:
        InvalidInput: for another framework, or a device without torch.
    """
    if device is not None and arrays != "torch":
        raise InvalidInput(f"device: expected arrays='torch' beside device={device!r}, got arrays={arrays!r}")
    if arrays == "numpy":
        found = Backend(_same, _same)
    elif arrays == "torch":
        found = Backend(lambda a: tensor(a, device), array_of, framework="torch")
    elif arrays == "jax":
        found = Backend(_jax_array, lambda a: np.asarray(a) if hasattr(a, "addressable_shards") else a, _x64, "jax")
    else:
        raise InvalidInput(f"arrays: expected 'numpy', 'torch' or 'jax', got {arrays!r}")
    return found if dtypes is None else _only(found, dtypes)


def _same(array: Any) -> Any:
    return array


def _only(free: Backend, dtypes: tuple[str, ...]) -> Backend:
    """Feed a subject nothing but these floating dtypes: another layout of bits would be read as garbage."""

    def from_numpy(array: Array) -> Any:
        if array.dtype.kind not in "iub" and array.dtype.name not in dtypes:
            raise InvalidInput(f"dtypes: the subject takes {', '.join(dtypes)}, got {array.dtype.name}")
        return free.from_numpy(np.require(array, requirements="A"))

    return Backend(from_numpy, free.to_numpy, free.context, free.framework or "compiled")


def tensor(array: Array, device: Any = None) -> Any:
    """Return a torch tensor of an array's memory and strides; a copy where torch cannot share it.

    Torch takes no negative strides and no read-only memory: those are copied, stride 0 kept as it is.
    """
    import torch

    array = np.asarray(array)
    if array.dtype.kind == "O":
        raise InvalidInput("torch tensors hold no objects")
    kept = array.flags.writeable and all(s >= 0 and s % array.itemsize == 0 for s in array.strides)
    source = array if kept else copied(array)
    if array.dtype.name == "bfloat16":
        found = torch.from_numpy(source.view(np.int16)).view(torch.bfloat16)
    else:
        found = torch.from_numpy(source)
    if not kept and 0 in array.strides and array.size:
        repeated = tuple(slice(0, 1) if s == 0 else slice(None) for s in array.strides)
        found = found[repeated].expand(array.shape)
    if device is None or torch.device(device).type == "cpu":
        return found
    moved = torch.empty_strided(found.shape, found.stride(), dtype=found.dtype, device=device)
    return found.to(device) if 0 in found.stride() else moved.copy_(found)


def copied(array: Array) -> Array:
    """Copy an array into writeable memory of its own, with its strides where those are of a plain slice."""
    if type(array) is not np.ndarray or array.dtype.kind == "O":  # balls, shaken numbers: they stay what they are
        return array.copy(order="K")
    steps = [s // array.itemsize for s in array.strides]
    if array.size and all(s > 0 for s in steps) and not array.flags.c_contiguous:
        room = np.zeros(1 + sum(s * (n - 1) for s, n in zip(steps, array.shape, strict=True)), array.dtype)
        like = np.lib.stride_tricks.as_strided(room, array.shape, array.strides)
        like[...] = array
        return like
    return np.array(array, order="C", copy=True)


def array_of(value: Any) -> Any:
    """Return a torch tensor as the NumPy array of its memory (a copy from another device); anything else as it is."""
    if not hasattr(value, "requires_grad"):
        return value
    import torch

    value = value.detach().cpu().resolve_conj().resolve_neg()
    if value.dtype is torch.bfloat16:
        import ml_dtypes

        return value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return value.numpy()


def _jax_array(array: Array) -> Any:
    import jax.numpy as jnp

    with _x64():
        return jnp.asarray(array)


@contextmanager
def _x64() -> Iterator[None]:
    import jax

    with jax.enable_x64(True):
        yield


def numpy_array(name: str, value: Any) -> Array:
    """Return what a user handed in as a NumPy array of floating, integer or boolean dtype.

    Raises:
        InvalidInput: for anything else; says what came.
    """
    array = np.asarray(array_of(value))
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise InvalidInput(f"{name}: expected a floating, integer or boolean array, got dtype {array.dtype}")
    return array

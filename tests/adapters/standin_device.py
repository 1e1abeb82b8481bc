"""A second device for torch on a machine that has none: its memory is the CPU's, and torch takes it for another device.

Each operation runs on the CPU, on tensors that share the memory of its arguments. Tensors of two devices in one
operation raise, as on a GPU. torch has no public interface for a device in Python, so this uses private ones.
"""

import ctypes
from types import SimpleNamespace

import torch
from torch.utils import backend_registration, dlpack
from torch.utils._pytree import tree_leaves, tree_map

NAME = "standin"
DEVICE = f"{NAME}:0"
CPU_KIND, EXTENSION_KIND = 1, 12  # of DLPack

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


class Calls:
    """What has happened on the device: the names of its operations, and how often it was synchronised.

    Attributes:
        operations: the names of the operations.
        dtypes: the dtypes of their arguments.
        synchronised: how often the device was synchronised.
        queue: work in another stream, which is done when the device is synchronised.
        pending: the error of a kernel, which shows when the device is synchronised.
        lost: whether each synchronisation fails from now on.
    """

    def __init__(self):
        self.reset()

    def reset(self):
        self.operations, self.dtypes, self.queue = [], set(), []
        self.synchronised, self.pending, self.lost = 0, None, False

    def synchronize(self, device=None):
        self.synchronised += 1
        queue, self.queue = self.queue, []
        for work in queue:
            work()
        error, self.pending = self.pending, None
        if error or self.lost:
            self.lost = self.lost or "illegal" in str(error)
            raise RuntimeError(str(error or "an illegal memory access was encountered"))


CALLS = Calls()


def _as_kind(tensor, kind):
    """The same memory as a tensor on another device."""
    capsule = dlpack.to_dlpack(tensor.detach())
    # struct { void *data; struct { int32 type; int32 id; } device; … }
    ctypes.c_int32.from_address(_pointer_of(capsule, b"dltensor") + ctypes.sizeof(ctypes.c_void_p)).value = kind
    return dlpack.from_dlpack(capsule)


def on_cpu(value):
    is_there = isinstance(value, torch.Tensor) and value.device.type == NAME
    return _as_kind(value, CPU_KIND) if is_there else value


def _back(value):
    is_here = isinstance(value, torch.Tensor) and value.device.type == "cpu"
    return _as_kind(value, EXTENSION_KIND) if is_here else value


def _run(operation, *args, **kwargs):
    name = operation.overloadpacket.__name__
    if name == "_copy_from":
        on_cpu(args[1]).copy_(on_cpu(args[0]))
        return args[1]
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    if any(x.device.type != NAME and x.dim() for x in tensors):
        raise RuntimeError(f"Expected all tensors to be on the same device, in {operation}")
    CALLS.operations.append(name)
    CALLS.dtypes.update(x.dtype for x in tensors)
    device = kwargs.get("device")
    kwargs = {n: torch.device("cpu") if n == "device" and v is not None else v for n, v in kwargs.items()}
    result = operation(*tree_map(on_cpu, args), **tree_map(on_cpu, kwargs))
    if name == "_to_copy" and device is not None and device.type == "cpu":
        return result
    written = [
        args[i] if i < len(args) else kwargs.get(a.name)
        for i, a in enumerate(operation._schema.arguments)
        if a.alias_info is not None and a.alias_info.is_write
    ]
    written = [x for x in written if x is not None]
    return (written[0] if len(written) == 1 else tuple(written)) if written else tree_map(_back, result)


_KEPT = []


def install():
    """Register the device with torch, once in a process."""
    if not _KEPT:
        module = SimpleNamespace(
            synchronize=CALLS.synchronize,
            is_available=lambda: True,
            device_count=lambda: 1,
            current_device=lambda: 0,
            _is_in_bad_fork=lambda: False,
            manual_seed_all=lambda seed: None,
        )
        backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=module)
        _KEPT.append(torch.library.Library("_", "IMPL"))
        _KEPT[0].fallback(_run, "PrivateUse1")
    CALLS.reset()
    return DEVICE

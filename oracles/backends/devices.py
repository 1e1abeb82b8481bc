"""Devices: where the arrays of a subject and of its references lie while they are evaluated.

The judge compares NumPy arrays. `on_device` returns a rule whose arrays lie on a device during each of its calls: its
arguments are copied there, its results back. After each call the device is synchronised, so that an error of a kernel
belongs to the call that launched it, and what the subject wrote into its arguments is written into the judge's arrays.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from oracles.lazy_modules import Tensor, cupy, jax, torch
from oracles.rule import (
    Array,
    Cotangents,
    Delta,
    Evaluate,
    EvaluatePerturbed,
    InvalidInput,
    Output,
    Perturbation,
    Primals,
    Pullback,
    Rule,
    Runtime,
)
from oracles.structure import wrapped

Device: TypeAlias = Any  # "cuda", "cuda:1", a torch.device; None where nothing is said
T = TypeVar("T")
CPU, CUDA = "cpu", "cuda"


class DeviceLost(RuntimeError):
    """A kernel has failed in such a way that this process cannot use the device any more; ``__cause__`` is its error.

    An illegal access to memory is of this kind.

    Attributes:
        isolated: whether it happened in a process of the subject's own, which is replaced.
    """

    isolated = False


@dataclass(frozen=True, eq=False)
class Elsewhere:
    """An array that a subject returned on another device than its arguments; the judge refuses it.

    Attributes:
        values: its entries.
        device: where it lies.
        expected: where it must lie.
        moving: the line that moves it there, "{}.to('cuda:0')".
    """

    values: Any
    device: str
    expected: str
    moving: str

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        return np.asarray(self.values, dtype)


@dataclass
class Placement:
    """The device of one evaluation of a rule and of its pullbacks.

    Attributes:
        device: its name, "cuda:0".
        runtime: what computes there.
    """

    device: str
    runtime: Runtime
    _copies: list[tuple[Array, Callable[[], Array]]] = field(default_factory=list)

    @property
    def is_cpu(self) -> bool:
        """Whether arrays stay where NumPy has them."""
        return self.device == CPU

    def watch(self, array: Array, read: Callable[[], Array]) -> None:
        """Write into an array, after each call, what the subject wrote into its copy on the device.

        Args:
            array: the judge's array.
            read: returns the present values of the copy.
        """
        self._copies.append((array, read))

    @contextmanager
    def call(self) -> Iterator[None]:
        """Enclose one call of the rule, and synchronise the device at its end.

        Arrays that are copied to the device after the first call, the cotangents, are watched during their call alone.

        Raises:
            DeviceLost: if the device fails, and fails again when it is asked again.
        """
        token, known = _CURRENT.set(self), len(self._copies)
        try:
            with _selected(self.device, self.runtime):
                yield
            synchronize(self.device, self.runtime)
            for array, read in self._copies:
                now = read()
                if array.flags.writeable and now.tobytes() != array.tobytes():
                    array[...] = now
        except RuntimeError as error:  # torch, CuPy and JAX raise such ones for an error of the device
            if not isinstance(error, DeviceLost) and self._is_lost():
                name, reason = type(error).__name__, str(error).strip().partition("\n")[0]
                raise DeviceLost(f"the device {self.device} is lost to this process: {name}: {reason}") from error
            raise
        finally:
            _CURRENT.reset(token)
            del self._copies[known or len(self._copies) :]

    def _is_lost(self) -> bool:
        try:
            synchronize(self.device, self.runtime)
        except RuntimeError:
            return True
        return False


_CURRENT: ContextVar[Placement | None] = ContextVar("placement", default=None)


def current_placement() -> Placement | None:
    """Return the placement of the evaluation that runs now; ``None`` where no device is named."""
    return _CURRENT.get()


def current_device() -> str | None:
    """Return the device of the evaluation that runs now; ``None`` where none is named."""
    placement = _CURRENT.get()
    return None if placement is None else placement.device


def wait() -> None:
    """Wait until the device of the evaluation that runs now has done its work: its results may be read then."""
    placement = _CURRENT.get()
    if placement is not None:
        synchronize(placement.device, placement.runtime)


def there(tensor: Tensor) -> Tensor:
    """Return a torch tensor on the device of the evaluation that runs now."""
    device = current_device()
    return tensor if device in (None, CPU) else tensor.to(device)


def calls_on(device: str | None, runtime: Runtime) -> AbstractContextManager[None]:
    """Return the context of one call on a device; an empty one where none is named."""
    return nullcontext() if device is None else Placement(device, runtime).call()


def jax_default_device() -> AbstractContextManager[object]:
    """Return the context in which JAX places arrays on the device of the evaluation that runs now."""
    device = current_device()
    context: AbstractContextManager[object] = (
        nullcontext() if device is None else jax.default_device(jax_device(device))
    )
    return context


def _selected(device: str, runtime: Runtime) -> AbstractContextManager[object]:
    """Return the context in which a device is the current one, on which Triton and CuPy launch their kernels."""
    kind, _, number = device.partition(":")
    context: AbstractContextManager[object] = nullcontext()
    if runtime is Runtime.CUPY:
        context = cupy.cuda.Device(int(number or 0))
    elif runtime is Runtime.TORCH and kind != CPU and hasattr(_module_of(kind), "device"):
        context = _module_of(kind).device(device)
    return context


def _module_of(kind: str) -> Any:
    """Return torch's module for a kind of devices: torch.cuda."""
    return getattr(torch, kind, None)


def synchronize(device: str, runtime: Runtime) -> None:
    """Wait until a device has done its work, in all streams; an error of a kernel is raised here."""
    kind, _, number = device.partition(":")
    if kind == CPU:
        return
    if runtime is Runtime.CUPY:
        cupy.cuda.Device(int(number or 0)).synchronize()
    elif runtime is Runtime.TORCH and hasattr(_module_of(kind), "synchronize"):
        _module_of(kind).synchronize(device)


def on_device(rule: Rule, device: Device) -> Rule:
    """Return a rule that is evaluated on a device; the same rule where none is named, or where it has one already.

    Args:
        rule: a rule whose arrays are torch's, JAX's or CuPy's.
        device: "cuda", "cuda:1", "cpu", a `torch.device`.

    Raises:
        InvalidInput: when evaluated, if the framework has no such device.
    """
    if device is None or rule.device is not None:
        return rule
    name, runtime, perturbed = str(device), rule.runtime, rule.evaluate_perturbed
    evaluate = _evaluated_there(rule.evaluate, name, runtime)
    return replace(
        rule,
        evaluate=evaluate,
        structured=wrapped(rule, evaluate, lambda inner: on_device(inner, device)),
        derived=rule.derivatives.wrapped(evaluate, lambda inner: on_device(inner, device)),
        evaluate_perturbed=None if perturbed is None else _perturbed_there(perturbed, name, runtime),
        adapt=None if rule.adapt is None else _adapting_there(rule.adapt, name),
        call_patterns={n: _evaluated_there(f, name, runtime) for n, f in rule.call_patterns.items()},
        device=name,
    )


def default_device(arrays: str) -> str | None:
    """Return the device of a kind of arrays that lies on one alone: CuPy's on "cuda"."""
    return CUDA if arrays == Runtime.CUPY.value else None


def _adapting_there(adapt: Callable[[Any], Rule], device: str) -> Callable[[Any], Rule]:
    return lambda implementation: on_device(adapt(implementation), device)


def _evaluated_there(evaluate: Evaluate, device: str, runtime: Runtime) -> Evaluate:
    def evaluate_there(**primals: Array) -> tuple[Output, Pullback]:
        placement = Placement(require_device(device, runtime), runtime)
        with placement.call():
            y, pullback = evaluate(**primals)

        def pullback_there(delta: Delta) -> Cotangents:
            with placement.call():
                return pullback(delta)

        return y, pullback_there

    return evaluate_there


def _perturbed_there(evaluate: EvaluatePerturbed, device: str, runtime: Runtime) -> EvaluatePerturbed:
    def perturbed_there(
        primals: Primals, delta: Delta, perturbation: Perturbation
    ) -> tuple[tuple[Array, ...], Cotangents]:
        with Placement(require_device(device, runtime), runtime).call():
            return evaluate(primals, delta, perturbation)

    return perturbed_there


def placed(
    subject: Rule, oracles: Sequence[Rule], device: Device, primals: Mapping[str, object]
) -> tuple[Rule, tuple[Rule, ...]]:
    """Return subject and oracles on a device; without one, on that of the primals.

    torch computes references there, in float64. JAX's references are evaluated by NumPy and stay on the CPU.

    Args:
        subject, oracles: the rules.
        device: its name; ``None`` for the device of the primals, if torch or CuPy has them on one.
        primals: as the user passes them.

    Raises:
        InvalidInput: if the framework of the subject or of a reference has no such device, if the subject takes NumPy
            arrays, or if the primals lie on several devices.
    """
    named = device is not None
    device = device if named else device_of(primals)
    if device is None:
        return subject, tuple(oracles)
    if named and subject.device is None and subject.runtime not in _DEVICES:
        if kind_of(device) == CPU:
            return subject, tuple(oracles)
        raise InvalidInput(
            f"device: {subject.name} takes NumPy arrays, which lie on the CPU, got device={str(device)!r}.\n"
            "Fix: adapt it for the arrays that it takes:    oracles.manual(forward, backward, arrays='torch')"
        )

    def move(rule: Rule) -> Rule:
        if rule.runtime not in _DEVICES or (rule.runtime is Runtime.JAX and rule.reference is not None):
            return rule
        if not named and not has_device(device, rule.runtime):
            return rule
        with suppress(ModuleNotFoundError):  # the first evaluation says how to install it
            require_device(rule.device or device, rule.runtime)
        return on_device(rule, device)

    return move(subject), tuple(map(move, oracles))


def device_of(primals: Mapping[str, object]) -> str | None:
    """Return the device on which torch or CuPy has primals; ``None`` where all lie on the CPU.

    Raises:
        InvalidInput: if they lie on several devices.
    """
    names = {n: name for n, value in primals.items() if (name := device_of_array(value)) not in (None, CPU)}
    if len({*names.values()}) > 1:
        found = ", ".join(f"{n} on {name}" for n, name in names.items())
        raise InvalidInput(
            f"device: expected the primals on one device, got {found}.\n"
            f"Fix:    oracles.check(..., device={next(iter(names.values()))!r})"
        )
    return next(iter(names.values()), None)


def device_of_array(value: Any) -> str | None:
    """Return where torch or CuPy has an array; ``None`` for anything else."""
    if hasattr(value, "requires_grad"):
        return str(value.device)
    return f"cuda:{value.device.id}" if is_cupy_array(value) else None


def is_cupy_array(value: object) -> bool:
    """Return whether a value is an array of CuPy; CuPy is not imported for that."""
    module = sys.modules.get("cupy")
    return module is not None and isinstance(value, module.ndarray)


def kind_of(device: Device) -> str:
    """Return the part of a device's name before its number."""
    return str(device).partition(":")[0]


def has_device(device: Device, runtime: Runtime) -> bool:
    """Return whether a framework has a device."""
    try:
        require_device(device, runtime)
    except InvalidInput:
        return False
    return True


def require_device(device: Device, runtime: Runtime) -> str:
    """Return the name of a device with its number, "cuda:0".

    Raises:
        InvalidInput: if this is no name of a device, or the framework has no such device.
    """
    device = str(device)
    kind, colon, number = device.partition(":")
    if not kind.isidentifier() or (colon and not number.isdecimal()):
        raise InvalidInput(
            f"device: expected a name such as 'cpu', 'cuda' or 'cuda:1', got {device!r}.\nFix:    device='cuda'"
        )
    return _DEVICES[runtime](device)


def _no_device(framework: str, device: str, reason: object) -> InvalidInput:
    first = str(reason).strip().partition("\n")[0]
    return InvalidInput(
        f"device: {framework} has no device {device!r} on this machine: {first}.\n"
        f"Fix:    device='cpu', or install {framework} with support of it.\n"
        "An adapter's own device moves the subject alone."
    )


def _torch_device(device: str) -> str:
    try:
        found = torch.empty(0, dtype=torch.float64, device=device).device
    # No such device is a RuntimeError, CUDA without support an AssertionError, a device without float64 a TypeError.
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise _no_device("torch", device, error) from None
    if found.type == "meta":
        raise InvalidInput("device: tensors on 'meta' have no values.\nFix:    device='cpu'")
    return str(found)


def _jax_device(device: str) -> str:
    kind = kind_of(device)
    return CPU if kind == CPU else f"{kind}:{jax_device(device).id}"


def jax_device(device: str) -> Any:
    """Return JAX's own object for a device; CUDA is a "gpu"."""
    kind, _, number = device.partition(":")
    try:
        found = jax.devices("gpu" if kind == "cuda" else kind)
        return found[int(number or 0)]
    except (RuntimeError, IndexError) as error:
        raise _no_device("JAX", device, error) from None


def _cupy_device(device: str) -> str:
    kind, _, number = device.partition(":")
    if kind != "cuda":
        raise InvalidInput(f"device: CuPy's arrays lie on 'cuda', got {device!r}.\nFix:    device='cuda'")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except ModuleNotFoundError:
        raise InvalidInput("CuPy is not installed.\nFix:    pip install cupy-cuda12x") from None
    except RuntimeError as error:  # no driver
        raise _no_device("CuPy", device, error) from None
    index = int(number or 0)
    if index >= count:
        raise _no_device("CuPy", device, f"it has {count}")
    return f"cuda:{index}"


_DEVICES: Mapping[Runtime, Callable[[str], str]] = {
    Runtime.TORCH: _torch_device,
    Runtime.JAX: _jax_device,
    Runtime.CUPY: _cupy_device,
}

"""Record the aten operations of one evaluation, so that the next ones need neither Python's dispatch nor autograd.

Before a refusal, a reference is evaluated many times at one point, each time with other rounding errors. Its operations
are the same each time, unless its code reads values. So two evaluations are recorded and compared, see
`Recording.same_as`, and an operation that hands values or shapes to Python makes a recording unusable.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

from oracles.constants import UNRECORDED_EVALUATIONS
from oracles.lazy_modules import Tensor, torch
from oracles.perturbation.fill_values import FillValues
from oracles.perturbation.torch_lengths import tensors_in
from oracles.rule import Primals

Value: TypeAlias = Any  # an argument or a result of an operation: a tensor, a number, a list of those
Operation: TypeAlias = Any  # an overload of an aten operation
# The methods by which Python reads the memory of a tensor without an operation.
READS = ("numpy", "tolist", "data_ptr", "__array__", "__dlpack__")
Run: TypeAlias = Callable[["Step", Sequence[Value], Mapping[str, Value]], Value]


def memory_of(x: Tensor) -> Any:
    """Return what identifies the memory of a tensor and of its views; ``None`` for a sparse one.

    It is a weak reference, so that memory that is freed and used again is not taken for the same.
    """
    return _weak_reference()(x.untyped_storage()) if x.layout is torch.strided else None


@lru_cache(maxsize=1)
def _weak_reference() -> Any:
    return import_module("torch.multiprocessing.reductions").StorageWeakRef


@dataclass(frozen=True)
class Slot:
    """A tensor that was given or computed before, by its number."""

    number: int


@dataclass(frozen=True)
class View:
    """Another view of the memory of a tensor that was given or computed before."""

    number: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that was made elsewhere: a weight that the reference holds, a number in its code."""

    tensor: Tensor

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constant) and _are_equal(self.tensor, other.tensor)


@dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
        operation: the overload of an aten operation.
        plan, length, number: how it is perturbed, see `oracles.perturbation.torch_operations`.
        args, kwargs: its arguments, with a placeholder for each tensor.
        results: the slots of the tensors that it returns.
        done: the slots that no later step reads.
    """

    operation: Operation
    plan: list[Value] | None
    length: int
    number: int
    args: tuple[Value, ...]
    kwargs: Mapping[str, Value]
    results: tuple[int, ...] = ()
    done: tuple[int, ...] = ()


@dataclass
class Recording:
    """The operations of one evaluation.

    Attributes:
        steps: the operations, in their order.
        outputs: what the evaluation returned, as placeholders.
        is_usable: whether no operation hands values to Python, and every tensor is an array in memory.
        fills: the large constants of the code.
    """

    steps: list[Step] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    is_usable: bool = True
    fills: FillValues = field(default_factory=FillValues)
    _count: int = 0
    _slots: dict[Any, int] = field(default_factory=dict)  # by memory and geometry
    _owners: dict[Any, int] = field(default_factory=dict)  # by memory: the slot of some tensor in it

    def give(self, tensors: Iterable[Tensor]) -> None:
        """Number the tensors that are given."""
        for tensor in tensors:
            self._assign(tensor)

    def arguments(
        self, operation: Operation, args: tuple[Value, ...], kwargs: Mapping[str, Value]
    ) -> tuple[tuple[Value, ...], Mapping[str, Value]]:
        """Return the arguments of an operation, which is about to run, with a placeholder for each tensor."""
        self.is_usable = self.is_usable and not _reads_values(operation, args)
        return self._with_placeholders(args), {n: self._with_placeholders(v) for n, v in kwargs.items()}

    def add(self, step: Step, result: Value) -> None:
        """Add an operation that has run, with arguments that `arguments` returned."""
        self.steps.append(replace(step, results=tuple(map(self._assign, tensors_in((result,))))))

    def finish(self, outputs: Iterable[Tensor]) -> None:
        """Note what the evaluation returned; nothing can be added after that."""
        self.outputs = [self._placeholder(tensor) for tensor in outputs]
        self._slots.clear()
        self._owners.clear()
        needed = {n for value in self.outputs for n in _numbers(value)}
        for i in reversed(range(len(self.steps))):
            step = self.steps[i]
            used = {*step.results, *_numbers((*step.args, *step.kwargs.values()))}
            self.steps[i] = replace(step, done=tuple(used - needed))
            needed |= used

    def same_as(self, other: Recording) -> bool:
        """Return whether another evaluation ran the same operations on the same arguments."""
        usable = self.is_usable and other.is_usable
        return usable and self.steps == other.steps and self.outputs == other.outputs

    def replay(self, given: Sequence[Tensor], run: Run) -> list[Tensor]:
        """Run the operations on other tensors of the same shapes, and return what the evaluation returned.

        Args:
            given: tensors in the place of those that were given.
            run: runs a step on its arguments, and returns its result.
        """
        slots: list[Tensor | None] = [*given, *[None] * (self._count - len(given))]
        for step in self.steps:
            kwargs = {n: _filled(value, slots) for n, value in step.kwargs.items()}
            result = run(step, [_filled(value, slots) for value in step.args], kwargs)
            for number, tensor in zip(step.results, tensors_in((result,)), strict=True):
                slots[number] = tensor
            for number in step.done:
                slots[number] = None
        return [_filled(value, slots) for value in self.outputs]

    def _assign(self, tensor: Tensor) -> int:
        """Return the slot of a tensor that is given or computed."""
        number, self._count = self._count, self._count + 1
        memory, geometry = self._place(tensor)
        self._slots[memory, geometry] = number
        self._owners.setdefault(memory, number)
        return number

    def _with_placeholders(self, value: Value) -> Value:
        if isinstance(value, torch.Tensor):
            return self._placeholder(value)
        return type(value)(map(self._with_placeholders, value)) if isinstance(value, list | tuple) else value

    def _placeholder(self, tensor: Tensor) -> Slot | View | Constant:
        memory, geometry = self._place(tensor)
        if (memory, geometry) in self._slots:
            return Slot(self._slots[memory, geometry])
        # Autograd makes views of its own.
        return View(self._owners[memory], *geometry) if memory in self._owners else Constant(tensor.detach())

    def _place(self, tensor: Tensor) -> tuple[Any, Any]:
        """Return what identifies a tensor: its memory, and its geometry there."""
        memory = memory_of(tensor)
        if memory is None:
            self.is_usable = False
            return id(tensor), ((), (), 0)
        geometry = tuple(tensor.shape), tensor.stride(), tensor.storage_offset()
        return (memory, tensor.dtype, tensor.is_conj(), tensor.is_neg()), geometry


def recorded(recording: Recording, given: Iterable[Tensor]) -> AbstractContextManager[object]:
    """Return the context in which an evaluation is recorded; it is unusable if Python reads the memory of a tensor.

    No operation shows that code goes on in NumPy: its result arrives as a constant.
    """
    recording.give(given)
    mode: AbstractContextManager[object] = _reading_mode()(recording)
    return mode


@lru_cache(maxsize=1)
def _reading_mode() -> Any:
    reads = {getattr(torch.Tensor, name) for name in READS}

    def init(mode: Any, recording: Recording) -> None:
        mode.recording = recording

    def note(mode: Any, function: Any, types: object, args: Any = (), kwargs: Any = None) -> Value:
        if function in reads:
            mode.recording.is_usable = False
        return function(*args, **kwargs or {})

    # The base class exists only once torch is imported, so the class is made here.
    base = torch.overrides.TorchFunctionMode
    return type("NoteReading", (base,), {"__init__": init, "__torch_function__": note})


def _filled(value: Value, slots: Sequence[Tensor | None]) -> Value:
    """Return an argument with tensors in place of the placeholders."""
    if isinstance(value, Slot):
        return slots[value.number]
    if isinstance(value, Constant):
        return value.tensor
    if isinstance(value, View):
        owner: Any = slots[value.number]
        return owner.as_strided(value.size, value.stride, value.offset)
    return type(value)([_filled(v, slots) for v in value]) if isinstance(value, list | tuple) else value


def _numbers(value: Value) -> list[int]:
    """Return the slots that an argument reads."""
    if isinstance(value, Slot | View):
        return [value.number]
    return [n for v in value for n in _numbers(v)] if isinstance(value, list | tuple) else []


def _reads_values(operation: Operation, args: tuple[Value, ...]) -> bool:
    """Return whether Python learns values by an operation, or shapes that depend on values, or whether it is random."""
    tags, tag = operation.tags, torch.Tag
    if tag.data_dependent_output in tags or tag.nondeterministic_seeded in tags:
        return True
    # The shape of an indexed tensor depends on values only if a mask selects from it.
    is_index = operation.overloadpacket is torch.ops.aten.index and not any(map(_is_mask, args[1]))
    return tag.dynamic_output_shape in tags and not is_index


def _is_mask(index: Value) -> bool:
    return isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)


def _are_equal(a: Tensor, b: Tensor) -> bool:
    """Return whether two constants are one, or have the same entries."""
    if a.shape != b.shape or a.dtype != b.dtype or a.layout != b.layout or a.device != b.device:
        return False
    return a.data_ptr() == b.data_ptr() or bool(torch.equal(a, b))


@dataclass
class Recordings:
    """The recordings of a reference at the point where it was last evaluated."""

    _point: dict[str, Any] = field(default_factory=dict)  # weak references to its arrays, which may be large
    _types: object = None
    _counts: Counter[object] = field(default_factory=Counter)  # of evaluations, by kind
    _first: dict[object, Recording] = field(default_factory=dict)
    _confirmed: dict[object, Recording] = field(default_factory=dict)

    def move_to(self, primals: Primals, types: object) -> None:
        """Forget what was recorded elsewhere: code may run other operations on other arrays, or other cotangents.

        Args:
            primals: the point; the same arrays are the same point.
            types: what matters of the cotangents. Their entries do not, since no usable recording reads any.
        """
        same = types == self._types and primals.keys() == self._point.keys()
        if same and all(self._point[n]() is a for n, a in primals.items()):
            return
        self._point, self._types = {n: weakref.ref(a) for n, a in primals.items()}, types
        for kept in (self._counts, self._first, self._confirmed):
            kept.clear()

    def find(self, kind: object) -> Recording | None:
        """Return the recording of a kind of evaluation, if a second evaluation ran the same operations."""
        return self._confirmed.get(kind)

    def forget(self, kind: object) -> None:
        """Forget the recording of a kind of evaluation, which does not serve; another is not made at this point."""
        self._confirmed.pop(kind, None)

    def start(self, kind: object) -> Recording | None:
        """Return what to record the next evaluation in; ``None`` while few are needed, since it takes time."""
        self._counts[kind] += 1
        is_due = UNRECORDED_EVALUATIONS < self._counts[kind] <= UNRECORDED_EVALUATIONS + 2
        return Recording() if is_due else None

    def add(self, recording: Recording, kind: object) -> None:
        """Keep the recording of one evaluation, or compare it with the one before."""
        first = self._first.setdefault(kind, recording)
        if first is not recording and first.same_as(recording):
            self._confirmed[kind] = recording

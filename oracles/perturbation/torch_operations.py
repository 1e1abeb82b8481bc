"""Perturb torch: every floating operand of every rounding aten operation, forward and backward.

This is the one file that uses private modules of torch, since no public interface does the same:

- `torch.utils._python_dispatch.TorchDispatchMode` sees each aten operation, those of the backward included. The public
  `torch.overrides.TorchFunctionMode` does not see what autograd's engine runs.
- `torch._decomp.get_decompositions` takes fused operations apart. The public `torch.export.default_decompositions`
  keeps the core operations, layer norm among them, whole.

`tests/judge/test_torch_operations.py` fails with their names if a version of torch lacks them. The workflow
.github/workflows/versions.yml runs it with the lowest version of torch that is supported and with the newest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

from oracles.constants import CONFIDENCE, SIGN_POOL, TRIGAMMA_ERROR
from oracles.lazy_modules import Tensor, torch
from oracles.perturbation.fill_values import FillValues
from oracles.perturbation.sign_pool import sign_pool
from oracles.perturbation.torch_lengths import (
    NORMWISE,
    NORMWISE_RESULT,
    PRODUCTS,
    convolution_backward_lengths,
    reduction_length,
    tensors_in,
)
from oracles.perturbation.torch_recording import Recording, Step, memory_of, recorded
from oracles.rule import Perturbation, RoundingErrors
from oracles.user_code import Raised, attempt

Value: TypeAlias = Any  # an argument or a result of an operation: a tensor, a number, a list of those
Operation: TypeAlias = Any  # an overload of an aten operation, such as torch.ops.aten.add.Tensor
Mode: TypeAlias = Any  # a TorchDispatchMode

# Operations that only move, select, compare or change a sign. They are exact in floating point, so they round nothing.
# tests/judge/test_exact_operations.py runs every one of them.
# fmt: off
EXACT_OPERATIONS = frozenset((
    "_conj_physical", "_local_scalar_dense", "_to_copy", "_unsafe_view", "abs", "alias", "amax", "amin", "argmax",
    "argmin", "as_strided", "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "broadcast_to", "cat", "ceil",
    "clamp", "clamp_max", "clamp_min", "clone", "complex", "conj_physical", "constant_pad_nd", "contiguous", "copy",
    "copy_", "copysign", "detach", "diag_embed", "diagonal", "diagonal_backward", "embedding", "empty", "empty_like",
    "eq", "equal", "expand", "expand_as", "eye", "fill", "fill_", "flip", "floor", "fmax", "fmin", "full",
    "full_like", "gather", "ge", "gt", "hardtanh", "im2col", "index", "index_put", "index_select", "isfinite",
    "isinf", "isnan", "kthvalue", "le", "lift_fresh", "lt", "masked_fill", "masked_scatter", "masked_select", "max",
    "max_pool2d_with_indices", "maximum", "median", "min", "minimum", "nan_to_num", "ne", "neg", "new_empty",
    "new_empty_strided", "new_full", "new_ones", "new_zeros", "nonzero", "one_hot", "ones", "ones_like", "permute",
    "relu", "repeat", "reshape", "roll", "round", "scalar_tensor", "scatter", "select", "select_backward", "sgn",
    "sign", "signbit", "slice", "slice_backward", "sort", "split", "split_with_sizes", "squeeze", "stack", "t",
    "take", "threshold_backward", "topk", "transpose", "tril", "triu", "trunc", "unbind", "unfold", "unsqueeze",
    "value_selecting_reduction_backward", "view", "view_as", "where", "zero_", "zeros", "zeros_like",
))
# fmt: on
# Exact operations that round all the same: the modulus and the direction of a complex number.
_ROUNDS_COMPLEX = frozenset(("abs", "sgn", "sign"))
# Operations with a number that is written into tensors; others take integers for sizes and places too.
_FILLING_NAMES = """
full full_like new_full fill masked_fill scalar_tensor constant_pad_nd where clamp clamp_min clamp_max mul div
"""
_FILLING = frozenset(_FILLING_NAMES.split())
# Fused operations. Rounding happens inside them, so they are decomposed into operations that can be perturbed.
FUSED = """
native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward native_batch_norm
native_batch_norm_backward _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data
nll_loss_forward nll_loss_backward gelu gelu_backward silu silu_backward tanh_backward sigmoid_backward softplus
softplus_backward huber_loss huber_loss_backward mse_loss mse_loss_backward leaky_relu_backward elu_backward
addmm std var var_mean logsumexp binary_cross_entropy_with_logits binary_cross_entropy binary_cross_entropy_backward
smooth_l1_loss smooth_l1_loss_backward log_sigmoid_forward log_sigmoid_backward
"""


class Operand(NamedTuple):
    """What is known of a tensor that an operation rounds.

    Attributes:
        entries, size, stride: how many entries it has, and its geometry if it were contiguous.
        recomputed: the number of the sum whose memory it is in, if it is such; its own geometry there.
    """

    entries: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    recomputed: tuple[int, tuple[int, ...], tuple[int, ...], int] | None


class PerturbedOperations:
    """Runs aten operations on perturbed operands.

    Attributes:
        active: whether operands are perturbed; if not, the operations are only followed.
    """

    def __init__(
        self, perturbation: Perturbation, given: Sequence[Tensor], careful: bool, recording: Recording | None = None
    ) -> None:
        self.active = True
        self._recording = recording
        self._perturbation = perturbation
        self._careful = careful
        self._state = int(perturbation.rng.integers(1, 2**31 - 1))
        self._decompositions = _decompositions()
        # The memory of all that descends from what is given: weak references, so that none is reused unnoticed.
        self._descending: set[Any] = set(filter(None, map(memory_of, given)))
        # The numbers of the sums, by the memory that they are in, and how far another evaluation of each lies from it.
        self._sums: dict[Any, int] = {}
        self._recomputed: dict[int, Tensor] = {}
        # The large constants of the code, which a recording keeps for its replays.
        self._fills = FillValues() if recording is None else recording.fills
        self._known_constants: set[Any] = set()

    def run(self, operation: Operation, args: tuple[Value, ...], kwargs: Mapping[str, Value], mode: Mode) -> Value:
        """Run one operation; a decomposed one runs under ``mode``, which perturbs its parts."""
        name = operation.overloadpacket.__name__
        moves = operation.is_view or torch.Tag.inplace_view in operation.tags
        exact = moves or not self.active or _is_exact(operation, name, args, kwargs)
        if not exact and (decomposition := self._decompositions.get(operation)) is not None:
            with mode:
                return decomposition(*args, **kwargs)
        values = [*args, *kwargs.values()]
        self._note_constants(name.rstrip("_"), values)  # those of a forward that is not perturbed, too
        plan: list[Value] | None = None
        number, length = 0, 0
        if not exact:
            length = reduction_length(name, torch.Tag.pointwise in operation.tags, args)
            plan = [*map(self._plan, values)]
            number = len(self._recomputed) + 1
        recording = self._recording if self._recording and self._recording.is_usable else None
        arguments = recording.arguments(operation, args, kwargs) if recording else None
        result = self._result(operation, args, kwargs, plan, length, number)
        if name.endswith("_") and plan is not None:
            self._sums.pop(memory_of(args[0]), None)
        elif number in self._recomputed:
            self._sums[memory_of(result)] = number
        if any(map(self._descends, tensors_in(values))):
            self._descending.update(filter(None, map(memory_of, tensors_in((result,)))))
        if recording and arguments:
            recording.add(Step(operation, plan, length, number, *arguments), result)
        return result

    def _note_constants(self, name: str, values: Sequence[Value]) -> None:
        """Note the large constants among the arguments of an operation: numbers, and tensors that do not descend."""
        for value in values:
            is_number = isinstance(value, float) or (name in _FILLING and type(value) is int)
            if is_number and name not in ("add", "sub", "rsub"):  # what is added to a whole array fills nothing
                self._fills.add(value)
                if name in ("mul", "div"):
                    self._fills.scale(value)
        for x in tensors_in(values):
            memory = memory_of(x)
            if memory is None or memory in self._descending or memory in self._known_constants:
                continue
            self._known_constants.add(memory)
            if x.dtype.is_floating_point:
                self._fills.add(x.detach().to("cpu", torch.float64).resolve_neg().numpy())

    def run_again(self, step: Step, args: Sequence[Value], kwargs: Mapping[str, Value]) -> Value:
        """Run a recorded operation on other arguments."""
        return self._result(step.operation, tuple(args), kwargs, step.plan, step.length, step.number)

    def _result(
        self,
        operation: Operation,
        args: tuple[Value, ...],
        kwargs: Mapping[str, Value],
        plan: list[Value] | None,
        length: int,
        number: int,
    ) -> Value:
        """Return what an operation gives under rounding.

        Args:
            operation, args, kwargs: the operation.
            plan: what is known of the operands that are rounded; ``None`` for an exact operation.
            length: the number of terms in its longest sum.
            number: by which another evaluation of its sum is kept.
        """
        if plan is None:
            return operation(*args, **kwargs)
        name = operation.overloadpacket.__name__
        if name == "convolution_backward":
            return self._convolution_backward(operation, args, plan)
        # Python's operators, such as __and__, end with two underscores and are not in place.
        in_place = name.endswith("_") and not name.endswith("__")
        size = self._perturbation.of_length(length, name.rstrip("_") in PRODUCTS)
        result = self._on_perturbed(operation, args, kwargs, plan, size, in_place)
        if name in NORMWISE_RESULT:
            result = self._by_norm(result, result, self._plan(result), size)
        if name == "polygamma" and args[0] == 1:
            # Beyond rounding, in float64 as in every other dtype; of a smaller perturbation it is a smaller share.
            share = min(1.0, self._perturbation.relative / (CONFIDENCE * torch.finfo(torch.float64).eps / 2))
            result = self._perturbed(result, self._plan(result), RoundingErrors(share * TRIGAMMA_ERROR))
        if in_place:
            # An operation in place, such as add_, wrote into a perturbed copy: the result belongs into its operand.
            return args[0].copy_(result)
        is_sum = length > 1 and isinstance(result, torch.Tensor) and _is_inexact(result.dtype)
        if is_sum and memory_of(result) is not None:
            again = self._on_perturbed(operation, args, kwargs, plan, size, in_place)
            # Of an infinite sum there is no other value.
            self._recomputed[number] = again.sub_(result).nan_to_num_(0.0, math.inf, -math.inf)
        return result

    def _convolution_backward(self, operation: Operation, args: tuple[Value, ...], plan: list[Value]) -> Value:
        """Evaluate each cotangent on its own: their sums are of very different lengths."""
        mask = args[-1]
        results = []
        for i, length in enumerate(convolution_backward_lengths(args)):
            alone = (*args[:-1], [i == j and wanted for j, wanted in enumerate(mask)])
            size = self._perturbation.of_length(length, product=True)
            results.append(self._on_perturbed(operation, alone, {}, plan, size, False)[i] if mask[i] else None)
        return tuple(results)

    def _on_perturbed(
        self,
        operation: Operation,
        args: tuple[Value, ...],
        kwargs: Mapping[str, Value],
        plan: list[Value],
        size: RoundingErrors,
        in_place: bool,
    ) -> Value:
        """Return an operation's result on perturbed operands, or a perturbed result where these leave its domain."""
        moved = [self._perturbed(value, p, size) for value, p in zip(args, plan, strict=False)]
        if operation.overloadpacket.__name__ in NORMWISE:
            moved = [self._by_norm(value, m, p, size) for value, m, p in zip(args, moved, plan, strict=False)]
        own = zip(kwargs.items(), plan[len(args) :], strict=True) if kwargs else ()
        options = {n: self._perturbed(value, p, size) for (n, value), p in own}
        if in_place and moved[0] is args[0]:
            moved[0] = args[0].clone()
        # Where these perturbed operands leave the domain, those perturbed the other way may stay inside.
        mirrored = [_map(_mirror, value, m) for value, m in zip(args, moved, strict=True)] if self._careful else None
        result = _result_or_none(operation, moved, options)
        if result is not None and not (self._careful and _has_nan(result)):
            return result
        if result is not None and (other := _result_or_none(operation, mirrored, options)) is not None:
            result = _map(_where_nan, result, other)
        if result is None or _has_nan(result):
            plain = operation(*((args[0].clone(), *args[1:]) if in_place else args), **kwargs)
            plain = self._perturbed(plain, self._plan(plain), size)
            result = plain if result is None else _map(_where_nan, result, plain)
        return result

    def _plan(self, value: Value) -> Value:
        """Return what is known of a tensor that rounding moves, or of each in a list; ``None`` for anything else.

        Integers that descend from nothing given are exact for everybody: the order of a polygamma, an exponent.
        """
        if isinstance(value, list | tuple):
            return [*map(self._plan, value)]
        if not (isinstance(value, torch.Tensor) and value.numel() and _is_inexact(value.dtype)):
            return None
        memory = memory_of(value)
        if memory is not None and memory not in self._descending and _is_integral(value):
            return None
        return Operand(value.numel(), tuple(value.shape), _strides(value.shape), self._place_in_sum(value, memory))

    def _place_in_sum(self, x: Tensor, memory: Any) -> tuple[int, tuple[int, ...], tuple[int, ...], int] | None:
        """Return of which sum a tensor is a view, with its geometry there; ``None`` for anything else.

        Code may evaluate a sum again at each use, or use an identity instead (attention in blocks takes Σ δ·y for
        Σ P·δVᵀ). Each use then meets a rounding error of its own, which is relative to the terms, not to their sum.
        """
        number = self._sums.get(memory)
        difference = self._recomputed.get(number) if number else None
        if number is None or difference is None or difference.dtype != x.dtype:
            return None
        if difference.untyped_storage().nbytes() != x.untyped_storage().nbytes():
            return None
        return number, tuple(x.shape), x.stride(), x.storage_offset()

    def _perturbed(self, value: Value, plan: Value, size: RoundingErrors) -> Value:
        """Return a tensor, or each of a list, with simulated rounding; as it is where there is no plan."""
        if plan is None:
            return value
        if not isinstance(plan, Operand):
            return type(value)([self._perturbed(v, p, size) for v, p in zip(value, plan, strict=True)])
        # Kernels that are called here read what is conjugated or negated lazily as it lies in memory.
        value, absolute = value.resolve_conj().resolve_neg(), self._perturbation.absolute
        given = value
        if value.is_complex():
            # The rounding of a product is relative to the modulus, not to the real and imaginary part.
            real = value.real.dtype
            signs = torch.complex(self._signs(plan, real, value.device), self._signs(plan, real, value.device))
            value = value.addcmul(value.abs().to(value.dtype), signs, value=size.own)
            value = value.add(signs, alpha=absolute) if absolute else value
        else:
            value = self._with_errors(value, plan, size)
        if plan.recomputed is not None:
            number, *geometry = plan.recomputed
            difference = self._recomputed[number].as_strided(*geometry)
            value = value.addcmul(difference, self._signs(plan, value.dtype, value.device))
        return self._with_fills(given, value)

    def _with_fills(self, x: Tensor, moved: Tensor) -> Tensor:
        """Return perturbed entries, but those of x that equal a large constant of the code as they are."""
        if not self._fills or x.is_complex():
            return moved
        sizes = torch.from_numpy(self._fills.magnitudes).to(x.device, x.dtype)
        return torch.where(torch.isin(x.abs(), sizes), x, moved)

    def _by_norm(self, value: Value, moved: Value, plan: Value, size: RoundingErrors) -> Value:
        """Return a perturbed matrix with rounding of its typical entry added to each one; anything else as it is."""
        if not isinstance(plan, Operand) or value.dim() < 2:
            return moved
        typical = torch.linalg.vector_norm(value, dim=(-2, -1), keepdim=True) / math.prod(value.shape[-2:]) ** 0.5
        signs = self._signs(plan, typical.dtype, value.device)
        return moved + signs * typical * size.own

    def _with_errors(self, x: Tensor, plan: Operand, size: RoundingErrors) -> Tensor:
        """Return a real tensor with each entry times its own 1 ± size, by one product, since ∞ ± ∞ h would be NaN.

        To that an underflow error is added, if there is one.
        """
        count, absolute = plan.entries, self._perturbation.absolute
        factors, start = _factor_pool(x.dtype, x.device, size.own), self._next_start()
        floors = _floor_pool(x.dtype, x.device, absolute) if absolute else None
        own, floor_start = min(count, SIGN_POOL), self._next_start() if absolute else 0
        shape, strides = (plan.size, plan.stride) if count <= SIGN_POOL else ((own,), (1,))
        window = factors.as_strided(shape, strides, start)
        if size.common:
            window = window * _factor_pool(x.dtype, x.device, size.common).as_strided((), (), start)
        floor = floors.as_strided(shape, strides, floor_start) if floors is not None else None
        if count <= SIGN_POOL:
            # In the geometry of x, with and without an underflow error: a recording serves both.
            return x * window if floor is None else torch.addcmul(floor, x, window, out=torch.empty_like(x))
        # The factors repeat, but to repeat them in memory would take longer than the product.
        flat, whole = x.reshape(-1), count // SIGN_POOL * SIGN_POOL
        result = torch.empty_like(flat)
        parts = (flat[:whole].view(-1, own), result[:whole].view(-1, own)), (flat[whole:], result[whole:])
        for part, out in parts:
            n = part.shape[-1]
            if floor is None:
                torch.mul(part, window[:n], out=out)
            else:
                torch.addcmul(floor[:n], part, window[:n], out=out)
        return result.view(x.shape)

    def _signs(self, plan: Operand, dtype: Value, device: Value) -> Tensor:
        """Return random signs for each entry of a tensor: a window into a pool, which is cheaper than drawing."""
        pool, start = _sign_pool(dtype, device), self._next_start()
        if plan.entries > SIGN_POOL:
            return pool[start : start + SIGN_POOL].repeat(-(-plan.entries // SIGN_POOL))[: plan.entries].view(plan.size)
        return pool.as_strided(plan.size, plan.stride, start)

    def _next_start(self) -> int:
        """Return a place in a pool; windows may overlap, but no operand meets the same signs in the next sample."""
        self._state = self._state * 48271 % 2147483647  # Lehmer's generator
        return self._state % SIGN_POOL

    def _descends(self, x: Tensor) -> bool:
        memory = memory_of(x)
        return memory is None or memory in self._descending


@contextmanager
def perturbed_operands(
    perturbation: Perturbation,
    given: Sequence[Tensor],
    *,
    careful: bool = False,
    recording: Recording | None = None,
) -> Iterator[PerturbedOperations]:
    """Perturb the floating operands of every rounding aten operation in this context, forward and backward.

    Fused operations are decomposed first, so that the rounding inside them is simulated too: the fused backward of
    layer norm returns 7e-15 where the exact answer is 0, and perturbing its operands alone would not show that.

    Args:
        perturbation: the size of the simulated rounding errors.
        given: the primals and cotangents. What descends from them is perturbed; of the other operands, those that are
            integers are exact.
        careful: whether an operation that is NaN on its perturbed operands, and not on its own, is evaluated again
            inside its domain. It costs a test of each result.
        recording: where the operations are added.
    """
    operations = PerturbedOperations(perturbation, given, careful, recording)
    recorder = recorded(recording, given) if recording else nullcontext()
    # Attention in one kernel hides its operations; the mathematical one consists of those that can be perturbed.
    attention = import_module("torch.nn.attention")
    # So does cuDNN, which normalises a batch in one operation.
    without_cudnn = torch.backends.cudnn.flags(enabled=False) if any(x.is_cuda for x in given) else nullcontext()
    with attention.sdpa_kernel(attention.SDPBackend.MATH), without_cudnn, _dispatch_mode(operations), recorder:
        yield operations


def replay(
    recording: Recording, perturbation: Perturbation, given: Sequence[Tensor], *, careful: bool = False
) -> list[Tensor]:
    """Return what an evaluation returns that was recorded under `perturbed_operands`, under another perturbation.

    Args:
        recording: the operations.
        perturbation, given, careful: as for `perturbed_operands`.
    """
    operations = PerturbedOperations(perturbation, given, careful, recording)
    with torch.inference_mode():
        return recording.replay(given, operations.run_again)


def _is_exact(operation: Operation, name: str, args: Sequence[Value], kwargs: Mapping[str, Value]) -> bool:
    """Return whether an operation rounds nothing."""
    if name.rstrip("_") in ("index_put", "_index_put_impl", "_unsafe_index_put"):
        return not (len(args) > 3 and args[3])  # it adds to what is there
    if name not in EXACT_OPERATIONS:
        return False
    if name in _ROUNDS_COMPLEX:
        return not args[0].is_complex()
    if name in ("_to_copy", "copy_", "copy"):
        return not _narrows(name, args, kwargs)
    overload = operation._overloadname
    # scatter adds or multiplies with one of its overloads, and round to decimals divides by a power of ten.
    return "reduce" not in overload and overload != "decimals"


def _narrows(name: str, args: Sequence[Value], kwargs: Mapping[str, Value]) -> bool:
    """Return whether a copy rounds: from one floating dtype to a coarser one."""
    source, target = (args[0].dtype, kwargs.get("dtype")) if name == "_to_copy" else (args[1].dtype, args[0].dtype)
    if target is None or not (_is_inexact(source) and _is_inexact(target)):
        return False
    return bool(torch.finfo(target).eps > torch.finfo(source).eps)


def _is_inexact(dtype: Value) -> bool:
    return bool(dtype.is_floating_point or dtype.is_complex)


def _is_integral(x: Tensor) -> bool:
    parts = torch.view_as_real(x) if x.is_complex() else x
    return bool((parts == parts.round()).all())


def _result_or_none(operation: Operation, args: Any, kwargs: Mapping[str, Value]) -> Value:
    # Outside its domain an operation may raise anything.
    result = attempt(lambda: operation(*args, **kwargs))
    return None if isinstance(result, Raised) else result


def _map(f: Callable[[Tensor, Tensor], Tensor], a: Value, b: Value) -> Value:
    """Apply a function to two tensors, or to each pair in two lists; anything else is the first value."""
    if isinstance(a, list | tuple):
        return type(a)([_map(f, x, y) for x, y in zip(a, b, strict=True)])
    return f(a, b) if isinstance(a, torch.Tensor) and _is_inexact(a.dtype) else a


def _mirror(x: Tensor, moved: Tensor) -> Tensor:
    return torch.where(x.isinf(), x, 2 * x - moved)


def _where_nan(x: Tensor, other: Tensor) -> Tensor:
    return torch.where(x.isnan(), other, x)


def _has_nan(result: Value) -> bool:
    return any(_is_inexact(x.dtype) and bool(x.isnan().any()) for x in tensors_in((result,)))


def _strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor."""
    strides = [1]
    for extent in shape[:0:-1]:
        strides.append(strides[-1] * extent)
    return tuple(strides[::-1]) if shape else ()


@lru_cache(maxsize=8)
def _sign_pool(dtype: Value, device: Value) -> Tensor:
    return torch.from_numpy(sign_pool()).to(device, dtype)


@lru_cache(maxsize=32)
def _factor_pool(dtype: Value, device: Value, size: float) -> Tensor:
    return _sign_pool(dtype, device) * size + 1


@lru_cache(maxsize=8)
def _floor_pool(dtype: Value, device: Value, size: float) -> Tensor:
    return _sign_pool(dtype, device) * size


def _dispatch_mode(operations: PerturbedOperations) -> Mode:
    """Return the context in which each aten operation is run on perturbed operands."""

    def dispatch(
        mode: Mode,
        operation: Operation,
        types: object,
        args: tuple[Value, ...] = (),
        kwargs: Mapping[str, Value] | None = None,
    ) -> Value:
        return operations.run(operation, args, kwargs or {}, mode)

    # The base class exists only once torch is imported, so the class is made here.
    base = import_module("torch.utils._python_dispatch").TorchDispatchMode
    defined = {"__torch_dispatch__": dispatch}
    if "torch._dynamo" in sys.modules:
        return type("Perturb", (base,), defined)()
    # torch keeps its compiler away from a mode that defines the method itself, and loads it for that: a second for
    # nothing where no code has been compiled. What a mode inherits is left alone.
    return type("Perturb", (type("Dispatch", (), defined), base), {})()


@lru_cache(maxsize=1)
def _decompositions() -> Mapping[Operation, Operation]:
    get_decompositions: Callable[..., dict[Operation, Operation]]
    get_decompositions = import_module("torch._decomp").get_decompositions
    decompositions = get_decompositions([getattr(torch.ops.aten, name) for name in FUSED.split()])
    aten = torch.ops.aten
    return {**decompositions, aten._softmax.default: _softmax, aten._softmax_backward_data.default: _softmax_backward}


def _softmax(x: Tensor, dim: int, _half_to_float: bool) -> Tensor:
    # Attention in blocks evaluates it so. Then the rounding of x shows where a probability is almost 1 as well.
    largest = x.amax(dim, keepdim=True)
    # In this order, since −1e30 absorbs the logarithm.
    return ((x - largest) - (x - largest).exp().sum(dim, keepdim=True).log()).exp()


def _softmax_backward(delta: Tensor, y: Tensor, dim: int, _dtype: Value) -> Tensor:
    # Unlike torch's decomposition it does not use one product δ·y twice, whose rounding would cancel.
    return y * (delta - (delta * y).sum(dim, keepdim=True))

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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

from oracles.constants import SIGN_POOL
from oracles.lazy_modules import Tensor, torch
from oracles.perturbation.sign_pool import sign_pool
from oracles.perturbation.torch_lengths import convolution_backward_lengths, reduction_length, tensors_in
from oracles.rule import Perturbation
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
# Fused operations. Rounding happens inside them, so they are decomposed into operations that can be perturbed.
FUSED = """
native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward native_batch_norm
native_batch_norm_backward _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data
nll_loss_forward nll_loss_backward gelu gelu_backward silu silu_backward tanh_backward sigmoid_backward softplus
softplus_backward huber_loss huber_loss_backward mse_loss mse_loss_backward leaky_relu_backward elu_backward
addmm std var var_mean logsumexp binary_cross_entropy_with_logits binary_cross_entropy binary_cross_entropy_backward
smooth_l1_loss smooth_l1_loss_backward log_sigmoid_forward log_sigmoid_backward
"""


class PerturbedOperations:
    """Runs aten operations on perturbed operands.

    Attributes:
        active: whether operands are perturbed; if not, the operations are only followed.
    """

    def __init__(self, perturbation: Perturbation, given: Iterable[Tensor], careful: bool) -> None:
        self.active = True
        self._perturbation = perturbation
        self._careful = careful
        self._state = int(perturbation.rng.integers(1, 2**31 - 1))
        self._decompositions = _decompositions()
        self._storage_key = import_module("torch.multiprocessing.reductions").StorageWeakRef
        # The memory of all that descends from what is given: weak references, so that none is reused unnoticed.
        self._descending: set[Any] = set()
        # By the memory of a sum: how far another evaluation of it lies from the one that is there.
        self._recomputed: dict[Any, Tensor] = {}
        self._follow(given)

    def run(self, operation: Operation, args: tuple[Value, ...], kwargs: Mapping[str, Value], mode: Mode) -> Value:
        """Run one operation; a decomposed one runs under ``mode``, which perturbs its parts."""
        name = operation.overloadpacket.__name__
        moves = operation.is_view or torch.Tag.inplace_view in operation.tags
        if moves or not self.active or _is_exact(operation, name, args, kwargs):
            result = operation(*args, **kwargs)
        elif (decomposition := self._decompositions.get(operation)) is not None:
            with mode:
                return decomposition(*args, **kwargs)
        elif name == "convolution_backward":
            result = self._convolution_backward(operation, args)
        else:
            result = self._perturbed_call(operation, name, args, kwargs)
        if any(map(self._descends, tensors_in((*args, *kwargs.values())))):
            self._follow(tensors_in((result,)))
        return result

    def _perturbed_call(
        self, operation: Operation, name: str, args: tuple[Value, ...], kwargs: Mapping[str, Value]
    ) -> Value:
        # Python's operators, such as __and__, end with two underscores and are not in place.
        in_place = name.endswith("_") and not name.endswith("__")
        length = reduction_length(name, torch.Tag.pointwise in operation.tags, args)
        size = self._perturbation.of_length(length)
        result = self._on_perturbed(operation, args, kwargs, size, in_place)
        if in_place:
            self._recomputed.pop(self._key(args[0]), None)
            # An operation in place, such as add_, wrote into a perturbed copy: the result belongs into its operand.
            return args[0].copy_(result)
        if length > 1 and isinstance(result, torch.Tensor) and _is_inexact(result.dtype):
            again, key = self._on_perturbed(operation, args, kwargs, size, in_place), self._key(result)
            if key is not None:
                # Of an infinite sum there is no other value.
                self._recomputed[key] = again.sub_(result).nan_to_num_(0.0, math.inf, -math.inf)
        return result

    def _convolution_backward(self, operation: Operation, args: tuple[Value, ...]) -> Value:
        """Evaluate each cotangent on its own: their sums are of very different lengths."""
        mask = args[-1]
        results = []
        for i, length in enumerate(convolution_backward_lengths(args)):
            alone = (*args[:-1], [i == j and wanted for j, wanted in enumerate(mask)])
            size = self._perturbation.of_length(length)
            results.append(self._on_perturbed(operation, alone, {}, size, False)[i] if mask[i] else None)
        return tuple(results)

    def _on_perturbed(
        self, operation: Operation, args: tuple[Value, ...], kwargs: Mapping[str, Value], size: float, in_place: bool
    ) -> Value:
        """Return an operation's result on perturbed operands, or a perturbed result where these leave its domain."""
        moved = [self._perturbed(value, size) for value in args]
        options = {n: self._perturbed(value, size) for n, value in kwargs.items()}
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
            plain = self._perturbed(plain, size)
            result = plain if result is None else _map(_where_nan, result, plain)
        return result

    def _perturbed(self, value: Value, size: float) -> Value:
        """Return a tensor, or each of a list, with simulated rounding; anything else as it is.

        Integers that descend from nothing given are exact for everybody: the order of a polygamma, an exponent.
        """
        if isinstance(value, list | tuple):
            return type(value)([self._perturbed(v, size) for v in value])
        if not (isinstance(value, torch.Tensor) and value.numel()):
            return value
        if not (value.is_floating_point() or value.is_complex()):
            return value
        key = self._key(value)
        if key is not None and key not in self._descending and _is_integral(value):
            return value
        absolute, difference = self._perturbation.absolute, self._difference(value, key)
        if value.is_complex():
            # The rounding of a product is relative to the modulus, not to the real and imaginary part.
            real = value.real.dtype
            signs = torch.complex(self._signs(value, real), self._signs(value, real))
            value = value.addcmul(value.abs().to(value.dtype), signs, value=size)
        else:
            value = self._times_factors(value, size)
            signs = self._signs(value, value.dtype) if absolute else None
        if difference is not None:
            value = value.addcmul(difference, self._signs(value, value.dtype))
        return value.add(signs, alpha=absolute) if absolute else value

    def _times_factors(self, x: Tensor, size: float) -> Tensor:
        """Return a real tensor with each entry times its own 1 ± size: by one product, since ∞ ± ∞ h would be NaN."""
        count, factors = x.numel(), self._factors(x, size)
        if size > self._perturbation.relative:
            # The partial sums of equal terms are all rounded the same way.
            factors = factors * factors[0]
        if count <= SIGN_POOL:
            return x * factors.view(x.shape)
        # The factors repeat, but to repeat them in memory would take longer than the product.
        flat, whole = x.reshape(-1), count // SIGN_POOL * SIGN_POOL
        result = torch.empty_like(flat)
        torch.mul(flat[:whole].view(-1, SIGN_POOL), factors, out=result[:whole].view(-1, SIGN_POOL))
        torch.mul(flat[whole:], factors[: count - whole], out=result[whole:])
        return result.view(x.shape)

    def _factors(self, like: Tensor, size: float) -> Tensor:
        """Return as many factors 1 ± size as a tensor has entries, at most `SIGN_POOL`: flat."""
        start = self._next_start()
        return _factor_pool(like.dtype, size)[start : start + min(like.numel(), SIGN_POOL)]

    def _difference(self, x: Tensor, key: object) -> Tensor | None:
        """Return how far another evaluation of a sum, or of a view of one, lies from it; ``None`` for anything else.

        Code may evaluate a sum again at each use, or use an identity instead (attention in blocks takes Σ δ·y for
        Σ P·δVᵀ). Each use then meets a rounding error of its own, which is relative to the terms, not to their sum.
        """
        difference = self._recomputed.get(key)
        if difference is None or difference.dtype != x.dtype:
            return None
        if difference.untyped_storage().nbytes() != x.untyped_storage().nbytes():
            return None
        return difference.as_strided(x.size(), x.stride(), x.storage_offset())

    def _signs(self, like: Tensor, dtype: Value) -> Tensor:
        """Return random signs in the shape of a tensor: a window into a pool, which is cheaper than drawing."""
        pool, size, start = _sign_pool(dtype), like.numel(), self._next_start()
        if size > SIGN_POOL:
            return pool[start : start + SIGN_POOL].repeat(-(-size // SIGN_POOL))[:size].view(like.shape)
        return pool[start : start + size].view(like.shape)

    def _next_start(self) -> int:
        """Return a place in a pool; windows may overlap, but no operand meets the same signs in the next sample."""
        self._state = self._state * 48271 % 2147483647  # Lehmer's generator
        return self._state % SIGN_POOL

    def _follow(self, tensors: Iterable[Tensor]) -> None:
        self._descending.update(filter(None, map(self._key, tensors)))

    def _descends(self, x: Tensor) -> bool:
        key = self._key(x)
        return key is None or key in self._descending

    def _key(self, x: Tensor) -> Any:
        """Return what identifies the memory of a tensor and of its views; ``None`` for a sparse one."""
        return self._storage_key(x.untyped_storage()) if x.layout is torch.strided else None


@contextmanager
def perturbed_operands(
    perturbation: Perturbation, given: Iterable[Tensor], *, careful: bool = False
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
    """
    operations = PerturbedOperations(perturbation, given, careful)
    # Attention in one kernel hides its operations; the mathematical one consists of those that can be perturbed.
    attention = import_module("torch.nn.attention")
    with attention.sdpa_kernel(attention.SDPBackend.MATH), _dispatch_mode(operations):
        yield operations


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


@lru_cache(maxsize=8)
def _sign_pool(dtype: Value) -> Tensor:
    return torch.from_numpy(sign_pool()).to(dtype)


@lru_cache(maxsize=32)
def _factor_pool(dtype: Value, size: float) -> Tensor:
    return _sign_pool(dtype) * size + 1


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
    return type("Perturb", (base,), {"__torch_dispatch__": dispatch})()


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
    return (x - (largest + (x - largest).exp().sum(dim, keepdim=True).log())).exp()


def _softmax_backward(delta: Tensor, y: Tensor, dim: int, _dtype: Value) -> Tensor:
    # Unlike torch's decomposition it does not use one product δ·y twice, whose rounding would cancel.
    return y * (delta - (delta * y).sum(dim, keepdim=True))

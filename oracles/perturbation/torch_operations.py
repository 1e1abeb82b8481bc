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

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any, TypeAlias

from oracles.lazy_modules import Tensor, torch
from oracles.rule import Perturbation

Value: TypeAlias = Any  # an argument or a result of an operation: a tensor, a number, a list of those
Operation: TypeAlias = Any  # an overload of an aten operation, such as torch.ops.aten.add.Tensor
Mode: TypeAlias = Any  # a TorchDispatchMode

# Operations that only move, select, compare or change a sign. They are exact in floating point, so they round nothing.
# fmt: off
EXACT = frozenset((
    "_to_copy", "abs", "alias", "amax", "amin", "argmax", "argmin", "as_strided", "bitwise_and",
    "bitwise_not", "bitwise_or", "bitwise_xor", "bool", "broadcast_to", "cat", "ceil", "clamp", "clamp_max",
    "clamp_min", "clone", "contiguous", "copy", "copy_", "detach", "diagonal", "empty", "empty_like", "eq",
    "expand", "expand_as", "eye", "fill", "fill_", "flip", "floor", "full", "full_like", "gather", "ge", "gt",
    "hardtanh", "index", "index_select", "isfinite", "isinf", "isnan", "le", "lift_fresh", "lt",
    "masked_fill", "max", "max_pool2d_with_indices", "max_pool2d_with_indices_backward", "maximum", "min",
    "minimum", "ne", "neg", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros", "one_hot",
    "ones", "ones_like", "permute", "relu", "repeat", "reshape", "roll", "round", "scalar_tensor", "scatter",
    "select", "select_backward", "sgn", "sign", "slice", "slice_backward", "sort", "split",
    "split_with_sizes", "squeeze", "stack", "t", "threshold_backward", "topk", "transpose", "tril", "triu",
    "unbind", "unfold", "unsafe_view", "unsqueeze", "value_selecting_reduction_backward", "view", "view_as",
    "where", "zero_", "zeros", "zeros_like",
))
# fmt: on
# Fused operations. Rounding happens inside them, so they are decomposed into operations that can be perturbed.
FUSED = """
native_layer_norm native_layer_norm_backward native_group_norm native_group_norm_backward native_batch_norm
native_batch_norm_backward _softmax _softmax_backward_data _log_softmax _log_softmax_backward_data
nll_loss_forward nll_loss_backward gelu gelu_backward silu silu_backward tanh_backward sigmoid_backward softplus
softplus_backward huber_loss huber_loss_backward mse_loss mse_loss_backward leaky_relu_backward elu_backward
addmm std var var_mean logsumexp binary_cross_entropy_with_logits
"""


@contextmanager
def perturbed_operands(perturbation: Perturbation) -> Iterator[None]:
    """Perturb the floating operands of every rounding aten operation in this context, forward and backward.

    Fused operations are decomposed first, so that the rounding inside them is simulated too: the fused backward of
    layer norm returns 7e-15 where the exact answer is 0, and perturbing its operands alone would not show that.
    """
    with _dispatch_mode(_Perturber(perturbation)):
        yield


class _Perturber:
    """Run aten operations on perturbed operands."""

    def __init__(self, perturbation: Perturbation) -> None:
        self.perturbation = perturbation
        self.generator = torch.Generator().manual_seed(int(perturbation.rng.integers(2**62)))
        self.decompositions = _decompositions()

    def run(self, operation: Operation, args: tuple[Value, ...], kwargs: Mapping[str, Value], mode: Mode) -> Value:
        """Run one operation; a decomposed one runs under ``mode``, which perturbs its parts."""
        name = operation.overloadpacket.__name__
        if operation.is_view or torch.Tag.inplace_view in operation.tags or name in EXACT:
            return operation(*args, **kwargs)
        decomposition = self.decompositions.get(operation)
        if decomposition is not None:
            with mode:
                return decomposition(*args, **kwargs)
        result = operation(*map(self.perturbed, args), **{n: self.perturbed(value) for n, value in kwargs.items()})
        # An operation in place, such as add_, wrote into a perturbed copy: the result belongs into its operand.
        # Python's operators, such as __and__, end with two underscores and are not in place.
        in_place = name.endswith("_") and not name.endswith("__")
        return args[0].copy_(result) if in_place else result

    def perturbed(self, value: Value) -> Value:
        """Return a tensor, or each of a list, with simulated rounding; anything else as it is."""
        if isinstance(value, list | tuple):
            return type(value)(map(self.perturbed, value))
        if not (isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel()):
            return value
        value = value * (1.0 + self.perturbation.relative * self._signs(value))
        if self.perturbation.absolute:
            value = value + self.perturbation.absolute * self._signs(value)
        return value

    def _signs(self, like: Tensor) -> Tensor:
        bits = torch.randint(0, 2, like.shape, generator=self.generator, dtype=torch.int8)
        return 2 * bits.to(like.dtype) - 1


def _dispatch_mode(perturber: _Perturber) -> Mode:
    """Return the context in which a perturber runs each aten operation."""

    def dispatch(
        mode: Mode,
        operation: Operation,
        types: object,
        args: tuple[Value, ...] = (),
        kwargs: Mapping[str, Value] | None = None,
    ) -> Value:
        return perturber.run(operation, args, kwargs or {}, mode)

    # The base class exists only once torch is imported, so the class is made here.
    base = import_module("torch.utils._python_dispatch").TorchDispatchMode
    return type("Perturb", (base,), {"__torch_dispatch__": dispatch})()


@lru_cache(maxsize=1)
def _decompositions() -> Mapping[Operation, Operation]:
    get_decompositions: Callable[..., dict[Operation, Operation]]
    get_decompositions = import_module("torch._decomp").get_decompositions
    return get_decompositions([getattr(torch.ops.aten, name) for name in FUSED.split()])

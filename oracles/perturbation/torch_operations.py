"""Perturb torch: every floating operand of every rounding aten operation, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from oracles.rule import Perturbation

# Operations that only move, select, compare or change a sign: exact in floating point, so nothing to imitate.
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


@contextmanager
def perturbed_operands(perturbation: Perturbation) -> Iterator[None]:
    """Within this context every rounding aten operation, forward and backward, sees perturbed operands.

    Composite and fused operations are decomposed to core ones where torch knows how, so that rounding inside them
    is imitated too: layer norm's fused backward returns 7e-15 where the exact answer is 0, and perturbing its
    operands alone would show nothing.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    table = _decompositions()
    generator = torch.Generator().manual_seed(int(perturbation.rng.integers(2**62)))

    def signs(like: Any) -> Any:
        return 2 * torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8).to(like.dtype) - 1

    def perturb(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(perturb, value))
        if not (isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel()):
            return value
        value = value * (1.0 + perturbation.relative * signs(value))
        return value + perturbation.absolute * signs(value) if perturbation.absolute else value

    class Perturb(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func.is_view or torch.Tag.inplace_view in func.tags or func.overloadpacket.__name__ in EXACT:
                return func(*args, **kwargs)
            rule = table.get(func)
            if rule is not None:
                with self:
                    return rule(*args, **kwargs)
            found = func(*map(perturb, args), **{name: perturb(value) for name, value in kwargs.items()})
            # What works in place wrote into a perturbed copy: its result belongs into the tensor that was meant.
            in_place = func._schema.is_mutable and func.overloadpacket.__name__.endswith("_")
            return args[0].copy_(found) if in_place else found

    with Perturb():
        yield


_TABLE: dict[Any, Any] = {}


def _decompositions() -> dict[Any, Any]:
    """Decompositions of fused operations whose inner rounding would otherwise stay hidden."""
    if not _TABLE:
        import torch
        from torch._decomp import get_decompositions

        aten = torch.ops.aten
        _TABLE.update(
            get_decompositions(
                [
                    aten.native_layer_norm,
                    aten.native_layer_norm_backward,
                    aten.native_group_norm,
                    aten.native_group_norm_backward,
                    aten.native_batch_norm,
                    aten.native_batch_norm_backward,
                    aten._softmax,
                    aten._softmax_backward_data,
                    aten._log_softmax,
                    aten._log_softmax_backward_data,
                    aten.nll_loss_forward,
                    aten.nll_loss_backward,
                    aten.gelu,
                    aten.gelu_backward,
                    aten.silu,
                    aten.silu_backward,
                    aten.tanh_backward,
                    aten.sigmoid_backward,
                    aten.softplus,
                    aten.softplus_backward,
                    aten.huber_loss,
                    aten.huber_loss_backward,
                    aten.mse_loss,
                    aten.mse_loss_backward,
                    aten.leaky_relu_backward,
                    aten.elu_backward,
                    aten.addmm,
                    aten.std,
                    aten.var,
                    aten.var_mean,
                    aten.logsumexp,
                    aten.binary_cross_entropy_with_logits,
                ]
            )
        )
    return _TABLE

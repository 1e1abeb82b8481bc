"""How many terms one entry of the result of an aten operation sums up: the length of its reduction.

The size of a rounding error grows with that length, see `oracles.rule.Perturbation.of_length`. Upper bounds will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

from oracles.lazy_modules import Tensor, torch

Value: TypeAlias = Any  # an argument of an operation: a tensor, a number, a list of those
Terms: TypeAlias = Callable[..., int]  # of the operation's positional arguments

# Operations of one entry of each operand that torch does not tag as pointwise.
# fmt: off
POINTWISE = frozenset((
    "_prelu_kernel", "_prelu_kernel_backward", "_to_copy", "binary_cross_entropy",
    "binary_cross_entropy_backward", "copy",
    "elu_backward", "glu", "glu_backward", "hardshrink_backward", "hardsigmoid_backward",
    "hardswish_backward", "hardtanh_backward", "huber_loss_backward", "leaky_relu", "leaky_relu_backward",
    "log_sigmoid_backward", "log_sigmoid_forward", "logit_backward", "mse_loss_backward", "native_dropout", "polar",
    "rrelu_with_noise", "rrelu_with_noise_backward", "rsub", "smooth_l1_loss_backward", "softplus_backward",
    "softshrink_backward", "special_i0", "special_polygamma", "unsafe_masked_index",
))
# fmt: on


# Matrix products and convolutions: matrix units may round their operands.
_PRODUCT_NAMES = "mm bmm addmm baddbmm addbmm mv addmv dot vdot addr linear matmul convolution _convolution _trilinear"
PRODUCTS = frozenset(_PRODUCT_NAMES.split())

# Backward stable by norm, as in `oracles.perturbation.numpy_lengths`; scaling and squaring is so for ordinary matrices.
_NORMWISE_NAMES = "_linalg_eigh linalg_eig _linalg_svd linalg_qr linalg_pinv linalg_lstsq linalg_matrix_exp geqrf"
NORMWISE = frozenset(_NORMWISE_NAMES.split())
# Kernels whose result has errors of its own, relative to its norm and not to its entries: the exponential of a small
# matrix is off by a rounding of the 1 on its diagonal in every entry.
NORMWISE_RESULT = frozenset(("linalg_matrix_exp",))


def reduction_length(name: str, pointwise: bool, args: Sequence[Value]) -> int:
    """Return the number of terms of the longest sum in an operation's result: 1 where nothing is summed.

    An operation without an entry in the table counts as one that sums along its longest axis.

    Args:
        name: the operation's name, such as ``"mm"``.
        pointwise: whether torch tags the operation as pointwise.
        args: its positional arguments.
    """
    name = name.rstrip("_")  # in place or not
    if pointwise or name in POINTWISE:
        return 1
    count = LENGTHS.get(name)
    if count is not None:
        return max(1, count(*args))
    return max((extent for x in tensors_in(args) for extent in x.shape), default=1)


def convolution_backward_lengths(args: Sequence[Value]) -> tuple[int, int, int]:
    """Return the number of terms in one entry of each cotangent of a convolution: of input, weight and bias."""
    delta, x, weight, transposed = args[0], args[1], args[2], args[7]
    positions = x.shape[0] * math.prod((x if transposed else delta).shape[2:])
    # The backward of a convolution is a transposed one, and the reverse.
    return _convolution(delta, weight, None, None, None, None, not transposed, None, args[9]), positions, positions


def tensors_in(values: Iterable[Value]) -> Iterator[Tensor]:
    """Yield the tensors among values and in lists of values."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def _extents(x: Tensor, dims: Value) -> int:
    if not x.dim():
        return 1
    if isinstance(dims, int):
        dims = [dims]
    return math.prod(x.shape[d] for d in dims) if dims else x.numel()


def _over(x: Tensor, dims: Value = None, *_: Value) -> int:
    return _extents(x, dims if isinstance(dims, int | list | tuple) and not isinstance(dims, bool) else None)


def _norm(x: Tensor, _order: Value = None, dims: Value = None, *_: Value) -> int:
    return _extents(x, dims)


def _last_axis(x: Tensor, *_: Value) -> int:
    return int(x.shape[-1]) if x.dim() else 1


def _last_axis_of_second(_sum: Tensor, x: Tensor, *_: Value) -> int:
    return _last_axis(x)


def _convolution(
    x: Tensor,
    weight: Tensor,
    _bias: Value,
    _stride: Value,
    _padding: Value,
    _dilation: Value,
    transposed: bool = False,
    _output_padding: Value = None,
    groups: int = 1,
    *_: Value,
) -> int:
    """Return the terms of an entry; a kernel has axes (out, in / groups, …), a transposed one (in, out / groups, …)."""
    channels = weight.shape[0] // groups if transposed else weight.shape[1]
    return int(channels * math.prod(weight.shape[2:])) + 1  # the bias


def _transform(x: Tensor, dims: Sequence[int], *_: Value) -> int:
    return _extents(x, dims)


def _transform_to_real(x: Tensor, dims: Sequence[int], _norm: Value, last: int) -> int:
    return _extents(x, dims[:-1]) * last if len(dims) > 1 else last


def _window(_x: Tensor, kernel: Sequence[int], *_: Value) -> int:
    # One number stands for as many axes as there may be: three.
    return math.prod(kernel) if len(kernel) > 1 else kernel[0] ** 3


def _window_backward(_delta: Tensor, _x: Tensor, kernel: Sequence[int], *_: Value) -> int:
    return _window(_x, kernel)


def _windows_of_a_cell(
    _delta: Tensor, x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), *rest: Value
) -> int:
    """Return how many windows of a max-pooling may have their maximum in one cell."""
    axes = 3 if x.dim() == 5 else 2
    kernel = [*kernel] * (axes if len(kernel) == 1 else 1)
    stride = [*(stride or kernel)] * (axes if len(stride) == 1 else 1)
    dilation = rest[1] if len(rest) > 1 else (1,)
    reach = (d * (k - 1) + 1 for k, d in zip_longest(kernel, dilation[: len(kernel)], fillvalue=max(dilation)))
    return math.prod(min(k, -(-r // s)) for k, r, s in zip(kernel, reach, stride, strict=False))


def _adaptive(x: Tensor, output: Sequence[int], *_: Value) -> int:
    return math.prod(-(-extent // max(1, out)) + 1 for extent, out in zip(reversed(x.shape), reversed(output)))  # noqa: B905


def _equal_indices(indices: Tensor) -> int:
    """Return how often the most frequent index occurs; negative ones count from the end, as an upper bound."""
    flat = indices.reshape(-1)
    if not flat.numel():
        return 0
    _, counts = torch.unique(flat, return_counts=True)
    # An index and its negative twin are one entry.
    return int(counts.max()) * (2 if bool((flat < 0).any()) else 1)


def _index_add(x: Tensor, _dim: int, index: Tensor, *_: Value) -> int:
    return _equal_indices(index) + 1  # the entry that is added to


def _scatter(x: Tensor, dim: int, index: Tensor, *_: Value) -> int:
    if not index.numel():
        return 1
    counts = torch.zeros(x.shape, dtype=torch.int64, device=x.device)
    return int(counts.scatter_add(dim, index, torch.ones_like(index, dtype=torch.int64)).max()) + 1


def _index_put(x: Tensor, indices: Sequence[Value], _values: Value, accumulate: bool = False, *_: Value) -> int:
    if not accumulate:
        return 1
    counts = torch.zeros(x.shape, dtype=torch.int64, device=x.device)
    one = torch.ones((), dtype=torch.int64, device=x.device)
    return int(torch.ops.aten.index_put(counts, list(indices), one, True).max()) + 1 if x.numel() else 1


def _put(_x: Tensor, index: Tensor, *_: Value) -> int:
    return _equal_indices(index) + 1


def _embedding_backward(_delta: Tensor, indices: Tensor, *_: Value) -> int:
    return _equal_indices(indices)


def _unfolded(_delta: Tensor, _sizes: Value, _dim: int, size: int, step: int) -> int:
    return -(-size // step)


def _folded(_x: Tensor, _size: Value, kernel: Sequence[int], *_: Value) -> int:
    return math.prod(kernel)


def _all_entries(x: Tensor, *_: Value) -> int:
    return int(x.numel())


def _batched(_sum: Tensor, x: Tensor, *_: Value) -> int:
    return int(x.shape[0] * x.shape[-1])


def _table(*rows: tuple[Terms, str]) -> dict[str, Terms]:
    return {name: terms for terms, names in rows for name in names.split()}


LENGTHS: Mapping[str, Terms] = _table(
    (_over, "sum mean nansum nanmean prod var var_mean std std_mean logsumexp cumsum cumprod logcumsumexp"),
    (_norm, "norm linalg_vector_norm"),
    (_last_axis, "mm bmm mv matmul linear trace _euclidean_dist _cdist_forward _pdist_forward"),
    (_last_axis_of_second, "addmm addmv baddbmm _addmm_activation"),
    (_all_entries, "dot vdot mse_loss l1_loss smooth_l1_loss huber_loss"),
    (lambda *_: 2, "ger outer addr"),  # a product, and what it is added to
    (_batched, "addbmm"),
    (_convolution, "convolution _convolution convolution_overrideable"),
    (_transform, "_fft_r2c _fft_c2c"),
    (_transform_to_real, "_fft_c2r"),
    (_window, "avg_pool1d avg_pool2d avg_pool3d"),
    (_window_backward, "avg_pool2d_backward avg_pool3d_backward"),
    (_windows_of_a_cell, "max_pool2d_with_indices_backward max_pool3d_with_indices_backward"),
    (_adaptive, "_adaptive_avg_pool2d _adaptive_avg_pool3d"),
    (_index_add, "index_add index_reduce"),
    (_scatter, "scatter scatter_add scatter_reduce"),
    (_index_put, "index_put _index_put_impl _unsafe_index_put"),
    (_put, "put"),
    (_embedding_backward, "embedding_dense_backward"),
    (_unfolded, "unfold_backward"),
    (_folded, "col2im"),
)

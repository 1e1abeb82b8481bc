"""How many terms one entry of the result of a NumPy operation sums up: the length of its reduction.

The size of a rounding error grows with that length, see `oracles.rule.Perturbation.of_length`. Upper bounds will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = Any  # an argument of a function: an array, a number, an axis, a tuple of those
Length: TypeAlias = Callable[..., int]

# Functions of one entry of each argument, or of a few neighbours.
_ELEMENTWISE_NAMES = """
sinc i0 unwrap round around fix angle real_if_close diff ediff1d gradient interp kron outer cross
nan_to_num
"""
_ELEMENTWISE = frozenset(_ELEMENTWISE_NAMES.split())


# Matrix products: matrix units may round their operands.
PRODUCTS = frozenset(("dot", "inner", "outer", "matmul", "vecdot", "matvec", "vecmat", "vdot", "einsum", "tensordot"))

# Decompositions by orthogonal transformations: they are backward stable by norm, so that an entry of the matrix moves
# by a rounding of the typical one, however small it is itself (Golub & Van Loan, Matrix Computations, 5.2 and 8.3).
_NORMWISE_NAMES = "eig eigh eigvals eigvalsh svd svdvals qr pinv lstsq cond matrix_rank matrix_norm"
NORMWISE = frozenset(_NORMWISE_NAMES.split())


def length_of_ufunc(ufunc: np.ufunc, method: str, operands: Sequence[Value], options: Mapping[str, Value]) -> int:
    """Return the number of terms of the longest sum in a ufunc's result: 1 for one that is called elementwise.

    Args:
        ufunc: the ufunc.
        method: the method that is called: "__call__", "reduce", "accumulate", "reduceat", "outer" or "at".
        operands: the operands.
        options: the other arguments.
    """
    if method in ("reduce", "accumulate", "reduceat"):
        axis = options.get("axis", 0)
        return extents(operands[0], axis)
    if method == "at":
        return _equal_indices(operands[1]) + 1  # the entry that is added to
    # A generalized ufunc, such as matmul: its signature names the axes that are summed.
    return _last_extent(operands) if ufunc.signature else 1


def length_of_function(function: Value, args: Sequence[Value], kwargs: Mapping[str, Value]) -> int:
    """Return the number of terms of the longest sum in a function's result.

    A function without an entry in the table counts as one that sums along its longest axis.

    Args:
        function: the NumPy function.
        args, kwargs: its arguments.
    """
    name = function.__name__
    if name in _ELEMENTWISE:
        return 1
    length = _LENGTHS.get(name)
    if length is not None:
        return length(*args, **kwargs)
    return longest_extent((*args, *kwargs.values()))


def extents(array: Value, axis: Value = None) -> int:
    """Return the number of entries along one axis, several, or all of them."""
    shape = np.shape(array)
    if axis is None:
        return math.prod(shape)
    axes = axis if isinstance(axis, tuple | list) else (axis,)
    return math.prod(shape[int(k)] for k in axes) if shape else 1


def longest_extent(values: Iterable[Value]) -> int:
    """Return the length of the longest axis among arrays and lists of arrays."""
    return max((extent for a in _arrays(values) for extent in a.shape), default=1)


def _arrays(values: Iterable[Value]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, np.ndarray):
            yield value
        elif isinstance(value, tuple | list):
            yield from _arrays(value)


def _last_extent(operands: Sequence[Value]) -> int:
    shape = np.shape(operands[0])
    return shape[-1] if shape else 1


def _equal_indices(index: Value) -> int:
    """Return an upper bound on how often one entry is indexed: the count of the most frequent index along one axis."""
    parts = index if isinstance(index, tuple) else (index,)
    counts = []
    for part in parts:
        array = np.asarray(part) if isinstance(part, np.ndarray | list | int | np.integer) else None
        if array is not None and array.dtype.kind in "iu" and array.size:
            # An index and its negative twin are one entry.
            most = int(np.unique(array, return_counts=True)[1].max())
            counts.append(most * (2 if bool((array < 0).any()) else 1))
    # Where all indices are equal along one axis, another axis may tell them apart.
    return min(counts, default=1)


def _over_axis(a: Value, axis: Value = None, *_: Value, **__: Value) -> int:
    return extents(a, axis)


def _contracted(a: Value, b: Value, *_: Value, **__: Value) -> int:
    return _last_extent((a,)) if np.ndim(a) and np.ndim(b) else 1


def _all_entries(a: Value, *_: Value, **__: Value) -> int:
    return int(np.size(a))


def _tensordot(a: Value, b: Value, axes: Value = 2) -> int:
    shape = np.shape(a)
    if isinstance(axes, int | np.integer):
        return math.prod(shape[len(shape) - int(axes) :])
    return extents(a, axes[0])


def _einsum(subscripts: Value, *operands: Value, **__: Value) -> int:
    """Return the product of the extents that the result does not have; all of them if the subscripts are no string."""
    if not isinstance(subscripts, str):
        return math.prod(longest_extent((a,)) for a in _arrays(operands))
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for labels, a in zip(inputs.split(","), operands, strict=False):
        before, ellipsis, after = labels.partition("...")
        shape = np.shape(a)
        sizes.update(zip(before, shape, strict=False))
        sizes.update(zip(reversed(after if ellipsis else ""), reversed(shape), strict=False))
    if not arrow:
        output = "".join(label for label in sizes if inputs.count(label) == 1)
    return math.prod(n for label, n in sizes.items() if label not in output)


def _convolution(a: Value, v: Value, *_: Value, **__: Value) -> int:
    return min(np.size(a), np.size(v))


def _transform(a: Value, n: Value = None, axis: Value = -1, *_: Value, **__: Value) -> int:
    return int(n) if isinstance(n, int | np.integer) else extents(a, axis)


def _transforms(a: Value, s: Value = None, axes: Value = None, *_: Value, **__: Value) -> int:
    return math.prod(map(int, s)) if s is not None else extents(a, axes)


def _planar_transform(a: Value, s: Value = None, axes: Value = (-2, -1), *_: Value, **__: Value) -> int:
    return _transforms(a, s, axes)


def _bincount(x: Value, *_: Value, **__: Value) -> int:
    return _equal_indices(x)


def _table(*rows: tuple[Length, str]) -> dict[str, Length]:
    return {name: length for length, names in rows for name in names.split()}


_LENGTHS: Mapping[str, Length] = _table(
    (_over_axis, "sum mean prod var std nansum nanmean nanprod nanvar nanstd average cumsum cumprod nancumsum"),
    (_contracted, "dot inner matmul vecdot matvec"),
    (_all_entries, "vdot norm"),
    (_tensordot, "tensordot"),
    (_einsum, "einsum"),
    (_convolution, "convolve correlate"),
    (_transform, "fft ifft rfft irfft hfft ihfft"),
    (_planar_transform, "fft2 ifft2 rfft2 irfft2"),
    (_transforms, "fftn ifftn rfftn irfftn"),
    (_bincount, "bincount"),
)

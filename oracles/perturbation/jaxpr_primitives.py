"""The JAX primitives that NumPy can evaluate: for each of them, the NumPy function of one equation.

`oracles.perturbation.jaxpr` turns equations into calls of these functions. What is not in `PRIMITIVES` goes to XLA.
Nothing here imports JAX: parameters and shapes come from the jaxpr.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from oracles.perturbation import jaxpr_kernels as kernels
from oracles.perturbation.jaxpr_equations import Equation, Kernel, Maker
from oracles.perturbation.random_signs import unit_of
from oracles.rule import Array


def _elementwise(function: Callable[..., Any], rounds: bool = True) -> Maker:
    kernel = Kernel(function, rounds, broadcasts=True, fresh=True)
    return lambda eq: kernel


def _in_dtype(function: Callable[..., Any]) -> Maker:
    """Make the kernel of a function that takes a 1 of the result's dtype before its operands."""
    return lambda eq: Kernel(
        partial(function, np.asarray(1, eq.outputs[0].dtype)), rounds=True, broadcasts=True, fresh=True
    )


def _special(name: str) -> Maker:
    return _elementwise(partial(kernels.special, name))


# Operations without rounding.
_EXACT: dict[str, Callable[..., Any]] = {
    "neg": np.negative, "max": np.maximum, "min": np.minimum, "floor": np.floor, "ceil": np.ceil,
    "is_finite": np.isfinite, "gt": np.greater, "lt": np.less, "ge": np.greater_equal,
    "le": np.less_equal, "eq": np.equal, "ne": np.not_equal, "and": np.bitwise_and, "or": np.bitwise_or,
    "xor": np.bitwise_xor, "not": np.invert, "shift_left": np.left_shift, "shift_right_arithmetic": np.right_shift,
    "rem": np.fmod, "nextafter": np.nextafter,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
}  # fmt: skip
_ROUNDING: dict[str, Callable[..., Any]] = {
    "add": np.add, "add_any": np.add, "sub": np.subtract, "square": np.square, "atan2": np.arctan2, "exp": np.exp,
    "exp2": np.exp2, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "sqrt": np.sqrt, "cbrt": np.cbrt,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh,
}  # fmt: skip
_SPECIAL = {
    "erf": "erf", "erfc": "erfc", "erf_inv": "erfinv", "lgamma": "gammaln", "digamma": "psi", "bessel_i0e": "i0e",
    "bessel_i1e": "i1e", "igamma": "gammainc", "igammac": "gammaincc", "polygamma": "polygamma", "zeta": "zeta",
    "regularized_incomplete_beta": "betainc",
}  # fmt: skip


def _of_complex_rounds(function: Callable[..., Any]) -> Maker:
    """Make the kernel of a function that is exact for real numbers: |x| and the sign."""
    return lambda eq: Kernel(function, rounds=eq.inputs[0].is_complex, broadcasts=True, fresh=True)


def _multiply(eq: Equation) -> Kernel:
    """Multiply; by a constant 0, ±1 or ±i that is exact."""
    exact = any(v.constant is not None and is_trivial_factor(v.constant) for v in eq.inputs)
    return Kernel(np.multiply, rounds=not exact, broadcasts=True, fresh=True)


def is_trivial_factor(x: Array) -> bool:
    """Return whether a product with this one number is exact: it is 0, ±1 or ±i."""
    return np.size(x) == 1 and complex(np.asarray(x).reshape(-1)[0]) in (0, 1, -1, 1j, -1j)


def _divide(eq: Equation) -> Kernel:
    function = np.divide if eq.outputs[0].is_floating else kernels.divide_int
    return Kernel(function, rounds=True, broadcasts=True, fresh=True)


def _complex(eq: Equation) -> Kernel:
    """Put real and imaginary parts together; NumPy's x + iy would make NaN of the parts of an infinite number."""
    dtype = eq.outputs[0].dtype

    def together(x: Array, y: Array) -> Array:
        z = np.empty(np.broadcast_shapes(x.shape, y.shape), dtype)
        z.real, z.imag = x, y
        return z

    return Kernel(together, broadcasts=True, fresh=True)


def _conjugate(eq: Equation) -> Kernel:
    dtype = eq.outputs[0].dtype
    return Kernel(lambda x: np.conjugate(x).astype(dtype, copy=False), broadcasts=True, fresh=True)


def _power(eq: Equation) -> Kernel:
    dtype = eq.outputs[0].dtype
    if eq.outputs[0].is_floating and not eq.inputs[1].is_floating:
        return Kernel(lambda x, y: np.power(x, y.astype(dtype)), rounds=True, broadcasts=True, fresh=True)
    return Kernel(np.power, rounds=True, broadcasts=True, fresh=True)


def _integer_power(eq: Equation) -> Kernel:
    y, one = int(eq.params["y"]), np.asarray(1, eq.outputs[0].dtype)
    function: Callable[[Array], Any]
    if abs(y) == 2:
        function = np.square if y > 0 else lambda x: one / np.square(x)
    else:
        function = (lambda x: np.power(x, y)) if y > 0 else lambda x: one / np.power(x, -y)
    return Kernel(function, rounds=True, broadcasts=True, fresh=True)


def _horner(eq: Equation) -> Kernel:
    return Kernel(_polynomial, rounds=True, terms=len(eq.inputs) - 1, broadcasts=True, fresh=True)


def _polynomial(x: Array, *coefficients: Array) -> Array:
    """Evaluate a₀ + a₁ x + … + aₙ xⁿ by Horner's rule, as XLA does."""
    result = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result


def _round(eq: Equation) -> Kernel:
    to_even = int(eq.params["rounding_method"]) == 1
    return Kernel(np.rint if to_even else kernels.round_away, broadcasts=True, fresh=True)


def _select(eq: Equation) -> Kernel:
    if eq.inputs[0].dtype.kind == "b" and len(eq.inputs) == 3:
        return Kernel(lambda which, no, yes: np.where(which, yes, no), broadcasts=True, fresh=True)
    return Kernel(lambda which, *cases: np.choose(which, cases), broadcasts=True)


def _convert(eq: Equation) -> Kernel:
    """Convert; between floating dtypes of other precisions that rounds, or shows what rounding came before."""
    old, new = eq.inputs[0], eq.outputs[0]
    dtype = new.dtype
    if old.is_floating and not new.is_floating and dtype.kind != "b":
        return Kernel(lambda x: kernels.to_int(x, dtype), broadcasts=True)
    if old.dtype == dtype:
        return Kernel(None, broadcasts=True)
    rounds = old.is_floating and new.is_floating and unit_of(old.dtype) != unit_of(dtype)
    if old.is_complex and not new.is_complex:
        return Kernel(lambda x: x.real.astype(dtype), rounds, broadcasts=True)
    return Kernel(lambda x: x.astype(dtype), rounds, broadcasts=True)


def _bitcast(eq: Equation) -> Kernel:
    """Read the same bits as another dtype; between dtypes of different sizes the last axis appears or goes."""
    (out,) = eq.outputs
    return Kernel(lambda x: np.ascontiguousarray(x).reshape(-1).view(out.dtype).reshape(out.shape))


def extreme(dtype: np.dtype[Any], which: str) -> Array:
    """Return the "min" or "max" of a dtype, infinities included."""
    if dtype.kind == "b":
        return np.asarray(which == "max")
    if dtype.kind in "iu":
        return np.asarray(getattr(np.iinfo(dtype), which), dtype)
    return np.asarray(-np.inf if which == "min" else np.inf, dtype)


def _reduce(ufunc: np.ufunc, rounds: bool = False, empty: str = "") -> Maker:
    """Make the kernel of a reduction; ``empty`` is the extreme that a maximum or minimum over nothing has."""

    def make(eq: Equation) -> Kernel:
        (x,), (out,), axes = eq.inputs, eq.outputs, tuple(int(a) for a in eq.params["axes"])
        if all(x.shape[a] == 1 for a in axes):
            return _reshape(eq)
        options: dict[str, Any] = {} if out.is_floating or empty else {"dtype": out.dtype}
        if empty and any(x.shape[a] == 0 for a in axes):
            options["initial"] = extreme(out.dtype, empty)
        over = axes[0] if len(axes) == 1 else axes
        terms = math.prod(x.shape[a] for a in axes)
        if options:
            return Kernel(lambda x: ufunc.reduce(x, over, **options), rounds, terms, fresh=True)
        return Kernel(lambda x: ufunc.reduce(x, over), rounds, terms, fresh=True)

    return make


def _argument(function: Callable[..., Any]) -> Maker:
    def make(eq: Equation) -> Kernel:
        axis, dtype = eq.params["axes"][0], eq.outputs[0].dtype
        return Kernel(lambda x: function(x, axis).astype(dtype))

    return make


def _accumulate(ufunc: np.ufunc, rounds: bool) -> Maker:
    def make(eq: Equation) -> Kernel:
        axis, dtype, terms = eq.params["axis"], eq.inputs[0].dtype, eq.inputs[0].shape[eq.params["axis"]]
        if not eq.params["reverse"]:
            return Kernel(lambda x: ufunc.accumulate(x, axis, dtype), rounds, terms)
        flip = (*(slice(None),) * axis, slice(None, None, -1))
        return Kernel(lambda x: ufunc.accumulate(x[flip], axis, dtype)[flip], rounds, terms)

    return make


def _dot_general(eq: Equation) -> Kernel:
    """Contract as a stack of matrix products; 16-bit operands are summed in float32, as XLA does."""
    (a, b), (out,) = eq.inputs, eq.outputs
    (ka, kb), (na, nb) = eq.params["dimension_numbers"]
    shape, dtype = out.shape, out.dtype
    wide = np.dtype(np.float32) if out.is_floating and dtype.itemsize == 2 else dtype
    if a.dtype != wide or b.dtype != wide or wide != dtype:
        # What is stored rounds once; the sum in float32 is exact next to that.
        inner = _contraction(a.shape, b.shape, (ka, kb), (na, nb), shape)
        return Kernel(lambda x, y: inner(x.astype(wide), y.astype(wide)).astype(dtype), rounds=True, product=True)
    terms = math.prod(a.shape[d] for d in ka)
    product = _contraction(a.shape, b.shape, (ka, kb), (na, nb), shape)
    return Kernel(product, rounds=True, terms=terms, product=True)


def _contraction(
    a: Sequence[int], b: Sequence[int], contracted: Sequence[Any], batch: Sequence[Any], shape: tuple[int, ...]
) -> Callable[[Array, Array], Any]:
    (ka, kb), (na, nb) = contracted, batch
    if not na and len(ka) == 1 and 0 < len(a) < 3 and 0 < len(b) < 3:
        turn_a, turn_b = len(a) == 2 and ka[0] == 0, len(b) == 2 and kb[0] == 1
        if turn_a:
            return (lambda x, y: np.dot(x.T, y.T)) if turn_b else lambda x, y: np.dot(x.T, y)
        return (lambda x, y: np.dot(x, y.T)) if turn_b else np.dot
    fa, fb = ([d for d in range(len(s)) if d not in (*k, *n)] for s, k, n in ((a, ka, na), (b, kb, nb)))
    left, right = _as_matrices(a, na, fa, ka), _as_matrices(b, nb, kb, fb)
    return lambda x, y: np.matmul(left(x), right(y)).reshape(shape)


def _as_matrices(
    shape: Sequence[int], batch: Sequence[int], rows: Sequence[int], columns: Sequence[int]
) -> Callable[[Array], Array]:
    """Return the function that groups the axes of an array as a stack of matrices."""
    order = (*batch, *rows, *columns)
    extents = (*(shape[d] for d in batch), *(math.prod(shape[d] for d in group) for group in (rows, columns)))
    in_order = order == tuple(range(len(order)))
    if len(rows) == len(columns) == 1:
        return (lambda x: x) if in_order else lambda x: x.transpose(order)
    return (lambda x: x.reshape(extents)) if in_order else lambda x: x.transpose(order).reshape(extents)


def _broadcast(eq: Equation) -> Kernel:
    """Insert axes of extent one where they are needed: NumPy broadcasts the rest where it is used."""
    (x,), (out,) = eq.inputs, eq.outputs
    axes = [int(d) for d in eq.params["broadcast_dimensions"]]
    if axes == list(range(len(out.shape) - len(axes), len(out.shape))):  # NumPy aligns trailing axes itself
        return Kernel(None, broadcasts=True)
    extents = [1] * len(out.shape)
    for d, n in zip(axes, x.shape, strict=True):
        extents[d] = n
    shape = tuple(extents)
    return Kernel(lambda x: x.reshape(shape), shape=shape)


def _iota(eq: Equation) -> Kernel:
    (out,), axis = eq.outputs, eq.params["dimension"]
    shape = [-1 if d == axis else 1 for d in range(len(out.shape))]
    return Kernel(lambda: np.arange(out.shape[axis], dtype=out.dtype).reshape(shape))


def _reshape(eq: Equation) -> Kernel:
    shape, order = eq.outputs[0].shape, eq.params.get("dimensions")
    if order is not None:
        return Kernel(lambda x: x.transpose(order).reshape(shape))
    return Kernel(lambda x: x.reshape(shape))


def _transpose(eq: Equation) -> Kernel:
    order = tuple(eq.params["permutation"])
    return Kernel(lambda x: x.transpose(order))


def _concatenate(eq: Equation) -> Kernel:
    axis = eq.params["dimension"]
    return Kernel(lambda *parts: np.concatenate(parts, axis), fresh=True)


def _split(eq: Equation) -> Kernel:
    axis, ends = eq.params["axis"], np.cumsum([0, *eq.params["sizes"]]).tolist()
    before = (slice(None),) * axis
    cuts = [(*before, slice(a, b)) for a, b in pairwise(ends)]
    return Kernel(lambda x: [x[cut] for cut in cuts], several=True)


def _stack(eq: Equation) -> Kernel:
    axis = eq.params["axis"]
    return Kernel(lambda *parts: np.stack(parts, axis), fresh=True)


def _unstack(eq: Equation) -> Kernel:
    cuts = [(*(slice(None),) * eq.params["axis"], i) for i in range(len(eq.outputs))]
    return Kernel(lambda x: [x[cut] for cut in cuts], several=True)


def _slice(eq: Equation) -> Kernel:
    starts, ends = eq.params["start_indices"], eq.params["limit_indices"]
    steps = eq.params["strides"] or [1] * len(starts)
    cut = tuple(slice(a, b, c) for a, b, c in zip(starts, ends, steps, strict=True))
    return Kernel(lambda x: x[cut])


def _tile(eq: Equation) -> Kernel:
    repeats = tuple(eq.params["reps"])
    return Kernel(lambda x: np.tile(x, repeats))


def _reverse(eq: Equation) -> Kernel:
    axes = tuple(eq.params["dimensions"])
    return Kernel(lambda x: np.flip(x, axes))


def _pad(eq: Equation) -> Kernel:
    config = eq.params["padding_config"]
    return Kernel(lambda x, value: kernels.pad(x, value, config))


def _dynamic_slice(eq: Equation) -> Kernel:
    sizes = eq.params["slice_sizes"]
    return Kernel(lambda x, *starts: kernels.dynamic_slice(x, starts, sizes))


def _dynamic_update_slice(eq: Equation) -> Kernel:
    return Kernel(lambda x, update, *starts: kernels.dynamic_update_slice(x, update, starts), fresh=True)


def _gather(eq: Equation) -> Kernel:
    n, (out,), missing = eq.params["dimension_numbers"], eq.outputs, eq.params["fill_value"]
    if missing is None:
        missing = np.nan if out.is_floating else extreme(out.dtype, "max" if out.dtype.kind in "ub" else "min")
    layout = (n.offset_dims, n.collapsed_slice_dims, n.start_index_map)
    batched = (n.operand_batching_dims, n.start_indices_batching_dims)
    sizes, clip = eq.params["slice_sizes"], eq.params["mode"].name != "FILL_OR_DROP"
    filler = np.asarray(missing, out.dtype)
    return Kernel(lambda x, indices: kernels.gather(x, indices, sizes, clip, filler, *layout, batched))


def _scatter(combine: np.ufunc | None, rounds: bool = False) -> Maker:
    def make(eq: Equation) -> Kernel:
        n, clip = eq.params["dimension_numbers"], eq.params["mode"].name == "CLIP"
        batched = (n.operand_batching_dims, n.scatter_indices_batching_dims)
        layout = (n.update_window_dims, n.inserted_window_dims, n.scatter_dims_to_operand_dims, batched)
        # Each window of updates touches an entry once at most.
        starts = [d for d in range(len(eq.inputs[1].shape) - 1) if d not in batched[1]]
        terms = 1 + math.prod(eq.inputs[1].shape[d] for d in starts)
        return Kernel(
            lambda x, i, updates: kernels.scatter(x, i, updates, combine, clip, *layout), rounds, terms, fresh=True
        )

    return make


def _sort(eq: Equation) -> Kernel:
    axis, keys = eq.params["dimension"], eq.params["num_keys"]
    return Kernel(lambda *operands: kernels.sort(operands, axis, keys), several=True)


def _top_k(eq: Equation) -> Kernel:
    k, axis, dtype = eq.params["k"], eq.params["axis"] % len(eq.inputs[0].shape), eq.outputs[1].dtype
    return Kernel(lambda x: kernels.top_k(x, k, axis, dtype), several=True)


def _platform_index(eq: Equation) -> Kernel:
    """Choose the branch that `jax.lax.platform_dependent` runs on a CPU."""
    branch = next(i for i, names in enumerate(eq.params["platforms"]) if names is None or "cpu" in names)
    return Kernel(lambda: np.asarray(branch, eq.outputs[0].dtype))


def _reduce_window(ufunc: np.ufunc, start: str) -> Maker:
    """Make the kernel that reduces windows; padding has the extreme ``start``, or is 0 for sums, which round."""

    def make(eq: Equation) -> Kernel:
        (x,), p = eq.inputs, eq.params
        config = [(lo, hi, d - 1) for (lo, hi), d in zip(p["padding"], p["base_dilation"], strict=True)]
        first = extreme(x.dtype, start) if start else np.zeros((), x.dtype)
        layout = (p["window_dimensions"], p["window_strides"], p["window_dilation"])
        terms = math.prod(p["window_dimensions"])
        return Kernel(lambda x: kernels.reduce_window(x, ufunc, first, config, *layout), not start, terms)

    return make


def _select_and_scatter_add(eq: Equation) -> Kernel:
    p, largest = eq.params, eq.params["select_prim"].name == "ge"
    layout = (p["window_dimensions"], p["window_strides"], p["padding"])
    # So many windows overlap in one entry.
    terms = math.prod(-(-n // step) for n, step in zip(p["window_dimensions"], p["window_strides"], strict=True))
    return Kernel(
        lambda source, x: kernels.select_and_scatter_add(source, x, largest, *layout), True, terms, decides=(1,)
    )


def _fft(eq: Equation) -> Kernel:
    kind, lengths, dtype = int(eq.params["fft_type"]), eq.params["fft_lengths"], eq.outputs[0].dtype
    return Kernel(lambda x: kernels.fft(x, kind, lengths, dtype), True, math.prod(lengths))


def _convolution(eq: Equation) -> Kernel:
    p, n = eq.params, eq.params["dimension_numbers"]
    config = [(lo, hi, d - 1) for (lo, hi), d in zip(p["padding"], p["lhs_dilation"], strict=True)]
    layout = (p["feature_group_count"], p["batch_group_count"], p["window_strides"], config, p["rhs_dilation"])
    back = [n.out_spec.index(d) for d in range(len(n.out_spec))]

    def convolve(x: Array, kernel: Array) -> Array:
        y = kernels.convolve(x.transpose(n.lhs_spec), kernel.transpose(n.rhs_spec), *layout)
        return y.transpose(back)

    weights = eq.inputs[1].shape
    terms = math.prod(weights) // max(1, weights[n.rhs_spec[0]]) if eq.inputs[0].dtype.itemsize > 2 else 1
    return Kernel(convolve, rounds=True, terms=terms, product=True)


def _pure_callback(eq: Equation) -> Kernel:
    """Call back into Python; what is computed there is not known, so it may sum along any axis."""
    function, dtypes = eq.params["callback"], [v.dtype for v in eq.outputs]

    def call(*args: Array) -> list[npt.NDArray[Any]]:
        return [np.asarray(part, dtype) for part, dtype in zip(function(*args), dtypes, strict=True)]

    terms = max((n for v in eq.inputs for n in v.shape), default=1)
    return Kernel(call, rounds=True, terms=terms, several=True)


def _empty(eq: Equation) -> Kernel:
    (out,) = eq.outputs
    return Kernel(lambda: np.zeros(out.shape, out.dtype))


# Primitives whose results are their operands.
ALIASES = frozenset(
    ("stop_gradient", "copy", "copy_p", "optimization_barrier", "name", "device_put", "pvary", "sharding_constraint")
)
# Primitives that call an inner jaxpr once, and the parameter that holds it. A scan holds one too, and is no call.
CALLS = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "remat2", "checkpoint"), "jaxpr"),
    **dict.fromkeys(("core_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr"),
}
# Primitives that call inner jaxprs in another way; `oracles.perturbation.jaxpr` has their functions.
CONTROL = frozenset(("scan", "while", "cond"))
PRIMITIVES: dict[str, Maker] = {
    **{name: _elementwise(function, rounds=False) for name, function in _EXACT.items()},
    **{name: _elementwise(function) for name, function in _ROUNDING.items()},
    **{name: _special(function) for name, function in _SPECIAL.items()},
    "rsqrt": _in_dtype(lambda one, x: one / np.sqrt(x)),
    "logistic": _in_dtype(lambda one, x: one / (one + np.exp(-x))),
    "abs": _of_complex_rounds(np.absolute),
    "sign": _of_complex_rounds(np.sign),
    "real": lambda eq: Kernel(np.real, broadcasts=True),
    "imag": lambda eq: Kernel(np.imag, broadcasts=True),
    "complex": _complex,
    "conj": _conjugate,
    "fft": _fft,
    "mul": _multiply,
    "div": _divide,
    "pow": _power,
    "integer_pow": _integer_power,
    # Of JAX 0.12 and later, as is "polynomial". Near |x| = 1 the product keeps the digits that 1 - x² loses.
    "one_minus_square": _in_dtype(lambda one, x: (one + x) * (one - x)),
    "polynomial": _horner,
    "round": _round,
    "select_n": _select,
    "convert_element_type": _convert,
    "bitcast_convert_type": _bitcast,
    "reduce_sum": _reduce(np.add, rounds=True),
    "reduce_prod": _reduce(np.multiply, rounds=True),
    "reduce_max": _reduce(np.maximum, empty="min"),
    "reduce_min": _reduce(np.minimum, empty="max"),
    "reduce_and": _reduce(np.bitwise_and),
    "reduce_or": _reduce(np.bitwise_or),
    "reduce_xor": _reduce(np.bitwise_xor),
    "argmax": _argument(np.argmax),
    "argmin": _argument(np.argmin),
    "cumsum": _accumulate(np.add, rounds=True),
    "cumprod": _accumulate(np.multiply, rounds=True),
    "cumlogsumexp": _accumulate(np.logaddexp, rounds=True),
    "cummax": _accumulate(np.maximum, rounds=False),
    "cummin": _accumulate(np.minimum, rounds=False),
    "dot_general": _dot_general,
    "broadcast_in_dim": _broadcast,
    "iota": _iota,
    "reshape": _reshape,
    "squeeze": lambda eq: _reshape(Equation(eq.primitive, {}, eq.inputs, eq.outputs)),
    "transpose": _transpose,
    "concatenate": _concatenate,
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
    "slice": _slice,
    "rev": _reverse,
    "tile": _tile,
    "pad": _pad,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter": _scatter(None),
    "scatter-add": _scatter(np.add, rounds=True),
    "scatter-sub": _scatter(np.subtract, rounds=True),
    "scatter-mul": _scatter(np.multiply, rounds=True),
    "scatter-min": _scatter(np.minimum),
    "scatter-max": _scatter(np.maximum),
    "sort": _sort,
    "top_k": _top_k,
    "reduce_window_sum": _reduce_window(np.add, ""),
    "reduce_window_max": _reduce_window(np.maximum, "min"),
    "reduce_window_min": _reduce_window(np.minimum, "max"),
    "select_and_scatter_add": _select_and_scatter_add,
    "conv_general_dilated": _convolution,
    "platform_index": _platform_index,
    "pure_callback": _pure_callback,
    "empty2": _empty,
}

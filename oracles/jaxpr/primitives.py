"""The table of JAX primitives that can be written in NumPy, one emitter each.

An emitter is given the function under construction and one operation, and returns a Python expression for the
result; for an operation of several results, an expression for the sequence of them. What is not in the table
is not translated: `oracles.jax_vjp` then asks XLA. Nothing here imports JAX.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from oracles.jaxpr.structure import STRUCTURE, Emitter, edge
from oracles.jaxpr.writer import Function, Known, Operation

# Primitives that hand their operands on, and those that call an inner program (by its parameter's name).
ALIASES = frozenset(
    [
        "stop_gradient",
        "copy",
        "copy_p",
        "optimization_barrier",
        "name",
        "device_put",
        "pvary",
        "sharding_constraint",
    ]
)
CALLS = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "remat2", "checkpoint"), "jaxpr"),
    **dict.fromkeys(("core_call", "custom_jvp_call", "custom_vjp_call"), "call_jaxpr"),
}

_EXACT = {  # no rounding: nothing to imitate
    "neg": "-{0}", "max": "np.maximum({0}, {1})", "min": "np.minimum({0}, {1})", "abs": "np.absolute({0})",
    "sign": "np.sign({0})", "floor": "np.floor({0})", "ceil": "np.ceil({0})", "is_finite": "np.isfinite({0})",
    "gt": "{0} > {1}", "lt": "{0} < {1}", "ge": "{0} >= {1}", "le": "{0} <= {1}", "eq": "{0} == {1}",
    "ne": "{0} != {1}", "and": "{0} & {1}", "or": "{0} | {1}", "xor": "{0} ^ {1}", "not": "~{0}",
    "shift_left": "np.left_shift({0}, {1})", "shift_right_arithmetic": "np.right_shift({0}, {1})",
    "clamp": "np.minimum(np.maximum({1}, {0}), {2})", "rem": "np.fmod({0}, {1})",
    "nextafter": "np.nextafter({0}, {1})",
}  # fmt: skip
_ROUNDING = {
    "add": "{0} + {1}", "add_any": "{0} + {1}", "sub": "{0} - {1}", "square": "np.square({0})",
    "atan2": "np.arctan2({0}, {1})", "rsqrt": "{one} / np.sqrt({0})",
    "logistic": "{one} / ({one} + np.exp(-{0}))",
    "exp": "np.exp({0})", "exp2": "np.exp2({0})", "log": "np.log({0})", "log1p": "np.log1p({0})",
    "expm1": "np.expm1({0})", "sqrt": "np.sqrt({0})", "cbrt": "np.cbrt({0})",
    "sin": "np.sin({0})", "cos": "np.cos({0})", "tan": "np.tan({0})",
    "sinh": "np.sinh({0})", "cosh": "np.cosh({0})", "tanh": "np.tanh({0})",
    "asin": "np.arcsin({0})", "acos": "np.arccos({0})", "atan": "np.arctan({0})",
    "asinh": "np.arcsinh({0})", "acosh": "np.arccosh({0})", "atanh": "np.arctanh({0})",
    "erf": "special('erf', {0})", "erfc": "special('erfc', {0})", "erf_inv": "special('erfinv', {0})",
    "lgamma": "special('gammaln', {0})", "digamma": "special('psi', {0})",
    "bessel_i0e": "special('i0e', {0})", "bessel_i1e": "special('i1e', {0})",
    "igamma": "special('gammainc', {0}, {1})", "igammac": "special('gammaincc', {0}, {1})",
    "polygamma": "special('polygamma', {0}, {1})", "zeta": "special('zeta', {0}, {1})",
    "regularized_incomplete_beta": "special('betainc', {0}, {1}, {2})",
}  # fmt: skip


def _elementwise(template: str, rounds: bool) -> Emitter:
    def emit(f: Function, op: Operation) -> str:
        return template.format(
            *f.operands(op, rounds), one=f.scalar(1, op.outputs[0].dtype) if "{one}" in template else ""
        )

    return emit


def _mul(f: Function, op: Operation) -> str:
    exact = any(v.constant is not None and np.size(v.constant) == 1 and abs(v.constant) in (0, 1) for v in op.inputs)
    if f.noisy and not exact and any(v.setting for v in op.inputs):
        plain, shaken = ", ".join(map(f.narrow, op.inputs)), " * ".join(f.operands(op, True))
        op.outputs[0].narrow = True
        return f"multiply({plain}, lambda: {shaken})"
    return "{} * {}".format(*f.operands(op, not exact))


def _div(f: Function, op: Operation) -> str:
    x, y = f.operands(op, True)
    return f"{x} / {y}" if op.outputs[0].floating else f"divide_int({x}, {y})"


def _pow(f: Function, op: Operation) -> str:
    x, y = f.operands(op, True)
    if op.outputs[0].floating and not op.inputs[1].floating:
        y = f"{y}.astype({f.dtype(op.outputs[0].dtype)})"
    return f"np.power({x}, {y})"


def _integer_pow(f: Function, op: Operation) -> str:
    (x,), y = f.operands(op, True), op.params["y"]
    if y == 2:
        return f"np.square({x})"
    if y < 0:
        return f"{f.scalar(1, op.outputs[0].dtype)} / " + (f"np.square({x})" if y == -2 else f"np.power({x}, {-y})")
    return f"np.power({x}, {y})"


def _round(f: Function, op: Operation) -> str:
    (x,) = f.operands(op, False)
    return f"np.rint({x})" if int(op.params["rounding_method"]) == 1 else f"round_away({x})"


def _select(f: Function, op: Operation) -> str:
    which, *cases = f.operands(op, False)
    if op.inputs[0].dtype == bool and len(cases) == 2:
        return f"np.where({which}, {cases[1]}, {cases[0]})"
    return f"np.choose({which}, ({', '.join(cases)},))"


def _convert(f: Function, op: Operation) -> str:
    old, new = op.inputs[0], op.outputs[0]
    (x,) = f.operands(op, new.floating and new.dtype.itemsize < old.dtype.itemsize)
    if old.floating and not new.floating and new.dtype != bool:
        return f"to_int({x}, {f.dtype(new.dtype)})"
    return f"{x}.astype({f.dtype(new.dtype)})"


def _reduce(ufunc: str, rounds: bool = False, empty: str = "") -> Emitter:
    def emit(f: Function, op: Operation) -> str:
        (x,), (out,), axes = op.inputs, op.outputs, [int(a) for a in op.params["axes"]]
        if all(isinstance(x.shape[a], int) and x.shape[a] == 1 for a in axes):
            return f"{f.whole(x)}.reshape({f.shape(out.shape)})"
        extra = "" if out.floating or ufunc.startswith(("max", "min")) else f", dtype={f.dtype(out.dtype)}"
        if empty and any(isinstance(x.shape[a], int) and x.shape[a] == 0 for a in axes):
            extra += f", initial={f.const(edge(out.dtype, empty))}"
        over = axes[0] if len(axes) == 1 else tuple(axes)
        return f"np.{ufunc}.reduce({f.rounded(x) if rounds else f.whole(x)}, {over}{extra})"

    return emit


def _arg(ufunc: str) -> Emitter:
    def emit(f: Function, op: Operation) -> str:
        place = f"np.{ufunc}({f.whole(op.inputs[0])}, {op.params['axes'][0]})"
        return f"{place}.astype({f.dtype(op.outputs[0].dtype)})"

    return emit


def _accumulate(ufunc: str, rounds: bool) -> Emitter:
    def emit(f: Function, op: Operation) -> str:
        (x,), axis = op.inputs, op.params["axis"]
        name = f.rounded(x) if rounds else f.whole(x)
        flip = f"[{':, ' * axis}::-1]" if op.params["reverse"] else ""
        return f"np.{ufunc}.accumulate({name}{flip}, {axis}, {f.dtype(x.dtype)}){flip}"

    return emit


def _dot_general(f: Function, op: Operation) -> str:
    (a, b), (out,) = op.inputs, op.outputs
    (ka, kb), (na, nb) = op.params["dimension_numbers"]
    dtype = np.dtype(np.float32) if out.floating and out.dtype.itemsize == 2 else out.dtype
    x, y = (f.rounded(v) + ("" if v.dtype == dtype else f".astype({f.dtype(dtype)})") for v in (a, b))
    end = "" if dtype == out.dtype else f".astype({f.dtype(out.dtype)})"
    if not na and len(ka) == 1 and 0 < len(a.shape) < 3 and 0 < len(b.shape) < 3:
        left = ".T" if len(a.shape) == 2 and ka[0] == 0 else ""
        right = ".T" if len(b.shape) == 2 and kb[0] == 1 else ""
        return f"{x}{left}.dot({y}{right}){end}"
    fa, fb = ([d for d in range(len(v.shape)) if d not in (*k, *n)] for v, k, n in ((a, ka, na), (b, kb, nb)))
    left = _arranged(f, x, a.shape, na, fa, ka)
    right = _arranged(f, y, b.shape, nb, kb, fb)
    return f"np.matmul({left}, {right}).reshape({f.shape(out.shape)}){end}"


def _arranged(f: Function, x: str, shape: Sequence[Any], batch: Any, rows: Any, columns: Any) -> str:
    """Return x with its axes grouped as a stack of matrices."""
    order = [*batch, *rows, *columns]
    if order != list(range(len(order))):
        x = f"{x}.transpose({f.shape(order)})"
    if len(rows) == len(columns) == 1:
        return x
    extents = [*(shape[d] for d in batch), *(math.prod(shape[d] for d in group) for group in (rows, columns))]
    return f"{x}.reshape({f.shape(extents)})"


TABLE: dict[str, Emitter] = {
    **STRUCTURE,
    **{name: _elementwise(template, rounds=False) for name, template in _EXACT.items()},
    **{name: _elementwise(template, rounds=True) for name, template in _ROUNDING.items()},
    "mul": _mul,
    "div": _div,
    "pow": _pow,
    "integer_pow": _integer_pow,
    "round": _round,
    "select_n": _select,
    "convert_element_type": _convert,
    "reduce_sum": _reduce("add", rounds=True),
    "reduce_prod": _reduce("multiply", rounds=True),
    "reduce_max": _reduce("maximum", empty="min"),
    "reduce_min": _reduce("minimum", empty="max"),
    "reduce_and": _reduce("bitwise_and"),
    "reduce_or": _reduce("bitwise_or"),
    "reduce_xor": _reduce("bitwise_xor"),
    "argmax": _arg("argmax"),
    "argmin": _arg("argmin"),
    "cumsum": _accumulate("add", rounds=True),
    "cumprod": _accumulate("multiply", rounds=True),
    "cumlogsumexp": _accumulate("logaddexp", rounds=True),
    "cummax": _accumulate("maximum", rounds=False),
    "cummin": _accumulate("minimum", rounds=False),
    "dot_general": _dot_general,
}

CONTROL = frozenset({"scan", "while", "cond"})
SEQUENCES = CONTROL | {
    "split",
    "unstack",
    "sort",
    "top_k",
    "pure_callback",
}  # their expressions are sequences of results
FRESH = {*_EXACT, *_ROUNDING, "mul", "div", "integer_pow", "select_n"}  # their results share no memory
KNOWN = Known(TABLE, ALIASES, CALLS, CONTROL, SEQUENCES, FRESH)

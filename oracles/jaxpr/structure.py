"""Emitters of the JAX primitives that move data: shapes, slices, indices, windows, control flow.

Like `oracles.jaxpr.primitives`, whose table they fill, these write NumPy expressions and import no JAX.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from oracles.jaxpr.writer import Function, Operation

Emitter: TypeAlias = "Callable[[Function, Operation], str]"


def _broadcast(f: Function, op: Operation) -> str:
    (x,), (out,) = op.inputs, op.outputs
    where = [int(d) for d in op.params["broadcast_dimensions"]]
    extents: list[Any] = [1] * len(out.shape)
    for d, n in zip(where, x.shape, strict=True):
        extents[d] = n
    trailing = where == list(range(len(out.shape) - len(where), len(out.shape)))
    out.narrow = x.narrow or (trailing and len(where) < len(extents)) or tuple(extents) != out.shape
    if trailing:  # NumPy itself aligns trailing axes
        return f.narrow(x)
    return f"{f.whole(x)}.reshape({f.shape(extents)})"


def _iota(f: Function, op: Operation) -> str:
    (out,), d = op.outputs, op.params["dimension"]
    out.narrow = len(out.shape) > 1
    line = [-1 if i == d else 1 for i in range(len(out.shape))]
    return f"np.arange({f.dim(out.shape[d])}, dtype={f.dtype(out.dtype)}).reshape({f.shape(line)})"


def _reshape(f: Function, op: Operation) -> str:
    x = f.whole(op.inputs[0])
    if op.params.get("dimensions") is not None:
        x = f"{x}.transpose({f.shape(op.params['dimensions'])})"
    return f"{x}.reshape({f.shape(op.outputs[0].shape)})"


def _transpose(f: Function, op: Operation) -> str:
    return f"{f.whole(op.inputs[0])}.transpose({f.shape(op.params['permutation'])})"


def edge(dtype: Any, which: str) -> Any:
    """Return the "min" or "max" of a dtype, infinities included."""
    if dtype.kind == "b":
        return np.asarray(which == "max")
    integer = np.issubdtype(dtype, np.integer)
    return np.asarray(getattr(np.iinfo(dtype), which) if integer else {"min": -np.inf, "max": np.inf}[which], dtype)


def _concatenate(f: Function, op: Operation) -> str:
    return f"np.concatenate(({', '.join(map(f.whole, op.inputs))},), {op.params['dimension']})"


def _split(f: Function, op: Operation) -> str:
    x, axis, at, parts = f.whole(op.inputs[0]), op.params["axis"], 0, []
    for n in op.params["sizes"]:
        parts.append(f"{x}[{':, ' * axis}{f.dim(at)}:{f.dim(at + n)}]")
        at = at + n
    return f"({', '.join(parts)},)"


def _stack(f: Function, op: Operation) -> str:
    return f"np.stack(({', '.join(map(f.whole, op.inputs))},), {op.params['axis']})"


def _unstack(f: Function, op: Operation) -> str:
    x, axis = f.whole(op.inputs[0]), op.params["axis"]
    parts = [f"{x}[{':, ' * axis}{i}]" for i in range(len(op.outputs))]
    return f"({', '.join(parts)},)"


def _slice(f: Function, op: Operation) -> str:
    starts, ends = op.params["start_indices"], op.params["limit_indices"]
    steps = op.params["strides"] or [1] * len(starts)
    cuts = (f"{f.dim(a)}:{f.dim(b)}:{f.dim(c)}" for a, b, c in zip(starts, ends, steps, strict=True))
    return f"{f.whole(op.inputs[0])}[{', '.join(cuts)}]"


def _tile(f: Function, op: Operation) -> str:
    return f"np.tile({f.whole(op.inputs[0])}, {f.shape(op.params['reps'])})"


def _rev(f: Function, op: Operation) -> str:
    return f"np.flip({f.whole(op.inputs[0])}, {f.shape(op.params['dimensions'])})"


def _pad(f: Function, op: Operation) -> str:
    return f"pad({f.whole(op.inputs[0])}, {f.whole(op.inputs[1])}, {f.nested(op.params['padding_config'])})"


def _dynamic_slice(f: Function, op: Operation) -> str:
    x, *starts = map(f.whole, op.inputs)
    return f"dynamic_slice({x}, ({', '.join(starts)},), {f.shape(op.params['slice_sizes'])})"


def _dynamic_update_slice(f: Function, op: Operation) -> str:
    x, update, *starts = map(f.whole, op.inputs)
    return f"dynamic_update_slice({x}, {update}, ({', '.join(starts)},))"


def _gather(f: Function, op: Operation) -> str:
    n, mode = op.params["dimension_numbers"], op.params["mode"].name
    dtype, missing = op.outputs[0].dtype, op.params["fill_value"]
    if missing is None:
        unsigned = np.issubdtype(dtype, np.unsignedinteger) or dtype.kind == "b"
        missing = np.nan if op.outputs[0].floating else edge(dtype, "max" if unsigned else "min")
    layout = (n.offset_dims, n.collapsed_slice_dims, n.start_index_map)
    batched = (n.operand_batching_dims, n.start_indices_batching_dims)
    args = (
        f.whole(op.inputs[0]),
        f.whole(op.inputs[1]),
        f.shape(op.params["slice_sizes"]),
        mode != "FILL_OR_DROP",
    )
    return f"gather({', '.join(map(str, args))}, {f.const(np.asarray(missing, dtype))}, *{(*layout, batched)})"


def _scatter(combine: str) -> Emitter:
    def emit(f: Function, op: Operation) -> str:
        n, clip = op.params["dimension_numbers"], op.params["mode"].name == "CLIP"
        batched = (n.operand_batching_dims, n.scatter_indices_batching_dims)
        layout = (n.update_window_dims, n.inserted_window_dims, n.scatter_dims_to_operand_dims, batched)
        read = f.rounded if combine in ("add", "multiply", "subtract") else f.whole
        x, updates = read(op.inputs[0]), read(op.inputs[2])
        return f"scatter({x}, {f.whole(op.inputs[1])}, {updates}, {combine!r}, {clip}, *{layout})"

    return emit


def _sort(f: Function, op: Operation) -> str:
    return f"sort(({', '.join(map(f.whole, op.inputs))},), {op.params['dimension']}, {op.params['num_keys']})"


def _top_k(f: Function, op: Operation) -> str:
    k, axis = op.params["k"], op.params["axis"] % len(op.inputs[0].shape)
    return f"top_k({f.whole(op.inputs[0])}, {f.dim(k)}, {axis}, {f.dtype(op.outputs[1].dtype)})"


def _platform_index(f: Function, op: Operation) -> str:
    """Choose what `jax.lax.platform_dependent` would run on a CPU."""
    return str(next(i for i, names in enumerate(op.params["platforms"]) if names is None or "cpu" in names))


def _reduce_window(ufunc: str, start: str) -> Emitter:
    def emit(f: Function, op: Operation) -> str:
        (x,), p = op.inputs, op.params
        config = [(lo, hi, d - 1) for (lo, hi), d in zip(p["padding"], p["base_dilation"], strict=True)]
        first = f.const(edge(x.dtype, start) if start else np.zeros((), x.dtype))
        layout = (f.shape(p[k]) for k in ("window_dimensions", "window_strides", "window_dilation"))
        name = f.whole(x) if start else f.rounded(x)
        return f"reduce_window({name}, {ufunc!r}, {first}, {f.nested(config)}, {', '.join(layout)})"

    return emit


def _select_and_scatter_add(f: Function, op: Operation) -> str:
    (source, x), p = op.inputs, op.params
    layout = f"{f.shape(p['window_dimensions'])}, {f.shape(p['window_strides'])}, {f.nested(p['padding'])}"
    largest = p["select_prim"].name == "ge"
    return f"select_and_scatter_add({f.rounded(source)}, {f.whole(x)}, {largest}, {layout})"


def _convolution(f: Function, op: Operation) -> str:
    (x, kernel), (out,), p = op.inputs, op.outputs, op.params
    n = p["dimension_numbers"]
    config = [(lo, hi, d - 1) for (lo, hi), d in zip(p["padding"], p["lhs_dilation"], strict=True)]
    x_name, kernel_name = (
        f"{f.rounded(v)}.transpose({f.shape(s)})" for v, s in ((x, n.lhs_spec), (kernel, n.rhs_spec))
    )
    layout = f"{f.shape(p['window_strides'])}, {f.nested(config)}, {f.shape(p['rhs_dilation'])}"
    groups = f"{p['feature_group_count']}, {p['batch_group_count']}"
    back = f.shape([n.out_spec.index(d) for d in range(len(out.shape))])
    return f"convolve({x_name}, {kernel_name}, {groups}, {layout}).transpose({back})"


def _scan(f: Function, op: Operation) -> str:
    p = op.params
    at = (p["num_consts"], p["num_consts"] + p["num_carry"])
    body = f.nest(p["jaxpr"], op.inputs[: at[0]])
    names = [f.whole(v) for v in op.inputs]
    consts, carry, xs = (f.group(part) for part in (names[: at[0]], names[at[0] : at[1]], names[at[1] :]))
    stacked = f.group(f"({f.shape(v.shape[1:])}, {f.dtype(v.dtype)})" for v in op.outputs[p["num_carry"] :])
    return f"scan({body}, {consts}, {carry}, {xs}, {f.dim(p['length'])}, {bool(p['reverse'])}, {stacked})"


def _while(f: Function, op: Operation) -> str:
    p = op.params
    test, body = f.nest(p["cond_jaxpr"]), f.nest(p["body_jaxpr"])
    names, m, n = [f.whole(v) for v in op.inputs], p["cond_nconsts"], p["body_nconsts"]
    return f"loop({test}, {body}, {f.group(names[:m])}, {f.group(names[m : m + n])}, {f.group(names[m + n :])})"


def _cond(f: Function, op: Operation) -> str:
    which, *operands = [f.whole(v) for v in op.inputs]
    return f"branch({which}, {f.group(f.nest(j, op.inputs[1:]) for j in op.params['branches'])}, {f.group(operands)})"


def _callback(f: Function, op: Operation) -> str:
    """Call back, but no function that closes over what is known while tracing alone."""
    function = op.params["callback"]
    if _is_traced(function.callback_func):
        raise ValueError("pure_callback: the function closes over a traced value or a symbolic dimension")
    dtypes = f.group(f.dtype(v.dtype) for v in op.outputs)
    return f"callback({f.const(function)}, {f.group(map(f.whole, op.inputs))}, {dtypes})"


def _is_traced(x: Any, seen: frozenset[int] = frozenset()) -> bool:
    """Return whether x is, or as a function or collection holds, a tracer or a symbolic dimension of JAX."""
    if id(x) in seen:
        return False
    held = (
        [*x] if isinstance(x, tuple | list) else [cell.cell_contents for cell in getattr(x, "__closure__", None) or ()]
    )
    if isinstance(x, partial):
        held += [x.func, *x.args, *x.keywords.values()]
    return (
        hasattr(x, "_trace")
        or hasattr(x, "dimension_as_value")
        or any(_is_traced(part, seen | {id(x)}) for part in (*held, *(getattr(x, "__defaults__", None) or ())))
    )


STRUCTURE: dict[str, Emitter] = {
    "broadcast_in_dim": _broadcast,
    "iota": _iota,
    "reshape": _reshape,
    "squeeze": lambda f, op: f"{f.whole(op.inputs[0])}.reshape({f.shape(op.outputs[0].shape)})",
    "transpose": _transpose,
    "concatenate": _concatenate,
    "split": _split,
    "stack": _stack,
    "unstack": _unstack,
    "slice": _slice,
    "rev": _rev,
    "tile": _tile,
    "pad": _pad,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter": _scatter(""),
    "scatter-add": _scatter("add"),
    "scatter-sub": _scatter("subtract"),
    "scatter-mul": _scatter("multiply"),
    "scatter-min": _scatter("minimum"),
    "scatter-max": _scatter("maximum"),
    "sort": _sort,
    "top_k": _top_k,
    "reduce_window_sum": _reduce_window("add", ""),
    "reduce_window_max": _reduce_window("maximum", "min"),
    "reduce_window_min": _reduce_window("minimum", "max"),
    "select_and_scatter_add": _select_and_scatter_add,
    "conv_general_dilated": _convolution,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "platform_index": _platform_index,
    "pure_callback": _callback,
    "dim_as_value": lambda f, op: f"np.int64({f.dim(op.params['dim'])})",
    "empty2": lambda f, op: f"np.zeros({f.shape(op.outputs[0].shape)}, {f.dtype(op.outputs[0].dtype)})",
}

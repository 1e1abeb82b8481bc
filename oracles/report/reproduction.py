"""A refusal as a stand-alone Python file: NumPy and one framework, arrays as exact hex floats, no Hypothesis."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from oracles.rule import Array, Enclosure, Rule, Runtime, as_tuple, with_dtype
from oracles.verdict import Finding, Result, Setting

_HEAD = '''\
"""{title}

{report}

Run it: python THIS_FILE. It prints both sides and ends with status 1 while they differ by more than rounding allows.
"""

import sys

import numpy as np


def array(dtype, shape, values):
    """Exact to the last bit: floats are written in hexadecimal."""
    plain = [float.fromhex(v) if isinstance(v, str) else v for v in values]
    return np.array(plain).astype(dtype).reshape(shape)


# The point.
primals = {{
{primals}
}}
delta = {delta}
'''

_VALUES = """
# What the subject returned there, and how far rounding may move each entry.
subject = {subject}
allowed = {allowed}
"""

_TORCH = """
# The reference states the primal only; PyTorch derives the rest, in float64.
import torch

{source}

leaves = {{n: torch.tensor(a.astype(np.float64) if a.dtype.kind == "f" else a) for n, a in primals.items()}}
leaves = {{n: t.requires_grad_(t.is_floating_point()) for n, t in leaves.items()}}
y = {call}(**leaves)
ys = tuple(y) if isinstance(y, (tuple, list)) else (y,)
if {name!r} in leaves:
    seeds = [torch.tensor(d.astype(np.float64)) for d in delta]
    oracle = torch.autograd.grad(ys, leaves[{name!r}], seeds)[0].numpy()
else:
    oracle = ys[{position}].detach().numpy()
"""

_JAX = """
# The reference states the primal only; JAX derives the rest, in float64.
import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp

{source}

real = {{n: jnp.asarray(a, jnp.float64) for n, a in primals.items() if a.dtype.kind == "f"}}
rest = {{n: jnp.asarray(a) for n, a in primals.items() if a.dtype.kind != "f"}}
y, pull = jax.vjp(lambda real: {call}(**real, **rest), real)
if {name!r} in real:
    seeds = tuple(jnp.asarray(d, jnp.float64) for d in delta)
    oracle = np.asarray(pull(seeds if isinstance(y, tuple) else seeds[0])[0][{name!r}])
else:
    oracle = np.asarray(y[{position}] if isinstance(y, tuple) else y)
"""

_RECORDED = """
# What the oracle {oracle} said there, recorded: its source cannot be written into a file of its own.
oracle = {values}
"""

_TOLD = """
# No oracle is needed to see it: call the subject with these, as the report above says.
print(__doc__)
sys.exit(1)
"""

_TAIL = """
error = np.abs(subject.astype(np.float64) - oracle) if subject.shape == oracle.shape else None
print("{name}: the subject returned\\n", subject, "\\n{oracle} says\\n", oracle)
if error is None:
    print("shapes differ:", subject.shape, "against", oracle.shape)
    sys.exit(1)
refused = ~(error <= allowed)
for index in np.argwhere(refused)[:10]:
    i = tuple(index)
    print([int(k) for k in i], f"subject {{subject[i]!r}}, oracle {{oracle[i]!r}}, rounding allows {{allowed[i]:.2g}}")
print(int(refused.sum()), "of", refused.size, "entries differ by more than rounding allows")
sys.exit(int(refused.any()))
"""


def script(result: Result, report: str) -> str:
    """Return the text of a file that shows the disagreement of a refused result.

    The reference is written out where its source is a plain function of its own; otherwise its values are recorded.

    Raises:
        ValueError: if the result carries no point, or nothing in it is refused.
    """
    worst, setting = result.worst, result.setting
    if worst is None or setting is None or not worst.refuses:
        raise ValueError("script: expected a refused result with its point, got one without")
    head = _HEAD.format(
        title=f"{result.subject}: {worst.verdict} in {worst.quantity}".replace('"""', "'''"),
        report=report.replace("\\", "\\\\").replace('"""', "'''"),
        primals="\n".join(f"    {n!r}: {_literal(np.asarray(a))}," for n, a in setting.primals.items()),
        delta=f"[{', '.join(_literal(np.asarray(d)) for d in as_tuple(setting.delta))}]",
    )
    try:
        shown = _compared(worst, setting)
    except Exception:  # the subject raises here, or what it returns is no array: that is the finding
        shown = ""
    return head + (shown or _TOLD)


def _compared(worst: Finding, setting: Setting) -> str:
    """Return the code that compares the refused array with the oracle's; "" where no comparison of values shows it."""
    from oracles.constants import MORE_SAMPLES
    from oracles.tolerance import named_outputs, tolerance_at

    wide, wide_delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    y, pullback = setting.subject(**setting.primals)
    got = named_outputs(as_tuple(y), dict(pullback(setting.delta)))
    name = worst.quantity if worst.quantity in got else next(iter(got))
    oracle = next((o for o in setting.oracles if o.name == worst.oracle), setting.oracles[0])
    oracle_y, oracle_pullback = oracle(**wide)
    want = named_outputs(as_tuple(oracle_y), dict(oracle_pullback(wide_delta)))[name]
    rounding = tolerance_at(setting.oracles, wide, wide_delta, setting.precision, fallback=setting.subject)
    mine, allowed = np.asarray(got[name]), np.asarray(rounding.estimate(MORE_SAMPLES)[name], np.float64)
    theirs = np.asarray(want.mid if isinstance(want, Enclosure) else want, np.float64)
    if mine.shape == theirs.shape and worst.oracle == "self-consistency" and np.all(np.abs(mine - theirs) <= allowed):
        return ""
    position = int(name[7:-1]) if name.startswith("output[") else 0
    values = _VALUES.format(subject=_literal(mine), allowed=_literal(allowed))
    return values + _oracle(oracle, name, position, want) + _TAIL.format(name=name, oracle=oracle.name)


def _oracle(oracle: Rule, name: str, position: int, want: Any) -> str:
    found = _source(oracle.reference) if oracle.reference is not None else None
    template = {Runtime.TORCH: _TORCH, Runtime.JAX: _JAX}.get(oracle.runtime)
    if found is None or template is None:
        mid = want.mid if isinstance(want, Enclosure) else want
        return _RECORDED.format(oracle=oracle.name, values=_literal(np.asarray(mid, np.float64)))
    source, call = found
    return template.format(source=source, call=call, name=name, position=position)


def _source(f: Callable[..., Any]) -> tuple[str, str] | None:
    """Return the source of a plain function and its name; ``None`` for lambdas, closures and what has no source."""
    if not inspect.isfunction(f) or f.__name__ == "<lambda>" or f.__closure__:
        return None
    try:
        source = textwrap.dedent(inspect.getsource(f))
    except (OSError, TypeError):
        return None
    missing = [n for n in _globals_of(f) if n not in ("torch", "jax", "jnp", "np", "F", "Any")]
    if missing or source.lstrip().startswith("@"):
        return None
    functional = "import torch.nn.functional as F\n" if "F" in _globals_of(f) else ""
    return functional + "from typing import Any\n\n" + source, f.__name__


def _globals_of(f: Callable[..., Any]) -> set[str]:
    return {n for n in f.__code__.co_names if n in f.__globals__}


def _literal(array: Array) -> str:
    values = array.ravel().tolist() if array.dtype.kind in "iub" else [float(v).hex() for v in array.ravel()]
    lines = textwrap.wrap(", ".join(map(repr, values)), 110, initial_indent="        ", subsequent_indent="        ")
    inner = "\n" + "\n".join(lines) + "\n    " if len(lines) > 1 else ", ".join(map(repr, values))
    return f"array({array.dtype.name!r}, {tuple(array.shape)!r}, [{inner}])"

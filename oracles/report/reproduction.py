"""A refusal as a stand-alone Python file: NumPy and one framework, arrays as exact hex floats, no Hypothesis."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from types import FunctionType
from typing import NamedTuple

import numpy as np

from oracles.constants import MORE_SAMPLES
from oracles.diagnosis.experiments import evaluate, midpoint, result_or_none
from oracles.rule import Array, Rule, Runtime, as_tuple, with_dtype
from oracles.tolerance import tolerance_at
from oracles.verdict import Finding, Result, Setting

LITERAL_WIDTH = 110
# The names that a reference may use: the script imports these modules by these names.
KNOWN_GLOBALS = {"torch", "jax", "jnp", "np", "F", "Any"}

_HEAD = '''\
"""{title}

{report}

Run it: python THIS_FILE. It prints both sides and ends with status 1 while they differ by more than the tolerance.
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
# What the subject returned there, and the tolerance of each entry: how far rounding may move it.
subject = {subject}
tolerance = {tolerance}
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
# What the oracle {oracle} returned there, recorded: its source cannot be written into a file of its own.
oracle = {values}
"""

_REPORT_ONLY = """
# No comparison with an oracle shows it: call the subject with these, as the report above says.
print(__doc__)
sys.exit(1)
"""

_TAIL = """
error = np.abs(subject.astype(np.float64) - oracle) if subject.shape == oracle.shape else None
print("{name}: the subject returned\\n", subject, "\\n{oracle} returned\\n", oracle)
if error is None:
    print("shapes differ:", subject.shape, "against", oracle.shape)
    sys.exit(1)
refused = ~(error <= tolerance)
for index in np.argwhere(refused)[:10]:
    i = tuple(index)
    print([int(k) for k in i], f"subject {{subject[i]!r}}, oracle {{oracle[i]!r}}, tolerance {{tolerance[i]:.2g}}")
print(int(refused.sum()), "of", refused.size, "entries differ by more than the tolerance")
sys.exit(int(refused.any()))
"""


def script(result: Result, report: str) -> str:
    """Return the text of a file that shows the disagreement of a refused result.

    The reference is written out where its source is a plain function of its own; otherwise its values are recorded.

    Args:
        result: the refused result.
        report: its report, which becomes the docstring of the file.

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
    # If the subject raises here, or returns no array, then that is the finding, and the report says it.
    return head + (result_or_none(lambda: _comparison(worst, setting)) or _REPORT_ONLY)


def _comparison(worst: Finding, setting: Setting) -> str:
    """Return the code that compares the refused array with the oracle's; "" if no comparison of values shows it."""
    wide, wide_delta = with_dtype(dict(setting.primals), np.float64), with_dtype(setting.delta, np.float64)
    arrays = evaluate(setting.subject, setting.primals, setting.delta)
    name = worst.quantity if worst.quantity in arrays else next(iter(arrays))
    oracle = next((o for o in setting.oracles if o.name == worst.oracle), setting.oracles[0])
    expected = midpoint(evaluate(oracle, wide, wide_delta)[name])
    estimator = tolerance_at(setting.oracles, wide, wide_delta, setting.precision, fallback=setting.subject)
    tolerance = np.asarray(estimator.estimate(MORE_SAMPLES)[name], np.float64)
    actual = np.asarray(arrays[name])
    consistent = actual.shape == expected.shape and bool(np.all(np.abs(actual - expected) <= tolerance))
    if worst.oracle == "self-consistency" and consistent:
        return ""  # right here, and wrong when called otherwise
    values = _VALUES.format(subject=_literal(actual), tolerance=_literal(tolerance))
    return values + _oracle_code(oracle, name, expected) + _TAIL.format(name=name, oracle=oracle.name)


def _oracle_code(oracle: Rule, name: str, expected: Array) -> str:
    """Return the code that computes the oracle's array from its reference, or that holds its values."""
    source = _source(oracle.reference) if oracle.reference is not None else None
    template = {Runtime.TORCH: _TORCH, Runtime.JAX: _JAX}.get(oracle.runtime)
    if source is None or template is None:
        return _RECORDED.format(oracle=oracle.name, values=_literal(expected))
    position = int(name[7:-1]) if name.startswith("output[") else 0
    return template.format(source=source.text, call=source.name, name=name, position=position)


class Source(NamedTuple):
    """The source of a function that needs nothing but itself and the modules that the script imports."""

    text: str
    name: str


def _source(f: Callable[..., object]) -> Source | None:
    """Return the source of a plain function; ``None`` for lambdas, closures and what has no source."""
    if not inspect.isfunction(f) or f.__name__ == "<lambda>" or f.__closure__:
        return None
    try:
        source = textwrap.dedent(inspect.getsource(f))
    except (OSError, TypeError):
        return None
    missing = _globals_of(f) - KNOWN_GLOBALS
    if missing or source.lstrip().startswith("@"):
        return None
    functional = "import torch.nn.functional as F\n" if "F" in _globals_of(f) else ""
    return Source(functional + "from typing import Any\n\n" + source, f.__name__)


def _globals_of(f: FunctionType) -> set[str]:
    return {n for n in f.__code__.co_names if n in f.__globals__}


def _literal(array: Array) -> str:
    """Return an array as a call of the script's ``array``."""
    values = array.ravel().tolist() if array.dtype.kind in "iub" else [float(v).hex() for v in array.ravel()]
    entries, indent = ", ".join(map(repr, values)), " " * 8
    lines = textwrap.wrap(entries, LITERAL_WIDTH, initial_indent=indent, subsequent_indent=indent)
    inner = "\n" + "\n".join(lines) + "\n    " if len(lines) > 1 else entries
    return f"array({array.dtype.name!r}, {tuple(array.shape)!r}, [{inner}])"

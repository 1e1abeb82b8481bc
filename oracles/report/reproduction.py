"""A refusal as a stand-alone Python file: NumPy and one framework, arrays as exact hex floats, no Hypothesis."""

from __future__ import annotations

import ast
import base64
import builtins
import inspect
import textwrap
import zlib
from collections.abc import Callable, Sequence
from types import CodeType, FunctionType
from typing import NamedTuple

import numpy as np

from oracles.constants import SCRIPT_ENTRIES
from oracles.diagnosis.experiments import result_or_none
from oracles.outputs import Outputs, Selected, in_core
from oracles.report.compared import Compared, compared_at
from oracles.rule import Array, Rule, Runtime, as_tuple, with_dtype
from oracles.verdict import Result

LITERAL_WIDTH = 110
# The names that a reference may use: the script imports these modules by these names.
KNOWN_GLOBALS = {"torch", "jax", "jnp", "np", "F", "Any"}

# Every text and name goes into these templates as a literal, so that it is data whatever it contains.
_HEAD = '''\
"""{docstring}

Run it: python THIS_FILE. It prints both sides and ends with status 1 while they differ by more than the tolerance.
"""

import sys

import numpy as np
{helpers}

def array(dtype, shape, values):
    """Exact to the last bit: floats are written in hexadecimal."""
    plain = [float.fromhex(v) if isinstance(v, str) else v for v in values]
    kind = np.float64 if any(isinstance(v, float) for v in plain) else np.dtype(dtype)
    return np.array(plain, kind).astype(dtype).reshape(shape)


def is_real(a):
    return a.dtype.kind == "f" or a.dtype.name in ("bfloat16", "float8_e4m3fn")


# The point.
primals = {{
{primals}
}}
delta = {delta}
'''

_LARGE = '''\
import base64
import zlib


def unpacked(dtype, shape, *text):
    """A large array: its bytes, compressed."""
    return np.frombuffer(zlib.decompress(base64.b85decode("".join(text))), dtype).reshape(shape).copy()

'''

_VALUES = """
# What is compared, the subject's value of it there, and the tolerance of each entry: how far rounding may move it.
name, oracle_name = {name}, {oracle}
subject = {subject}
tolerance = {tolerance}
"""

_TORCH = """
# The reference states the primal only; PyTorch derives the rest, in float64.
import torch

{source}

leaves = {{n: torch.tensor(a.astype(np.float64) if is_real(a) else a) for n, a in primals.items()}}
leaves = {{n: t.requires_grad_(t.is_floating_point()) for n, t in leaves.items()}}
default = torch.get_default_dtype()
torch.set_default_dtype(torch.float64)  # of what the reference makes
y = {call}({arguments})
torch.set_default_dtype(default)
ys = tuple(y) if isinstance(y, (tuple, list)) else (y,)
if name in leaves:
    seeds = [torch.tensor(d.astype(np.float64)) for d in delta]
    oracle = torch.autograd.grad(ys, leaves[name], seeds)[0].numpy()
else:
    oracle = ys[{position}].detach().numpy()
"""

_JAX = """
# The reference states the primal only; JAX derives the rest, in float64.
import jax

jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp

{source}


def primal(real):
    leaves = {{n: real[n] if n in real else jnp.asarray(a) for n, a in primals.items()}}
    return {call}({arguments})


real = {{n: jnp.asarray(a, jnp.float64) for n, a in primals.items() if is_real(a)}}
y, pull = jax.vjp(primal, real)
if name in real:
    seeds = tuple(jnp.asarray(d, jnp.float64) for d in delta)
    oracle = np.asarray(pull(seeds if isinstance(y, tuple) else seeds[0])[0][name])
else:
    oracle = np.asarray(y[{position}] if isinstance(y, tuple) else y)
"""

_RECORDED = """
# What the oracle returned there, recorded: its source cannot be written into a file of its own.
oracle = {values}
"""

_REPORT_ONLY = """
# No comparison with an oracle shows it: call the subject with these, as the report above says.
print(__doc__)
sys.exit(1)
"""

_TAIL = """
print(f"{name}: the subject returned\\n", subject, f"\\n{oracle_name} returned\\n", oracle)
if subject.shape != oracle.shape:
    print("shapes differ:", subject.shape, "against", oracle.shape)
    sys.exit(1)
wide = subject.astype(np.float64)
with np.errstate(all="ignore"):
    error = np.where(wide == oracle, 0.0, np.abs(wide - oracle))
refused = ~(error <= tolerance)
for index in np.argwhere(refused)[:10]:
    i = tuple(index)
    print([int(k) for k in i], f"subject {subject[i]!r}, oracle {oracle[i]!r}, tolerance {tolerance[i]:.2g}")
print(int(refused.sum()), "of", refused.size, "entries differ by more than the tolerance")
sys.exit(int(refused.any()))
"""


def script(result: Result, report: str, compared: Compared | None = None) -> str:
    """Return the text of a file that shows the disagreement of a refused result.

    The reference is written out where its source is a plain function of its own; otherwise its values are recorded.

    Args:
        result: the refused result.
        report: its report, which becomes the docstring of the file.
        compared: the refused array and the oracle's, if they are known already.

    Raises:
        ValueError: if the result carries no point, or nothing in it is refused.
    """
    worst, setting = result.worst, result.setting
    if worst is None or setting is None or not worst.refuses:
        raise ValueError("script: expected a refused result with its point, got one without")
    title = f"{result.subject}: {worst.verdict} in {worst.quantity}"
    primals = [f"    {_text(n)}: {_literal(np.asarray(a))}," for n, a in setting.primals.items()]
    delta = ", ".join(_literal(np.asarray(d)) for d in as_tuple(setting.delta))
    # If the subject raises here, or returns no array, then that is the finding, and the report says it.
    names = tuple(setting.primals)
    gravest = in_core(result).worst or worst
    known = compared or result_or_none(lambda: compared_at(gravest, setting))
    # What a reference returns in a structure, or without a gradient, is recorded, and so is a part of its outputs.
    records = bool(result.shown) or any(isinstance(o.evaluate, Selected) for o in setting.oracles)
    records |= len(deltas := as_tuple(setting.delta)) > 1 and not all(map(np.any, deltas))
    wide = with_dtype(dict(setting.primals), np.float64)
    records |= known is not None and isinstance(result_or_none(lambda: known.oracle(**wide)[0]), Outputs)
    comparison = (known and result_or_none(lambda: _comparison(known, () if records else names))) or _REPORT_ONLY
    code = "\n".join([*primals, delta, comparison])
    helpers = "import ml_dtypes  # bfloat16 and the like\n" if "ml_dtypes." in code else ""
    helpers += _LARGE if "unpacked(" in code else ""
    head = _HEAD.format(
        docstring=_inside_docstring(f"{title}\n\n{report}"),
        helpers=helpers,
        primals="\n".join(primals),
        delta=f"[{delta}]",
    )
    return head + comparison


def _comparison(compared: Compared, primals: Sequence[str]) -> str:
    """Return the code that compares the refused array with the oracle's; "" if no comparison of values shows it."""
    if not compared.shows_the_defect:
        return ""  # right here, and wrong when called otherwise
    values = _VALUES.format(
        name=_text(compared.name),
        oracle=_text(compared.oracle.name),
        subject=_literal(compared.actual),
        tolerance=_literal(np.asarray(compared.tolerance + compared.radius)),
    )
    return values + _oracle_code(compared.oracle, compared.name, compared.expected, primals) + _TAIL


def _oracle_code(oracle: Rule, name: str, expected: Array, primals: Sequence[str]) -> str:
    """Return the code that computes the oracle's array from its reference, or that holds its values.

    ``primals`` are the names that the reference is called with; none if its values are to be recorded.
    """
    source = _source(oracle.reference, primals) if oracle.reference is not None and primals else None
    template = {Runtime.TORCH: _TORCH, Runtime.JAX: _JAX}.get(oracle.runtime)
    if source is None or template is None:
        return _RECORDED.format(values=_literal(expected))
    position = int(name[7:-1]) if name.startswith("output[") else 0
    return template.format(source=source.text, call=source.name, arguments=source.arguments, position=position)


class Source(NamedTuple):
    """The source of a function that needs nothing but itself and the modules that the script imports."""

    text: str
    name: str
    arguments: str


def _source(f: Callable[..., object], primals: Sequence[str]) -> Source | None:
    """Return the source of a plain function; ``None`` for lambdas, closures and what has no source."""
    if not inspect.isfunction(f) or f.__closure__:
        return None
    try:
        source = textwrap.dedent(inspect.getsource(f))
        (definition,) = ast.parse(source).body
    except (OSError, SyntaxError, TypeError, ValueError):
        return None
    if not isinstance(definition, ast.FunctionDef) or definition.decorator_list:
        return None
    if (_globals_of(f.__code__, f) | _names_of(definition.args, definition.returns)) - KNOWN_GLOBALS:
        return None
    try:
        inspect.signature(f).bind(**dict.fromkeys(primals))
        arguments = "**leaves"
    except TypeError:
        arguments = "*leaves.values()"
    functional = "import torch.nn.functional as F\n" if "F" in _globals_of(f.__code__, f) else ""
    return Source(functional + "from typing import Any\n\n" + source, definition.name, arguments)


def _globals_of(code: CodeType, f: FunctionType) -> set[str]:
    """Return the global names that a function uses, and the functions inside it."""
    names = {n for n in code.co_names if n in f.__globals__}
    return names.union(*(_globals_of(inner, f) for inner in code.co_consts if isinstance(inner, CodeType)))


def _names_of(*parts: ast.AST | None) -> set[str]:
    """Return the names in defaults and annotations, which are evaluated where the function is defined."""
    nodes = [node for part in parts if part is not None for node in ast.walk(part)]
    return {node.id for node in nodes if isinstance(node, ast.Name)} - vars(builtins).keys()


def _text(text: object) -> str:
    """Return a text as a literal."""
    return ascii("".join(str(text)))


def _inside_docstring(text: str) -> str:
    """Return a text as it stands between triple quotes: no character of it ends them or starts an escape."""
    escaped = [c if c == "\n" or (c.isprintable() and c != "\\") else ascii(c)[1:-1] for c in text]
    return "".join(escaped).replace('"""', '\\"\\"\\"')


def _literal(array: Array) -> str:
    """Return an array as a call of the script's ``array``, or of ``unpacked`` if it is large."""
    kind, shape = array.dtype, tuple(array.shape)
    dtype = f"ml_dtypes.{kind.name}" if kind.type.__module__ == "ml_dtypes" else repr(kind.name)
    if kind.kind == "c":
        parts = np.stack([array.real, array.imag], -1)
        return f"np.ascontiguousarray({_literal(parts)}).view({dtype})[..., 0]"
    if array.size > SCRIPT_ENTRIES:
        native = array.astype(array.dtype.newbyteorder("="))
        text = base64.b85encode(zlib.compress(native.tobytes())).decode("ascii")
        lines = [repr(text[i : i + LITERAL_WIDTH]) for i in range(0, len(text), LITERAL_WIDTH)]
        return f"unpacked({dtype}, {shape!r},\n        " + "\n        ".join(lines) + "\n    )"
    if array.dtype.char == "g":  # a long double is the sum of two floats
        high = array.astype(np.float64)
        with np.errstate(invalid="ignore"):
            low = np.where(np.isfinite(array) & (array != high), array - high, np.copysign(0.0, high))
        high_part, low_part = (_call("'longdouble'", shape, _entries(part)) for part in (high, low))
        return f"({high_part} + {low_part})"
    return _call(dtype, shape, array.ravel().tolist() if array.dtype.kind in "iub" else _entries(array))


def _entries(array: Array) -> list[str]:
    return [float(v).hex() for v in array.ravel()]


def _call(dtype: str, shape: tuple[int, ...], values: Sequence[object]) -> str:
    """Return the call of the script's ``array``, in lines of at most `LITERAL_WIDTH`."""
    lines = [""]
    for value in values:
        entry = f"{value!r}, "
        if len(lines[-1]) + len(entry) > LITERAL_WIDTH:
            lines.append("")
        lines[-1] += entry
    inner = lines[0].removesuffix(", ")
    if len(lines) > 1:
        inner = "\n" + "\n".join(" " * 8 + line.rstrip() for line in lines) + "\n    "
    return f"array({dtype}, {shape!r}, [{inner}])"

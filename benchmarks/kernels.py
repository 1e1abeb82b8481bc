"""Count which wrong kernels each tool lets through, and which right ones it refuses: `python benchmarks/kernels.py`.

The subjects are benchmarks/kernel_subjects: NumPy code as kernels are written, in bfloat16, float16 and float32, and
torch's own backwards in these. Every tool sees the same subject with the same primals, drawn from the subject's name.
  oracles    oracles.check(subject, primals, against=[oracles.torch_autograd(reference)])
  declared   the same with numerics=oracles.Numerics(dtype), where the kernel's author would declare it: what is
             stored is rounded once; not where the backward uses a rounded output, nor for torch's own
  allclose   np.allclose(rtol=1e-2, atol=1e-2), against the reference in float64
  twice      the largest error is at most twice that of torch's backward in the subject's dtype, both against float64
  cosine     the cosine to the reference in float64 is at least 0.99
  gradcheck  torch.autograd.gradcheck as it comes, of the same code fed with float64, where it computes in float64
The last four get one cotangent, drawn from a standard normal distribution; each gradient must pass. gradcheck gets it
as the weights of a sum of the outputs, so that its matrix of differences has one row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

from oracles.environment import pin_threads  # noqa: E402

pin_threads()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import oracles  # noqa: E402
from benchmarks.kernel_subjects import SUBJECTS, Subject  # noqa: E402
from benchmarks.kernel_subjects.kernel import DTYPES  # noqa: E402
from benchmarks.shared import Row  # noqa: E402
from oracles.rule import Array, Rule, as_tuple  # noqa: E402

Gradients = Mapping[str, Array]
TOOLS = ("oracles", "declared", "allclose", "twice", "cosine", "gradcheck")
OURS = "oracles", "declared"
TOLERANCE, LEAST_COSINE = 1e-2, 0.99  # those that published tests of kernels use


def in_float64(a: Any) -> Array:
    return np.asarray(a).astype(np.float64)


def cotangent(y: Any, dtype: str) -> Any:
    """Draw one cotangent of an output, of its structure and in a dtype."""
    rng = np.random.default_rng(1)
    drawn = [np.asarray(rng.standard_normal(np.shape(part))).astype(DTYPES[dtype]) for part in as_tuple(y)]
    return tuple(drawn) if isinstance(y, tuple) else drawn[0]


def gradients(rule: Rule, primals: Mapping[str, Array], delta: Any) -> dict[str, Array]:
    """Return the cotangents of the floating primals, in float64."""
    pulled = rule(**{name: a.copy() for name, a in primals.items()})[1](delta)
    return {n: in_float64(pulled[n]) for n, a in primals.items() if a.dtype.kind not in "ib"}


def compared(subject: Subject) -> tuple[Gradients, Gradients, Callable[[], Gradients]]:
    """Return the subject's gradients, those of the reference in float64, and a function to those in the dtype."""
    reference = oracles.torch_autograd(subject.reference)
    primals, wide = subject.primals(), subject.primals("float64")
    y, _ = subject.rule(**primals)
    delta = cotangent(y, subject.dtype)
    wide_delta = tuple(map(in_float64, delta)) if isinstance(delta, tuple) else in_float64(delta)
    own = oracles.manual(subject.torch_forward, subject.torch_pullback, arrays="torch")
    exact = gradients(reference, wide, wide_delta)
    return gradients(subject.rule, primals, delta), exact, lambda: gradients(own, primals, delta)


def by_allclose(subject: Subject) -> bool:
    actual, exact, _ = compared(subject)
    return not all(np.allclose(actual[n], g, rtol=TOLERANCE, atol=TOLERANCE) for n, g in exact.items())


def by_twice(subject: Subject) -> bool:
    actual, exact, own = compared(subject)
    by_torch = own()
    return not all(np.abs(actual[n] - g).max() <= 2 * np.abs(by_torch[n] - g).max() for n, g in exact.items())


def by_cosine(subject: Subject) -> bool:
    actual, exact, _ = compared(subject)
    return not all(_cosine(actual[n].ravel(), g.ravel()) >= LEAST_COSINE for n, g in exact.items())


def _cosine(a: Array, b: Array) -> float:
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths else float(not a.any() and not b.any())


class Written(torch.autograd.Function):
    """An autograd.Function around a rule, of one output or several."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, names: Sequence[str], fixed: Mapping[str, Array], *leaves: Any) -> Any:
        """Evaluate the rule and keep its pullback."""
        arrays = dict(zip(names, (leaf.detach().numpy() for leaf in leaves), strict=True))
        y, ctx.pullback = rule(**arrays, **fixed)
        ctx.names = names
        parts = tuple(torch.from_numpy(np.array(part)) for part in as_tuple(y))
        return parts if isinstance(y, tuple) else parts[0]

    @staticmethod
    def backward(ctx: Any, *deltas: Any) -> Any:
        """Return the gradients of the leaves."""
        arrays = tuple(delta.contiguous().numpy() for delta in deltas)
        pulled = ctx.pullback(arrays if len(arrays) > 1 else arrays[0])
        return None, None, None, *(torch.from_numpy(np.array(pulled[name])) for name in ctx.names)


def by_gradcheck(subject: Subject) -> bool | None:
    if not subject.in_float64:
        return None
    primals = subject.primals("float64")
    names = [name for name, a in primals.items() if a.dtype.kind == "f"]
    fixed = {name: a for name, a in primals.items() if name not in names}
    leaves = [torch.tensor(primals[name], requires_grad=True) for name in names]
    torch.manual_seed(0)  # of its random direction
    weights = [torch.from_numpy(part) for part in as_tuple(cotangent(subject.rule(**primals)[0], "float64"))]

    def weighted(*leaves: Any) -> Any:
        y = Written.apply(subject.rule, names, fixed, *leaves)
        return sum((part * w).sum() for part, w in zip(as_tuple(y), weights, strict=True))

    return not torch.autograd.gradcheck(weighted, leaves, raise_exception=False)


BY: Mapping[str, Callable[[Subject], bool | None]] = {
    "allclose": by_allclose,
    "twice": by_twice,
    "cosine": by_cosine,
    "gradcheck": by_gradcheck,
}


def judged(subject: Subject, declared: bool = False) -> tuple[bool, str]:
    """Return whether this project refuses the subject, and its verdict."""
    against = [oracles.torch_autograd(subject.reference)]
    numerics = oracles.Numerics(subject.dtype) if declared and subject.once else None
    try:
        return False, str(oracles.check(subject.rule, subject.primals(), against, numerics=numerics).verdict)
    except oracles.Disagreement as refused:
        return True, str(refused.verdict)
    except oracles.Inconclusive:  # counted as a mistake for either kind of subject
        return subject.right, "inconclusive"


def measured(subject: Subject, tools: Sequence[str]) -> Row:
    """Ask each tool, and return whether it refuses the subject and how long it took."""
    row: Row = {"name": subject.name, "kernel": subject.kernel, "dtype": subject.dtype, "right": subject.right}
    row["refused"], row["seconds"], row["verdicts"] = {}, {}, {}
    for tool in tools:
        start = time.perf_counter()
        if tool in OURS:
            row["refused"][tool], row["verdicts"][tool] = judged(subject, tool == "declared")
        else:
            row["refused"][tool] = BY[tool](subject)
        row["seconds"][tool] = time.perf_counter() - start
    return row


def total(rows: Sequence[Row], tool: str) -> Row:
    """Count what a tool caught and refused."""
    asked = [row for row in rows if row["refused"][tool] is not None]
    bugs, right = [row for row in asked if not row["right"]], [row for row in asked if row["right"]]
    caught = sum(row["refused"][tool] for row in bugs)
    seconds = [row["seconds"][tool] for row in asked]
    return {
        "tool": tool,
        "bugs": len(bugs),
        "caught": caught,
        "recall": caught / len(bugs) if bugs else None,
        "right": len(right),
        "false alarms": sum(row["refused"][tool] for row in right),
        "seconds": sum(seconds),
        "median seconds": statistics.median(seconds) if seconds else None,
    }


def shown(totals: Sequence[Row]) -> Table:
    """Return the totals as a table."""
    table = Table("tool", "bugs caught", "let through", "recall", "right ones refused", "seconds", "median")
    for row in totals:
        table.add_row(
            row["tool"],
            f"{row['caught']} of {row['bugs']}",
            str(row["bugs"] - row["caught"]),
            "–" if row["recall"] is None else f"{100 * row['recall']:.1f} %",
            f"{row['false alarms']} of {row['right']}",
            f"{row['seconds']:.1f}",
            "–" if row["median seconds"] is None else f"{row['median seconds']:.3f}",
        )
    return table


def line(row: Row, tools: Sequence[str]) -> str:
    """Return a subject's line: what each tool says, a mistake in capitals."""
    words = []
    for tool in tools:
        refused = row["refused"][tool]
        word = "not asked" if refused is None else "refuses" if refused else "accepts"
        words.append(f"{tool} {word.upper() if refused is row['right'] else word}")
    verdict = f" ({', '.join(row['verdicts'].values())})" if row["verdicts"] else ""
    return f"{'right' if row['right'] else 'bug':5} {row['name']}: {', '.join(words)}{verdict}"


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="TEXT", default=[""], help="subjects whose name has one of these")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS, help="the tools that are asked")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every answer to a file")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each subject")
    parsed = parser.parse_args(arguments)
    parsed.subjects = [s for s in SUBJECTS if any(text in s.name for text in parsed.only)]
    if not parsed.subjects:
        parser.error(f"--only: no subject's name has {' or '.join(map(repr, parsed.only))}")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print the table and the mistakes of this project."""
    parsed = options(arguments)
    warnings.simplefilter("ignore")  # gradcheck's on precision, and the judge's on what is vacuous
    torch.set_num_threads(1)
    for tool in parsed.tools:  # what each tool imports at its first call is not counted
        judged(SUBJECTS[0]) if tool in OURS else BY[tool](SUBJECTS[0])
    console, rows = Console(highlight=False, soft_wrap=True), []
    for subject in parsed.subjects:
        rows.append(measured(subject, parsed.tools))
        if parsed.verbose:
            print(line(rows[-1], parsed.tools), flush=True)
    totals = [total(rows, tool) for tool in parsed.tools]
    console.print(shown(totals))
    for row in rows:
        for tool, verdict in row["verdicts"].items():
            if row["refused"][tool] is row["right"]:
                print(f"{tool} is mistaken: {row['name']}: {verdict}")
    if parsed.json:
        document = {"torch": torch.__version__, "totals": totals, "rows": rows}
        parsed.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

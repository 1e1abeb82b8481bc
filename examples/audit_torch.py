"""Audit the derivatives that torch itself ships: judge operators at torch's own sample inputs, in three dtypes.

python examples/audit_torch.py --seconds 600 --markdown audit.md --json audit.json
python examples/audit_torch.py --operators "cumprod|amax|logit" --dtypes float64

In float64 the judge is JAX, where it has a function of that name with the same values there, else finite differences of
torch's own forward. In float32 and bfloat16 it is torch in float64. The table of operators is torch's own, of its test
suite: ``torch.testing._internal`` is no public interface and may be absent or differ in another version. It needs the
package expecttest.
"""

import argparse
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch

import oracles
from oracles.environment import write_atomically

DTYPES = {"float64": np.float64, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
MOST_ENTRIES = 1024  # of a sample: larger ones are left out
SECONDS_PER_CHECK = 20.0
NOT_JUDGED = "not judged"
ORDER = [NOT_JUDGED, *map(str, oracles.Verdict)]


@dataclass
class Row:
    """What was found for one operator in one dtype.

    Attributes:
        operator, dtype: which.
        points: how many sample inputs were judged.
        against: the references.
        verdict: the gravest verdict, "not judged" if there is none.
        refused: whether some point was refused.
        ratio: the largest error / tolerance.
        headline: the gravest finding in words.
        points_of: the gravest point: the values of its primals.
    """

    operator: str
    dtype: str
    points: int = 0
    against: str = ""
    verdict: str = NOT_JUDGED
    refused: bool = False
    ratio: float = 0.0
    headline: str = ""
    points_of: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """One sample input of an operator: a function of its tensors by name, and their values in float64.

    Attributes:
        f: the operator as a function of the tensors, its other arguments bound.
        primals: the tensors' values.
    """

    f: Callable[..., Any]
    primals: Mapping[str, np.ndarray]


def operators(pattern: str) -> list[Any]:
    """Return torch's own table of operators that have a derivative, those whose name matches."""
    try:
        from torch.testing._internal.common_methods_invocations import op_db
    except ImportError as error:
        raise SystemExit(
            f"audit_torch: torch's table of operators cannot be imported: {error}.\n"
            "Fix: pip install expecttest; a torch without its test suite has no such table"
        ) from error
    with_derivative = [op for op in op_db if op.supports_autograd and torch.float64 in op.dtypes]
    return [op for op in with_derivative if re.search(pattern, name_of(op))]


def name_of(op: Any) -> str:
    """Return the name of an operator with that of its variant."""
    return op.name + (f".{op.variant_test_name}" if op.variant_test_name else "")


def samples(op: Any, most: int) -> Iterator[Sample]:
    """Yield the first sample inputs that the judge can take: small, dense, real, with a floating tensor.

    After each comes the same with its numbers rounded to halves: zeros and ties are where derivatives are wrong.
    """
    found = 0
    torch.manual_seed(0)
    for given in op.sample_inputs("cpu", torch.float64, requires_grad=True):
        sample = sample_of(op, given)
        if sample is not None:
            yield sample
            yield Sample(sample.f, {n: rounded(a) for n, a in sample.primals.items()})
            found += 1
        if found == most:
            return


def sample_of(op: Any, given: Any) -> Sample | None:
    """Return a sample input as a function of its tensors; ``None`` if the judge cannot take it."""
    primals: dict[str, np.ndarray] = {}

    def take(value: Any) -> Any:
        """Replace every tensor that has a gradient by its name; the others are constants."""
        if isinstance(value, torch.Tensor) and value.requires_grad:
            name = f"t{len(primals)}"
            primals[name] = value.detach().numpy()
            return _Name(name)
        if isinstance(value, torch.Tensor):
            return _Constant(value)
        if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
            parts = [take(v) for v in value]
            return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
        return {k: take(v) for k, v in value.items()} if isinstance(value, dict) else value

    try:
        arguments, named = take((given.input, *given.args)), take(given.kwargs)
    except (RuntimeError, TypeError, ValueError):  # sparse, nested, conjugated
        return None
    entries = sum(a.size for a in primals.values())
    floating = [a for a in primals.values() if a.dtype == np.float64]
    strange = [a for a in primals.values() if a.dtype.kind not in "fiub"]
    if not floating or strange or not 0 < entries <= MOST_ENTRIES or not all(a.size for a in floating):
        return None

    def f(**tensors: torch.Tensor) -> Any:
        args, kwargs = put(arguments, tensors), put(named, tensors)
        # The wrapper makes a matrix symmetric or triangular where the operator reads a part of it alone.
        return given.output_process_fn_grad(op.gradcheck_wrapper(op.get_op(), *args, **kwargs))

    f.__name__ = name_of(op)
    return Sample(f, primals)


def rounded(array: np.ndarray) -> np.ndarray:
    """Return the floating numbers of an array rounded to halves."""
    return np.asarray(np.round(2 * array) / 2) if array.dtype == np.float64 else array


@dataclass(frozen=True)
class _Name:
    name: str


@dataclass(frozen=True)
class _Constant:
    tensor: torch.Tensor

    def like(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return a copy in the dtype of the tensors, with the values that bfloat16 has: the same in every dtype."""
        if not self.tensor.is_floating_point():
            return self.tensor.clone()
        return self.tensor.bfloat16().to(next(iter(tensors.values())).dtype)


def put(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Put tensors in the place of their names."""
    if isinstance(value, _Name):
        return tensors[value.name]
    if isinstance(value, _Constant):
        return value.like(tensors)
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        parts = [put(v, tensors) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return {k: put(v, tensors) for k, v in value.items()} if isinstance(value, dict) else value


# They read the memory behind their argument, whatever its shape and strides are.
READS_MEMORY = ("as_strided", "view_as_complex")


# Their gradient is zero or that of a sampled path by definition, and no other dtype draws the same.
DRAWS = ("bernoulli", "normal", "nn.functional.rrelu")


def why_not(sample: Sample, dtype: str) -> str | None:
    """Return why a sample cannot be judged: it raises when rounded (a matrix is no longer definite), it is random."""
    if sample.f.__name__.startswith(READS_MEMORY):
        return "defined by the memory of its argument and not by the values"
    before = torch.get_rng_state()
    try:
        tensors = {n: torch.from_numpy(a.copy()).to(getattr(torch, dtype)) for n, a in sample.primals.items()}
        y = sample.f(**tensors)
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"[:160]
    if sample.f.__name__.startswith(DRAWS) or not torch.equal(before, torch.get_rng_state()):
        return "draws random numbers: no other dtype draws the same"
    parts = y if isinstance(y, tuple | list) else (y,)
    floating = [p for p in parts if p.is_floating_point() or p.is_complex()]
    if any(p.real.dtype != getattr(torch, dtype) for p in floating):
        return "returns another dtype by definition"
    return None


def jax_counterpart(op: Any, sample: Sample) -> Callable[..., Any] | None:
    """Return JAX's function of the same name, if it takes the tensors alone and has the same values at this point."""
    import jax

    last = op.name.rpartition(".")[2]
    arrays = dict(sample.primals)
    with jax.enable_x64(True):
        for module in (jax.numpy, jax.nn, jax.scipy.special, jax.numpy.linalg):
            function = getattr(module, last, None)
            if not callable(function):
                continue
            try:
                ours = np.asarray(function(*(jax.numpy.asarray(a) for a in arrays.values())))
                theirs = sample.f(**{n: torch.from_numpy(a.copy()) for n, a in arrays.items()}).detach().numpy()
            except Exception:  # another function of that name: it takes other arguments, say
                continue
            same = ours.shape == theirs.shape and ours.dtype == theirs.dtype
            if same and np.all(np.abs(ours - theirs) <= 2.0**-40 * (1 + np.abs(theirs))):
                return lambda function=function, **tensors: function(*tensors.values())
    return None


def judged(op: Any, dtype: str, most: int) -> Row:
    """Judge one operator in one dtype."""
    row = Row(name_of(op), dtype)
    if getattr(torch, dtype) not in op.dtypes:
        row.headline = f"torch has no {dtype} for it"
        return row
    for sample in samples(op, most):
        if (reason := why_not(sample, dtype)) is not None:
            row.headline = row.headline or reason
            continue
        counterpart = jax_counterpart(op, sample) if dtype == "float64" else None
        if dtype != "float64":
            against = [oracles.torch_autograd(sample.f)]
        else:
            against = [oracles.jax_vjp(counterpart)] if counterpart else []
        judge_point(row, sample, against)
    row.headline = row.headline or ("" if row.points else "no sample that the judge can take")
    return row


def judge_point(row: Row, sample: Sample, against: list[oracles.Rule]) -> None:
    """Judge one point, and keep what is gravest."""
    primals = {n: a.astype(DTYPES[row.dtype]) if a.dtype == np.float64 else a for n, a in sample.primals.items()}
    subject = oracles.torch_differentiated(sample.f, name=row.operator)
    try:
        result = oracles.check(subject, primals, against, seconds=SECONDS_PER_CHECK)
    except (oracles.Disagreement, oracles.Inconclusive) as refusal:
        result = refusal.result
    except (oracles.InvalidInput, oracles.ReferenceFailed, oracles.InternalError) as error:
        row.headline = row.headline or f"{type(error).__name__}: {str(error).splitlines()[0]:.160}"
        return
    row.points += 1
    row.against = row.against or (against[0].name if against else "finite difference")
    row.ratio = max(row.ratio, result.ratio)
    verdict = str(result.verdict)
    if (result.refuses, ORDER.index(verdict)) > (row.refused, ORDER.index(row.verdict)):
        row.verdict, row.refused = verdict, result.refuses
        row.headline = headline(result) if verdict != "agrees" else ""
        row.points_of = {n: np.asarray(a, np.float64).tolist() for n, a in primals.items()}


def headline(result: oracles.Result) -> str:
    """Return the gravest finding in one line."""
    worst = result.worst
    if worst is None:
        return "; ".join(result.notes)
    evidence = worst.evidence
    values = "" if evidence.subject is None else f" {evidence.subject:.6g} for {dict(evidence.oracles)}"
    return f"{worst.quantity}{list(evidence.index) or ''}{values} {evidence.reason}".strip()


def markdown(rows: list[Row]) -> str:
    """Return the table, the gravest verdicts first, in GitHub's Markdown."""
    counts = {v: sum(row.verdict == v for row in rows) for v in ORDER}
    lines = [
        f"torch {torch.__version__}: {len({row.operator for row in rows})} operators, "
        f"{sum(row.points for row in rows)} points; " + ", ".join(f"{n} {v}" for v, n in counts.items() if n),
        "",
        "| operator | dtype | points | against | verdict | error / tolerance | finding |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: (not row.refused, -ORDER.index(row.verdict), row.operator)):
        verdict = f"**{row.verdict}**" if row.refused else row.verdict
        text = row.headline.replace("|", "\\|").replace("\n", " ")
        cells = [row.operator, row.dtype, row.points, row.against, verdict, f"{row.ratio:.3g}", text[:300]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run over the operators until the time is over; the files are whole at any moment."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--operators", default="", help="a regular expression; default: all")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="default: %(default)s")
    parser.add_argument(
        "--samples",
        type=int,
        default=2,
        help="inputs per operator, each also rounded to halves; default: %(default)s",
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="time for all; default: %(default)s")
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    chosen = operators(args.operators)
    rows: list[Row] = []
    end = time.monotonic() + args.seconds
    for i, op in enumerate(chosen):
        if time.monotonic() > end:
            print(f"out of time after {i} of {len(chosen)} operators")
            break
        for dtype in args.dtypes.split(","):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                row = judged(op, dtype, args.samples)
            rows.append(row)
            print(f"{i + 1}/{len(chosen)} {row.operator} {dtype}: {row.verdict} {row.headline[:100]}", flush=True)
        if args.markdown:
            write_atomically(args.markdown, markdown(rows))
        if args.json:
            write_atomically(args.json, json.dumps([asdict(row) for row in rows], indent=1))
    print(markdown(rows).splitlines()[0])


if __name__ == "__main__":
    main()

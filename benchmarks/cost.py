"""Measure what one check costs: agreeing and refusing, small and large, with a reference and without."""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

from oracles.environment import pin_threads  # noqa: E402

pin_threads()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rich.box import SIMPLE_HEAD  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

import oracles  # noqa: E402
from benchmarks.shared import Foreign, prepare_process  # noqa: E402
from manual_bp import CrossEntropy, LayerNorm, Linear, MultiHeadAttention, RMSNorm, Sequential, Softmax, Tanh  # noqa: E402
from oracles.backends.arrays import tensor  # noqa: E402
from oracles.backends.devices import require_device, synchronize  # noqa: E402
from oracles.decision.reduced_point import count_inputs  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402
from oracles.registry import reference_of  # noqa: E402
from oracles.rule import Array, Output, Primals, Pullback, Rule, Runtime, with_dtype  # noqa: E402

GUIDE = """\
The subjects are layers of manual_bp, or torch's own in bfloat16, right as they are, or with one cotangent times 0.99
(1.5 in bfloat16). With --device they are torch's own layers on that device, and so is the reference. Each check runs in
a process of its own, after three small ones that import and warm what all need, on one thread.
  inputs    entries of all primals that have a cotangent
  seconds   one oracles.check, with its diagnosis where it refuses
  × torch   that over one forward and backward of torch in the same dtype
  fast      torch.autograd.gradcheck(fast_mode=True) of torch's own backward in float64, over the same torch time
  calls     forwards of the subject
  memory    the peak of the process, beyond what it held before the check; with --device that of CUDA's memory
  order 2   with --order 2: the seconds of a check of order 2 over those of order 1

examples:
  python benchmarks/cost.py                         all cases, about five minutes
  python benchmarks/cost.py --only norm --most 1e6  layer norms of up to a million inputs
  python benchmarks/cost.py --order 2 --most 1e4    the second order of small layers
  python benchmarks/cost.py --device cuda           torch's layers on a GPU, references there too
  python benchmarks/cost.py --json cost.json        the figures, for a machine"""

GRADCHECK_INPUTS = 10**5  # gradcheck keeps several copies of everything
DTYPES = ("float64", "float32", "bfloat16")
REPETITIONS = 3  # of torch's own forward and backward


@dataclass(frozen=True)
class Case:
    """One check: what is judged, at which point, and whether it is wrong."""

    name: str
    layer: object
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    dtype: str
    classes: int = 0
    referenced: bool = True
    wrong: bool = False
    device: str | None = None

    @property
    def is_torchs(self) -> bool:
        """Whether torch's own layer is judged."""
        return self.dtype == "bfloat16" or self.device is not None


@dataclass(frozen=True)
class Cost:
    """What one check took."""

    case: str
    inputs: int
    dtype: str
    verdict: str
    seconds: float
    torch_seconds: float
    fast_seconds: float | None
    calls: int
    megabytes: float
    device: str
    order_seconds: float | None = None  # of a check of order 2


def cases() -> Iterator[Case]:
    """Yield all cases, small ones first."""
    for n, dtypes in ((8, DTYPES), (100, DTYPES), (320, DTYPES[:1])):
        network = Sequential(Linear(n, n), Tanh(), Linear(n, n), Tanh(), Linear(n, n))
        for dtype in dtypes:
            yield Case(f"MLP {n}", network, (("z", (n, n)),), dtype)
    for rows, columns, dtypes in ((32, 32, DTYPES), (100, 1000, DTYPES), (512, 1024, DTYPES[:1]), (1000, 1000, DTYPES)):
        for dtype in dtypes:
            yield Case(f"layer norm {rows}×{columns}", LayerNorm((columns,)), (("z", (rows, columns)),), dtype)
    for n, width in ((16, 16), (128, 64)):
        for dtype in DTYPES:
            yield Case(f"attention {n}×{width}", MultiHeadAttention(width, 4), (("z", (2, n, width)),), dtype)
    for n in (1024, 4096):
        yield Case(f"RMS norm {n}×{n}", RMSNorm((n,)), (("z", (n, n)),), "float32")
    for rows, classes in ((128, 8000), (512, 32000)):
        shape = (("y", (rows, classes)),)
        yield Case(f"cross-entropy {rows}×{classes}", CrossEntropy(), shape, "float32", classes)
    yield Case("softmax 32×32, no reference", Softmax(), (("z", (32, 32)),), "float64", referenced=False)


class Counted:
    """A rule whose forwards are counted, and one of whose cotangents may be scaled."""

    def __init__(self, rule: Rule, factor: float) -> None:
        self.rule, self.factor, self.calls = rule, factor, 0

    def evaluate(self, **primals: Array) -> tuple[Output, Pullback]:
        """Evaluate the rule."""
        self.calls += 1
        y, pullback = self.rule.evaluate(**primals)
        if self.factor == 1:
            return y, pullback

        def scaled(delta: Output) -> dict[str, Array]:
            cotangents = dict(pullback(delta))
            first = next(iter(cotangents))
            return {**cotangents, first: cotangents[first] * cotangents[first].dtype.type(self.factor)}

        return y, scaled


def primals_of(case: Case) -> dict[str, Array]:
    """Return the point of a case: normal numbers, and the parameters that the layer draws."""
    rng = np.random.default_rng(20)  # not 0, from which check draws its cotangents: delta must not be z
    primals = {name: rng.standard_normal(shape).astype(case.dtype) for name, shape in case.shapes}
    if case.classes:
        rows = case.shapes[0][1][0]
        return {**primals, "target": rng.integers(0, case.classes, rows)}
    layer: Foreign = case.layer
    return {**primals, **{n: np.asarray(a, case.dtype) for n, a in layer.init(rng).items()}}


def references_of(case: Case) -> tuple[Rule, Callable[..., Foreign]]:
    """Return torch's oracle, and the function that it differentiates."""
    reference: Foreign = reference_of(type(case.layer))
    options = dict(reference.options(case.layer))

    def function(**tensors: Foreign) -> Foreign:
        return reference.torch(**tensors, **options)

    return oracles.torch_autograd(function), function


def subject_of(case: Case, function: Callable[..., Foreign]) -> Rule:
    """Return the layer as a rule; torch's own, which ``function`` is, in bfloat16 and on a device."""
    if case.is_torchs:
        return oracles.torch_autograd(function, name=f"torch in {case.dtype}")
    return oracles.manual_loss(case.layer) if case.classes else oracles.manual_layer(case.layer)


def wait_for(device: str | None) -> None:
    """Wait until a device has done its work."""
    if device is not None:
        synchronize(device, Runtime.TORCH)


def torch_seconds(function: Callable[..., Foreign], primals: Primals, device: str | None) -> float:
    """Return how long one forward and backward of torch takes."""
    tensors = {n: tensor(a).to(device or "cpu") for n, a in primals.items()}
    given = [t.requires_grad_() for t in tensors.values() if t.is_floating_point()]
    times = []
    for _ in range(REPETITIONS):
        wait_for(device)
        start = time.perf_counter()
        y = function(**tensors)
        torch.autograd.grad(y, given, torch.ones_like(y))
        wait_for(device)
        times.append(time.perf_counter() - start)
    return median(times)


def fast_seconds(function: Callable[..., Foreign], primals: Primals, device: str | None) -> float | None:
    """Return how long gradcheck takes in its fast mode; ``None`` for a large point."""
    if count_inputs(primals) > GRADCHECK_INPUTS * 1.1:
        return None
    names = list(primals)
    tensors = [torch.from_numpy(a).to(device or "cpu") for a in with_dtype(dict(primals), np.float64).values()]
    for t in tensors:
        t.requires_grad_(t.is_floating_point())
    start = time.perf_counter()
    torch.autograd.gradcheck(
        lambda *given: function(**dict(zip(names, given, strict=True))), tensors, fast_mode=True, raise_exception=False
    )
    return time.perf_counter() - start


def check_seconds(
    counted: Counted,
    primals: Primals,
    against: Sequence[Rule],
    seconds: float,
    device: str | None,
    order: int = 1,
) -> tuple[str, float]:
    """Return the verdict of one check, and how long it took."""
    subject = replace(counted.rule, evaluate=counted.evaluate)
    start = time.perf_counter()
    try:
        result = oracles.check(subject, primals, against, seconds=seconds, device=device, order=order)
        verdict = str(result.verdict)
    except oracles.Disagreement as refusal:
        verdict = f"{refusal.verdict}" + (
            "" if refusal.diagnosis.startswith(f"every entry is {counted.factor:.4g}"[:18]) else ", undiagnosed"
        )
    except oracles.Inconclusive:
        verdict = "not decided"
    return verdict, time.perf_counter() - start


def cost(case: Case, seconds: float, order: int = 1) -> Cost:
    """Run one case, in this process."""
    # What torch imports at its first softmax or norm, and what a first check caches, is no cost of this one.
    for layer in (Tanh(), Softmax(), LayerNorm((4,))):
        warm = Case("", layer, (("z", (4, 4)),), "float64", device=case.device)
        oracle, function = references_of(warm)
        small = Counted(subject_of(warm, function), 1.0)
        check_seconds(small, primals_of(warm), [oracle], seconds, case.device, order)
    leave_imports_out_of_collections()
    oracle, function = references_of(case)
    factor = 1.0 if not case.wrong else 1.5 if case.dtype == "bfloat16" else 0.99
    primals, counted = primals_of(case), Counted(subject_of(case, function), factor)
    own = torch_seconds(function, primals, case.device)
    before = peak_of_memory(case.device, restart=True)
    verdict, spent = check_seconds(counted, primals, [oracle] if case.referenced else [], seconds, case.device)
    more = peak_of_memory(case.device) - before
    second = None
    if order == 2 and not case.wrong:
        _, second = check_seconds(
            Counted(counted.rule, 1.0), primals, [oracle] if case.referenced else [], seconds, case.device, order
        )
    fast = None if case.wrong else fast_seconds(function, primals, case.device)
    inputs, device = count_inputs(primals), case.device or "cpu"
    return Cost(case.name, inputs, case.dtype, verdict, spent, own, fast, counted.calls, more, device, second)


def leave_imports_out_of_collections() -> None:
    """Keep a full garbage collection, 0.2 s over what the imports left, from falling into the time of one check."""
    gc.collect()
    gc.freeze()


def peak_of_memory(device: str | None, restart: bool = False) -> float:
    """Return the peak of the memory of this process, or of CUDA's, in megabytes; CUDA's may start anew."""
    if device is None or torch.device(device).type != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if restart:
        torch.cuda.reset_peak_memory_stats(device)
    return float(torch.cuda.max_memory_allocated(device)) / 2**20


def table(costs: Sequence[Cost]) -> Table:
    """Return the table of the costs."""
    result = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for title in ("case", "inputs", "dtype", "verdict", "seconds", "× torch", "fast", "calls", "memory", "order 2"):
        result.add_column(title, justify="left" if title in ("case", "dtype", "verdict") else "right", no_wrap=True)
    for c in costs:
        ratio = f"{c.seconds / c.torch_seconds:.0f}"
        fast = "" if c.fast_seconds is None else f"{c.fast_seconds / c.torch_seconds:.0f}"
        memory = f"{c.megabytes:.0f} MB"
        second = "" if c.order_seconds is None else f"{c.order_seconds / c.seconds:.1f}"
        cells = (c.case, f"{c.inputs}", c.dtype, c.verdict, f"{c.seconds:.2f}", ratio, fast, f"{c.calls}", memory)
        result.add_row(*cells, second)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE, whole or not at all")
    parser.add_argument("--only", metavar="TEXT", default="", help="the cases whose name has TEXT")
    parser.add_argument("--most", metavar="N", type=float, default=1e9, help="the most inputs of a case")
    parser.add_argument("--seconds", metavar="T", type=float, default=120.0, help="the budget of a check (120)")
    parser.add_argument("--order", type=int, choices=(1, 2), default=1, help="2: time a check of order 2 too")
    parser.add_argument("--device", metavar="NAME", help="judge torch's own layers on this device: cuda")
    args = parser.parse_args(argv)
    if args.device is not None:
        try:
            require_device(args.device, Runtime.TORCH)
        except oracles.InvalidInput as error:
            parser.error(f"--device: {error}")
    console = Console(width=None if sys.stdout.isatty() else 128)
    sizes = {c.name: sum(int(np.prod(shape)) for _, shape in c.shapes) for c in cases()}
    chosen = [c for c in cases() if args.only in c.name and sizes[c.name] <= args.most]
    costs = []
    for case in chosen:
        for each in (replace(case, device=args.device), replace(case, device=args.device, wrong=True)):
            # A process of its own: its peak of memory is that of this check.
            with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=prepare_process) as pool:
                costs.append(pool.submit(cost, each, args.seconds, args.order).result())
            console.print(f"{costs[-1].case}: {costs[-1].verdict} in {costs[-1].seconds:.2f} s", highlight=False)
    console.print(table(costs))
    if args.json:
        write_atomically(args.json, json.dumps([asdict(c) for c in costs], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

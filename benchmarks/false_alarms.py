"""Count false alarms: correct gradients of manual_bp, torch and JAX, on hard inputs, that the judge calls wrong."""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder, where "oracles" would be a benchmark

from oracles.environment import pin_threads  # noqa: E402

pin_threads()

import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402
from rich.box import SIMPLE_HEAD  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: E402
from rich.table import Table  # noqa: E402

import benchmarks.complex_numbers  # noqa: E402  # registers its cases
import benchmarks.fft_convolution  # noqa: E402, F401  # registers its cases
from benchmarks.hard_inputs import DTYPES, XLA_BLOCK, Example, drawn_example, pools  # noqa: E402
from benchmarks.shared import Row, positive_count, prepare_process, whole_number  # noqa: E402
from oracles.backends.jax_reference import jax_vjp  # noqa: E402
from oracles.decision.judge import cotangents_like, judge  # noqa: E402
from oracles.environment import write_atomically  # noqa: E402
from oracles.forward_mode import forward_mode  # noqa: E402
from oracles.lazy_modules import jax  # noqa: E402
from oracles.numerics import precision_of  # noqa: E402
from oracles.options import Mode  # noqa: E402
from oracles.properties import EVERY_PROPERTY  # noqa: E402
from oracles.registry import entries  # noqa: E402
from oracles.report.disagreement import Disagreement  # noqa: E402
from oracles.rule import (  # noqa: E402
    Array,
    Delta,
    NotPerturbable,
    Primals,
    ReferenceFailed,
    Rule,
    Runtime,
    as_tuple,
    is_differentiable,
    map_delta,
    with_dtype,
)
from oracles.second_order import free_names  # noqa: E402
from oracles.tolerance import named_outputs, values_of  # noqa: E402
from oracles.verdict import Result, Verdict  # noqa: E402

GUIDE = """\
Subjects, all of them right, each judged by torch and JAX in float64 as any subject is,
in float64, float32, float16 and bfloat16:
  manual   manual_bp's layers          torch    torch's own backward, in the dtype of the row
  jax      JAX's own, in NumPy         xla      JAX's own, compiled: on a few shapes of each layer, to compile less
With --order 2 the pullbacks are the subjects: those of manual_bp by finite differences, not in half precision, and the
frameworks' own double backward; with --mode jvp the frameworks' own directional derivatives, of which manual_bp has
none. The examples are the same. Left out is what the framework cannot differentiate, and what is NaN or infinite: of
the second order in either dtype, of the forward mode as in the next sentence, there of y, J v and Jᵀ delta.
Left out is what computes in float16 or float32 throughout, a framework or a network of layers, where that overflows
or is NaN: in float32, XLA's softmax of scores of 1e7 and more is NaN where JAX's own, operation by operation, is not;
and where it is NaN in float64 of finite numbers: JAX has no derivative of the angle of 0.
An example is a layer, a configuration, a dtype, values, a cotangent and a memory layout, all determined by --seed
and its number. Values are drawn in eight ways: normal; a mean of 10^k times the spread; pairs that cancel; rows equal
but for a few units in the last place; zeros and ties; saturated; tiny; every entry of another magnitude. Magnitudes
are log-uniform in 1e-6 ... 1e6, of cotangents in 1e-3 ... 1e3 (float16: smaller, or everything overflows); a third of
the examples have entries overridden by what breaks things: 0, -0, 1e4, subnormal, a tie. Half of them have what a
search draws besides: ties within and between primals, half-integers, −∞ among scores, loss scales from 2^-24 to 2^16,
zeros in the cotangent; one configuration in twenty has an axis of a boundary size. Besides the layers there is a
convolution by FFT, with complex intermediates, which declares an accuracy by norm; and functions of complex numbers, in
complex128 and complex64: products, abs, angle, polar, exp, and Fourier transforms, which declare it, too.
  wrong    a false alarm: exit status 1     error    the judge raised: exit status 1
  refused  of all verdicts; unstable, kink and conflict may refuse too, and are listed in the JSON

examples:
  python benchmarks/false_alarms.py --json alarms.json         200,000 verdicts in two processes
  python benchmarks/false_alarms.py --examples 20000 --seed 7  a first look at other points
  python benchmarks/false_alarms.py --first 50000              the examples from number 50000 on
  python benchmarks/false_alarms.py --only complex             functions of complex numbers alone
  python benchmarks/false_alarms.py --order 2                  double backwards; about 4 GB for each process
  python benchmarks/false_alarms.py --seed 7 --reproduce 1234  judge example 1234 again, with the report"""

CHUNK = 120  # examples handed to a process at a time, at most
SHOWN = 20  # false alarms printed
OF_A_KIND = 3  # alarms of one subject, layer, dtype and verdict that are kept with their reports
FALSE = ("wrong", "error")
COMPOSED = ("oracles.references.composites", "oracles.references.network")  # layers made of layers
CATEGORIES = (*(str(v) for v in Verdict), "error")
TITLES = {"verdicts": "judged", "oracles_conflict": "conflict"}


@dataclass(frozen=True)
class Alarm:
    """A verdict that is not an agreement, and the numbers that reproduce it."""

    example: int
    subject: str
    layer: str
    dtype: str
    regime: str
    verdict: str
    report: str


@lru_cache(maxsize=1024)
def _compiled(reference: Callable[..., Any]) -> Rule:
    return jax_vjp(reference, name="xla", through="xla")


@lru_cache(maxsize=1)
def _forget_compiled(block: int) -> None:
    """Free what XLA has compiled for another block of examples."""
    _compiled.cache_clear()
    jax.clear_caches()


def subjects(example: Example, order: int = 1, mode: Mode = "vjp") -> Iterator[tuple[str, Rule]]:
    """Yield the subjects of an example: the layer of manual_bp, and each framework's own backward in that dtype.

    A framework computes in that dtype throughout, and is not right where that overflows. Of the second order and of the
    forward mode those are yielded that have one.
    """
    has_values = partial(_has_values, example, order, mode)
    # Within one layer manual_bp computes in float32, but one layer hands float16 to the next.
    if mode == "vjp" and (example.entry.module not in COMPOSED or not _overflows(*_at(example, example.case.subject))):
        yield "manual", example.case.subject
    for oracle in example.case.oracles():
        own = _own(oracle, example)
        if not has_values(own, oracle):
            continue  # compiled, it has none either
        yield oracle.name, own
        if oracle.runtime is Runtime.JAX and example.compiled and oracle.reference is not None:
            compiled = _own(_compiled(oracle.reference), example)
            if has_values(compiled, compiled):
                yield "xla", compiled


def _own(framework: Rule, example: Example) -> Rule:
    """Return a framework as a subject, marked as not evaluable on balls, since finding that out takes long."""

    def evaluate(**primals: Array) -> tuple[Any, Any]:
        if any(a.dtype == object for a in primals.values()):
            raise NotPerturbable(f"{framework.name} computes in floating point alone")
        y, pullback = framework(**primals)
        # torch has no derivative of an optimizer's step.
        return y, pullback if example.entry.pullback else lambda delta: {}

    name = f"{framework.name}'s own {example.entry.name}"
    # A convolution by FFT is as accurate as its norm, whoever computes it.
    own = replace(framework, evaluate=evaluate, name=name, convention=example.case.subject.convention)
    # As a subject it has no reference, so that it is not taken for one.
    return replace(own, derived=framework.derivatives.wrapped(evaluate, _as_subject))


def _as_subject(rule: Rule) -> Rule:
    return replace(rule, reference=None, evaluate_perturbed=None)


def _at(example: Example, rule: Rule) -> tuple[Rule, Primals, Delta]:
    """Return a rule with the point of an example."""
    return rule, example.point.primals, example.point.delta


def _has_values(example: Example, order: int, mode: Mode, own: Rule, framework: Rule) -> bool:
    """Return whether a framework has values at an example, in the dtype of the example and in float64.

    Of the second order and the forward mode: of what is differentiated there.
    """
    if order == 2:
        return _is_twice_differentiable(own, example)
    if mode == "jvp":
        try:
            return _has_tangents(own, example)
        except Exception:  # torch has no derivative of some backwards, nor of the optimizers
            return False
    if _overflows(*_at(example, own)):
        return False
    return not (example.entry.pullback and _is_nan(*_at(example, framework)))


def _has_tangents(own: Rule, example: Example) -> bool:
    """Return whether a framework's forward mode has values where the judge asks for them, see `tangents_agree`."""
    if own.derivatives.tangent is None:
        return False
    forward = forward_mode(own, example.point.primals, (), rng := np.random.default_rng(4), both=example.entry.pullback)
    (delta,) = cotangents_like(forward.subject(**forward.primals)[0], rng, 1)
    at = forward.subject, forward.primals, delta
    return not (_overflows(*at) or _is_nan(*at))


def _overflows(rule: Rule, primals: Primals, delta: Delta) -> bool:
    """Return whether a rule is NaN or infinite in its dtype, where its value in float64 is a number of that dtype."""
    dtype = precision_of(primals)
    if dtype == "float64":
        return False
    native = values_of(rule, primals, delta)
    wide = values_of(rule, with_dtype(primals, np.float64), with_dtype(delta, np.float64))
    most = float(ml_dtypes.finfo(dtype).max)
    return any(
        bool(np.any((~np.isfinite(native[n]) & (np.abs(wide[n]) <= most)) | (np.isnan(native[n]) & ~np.isnan(wide[n]))))
        for n in native
    )


def _is_nan(rule: Rule, primals: Primals, delta: Delta) -> bool:
    """Return whether a rule is NaN in float64 of finite numbers: JAX has no derivative of the angle of 0."""
    primals, delta = with_dtype(dict(primals), np.float64), with_dtype(delta, np.float64)
    if not all(np.isfinite(a).all() for a in (*primals.values(), *as_tuple(delta))):
        return False
    return any(bool(np.isnan(a).any()) for a in values_of(rule, primals, delta).values())


def _is_twice_differentiable(framework: Rule, example: Example) -> bool:
    """Return whether a framework has a double backward that is finite at an example, in its dtype and in float64."""
    point, second = example.point, framework.derivatives.second
    wrt = tuple(n for n, a in point.primals.items() if is_differentiable(a))
    if second is None or not wrt:
        return False
    parts = as_tuple(point.delta)
    names = free_names("delta", len(parts), point.primals)
    primals = {**point.primals, **dict(zip(names, parts, strict=True))}
    for arrays in (primals, with_dtype(primals, np.float64)):
        try:
            y, pullback = second(wrt, names)(**arrays)
            values = (*as_tuple(y), *pullback(map_delta(np.ones_like, y)).values())
        except Exception:  # torch has no derivative of some backwards
            return False
        if not all(np.isfinite(np.asarray(a, np.float64)).all() for a in values):
            return False
    return True


def judged(example: Example, subject: Rule, order: int = 1, mode: Mode = "vjp") -> Result | None:
    """Judge one subject at an example; only its output if it has no pullback.

    Of the second order and of the forward mode; ``None`` where a layer has none, as in half precision.
    """
    if order == 2 or mode == "jvp":
        property_name = "second_order_agrees" if order == 2 else "tangents_agree"
        case = replace(example.case, subject=subject)
        return EVERY_PROPERTY[property_name](case, example.point, example.case.oracles())
    only = None if example.entry.pullback else named_outputs(as_tuple(example.point.delta), {})
    case, point = example.case, example.point
    return judge(subject, point.primals, point.delta, case.oracles(), kinks=case.kinks, only=only)


def judge_chunk(
    seed: int, numbers: Sequence[int], only: str = "", order: int = 1, mode: Mode = "vjp"
) -> tuple[Counter[tuple[str, ...]], list[Alarm]]:
    """Judge some examples by every subject; return the counts and the alarms with their reports."""
    counts: Counter[tuple[str, ...]] = Counter()
    alarms: list[Alarm] = []
    counts_by_kind: Counter[tuple[str, ...]] = Counter()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in numbers:
            _forget_compiled(number // XLA_BLOCK)
            example = drawn_example(seed, number, only)
            for name, subject in subjects(example, order, mode):
                key = name, example.entry.name, example.point.dtype
                result: Result | None = None
                try:
                    result = judged(example, subject, order, mode)
                    if result is None:
                        continue
                    verdict = str(result.verdict)
                except ReferenceFailed:
                    continue  # no reference has a second derivative there
                except Exception:  # whatever the judge raises on a right gradient is counted
                    verdict = "error"
                counts[(*key, verdict)] += 1
                refused = result is None or result.refuses
                counts[(*key, "refused")] += refused
                counts[(*key, "unstable_refused")] += refused and verdict == Verdict.UNSTABLE
                if refused and counts_by_kind[(*key, verdict)] < (SHOWN if verdict in FALSE else OF_A_KIND):
                    counts_by_kind[(*key, verdict)] += 1
                    report = traceback.format_exc() if result is None else _report(result)
                    alarms.append(Alarm(number, *key, example.regime, verdict, report))
    return counts, alarms


def _report(result: Result) -> str:
    try:
        return str(Disagreement(result))
    except Exception:  # a report that raises must not hide the alarm
        return f"{result.worst}\nand its report raised\n{traceback.format_exc()}"


def _results(jobs: int, arguments: Iterator[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield what `judge_chunk` returns for each of some arguments, in any order.

    The processes end with them: one that has judged 25,000 examples takes 2.8 GB, which each of its forks copies.
    """
    executor = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=prepare_process)
    running: set[Future[Any]] = set()
    is_done = False
    try:
        while running or not is_done:
            while len(running) < 2 * jobs and not is_done:
                each = next(arguments, None)
                is_done = each is None
                if each is not None:
                    running.add(executor.submit(judge_chunk, *each))
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)
    finally:
        executor.shutdown(wait=not running, cancel_futures=True)


def count(
    examples: int,
    seed: int,
    jobs: int,
    console: Console,
    first: int = 0,
    only: str = "",
    order: int = 1,
    mode: Mode = "vjp",
) -> Row:
    """Judge, from example number ``first`` on, until so many verdicts are counted, or until interrupted."""
    counts: Counter[tuple[str, ...]] = Counter()
    alarms: list[Alarm] = []
    interrupted, started, done = False, time.perf_counter(), 0
    columns = TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn()
    size = min(CHUNK, 1 + examples // (6 * jobs))
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("verdicts", total=examples)
            for start in range(first, sys.maxsize, XLA_BLOCK):
                chunks = (range(n, min(n + size, start + XLA_BLOCK)) for n in range(start, start + XLA_BLOCK, size))
                for more, results in _results(jobs, ((seed, chunk, only, order, mode) for chunk in chunks)):
                    counts += more
                    alarms += results
                    done = sum(n for key, n in counts.items() if key[-1] in CATEGORIES)
                    wrong = sum(n for key, n in counts.items() if key[-1] in FALSE)
                    progress.update(task, completed=done, description=f"verdicts, {wrong} false alarms")
                    if done >= examples:
                        break
                if done >= examples:
                    break
    except KeyboardInterrupt:
        interrupted = True
    return {
        "seed": seed,
        "first": first,
        "only": only,
        "order": order,
        "mode": mode,
        "jobs": jobs,
        "interrupted": interrupted,
        "verdicts": done,
        "seconds": time.perf_counter() - started,
        "rows": table_rows(counts),
        "alarms": [asdict(alarm) for alarm in _reported(alarms)],
    }


def table_rows(counts: Mapping[tuple[str, ...], int]) -> list[Row]:
    """Return one row for each subject, layer and dtype."""
    keys = sorted({key[:3] for key in counts}, key=lambda k: (k[0] != "manual", k[0], k[1], DTYPES.index(k[2])))
    rows = []
    for key in keys:
        by = {name: counts.get((*key, name), 0) for name in (*CATEGORIES, "refused", "unstable_refused")}
        verdicts = sum(by[name] for name in CATEGORIES)
        rows.append({**dict(zip(("subject", "layer", "dtype"), key, strict=True)), "verdicts": verdicts, **by})
    return rows


def _reported(alarms: Sequence[Alarm]) -> list[Alarm]:
    """Return the false alarms first: so many of them, and of every kind of alarm the first few."""
    counts_by_kind: Counter[tuple[str, ...]] = Counter()
    results = []
    for alarm in sorted(alarms, key=lambda a: (a.verdict not in FALSE, a.example)):
        kind = alarm.verdict, alarm.subject, alarm.layer, alarm.dtype
        counts_by_kind[kind] += 1
        if counts_by_kind[kind] <= OF_A_KIND or (alarm.verdict in FALSE and len(results) < SHOWN):
            results.append(alarm)
    return results


def table(rows: Sequence[Row]) -> Table:
    """Return the counts as a table of at most 110 columns."""
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for title in ("subject", "layer", "dtype"):
        shown.add_column(title, no_wrap=True)
    titles = ("verdicts", *CATEGORIES, "refused")
    for title in titles:
        shown.add_column(TITLES.get(title, title), justify="right", no_wrap=True)
    total: Counter[str] = Counter()
    for row in rows:
        total.update({title: row[title] for title in titles})
        cells = [str(row[title]) if row[title] else "." for title in titles]
        shown.add_row(row["subject"], row["layer"], row["dtype"].replace("bfloat", "bf").replace("float", "f"), *cells)
    shown.add_section()
    shown.add_row("all", "", "", *(str(total[title]) for title in titles))
    return shown


def reproduce(
    seed: int, numbers: Sequence[int], console: Console, only: str = "", order: int = 1, mode: Mode = "vjp"
) -> int:
    """Judge some examples again and print the results; return 1 if any is wrong."""
    pools(seed, only)
    _, alarms = judge_chunk(seed, numbers, only, order, mode)
    for number in numbers:
        example = drawn_example(seed, number, only)
        console.print(f"example {number}: {example.case.subject.name}, {example.point.dtype}, {example.regime}")
        for name, a in {**example.point.primals, "delta": example.point.delta}.items():
            console.print(f"  {name} = {a!r}", markup=False, highlight=False)
        _print_alarms([a for a in alarms if a.example == number], seed, console)
    return int(any(a.verdict in FALSE for a in alarms))


def _print_alarms(alarms: Sequence[Alarm], seed: int, console: Console) -> None:
    for a in alarms:
        head = f"{a.verdict}: {a.subject} {a.layer} {a.dtype} {a.regime}"
        console.print(f"\n{head}   --seed {seed} --reproduce {a.example}", markup=False, highlight=False)
        console.print(a.report, markup=False, highlight=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=GUIDE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", help="write counts and alarms to FILE, whole or not at all")
    parser.add_argument("--examples", type=positive_count, default=200_000, metavar="N", help="verdicts (200000)")
    parser.add_argument("--seed", type=whole_number, default=0, metavar="S", help="of all draws (0)")
    parser.add_argument("--first", type=whole_number, default=0, metavar="E", help="the first example (0)")
    parser.add_argument("--only", default="", metavar="NAME", help="layers whose names begin with NAME")
    parser.add_argument("--order", type=int, choices=(1, 2), default=1, help="2: judge pullbacks as functions (1)")
    parser.add_argument("--mode", choices=("vjp", "jvp"), default="vjp", help="jvp: judge forward modes (vjp)")
    parser.add_argument("--jobs", type=positive_count, default=2, metavar="J", help="processes (2)")
    parser.add_argument("--reproduce", type=whole_number, nargs="+", metavar="E", help="judge these examples again")
    args = parser.parse_args(argv)
    if args.json and not Path(args.json).absolute().parent.is_dir():
        parser.error(f"--json: the folder of {args.json} does not exist")
    console = Console(width=None if sys.stdout.isatty() else 110)
    if not any(entry.name.startswith(args.only) for entry in entries()):
        parser.error(f"--only: no layer has a name that begins with {args.only!r}")
    if args.reproduce:
        return reproduce(args.seed, args.reproduce, console, args.only, args.order, args.mode)
    results = count(args.examples, args.seed, args.jobs, console, args.first, args.only, args.order, args.mode)
    wrong = sum(row["wrong"] + row["error"] for row in results["rows"])
    if args.json:
        write_atomically(args.json, json.dumps(results, indent=2) + "\n")
    console.print(table(results["rows"]))
    refused = [Alarm(**alarm) for alarm in results["alarms"] if alarm["verdict"] in FALSE]
    _print_alarms(refused[:SHOWN], args.seed, console)
    rate = results["verdicts"] / results["seconds"]
    console.print(
        f"\n{results['verdicts']} verdicts in {results['seconds']:.0f} s, {rate:.0f} a second: {wrong} false alarms"
        + (" (interrupted: these are the results until then)" if results["interrupted"] else ""),
        highlight=False,
    )
    return 130 if results["interrupted"] else int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

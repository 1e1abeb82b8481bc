"""``oracles check``: judge one subject at a few points, and print a report; write a script and JSON on request.

The points are primals from a file, from shapes, or from the subject's own file. A subject that is a strategy, or whose
type is registered, is searched instead.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from oracles.cli.outcomes import LEGEND, Outcome, align, not_judged, skipped
from oracles.cli.progress_line import progress_line
from oracles.cli.stored_arrays import arrays_of
from oracles.cli.subjects import NamedReference, adapt, find_reference, find_target
from oracles.constants import CHECK_SECONDS
from oracles.drawn_shapes import parse_shapes
from oracles.environment import describe_error, installed_versions, require_writable, write_atomically
from oracles.invariance import DETERMINISTIC, likely_batched
from oracles.lazy_modules import LazyModule
from oracles.missing import missing_of
from oracles.numerics import Numerics, precision_of
from oracles.point import check as check_point
from oracles.registry import Unusable, display_name
from oracles.report.disagreement import REPRODUCE, SCHEMA, Disagreement, Inconclusive, document, to_text
from oracles.rule import (
    Array,
    InternalError,
    ReferenceFailed,
    Rule,
    is_differentiable,
    one_or_tuple,
    with_dtype,
)
from oracles.strategies import Drawn
from oracles.structure import flattened, mapped, nested
from oracles.verdict import Finding, Result, Verdict

html = LazyModule("oracles.report.html")  # it loads what a small check does not need

# (seed, dtype, or None to keep the dtypes) -> primals
Tree: TypeAlias = Any  # an array, or a tree of arrays
PrimalsSource: TypeAlias = Callable[[int, str | None], dict[str, Tree]]


def check(args: argparse.Namespace) -> int:
    """Judge the target.

    Returns:
        0 if nothing refuses it, 1 if something does or if every point is inconclusive, 2 if nothing is known of it:
        the input is invalid, a reference fails, or the judge does; 3 if a package that it needs is not installed.

    Raises:
        Unusable: (a ValueError) for whatever on the command line cannot be used.
    """
    # Before the search, which may take minutes, and whose results could then not be written.
    for option, path in (("--script", args.script), ("--json", args.json), ("--html", args.html)):
        if path is not None:
            require_writable(option, path)
    earlier = html.require_page(args.html, args.compare) if args.html or args.compare else None
    with progress_line():
        try:
            outcome = _outcome(args)
        except ValueError as error:
            missing = missing_of(error)
            if missing is None:
                raise
            outcome = skipped(args.target, missing)
    last_line = (
        _write_script(outcome.refusal, args.script) if args.script else "  reproduce: --script OUT.py writes a file"
    )
    text = outcome.text.replace(REPRODUCE, last_line)
    if args.script and REPRODUCE not in outcome.text:
        text += f"\n{last_line}"
    print(text.partition("\n")[0] if args.quiet else text)
    request = {"target": args.target, "against": args.against, "seed": args.seed, "status": outcome.status}
    whole = {
        "schema": SCHEMA, "versions": installed_versions(), **request, "summary": outcome.text.partition("\n")[0],
        "results": outcome.results,
    }  # fmt: skip
    if args.json:
        write_atomically(args.json, to_text(whole) + "\n")
    if args.html:
        html.write_page(whole, args.html, earlier)
    return outcome.status


def _outcome(args: argparse.Namespace) -> Outcome:
    """Find what the command line names, and judge it."""
    subject, name, module = find_target(args.target)
    against = [find_reference(text, module) for text in args.against]
    if not (args.primals or args.shapes or hasattr(module, "primals")):
        from oracles.cli.case_search import cases_of, search_cases  # needs Hypothesis

        cases = cases_of(subject)
        if cases is not None:
            return search_cases(cases, name, against, args)
    if args.blocks:
        raise Unusable("--blocks: the shapes of the primals are given.\nFix:    leave it out, or let cases be drawn")
    rule = adapt(subject, name=name, source=args.target.rpartition(f":{name}")[0] or args.target)
    return _check_points(rule, name, against, source(args.primals, args.shapes, module, rule), args)


def _check_points(
    rule: Rule, name: str, against: Sequence[NamedReference], primals_at: PrimalsSource, args: argparse.Namespace
) -> Outcome:
    """Judge a subject at the points of one or more seeds, in each dtype, until one is refused."""
    numerics = Numerics.parse(args.numerics) if args.numerics else None
    parts = None if args.delta is None else tuple(arrays_of(args.delta, "--delta").values())
    results: list[Result] = []
    for dtype in args.dtype or (None,):
        for seed in range(args.seed, args.seed + (args.examples or 1)):
            primals = primals_at(seed, dtype)
            leaves = {n: np.asarray(a) for n, a in flattened(primals)[1].items()}
            if not args.batched and set(args.properties) - {DETERMINISTIC}:
                raise Unusable(
                    "--batched: expected the primals whose first axis holds independent rows.\n"
                    f"Fix:    --batched {','.join(likely_batched(leaves))}"
                )
            fed = precision_of(leaves)
            delta = None if parts is None else with_dtype(one_or_tuple(parts), fed)
            try:
                result = check_point(
                    rule, nested(primals), [each.rule for each in against], delta, outputs=args.outputs,
                    precision=args.precision, numerics=numerics, kinks=args.kinks or "any",
                    properties=args.properties, batched=args.batched, device=args.device, isolate=args.isolate,
                    seconds=args.seconds or CHECK_SECONDS, seed=seed, order=args.order, mode=args.mode,
                )  # fmt: skip
                results.append(result)
            except Disagreement as refusal:
                documents = [*(document(each, "") for each in results), refusal.document()]
                return Outcome(1, str(refusal), documents, refusal)
            except Inconclusive as unbounded:
                documents = [document(each, "") for each in (*results, unbounded.result)]
                return Outcome(1, f"{name}: {unbounded}", documents)
            except ReferenceFailed as error:
                fix = f"def reference({', '.join(primals)}): return y      # the primal only"
                raise Unusable(f"--against: {error}\nFix:    {fix}") from error
            except InternalError as error:
                return not_judged(name, error)
    complaint = _inconclusive(results)
    text = _report_points(name, results) + (f"\n  NOT PASSED: {complaint}" if complaint else "")
    return Outcome(int(bool(complaint)), text, [document(result, "") for result in results])


def _write_script(refusal: Disagreement | None, path: str) -> str:
    """Write the script that reproduces a refusal, and return the last line of the report."""
    if refusal is None:
        return f"  there is no refusal to reproduce: {path} is not written"
    try:
        write_atomically(path, refusal.script())
    except (OSError, TypeError, ValueError) as error:
        return f"  {path} is not written: {describe_error(error)}"
    return f"  reproduce: python {path}"


def _report_points(name: str, results: Sequence[Result]) -> str:
    """Return the report of results that refuse nothing, at one or several points."""
    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for result in results:
        precision = result.setting.precision if result.setting else ""
        for finding in result.findings:
            groups.setdefault((finding.quantity, finding.oracle, precision), []).append(finding)
    rows = [("", "judged by", "in", "verdict", "error / tolerance", "detects above")]
    rows += [(*group, *_summarize(findings)) for group, findings in groups.items()]
    lines = [f"{name}: {max(results, key=lambda result: result.gravity).verdict}", *align(rows), LEGEND]
    unclaimed = sorted({n for result in results for n in result.not_claimed})
    if unclaimed:
        lines.append(f"  no gradient claimed, nothing judged: {', '.join(unclaimed)}")
    lines += [f"  note: {note}" for note in dict.fromkeys(note for result in results for note in result.notes)]
    setting = results[0].setting
    if setting is not None:
        shapes = ", ".join(f"{n} {a.dtype}{list(a.shape)}" for n, a in setting.primals.items())
        points = f"{len(results)} points, the first " if len(results) > 1 else ""
        lines.append(f"  at: {points}{shapes}")
    return "\n".join(lines)


def _inconclusive(results: Sequence[Result]) -> str:
    """Return the reason why results that refuse nothing are still no pass; "" if they are one."""
    gradients = [f for result in results for f in result.findings if f.is_cotangent]
    if not gradients and any(result.not_claimed for result in results):
        return "the backward returned no gradient at all, so nothing of it was judged"
    if all(result.verdict is Verdict.VACUOUS for result in results):
        return "every point is inconclusive: rounding may move every entry by its own size; judge at other points"
    return ""


def _summarize(findings: Sequence[Finding]) -> tuple[str, str, str]:
    detectable = [f.detects_above for f in findings if f.detects_above]
    return (
        str(max(findings, key=lambda f: f.gravity).verdict),
        f"{max(f.ratio for f in findings):.2g}",
        f"{median(detectable):.0e}" if detectable else "exact",
    )


def source(primals: str | None, shapes: str | None, module: ModuleType, subject: Rule) -> PrimalsSource:
    """Return the function that gives the primals for a seed and a dtype, by the first source that is given.

    Raises:
        Unusable: (a ValueError) if there is no source, or it cannot be read; lists the possible ones.
    """
    if primals is not None:
        stored = arrays_of(primals, "--primals")
        return lambda seed, dtype: _cast(stored, dtype)
    if shapes is not None:
        drawn = parse_shapes(shapes)
        return lambda seed, dtype: _draw(drawn, subject, seed, dtype or "float64")
    if hasattr(module, "primals"):
        return partial(_from_module, module.primals, f"primals in {display_name(module)}")
    raise Unusable(
        f"no primals are given for {subject.name}.\n"
        'Fix:    --shapes "z=4,3 W=3,2", or --primals FILE.npz, or primals = {"z": ...} in the file'
    )


def _draw(drawn: Mapping[str, Drawn], subject: Rule, seed: int, dtype: str) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    arrays = {name: np.asarray(each.sample(rng, dtype, 1.0)) for name, each in drawn.items()}
    return arrays | {n: a for n, a in _parameters(subject, rng, dtype).items() if n not in arrays}


def _parameters(subject: Rule, rng: np.random.Generator, dtype: str) -> dict[str, Array]:
    """Return what a layer's own ``init`` draws, constant arrays (zeros, ones) replaced: they hide errors."""
    init = getattr(subject.implementation, "init", None)
    if init is None:
        return {}
    params = {name: np.asarray(a) for name, a in init(rng, np.dtype(dtype)).items()}
    constant = {name for name, a in params.items() if a.dtype.kind == "f" and a.size and np.ptp(a) == 0}
    return {name: rng.standard_normal(a.shape).astype(a.dtype) if name in constant else a for name, a in params.items()}


def _from_module(primals: object, what: str, seed: int, dtype: str | None) -> dict[str, Tree]:
    """Return the primals that a file defines: a mapping, or a function of a random generator or of nothing."""
    if callable(primals):
        takes = len(inspect.signature(primals).parameters)
        primals = primals(np.random.default_rng(seed)) if takes else primals()
    if not isinstance(primals, Mapping) or not primals:
        raise Unusable(
            f"{what}: expected a dict of arrays by name, or a function rng -> dict, got {primals!r:.60} "
            f'({type(primals).__name__}).\nFix:    primals = {{"z": np.ones((4, 3))}}'
        )
    return _cast({str(name): a for name, a in primals.items()}, dtype)


def _cast(primals: Mapping[str, Tree], dtype: str | None) -> dict[str, Tree]:
    def cast(value: Tree) -> Array:
        a = np.asarray(value)
        return a.astype(dtype) if dtype and is_differentiable(a) else a

    return {n: mapped(cast, tree) for n, tree in primals.items()}

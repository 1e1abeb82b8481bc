"""``oracles check``: one subject at a few points, told as a report, a script and JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from oracles.cli.names import Reference, reference, target
from oracles.cli.points import Source, arrays_of, source
from oracles.cli.subjects import adapt
from oracles.cli.summaries import agreement, nothing_seen, searched
from oracles.discovery import Unusable
from oracles.files import write_atomically
from oracles.interrupts import remembered
from oracles.options import FRAMEWORK_NAMES
from oracles.origin import raised_at
from oracles.point import check as judged
from oracles.registry import Case, entries_for
from oracles.report.disagreement import Disagreement
from oracles.report.document import document
from oracles.report.text import REPRODUCE
from oracles.rule import ReferenceFailed, Rule, with_dtype
from oracles.search import Tally, search
from oracles.tolerance import precision_of
from oracles.verdict import Result
from oracles.versions import versions


@dataclass(frozen=True)
class Outcome:
    """What a command has to say: its exit status, its text, what JSON holds, and the refusal if there is one."""

    status: int
    text: str
    results: Sequence[Mapping[str, Any]] = ()
    refusal: Disagreement | None = None


def check(args: argparse.Namespace) -> int:
    """Judge what the command line names; return 0 if nothing is refused, 1 if something is or nothing could be seen.

    Raises:
        Unusable: (a ValueError) for whatever on the command line cannot be used.
    """
    for option, path in (("--script", args.script), ("--json", args.json)):
        if path is not None and not Path(path).absolute().parent.is_dir():
            raise Unusable(f"{option}: the folder of {path} does not exist")
    subject, name, module = target(args.target)
    against = [reference(text, module) for text in args.against]
    cases = None if args.primals or args.shapes or hasattr(module, "primals") else _cases(subject)
    if cases is not None:
        outcome = _search(cases, name, against, args)
    else:
        rule = adapt(subject, name=name)
        outcome = _at_points(rule, name, against, source(args.primals, args.shapes, module, rule), args)
    said = _write_script(outcome.refusal, args.script) if args.script else "  reproduce: --script OUT.py writes a file"
    print(outcome.text.replace(REPRODUCE, said))
    if args.script and REPRODUCE not in outcome.text:
        print(said)
    if args.json:
        asked = {"target": args.target, "against": args.against, "seed": args.seed, "status": outcome.status}
        whole = {"schema": 1, "versions": versions(), **asked, "results": outcome.results}
        write_atomically(args.json, json.dumps(whole, indent=2) + "\n")
    return outcome.status


def _at_points(rule: Rule, name: str, against: Sequence[Reference], at: Source, args: argparse.Namespace) -> Outcome:
    given = None if args.delta is None else tuple(arrays_of(args.delta, "--delta").values())
    results: list[Result] = []
    for dtype in args.dtype or (None,):
        for seed in range(args.seed, args.seed + (args.examples or 1)):
            primals = at(seed, dtype)
            delta = None if given is None else with_dtype(given if len(given) > 1 else given[0], precision_of(primals))
            try:
                result = judged(
                    rule, primals, [each.rule for each in against], delta,
                    precision=args.precision, kinks=args.kinks or "any", isolate=args.isolate, seed=seed,
                )  # fmt: skip
                results.append(result)
            except Disagreement as refusal:
                found = [*map(_told, results), json.loads(refusal.to_json())]
                return Outcome(1, str(refusal), found, refusal)
            except ReferenceFailed as error:
                fix = f"def reference({', '.join(primals)}): return y      # the primal only"
                raise Unusable(f"--against: {error}\nFix:    {fix}") from error
    complaint = nothing_seen(results)
    text = agreement(name, results) + (f"\n  NOT PASSED: {complaint}" if complaint else "")
    return Outcome(int(bool(complaint)), text, [*map(_told, results)])


def _told(result: Result) -> dict[str, Any]:
    return document(result, "")


def _cases(subject: Any) -> st.SearchStrategy[Case] | None:
    """Return the cases that a subject is, or that are registered for its type."""
    if isinstance(subject, st.SearchStrategy):
        return subject
    matches = entries_for(subject) if isinstance(subject, type) else []
    return st.one_of([entry.cases for entry in matches]) if matches else None


def _search(
    cases: st.SearchStrategy[Case], name: str, against: Sequence[Reference], args: argparse.Namespace
) -> Outcome:
    """Search drawn cases for a point at which output or cotangents are refused."""
    if args.delta or args.precision or args.isolate:
        option = "--delta" if args.delta else "--precision" if args.precision else "--isolate"
        raise Unusable(
            f"{option}: {name} is judged where its cases are drawn.\nFix:    say where: --shapes, or --primals"
        )
    changed: dict[str, Any] = {each.rule.runtime.value: each.f for each in against}
    changed |= {"kinks": args.kinks} if args.kinks else {}
    if changed:
        cases = cases.map(lambda case: replace(case, **changed))
    tallies = []
    for dtype in args.dtype or ("float64",):
        for which in ("primal_agrees", "cotangents_agree"):
            tallies.append(Tally())
            try:
                with remembered() as interrupted_meanwhile:
                    search(
                        cases, which, dtype, against=[each.rule.runtime.value for each in against] or FRAMEWORK_NAMES,
                        label=name, max_examples=args.examples or 100, seed=args.seed, tally=tallies[-1],
                        tick=interrupted_meanwhile,
                    )  # fmt: skip
            except Disagreement as refusal:
                return Outcome(1, str(refusal), [json.loads(refusal.to_json())], refusal)
            except Exception as error:
                return Outcome(1, f"{name}: {raised_at(error)}", [{"verdict": "wrong", "reason": raised_at(error)}])
    text, rows = searched(name, tallies)
    return Outcome(0, text, rows)


def _write_script(refusal: Disagreement | None, path: str) -> str:
    if refusal is None:
        return f"  there is no refusal to reproduce: {path} is not written"
    try:
        write_atomically(path, refusal.script())
    except Exception as error:
        return f"  {path} is not written: {raised_at(error)}"
    return f"  reproduce: python {path}"

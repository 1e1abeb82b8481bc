"""``oracles campaign``: search for hours, with any number of workers on any number of machines; show what is found."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from oracles.campaign.engines import ENGINES
from oracles.campaign.identity import identity
from oracles.campaign.locations import open_store
from oracles.campaign.page import write_campaign_page
from oracles.campaign.store import Store, StoreFailed
from oracles.campaign.summary import summary
from oracles.campaign.units import Json, Plan, Searched
from oracles.campaign.worker import Task
from oracles.cli.campaign_report import report_lines, status_lines
from oracles.cli.supervision import EXIT_SKIPPED, INTERRUPTED
from oracles.cli.user_files import cases_in
from oracles.cli.workers import available_cores
from oracles.constants import REPORT_SECONDS
from oracles.environment import require_writable, write_atomically
from oracles.options import DTYPE_NAMES, FRAMEWORK_NAMES, SECOND_ORDER, derivative_properties
from oracles.properties import properties_of
from oracles.registry import Entry, entries
from oracles.report.disagreement import to_text
from oracles.report.html import require_page

# What may stand in the place of the first layer.
VIEWS = ("status", "report")


def campaign(args: argparse.Namespace) -> int:
    """Search until the budget is over, or show what a store holds.

    Returns:
        0 if nothing is refused, 1 if something is refused, not judged or inconclusive, 2 if the store fails, 3 if
        nothing is refused and something was skipped, 130 if interrupted; what is recorded until then is kept.

    Raises:
        ValueError: for wrong usage.
    """
    view = args.layers[0] if args.layers[:1] and args.layers[0] in VIEWS else None
    try:
        return _show(view, args) if view else _search(args)
    except StoreFailed as error:
        print(f"oracles: {error}", file=sys.stderr)  # without the usage: the command line is right
        return 2


def _show(view: str, args: argparse.Namespace) -> int:
    """Show what is recorded."""
    if len(args.layers) != 2:
        raise ValueError(f"{view}: expected one store.\nFix:    oracles campaign {view} DIR_OR_URL")
    require_page(args.html, None)
    for option, path in (("--json", args.json), ("--html", args.html)):
        if path:
            require_writable(option, path)
    store = open_store(args.layers[1], create=False)
    document = summary(store, args.code)
    print("\n".join(status_lines(document) if view == "status" else report_lines(document)))
    _write(document, args)
    store.close()
    return 0


def _write(document: Json, args: argparse.Namespace) -> None:
    if args.json:
        write_atomically(args.json, to_text(document) + "\n")
    if args.html:
        write_campaign_page(document, args.html)


def _search(args: argparse.Namespace) -> int:
    """Search, and print what is found."""
    if args.store is None:
        raise ValueError("expected a store, a folder or redis://HOST:PORT/DB.\nFix:    --store campaign")
    require_page(args.html, None)
    cases = tuple(_absolute(name) for name in args.cases)
    from_cases = {entry.name: entry for module in cases for entry in cases_in(module)}
    selected = list(from_cases.values()) if from_cases and not args.layers else entries(args.layers)
    about = identity(selected, cases)
    plan = _plan(args, selected, cases, about["code"])
    location = args.store if "://" in args.store else str(Path(args.store).absolute())
    store = open_store(location)
    store.open_plan(plan, {name: about[name] for name in ("versions", "files")})
    print(_heading(store, plan, args), flush=True)
    task = Task(location, plan, time.time() + args.budget, args.examples_from)
    jobs = args.jobs or (available_cores(most=sys.maxsize) if args.on == "local" else None)
    interrupted = False
    try:
        ENGINES[args.on](task, jobs, args.address, _progress(store, task))
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted: what is recorded is kept, the same command goes on", file=sys.stderr)
    document = summary(store, plan.code)
    print("\n".join(status_lines(document)))
    _write(document, args)
    store.close()
    return INTERRUPTED if interrupted else status_of(document)


def _plan(args: argparse.Namespace, selected: list[Entry], cases: tuple[str, ...], code: str) -> Plan:
    """Return the plan of a command line."""
    more = (*args.properties, *derivative_properties(args.order, args.mode))
    dtypes = tuple(dict.fromkeys(args.dtype or DTYPE_NAMES))
    searches = tuple(
        Searched(entry.name, name, dtype, 2 if name in SECOND_ORDER else 1)
        for entry in selected
        for name in (*properties_of(entry), *more)
        for dtype in dtypes
    )
    return Plan(
        code,
        searches,
        cases,
        os.getcwd(),
        tuple(args.against or FRAMEWORK_NAMES),
        points=args.max_examples,
        climb=args.max_examples // 3 if args.climb is None else args.climb,
        tiles=tuple(args.blocks),
        seed=args.seed,
        block=args.seeds_per_unit,
        rounds=args.rounds,
    )


def _absolute(name: str) -> str:
    """Return a file by its absolute path, which means the same to every process of this machine; a module as it is."""
    return str(Path(name).absolute()) if name.endswith(".py") else name


def _heading(store: Store, plan: Plan, args: argparse.Namespace) -> str:
    """Return what the campaign does, and what it does not count."""
    known = store.identities()
    recorded = next((each["units"] for each in known if each["code"] == plan.code), 0)
    apart = sum(each["units"] for each in known if each["code"] != plan.code)
    lines = [f"{len(plan.searches)} searches, {plan.block} seeds a unit, {args.budget:g} s, on {args.on}: {args.store}"]
    lines += [f"goes on: {recorded} units are recorded"] if recorded else []
    lines += [f"apart, by other code or versions: {apart} units, which do not count here"] if apart else []
    return "\n".join(lines)


def _progress(store: Store, task: Task) -> Callable[[], None]:
    """Return a function that prints now and then how much is recorded, and each new failure."""
    code, last = task.plan.code, time.monotonic()
    known = {example["failure"] for example in store.examples(code)}

    def tick() -> None:
        nonlocal last
        if time.monotonic() - last < REPORT_SECONDS:
            return
        last = time.monotonic()
        for example in store.examples(code):
            if example["failure"] not in known:
                known.add(example["failure"])
                print(example["text"], flush=True)
        units = next((each["units"] for each in store.identities() if each["code"] == code), 0)
        left = max(task.deadline - time.time(), 0.0)
        print(f"oracles campaign: {units} units recorded, {left:.0f} s left", file=sys.stderr)

    return tick


def status_of(document: Json) -> int:
    """Return the exit status of what a campaign has found."""
    if document["failures"] or document["inconclusive"]:
        return 1
    return EXIT_SKIPPED if document["skipped"] else 0

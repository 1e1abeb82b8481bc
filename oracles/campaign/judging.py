"""The process that judges the units of one worker: ``python -m oracles.campaign.judging``.

It reads one line of JSON for each unit and answers with lines of JSON. It writes no results into the store: whatever
the code under judgement does to this process, the worker in the other one gives the unit back.
"""

from __future__ import annotations

import json
import os
import queue
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import prod
from typing import TextIO

from hypothesis import Phase, settings

from oracles.campaign.coverage_documents import coverage_document
from oracles.campaign.examples import Saved, databases
from oracles.campaign.identity import identity
from oracles.campaign.units import Json, Plan, Unit, content_hash
from oracles.cli.verify_command import outcome_of
from oracles.cli.verify_report import Outcome
from oracles.constants import CAMPAIGN_TICK_SECONDS
from oracles.options import SearchOptions
from oracles.process_state import judging
from oracles.properties import ORACLE_PROPERTIES
from oracles.registry import BrokenCases, Entry, entries, entries_of
from oracles.report.disagreement import REPRODUCE, Disagreement, number
from oracles.search import Search
from oracles.tally import Tally

_NUMBERS = re.compile(r"-?\d[\d.]*(?:e[+-]?\d+)?")
_SEARCHING = (Phase.generate, Phase.target, Phase.shrink)
_REPLAYING = (Phase.reuse, Phase.shrink)


class Judging:
    """Judges the units of a plan."""

    def __init__(self, plan: Plan, store: str, shared: str | None) -> None:
        """Import the layers of a plan; examples are kept in the database of a store, and read from a shared one."""
        self.plan = plan
        warnings.simplefilter("ignore", BrokenCases)
        if plan.folder and os.path.isdir(plan.folder):
            os.chdir(plan.folder)
        for module in plan.cases:
            entries_of(module)
        names = list(dict.fromkeys(searched.layer for searched in plan.searches))
        self._entries = {entry.name: entry for entry in entries(names)}
        self.code = identity(self._entries.values(), plan.cases)["code"]
        self._saved = Saved()
        self._own, replayed = databases(store, shared)
        # Of one seed every process draws the same: no database is read, and nothing depends on the loaded profile.
        common = settings(database=None, derandomize=False, print_blob=False)
        profiles = {"search": (self._saved, _SEARCHING), "replay": (replayed, _REPLAYING)}
        for kind, (database, phases) in profiles.items():
            settings.register_profile(f"campaign-{kind}", settings(common, database=database, phases=phases))

    def result(self, unit: Unit, tick: Callable[[], object] = lambda: None) -> tuple[Json, Json | None]:
        """Judge a unit; return its record and, of a failure, the example.

        A block of seeds ends at the first one that fails: further ones mostly find the same.
        """
        settings.load_profile(f"campaign-{unit.kind}")
        started = time.perf_counter()
        worst: dict[str, int | None] = {}
        search, error, done = self._search(unit, None), None, 0
        for seed in unit.seeds or (None,):
            search = self._search(unit, seed, search)
            before = dict(search.tally.worst_ratio)
            error = search.attempt(tick)
            ratios = search.tally.worst_ratio
            worst |= {oracle: seed for oracle, ratio in ratios.items() if ratio > before.get(oracle, -1.0)}
            done += 1
            if error is not None:
                break
            self._saved.forget()
        if isinstance(error, Disagreement):
            self._saved.pass_on(self._own)
        self._saved.forget()
        outcome = outcome_of(search, error)
        example = _example(outcome, error, unit, unit.seeds[done - 1] if unit.seeds else None)
        record = _record(unit, self.plan, outcome, search, worst)
        failure = example["failure"] if example else None
        return {**record, "seeds_done": done, "failure": failure, "seconds": time.perf_counter() - started}, example

    def _search(self, unit: Unit, seed: int | None, before: Search | None = None) -> Search:
        """Return the search of a unit by a seed, which counts on from the one before."""
        searched, plan = unit.searched, self.plan
        entry: Entry = self._entries[searched.layer]
        climb = plan.climb if seed is not None and searched.property in ORACLE_PROPERTIES else 0
        options = SearchOptions(plan.against, plan.points, seed, blocks=plan.tiles, climb=climb, keep=True)
        tally = before.tally if before else Tally()
        return Search(entry.cases, searched.property, searched.dtype, entry.name, options=options, tally=tally)


def _record(unit: Unit, plan: Plan, outcome: Outcome, search: Search, worst: dict[str, int | None]) -> Json:
    """Return the record of a unit, in JSON's types."""
    rows = [
        {
            "oracle": row.oracle,
            "verdict": row.verdict,
            "examples": row.examples,
            "worst_ratio": number(row.worst_ratio),
            "worst_seed": worst.get(row.oracle),
            "vacuous": row.vacuous,
            "detects_above": row.detects_above_median,
        }
        for row in outcome.rows
    ]
    searched = unit.searched
    return {
        "code": plan.code,
        "kind": unit.kind,
        "layer": searched.layer,
        "property": searched.property,
        "dtype": searched.dtype,
        "order": searched.order,
        "seeds": list(unit.seeds),
        "points": search.tally.points,
        "rows": rows,
        "headline": outcome.failure.headline if outcome.failure else "",
        "verdict": outcome.failure.verdict if outcome.failure else "",
        "skipped": {name: missing.line for name, missing in outcome.skipped.items()},
        "out_of_time": outcome.out_of_time,
        "coverage": coverage_document(outcome.coverage),
    }


def _example(outcome: Outcome, error: Exception | None, unit: Unit, seed: int | None) -> Json | None:
    """Return the example of a failure, named by subject, verdict, diagnosis and primal; ``None`` without one.

    The numbers of a diagnosis depend on the point, so two that differ in them are one.
    """
    failure = outcome.failure
    if failure is None:
        return None
    diagnosis, primal, size, script = "", "", 0, ""
    if isinstance(error, Disagreement):
        worst = error.result.worst
        diagnosis, primal = error.diagnosis, worst.quantity if worst else ""
        primals = failure.report.get("primals", {})
        size, script = sum(prod(each["shape"]) for each in primals.values()), failure.report.get("script", "")
    name = [unit.searched.layer, failure.verdict, _NUMBERS.sub("#", diagnosis or failure.headline), primal]
    return {
        "failure": content_hash(name),
        "subject": unit.searched.layer,
        "verdict": failure.verdict,
        "diagnosis": diagnosis,
        "primal": primal,
        "property": unit.searched.property,
        "dtype": unit.searched.dtype,
        "seed": seed,
        "size": size,
        "text": failure.text.replace(REPRODUCE, _how_to_reproduce(unit, script, seed)),
        "script": script,
    }


def _how_to_reproduce(unit: Unit, script: str, seed: int | None) -> str:
    """Return the last line of a report: a campaign has no exception that could be asked for its script."""
    if script:
        return "  reproduce: the script of this failure, in the report of the campaign by --json or --html"
    again = f"oracles verify {unit.searched.layer}" + ("" if seed is None else f" --seed {seed}")
    return f"  reproduce: {again}"


def serve(lines: TextIO, answers: TextIO) -> None:
    """Judge the units that come as lines, after one with the plan, and answer each."""
    answer = _answering(answers)
    first = json.loads(lines.readline())
    judge = Judging(Plan.from_json(first["plan"]), first["store"], first["examples_from"])
    answer({"code": judge.code})
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody reads what the code under judgement says
    for line in _while_there_is_a_worker(lines):
        record, example = judge.result(judge.plan.unit(json.loads(line)["number"]), _ticking(answer))
        answer({"record": record, "example": example})


def _while_there_is_a_worker(lines: TextIO) -> Iterator[str]:
    """Yield the lines of a worker; when it has ended, end this process at once, in mid-unit too."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        with suppress(OSError, ValueError):
            for line in lines:
                waiting.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield waiting.get()


def _answering(answers: TextIO) -> Callable[[Json], None]:
    def answer(message: Json) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    return answer


def _ticking(answer: Callable[[Json], None]) -> Callable[[], None]:
    """Return a function that says now and then that the process is alive."""
    last, worker = time.monotonic(), os.getppid()

    def tick() -> None:
        nonlocal last
        if os.getppid() != worker:
            raise KeyboardInterrupt  # nobody waits for the answer
        if time.monotonic() - last > CAMPAIGN_TICK_SECONDS:
            last = time.monotonic()
            answer({"alive": True})

    return tick


def main() -> None:
    """Serve one worker; what the code under judgement prints goes nowhere."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    lines = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(nowhere, 0)
    with judging():
        serve(lines, answers)


if __name__ == "__main__":
    main()

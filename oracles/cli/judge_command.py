"""``oracles judge``: judge subjects whose code is not trusted: one, or as many as a file of jobs has."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from oracles.cli.progress_line import progress_line
from oracles.cli.workers import available_cores, run_in_workers
from oracles.environment import require_writable, write_atomically
from oracles.registry import Unusable
from oracles.rule import InvalidInput
from oracles.stages import announce
from oracles.untrusted.judgement import Judgement
from oracles.untrusted.judging import judge_untrusted
from oracles.untrusted.remote import Sandbox
from oracles.untrusted.schema import SCHEMAS, require_valid
from oracles.untrusted.statuses import Status

# A job with its number in the file, and the id that its judgement has.
NumberedJob = tuple[int, Mapping[str, Any]]


def judge_command(args: argparse.Namespace) -> int:
    """Judge one subject, or those of a file of jobs.

    Returns:
        0 if all pass, 2 if nothing is known of one, else 1 if one does not pass.

    Raises:
        ValueError: for whatever on the command line cannot be used.
    """
    if args.schema:
        print(json.dumps({name: SCHEMAS[name] for name in ("job", "judgement")}, indent=2))
        return 0
    if args.json is not None:
        require_writable("--json", args.json)
    if args.batch is not None:
        return _judge_batch(args)
    for option in ("subject", "reference", "cases"):
        if not getattr(args, option):
            raise Unusable(
                f"--{option}: expected one, or --batch JOBS.jsonl.\n"
                "Fix:    oracles judge --subject kernel.py:forward,backward --reference torch:reference.py:f "
                "--cases cases.json"
            )
    with progress_line():
        announce("starting the processes of the subject")
        judged = judge_untrusted(
            args.subject, args.reference, args.cases, hidden=[args.json] if args.json else [], **_options(args)
        )
    if args.json:
        write_atomically(args.json, judged.to_json() + "\n")
    print(_report(judged))
    return _exit_status([judged.status])


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "seconds": args.seconds, "memory_mb": args.memory, "processes": args.processes, "forbid": args.forbid,
        "seed": args.seed, "diagnosis": not args.no_diagnosis,
    }  # fmt: skip


def _report(judged: Judgement) -> str:
    lines = [f"{judged.subject}: {judged.status}", f"  {judged.reason}"]
    if judged.report:
        lines += [f"  {line}" for line in judged.report.splitlines()[1:-1]]
    kept_from = ", ".join(judged.protections) or "nothing: this system has no such protection"
    points = f"{len(judged.points)} point{'s' * (len(judged.points) != 1)}"
    lines.append(f"  {points}, {judged.calls} calls; the subject was kept from: {kept_from}")
    lines.append(f"  reproduce: --seed {judged.seed}")
    return "\n".join(lines)


def _exit_status(statuses: Sequence[str]) -> int:
    if Status.NOT_JUDGED in statuses:
        return 2
    return int(any(status != Status.PASSED for status in statuses))


def _judge_batch(args: argparse.Namespace) -> int:
    """Judge the jobs of a file in several processes, or of the standard input one after the other."""
    if args.batch == "-":
        with Sandbox() as sandbox:
            statuses = [
                _written(_judged(job, sandbox), sys.stdout) for job in _jobs(sys.stdin, "the standard input", args)
            ]
        return _exit_status(statuses)
    if args.json is None:
        raise Unusable("--batch: expected a file for the judgements.\nFix:    --json judgements.jsonl")
    try:
        with open(args.batch, encoding="utf-8") as file:
            jobs = list(_jobs(file, args.batch, args))
    except OSError as error:
        raise Unusable(f"--batch: {args.batch} cannot be read: {error.strerror}") from None
    earlier = _earlier(args.json) if args.resume else []
    done = {each["id"] for each in earlier}
    waiting = [(number, job) for number, job in jobs if job.get("id", number) not in done]
    statuses = [each["status"] for each in earlier]
    # Lines are added as they come, so that an interrupt loses none. Half a line of an earlier run is not kept.
    write_atomically(args.json, "".join(json.dumps(each) + "\n" for each in earlier))
    with open(args.json, "a", encoding="utf-8") as out, progress_line():

        def receive(document: dict[str, Any]) -> None:
            statuses.append(_written(document, out))
            announce(f"{len(statuses)} of {len(jobs)} jobs")

        _run(waiting, min(args.jobs or available_cores(), max(1, len(waiting))), receive)
    counts = Counter(statuses)
    print(", ".join(f"{status} {counts[status]}" for status in Status if counts[status]) or "no jobs")
    return _exit_status(statuses)


def _run(jobs: Sequence[NumberedJob], processes: int, receive: Callable[[dict[str, Any]], None]) -> None:
    """Judge jobs in processes of the judge's own, each of which keeps its sandbox."""

    def lost(job: NumberedJob, how: str) -> None:
        number, contents = job
        judged = Judgement(Status.NOT_JUDGED, f"the judge's process ended: {how}", contents["subject"], ())
        receive(judged.document(contents.get("id", number)))

    if processes == 1:
        for job in jobs:
            _work(job, receive)
    else:
        run_in_workers(jobs, _work, processes, receive, lost)


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    return Sandbox()


def _work(job: NumberedJob, receive: Callable[[dict[str, Any]], None]) -> None:
    receive(_judged(job, _sandbox()))


def _judged(job: NumberedJob, sandbox: Sandbox) -> dict[str, Any]:
    """Return the judgement of a job as JSON; whatever is wrong with the job itself is a reason not to judge."""
    number, contents = job
    arguments = {name: value for name, value in contents.items() if name != "id"}
    try:
        judged = judge_untrusted(**arguments, sandbox=sandbox)
    except ValueError as error:  # arguments that do not fit, and files that cannot be read
        judged = Judgement(Status.NOT_JUDGED, str(error), contents["subject"], ())
    return judged.document(contents.get("id", number))


def _written(document: dict[str, Any], out: IO[str]) -> str:
    out.write(json.dumps(document) + "\n")
    out.flush()
    return str(document["status"])


def _jobs(lines: IO[str], name: str, args: argparse.Namespace) -> Iterator[NumberedJob]:
    """Yield the jobs of a file, with the options of the command line where they say nothing else.

    Raises:
        InvalidInput: for a line that is no job; says which.
    """
    defaults = {name: value for name, value in _options(args).items() if value not in (None, (), [])}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            job = json.loads(line)
        except ValueError as error:
            raise InvalidInput(f"--batch: {name}, line {number}: no JSON: {error}") from None
        require_valid(job, "job", f"--batch: {name}, line {number}: ")
        yield number, {**defaults, "diagnosis": args.diagnosis, **job}


def _earlier(path: str) -> list[dict[str, Any]]:
    """Return the judgements that a file has, without what an interrupt has cut."""
    if not Path(path).exists():
        return []
    judgements = []
    for line in Path(path).read_text().splitlines():
        try:
            judgements.append(json.loads(line))
        except ValueError:
            continue
    return judgements

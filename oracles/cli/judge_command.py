"""``oracles judge``: judge subjects whose code is not trusted: one, or as many as a file of jobs has."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import IO, Any

from oracles.cli.jobs import Job, earlier_judgements, jobs_from, jobs_in, require_other_file
from oracles.cli.progress_line import progress_line
from oracles.cli.workers import available_cores, run_in_workers
from oracles.environment import require_writable, write_atomically
from oracles.registry import Unusable
from oracles.stages import announce
from oracles.untrusted.judgement import Judgement
from oracles.untrusted.judging import judge_untrusted
from oracles.untrusted.remote import Sandbox
from oracles.untrusted.schema import SCHEMAS
from oracles.untrusted.statuses import Status
from oracles.user_code import attempt


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
        return _judge_stream(args) if args.batch == "-" else _judge_batch(args)
    for option in ("subject", "reference", "cases"):
        if not getattr(args, option):
            raise Unusable(
                f"--{option}: expected one, or --batch JOBS.jsonl.\n"
                "Fix:    oracles judge --subject kernel.py:forward,backward --reference torch:reference.py:f "
                "--cases cases.json"
            )
    if args.json:
        single = {name: getattr(args, name) for name in ("subject", "reference", "cases")}
        require_other_file("--json", args.json, Job(0, single).files)
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


def _defaults(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the command line says of jobs that say nothing else."""
    options = {name: value for name, value in _options(args).items() if value not in (None, (), [])}
    return {**options, "diagnosis": args.diagnosis}


def _judge_stream(args: argparse.Namespace) -> int:
    """Judge the jobs of the standard input one after the other; a line that is no job is not judged."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    hidden = (args.json,) if args.json else ()
    with Sandbox() as sandbox:
        statuses = [
            _written(_judged(job, sandbox) if isinstance(job, Job) else job, sys.stdout)
            for job in jobs_from(sys.stdin, "the standard input", _defaults(args), hidden)
        ]
    return _exit_status(statuses)


def _judge_batch(args: argparse.Namespace) -> int:
    """Judge the jobs of a file in several processes."""
    if args.json is None:
        raise Unusable("--batch: expected a file for the judgements.\nFix:    --json judgements.jsonl")
    require_other_file("--json", args.json, [args.batch])
    try:
        with open(args.batch, encoding="utf-8-sig", errors="surrogateescape") as file:
            jobs = jobs_in(file, args.batch, _defaults(args), (args.batch, args.json))
    except OSError as error:
        raise Unusable(f"--batch: {args.batch} cannot be read: {error.strerror}") from None
    require_other_file("--json", args.json, {path for job in jobs for path in job.files})
    earlier = earlier_judgements(args.json) if args.resume else {}
    # A judgement counts for the job that was judged: with other arguments or files it is another job.
    kept = [earlier[job.id] for job in jobs if job.id in earlier and earlier[job.id].get("job") == job.hash]
    done = {each["id"] for each in kept}
    ids = {job.id for job in jobs}
    others = [each for number, each in earlier.items() if number not in ids]
    waiting = [job for job in jobs if job.id not in done]
    statuses = [each["status"] for each in kept]
    # Lines are added as they come, so that an interrupt loses none. Half a line of an earlier run is not kept.
    write_atomically(args.json, "".join(json.dumps(each) + "\n" for each in (*others, *kept)))
    with open(args.json, "a", encoding="utf-8") as out, progress_line():

        def receive(document: dict[str, Any]) -> None:
            statuses.append(_written(document, out))
            announce(f"{len(statuses)} of {len(jobs)} jobs")

        _run(waiting, min(args.jobs or available_cores(), max(1, len(waiting))), receive)
    counts = Counter(statuses)
    print(", ".join(f"{status} {counts[status]}" for status in Status if counts[status]) or "no jobs")
    return _exit_status(statuses)


def _run(jobs: Sequence[Job], processes: int, receive: Callable[[dict[str, Any]], None]) -> None:
    """Judge jobs in processes of the judge's own, each of which keeps its sandbox."""

    def lost(job: Job, how: str) -> None:
        receive(job.not_judged(f"the judge's process ended: {how}"))

    if processes == 1:
        for job in jobs:
            _work(job, receive)
    else:
        run_in_workers(jobs, _work, processes, receive, lost)


@lru_cache(maxsize=1)
def _sandbox() -> Sandbox:
    return Sandbox()


def _work(job: Job, receive: Callable[[dict[str, Any]], None]) -> None:
    receive(_judged(job, _sandbox()))


def _judged(job: Job, sandbox: Sandbox) -> dict[str, Any]:
    """Return the judgement of a job as JSON; whatever is raised for it is a reason not to judge it."""
    named = job.hash  # before: a file that changes meanwhile makes it another job

    def judged() -> Judgement:
        try:
            return judge_untrusted(**job.arguments, hidden=job.hidden, sandbox=sandbox)
        except SystemExit as error:  # of a reference, which is imported here
            raise RuntimeError(f"a reference ended the process: exit status {error.code}") from error

    outcome = attempt(judged)
    if isinstance(outcome, Judgement):
        return outcome.document(job.id, named)
    error = outcome.error
    # A ValueError says itself what is wrong: arguments that do not fit, and files that cannot be read.
    return job.not_judged(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


def _written(document: dict[str, Any], out: IO[str]) -> str:
    out.write(json.dumps(document) + "\n")
    out.flush()
    return str(document["status"])

"""The jobs of ``oracles judge --batch``: lines of JSON, and what tells a changed job from the one that was judged."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oracles.registry import Unusable
from oracles.rule import InvalidInput
from oracles.untrusted.judgement import Judgement
from oracles.untrusted.schema import require_valid
from oracles.untrusted.statuses import Status

_FILE = re.compile(r"(?:\w+:)?(?P<path>.*\.py):.+", re.DOTALL)


@dataclass(frozen=True)
class Job:
    """One line of a file of jobs.

    Attributes:
        id: its id, or the number of its line.
        arguments: of `oracles.judge_untrusted`.
        hidden: files that its subject must not read.
    """

    id: str | int
    arguments: Mapping[str, Any]
    hidden: tuple[str, ...] = ()

    @property
    def files(self) -> list[str]:
        """The files of the subject, of the references and of the cases."""
        reference, cases = self.arguments["reference"], self.arguments["cases"]
        named = [reference] if isinstance(reference, str) else [*reference]
        named += [self.arguments["subject"]] if "source" not in self.arguments else []
        files = [found["path"] for found in map(_FILE.fullmatch, named) if found]
        if isinstance(cases, str):
            files.append(cases)
            cases = _cases_in(cases)
        return files + [case["primals"] for case in cases if "primals" in case]

    @property
    def hash(self) -> str:
        """A hash of its arguments and of what its files hold: a job of another hash is another one."""
        held = [(path, _hash_of(path)) for path in self.files]
        return hashlib.sha256(json.dumps([self.arguments, held], sort_keys=True).encode()).hexdigest()[:32]

    def not_judged(self, reason: str) -> dict[str, Any]:
        """Return the judgement of a job of which nothing is known, as JSON."""
        judged = Judgement(Status.NOT_JUDGED, reason, self.arguments["subject"], ())
        return judged.document(self.id, self.hash)


def jobs_in(lines: Iterable[str], name: str, defaults: Mapping[str, Any], hidden: tuple[str, ...]) -> list[Job]:
    """Return the jobs of a file.

    Raises:
        InvalidInput: for a line that is no job, or has the id of another one.
    """
    jobs, numbers = [], dict[str | int, int]()
    for number, line in _numbered(lines):
        job = job_of(line, number, f"--batch: {name}, line {number}: ", defaults, hidden)
        if job.id in numbers:
            raise InvalidInput(
                f"--batch: {name}: lines {numbers[job.id]} and {number} have the same id, {job.id!r}; "
                "a job without an id has the number of its line.\nFix:    give each job an id of its own"
            )
        numbers[job.id] = number
        jobs.append(job)
    return jobs


def jobs_from(
    lines: Iterable[str], name: str, defaults: Mapping[str, Any], hidden: tuple[str, ...]
) -> Iterator[Job | dict[str, Any]]:
    """Yield each job of a stream; of a line that is none a judgement, whose id is the number of the line."""
    for number, line in _numbered(lines):
        try:
            yield job_of(line, number, f"{name}, line {number}: ", defaults, hidden)
        except InvalidInput as error:
            yield Judgement(Status.NOT_JUDGED, str(error), "", ()).document(number)


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, 1) if line.strip())


def job_of(line: str, number: int, what: str, defaults: Mapping[str, Any], hidden: tuple[str, ...] = ()) -> Job:
    """Return the job of a line, with defaults where it says nothing else.

    Raises:
        InvalidInput: if it is none; ``what`` begins the message.
    """
    try:
        line.encode()  # a byte that is no UTF-8 was read as half a surrogate
        contents = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what}no JSON: {error}") from None
    require_valid(contents, "job", what)
    arguments = {**defaults, **contents}
    return Job(arguments.pop("id", number), arguments, hidden)


def earlier_judgements(path: str) -> dict[str | int, dict[str, Any]]:
    """Return the judgements that a file has, by the ids of their jobs, without half a line that an interrupt has left.

    Raises:
        Unusable: if there is a line that is no judgement.
    """
    judgements: dict[str | int, dict[str, Any]] = {}
    text = Path(path).read_text(encoding="utf-8", errors="surrogateescape") if Path(path).exists() else ""
    *lines, cut = text.split("\n")
    for number, line in _numbered([*(f"{each}\n" for each in lines), cut]):
        try:
            judged = json.loads(line)
            require_valid({"job": None, **judged} if isinstance(judged, dict) else judged, "judgement", "")
        except (ValueError, RecursionError) as error:
            if not line.endswith("\n"):
                continue
            raise Unusable(
                f"--resume: {path}, line {number}: no judgement: {error}\n"
                "Fix:    name the file of judgements, or leave --resume out, which writes a new one"
            ) from None
        judgements[judged["id"]] = judged
    return judgements


def require_other_file(option: str, path: str, inputs: Iterable[str]) -> None:
    """Require that a file that is written is none of those that are read.

    Raises:
        Unusable: if it is one.
    """
    written = os.path.realpath(path)
    for each in inputs:
        if os.path.realpath(each) == written or (os.path.exists(path) and _is_same(each, path)):
            raise Unusable(f"{option}: {path} would overwrite what is read from {each}.\nFix:    name another file")


def _is_same(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.samefile(one, other)


def _cases_in(path: str) -> list[Mapping[str, Any]]:
    """Return the cases of a file as far as it has any: what is wrong with it is said where it is used."""
    try:
        contents = json.loads(Path(path).read_text())
        require_valid(contents, "cases file", "")
    except (OSError, ValueError, RecursionError):
        return []
    return list(contents["cases"])


def _hash_of(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""
